//! What request heads, response heads and trailers share: lines, fields, and where they end.

use super::chars::{is_token, is_value, trim};
use super::{Limits, Malformed};
use crate::trace_context::TraceField;

/// A range of a message's head, as offsets into the buffer it stands in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range from `start` to before `end`. Heads are bounded, so that both fit.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Span { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// The bytes in the buffer that the head was parsed from; nothing, if it is another one that is shorter.
    #[must_use]
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The same bytes as text; header values that are not UTF-8 give `None`.
    #[must_use]
    pub fn text(self, head: &[u8]) -> Option<&str> {
        std::str::from_utf8(self.of(head)).ok()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// The version of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        match text {
            b"HTTP/1.1" => Ok(Version::Http11),
            b"HTTP/1.0" => Ok(Version::Http10),
            _ => Err(Malformed::Version),
        }
    }

    /// As it stands in a log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// The fields that the proxy itself has something to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Just passed on.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Upgrade`.
    Upgrade,
    /// Another field of the connection: `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer`, `Proxy-Authenticate`, ….
    Hop,
    /// `Expect`.
    Expect,
    /// `X-Request-Id`.
    RequestId,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `User-Agent`.
    UserAgent,
    /// A part of a trace's context: `traceparent`, `tracestate`, B3.
    Trace(TraceField),
    /// `X-Envoy-*`, `X-Mesh-*` and `X-Forwarded-Client-Cert`: the mesh's own, never believed from outside.
    Internal,
}

impl Kind {
    /// What the proxy has to do with a field of this name, which is a token.
    ///
    /// # Errors
    ///
    /// Servers that take `_` and `-` for the same would read it as a second Host, length or framing.
    pub fn read(name: &[u8]) -> Result<Self, Malformed> {
        if name.contains(&b'_') { Kind::of_underscored(name) } else { Ok(Kind::of(name)) }
    }

    fn of(name: &[u8]) -> Self {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is(b"te") => Kind::Hop,
            4 if is(b"host") => Kind::Host,
            6 if is(b"expect") => Kind::Expect,
            7 if is(b"upgrade") => Kind::Upgrade,
            7 if is(b"trailer") => Kind::Hop,
            10 if is(b"connection") => Kind::Connection,
            10 if is(b"keep-alive") => Kind::Hop,
            10 if is(b"user-agent") => Kind::UserAgent,
            12 if is(b"x-request-id") => Kind::RequestId,
            14 if is(b"content-length") => Kind::ContentLength,
            14 if is(b"http2-settings") => Kind::Hop,
            15 if is(b"x-forwarded-for") => Kind::ForwardedFor,
            16 if is(b"proxy-connection") => Kind::Hop,
            17 if is(b"transfer-encoding") => Kind::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Kind::ForwardedProto,
            // Who calls is what a certificate proves, never what a header says.
            23 if is(b"x-forwarded-client-cert") => Kind::Internal,
            _ if has_prefix(name, b"x-envoy-") || has_prefix(name, b"x-mesh-") => Kind::Internal,
            _ => TraceField::of(name).map_or(Kind::Other, Kind::Trace),
        }
    }

    /// What a name with underscores means to servers that take `_` and `-` for the same, as CGI's heirs do.
    ///
    /// # Errors
    ///
    /// To them it would be a second Host, length or framing.
    fn of_underscored(name: &[u8]) -> Result<Self, Malformed> {
        let mut dashed = [0; 24];
        let length = name.len().min(dashed.len());
        for (to, from) in dashed.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        match Kind::of(dashed.get(..length).unwrap_or_default()) {
            Kind::Host | Kind::ContentLength | Kind::TransferEncoding | Kind::Connection => Err(Malformed::FieldName),
            Kind::Internal | Kind::ForwardedFor | Kind::ForwardedProto | Kind::RequestId => Ok(Kind::Internal),
            _ => Ok(Kind::Other),
        }
    }

    /// Whether the field belongs to one connection, so that it is never passed on.
    #[must_use]
    pub fn is_hop(self) -> bool {
        matches!(self, Kind::Connection | Kind::TransferEncoding | Kind::Upgrade | Kind::Hop)
    }
}

fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// One header field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name, as written.
    pub name: Span,
    /// Its value without surrounding white space.
    pub value: Span,
    /// What the proxy has to do with it.
    pub kind: Kind,
    /// Whether the line is exactly `name: value`, so that it may be copied as it stands.
    pub is_plain: bool,
    /// Whether `Connection` names it, so that it goes no further.
    pub is_nominated: bool,
}

/// Looks for the end of a head while its bytes arrive; no byte is looked at twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    line: usize,
    at: usize,
}

impl Scan {
    /// Returns the length of the head with its last empty line, or `None` if more bytes are needed.
    ///
    /// One empty line before the first is taken for part of the head.
    ///
    /// # Errors
    ///
    /// A line ends in LF alone, the head is over the limit, or its first byte cannot begin one.
    pub fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        // Other protocols' greetings would be waited for until their first newline, which may never come.
        if self.at == 0
            && let Some(first) = bytes.first()
            && *first != b'\r'
            && *first != b'\n'
            && !is_token(std::slice::from_ref(first))
        {
            return Err(if *first == 0x16 { Malformed::Tls } else { Malformed::Method });
        }
        while let Some(offset) = memchr::memchr(b'\n', bytes.get(self.at..).unwrap_or_default()) {
            let newline = self.at + offset;
            if newline == 0 || bytes.get(newline - 1) != Some(&b'\r') {
                return Err(Malformed::BareLineFeed);
            }
            let is_empty = newline - 1 == self.line;
            let is_first = self.line == 0;
            self.at = newline + 1;
            self.line = self.at;
            if self.at > limits.head {
                return Err(Malformed::HeadTooLarge);
            }
            if is_empty && !is_first {
                return Ok(Some(self.at));
            }
        }
        self.at = bytes.len().max(self.at);
        if self.at >= limits.head { Err(Malformed::HeadTooLarge) } else { Ok(None) }
    }
}

/// The first line of a head that [`Scan`] has found, and where the second begins.
pub(super) fn first_line(head: &[u8]) -> Result<(Span, usize), Malformed> {
    let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let end = memchr::memchr(b'\r', head.get(start..).unwrap_or_default()).ok_or(Malformed::Control)? + start;
    if head.get(end + 1) != Some(&b'\n') {
        return Err(Malformed::Control);
    }
    Ok((Span::new(start, end), end + 2))
}

/// Reads the fields from `at` to the empty line that ends `head`.
pub(super) fn parse_fields(
    head: &[u8],
    mut at: usize,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<(), Malformed> {
    loop {
        let rest = head.get(at..).unwrap_or_default();
        let length = memchr::memchr(b'\r', rest).ok_or(Malformed::Control)?;
        if rest.get(length + 1) != Some(&b'\n') {
            return Err(Malformed::Control);
        }
        if length == 0 {
            return Ok(());
        }
        if fields.len() >= limits.fields {
            return Err(Malformed::TooManyFields);
        }
        fields.push(parse_field(rest.get(..length).unwrap_or_default(), at)?);
        at += length + 2;
    }
}

/// Reads one line without its end, which stands at `at`.
pub(super) fn parse_field(line: &[u8], at: usize) -> Result<Field, Malformed> {
    if let [b' ' | b'\t', ..] = line {
        return Err(Malformed::Folded);
    }
    let colon = memchr::memchr(b':', line).ok_or(Malformed::FieldName)?;
    let (name, rest) = line.split_at(colon);
    if !is_token(name) {
        return Err(Malformed::FieldName);
    }
    let raw = rest.get(1..).unwrap_or_default();
    if !is_value(raw) {
        return Err(Malformed::Control);
    }
    let kind = Kind::read(name)?;
    let value = trim(raw);
    let lead = raw.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let start = if value.is_empty() { at + line.len() } else { at + colon + 1 + lead };
    Ok(Field {
        name: Span::new(at, at + colon),
        value: Span::new(start, start + value.len()),
        kind,
        is_plain: lead == 1 && raw.len() == value.len() + 1 && raw.first() == Some(&b' '),
        is_nominated: false,
    })
}

/// What a message's fields say about its connection and its length.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) is_chunked: bool,
    pub(super) says_close: bool,
    pub(super) says_keep_alive: bool,
    pub(super) says_upgrade: bool,
}

