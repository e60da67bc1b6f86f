//! Which bytes may stand where: one table, looked up once per byte.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;

const fn class(byte: u8) -> u8 {
    let mut class = 0;
    if byte.is_ascii_alphanumeric() {
        class |= TOKEN | HOST;
    }
    if matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) {
        class |= TOKEN;
    }
    if matches!(byte, b'-' | b'.' | b'_' | b'~') {
        class |= HOST;
    }
    if byte > b' ' && byte < 0x7f && byte != b'#' {
        class |= TARGET;
    }
    class
}

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = class(byte as u8);
        byte += 1;
    }
    classes
};

fn all(bytes: &[u8], wanted: u8) -> bool {
    bytes.iter().all(|byte| CLASSES[usize::from(*byte)] & wanted != 0)
}

/// Whether the bytes are a token (a method, a field's name): at least one, and no separator.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether the bytes may stand in a field's value: no control characters but the tab.
///
/// Values are long and nearly always good, so all bytes are looked at, many at a time.
pub(super) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, &byte| good & ((byte >= b' ') | (byte == b'\t')) & (byte != 0x7f))
}

/// Whether the bytes may stand in a request target: visible ASCII without `#`.
pub(super) fn is_target(bytes: &[u8]) -> bool {
    all(bytes, TARGET)
}

/// Whether the bytes are a name that a host may have: letters, digits, `-`, `.`, `_`, `~`; at least one.
pub(super) fn is_host_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, HOST)
}

/// Cuts spaces and tabs from both ends.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
