//! Heads between HTTP/2 and HTTP/1.1, each in its own form: fields in a map, or lines of text.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, request, response};

use super::{RequestChanges, connection};
use crate::authorise::Handover;
use crate::codec::{Kind, Limits, Malformed, Request, Response, Span, Version, check_head};
use crate::headers::{Edge, ResponseChanges};
use crate::trace_context::{TraceContext, TraceField};

/// Tells the proxy beside an application which protocol the application at the other end speaks.
pub(crate) const SPOKEN: HeaderName = HeaderName::from_static("x-mesh-protocol");

/// Reads what the proxy must know of a request that came by HTTP/2, and takes out what is the connection's.
///
/// # Errors
///
/// It can be read in more than one way, or could be once it is written as HTTP/1.1.
pub(crate) fn read_request(
    parts: &mut request::Parts,
    ends: bool,
    limits: &Limits,
    request: &mut Request,
) -> Result<(), Malformed> {
    let fields = std::mem::take(&mut request.fields);
    *request = Request { fields, version: Version::Http2, keep_alive: true, ..Request::default() };
    request.fields.clear();
    let (mut size, mut count, mut crumbs, mut has_hops) = (0, 0, 0, false);
    let mut hosts = 0;
    for (name, value) in &parts.headers {
        size += name.as_str().len() + value.len() + 4;
        count += 1;
        match Kind::read(name.as_str().as_bytes())? {
            Kind::ContentLength if request.length.is_some() => return Err(Malformed::TwoLengths),
            Kind::ContentLength => request.length = Some(crate::codec::parse_length(value.as_bytes())?),
            Kind::Host => hosts += 1,
            Kind::Other if *name == header::COOKIE => crumbs += 1,
            kind => has_hops |= kind.is_hop(),
        }
    }
    if hosts > 1 {
        return Err(Malformed::TwoHosts);
    }
    if size > limits.head {
        return Err(Malformed::HeadTooLarge);
    }
    // However many crumbs a cookie comes in, it is one field.
    if count > limits.fields + usize::saturating_sub(crumbs, 1) {
        return Err(Malformed::TooManyFields);
    }
    trim_values(&mut parts.headers);
    check_target(parts)?;
    if has_hops {
        remove_hops(&mut parts.headers);
    }
    if crumbs > 1 {
        join_cookies(&mut parts.headers);
    }
    request.is_chunked = !ends && request.length.is_none();
    Ok(())
}

/// Checks path and authority, and takes the authority out of `host` if it stands there only.
fn check_target(parts: &mut request::Parts) -> Result<(), Malformed> {
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let host = parts.headers.remove(header::HOST);
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = check_head(
        parts.method.as_str().as_bytes(),
        path.as_bytes(),
        authority,
        host.as_ref().map(HeaderValue::as_bytes),
    )?;
    if parts.uri.authority().is_none() {
        let authority = Authority::from_maybe_shared(Bytes::copy_from_slice(host)).map_err(|_| Malformed::Host)?;
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.authority = Some(authority);
        uri.scheme.get_or_insert(Scheme::HTTP);
        parts.uri = Uri::from_parts(uri).map_err(|_| Malformed::Target)?;
    }
    Ok(())
}

/// White space around a value is no part of it: who matches on the value sees the same as who is sent it.
fn trim_values(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let bytes = value.as_bytes();
        let trimmed = crate::codec::trim(bytes);
        if trimmed.len() != bytes.len()
            && let Ok(clean) = HeaderValue::from_bytes(trimmed)
        {
            *value = clean;
        }
    }
}

fn remove_hops(headers: &mut HeaderMap) {
    // These are all that the codec lets through.
    for name in [
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "connection",
        "transfer-encoding",
    ] {
        if name == "te" && headers.get(header::TE).is_some_and(|value| value == "trailers") {
            continue;
        }
        headers.remove(name);
    }
}

/// One field for all crumbs, as HTTP/1.1 has it.
fn join_cookies(headers: &mut HeaderMap) {
    let mut joined = Vec::new();
    // An empty one says nothing, and would leave white space at the end.
    for crumb in headers.get_all(header::COOKIE).iter().filter(|crumb| !crumb.is_empty()) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(header::COOKIE, value);
    }
}

