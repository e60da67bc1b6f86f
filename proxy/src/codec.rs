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
