//! From a request's head to what happens with it: canonical form, decision, and the head as it goes on.

use std::borrow::Cow;
use std::time::Duration;

use engine::decide::{Forwarded, Outcome, decide as decide_by_engine};
use engine::path::{canonical_authority, canonical_path};
use engine::request::Caller;
use engine::tables::{Direct, Http, Tables};
use engine::trace::NoTrace;

use super::Session;
use crate::authorise::{self, Handover, Refusal};
use crate::codec::{Kind, Malformed, Request, Version};
use crate::failure::Failure;
use crate::headers::h2::{SPOKEN, rewrite_request};
use crate::headers::{ClientCert, Edge, RequestChanges, is_external, new_request_id, write_request};
use crate::upgrade::Switch;
use crate::upstream;

/// What was decided for a request.
pub(super) struct Decided<'t> {
    /// Name of the route; empty without one.
    pub(super) route: &'t str,
    /// A wait before anything else.
    pub(super) delay: Option<Duration>,
    /// What happens then.
    pub(super) plan: Plan<'t>,
    /// Which rules and policy refuse it; empty for none.
    pub(super) details: String,
}

/// What happens to a request.
pub(super) enum Plan<'t> {
    /// It goes on; its head stands in `Session::outgoing` or `Session::fields`.
    Forward(Forwarded<'t>),
    /// It is answered with a status and another place.
    Redirect(u16, String),
    /// It is answered by its route.
    Direct(&'t Direct),
    /// It fails.
    Fail(Failure),
}

impl<'t> From<Failure> for Decided<'t> {
    fn from(failure: Failure) -> Self {
        Decided { route: "", delay: None, plan: Plan::Fail(failure), details: String::new() }
    }
}

impl<'t> From<Refusal> for Decided<'t> {
    fn from(refusal: Refusal) -> Self {
        Decided { details: refusal.details, ..Decided::from(refusal.failure) }
    }
}

/// A request's head as it came.
pub(super) enum Head<'h> {
    /// Lines of text, where they stand.
    Text(&'h [u8]),
    /// Fields.
    Fields(Box<http::request::Parts>),
}

/// A request's head with its path and authority in canonical form, as the engine sees it.
struct Asked<'a> {
    request: &'a Request,
    head: &'a Head<'a>,
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    caller: Caller<'a>,
}

impl engine::request::Request for Asked<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn authority(&self) -> &str {
        self.authority
    }

    fn path(&self) -> &str {
        self.path
    }

    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let (text, fields) = match self.head {
            Head::Text(head) => (Some((head, self.request.fields.iter())), None),
            Head::Fields(parts) => (None, Some(parts.headers.get_all(name).iter())),
        };
        let name = name.as_bytes();
        let of_text = text.into_iter().flat_map(move |(head, fields)| {
            let named = fields.filter(move |field| field.name.of(head).eq_ignore_ascii_case(name));
            named.map(move |field| field.value.of(head))
        });
        of_text.chain(fields.into_iter().flatten().map(http::HeaderValue::as_bytes))
    }

    fn caller(&self) -> Caller<'_> {
        self.caller
    }
}

