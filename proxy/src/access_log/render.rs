//! Writes a line as its format says.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use super::format::{Format, Manner, Part};
use super::operator::{Operator, Place, Shown, Source};
use super::text::{escaped, json_escaped};
use crate::arrival::Arrival;
use crate::failure::{Failure, long_flag};
use crate::principals::{Principal, Principals};
use crate::report::Note;
use crate::text::{address, ip, number, three_digits};
use crate::trace_context::{TraceContext, span_digits, trace_digits};

/// What happened to a request or connection, as far as lines tell of it.
pub(crate) struct Entry<'a> {
    pub(crate) note: &'a Note,
    /// How long it took.
    pub(crate) duration: Duration,
    /// When the upstream's head was there, counted from the begin.
    pub(crate) answered: Option<Duration>,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    pub(crate) flag: &'static str,
    pub(crate) failure: Option<Failure>,
    /// Bytes from the client, and to it.
    pub(crate) bytes: (u64, u64),
    pub(crate) arrival: &'a Arrival,
    /// Who has proved to be at the upstream's end.
    pub(crate) peer: (Principal, &'a Principals),
    /// Name of the cluster; empty for none.
    pub(crate) cluster: &'a str,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) upstream_local: Option<SocketAddr>,
    /// Endpoints that it was sent to.
    pub(crate) attempts: u32,
    /// Name of the route; empty for none.
    pub(crate) route: &'a str,
    /// The name that a TLS client asked for; empty for none.
    pub(crate) server_name: &'a str,
    pub(crate) grpc_status: Option<u8>,
    /// Which rules and policy refused it; empty for none.
    pub(crate) details: &'a str,
}

/// Text without spaces, as Envoy writes its details: they are one field of a line.
fn one_word(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_whitespace) {
        Cow::Owned(text.replace(char::is_whitespace, "_"))
    } else {
        Cow::Borrowed(text)
    }
}

impl<'a> Entry<'a> {
    /// Appends the line.
    pub(crate) fn write(&self, format: &Format, out: &mut Vec<u8>) {
        for part in &format.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Operator(operator, length, manner) => {
                    let to = Value { out, length: *length, manner: *manner };
                    self.value(operator, to);
                }
            }
        }
    }

    fn value(&self, operator: &Operator, to: Value<'_>) {
        match operator {
            Operator::StartTime(None) => to.made(|out| write_time(out, self.begun())),
            Operator::StartTime(Some(form)) => {
                // The form has been tried.
                let text = jiff::fmt::strtime::format(&**form, self.begun()).unwrap_or_default();
                to.text(text.as_bytes());
            }
            Operator::Request(first, second) => self.header(Note::request, *first, *second, to),
            Operator::Response(first, second) => self.header(Note::response, *first, *second, to),
            Operator::ResponseCode => to.number(self.status.into()),
            Operator::ResponseDetails => to.text(one_word(self.details()).as_bytes()),
            Operator::Failure => to.text(self.failure.map_or("", Failure::code).as_bytes()),
            Operator::Flags => to.text(if self.flag == "-" { b"" } else { self.flag.as_bytes() }),
            Operator::LongFlags => {
                let names: Vec<&str> = self.flag.split(',').map(long_flag).collect();
                to.text(names.join(",").as_bytes());
            }
            Operator::DownstreamPeer => {
                to.text(self.arrival.identity.as_ref().map_or("", |id| id.as_str()).as_bytes());
            }
            Operator::UpstreamPeer => {
                let (peer, principals) = self.peer;
                to.text(principals.id(peer).as_ref().map_or("", |id| id.as_str()).as_bytes());
            }
            // The mesh speaks no other.
            Operator::TlsVersion(is_upstream) => {
                let is_secure = if *is_upstream { self.peer.0.is_proved() } else { self.arrival.identity.is_some() };
                to.text(if is_secure { b"TLSv1.3" } else { b"" });
            }
            Operator::TlsFailure(is_upstream) => match self.failure {
                Some(Failure::UpstreamTls(why)) if *is_upstream => to.text(why.to_string().as_bytes()),
                Some(Failure::DownstreamTls(why)) if !*is_upstream => to.text(why.to_string().as_bytes()),
                _ => to.text(b""),
            },
            Operator::Protocol => to.text(self.note.version().as_bytes()),
            Operator::Duration => to.number(milliseconds(self.duration)),
            Operator::ResponseDuration => to.maybe(self.answered.map(milliseconds)),
            Operator::ResponseTxDuration => {
                to.maybe(self.answered.map(|at| milliseconds(self.duration.saturating_sub(at))));
            }
            Operator::BytesReceived => to.number(self.bytes.0),
            Operator::BytesSent => to.number(self.bytes.1),
            Operator::Address(place, shown) => to.address(self.address(*place), *shown),
            Operator::Cluster => to.text(self.cluster.as_bytes()),
            Operator::Route => to.text(self.route.as_bytes()),
            Operator::ServerName => to.text(self.server_name.as_bytes()),
            Operator::Attempts => to.number(self.attempts.into()),
            Operator::GrpcStatus => to.maybe(self.grpc_status.map(u64::from)),
            Operator::TraceId => {
                to.text(self.trace().map(|trace| trace_digits(trace.trace)).as_ref().map_or(b"", |d| d))
            }
            Operator::SpanId => to.text(self.trace().map(|trace| span_digits(trace.span)).as_ref().map_or(b"", |d| d)),
            Operator::ParentSpanId => {
                let parent = self.trace().map(|trace| trace.parent).filter(|parent| *parent != 0);
                to.text(parent.map(span_digits).as_ref().map_or(b"", |d| d));
            }
            Operator::Fixed(text) => to.text(text.as_deref().unwrap_or_default().as_bytes()),
            Operator::Nothing => to.text(b""),
        }
    }

    /// When the request began, by the clock on the wall.
    fn begun(&self) -> jiff::Timestamp {
        let now = jiff::Timestamp::now();
        now.checked_sub(self.duration).unwrap_or(now)
    }

    fn trace(&self) -> Option<&TraceContext> {
        self.note.trace().filter(|trace| trace.trace != 0)
    }

    fn details(&self) -> &'a str {
        match self.failure {
            Some(_) if !self.details.is_empty() => self.details,
            Some(failure) => failure.code(),
            None if self.status == 0 => "",
            None if self.upstream.is_some() => "via_upstream",
            None => "direct_response",
        }
    }

    fn header(&self, kept: fn(&Note, usize) -> &[u8], first: Source, second: Option<Source>, to: Value<'_>) {
        let find = |source: Source| match source {
            Source::Kept(at) => kept(self.note, at),
            Source::Method => self.note.method(),
            Source::Path => self.note.path(),
            Source::Authority => self.note.authority(),
            Source::Scheme if !self.note.method().is_empty() => b"http",
            Source::Scheme | Source::ServiceTime => b"",
        };
        let source = if is_there(find(first), first, self) { first } else { second.unwrap_or(first) };
        match source {
            Source::ServiceTime => to.maybe(self.answered.map(milliseconds)),
            source => to.text(find(source)),
        }
    }

    fn address(&self, place: Place) -> Option<SocketAddr> {
        match place {
            Place::Upstream => self.upstream,
            Place::UpstreamLocal => self.upstream_local,
            Place::DownstreamLocal => Some(self.arrival.destination),
            Place::DownstreamRemote => Some(self.arrival.peer),
        }
    }
}

