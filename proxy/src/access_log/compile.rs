//! Reads `text %OPERATOR(ARGUMENT):LENGTH% text`.

use super::format::{Format, FormatError, Manner, Part};
use super::names::{self, Wrong};
use super::text::json_escaped;

/// More bytes of a value are never kept.
const MAX_KEPT: usize = 1024;

/// An operator as it is written.
struct Written<'s> {
    name: &'s str,
    argument: Option<&'s str>,
    length: Option<&'s str>,
}

/// Appends what `source` says, as text of this manner.
pub(super) fn text(format: &mut Format, source: &str, manner: Manner) -> Result<(), FormatError> {
    let mut rest = source;
    while let Some(at) = rest.find('%') {
        literal(format, &rest[..at], manner);
        let column = source.len() - rest.len() + at + 1;
        let behind = &rest[at + 1..];
        if let Some(behind) = behind.strip_prefix('%') {
            literal(format, "%", manner);
            rest = behind;
            continue;
        }
        let (written, behind) = read(behind).ok_or(FormatError::Unfinished { column })?;
        operator(format, &written, (column, manner))?;
        rest = behind;
    }
    literal(format, rest, manner);
    Ok(())
}

/// The one operator that `source` consists of.
pub(super) fn alone(source: &str) -> bool {
    source.strip_prefix('%').and_then(read).is_some_and(|(_, behind)| behind.is_empty())
}

fn literal(format: &mut Format, text: &str, manner: Manner) {
    if manner == Manner::Text {
        return format.literal(text.as_bytes());
    }
    let mut escaped = Vec::new();
    // A format is longer than a value may be, so it goes in pieces.
    for c in text.chars() {
        json_escaped(&mut escaped, c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    format.literal(&escaped);
}

/// Reads an operator behind its first `%`, and what follows its last.
fn read(text: &str) -> Option<(Written<'_>, &str)> {
    let end = text.find(['(', '%', ':'])?;
    let (name, mut rest) = (&text[..end], &text[end..]);
    let mut argument = None;
    if let Some(behind) = rest.strip_prefix('(') {
        let close = behind.find(')')?;
        argument = Some(&behind[..close]);
        rest = &behind[close + 1..];
    }
    let end = rest.find('%')?;
    let length = match &rest[..end] {
        "" => None,
        length => Some(length.strip_prefix(':')?),
    };
    Some((Written { name, argument, length }, &rest[end + 1..]))
}

fn operator(format: &mut Format, written: &Written<'_>, (column, manner): (usize, Manner)) -> Result<(), FormatError> {
    let Written { name, argument, length } = *written;
    let argument_error = |reason: String| FormatError::Argument { column, name: name.to_owned(), reason };
    let length = match length.map(str::parse::<usize>) {
        None => None,
        Some(Ok(length)) if (1..=MAX_KEPT).contains(&length) => Some(length),
        Some(_) => {
            let reason = format!("what follows the `:` is the number of bytes to keep, from 1 to {MAX_KEPT}");
            return Err(argument_error(reason));
        }
    };
    let operator = names::find(name, argument, format).map_err(|wrong| match wrong {
        Wrong::Unknown(near) => FormatError::Unknown { column, name: name.to_owned(), near },
        Wrong::NotInForce => FormatError::NotInForce { column, name: name.to_owned() },
        Wrong::Argument(reason) => argument_error(reason),
    })?;
    format.parts.push(Part::Operator(operator, length, manner));
    Ok(())
}
