//! What lines of the log say of heads, kept when the heads themselves have gone on.

use std::sync::Arc;

use crate::access_log::{AccessLog, Format, Wanted};
use crate::codec::{Kind, Request, Response, Span, Version};
use crate::trace_context::{Incoming, TraceContext, TraceField};

/// Fields of a head, of whatever version of HTTP.
pub(crate) trait Fields {
    /// The first value of a header.
    fn field(&self, wanted: &Wanted) -> Option<&[u8]>;
}

/// The head of a request, of whatever version of HTTP.
pub(crate) trait Head: Fields {
    /// The method, as sent.
    fn method(&self) -> &[u8];
    /// Path and query, as sent.
    fn path(&self) -> &[u8];
    /// The authority, as sent; empty for none.
    fn authority(&self) -> &[u8];
    /// The version of HTTP as logs say it.
    fn version(&self) -> &'static str;
    /// What tells of a trace.
    fn trace(&self) -> Incoming<'_>;
}

/// A message of HTTP/1 and the bytes that it was read from.
pub(crate) struct Http1<'a, M>(pub(crate) &'a M, pub(crate) &'a [u8]);

impl Fields for Http1<'_, Request> {
    fn field(&self, wanted: &Wanted) -> Option<&[u8]> {
        find(&self.0.fields, self.1, wanted)
    }
}

impl Fields for Http1<'_, Response> {
    fn field(&self, wanted: &Wanted) -> Option<&[u8]> {
        find(&self.0.fields, self.1, wanted)
    }
}

/// The mesh's own fields are not believed from outside, so lines do not show them either.
fn find<'h>(fields: &[crate::codec::Field], head: &'h [u8], wanted: &Wanted) -> Option<&'h [u8]> {
    let name = wanted.name();
    let is_wanted = |field: &&crate::codec::Field| {
        let found = field.name.of(head);
        found.len() == name.len() && found.eq_ignore_ascii_case(name) && field.kind != Kind::Internal
    };
    fields.iter().find(is_wanted).map(|field| field.value.of(head))
}

impl Head for Http1<'_, Request> {
    fn method(&self) -> &[u8] {
        self.0.method.of(self.1)
    }

    fn path(&self) -> &[u8] {
        self.0.path(self.1)
    }

    fn authority(&self) -> &[u8] {
        self.0.host.map(|host| host.of(self.1)).unwrap_or_default()
    }

    fn version(&self) -> &'static str {
        self.0.version.as_str()
    }

    fn trace(&self) -> Incoming<'_> {
        let mut incoming = Incoming::default();
        for field in &self.0.fields {
            if let Kind::Trace(kind) = field.kind {
                incoming.take(kind, field.value.of(self.1));
            }
        }
        incoming
    }
}

impl Fields for http::HeaderMap {
    fn field(&self, wanted: &Wanted) -> Option<&[u8]> {
        let name = std::str::from_utf8(wanted.name()).ok()?;
        if matches!(Kind::read(wanted.name()), Ok(Kind::Internal)) {
            return None;
        }
        self.get(name).map(http::HeaderValue::as_bytes)
    }
}

impl Fields for http::request::Parts {
    fn field(&self, wanted: &Wanted) -> Option<&[u8]> {
        self.headers.field(wanted)
    }
}

impl Head for http::request::Parts {
    fn method(&self) -> &[u8] {
        self.method.as_str().as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes()
    }

    fn authority(&self) -> &[u8] {
        self.uri.authority().map_or("", |authority| authority.as_str()).as_bytes()
    }

    fn version(&self) -> &'static str {
        Version::Http2.as_str()
    }

    fn trace(&self) -> Incoming<'_> {
        let mut incoming = Incoming::default();
        for (name, value) in &self.headers {
            if let Some(kind) = TraceField::of(name.as_str().as_bytes()) {
                incoming.take(kind, value.as_bytes());
            }
        }
        incoming
    }
}

