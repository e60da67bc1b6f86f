//! Where a body ends.

use std::ops::Range;

use super::chunked::Chunked;
use super::{Malformed, Request, Response};

/// What is left of a body.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Everything until the peer closes.
    UntilClose,
}

/// The next thing in a body, as ranges of the bytes that were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// More bytes are needed.
    More,
    /// Bytes of the content; `consumed` counts them and the framing before them.
    Data {
        /// Where the content is.
        data: Range<usize>,
        /// How many bytes are done with.
        consumed: usize,
    },
    /// A field of the trailer, without its line end.
    Trailer {
        /// Where the line is.
        line: Range<usize>,
        /// How many bytes are done with.
        consumed: usize,
    },
    /// The body has ended.
    End {
        /// How many bytes are done with.
        consumed: usize,
    },
}

impl Body {
    /// The body of a request.
    #[must_use]
    pub fn of_request(request: &Request) -> Self {
        match request.length {
            _ if request.is_chunked => Body::Chunked(Chunked::default()),
            Some(length) if length > 0 => Body::Length(length),
            _ => Body::Done,
        }
    }

    /// The body of a response to a HEAD request, or to another one.
    #[must_use]
    pub fn of_response(response: &Response, to_head: bool) -> Self {
        match response.length {
            _ if response.is_bodiless(to_head) => Body::Done,
            _ if response.is_chunked => Body::Chunked(Chunked::default()),
            Some(0) => Body::Done,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// Takes the next piece off `bytes`, which begin where the last piece ended.
    ///
    /// # Errors
    ///
    /// The body's framing cannot be read.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Malformed> {
        match self {
            Body::Done => Ok(Piece::End { consumed: 0 }),
            Body::UntilClose if bytes.is_empty() => Ok(Piece::More),
            Body::UntilClose => Ok(Piece::Data { data: 0..bytes.len(), consumed: bytes.len() }),
            Body::Length(_) if bytes.is_empty() => Ok(Piece::More),
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Body::Done;
                }
                Ok(Piece::Data { data: 0..taken, consumed: taken })
            }
            Body::Chunked(chunked) => {
                let piece = chunked.next(bytes)?;
                if matches!(piece, Piece::End { .. }) {
                    *self = Body::Done;
                }
                Ok(piece)
            }
        }
    }
}
