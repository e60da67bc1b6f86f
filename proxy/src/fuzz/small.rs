//! What peers put into headers and small messages.

use crate::trace_context::{Incoming, Rate, TraceField, Tracing};

/// The trace headers of a request, as lines of `name: value`: what the request carries on is a context that the next hop
/// reads as it was meant.
///
/// # Panics
///
/// When it is not.
pub fn trace_headers(bytes: &[u8]) {
    let lines: Vec<(TraceField, &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let value = line.get(colon + 1..)?.trim_ascii();
            Some((TraceField::of(line.get(..colon)?)?, value))
        })
        .collect();
    let mut incoming = Incoming::default();
    lines.iter().for_each(|(field, value)| incoming.take(*field, value));
    for rate in [Rate::NEVER, Rate::percent(100.0).expect("a percentage")] {
        let tracing = Tracing { rate, ..Tracing::default() };
        let Some(context) = tracing.context(&incoming, || 0x1111_2222_3333_4444_5555_6666_7777_8888) else { continue };
        let mut written: Vec<(TraceField, Vec<u8>)> = Vec::new();
        context.write(|name, value| {
            written.push((TraceField::of(name.as_bytes()).expect("a trace header"), value.to_vec()));
        });
        let Some(first) = written.first() else { continue };
        let mut next = Incoming::default();
        written.iter().for_each(|(field, value)| next.take(*field, value));
        let again = tracing.context(&next, || 7 << 64).expect("what was written is a context");
        assert_eq!((again.trace, again.parent), (context.trace, context.span), "{first:?}");
        assert_eq!(again.is_sampled(), context.is_sampled(), "{first:?}");
    }
}

/// What an application's health service answers to a probe.
///
/// # Panics
///
/// When what stands behind the answer changes it.
pub fn health_answer(bytes: &[u8]) {
    crate::app_probe::fuzz_answer(bytes);
}

/// What an application asks of the socket of its pod's identity.
pub fn workload_api(bytes: &[u8]) {
    crate::workload_api::fuzz_requests(bytes);
}
