//! The delta protocol on one stream, without IO: responses in, requests out.

use std::collections::{BTreeSet, HashSet};

use engine::Kind;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::rpc::Status;

use crate::snapshot::{Incoming, Snapshots, Update};

/// The order in which kinds are asked for: what is referred to comes before what refers to it.
const ORDER: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route];

/// gRPC's `INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;

/// What has been asked for on one stream.
pub(super) struct Session {
    snapshots: Snapshots,
    routes: Names,
    endpoints: Names,
    /// Replies to route configurations that are not in force yet: whoever counts acknowledgements wants to know when
    /// requests follow them.
    unsent: Vec<DeltaDiscoveryRequest>,
}

/// Names of one kind that are subscribed to on this stream.
#[derive(Default)]
struct Names {
    subscribed: BTreeSet<String>,
}

/// What a response amounted to.
pub(super) struct Outcome {
    pub(super) requests: Vec<DeltaDiscoveryRequest>,
    pub(super) kind: Option<Kind>,
    pub(super) accepted: usize,
    pub(super) refused: Vec<(String, String)>,
    pub(super) is_in_force: bool,
}

impl Session {
    /// Begins a stream: subscribes to everything that is unasked and to what is referred to already, and says which
    /// versions are in hand.
    pub(super) fn open(node: Node, snapshots: Snapshots) -> (Self, Vec<DeltaDiscoveryRequest>) {
        let mut session =
            Session { snapshots, routes: Names::default(), endpoints: Names::default(), unsent: Vec::new() };
        let mut node = Some(node);
        let mut requests = Vec::new();
        for kind in ORDER {
            let wanted = session.snapshots.wanted(kind);
            if is_by_name(kind) && wanted.is_empty() {
                continue;
            }
            let mut versions = session.snapshots.versions(kind);
            if is_by_name(kind) {
                versions.retain(|name, _| wanted.contains(name));
            }
            requests.push(DeltaDiscoveryRequest {
                node: node.take(),
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: wanted.iter().cloned().collect(),
                initial_resource_versions: versions,
                ..Default::default()
            });
            if let Some(names) = session.names(kind) {
                names.subscribed = wanted;
            }
        }
        (session, requests)
    }

    /// Takes a response in and says what to send.
    pub(super) fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        let Some(kind) = Kind::of_type_url(&response.type_url) else {
            let reason = vec![(response.type_url.clone(), "this type was not asked for".to_owned())];
            return Outcome {
                requests: vec![reply(&response.type_url, response.nonce, &reason)],
                kind: None,
                accepted: 0,
                refused: reason,
                is_in_force: true,
            };
        };
        let (update, mut refused) = read(kind, response.resources, response.removed_resources);
        let applied = self.snapshots.apply(kind, &update);
        let accepted = update.resources.len() - applied.refused.len();
        refused.extend(applied.refused);
        let reply = reply(kind.type_url(), response.nonce, &refused);
        let mut requests = Vec::new();
        if applied.is_in_force || kind != Kind::Route {
            requests.push(reply);
        } else {
            self.unsent.push(reply);
        }
        requests.extend(match kind {
            Kind::Listener => self.resubscribe(Kind::Route),
            Kind::Cluster => self.resubscribe(Kind::Endpoints),
            Kind::Route | Kind::Endpoints => None,
        });
        let is_in_force = applied.is_in_force || self.snapshots.missing().is_empty();
        if is_in_force {
            requests.append(&mut self.unsent);
        }
        Outcome { requests, kind: Some(kind), accepted, refused, is_in_force }
    }

    /// What to send once everything in hand is in force.
    pub(super) fn on_in_force(&mut self) -> Vec<DeltaDiscoveryRequest> {
        std::mem::take(&mut self.unsent)
    }

    /// Asks for what is newly referred to, and no longer for what is not.
    fn resubscribe(&mut self, kind: Kind) -> Option<DeltaDiscoveryRequest> {
        let wanted = self.snapshots.wanted(kind);
        let names = self.names(kind)?;
        let subscribe: Vec<String> = wanted.difference(&names.subscribed).cloned().collect();
        let unsubscribe: Vec<String> = names.subscribed.difference(&wanted).cloned().collect();
        names.subscribed = wanted;
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        self.snapshots.forget(kind, &unsubscribe);
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        })
    }

    fn names(&mut self, kind: Kind) -> Option<&mut Names> {
        match kind {
            Kind::Route => Some(&mut self.routes),
            Kind::Endpoints => Some(&mut self.endpoints),
            Kind::Listener | Kind::Cluster => None,
        }
    }
}

fn is_by_name(kind: Kind) -> bool {
    matches!(kind, Kind::Route | Kind::Endpoints)
}

/// Accepts or refuses a response; what is refused is named in the form `name: reason; name: reason`.
fn reply(type_url: &str, nonce: String, refused: &[(String, String)]) -> DeltaDiscoveryRequest {
    let reasons: Vec<String> = refused.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    let error_detail = (!reasons.is_empty()).then(|| Status {
        code: INVALID_ARGUMENT,
        message: reasons.join("; "),
        details: Vec::new(),
    });
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), response_nonce: nonce, error_detail, ..Default::default() }
}

/// Takes resources out of their envelopes, and refuses envelopes that make no sense.
fn read(kind: Kind, resources: Vec<Resource>, removed: Vec<String>) -> (Update, Vec<(String, String)>) {
    let mut update = Update { resources: Vec::with_capacity(resources.len()), removed };
    let mut refused = Vec::new();
    let mut seen = HashSet::new();
    for Resource { name, version, resource, .. } in resources {
        let fault = match &resource {
            None => Some("it has no body".to_owned()),
            Some(any) if any.type_url != kind.type_url() => Some(format!("its body is a {}", any.type_url)),
            Some(_) if !seen.insert(name.clone()) => Some("it is in the response twice".to_owned()),
            Some(_) => None,
        };
        match (fault, resource) {
            (None, Some(any)) => update.resources.push(Incoming { name, version, body: any.value.into() }),
            (fault, _) => refused.push((name, fault.unwrap_or_default())),
        }
    }
    (update, refused)
}

#[cfg(test)]
mod tests;
