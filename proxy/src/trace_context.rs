//! Distributed traces: W3C's `traceparent` and the B3 headers, read, checked, and written anew at every hop.
//!
//! What is malformed is never believed: such a context is taken away, and the request begins a trace of its own.

mod b3;
mod sampling;
mod w3c;

pub use self::sampling::{Formats, Rate, SamplingError, Tracing};

/// A header that carries a part of a trace's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceField {
    /// `traceparent`.
    Parent,
    /// `tracestate`.
    State,
    /// `b3`.
    B3,
    /// `X-B3-TraceId`.
    B3TraceId,
    /// `X-B3-SpanId`.
    B3SpanId,
    /// `X-B3-ParentSpanId`.
    B3ParentSpanId,
    /// `X-B3-Sampled`.
    B3Sampled,
    /// `X-B3-Flags`.
    B3Flags,
}

impl TraceField {
    /// The field of this name, in whatever case.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is(b"b3") => Some(TraceField::B3),
            10 if is(b"tracestate") => Some(TraceField::State),
            10 if is(b"x-b3-flags") => Some(TraceField::B3Flags),
            11 if is(b"traceparent") => Some(TraceField::Parent),
            11 if is(b"x-b3-spanid") => Some(TraceField::B3SpanId),
            12 if is(b"x-b3-traceid") => Some(TraceField::B3TraceId),
            12 if is(b"x-b3-sampled") => Some(TraceField::B3Sampled),
            17 if is(b"x-b3-parentspanid") => Some(TraceField::B3ParentSpanId),
            _ => None,
        }
    }
}

/// A header that may come once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Once<'a> {
    #[default]
    Absent,
    Here(&'a [u8]),
    /// Twice: nobody knows which is meant.
    Ambiguous,
}

impl<'a> Once<'a> {
    fn take(&mut self, value: &'a [u8]) {
        *self = if *self == Once::Absent { Once::Here(value) } else { Once::Ambiguous };
    }
}

/// The trace headers of one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Incoming<'a> {
    is_there: bool,
    traceparent: Once<'a>,
    state: w3c::State,
    b3: Once<'a>,
    multi: b3::Multi<'a>,
}

impl<'a> Incoming<'a> {
    /// Takes one header of the request.
    pub fn take(&mut self, field: TraceField, value: &'a [u8]) {
        self.is_there = true;
        match field {
            TraceField::Parent => self.traceparent.take(value),
            TraceField::State => self.state.take(value),
            TraceField::B3 => self.b3.take(value),
            TraceField::B3TraceId => self.multi.trace.take(value),
            TraceField::B3SpanId => self.multi.span.take(value),
            TraceField::B3ParentSpanId => {}
            TraceField::B3Sampled => self.multi.sampled.take(value),
            TraceField::B3Flags => self.multi.flags.take(value),
        }
    }
}

/// Who continues a trace, as far as headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    trace: u128,
    span: u64,
    /// W3C's flags that are passed on.
    flags: u8,
    is_debug: bool,
    /// Whether B3 named it with 16 digits only.
    is_short: bool,
}

/// W3C's flag of traces that are recorded.
const SAMPLED: u8 = 1;
/// W3C's flags with a meaning: sampled, and random.
const KNOWN_FLAGS: u8 = 3;

/// The context of one request at this hop: the trace, and the proxy's own span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: u128,
    /// The proxy's span.
    pub span: u64,
    /// The span that it belongs to, 0 for none.
    pub parent: u64,
    flags: u8,
    is_debug: bool,
    is_short: bool,
    keeps_state: bool,
    formats: Formats,
}

/// A trace as 32 hexadecimal digits.
#[must_use]
pub fn trace_digits(trace: u128) -> [u8; 32] {
    digits(trace)
}

/// A span as 16 hexadecimal digits.
#[must_use]
pub fn span_digits(span: u64) -> [u8; 16] {
    digits(u128::from(span))
}

/// The lowest `N` hexadecimal digits.
fn digits<const N: usize>(mut value: u128) -> [u8; N] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; N];
    for digit in text.iter_mut().rev() {
        *digit = HEX[(value & 0xf) as usize];
        value >>= 4;
    }
    text
}

/// Reads so many lower-case hexadecimal digits, and nothing else.
fn hex(text: &[u8], count: usize) -> Option<u128> {
    if text.len() != count {
        return None;
    }
    text.iter().try_fold(0, |value: u128, byte| match byte {
        b'0'..=b'9' => Some(value << 4 | u128::from(byte - b'0')),
        b'a'..=b'f' => Some(value << 4 | u128::from(byte - b'a' + 10)),
        _ => None,
    })
}

impl TraceContext {
    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Whether the request's own `tracestate` goes on with it.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.keeps_state
    }

    /// Gives every header that the request carries on, in the formats that it came with and those that are asked for.
    pub fn write(&self, mut header: impl FnMut(&'static str, &[u8])) {
        let (trace, span) = (trace_digits(self.trace), span_digits(self.span));
        if self.formats.w3c {
            let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
            value[3..35].copy_from_slice(&trace);
            value[36..52].copy_from_slice(&span);
            value[53..].copy_from_slice(&digits::<2>(u128::from(self.flags)));
            header("traceparent", &value);
        }
        let trace = if self.is_short { &trace[16..] } else { &trace[..] };
        if self.formats.b3 {
            b3::write_single(self, trace, &span, |value| header("b3", value));
        }
        if self.formats.b3_multi {
            b3::write_multi(self, trace, &span, header);
        }
    }
}

#[cfg(test)]
mod tests;
