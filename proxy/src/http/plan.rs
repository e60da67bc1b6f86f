//! From a request's head to what happens with it: canonical form, decision, and the head as it goes on.

use std::borrow::Cow;
use std::time::Duration;

use engine::decide::{Forwarded, Outcome, decide};
use engine::path::{canonical_authority, canonical_path};
use engine::tables::{Direct, Http, Tables};
use engine::trace::NoTrace;

use super::Session;
use crate::codec::{Kind, Request};
use crate::failure::Failure;
use crate::headers::{Edge, RequestChanges, is_external, new_request_id, write_request};
use crate::upstream;

/// What was decided for a request.
pub(super) struct Decided<'t> {
    /// Name of the route; empty without one.
    pub(super) route: &'t str,
    /// A wait before anything else.
    pub(super) delay: Option<Duration>,
    /// What happens then.
    pub(super) plan: Plan<'t>,
}

/// What happens to a request.
pub(super) enum Plan<'t> {
    /// It goes on; its head stands in `Session::outgoing`.
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
        Decided { route: "", delay: None, plan: Plan::Fail(failure) }
    }
}

/// A request's head with its path and authority in canonical form, as the engine sees it.
struct Asked<'a> {
    request: &'a Request,
    head: &'a [u8],
    method: &'a str,
    authority: &'a str,
    path: &'a str,
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
        let name = name.as_bytes();
        let fields = self.request.fields.iter();
        fields
            .filter(move |field| field.name.of(self.head).eq_ignore_ascii_case(name))
            .map(|field| field.value.of(self.head))
    }
}

impl Session<'_> {
    /// Decides about the request at the front of the buffer, and writes its head as it goes on.
    pub(super) fn decide<'t>(&mut self, tables: &'t Tables, http: &'t Http) -> Decided<'t> {
        let head = self.conn.rx.filled();
        let method = self.request.method.text(head).unwrap_or_default();
        if self.request.wants_upgrade || method == "CONNECT" {
            return Failure::UpgradeRefused.into();
        }
        // A client of HTTP/1.0 that names no host means the address that it connected to.
        let host = match self.request.host.map(|host| host.text(head)) {
            Some(Some(host)) => Cow::Borrowed(host),
            Some(None) => return Failure::BadAuthority.into(),
            None => Cow::Owned(self.arrival.destination.to_string()),
        };
        let Ok(authority) = canonical_authority(&host) else { return Failure::BadAuthority.into() };
        let raw = std::str::from_utf8(self.request.path(head)).unwrap_or_default();
        let path = match canonical_path(raw, http.path) {
            Ok(path) => path,
            Err(why) => return Failure::BadPath(why).into(),
        };
        let asked = Asked { request: &self.request, head, method, authority: &authority, path: &path };
        let decision = decide(tables, http, &asked, &mut upstream::dice, &mut NoTrace);
        let plan = match decision.outcome {
            Outcome::Forward(forwarded) => {
                let id = self.new_request_id();
                let to = forwarded.path(&path);
                let changes = RequestChanges {
                    path: to.as_bytes(),
                    authority: forwarded.authority(&host).as_bytes(),
                    edge: self.edge,
                    peer: self.arrival.peer.ip(),
                    request_id: id.as_ref().map(<[u8; 36]>::as_slice),
                    trace: self.note.trace(),
                };
                self.outgoing.clear();
                write_request(&mut self.outgoing, &self.request, head, &changes);
                if let Some(id) = id {
                    self.note.take_request_id(&id);
                }
                Plan::Forward(forwarded)
            }
            Outcome::Redirect(redirect) => Plan::Redirect(redirect.status(), redirect.location(&asked)),
            Outcome::Direct(direct) => Plan::Direct(direct),
            Outcome::Abort(abort) => Plan::Fail(Failure::FaultAbort(abort.status)),
            Outcome::Unrouted(why) => Plan::Fail(Failure::NoRoute(why.reason())),
            Outcome::NoCluster { status, .. } => Plan::Fail(Failure::NoCluster(status)),
        };
        Decided { route: decision.route_name(), delay: decision.delay.map(|delay| delay.wait), plan }
    }

    /// An id for a request that has none where requests enter the mesh, or whose id cannot be trusted.
    fn new_request_id(&self) -> Option<[u8; 36]> {
        let gets_one = match self.edge {
            Edge::Inbound => false,
            Edge::Outbound => self.request.field(Kind::RequestId).is_none(),
            Edge::Gateway => {
                let is_forwarded = self.request.field(Kind::ForwardedFor).is_some();
                self.request.field(Kind::RequestId).is_none() || is_external(self.arrival.peer.ip(), is_forwarded)
            }
        };
        gets_one.then(new_request_id)
    }
}
