//! Heads as they go on: hop-by-hop fields and the mesh's own removed, framing and identity fields put in.

pub(crate) mod h2;

use std::io::Write as _;
use std::net::IpAddr;

use crate::authorise::Handover;
use crate::codec::{Field, Kind, Request, Response, Version};
use crate::trace_context::{TraceContext, TraceField};

/// Where a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// From outside the mesh.
    Gateway,
    /// From the application beside the proxy.
    Outbound,
    /// From the mesh to the application beside the proxy.
    Inbound,
}

/// What changes in a request's head on its way.
#[derive(Debug)]
pub struct RequestChanges<'a> {
    /// Path and query to send.
    pub path: &'a [u8],
    /// Authority to send.
    pub authority: &'a [u8],
    /// Where the request comes in.
    pub edge: Edge,
    /// Who sent it.
    pub peer: IpAddr,
    /// The id to give it; `None` if it keeps its own, or gets none.
    pub request_id: Option<&'a [u8]>,
    /// Its place in a trace; `None` leaves what it came with.
    pub trace: Option<&'a TraceContext>,
    /// The protocol that it asks to switch to.
    pub upgrade: Option<&'a [u8]>,
    /// What tokens change in it.
    pub handover: Handover<'a>,
    /// Whom the application is told that the request comes from, by certificate; `None` tells nothing.
    pub client_cert: Option<ClientCert<'a>>,
}

/// The two ends of a connection by mutual TLS, for `X-Forwarded-Client-Cert`.
#[derive(Debug, Clone, Copy)]
pub struct ClientCert<'a> {
    /// The proxy itself.
    pub by: &'a str,
    /// Who called.
    pub uri: &'a str,
}

impl std::fmt::Display for ClientCert<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "By={};URI={}", self.by, self.uri)
    }
}

