//! Response heads.

use super::chars::is_value;
use super::head::{first_line, framing, parse_fields};
use super::{Field, Kind, Limits, Malformed, Span, Version};

/// A response's head, as offsets into the buffer that it was parsed from. Used again for the next response.
#[derive(Debug, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The words after the status, as written.
    pub reason: Span,
    /// The version.
    pub version: Version,
    /// All fields, in their order.
    pub fields: Vec<Field>,
    /// The stated length of the body.
    pub length: Option<u64>,
    /// Whether the body comes in chunks.
    pub is_chunked: bool,
    /// Whether the connection can be used again after the body.
    pub keep_alive: bool,
    /// Whether `Connection` says `upgrade`.
    pub says_upgrade: bool,
    /// Length of the head in the buffer.
    pub size: usize,
}

impl Response {
    /// Whether the answer switches its connection to exactly this protocol, and states nothing else about what follows.
    #[must_use]
    pub fn switches_to(&self, protocol: &[u8], head: &[u8]) -> bool {
        let mut named = self.fields.iter().filter(|field| field.kind == Kind::Upgrade);
        let is_it = |field: &Field| field.value.of(head).eq_ignore_ascii_case(protocol);
        self.status == 101
            && self.version == Version::Http11
            && self.says_upgrade
            && named.next().is_some_and(is_it)
            && named.next().is_none()
            && !self.is_chunked
            && self.length.unwrap_or(0) == 0
    }

    /// Whether more heads follow for the same request.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// Whether no body follows, whatever the fields say.
    #[must_use]
    pub fn is_bodiless(&self, to_head: bool) -> bool {
        to_head || self.is_interim() || matches!(self.status, 204 | 304)
    }

    fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Response { fields, ..Response::default() };
    }
}

/// Reads the head that ends at `end` of `bytes` (see [`super::Scan`]) into `response`.
///
/// # Errors
///
/// The head is not a response that can be read in one way only.
pub fn parse_response(bytes: &[u8], end: usize, limits: &Limits, response: &mut Response) -> Result<(), Malformed> {
    response.clear();
    let head = bytes.get(..end).unwrap_or_default();
    let (line, fields_at) = first_line(head)?;
    if line.start != 0 {
        return Err(Malformed::Status);
    }
    status_line(line.of(head), response)?;
    parse_fields(head, fields_at, limits, &mut response.fields)?;
    let framing = framing(head, &mut response.fields)?;
    if response.version == Version::Http10 && framing.is_chunked {
        return Err(Malformed::Encoding);
    }
    response.size = end;
    response.length = framing.length;
    response.says_upgrade = framing.says_upgrade;
    response.is_chunked = framing.is_chunked;
    response.keep_alive = match response.version {
        Version::Http11 | Version::Http2 => !framing.says_close,
        Version::Http10 => framing.says_keep_alive && !framing.says_close,
    };
    Ok(())
}

/// Reads `version SP status [SP reason]`.
fn status_line(line: &[u8], response: &mut Response) -> Result<(), Malformed> {
    let (Some(version), Some(b" "), Some(status)) = (line.get(..8), line.get(8..9), line.get(9..12)) else {
        return Err(Malformed::Status);
    };
    response.version = Version::parse(version)?;
    let [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] = status else { return Err(Malformed::Status) };
    response.status = status.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    match line.get(12..).unwrap_or_default() {
        [] => {}
        [b' ', reason @ ..] if is_value(reason) => response.reason = Span::new(13, line.len()),
        _ => return Err(Malformed::Status),
    }
    Ok(())
}
