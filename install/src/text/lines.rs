//! A text by lines, and edits on it.

use std::ops::Range;

use api::yaml::{Mark, Node, Value};

/// A text, and where its lines begin.
pub(super) struct Lines<'t> {
    pub(super) text: &'t str,
    starts: Vec<usize>,
}

/// A part of a text to be replaced; an insertion replaces an empty part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) text: String,
    /// A shorter text of the same shape, for checking that the place is right.
    pub(super) stand_in: Option<String>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut starts = vec![0];
        starts.extend(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
        Lines { text, starts }
    }

    /// Where a place is, in bytes.
    pub(super) fn offset(&self, mark: Mark) -> Option<usize> {
        let line = self.line(mark.line)?;
        let start = self.start(mark.line)?;
        let column = usize::try_from(mark.column).ok()?.checked_sub(1)?;
        line.char_indices()
            .nth(column)
            .map(|(at, _)| start + at)
            .or_else(|| (line.chars().count() == column).then_some(start + line.len()))
    }

    /// What follows a place.
    pub(super) fn from(&self, mark: Mark) -> Option<&'t str> {
        self.text.get(self.offset(mark)?..)
    }

    /// Where a line (from 1) begins.
    pub(super) fn start(&self, line: u32) -> Option<usize> {
        self.starts.get(usize::try_from(line).ok()?.checked_sub(1)?).copied()
    }

    /// Where the line after a line (from 1) begins: the end of the text after the last.
    pub(super) fn end(&self, line: u32) -> usize {
        usize::try_from(line).ok().and_then(|line| self.starts.get(line).copied()).unwrap_or(self.text.len())
    }

    /// The line (from 1) that a byte is on.
    pub(super) fn line_of(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    fn line(&self, line: u32) -> Option<&'t str> {
        self.text.get(self.start(line)?..self.end(line))
    }

    /// Whether only blanks stand before a place on its line.
    pub(super) fn is_first(&self, mark: Mark) -> bool {
        let (Some(start), Some(offset)) = (self.start(mark.line), self.offset(mark)) else { return false };
        self.text[start..offset].trim().is_empty()
    }

    /// Whether a mapping or list is written in brackets.
    pub(super) fn is_flow(&self, node: &Node) -> bool {
        !is_indentless(node)
            && node.mark.and_then(|mark| self.from(mark)).is_some_and(|text| text.starts_with(['{', '[']))
    }

    /// An insertion of whole lines (each ending in a line break) at the beginning of a line, or at the end of the text.
    pub(super) fn insertion(&self, at: usize, text: String, stand_in: Option<String>) -> Edit {
        let windows = self.text[..at].ends_with("\r\n") || (at == 0 && self.text.contains("\r\n"));
        let is_open = at == self.text.len() && at > 0 && !self.text.ends_with('\n');
        let fitted = |text: String| {
            let text = if windows { text.replace('\n', "\r\n") } else { text };
            // Where the last line has no end, the new ones take its place in that.
            if is_open { format!("\n{}", text.trim_end_matches(['\r', '\n'])) } else { text }
        };
        Edit { range: at..at, text: fitted(text), stand_in: stand_in.map(fitted) }
    }

    /// The removal of whole lines; where the text ends without a line break, it does so again afterwards.
    pub(super) fn removal(&self, first: u32, last: u32) -> Option<Edit> {
        let (mut start, end) = (self.start(first)?, self.end(last));
        if end == self.text.len() && !self.text.ends_with('\n') && start > 0 {
            start -= 1;
        }
        Some(Edit { range: start..end, text: String::new(), stand_in: None })
    }
}

/// Whether a list stands at its field's indentation. The parser gives such a list the place of its first item.
pub(super) fn is_indentless(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.first().is_some_and(|first| first.mark == node.mark),
        _ => false,
    }
}

/// Applies edits in order of their places; of parts that overlap, all is removed.
pub(super) fn apply<'e>(text: &str, edits: &'e [Edit], replacement: impl Fn(&'e Edit) -> &'e str) -> String {
    let added: usize = edits.iter().map(|edit| replacement(edit).len()).sum();
    let mut result = String::with_capacity(text.len() + added);
    let mut at = 0;
    for edit in edits {
        if let Some(kept) = text.get(at..edit.range.start) {
            result.push_str(kept);
        }
        result.push_str(replacement(edit));
        at = at.max(edit.range.end);
    }
    result.push_str(text.get(at..).unwrap_or_default());
    result
}

/// The line that a value ends on. Errs towards too few lines for text over several lines, which does not stand at the end
/// of anything that injection adds; reading the result again notices it.
pub(super) fn last_line(lines: &Lines<'_>, node: &Node) -> Option<u32> {
    let mark = node.mark?;
    if lines.is_flow(node) {
        let start = lines.offset(mark)?;
        let end = lines.text.get(start..).and_then(flow_end)?;
        return Some(lines.line_of(start + end - 1));
    }
    let mut last = mark.line;
    match &node.value {
        Value::List(items) => {
            for item in items {
                last = last.max(last_line(lines, item)?);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                last = last.max(last_line(lines, &entry.value)?);
            }
        }
        _ => {}
    }
    Some(last)
}

/// Where a value in flow style ends: after its last bracket or quote. `text` begins with the value.
pub(super) fn flow_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote: Option<char> = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some('"'), '\\') => {
                characters.next();
            }
            (Some(open), _) => {
                if open == character {
                    quote = None;
                }
            }
            (None, '"' | '\'') => quote = Some(character),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth = depth.checked_sub(1)?,
            _ => continue,
        }
        if depth == 0 && quote.is_none() {
            return Some(at + character.len_utf8());
        }
    }
    None
}