/// Appends the head of a request as it goes to the upstream.
pub fn write_request(out: &mut Vec<u8>, request: &Request, head: &[u8], changes: &RequestChanges<'_>) {
    let RequestChanges { path, authority, edge, peer, request_id, trace, upgrade, handover, client_cert } = changes;
    for part in [request.method.of(head), b" ", path, b" HTTP/1.1\r\nHost: ", authority, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let at_gateway = *edge == Edge::Gateway;
    for field in &request.fields {
        let stays = match field.kind {
            Kind::Host | Kind::Internal => false,
            Kind::ForwardedFor | Kind::ForwardedProto => !at_gateway,
            Kind::RequestId => request_id.is_none(),
            Kind::Trace(TraceField::State) => trace.is_none_or(TraceContext::keeps_state),
            Kind::Trace(_) => trace.is_none(),
            kind => !kind.is_hop(),
        };
        if stays && !field.is_nominated && handover.keeps(field.name.of(head)) {
            write_field(out, field, head);
        }
    }
    if request.is_chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(protocol) = upgrade {
        write_upgrade(out, protocol);
    }
    if at_gateway {
        out.extend_from_slice(b"X-Forwarded-For: ");
        for field in request.fields.iter().filter(|field| field.kind == Kind::ForwardedFor && !field.value.is_empty()) {
            out.extend_from_slice(field.value.of(head));
            out.extend_from_slice(b", ");
        }
        // Writing to a vector does not fail.
        let _ = write!(out, "{peer}\r\nX-Forwarded-Proto: http\r\n");
    }
    if let Some(id) = request_id {
        for part in [&b"X-Request-Id: "[..], id, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    for (name, value) in handover.added() {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    if let Some(client_cert) = client_cert {
        let _ = write!(out, "X-Forwarded-Client-Cert: {client_cert}\r\n");
    }
    if let Some(trace) = trace {
        trace.write(|name, value| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        });
    }
    out.extend_from_slice(b"\r\n");
}

/// What changes in a response's head on its way.
#[derive(Debug, Clone, Copy)]
pub struct ResponseChanges {
    /// The version that the client speaks.
    pub version: Version,
    /// Whether the body goes out in chunks.
    pub chunked: bool,
    /// Whether the connection ends after it.
    pub close: bool,
}

/// Appends the head of a response as it goes to the client.
pub fn write_response(out: &mut Vec<u8>, response: &Response, head: &[u8], changes: ResponseChanges) {
    write_status(out, response, head);
    for field in &response.fields {
        if !field.kind.is_hop() && !field.is_nominated {
            write_field(out, field, head);
        }
    }
    if changes.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !response.is_interim() {
        out.extend_from_slice(connection(changes.version, changes.close));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an answer after which the connection is no HTTP any more: 101, or what accepts a tunnel.
pub(crate) fn write_switch(out: &mut Vec<u8>, response: &Response, head: &[u8], protocol: Option<&[u8]>) {
    write_status(out, response, head);
    for field in &response.fields {
        // A length would be another's reason to wait for a body.
        if !field.kind.is_hop() && !field.is_nominated && field.kind != Kind::ContentLength {
            write_field(out, field, head);
        }
    }
    if let Some(protocol) = protocol {
        write_upgrade(out, protocol);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_upgrade(out: &mut Vec<u8>, protocol: &[u8]) {
    for part in [&b"Connection: Upgrade\r\nUpgrade: "[..], protocol, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn write_status(out: &mut Vec<u8>, response: &Response, head: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let status = response.status;
    out.extend([100, 10, 1].map(|unit| b'0' + u8::try_from(status / unit % 10).unwrap_or(0)));
    out.push(b' ');
    out.extend_from_slice(response.reason.of(head));
    out.extend_from_slice(b"\r\n");
}

/// The `Connection` field of a response, if it needs one.
pub(crate) fn connection(version: Version, close: bool) -> &'static [u8] {
    match (version, close) {
        (_, true) => b"Connection: close\r\n",
        (Version::Http10, false) => b"Connection: keep-alive\r\n",
        (Version::Http11 | Version::Http2, false) => b"",
    }
}

fn write_field(out: &mut Vec<u8>, field: &Field, head: &[u8]) {
    if field.is_plain {
        out.extend_from_slice(head.get(field.name.start as usize..field.value.end as usize).unwrap_or_default());
    } else {
        out.extend_from_slice(field.name.of(head));
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value.of(head));
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a request at a gateway comes from outside, as Envoy decides it: its caller has no private address, or speaks
/// for another. What such a request says of itself is not trusted.
#[must_use]
pub fn is_external(peer: IpAddr, is_forwarded: bool) -> bool {
    let is_private = match peer.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    };
    is_forwarded || !is_private
}

/// A new request id: a random UUID.
#[must_use]
pub fn new_request_id() -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    /// Where the digits of each byte stand.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut bits: u128 = rand::random();
    bits = (bits & !(0xf << 76)) | (4 << 76);
    bits = (bits & !(0x3 << 62)) | (2 << 62);
    let mut text = [b'-'; 36];
    for (byte, at) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0xf)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Limits, Scan, parse_request};

    fn rewritten(text: &str, edge: Edge, request_id: Option<&[u8]>) -> String {
        let (limits, mut request) = (Limits::default(), Request::default());
        let end = Scan::default().find_end(text.as_bytes(), &limits).expect("valid").expect("whole");
        parse_request(text.as_bytes(), end, &limits, &mut request).expect("valid");
        let mut out = Vec::new();
        let peer = IpAddr::from([10, 0, 0, 9]);
        let handover = Handover::default();
        let changes = RequestChanges {
            path: b"/to",
            authority: b"b",
            edge,
            peer,
            request_id,
            trace: None,
            upgrade: None,
            handover,
            client_cert: None,
        };
        write_request(&mut out, &request, text.as_bytes(), &changes);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_belongs_to_the_connection_or_to_the_mesh_goes_no_further() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, foo\r\nKeep-Alive: 5\r\nFoo: 1\r\nTE: trailers\r\n\
                    X-Envoy-Original-Path: /admin\r\nx-mesh-failure: no_route\r\nX_Forwarded_For: 1.1.1.1\r\nx_mesh_peer: a\r\nX-Forwarded-Client-Cert: By=a;URI=b\r\nx_forwarded_client_cert: x\r\nProxy-Connection: close\r\nBar:  2 \r\n\r\n";
        assert_eq!(rewritten(text, Edge::Outbound, None), "GET /to HTTP/1.1\r\nHost: b\r\nBar: 2\r\n\r\n");
    }

    #[test]
    fn a_gateway_says_whom_it_speaks_for() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n";
        assert_eq!(
            rewritten(text, Edge::Gateway, Some(b"id")),
            "GET /to HTTP/1.1\r\nHost: b\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Request-Id: id\r\n\r\n"
        );
        assert_eq!(
            rewritten(text, Edge::Inbound, None),
            "GET /to HTTP/1.1\r\nHost: b\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n"
        );
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let id = String::from_utf8(new_request_id().to_vec()).expect("text");
        assert_eq!(id.len(), 36);
        assert!(id.as_bytes()[14] == b'4' && matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        assert_ne!(new_request_id(), new_request_id());
    }
}
