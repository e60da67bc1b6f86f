//! What is told of a request or connection after it: counters and a line of the log.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::tables::{Cluster, Endpoint};
use tokio::time::Instant;

use crate::access_log::{escaped, quoted};
use crate::codec::{Kind as FieldKind, Request, Span};
use crate::data::DataPath;
use crate::failure::Failure;
use crate::headers::Edge;
use crate::metrics::{Kind, TcpSeries};
use crate::text::{address, number, three_digits};
use crate::upstream::{Arrival, Target};

/// What the log says of a request's head, kept when the head itself has gone on. Used again for the next request.
#[derive(Debug, Default)]
pub(crate) struct Note {
    text: Vec<u8>,
    method: Span,
    path: Span,
    authority: Span,
    agent: Span,
    forwarded_for: Span,
    request_id: Span,
    version: &'static str,
}

impl Note {
    /// Takes down what the log says of a head.
    pub(crate) fn take(&mut self, request: &Request, head: &[u8]) {
        self.text.clear();
        self.version = request.version.as_str();
        let value = |kind| request.field(kind).map(|field| field.value.of(head)).unwrap_or_default();
        self.method = self.keep(request.method.of(head));
        self.path = self.keep(request.path(head));
        self.authority = self.keep(request.host.map(|host| host.of(head)).unwrap_or_default());
        self.agent = self.keep(value(FieldKind::UserAgent));
        self.forwarded_for = self.keep(value(FieldKind::ForwardedFor));
        self.request_id = self.keep(value(FieldKind::RequestId));
    }

    /// Takes down an id that the request was given.
    pub(crate) fn take_request_id(&mut self, id: &[u8]) {
        self.request_id = self.keep(id);
    }

    /// Whether the client asked with HEAD.
    #[must_use]
    pub(crate) fn is_head(&self) -> bool {
        self.method.of(&self.text) == b"HEAD"
    }

    /// Whether doing it twice is the same as once.
    #[must_use]
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method.of(&self.text), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// Takes down that no head could be read.
    pub(crate) fn clear(&mut self) {
        *self = Note { text: std::mem::take(&mut self.text), version: "-", ..Note::default() };
        self.text.clear();
    }

    fn keep(&mut self, value: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(value);
        // Both are below the limit of a head.
        Span {
            start: u32::try_from(start).unwrap_or(u32::MAX),
            end: u32::try_from(self.text.len()).unwrap_or(u32::MAX),
        }
    }
}

/// What happened to one request.
#[derive(Debug)]
pub(crate) struct Report {
    /// When its head was complete.
    pub(crate) begun: Instant,
    /// When the upstream's head was.
    pub(crate) answered: Option<Instant>,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
    /// Whether it was not tried again though its route would have it.
    pub(crate) is_retry_exceeded: bool,
    /// Whether a fault made it wait.
    pub(crate) delayed: bool,
    /// Bytes of the request's body.
    pub(crate) request_bytes: u64,
    /// Bytes of the response's body.
    pub(crate) response_bytes: u64,
    /// The cluster it went to.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The place it went to.
    pub(crate) target: Option<Target>,
}

impl Report {
    /// Nothing has happened yet.
    #[must_use]
    pub(crate) fn new(begun: Instant) -> Self {
        Report {
            begun,
            answered: None,
            status: 0,
            failure: None,
            is_retry_exceeded: false,
            delayed: false,
            request_bytes: 0,
            response_bytes: 0,
            cluster: None,
            target: None,
        }
    }

    fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.target.as_ref().and_then(|target| target.endpoint.as_ref())
    }

    /// Tells it, after the response.
    pub(crate) fn tell(&self, told: &Told<'_>, note: &Note, route: &str) {
        let Told { path, edge, arrival } = *told;
        let ended = Instant::now();
        let duration = ended.duration_since(self.begun);
        let flag = match self.failure {
            Some(failure) if self.is_retry_exceeded => failure.flag_after_retries(),
            Some(failure) => failure.flag(),
            None if self.is_retry_exceeded => "URX",
            None if self.delayed => "DI",
            None => "-",
        };
        let kind = Kind {
            edge,
            cluster: self.cluster.as_ref().map(|cluster| &cluster.spec),
            endpoint: self.endpoint(),
            status: self.status,
            flag,
        };
        path.metrics.request(&kind, duration, self.request_bytes, self.response_bytes);
        if path.access_log.is_some() {
            let line =
                Line { flag, duration_ms: milliseconds(duration), arrival, cluster: self.cluster.as_deref(), route };
            path.log(|out| self.write(out, note, &line));
        }
    }

    fn write(&self, out: &mut Vec<u8>, note: &Note, line: &Line<'_>) {
        let text = &note.text;
        write_now(out);
        out.extend_from_slice(b" \"");
        out.extend_from_slice(method(note.method.of(text)));
        out.push(b' ');
        // The quotes are around the request line as a whole.
        escaped(out, note.path.of(text));
        let code = self.failure.map_or("-", Failure::code);
        out.push(b' ');
        out.extend_from_slice(note.version.as_bytes());
        out.extend_from_slice(b"\" ");
        number(out, self.status.into());
        for word in [line.flag, code] {
            out.push(b' ');
            out.extend_from_slice(word.as_bytes());
        }
        for count in [self.request_bytes, self.response_bytes, line.duration_ms] {
            out.push(b' ');
            number(out, count);
        }
        out.push(b' ');
        match self.answered {
            Some(at) => number(out, milliseconds(at.duration_since(self.begun))),
            None => out.extend_from_slice(b"-1"),
        }
        out.push(b' ');
        for part in [note.forwarded_for, note.agent, note.request_id, note.authority] {
            quoted(out, part.of(text));
            out.push(b' ');
        }
        line.write_end(out, self.target.as_ref().map(|target| target.address));
    }
}

