//! Entries for fuzzers: every parser of a peer's bytes, with what must hold whatever the bytes.
//!
//! A panic is a finding. `tests/fuzz` has the targets and their corpus.

pub mod http2;
pub mod small;

use std::net::IpAddr;

use crate::codec::{
    Body, Limits, Piece, Request, Response, Scan, Version, copy_trailer, parse_request, parse_response,
};
use crate::detect::{client_hello, recognise};
use crate::headers::{Edge, RequestChanges, ResponseChanges, write_request, write_response};

/// What a client sends: requests, one after the other, with their bodies.
///
/// What is accepted and written anew is accepted again and says the same: no byte of it can be read in two ways.
///
/// # Panics
///
/// When that does not hold.
pub fn requests(mut bytes: &[u8]) {
    let limits = Limits::default();
    let (mut request, mut again) = (Request::default(), Request::default());
    while let Some(end) = head_end(bytes, &limits) {
        if parse_request(bytes, end, &limits, &mut request).is_err() {
            return;
        }
        let changes = RequestChanges {
            path: request.path(bytes),
            authority: request.host.map_or(b"host", |host| host.of(bytes)),
            edge: Edge::Gateway,
            peer: IpAddr::from([127, 0, 0, 1]),
            request_id: Some(b"id"),
            trace: None,
            upgrade: request.offered(bytes).next(),
            handover: crate::authorise::Handover::default(),
            client_cert: None,
        };
        let mut written = Vec::new();
        write_request(&mut written, &request, bytes, &changes);
        let limits = Limits { head: usize::MAX, fields: usize::MAX };
        assert_eq!(head_end(&written, &limits), Some(written.len()), "the head as it goes on is one head");
        parse_request(&written, written.len(), &limits, &mut again).expect("what goes on can be read");
        assert_eq!(again.method.of(&written), request.method.of(bytes));
        assert_eq!(again.target.of(&written), request.path(bytes));
        assert_eq!((again.length, again.is_chunked), (request.length, request.is_chunked));
        bytes = bytes.get(end..).unwrap_or_default();
        match body(Body::of_request(&request), bytes) {
            Some(length) => bytes = bytes.get(length..).unwrap_or_default(),
            None => return,
        }
    }
}

/// What an upstream sends: the first byte chooses the request that is answered, the rest is the answer.
///
/// # Panics
///
/// When an answer that is accepted means another thing after it has been written anew.
pub fn responses(bytes: &[u8]) {
    let Some((kind, mut bytes)) = bytes.split_first() else { return };
    let limits = Limits::default();
    let (mut response, mut again) = (Response::default(), Response::default());
    while let Some(end) = head_end(bytes, &limits) {
        if parse_response(bytes, end, &limits, &mut response).is_err() {
            return;
        }
        let of = Body::of_response(&response, kind & 1 == 1);
        let chunked = matches!(of, Body::Chunked(_) | Body::UntilClose);
        let changes = ResponseChanges { version: Version::Http11, chunked, close: kind & 2 == 2 };
        let mut written = Vec::new();
        write_response(&mut written, &response, bytes, changes);
        let limits = Limits { head: usize::MAX, fields: usize::MAX };
        assert_eq!(head_end(&written, &limits), Some(written.len()), "the head as it goes on is one head");
        parse_response(&written, written.len(), &limits, &mut again).expect("what goes on can be read");
        assert_eq!((again.status, again.length), (response.status, response.length));
        assert!(!again.switches_to(b"websocket", &written), "no switch is passed on as an ordinary answer");
        bytes = bytes.get(end..).unwrap_or_default();
        match body(of, bytes) {
            Some(length) if response.is_interim() => bytes = bytes.get(length..).unwrap_or_default(),
            _ => return,
        }
    }
}

/// The length of a chunked body, at once and byte by byte: the same content, or refused.
///
/// # Panics
///
/// When the two differ.
pub fn chunks(bytes: &[u8]) {
    let read = |step: usize| {
        let mut body = Body::Chunked(Default::default());
        let (mut at, mut shown, mut content) = (0, 0, Vec::new());
        loop {
            match body.next(bytes.get(at..shown).unwrap_or_default()) {
                Err(why) => return Err(why),
                Ok(Piece::More) if shown == bytes.len() => return Ok((content, None)),
                Ok(Piece::More) => shown = shown.saturating_add(step).min(bytes.len()),
                Ok(Piece::Data { data, consumed }) => {
                    content.extend_from_slice(bytes.get(at + data.start..at + data.end).unwrap_or_default());
                    at += consumed;
                }
                Ok(Piece::Trailer { line, consumed }) => {
                    let line = bytes.get(at + line.start..at + line.end).unwrap_or_default();
                    copy_trailer(line, &mut Vec::new())?;
                    at += consumed;
                }
                Ok(Piece::End { consumed }) => return Ok((content, Some(at + consumed))),
            }
        }
    };
    let (whole, single) = (read(usize::MAX), read(1));
    assert_eq!(whole.is_ok(), single.is_ok(), "{whole:?} {single:?}");
    if let (Ok(whole), Ok(single)) = (whole, single) {
        assert_eq!(whole, single);
    }
}

/// The first bytes of a connection.
///
/// # Panics
///
/// When more bytes change what a ClientHello says.
pub fn first_bytes(bytes: &[u8]) {
    let _ = recognise(bytes);
    let Ok(Some(hello)) = client_hello::read(bytes) else { return };
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    assert!(hello.server_name.iter().all(|name| name.bytes().all(is_name)));
    for length in 0..bytes.len() {
        match client_hello::read(bytes.get(..length).unwrap_or_default()) {
            Ok(None) => {}
            sooner => assert_eq!(sooner, Ok(Some(hello.clone()))),
        }
    }
}

/// Where a head ends, the same at once and byte by byte.
fn head_end(bytes: &[u8], limits: &Limits) -> Option<usize> {
    let whole = Scan::default().find_end(bytes, limits);
    if bytes.len() < 256 {
        let mut scan = Scan::default();
        let single = (0..=bytes.len())
            .map(|length| scan.find_end(bytes.get(..length).unwrap_or_default(), limits))
            .find(|found| !matches!(found, Ok(None)))
            .unwrap_or(Ok(None));
        assert_eq!(whole, single, "{:?}", String::from_utf8_lossy(bytes));
    }
    whole.ok().flatten()
}

/// The length of a body; `None` if it does not end in these bytes.
fn body(mut body: Body, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match body.next(bytes.get(at..).unwrap_or_default()) {
            Err(_) | Ok(Piece::More) => return None,
            Ok(Piece::Data { consumed, .. } | Piece::Trailer { consumed, .. }) => at += consumed,
            Ok(Piece::End { consumed }) => return Some(at + consumed),
        }
    }
}
