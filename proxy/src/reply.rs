//! Answers of the proxy's own.

use std::io::Write as _;

use crate::codec::Version;
use crate::failure::Failure;
use crate::headers::connection;

/// How an answer of the proxy's own is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// The version that the client speaks.
    pub(crate) version: Version,
    /// Whether the client asked with HEAD.
    pub(crate) to_head: bool,
    /// Whether the connection ends after it.
    pub(crate) close: bool,
}

/// Appends the answer for a failure: its status, its code word as `x-mesh-failure`, and its sentence.
pub(crate) fn write_failure(out: &mut Vec<u8>, failure: Failure, manner: Manner) {
    let body = format!("{}: {failure}\n", failure.code());
    let fields = [("x-mesh-failure", failure.code()), ("Content-Type", "text/plain")];
    write(out, failure.status(), &fields, body.as_bytes(), manner);
}

/// Appends an answer with these fields and this body.
pub(crate) fn write(out: &mut Vec<u8>, status: u16, fields: &[(&str, &str)], body: &[u8], manner: Manner) {
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let is_bodiless = matches!(status, 204 | 304);
    // Writing to a vector does not fail.
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in fields {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    if !is_bodiless {
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    out.extend_from_slice(connection(manner.version, manner.close));
    out.extend_from_slice(b"\r\n");
    if !manner.to_head && !is_bodiless {
        out.extend_from_slice(body);
    }
}
