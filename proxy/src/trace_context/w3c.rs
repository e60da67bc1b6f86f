//! W3C's Trace Context: `traceparent` decides, `tracestate` goes along if it can be read.

use super::{KNOWN_FLAGS, Parent, hex};

/// Reads a `traceparent`. A version that is not known yet may have more behind what is known.
pub(super) fn parse(value: &[u8]) -> Option<Parent> {
    let (known, rest) = value.split_at_checked(55)?;
    let [_, _, b'-', ..] = known else { return None };
    let version = hex(&known[..2], 2)?;
    let has_rest = match rest {
        [] => false,
        [b'-', ..] => true,
        _ => return None,
    };
    if version == 0xff || (version == 0 && has_rest) || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let trace = hex(&known[3..35], 32)?;
    let span = hex(&known[36..52], 16)?;
    let flags = hex(&known[53..], 2)?;
    if trace == 0 || span == 0 {
        return None;
    }
    Some(Parent {
        trace,
        // Both are as long as their types: their digits have been counted.
        span: u64::try_from(span).ok()?,
        flags: u8::try_from(flags).ok()? & KNOWN_FLAGS,
        is_debug: false,
        is_short: false,
    })
}

/// More members than this are not passed on.
const MAX_MEMBERS: usize = 32;

/// What is known of the `tracestate` of a request, which may come in several headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    members: usize,
    is_malformed: bool,
}

impl State {
    pub(super) fn take(&mut self, value: &[u8]) {
        for member in value.split(|byte| *byte == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            self.members += 1;
            if self.members > MAX_MEMBERS || !is_member(member) {
                self.is_malformed = true;
                return;
            }
        }
    }

    /// Whether it can be passed on as it is.
    pub(super) fn is_sound(self) -> bool {
        !self.is_malformed
    }
}

/// Whether this is `key=value` as a vendor may write it.
fn is_member(member: &[u8]) -> bool {
    let Some(at) = memchr::memchr(b'=', member) else { return false };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let begins = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_key = |byte: &u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    let is_value = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
    begins
        && key.len() <= 256
        && key.iter().all(is_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(is_value)
}