fn is_there(value: &[u8], source: Source, entry: &Entry<'_>) -> bool {
    !value.is_empty() || (source == Source::ServiceTime && entry.answered.is_some())
}

/// Where the value of an operator goes.
struct Value<'o> {
    out: &'o mut Vec<u8>,
    length: Option<usize>,
    manner: Manner,
}

impl Value<'_> {
    /// Text from anywhere; empty is nothing.
    fn text(self, text: &[u8]) {
        let text = text.get(..self.length.unwrap_or(text.len())).unwrap_or(text);
        match self.manner {
            Manner::JsonValue if text.is_empty() => self.out.extend_from_slice(b"null"),
            Manner::Text | Manner::JsonText if text.is_empty() => self.out.push(b'-'),
            Manner::Text => escaped(self.out, text),
            Manner::JsonText => json_escaped(self.out, text),
            Manner::JsonValue => {
                self.out.push(b'"');
                json_escaped(self.out, text);
                self.out.push(b'"');
            }
        }
    }

    /// Text of our own making that needs no escapes.
    fn made(self, write: impl FnOnce(&mut Vec<u8>)) {
        let Value { out, length, manner } = self;
        if manner == Manner::JsonValue {
            out.push(b'"');
        }
        let start = out.len();
        write(out);
        if let Some(length) = length {
            out.truncate(start + length);
        }
        if manner == Manner::JsonValue {
            out.push(b'"');
        }
    }

    fn number(self, value: u64) {
        let start = self.out.len();
        number(self.out, value);
        // A number that is cut is no number.
        if let (Some(length), Manner::Text | Manner::JsonText) = (self.length, self.manner) {
            self.out.truncate(start + length);
        }
    }

    fn maybe(self, value: Option<u64>) {
        match value {
            Some(value) => self.number(value),
            None => self.text(b""),
        }
    }

    fn address(self, of: Option<SocketAddr>, shown: Shown) {
        match (of, shown) {
            (None, _) => self.text(b""),
            (Some(of), Shown::Whole) => self.made(|out| address(out, of)),
            (Some(of), Shown::Ip) => self.made(|out| ip(out, of.ip())),
            (Some(of), Shown::Port) => self.number(of.port().into()),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

thread_local! {
    /// The second that was written last, and its text.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// Appends a time in UTC, to the millisecond. The text of a second is made once.
fn write_time(out: &mut Vec<u8>, time: jiff::Timestamp) {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != time.as_second() {
            *second = time.as_second();
            *text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(text.as_bytes());
        out.push(b'.');
        three_digits(out, u16::try_from(time.subsec_millisecond()).unwrap_or_default());
        out.push(b'Z');
    });
}