/// Brings the fields of a request into the form in which they go on.
///
/// # Errors
///
/// Path or authority cannot stand in a request.
pub(crate) fn rewrite_request(parts: &mut request::Parts, changes: &RequestChanges<'_>) -> Result<(), Malformed> {
    remove_internal(&mut parts.headers);
    hand_over(&mut parts.headers, &changes.handover);
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if uri.path_and_query.as_ref().is_none_or(|path| path.as_str().as_bytes() != changes.path) {
        let path = Bytes::copy_from_slice(changes.path);
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed::Target)?);
    }
    if uri.authority.as_ref().is_none_or(|authority| authority.as_str().as_bytes() != changes.authority) {
        let authority = Bytes::copy_from_slice(changes.authority);
        uri.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| Malformed::Host)?);
    }
    uri.scheme = Some(Scheme::HTTP);
    parts.uri = Uri::from_parts(uri).map_err(|_| Malformed::Target)?;
    if changes.edge == Edge::Gateway {
        forwarded_for(&mut parts.headers, changes);
    }
    if let Some(id) = changes.request_id
        && let Ok(id) = HeaderValue::from_bytes(id)
    {
        parts.headers.insert("x-request-id", id);
    }
    if let Some(client_cert) = changes.client_cert
        && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(client_cert.to_string()))
    {
        parts.headers.insert("x-forwarded-client-cert", value);
    }
    if let Some(trace) = changes.trace {
        write_trace(&mut parts.headers, trace);
    }
    Ok(())
}

/// Takes out what a client may not say and what the application does not get, and puts in what tokens say.
fn hand_over(headers: &mut HeaderMap, handover: &Handover<'_>) {
    while let Some(name) = headers.keys().find(|name| !handover.keeps(name.as_str().as_bytes())).cloned() {
        headers.remove(name);
    }
    for (name, value) in handover.added() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}

/// The request's place in a trace instead of what it came with.
fn write_trace(headers: &mut HeaderMap, trace: &TraceContext) {
    let is_old = |name: &&HeaderName| match TraceField::of(name.as_str().as_bytes()) {
        Some(TraceField::State) => !trace.keeps_state(),
        field => field.is_some(),
    };
    while let Some(name) = headers.keys().find(is_old).cloned() {
        headers.remove(name);
    }
    trace.write(|name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            headers.insert(name, value);
        }
    });
}

/// Removes what only the mesh may say, in every spelling.
fn remove_internal(headers: &mut HeaderMap) {
    let is_internal = |name: &&HeaderName| matches!(Kind::read(name.as_str().as_bytes()), Ok(Kind::Internal));
    while let Some(name) = headers.keys().find(is_internal).cloned() {
        headers.remove(name);
    }
}

fn forwarded_for(headers: &mut HeaderMap, changes: &RequestChanges<'_>) {
    let mut text = Vec::new();
    for value in headers.get_all("x-forwarded-for").iter().filter(|value| !value.is_empty()) {
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b", ");
    }
    // Writing to a vector does not fail.
    let _ = write!(text, "{}", changes.peer);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        headers.insert("x-forwarded-for", value);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
}

/// Appends the head of a request that came by HTTP/2 as HTTP/1.1.
pub(crate) fn write_text(out: &mut Vec<u8>, parts: &request::Parts, is_chunked: bool) {
    let authority = parts.uri.authority().map_or("", Authority::as_str);
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    for part in [parts.method.as_str(), " ", path, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_fields(out, &parts.headers, is_chunked);
    out.extend_from_slice(b"\r\n");
}

fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap, is_chunked: bool) {
    for (name, value) in headers {
        if *name == header::TE || *name == header::HOST {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    if is_chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

/// Makes HTTP/2 of a head that [`super::write_request`] wrote.
///
/// # Errors
///
/// Something in it cannot stand in HTTP/2.
pub(crate) fn of_text(text: &[u8]) -> Result<http::Request<()>, Malformed> {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|byte| *byte == b' ');
    let method = words.next().and_then(|word| http::Method::from_bytes(word).ok()).ok_or(Malformed::Method)?;
    let path = Bytes::copy_from_slice(words.next().unwrap_or_default());
    let path = PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed::Target)?;
    let mut authority = None;
    let mut headers = HeaderMap::with_capacity(16);
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) =
            (line.get(..colon).unwrap_or_default(), crate::codec::trim(line.get(colon + 1..).unwrap_or_default()));
        if name.eq_ignore_ascii_case(b"host") {
            authority = Authority::from_maybe_shared(Bytes::copy_from_slice(value)).ok();
        } else if !name.eq_ignore_ascii_case(b"transfer-encoding") {
            insert(&mut headers, name, value)?;
        }
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.ok_or(Malformed::Host)?);
    uri.path_and_query = Some(path);
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Malformed::Target)?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