const MAX_CONNECTION_OPTIONS: usize = 32;

/// Reads the framing of a message and marks the fields that `Connection` names.
pub(super) fn framing(head: &[u8], fields: &mut [Field]) -> Result<Framing, Malformed> {
    let mut framing = Framing::default();
    let mut options = 0;
    for index in 0..fields.len() {
        let Some(field) = fields.get(index).copied() else { break };
        match field.kind {
            Kind::ContentLength => {
                if framing.length.is_some() {
                    return Err(Malformed::TwoLengths);
                }
                framing.length = Some(parse_length(field.value.of(head))?);
            }
            Kind::TransferEncoding => {
                if framing.is_chunked || !field.value.of(head).eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::Encoding);
                }
                framing.is_chunked = true;
            }
            Kind::Connection => {
                for option in field.value.of(head).split(|byte| *byte == b',') {
                    options += 1;
                    if options > MAX_CONNECTION_OPTIONS {
                        return Err(Malformed::Connection);
                    }
                    connection_option(head, trim(option), &mut framing, fields)?;
                }
            }
            _ => {}
        }
    }
    if framing.is_chunked && framing.length.is_some() {
        return Err(Malformed::LengthAndEncoding);
    }
    Ok(framing)
}

fn connection_option(head: &[u8], option: &[u8], framing: &mut Framing, fields: &mut [Field]) -> Result<(), Malformed> {
    if option.is_empty() {
        return Ok(());
    }
    if option.eq_ignore_ascii_case(b"close") {
        framing.says_close = true;
    } else if option.eq_ignore_ascii_case(b"keep-alive") {
        framing.says_keep_alive = true;
    } else if option.eq_ignore_ascii_case(b"upgrade") {
        framing.says_upgrade = true;
    } else if !is_token(option) || is_end_to_end(Kind::of(option)) {
        return Err(Malformed::Connection);
    } else {
        for field in fields.iter_mut().filter(|field| field.name.of(head).eq_ignore_ascii_case(option)) {
            field.is_nominated = true;
        }
    }
    Ok(())
}

/// The elements of a list, as `Connection` and `Upgrade` have one.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether it is `name` or `name/version`, as `Upgrade` lists them.
pub(super) fn is_protocol(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |byte| *byte == b'/');
    parts.all(is_token)
}

/// Whether a field is for the next server too, whatever `Connection` says: taking it away would change who is asked, by
/// whom, or for how much.
fn is_end_to_end(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Host | Kind::ContentLength | Kind::RequestId | Kind::ForwardedFor | Kind::ForwardedProto | Kind::Internal
    )
}

/// Reads a Content-Length: digits, nothing else.
pub(crate) fn parse_length(text: &[u8]) -> Result<u64, Malformed> {
    if text.contains(&b',') {
        return Err(Malformed::TwoLengths);
    }
    if text.is_empty() || text.len() > 19 {
        return Err(Malformed::Length);
    }
    text.iter().try_fold(0u64, |length, byte| match byte {
        b'0'..=b'9' => {
            length.checked_mul(10).and_then(|l| l.checked_add(u64::from(byte - b'0'))).ok_or(Malformed::Length)
        }
        _ => Err(Malformed::Length),
    })
}