/// Decides about a request, and writes its head as it goes on.
pub(super) fn decide<'t>(session: &mut Session<'_>, tables: &'t Tables, http: &'t Http, head: Head<'_>) -> Decided<'t> {
    let request = &session.request;
    let uri = if let Head::Fields(parts) = &head { parts.uri.clone() } else { http::Uri::default() };
    let (method, host, raw) = match &head {
        Head::Text(head) => {
            let raw = std::str::from_utf8(request.path(head)).unwrap_or_default();
            (request.method.text(head).unwrap_or_default(), request.host.map(|host| host.text(head)), raw)
        }
        Head::Fields(parts) => {
            let raw = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
            (parts.method.as_str(), uri.authority().map(|host| Some(host.as_str())), raw)
        }
    };
    session.switch = match &head {
        Head::Text(head) => Switch::asked(request, head, &http.upgrades),
        Head::Fields(_) => (method == "CONNECT").then_some(Switch::Tunnel),
    };
    let is_tunnel = session.switch == Some(Switch::Tunnel);
    if is_tunnel && (!http.upgrades.connect || matches!(head, Head::Fields(_))) {
        return Failure::UpgradeRefused.into();
    }
    // A client of HTTP/1.0 that names no host means the address that it connected to.
    let host = match host {
        Some(Some(host)) => Cow::Borrowed(host),
        Some(None) => return Failure::BadAuthority.into(),
        None => Cow::Owned(session.arrival.destination.to_string()),
    };
    let Ok(authority) = canonical_authority(&host) else { return Failure::BadAuthority.into() };
    let path = match canonical_path(raw, http.path) {
        _ if is_tunnel => Cow::Borrowed(""),
        Ok(path) => path,
        Err(why) => return Failure::BadPath(why).into(),
    };
    let (arrival, authoriser) = (&session.arrival, &session.path.authoriser);
    let caller = authorise::caller(arrival, &[]);
    let asked = Asked { request, head: &head, method, authority: &authority, path: &path, caller };
    let authenticated = match authoriser.authenticate(http, &asked) {
        Ok(authenticated) => authenticated,
        Err(refusal) => return refusal.into(),
    };
    let asked = Asked { caller: authorise::caller(arrival, &authenticated.tokens), ..asked };
    let decision = decide_by_engine(tables, http, &asked, &mut upstream::dice, &mut NoTrace);
    if let Some(refusal) = authoriser.judged(&decision.admission) {
        return refusal.into();
    }
    let plan = match decision.outcome {
        Outcome::Forward(forwarded) => {
            // A tunnel's target and host are the place that it leads to, which no rule changes.
            let (to, authority) = match is_tunnel {
                true => (Cow::Borrowed(&*host), &*host),
                false => (authenticated.path(forwarded.path(&path)), forwarded.authority(&host)),
            };
            let handover = Handover::of(http, &authenticated);
            match session.write_head(head, (&to, authority), handover) {
                Ok(()) => Plan::Forward(forwarded),
                Err(why) => Plan::Fail(Failure::BadRequest(why)),
            }
        }
        Outcome::Redirect(redirect) => Plan::Redirect(redirect.status(), redirect.location(&asked)),
        Outcome::Direct(direct) => Plan::Direct(direct),
        Outcome::Abort(abort) => Plan::Fail(Failure::FaultAbort(abort.status)),
        // It has been refused above already.
        Outcome::Denied(_) => Plan::Fail(Failure::PolicyDenied),
        Outcome::Unrouted(why) => Plan::Fail(Failure::NoRoute(why.reason())),
        Outcome::NoCluster { status, .. } => Plan::Fail(Failure::NoCluster(status)),
    };
    let delay = decision.delay.map(|delay| delay.wait);
    Decided { route: decision.route_name(), delay, plan, details: String::new() }
}

impl Session<'_> {
    /// Writes the head as it goes on to an upstream.
    fn write_head(
        &mut self,
        head: Head<'_>,
        (path, authority): (&str, &str),
        handover: Handover<'_>,
    ) -> Result<(), Malformed> {
        let id = self.new_request_id(&head);
        let by = self.path.client_cert.then(|| self.path.tls.svids().latest()).flatten();
        let client_cert = match (&by, &self.arrival.identity) {
            (Some(by), Some(uri)) if self.edge == Edge::Inbound => {
                Some(ClientCert { by: by.id.as_str(), uri: uri.as_str() })
            }
            _ => None,
        };
        let changes = RequestChanges {
            path: path.as_bytes(),
            authority: authority.as_bytes(),
            edge: self.edge,
            peer: self.arrival.peer.ip(),
            request_id: id.as_ref().map(<[u8; 36]>::as_slice),
            trace: self.note.trace(),
            upgrade: self.switch.as_ref().and_then(Switch::protocol),
            handover,
            client_cert,
        };
        self.outgoing.clear();
        self.fields = None;
        match head {
            Head::Text(head) => {
                self.is_from_h2 = false;
                write_request(&mut self.outgoing, &self.request, head, &changes);
            }
            Head::Fields(mut parts) => {
                self.is_from_proxy = self.edge == Edge::Inbound && parts.headers.contains_key(SPOKEN);
                self.is_from_h2 = !self.is_upgraded
                    && (self.edge != Edge::Inbound
                        || parts.headers.get(SPOKEN).is_none_or(|spoken| spoken != Version::Http11.as_str()));
                rewrite_request(&mut parts, &changes)?;
                self.fields = Some(parts);
            }
        }
        if let Some(id) = id {
            self.note.take_request_id(&id);
        }
        Ok(())
    }

    /// An id for a request that has none where requests enter the mesh, or whose id cannot be trusted.
    fn new_request_id(&self, head: &Head<'_>) -> Option<[u8; 36]> {
        let (has_id, is_forwarded) = match head {
            Head::Text(_) => {
                let has = |kind| self.request.field(kind).is_some();
                (has(Kind::RequestId), has(Kind::ForwardedFor))
            }
            Head::Fields(parts) => {
                (parts.headers.contains_key("x-request-id"), parts.headers.contains_key("x-forwarded-for"))
            }
        };
        let gets_one = match self.edge {
            Edge::Inbound => false,
            Edge::Outbound => !has_id,
            Edge::Gateway => !has_id || is_external(self.arrival.peer.ip(), is_forwarded),
        };
        gets_one.then(new_request_id)
    }
}