fn insert(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let name = HeaderName::from_bytes(name).map_err(|_| Malformed::FieldName)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| Malformed::Control)?;
    headers.try_append(name, value).map_err(|_| Malformed::TooManyFields)?;
    Ok(())
}

/// Makes a field of a trailer line, unless it may not stand in a trailer.
///
/// # Errors
///
/// As for a line that goes on as text.
pub(crate) fn trailer_of_text(line: &[u8], trailers: &mut HeaderMap) -> Result<(), Malformed> {
    let mut copied = Vec::new();
    crate::codec::copy_trailer(line, &mut copied)?;
    let Some(colon) = memchr::memchr(b':', &copied) else { return Ok(()) };
    let (name, value) = copied.split_at(colon);
    insert(trailers, name, crate::codec::trim(value.get(1..).unwrap_or_default().trim_ascii_end()))
}

/// Appends trailers as lines of text; those that may not stand in a trailer are left out.
pub(crate) fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    let mut line = Vec::new();
    for (name, value) in trailers {
        line.clear();
        line.extend_from_slice(name.as_str().as_bytes());
        line.extend_from_slice(b": ");
        line.extend_from_slice(value.as_bytes());
        // One that may not stand there has no place to go.
        let _ = crate::codec::copy_trailer(&line, out);
    }
}

/// What gRPC says of a call, in its trailers or in a head without a body.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Makes HTTP/2 of a response's head.
///
/// # Errors
///
/// Something in it cannot stand in HTTP/2.
pub(crate) fn response_of_text(response: &Response, head: &[u8]) -> Result<http::Response<()>, Malformed> {
    let mut made = http::Response::new(());
    *made.status_mut() = http::StatusCode::from_u16(response.status).map_err(|_| Malformed::Status)?;
    *made.version_mut() = http::Version::HTTP_2;
    let headers = made.headers_mut();
    headers.reserve(response.fields.len());
    for field in &response.fields {
        if !field.kind.is_hop() && !field.is_nominated {
            insert(headers, field.name.of(head), field.value.of(head))?;
        }
    }
    Ok(made)
}

/// Reads what the proxy must know of a response that came by HTTP/2.
///
/// # Errors
///
/// It could be read in two ways once it is written as HTTP/1.1.
pub(crate) fn read_response(
    parts: &mut response::Parts,
    ends: bool,
    limits: &Limits,
    response: &mut Response,
) -> Result<(), Malformed> {
    let mut fields = std::mem::take(&mut response.fields);
    fields.clear();
    *response = Response {
        fields,
        version: Version::Http2,
        status: parts.status.as_u16(),
        keep_alive: true,
        ..Response::default()
    };
    response.reason = Span::default();
    let (mut size, mut count) = (0, 0);
    let mut has_hops = false;
    for (name, value) in &parts.headers {
        size += name.as_str().len() + value.len() + 4;
        count += 1;
        match Kind::read(name.as_str().as_bytes())? {
            Kind::ContentLength if response.length.is_some() => return Err(Malformed::TwoLengths),
            Kind::ContentLength => response.length = Some(crate::codec::parse_length(value.as_bytes())?),
            kind => has_hops |= kind.is_hop(),
        }
    }
    if size > limits.head {
        return Err(Malformed::HeadTooLarge);
    }
    if count > limits.fields {
        return Err(Malformed::TooManyFields);
    }
    if has_hops {
        remove_hops(&mut parts.headers);
    }
    trim_values(&mut parts.headers);
    response.is_chunked = !ends && response.length.is_none();
    Ok(())
}

/// Appends the head of a response that came by HTTP/2 as HTTP/1.1.
pub(crate) fn write_response_text(out: &mut Vec<u8>, parts: &response::Parts, changes: ResponseChanges) {
    let status = parts.status;
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_fields(out, &parts.headers, changes.chunked);
    if !status.is_informational() {
        out.extend_from_slice(connection(changes.version, changes.close));
    }
    out.extend_from_slice(b"\r\n");
}
