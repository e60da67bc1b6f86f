//! Zipkin's B3 headers, as one header and as several.

use super::{Once, Parent, SAMPLED, TraceContext, hex};

/// What B3 headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// Nothing that can be believed.
    Malformed,
    /// Only whether a trace that begins here is to be recorded.
    Sampling(bool),
    /// Who continues a trace; the flag is `None` if that is still to be decided.
    Parent(Parent, Option<bool>),
}

/// The headers of the form with several.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Multi<'a> {
    pub(super) trace: Once<'a>,
    pub(super) span: Once<'a>,
    pub(super) sampled: Once<'a>,
    pub(super) flags: Once<'a>,
}

impl Multi<'_> {
    pub(super) fn is_there(&self) -> bool {
        [self.trace, self.span, self.sampled, self.flags].iter().any(|header| *header != Once::Absent)
    }

    pub(super) fn parse(&self) -> Said {
        let is_debug = self.flags == Once::Here(b"1");
        let sampled = match self.sampled {
            _ if is_debug => Some(true),
            Once::Here(b"1" | b"true") => Some(true),
            Once::Here(b"0" | b"false") => Some(false),
            Once::Absent => None,
            Once::Here(_) | Once::Ambiguous => return Said::Malformed,
        };
        match (self.trace, self.span, sampled) {
            (Once::Here(trace), Once::Here(span), sampled) => match parent(trace, span, is_debug) {
                Some(parent) => Said::Parent(parent, sampled),
                None => Said::Malformed,
            },
            (Once::Absent, Once::Absent, Some(sampled)) => Said::Sampling(sampled),
            (Once::Absent, Once::Absent, None) => Said::Nothing,
            _ => Said::Malformed,
        }
    }
}

/// Reads the single header: `trace-span`, perhaps `-sampled`, perhaps `-parent`; or whether to record alone.
pub(super) fn parse_single(header: Once<'_>) -> Said {
    let value = match header {
        Once::Absent => return Said::Nothing,
        Once::Ambiguous => return Said::Malformed,
        Once::Here(value) => value,
    };
    match value {
        b"0" => return Said::Sampling(false),
        b"1" | b"d" => return Said::Sampling(true),
        _ => {}
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let (Some(trace), Some(span)) = (parts.next(), parts.next()) else { return Said::Malformed };
    let (sampled, is_debug) = match parts.next() {
        None => (None, false),
        Some(b"1") => (Some(true), false),
        Some(b"0") => (Some(false), false),
        Some(b"d") => (Some(true), true),
        Some(_) => return Said::Malformed,
    };
    let has_sound_parent = parts.next().is_none_or(|parent| hex(parent, 16).is_some());
    match parent(trace, span, is_debug) {
        Some(parent) if has_sound_parent && parts.next().is_none() => Said::Parent(parent, sampled),
        _ => Said::Malformed,
    }
}

/// The ids of a trace, of 32 or of 16 digits, and of a span.
fn parent(trace: &[u8], span: &[u8], is_debug: bool) -> Option<Parent> {
    let is_short = trace.len() == 16;
    let trace = hex(trace, if is_short { 16 } else { 32 })?;
    let span = u64::try_from(hex(span, 16)?).ok()?;
    (trace != 0 && span != 0).then_some(Parent { trace, span, flags: 0, is_debug, is_short })
}

/// What says whether the trace is recorded.
fn sampled(context: &TraceContext) -> u8 {
    match context.flags & SAMPLED {
        _ if context.is_debug => b'd',
        0 => b'0',
        _ => b'1',
    }
}

pub(super) fn write_single(context: &TraceContext, trace: &[u8], span: &[u8; 16], header: impl FnOnce(&[u8])) {
    // The longest: 32, 16, 1 and 16 digits, and what is between them.
    let (mut value, mut length) = ([0; 68], 0);
    let parent = super::span_digits(context.parent);
    let parts: [&[u8]; 7] = [trace, b"-", span, b"-", &[sampled(context)], b"-", &parent];
    let wanted = if context.parent == 0 { 5 } else { 7 };
    for part in parts.into_iter().take(wanted) {
        value[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    header(&value[..length]);
}

pub(super) fn write_multi(
    context: &TraceContext,
    trace: &[u8],
    span: &[u8; 16],
    mut header: impl FnMut(&'static str, &[u8]),
) {
    header("X-B3-TraceId", trace);
    header("X-B3-SpanId", span);
    if context.parent != 0 {
        header("X-B3-ParentSpanId", &super::span_digits(context.parent));
    }
    match sampled(context) {
        // A debugged trace is recorded, which is not said twice.
        b'd' => header("X-B3-Flags", b"1"),
        sampled => header("X-B3-Sampled", &[sampled]),
    }
}
