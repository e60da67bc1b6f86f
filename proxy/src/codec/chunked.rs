//! Chunked bodies: sizes, bounded extensions (dropped), data, trailers.

use std::ops::Range;

use super::chars::is_value;
use super::head::parse_field;
use super::{Kind, Malformed, Piece};

const MAX_SIZE_LINE: usize = 1024;
const MAX_TRAILER: usize = 8 * 1024;
const MAX_SIZE_DIGITS: usize = 15;
/// All extensions of a body together: nobody needs them, and each could stand before a single byte.
const MAX_EXTENSIONS: usize = 64 * 1024;

/// How far a chunked body has got.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    trailer: usize,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailer,
}

impl Chunked {
    /// Takes the next piece off `bytes`.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Piece, Malformed> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match self.state {
                State::Size => {
                    let Some(line) = line(rest, MAX_SIZE_LINE, Malformed::Chunk)? else { return Ok(wait(at)) };
                    at += line.end + 2;
                    let line = rest.get(line).unwrap_or_default();
                    self.extensions += line.len().saturating_sub(MAX_SIZE_DIGITS);
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(Malformed::Chunk);
                    }
                    self.state = match chunk_size(line)? {
                        0 => State::Trailer,
                        size => State::Data(size),
                    };
                }
                State::Data(left) => {
                    if rest.is_empty() {
                        return Ok(wait(at));
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Piece::Data { data: at..at + taken, consumed: at + taken });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(wait(at)),
                    _ => return Err(Malformed::Chunk),
                },
                State::Trailer => {
                    let left = MAX_TRAILER.saturating_sub(self.trailer);
                    let Some(line) = line(rest, left, Malformed::Trailer)? else { return Ok(wait(at)) };
                    let consumed = at + line.end + 2;
                    if line.is_empty() {
                        return Ok(Piece::End { consumed });
                    }
                    self.trailer += line.end + 2;
                    return Ok(Piece::Trailer { line: at..at + line.end, consumed });
                }
            }
        }
    }
}

/// Appends a line of a trailer to `out` with its line end; a field that has no place in a trailer is left out.
///
/// # Errors
///
/// The line is not a field.
pub fn copy_trailer(line: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let field = parse_field(line, 0).map_err(|_| Malformed::Trailer)?;
    if field.kind == Kind::Other {
        out.extend_from_slice(field.name.of(line));
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value.of(line));
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Nothing more can be read; what has been read stays consumed.
fn wait(consumed: usize) -> Piece {
    if consumed == 0 { Piece::More } else { Piece::Data { data: consumed..consumed, consumed } }
}

/// The line at the start of `bytes`, without its end.
fn line(bytes: &[u8], limit: usize, error: Malformed) -> Result<Option<Range<usize>>, Malformed> {
    match memchr::memchr(b'\n', bytes) {
        Some(0) => Err(error),
        Some(newline) if newline > limit || bytes.get(newline - 1) != Some(&b'\r') => Err(error),
        Some(newline) => Ok(Some(0..newline - 1)),
        None if bytes.len() > limit => Err(error),
        None => Ok(None),
    }
}

/// Reads `size[;extension]`; the extension is only looked at for bytes that may not be in it.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > MAX_SIZE_DIGITS {
        return Err(Malformed::Chunk);
    }
    let (size, rest) = line.split_at(digits);
    match rest {
        [] => {}
        [b';', extension @ ..] if is_value(extension) => {}
        _ => return Err(Malformed::Chunk),
    }
    let size = std::str::from_utf8(size).map_err(|_| Malformed::Chunk)?;
    u64::from_str_radix(size, 16).map_err(|_| Malformed::Chunk)
}
