//! Text from the network as it stands in a line: it can end neither its quotes nor the line.

use std::io::Write as _;

/// Longer text is cut.
const MAX: usize = 1024;

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

fn cut(text: &[u8]) -> &[u8] {
    text.get(..MAX).unwrap_or(text)
}

/// Appends text with what could end quotes or the line escaped, and no more than 1024 bytes of it.
pub(super) fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let text = cut(text);
    // Nearly all text is plain: it is looked at as a whole, and copied as a whole.
    if text.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(text);
        return;
    }
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            byte if is_plain(byte) => out.push(byte),
            // Writing to a vector does not fail.
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

/// As [`escaped`], for within a string of JSON: what is no UTF-8 is replaced.
pub(super) fn json_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let text = cut(text);
    if text.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(text);
        return;
    }
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' | '\\' => out.extend([b'\\', c as u8]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn text_from_the_network_cannot_end_its_quotes_or_its_line() {
        assert_eq!(written(|out| escaped(out, b"a\" b\n\xff\\")), r#"a\" b\x0a\xff\\"#);
        assert_eq!(written(|out| escaped(out, &[b'a'; 2000])).len(), 1024);
    }

    #[test]
    fn text_in_json_is_what_a_parser_reads_back() {
        for (text, read) in [("a\" b\n\\ü\u{1}\u{2028}", "a\" b\n\\ü\u{1}\u{2028}"), ("", ""), ("plain", "plain")] {
            let json = format!("\"{}\"", written(|out| json_escaped(out, text.as_bytes())));
            assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), read, "{json}");
            assert!(!json.contains('\n'));
        }
        assert_eq!(written(|out| json_escaped(out, b"\xff")), "\u{fffd}");
    }
}
