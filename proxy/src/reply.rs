//! Answers of the proxy's own.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::codec::Version;
use crate::failure::Failure;
use crate::headers::connection;

/// An answer of the proxy's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// Its fields, apart from the length of its body.
    pub(crate) fields: &'a [(&'a str, &'a str)],
    /// Its body.
    pub(crate) body: &'a [u8],
}

/// How an answer of the proxy's own is written as HTTP/1.1.
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
    Reply { status: failure.status(), fields: &fields, body: body.as_bytes() }.write(out, manner);
}

impl Reply<'_> {
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// Appends it as HTTP/1.1.
    pub(crate) fn write(&self, out: &mut Vec<u8>, manner: Manner) {
        let Reply { status, fields, body } = self;
        let reason =
            http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        // Writing to a vector does not fail.
        let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
        for (name, value) in *fields {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        if !self.is_bodiless() {
            let _ = write!(out, "Content-Length: {}\r\n", body.len());
        }
        out.extend_from_slice(connection(manner.version, manner.close));
        out.extend_from_slice(b"\r\n");
        if !manner.to_head && !self.is_bodiless() {
            out.extend_from_slice(body);
        }
    }

    /// Its head as HTTP/2.
    pub(crate) fn of_h2(&self, to_head: bool) -> http::Response<()> {
        let mut made = http::Response::new(());
        *made.status_mut() = http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.fields {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_str(value)) {
                made.headers_mut().append(name, value);
            }
        }
        // Trailers of gRPC that stand in the head have no body to measure.
        if !self.is_bodiless() && (!self.body.is_empty() || !to_head) {
            made.headers_mut().insert(http::header::CONTENT_LENGTH, self.body.len().into());
        }
        made
    }
}

/// The status of gRPC for a status of HTTP that a proxy answered with, as gRPC's own mapping has it.
#[must_use]
pub(crate) fn grpc_status(status: u16) -> u8 {
    const UNKNOWN: u8 = 2;
    const PERMISSION_DENIED: u8 = 7;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// A message as gRPC writes it in a field: what is not printable ASCII, and the percent sign, as `%XX`.
#[must_use]
pub(crate) fn grpc_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            // Writing to a text does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_grpc_is_printable() {
        assert_eq!(grpc_message("100 % of ü"), "100 %25 of %C3%BC");
    }

    #[test]
    fn the_statuses_of_grpc_are_those_of_its_own_mapping() {
        let mapped = [400, 401, 403, 404, 429, 431, 500, 502, 503, 504].map(grpc_status);
        assert_eq!(mapped, [13, 16, 7, 12, 14, 2, 2, 14, 14, 14]);
    }
}
