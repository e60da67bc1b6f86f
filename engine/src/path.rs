//! The one canonical form of paths and authorities, which router, policy and log all see.
//!
//! A path is brought into it in Envoy's order: escaped slashes by policy, then RFC 3986 (escapes of unreserved
//! characters decoded, other escapes with upper-case digits, dot segments removed and never above the root, `\` is
//! `/`), then `//` to `/` if the policy merges. What two servers could read differently is refused: an escape that is
//! none, `%00`, a fragment, blanks and control characters. The query keeps its bytes.

use std::borrow::Cow;

use crate::tables::{PathPolicy, Slashes};

/// Why a path is refused: 400 `bad_request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not `/…`, and not `*`.
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    /// A fragment has no place in a request.
    #[error("the path has a fragment")]
    Fragment,
    /// A blank or a control character.
    #[error("the path has a blank or a control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` without two hexadecimal digits")]
    BadEscape,
    /// `%00`.
    #[error("the path has an escaped NUL")]
    Nul,
    /// `%2F` or `%5C` where the policy refuses them.
    #[error("the path has an escaped slash")]
    EscapedSlash,
}

/// Brings a path with its query into canonical form; borrowed if it is in that form already.
///
/// # Errors
/// When two servers could read the path differently.
///
/// # Examples
/// ```
/// use engine::path::canonical_path;
/// use engine::tables::PathPolicy;
/// let policy = PathPolicy::default();
/// assert_eq!(canonical_path("/a/%62/./../c//d?x=%62", policy).unwrap(), "/a/c/d?x=%62");
/// assert!(canonical_path("/a%00", policy).is_err());
/// ```
pub fn canonical_path(path: &str, policy: PathPolicy) -> Result<Cow<'_, str>, PathError> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let (bare, query) = split_query(path);
    check_query(query)?;
    if is_canonical(bare, policy)? {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = without_dots(&decoded(bare, policy)?);
    if policy.merge_slashes {
        out.dedup_by(|b, a| *a == b'/' && *b == b'/');
    }
    out.extend_from_slice(query.as_bytes());
    // Only ASCII is ever written, and the query is UTF-8 of its own.
    String::from_utf8(out).map(Cow::Owned).map_err(|_| PathError::Control)
}

/// Splits `/path?query` before the question mark.
#[must_use]
pub fn split_query(path: &str) -> (&str, &str) {
    memchr::memchr(b'?', path.as_bytes()).map_or((path, ""), |at| path.split_at(at))
}

/// The path without its query.
#[must_use]
pub fn without_query(path: &str) -> &str {
    split_query(path).0
}

fn check_query(query: &str) -> Result<(), PathError> {
    for byte in query.bytes() {
        match byte {
            b'#' => return Err(PathError::Fragment),
            0..=b' ' | 0x7f => return Err(PathError::Control),
            _ => {}
        }
    }
    Ok(())
}

/// Whether nothing is to be done; most paths are like that.
fn is_canonical(bare: &str, policy: PathPolicy) -> Result<bool, PathError> {
    let mut canonical = true;
    let mut before = 0;
    for byte in bare.bytes() {
        match byte {
            b'#' => return Err(PathError::Fragment),
            0..=b' ' | 0x7f => return Err(PathError::Control),
            b'%' | b'\\' | 0x80.. => canonical = false,
            b'.' if before == b'/' => canonical = false,
            b'/' if before == b'/' && policy.merge_slashes => canonical = false,
            _ => {}
        }
        before = byte;
    }
    Ok(canonical)
}

/// Decodes what may be decoded and makes slashes of backslashes.
fn decoded(bare: &str, policy: PathPolicy) -> Result<Vec<u8>, PathError> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let escape = |out: &mut Vec<u8>, byte: u8| {
        out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    };
    let mut out = Vec::with_capacity(bare.len() + 8);
    let mut bytes = bare.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let byte = hex(bytes.next())? << 4 | hex(bytes.next())?;
                match (byte, policy.escaped_slashes) {
                    (0, _) => return Err(PathError::Nul),
                    (b'/' | b'\\', Slashes::Reject) => return Err(PathError::EscapedSlash),
                    (b'/' | b'\\', Slashes::Unescape) => out.push(b'/'),
                    (byte, _) if is_unreserved(byte) => out.push(byte),
                    (byte, _) => escape(&mut out, byte),
                }
            }
            b'\\' => out.push(b'/'),
            0x80.. => escape(&mut out, byte),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

fn hex(digit: Option<u8>) -> Result<u8, PathError> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        _ => Err(PathError::BadEscape),
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Removes `.` and `..` segments (RFC 3986 §5.2.4); `..` at the root stays at the root.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
    out
}

/// Why an authority is refused: 400 `bad_request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing is there.
    #[error("the host is empty")]
    Empty,
    /// Longer than a host name and a port can be.
    #[error("the host is longer than 261 bytes")]
    TooLong,
    /// `user@host`.
    #[error("the host has user information")]
    UserInfo,
    /// A character that no host name has.
    #[error("the host has a character that no host name has")]
    BadCharacter,
    /// Not a number up to 65535.
    #[error("the port is not a number up to 65535")]
    BadPort,
}

/// Brings an authority into canonical form: lower case, no trailing dot, no empty port, no leading zeros in the port;
/// borrowed if it is in that form already. The port stays if one was given.
///
/// # Errors
/// When it is not a host name, an IPv4 address or an IPv6 address in brackets (without a zone), with a port or without.
///
/// # Examples
/// ```
/// use engine::path::canonical_authority;
/// assert_eq!(canonical_authority("Reviews.:09080").unwrap(), "reviews:9080");
/// assert!(canonical_authority("user@reviews").is_err());
/// ```
pub fn canonical_authority(authority: &str) -> Result<Cow<'_, str>, AuthorityError> {
    if authority.len() > 255 + 6 {
        return Err(AuthorityError::TooLong);
    }
    let (host, port) = split_port(authority);
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').ok_or(AuthorityError::BadCharacter)?;
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return Err(AuthorityError::BadCharacter);
            }
            host
        }
        None => host.strip_suffix('.').unwrap_or(host),
    };
    // One dot is the root's. With another the name would be a new one each time it is looked at.
    if name.is_empty() || name.ends_with('.') {
        return Err(AuthorityError::Empty);
    }
    check_host(name)?;
    let number = match port {
        None | Some("") => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(port.parse::<u16>().map_err(|_| AuthorityError::BadPort)?)
        }
        Some(_) => return Err(AuthorityError::BadPort),
    };
    let is_canonical = name.len() == host.len()
        && !name.bytes().any(|b| b.is_ascii_uppercase())
        && match port {
            None => true,
            Some(port) => port == "0" || !port.is_empty() && !port.starts_with('0'),
        };
    if is_canonical {
        return Ok(Cow::Borrowed(authority));
    }
    let mut out = name.to_ascii_lowercase();
    if let Some(number) = number {
        out.push(':');
        out.push_str(&number.to_string());
    }
    Ok(Cow::Owned(out))
}

fn check_host(name: &str) -> Result<(), AuthorityError> {
    for byte in name.bytes() {
        match byte {
            b'@' => return Err(AuthorityError::UserInfo),
            b'[' | b']' | b':' if name.starts_with('[') => {}
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b'=' => {}
            _ => return Err(AuthorityError::BadCharacter),
        }
    }
    Ok(())
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}

/// The authority without its port.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    split_port(authority).0
}

#[cfg(test)]
mod tests;
