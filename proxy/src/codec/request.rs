//! Request heads.

use super::chars::is_token;
use super::head::{elements, first_line, framing, is_protocol, parse_fields};
use super::target::{check_host, check_tunnel, is_same_authority, parse_target, without_port};
use super::{Field, Kind, Limits, Malformed, Span, Version};

/// A request's head, as offsets into the buffer that it was parsed from. Used again for the next request.
#[derive(Debug, Default)]
pub struct Request {
    /// The method, as written.
    pub method: Span,
    /// Path and query of the target; empty for an absolute target without a path. See [`Request::path`].
    pub target: Span,
    /// The version.
    pub version: Version,
    /// The value of `Host`; `None` only in HTTP/1.0.
    pub host: Option<Span>,
    /// All fields, in their order.
    pub fields: Vec<Field>,
    /// The stated length of the body.
    pub length: Option<u64>,
    /// Whether the body comes in chunks.
    pub is_chunked: bool,
    /// Whether the client means to use the connection again.
    pub keep_alive: bool,
    /// Whether the client offers to switch to another protocol, which a server may always leave. See
    /// [`Request::offered`].
    pub wants_upgrade: bool,
    /// Length of the head in the buffer.
    pub size: usize,
}

impl Request {
    /// Path and query as they go on: never empty.
    #[must_use]
    pub fn path<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let path = self.target.of(head);
        if path.is_empty() {
            return if self.method.of(head) == b"OPTIONS" { b"*" } else { b"/" };
        }
        path
    }

    /// Whether anything follows the head.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.is_chunked || self.length.is_some_and(|length| length > 0)
    }

    /// Whether the client asks for a tunnel (CONNECT), whose end is its [`Request::target`].
    #[must_use]
    pub fn is_connect(&self, head: &[u8]) -> bool {
        self.method.of(head) == b"CONNECT"
    }

    /// The protocols that the client offers to switch to, in its order.
    pub fn offered<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields.iter().filter(move |field| self.wants_upgrade && field.kind == Kind::Upgrade);
        fields.flat_map(|field| elements(field.value.of(head)))
    }

    /// The first field of the kind.
    #[must_use]
    pub fn field(&self, kind: Kind) -> Option<&Field> {
        self.fields.iter().find(|field| field.kind == kind)
    }

    fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Request { fields, ..Request::default() };
    }
}

/// Reads the head that ends at `end` of `bytes` (see [`super::Scan`]) into `request`.
///
/// # Errors
///
/// The head is not a request that can be read in one way only. `request` then holds nothing of use, except the fields read so far.
pub fn parse_request(bytes: &[u8], end: usize, limits: &Limits, request: &mut Request) -> Result<(), Malformed> {
    request.clear();
    let head = bytes.get(..end).unwrap_or_default();
    let (line, fields_at) = first_line(head)?;
    let target = request_line(head, line, request)?;
    parse_fields(head, fields_at, limits, &mut request.fields)?;
    let framing = framing(head, &mut request.fields)?;
    host(head, target, request)?;
    request.size = end;
    request.length = framing.length;
    request.is_chunked = framing.is_chunked;
    request.keep_alive = match request.version {
        Version::Http11 | Version::Http2 => !framing.says_close,
        Version::Http10 => framing.says_keep_alive && !framing.says_close,
    };
    if request.version == Version::Http10 && framing.is_chunked {
        return Err(Malformed::Encoding);
    }
    request.wants_upgrade = request.version == Version::Http11
        && framing.says_upgrade
        && request.fields.iter().any(|field| field.kind == Kind::Upgrade);
    if !request.offered(head).all(is_protocol) {
        return Err(Malformed::Upgrade);
    }
    if request.is_connect(head) && (framing.length.is_some() || framing.is_chunked || request.wants_upgrade) {
        return Err(Malformed::Connect);
    }
    Ok(())
}

/// Reads `method SP target SP version`; the target's authority is given back.
fn request_line(head: &[u8], line: Span, request: &mut Request) -> Result<Option<Span>, Malformed> {
    let text = line.of(head);
    let start = line.start as usize;
    let method_end = memchr::memchr(b' ', text).ok_or(Malformed::Method)?;
    let (method, rest) = text.split_at(method_end);
    if !is_token(method) {
        return Err(Malformed::Method);
    }
    let rest = rest.get(1..).unwrap_or_default();
    let target_end = memchr::memchr(b' ', rest).ok_or(Malformed::Version)?;
    let (target, version) = rest.split_at(target_end);
    request.version = Version::parse(version.get(1..).unwrap_or_default())?;
    request.method = Span::new(start, start + method_end);
    if method == b"CONNECT" {
        check_tunnel(target)?;
        request.target = Span::new(start + method_end + 1, start + method_end + 1 + target_end);
        return Ok(Some(request.target));
    }
    let span = Span::new(start + method_end + 1, start + method_end + 1 + target_end);
    let target = parse_target(head, span, method)?;
    request.target = target.path;
    Ok(target.authority)
}

/// Checks that the request names exactly one host, and the same one in its target.
fn host(head: &[u8], target: Option<Span>, request: &mut Request) -> Result<(), Malformed> {
    let mut hosts = request.fields.iter().filter(|field| field.kind == Kind::Host);
    let host = hosts.next().map(|field| field.value);
    if hosts.next().is_some() {
        return Err(Malformed::TwoHosts);
    }
    match host {
        Some(host) => {
            check_host(host.of(head))?;
            // The port of a tunnel is often left out of its host.
            let is_of = |target: Span| {
                let (target, host) = (target.of(head), host.of(head));
                is_same_authority(target, host)
                    || request.is_connect(head) && without_port(target).eq_ignore_ascii_case(host)
            };
            if !target.is_none_or(is_of) {
                return Err(Malformed::HostDisagrees);
            }
        }
        None if request.version == Version::Http11 => return Err(Malformed::NoHost),
        None => {}
    }
    // A tunnel goes where its target says, port and all.
    request.host = if request.is_connect(head) { target } else { host.or(target) };
    Ok(())
}

/// Checks what a request is aimed at whose parts came one by one, as HTTP/2's do, and gives its host.
///
/// # Errors
///
/// The path or the host is not valid, or the authority and the host header disagree.
pub(crate) fn check_head<'h>(
    method: &[u8],
    path: &[u8],
    authority: Option<&'h [u8]>,
    host: Option<&'h [u8]>,
) -> Result<&'h [u8], Malformed> {
    if method != b"CONNECT" {
        let target = parse_target(path, Span::new(0, path.len()), method)?;
        if target.authority.is_some() {
            return Err(Malformed::Target);
        }
    }
    for host in authority.iter().chain(&host) {
        check_host(host)?;
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !is_same_authority(authority, host) => Err(Malformed::HostDisagrees),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Malformed::NoHost),
    }
}
