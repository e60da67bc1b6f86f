//! What a request is aimed at: its target and its host.

use super::chars::{is_host_name, is_target};
use super::{Malformed, Span};

/// A request target, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Path and query; empty for an absolute target without a path.
    pub(super) path: Span,
    /// The authority of an absolute target.
    pub(super) authority: Option<Span>,
}

/// Reads a target in origin form, absolute form (`http` only) or, for OPTIONS, asterisk form.
pub(super) fn parse_target(head: &[u8], target: Span, method: &[u8]) -> Result<Target, Malformed> {
    let text = target.of(head);
    if !is_target(text) {
        return Err(Malformed::Target);
    }
    match text {
        [b'/', ..] => {
            check_path(text)?;
            Ok(Target { path: target, authority: None })
        }
        b"*" if method == b"OPTIONS" => Ok(Target { path: target, authority: None }),
        _ => absolute(head, target),
    }
}

const SCHEME: &[u8] = b"http://";

fn absolute(head: &[u8], target: Span) -> Result<Target, Malformed> {
    let text = target.of(head);
    let (Some(scheme), Some(rest)) = (text.get(..SCHEME.len()), text.get(SCHEME.len()..)) else {
        return Err(Malformed::Target);
    };
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(Malformed::Target);
    }
    let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(length);
    check_host(authority)?;
    // A query without a path would need a slash put before it.
    if path.starts_with(b"?") {
        return Err(Malformed::Target);
    }
    check_path(path)?;
    let start = target.start as usize + SCHEME.len();
    Ok(Target {
        path: Span::new(start + length, target.end as usize),
        authority: Some(Span::new(start, start + length)),
    })
}

/// Refuses a path with an escape that is none, or that hides a NUL.
fn check_path(path: &[u8]) -> Result<(), Malformed> {
    let end = memchr::memchr(b'?', path).unwrap_or(path.len());
    let path = path.get(..end).unwrap_or_default();
    for at in memchr::memchr_iter(b'%', path) {
        match path.get(at + 1..at + 3) {
            Some(b"00") => return Err(Malformed::Target),
            Some(escape) if escape.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(Malformed::Target),
        }
    }
    Ok(())
}

/// Refuses what is no `host[:port]`: an address in brackets or a name, and a port from 0 to 65535.
pub(super) fn check_host(host: &[u8]) -> Result<(), Malformed> {
    let rest = if let [b'[', rest @ ..] = host {
        let end = memchr::memchr(b']', rest).ok_or(Malformed::Host)?;
        let (address, rest) = rest.split_at(end);
        let address = std::str::from_utf8(address).map_err(|_| Malformed::Host)?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(Malformed::Host);
        }
        rest.get(1..).unwrap_or_default()
    } else {
        let end = memchr::memchr(b':', host).unwrap_or(host.len());
        let (name, rest) = host.split_at(end);
        if !is_host_name(name) || name.len() > 255 {
            return Err(Malformed::Host);
        }
        rest
    };
    match rest {
        [] => Ok(()),
        [b':', port @ ..] => {
            let is_port = !port.is_empty()
                && port.len() <= 5
                && port.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok());
            if is_port { Ok(()) } else { Err(Malformed::Host) }
        }
        _ => Err(Malformed::Host),
    }
}

/// Refuses what is no place that a tunnel may lead to: a host and its port, which is not 0.
pub(super) fn check_tunnel(target: &[u8]) -> Result<(), Malformed> {
    check_host(target).map_err(|_| Malformed::Target)?;
    let port = target.get(without_port(target).len() + 1..).unwrap_or_default();
    if port.iter().any(|digit| *digit != b'0') { Ok(()) } else { Err(Malformed::Connect) }
}

/// A valid authority without its port.
pub(super) fn without_port(authority: &[u8]) -> &[u8] {
    let name = memchr::memrchr(b']', authority).map_or(0, |at| at + 1);
    let length = memchr::memchr(b':', authority.get(name..).unwrap_or_default());
    length.map_or(authority, |length| authority.get(..name + length).unwrap_or_default())
}

/// Whether two authorities are the same: case apart, and the port of `http` may be left out.
pub(super) fn is_same_authority(one: &[u8], other: &[u8]) -> bool {
    fn without_default_port(authority: &[u8]) -> &[u8] {
        authority.strip_suffix(b":80").unwrap_or(authority)
    }
    without_default_port(one).eq_ignore_ascii_case(without_default_port(other))
}
