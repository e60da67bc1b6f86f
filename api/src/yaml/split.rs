//! Cuts a text into chunks that are read on their own, so that a broken document does not take the others with it.

/// A part of a text and where it begins: lines from 0, characters from 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'t> {
    pub(super) text: &'t str,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Cuts at document markers, and between JSON values that follow one another.
///
/// A line that begins with `---` is a marker wherever it stands: YAML forbids it inside scalars.
pub(super) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut current = Chunk { text, line: 0, column: 0 };
    let mut start = 0;
    let mut directives: Option<(usize, u32)> = None;
    let mut offset = 0;
    for (line, content) in (0..).zip(text.split_inclusive('\n')) {
        if is_marker(content) {
            let (next, next_line) = directives.take().unwrap_or((offset, line));
            current.text = &text[start..next];
            push(&mut chunks, current);
            current = Chunk { text, line: next_line, column: 0 };
            start = next;
        } else if content.starts_with('%') {
            directives.get_or_insert((offset, line));
        } else if !content.trim().is_empty() && !content.starts_with('#') {
            directives = None;
        }
        offset += content.len();
    }
    current.text = &text[start..];
    push(&mut chunks, current);
    chunks
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
}

fn push<'t>(chunks: &mut Vec<Chunk<'t>>, chunk: Chunk<'t>) {
    let begin = chunk.text.trim_start();
    if begin.is_empty() {
        return;
    }
    if begin.starts_with('{') {
        json_values(chunks, &chunk);
    } else {
        chunks.push(chunk);
    }
}

/// Cuts `{…} {…}` between the values; anything else after a value stays with it, for the parser to complain about.
fn json_values<'t>(chunks: &mut Vec<Chunk<'t>>, chunk: &Chunk<'t>) {
    let Chunk { text, mut line, mut column } = *chunk;
    let (mut start, mut start_line, mut start_column) = (0, line, column);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut ended = false;
    for (offset, character) in text.char_indices() {
        match character {
            '{' if ended => {
                chunks.push(Chunk { text: &text[start..offset], line: start_line, column: start_column });
                (start, start_line, start_column) = (offset, line, column);
                (depth, ended) = (1, false);
            }
            _ if quoted && escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                ended = depth == 0;
            }
            _ if ended && !character.is_whitespace() => ended = false,
            _ => {}
        }
        if character == '\n' {
            (line, column) = (line + 1, 0);
        } else {
            column += 1;
        }
    }
    chunks.push(Chunk { text: &text[start..], line: start_line, column: start_column });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, u32, u32)> {
        chunks(text).into_iter().map(|chunk| (chunk.text, chunk.line, chunk.column)).collect()
    }

    #[test]
    fn documents_are_cut_at_markers_and_keep_their_lines() {
        assert_eq!(
            texts("a: 1\n---\nb: 2\n--- # c\nc: 3"),
            [("a: 1\n", 0, 0), ("---\nb: 2\n", 1, 0), ("--- # c\nc: 3", 3, 0)]
        );
        assert_eq!(texts("a: |\n  ---\n----\n"), [("a: |\n  ---\n----\n", 0, 0)]);
    }

    #[test]
    fn directives_belong_to_the_document_that_follows() {
        assert_eq!(texts("a: 1\n...\n%YAML 1.2\n---\nb: 2\n")[1], ("%YAML 1.2\n---\nb: 2\n", 2, 0));
    }

    #[test]
    fn json_values_that_follow_one_another_are_documents() {
        assert_eq!(
            texts("{\"a\": \"}{\"}\n{\"b\": [{}]} {}"),
            [("{\"a\": \"}{\"}\n", 0, 0), ("{\"b\": [{}]} ", 1, 0), ("{}", 1, 12)]
        );
    }
}