/// What lines say of a request's head and its response's. Used again for the next request.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// What lines are to hold; `None` if there are none.
    format: Option<Arc<Format>>,
    text: Vec<u8>,
    method: Span,
    path: Span,
    authority: Span,
    version: &'static str,
    request: Vec<Span>,
    response: Vec<Span>,
    trace: Option<TraceContext>,
}

impl Note {
    /// Takes down what lines say of a request's head, and its place in a trace.
    pub(crate) fn take(&mut self, head: &impl Head, log: Option<&AccessLog>, trace: Option<TraceContext>) {
        self.begin(log, trace);
        self.version = head.version();
        self.method = self.keep(head.method());
        self.path = self.keep(head.path());
        self.authority = self.keep(head.authority());
        let Some(format) = self.format.take() else { return };
        for wanted in format.request_headers() {
            let value = self.keep(head.field(wanted).unwrap_or_default());
            self.request.push(value);
        }
        self.format = Some(format);
    }

    /// Takes down that no head could be read, or that there is none.
    pub(crate) fn take_nothing(&mut self, log: Option<&AccessLog>) {
        self.begin(log, None);
        (self.method, self.path, self.authority) = <_>::default();
        self.version = "";
    }

    fn begin(&mut self, log: Option<&AccessLog>, trace: Option<TraceContext>) {
        if let Some(log) = log {
            log.refresh(&mut self.format);
        }
        self.text.clear();
        self.request.clear();
        self.response.clear();
        self.trace = trace;
    }

    /// Takes down an id that the request was given.
    pub(crate) fn take_request_id(&mut self, id: &[u8]) {
        let Some(format) = &self.format else { return };
        let at = format.request_headers().iter().position(|wanted| wanted.name() == b"x-request-id");
        let Some(at) = at else { return };
        let id = self.keep(id);
        if let Some(kept) = self.request.get_mut(at) {
            *kept = id;
        }
    }

    /// Takes down what lines say of the response's head.
    pub(crate) fn take_response(&mut self, head: &impl Fields) {
        let Some(format) = self.format.take_if(|format| !format.response_headers().is_empty()) else { return };
        self.response.clear();
        for wanted in format.response_headers() {
            let value = self.keep(head.field(wanted).unwrap_or_default());
            self.response.push(value);
        }
        self.format = Some(format);
    }

    /// What the line is to hold.
    pub(crate) fn format(&self) -> Option<&Format> {
        self.format.as_deref()
    }

    /// The request's place in a trace.
    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Whether nothing has been taken down ever.
    pub(crate) fn is_new(&self) -> bool {
        self.text.capacity() == 0
    }

    /// The method; empty if no head was read.
    pub(crate) fn method(&self) -> &[u8] {
        self.method.of(&self.text)
    }

    /// Path and query, as sent.
    pub(crate) fn path(&self) -> &[u8] {
        self.path.of(&self.text)
    }

    /// The authority, as sent.
    pub(crate) fn authority(&self) -> &[u8] {
        self.authority.of(&self.text)
    }

    /// The version of HTTP; empty if no head was read.
    pub(crate) fn version(&self) -> &'static str {
        self.version
    }

    /// The value of one of the request's headers, by its place in the format.
    pub(crate) fn request(&self, at: usize) -> &[u8] {
        self.request.get(at).map(|value| value.of(&self.text)).unwrap_or_default()
    }

    /// The value of one of the response's headers, by its place in the format.
    pub(crate) fn response(&self, at: usize) -> &[u8] {
        self.response.get(at).map(|value| value.of(&self.text)).unwrap_or_default()
    }

    /// Whether the client asked with HEAD.
    #[must_use]
    pub(crate) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// Whether doing it twice is the same as once.
    #[must_use]
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    fn keep(&mut self, value: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(value);
        // Both are below the limits of heads.
        Span {
            start: u32::try_from(start).unwrap_or(u32::MAX),
            end: u32::try_from(self.text.len()).unwrap_or(u32::MAX),
        }
    }
}
