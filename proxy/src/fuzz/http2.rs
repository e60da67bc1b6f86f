//! What peers send by HTTP/2: its frames, and heads as they are carried between it and HTTP/1.1.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};

use super::head_end;
use crate::codec::{Limits, Request, Response, Version, parse_request, parse_response};
use crate::frames::{FrameLimits, Frames};
use crate::headers::ResponseChanges;
use crate::headers::h2::{
    of_text, read_request, read_response, response_of_text, trailer_of_text, write_response_text, write_text,
    write_trailers,
};
use crate::pump::count_messages;

const NO_LIMITS: Limits = Limits { head: usize::MAX, fields: usize::MAX };

/// Frames, in pieces of the size that the first byte says, and at once: the same is counted.
///
/// # Panics
///
/// When the two differ.
pub fn frames(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let limits = FrameLimits { resets: 2, pings: 2, settings: 2, priorities: 2, empty: 2, window_updates: 2 };
    let read = |size: usize| {
        let (mut received, mut sent) = (Frames::of_server(limits), Frames::of_client(limits));
        for piece in bytes.chunks(size) {
            received.scan(piece);
            sent.scan_sent(piece);
        }
        (received.cut(), received.has_settings(), sent.take_refused(), sent.told())
    };
    assert_eq!(read(usize::from(*size).max(1)), read(usize::MAX));
}

/// The body of a gRPC call, likewise: the messages in it are counted the same, and are no more than there is room for.
///
/// # Panics
///
/// When they are not.
pub fn messages(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let whole = count_messages(bytes, usize::MAX);
    assert_eq!(count_messages(bytes, usize::from(*size).max(1)), whole);
    assert!(whole <= bytes.len() as u64 / 5);
}

/// Heads: the first byte says whether a request came by HTTP/2, as lines of `name: value`, or an answer by HTTP/1.1.
///
/// # Panics
///
/// When a head that is accepted means another thing once it is carried over.
pub fn heads(bytes: &[u8]) {
    match bytes.split_first() {
        Some((kind, head)) if kind & 1 == 0 => request_over(head),
        Some((_, head)) => response_over(head),
        None => {}
    }
}

/// The head of a request as the codec would give it; `None` if it gives none.
fn parts_of(lines: &[u8]) -> Option<request::Parts> {
    let mut headers = HeaderMap::new();
    let (mut method, mut path, mut authority) = (http::Method::GET, "/", None);
    for line in std::str::from_utf8(lines).ok()?.lines() {
        let at = line.get(1..)?.find(':')? + 1;
        let (name, value) = (line.get(..at)?, line.get(at + 1..)?.trim_start_matches(' '));
        match name {
            ":method" => method = value.parse().ok()?,
            ":path" => path = value,
            ":authority" => authority = Some(value),
            // The codec refuses these itself.
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => return None,
            "te" if value != "trailers" => return None,
            _ if name.bytes().any(|byte| byte.is_ascii_uppercase()) => return None,
            _ => {
                headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
            }
        }
    }
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path.parse().ok()?);
    if let Some(authority) = authority {
        uri.authority = Some(authority.parse().ok()?);
        uri.scheme = Some(http::uri::Scheme::HTTP);
    }
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.method, parts.headers) = (method, headers);
    parts.uri = Uri::from_parts(uri).ok()?;
    Some(parts)
}

/// What is accepted is one head of HTTP/1.1 too, and says the same there and back.
fn request_over(lines: &[u8]) {
    let Some(mut parts) = parts_of(lines) else { return };
    let mut request = Request::default();
    // A tunnel has no path, and is not carried over.
    if parts.method == http::Method::CONNECT
        || read_request(&mut parts, false, &Limits::default(), &mut request).is_err()
    {
        return;
    }
    let mut text = Vec::new();
    write_text(&mut text, &parts, request.is_chunked);
    assert_eq!(head_end(&text, &NO_LIMITS), Some(text.len()), "the head as it goes on is one head");
    let mut again = Request::default();
    parse_request(&text, text.len(), &NO_LIMITS, &mut again).expect("what goes on can be read");
    assert_eq!((again.length, again.is_chunked), (request.length, request.is_chunked));
    assert_eq!(again.method.of(&text), parts.method.as_str().as_bytes());
    let back = of_text(&text).expect("and goes back");
    let path = |uri: &Uri| uri.path_and_query().map(|path| path.as_str().to_owned());
    assert_eq!(path(back.uri()), path(&parts.uri));
    assert_eq!(back.uri().authority(), parts.uri.authority());
    parts.headers.remove(http::header::TE);
    assert_eq!(back.headers(), &parts.headers);
}

/// What is accepted of HTTP/1.1 is what HTTP/2 gets, and what a client of HTTP/1.1 behind it would get.
fn response_over(head: &[u8]) {
    let limits = Limits::default();
    let mut trailers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let _ = trailer_of_text(line, &mut trailers);
    }
    let mut lines = Vec::new();
    write_trailers(&mut lines, &trailers);
    let (mut response, mut again) = (Response::default(), Response::default());
    let Some(end) = head_end(head, &limits) else { return };
    if parse_response(head, end, &limits, &mut response).is_err() {
        return;
    }
    let Ok(made) = response_of_text(&response, head) else { return };
    let (mut parts, ()) = made.into_parts();
    if read_response(&mut parts, false, &limits, &mut again).is_err() {
        return;
    }
    assert_eq!((again.status, again.length), (response.status, response.length));
    let mut text = Vec::new();
    let changes = ResponseChanges { version: Version::Http11, chunked: again.length.is_none(), close: false };
    write_response_text(&mut text, &parts, changes);
    assert_eq!(head_end(&text, &NO_LIMITS), Some(text.len()), "the head as it goes on is one head");
    let mut back = Response::default();
    parse_response(&text, text.len(), &NO_LIMITS, &mut back).expect("what goes on can be read");
    assert_eq!((back.status, back.length), (response.status, response.length));
}