/// Who tells it, of whom.
pub(crate) struct Told<'a> {
    pub(crate) path: &'a DataPath,
    pub(crate) edge: Edge,
    pub(crate) arrival: &'a Arrival,
}

/// What a line says beside the request.
struct Line<'a> {
    flag: &'static str,
    duration_ms: u64,
    arrival: &'a Arrival,
    cluster: Option<&'a Cluster>,
    route: &'a str,
}

impl Line<'_> {
    fn write_end(&self, out: &mut Vec<u8>, upstream: Option<SocketAddr>) {
        out.push(b'"');
        match upstream {
            Some(upstream) => address(out, upstream),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b"\" ");
        out.extend_from_slice(self.cluster.map_or("-", |cluster| cluster.spec.name.as_str()).as_bytes());
        for end in [self.arrival.destination, self.arrival.peer] {
            out.push(b' ');
            address(out, end);
        }
        out.push(b' ');
        out.extend_from_slice(if self.route.is_empty() { "-" } else { self.route }.as_bytes());
        out.push(b'\n');
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn method(method: &[u8]) -> &[u8] {
    if method.is_empty() { b"-" } else { method }
}

thread_local! {
    /// The second that was written last, and its text.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// Appends the time of day in UTC, to the millisecond. The text of a second is made once.
fn write_now(out: &mut Vec<u8>) {
    let now = jiff::Timestamp::now();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            *second = now.as_second();
            *text = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.push(b'[');
        out.extend_from_slice(text.as_bytes());
        out.push(b'.');
        three_digits(out, u16::try_from(now.subsec_millisecond()).unwrap_or_default());
        out.extend_from_slice(b"Z]");
    });
}

/// What happened to one opaque connection; told when it is dropped.
pub(crate) struct TcpReport<'p> {
    pub(crate) path: &'p DataPath,
    edge: Edge,
    arrival: Arrival,
    /// The cluster that it goes to.
    pub(crate) cluster: Arc<Cluster>,
    target: Option<Target>,
    begun: Instant,
    series: Option<Arc<TcpSeries>>,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
    /// Bytes from the caller, and bytes to it.
    pub(crate) bytes: (u64, u64),
}

impl<'p> TcpReport<'p> {
    /// A connection that goes to this cluster.
    #[must_use]
    pub(crate) fn new(path: &'p DataPath, (edge, arrival): (Edge, &Arrival), cluster: &Arc<Cluster>) -> Self {
        TcpReport {
            path,
            edge,
            arrival: *arrival,
            cluster: Arc::clone(cluster),
            target: None,
            begun: Instant::now(),
            series: None,
            failure: None,
            bytes: (0, 0),
        }
    }

    /// It goes to this place.
    pub(crate) fn reaches(&mut self, target: &Target) {
        self.target = Some(target.clone());
    }

    /// The connection to the place has been made.
    pub(crate) fn opened(&mut self) {
        let series = self.find("-");
        series.opened.fetch_add(1, Ordering::Relaxed);
        self.series = Some(series);
    }

    fn find(&self, flag: &'static str) -> Arc<TcpSeries> {
        let endpoint = self.target.as_ref().and_then(|target| target.endpoint.as_ref());
        let kind = Kind { edge: self.edge, cluster: Some(&self.cluster.spec), endpoint, status: 0, flag };
        self.path.metrics.tcp_series(&kind)
    }
}

impl Drop for TcpReport<'_> {
    fn drop(&mut self) {
        let flag = self.failure.map_or("-", Failure::flag);
        let (received, sent) = self.bytes;
        let series = match (&self.series, flag) {
            (Some(series), "-") => Arc::clone(series),
            _ => self.find(flag),
        };
        if self.series.is_none() {
            series.opened.fetch_add(1, Ordering::Relaxed);
        }
        series.closed.fetch_add(1, Ordering::Relaxed);
        series.received.fetch_add(received, Ordering::Relaxed);
        series.sent.fetch_add(sent, Ordering::Relaxed);
        let duration_ms = milliseconds(self.begun.elapsed());
        let line = Line { flag, duration_ms, arrival: &self.arrival, cluster: Some(&self.cluster), route: "" };
        let code = self.failure.map_or("-", Failure::code);
        self.path.log(|out| {
            write_now(out);
            let _ = write!(out, " \"- - -\" 0 {flag} {code} {received} {sent} {duration_ms} -1 ");
            out.extend_from_slice(br#""-" "-" "-" "-" "#);
            line.write_end(out, self.target.as_ref().map(|target| target.address));
        });
    }
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl DataPath {
    /// Writes a line of the access log, if there is one.
    pub(crate) fn log(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(log) = &self.access_log else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            write(line);
            if !log.line(line) {
                self.metrics.dropped_log_lines.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}
