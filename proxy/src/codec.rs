//! A strict HTTP/1.1 codec that allocates next to nothing: heads become offsets over the buffer they stand in.
//!
//! What two parsers could read differently is refused, never repaired: an upstream does not see such bytes. Nothing in
//! here does IO, waits or panics, whatever the bytes.

mod body;
mod chars;
mod chunked;
mod head;
mod malformed;
mod request;
mod response;
mod target;

#[cfg(test)]
mod tests;

pub use body::{Body, Piece};
pub(crate) use chars::trim;
pub use chunked::copy_trailer;
pub(crate) use head::parse_length;
pub use head::{Field, Kind, Scan, Span, Version};
pub use malformed::Malformed;
pub(crate) use request::check_head;
pub use request::{Request, parse_request};
pub use response::{Response, parse_response};

/// How large the parts of a message may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head, with its last empty line.
    pub head: usize,
    /// Number of header fields.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head: 64 * 1024, fields: 100 }
    }
}

/// Reads `bytes` as a client's side of a connection, as far as it can be read; for fuzzing.
///
/// Returns the number of requests that were accepted with their bodies.
pub fn fuzz_request(mut bytes: &[u8]) -> usize {
    let limits = Limits::default();
    let mut request = Request::default();
    let mut accepted = 0;
    loop {
        let mut scan = Scan::default();
        let Ok(Some(end)) = scan.find_end(bytes, &limits) else { return accepted };
        if parse_request(bytes, end, &limits, &mut request).is_err() {
            return accepted;
        }
        bytes = bytes.get(end..).unwrap_or_default();
        let mut body = Body::of_request(&request);
        loop {
            match body.next(bytes) {
                Err(_) | Ok(Piece::More) => return accepted,
                Ok(Piece::Data { consumed, .. } | Piece::Trailer { consumed, .. }) => {
                    bytes = bytes.get(consumed..).unwrap_or_default();
                }
                Ok(Piece::End { consumed }) => {
                    bytes = bytes.get(consumed..).unwrap_or_default();
                    break;
                }
            }
        }
        accepted += 1;
    }
}
