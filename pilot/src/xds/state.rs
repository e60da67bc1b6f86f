//! What one proxy has, and what it should be sent next: the delta protocol without IO and without a clock.
//!
//! Nothing queues up for a proxy. Its state is what it has been sent; when it can take more, that is compared with what
//! it should have *now*. At most one response per type is on its way, so a slow proxy costs nobody anything.
//!
//! Make before break: additions go clusters, endpoints, listeners, routes; and only when those are acknowledged do
//! removals go, the other way round. Endpoints do not wait for the acknowledgement of clusters, as Envoy withholds
//! that until the new clusters have their endpoints; listeners and routes wait for both.

mod kind_state;

use std::sync::Arc;

use api::messages::{ResourceStatus, TypeStatus};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tonic::Status;

use self::kind_state::KindState;
use crate::resource::{Kind, Resource};

/// Most names that one proxy may subscribe to or say that it holds, over all types.
///
/// Far above a mesh of 10,000 services with three ports each, and a bound on what a hostile peer can make Pilot keep.
const MOST_NAMES: usize = 200_000;
/// Longest name of a resource that is accepted from a proxy.
const LONGEST_NAME: usize = 1024;

/// What one proxy should have at one moment.
pub trait View {
    /// Serial of the snapshot that it is taken from; grows.
    fn serial(&self) -> u64;
    /// The resource of this name, if the proxy may have it.
    fn find(&self, kind: Kind, name: &str) -> Option<Arc<Resource>>;
    /// All names of a kind, for wildcard subscriptions.
    fn names(&self, kind: Kind) -> Vec<Arc<str>>;
    /// Names that may differ from what they were at an earlier serial; `None` if that is not known any more.
    fn changed_since(&self, kind: Kind, serial: u64) -> Option<Vec<Arc<str>>>;
}

/// A response without what is the same for all proxies.
#[derive(Debug, Clone)]
pub struct Push {
    /// Type of its resources.
    pub kind: Kind,
    /// By which the proxy acknowledges it.
    pub nonce: u64,
    /// Serial of the snapshot that it comes from.
    pub serial: u64,
    /// What is new or changed.
    pub resources: Vec<Arc<Resource>>,
    /// Names of what is gone.
    pub removed: Vec<Arc<str>>,
}

/// What a request has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is of a type that Pilot does not serve; nothing will be sent for it.
    UnknownType,
    /// It subscribes or unsubscribes only.
    Subscription,
    /// It acknowledges a response in full.
    Ack(Kind),
    /// It refuses resources of a response: so many.
    Nack(Kind, usize),
}

/// What one proxy has, by kind.
#[derive(Debug, Default)]
pub struct ProxyState {
    clusters: KindState,
    endpoints: KindState,
    listeners: KindState,
    routes: KindState,
    /// Nonce of the last response.
    nonce: u64,
    /// Serial of the last snapshot that the proxy has in full, acknowledged or refused.
    settled: u64,
}

impl ProxyState {
    /// Takes a request in.
    ///
    /// # Errors
    ///
    /// When the proxy asks for more than one may; the stream then ends with this status.
    pub fn hear(&mut self, request: &DeltaDiscoveryRequest) -> Result<Heard, Status> {
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return Ok(Heard::UnknownType);
        };
        self.check_limits(request)?;
        let heard = match self.kind_mut(kind).answered(request) {
            None => Heard::Subscription,
            Some(refused) if refused.is_empty() => Heard::Ack(kind),
            Some(refused) => {
                if kind == Kind::Cluster {
                    self.forget_awaited(&refused);
                }
                Heard::Nack(kind, refused.len())
            }
        };
        self.kind_mut(kind).subscribe(kind, request);
        Ok(heard)
    }

    /// What is to be sent next, if anything may be sent now.
    pub fn next(&mut self, view: &dyn View) -> Option<Push> {
        for kind in Kind::ALL {
            self.kind_mut(kind).compare_with(kind, view);
        }
        self.next_addition(view).or_else(|| self.next_removal(view))
    }

    fn next_addition(&mut self, view: &dyn View) -> Option<Push> {
        let nonce = self.nonce + 1;
        for kind in Kind::ALL {
            let blocked = match kind {
                Kind::Cluster | Kind::Endpoints => false,
                Kind::Listener | Kind::Route => self.is_busy_before(kind),
            };
            if blocked {
                return None;
            }
            if let Some(push) = self.kind_mut(kind).additions(kind, nonce, view) {
                self.nonce = nonce;
                if kind == Kind::Cluster {
                    self.await_endpoints(&push);
                }
                return Some(push);
            }
        }
        None
    }

    /// Removals go when nothing is on its way and nothing is left to add.
    fn next_removal(&mut self, view: &dyn View) -> Option<Push> {
        let is_adding = Kind::ALL.into_iter().any(|kind| self.kind(kind).is_busy() || self.kind(kind).is_behind());
        if is_adding || !self.endpoints.awaited.is_empty() {
            return None;
        }
        let nonce = self.nonce + 1;
        for kind in Kind::ALL.into_iter().rev() {
            if let Some(push) = self.kind_mut(kind).removals(kind, nonce, view) {
                self.nonce = nonce;
                return Some(push);
            }
        }
        self.settled = view.serial();
        None
    }

    /// Serial of the last snapshot of which the proxy has acknowledged or refused everything that concerns it.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether it is the proxy's turn to ask for the endpoints of clusters that it has just been given.
    ///
    /// Routes to those clusters wait for that; after a while the caller should stop waiting.
    #[must_use]
    pub fn is_awaiting_endpoints(&self) -> bool {
        !self.clusters.is_busy() && !self.endpoints.awaited.is_empty()
    }

    /// Stops waiting for requests for endpoints: this proxy does not ask for them.
    pub fn stop_awaiting_endpoints(&mut self) {
        self.endpoints.awaited.clear();
    }

    /// Whether the proxy is subscribed to a resource.
    #[must_use]
    pub fn wants(&self, kind: Kind, name: &str) -> bool {
        self.kind(kind).wants(name)
    }

    /// Serial of the snapshot with which a resource was sent last, if the proxy knows it.
    #[must_use]
    pub fn changed_at(&self, kind: Kind, name: &str) -> Option<u64> {
        self.kind(kind).changed_at(name)
    }

    /// Why the proxy refuses a resource, if it does.
    #[must_use]
    pub fn refusal(&self, kind: Kind, name: &str) -> Option<&str> {
        self.kind(kind).rejected.get(name).map(|rejection| rejection.reason.as_str())
    }

    /// Every resource that the proxy knows, in the order LDS, RDS, CDS, EDS and by name.
    #[must_use]
    pub fn resources(&self) -> Vec<ResourceStatus> {
        let kinds = [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];
        kinds.into_iter().flat_map(|kind| self.kind(kind).resources(kind)).collect()
    }

    /// State per type in the order LDS, RDS, CDS, EDS.
    #[must_use]
    pub fn status(&self) -> Vec<TypeStatus> {
        [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints]
            .into_iter()
            .map(|kind| self.kind(kind).status(kind))
            .collect()
    }

    fn check_limits(&self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let names = request.resource_names_subscribe.iter().chain(&request.resource_names_unsubscribe);
        if let Some(name) = names.chain(request.initial_resource_versions.keys()).find(|name| name.len() > LONGEST_NAME)
        {
            let start: String = name.chars().take(40).collect();
            return Err(Status::invalid_argument(format!(
                "the resource name {start:?}… is longer than {LONGEST_NAME} bytes"
            )));
        }
        if !request.resource_locators_subscribe.is_empty() || !request.resource_locators_unsubscribe.is_empty() {
            return Err(Status::invalid_argument("resource locators are not served; subscribe by resource_names"));
        }
        let held: usize = Kind::ALL.into_iter().map(|kind| self.kind(kind).size()).sum();
        let asked = request.resource_names_subscribe.len() + request.initial_resource_versions.len();
        if held + asked > MOST_NAMES {
            return Err(Status::resource_exhausted(format!(
                "a proxy may hold {MOST_NAMES} resources; this one holds {held} and asks for {asked} more"
            )));
        }
        Ok(())
    }

    /// Whether a kind whose resources those of `kind` refer to is still on its way.
    fn is_busy_before(&self, kind: Kind) -> bool {
        let clusters = self.clusters.is_busy() || self.endpoints.is_busy() || !self.endpoints.awaited.is_empty();
        clusters || (kind == Kind::Route && self.listeners.is_busy())
    }

    /// Notes the load assignments that the proxy will ask for once it has the clusters of `push`.
    fn await_endpoints(&mut self, push: &Push) {
        for name in push.resources.iter().filter_map(|cluster| cluster.endpoints_name.as_ref()) {
            if !self.endpoints.wants(name) {
                self.endpoints.awaited.insert(name.clone());
            }
        }
    }

    fn forget_awaited(&mut self, clusters: &[Arc<str>]) {
        for name in clusters {
            self.endpoints.awaited.remove(name);
        }
    }

    fn kind(&self, kind: Kind) -> &KindState {
        match kind {
            Kind::Cluster => &self.clusters,
            Kind::Endpoints => &self.endpoints,
            Kind::Listener => &self.listeners,
            Kind::Route => &self.routes,
        }
    }

    fn kind_mut(&mut self, kind: Kind) -> &mut KindState {
        match kind {
            Kind::Cluster => &mut self.clusters,
            Kind::Endpoints => &mut self.endpoints,
            Kind::Listener => &mut self.listeners,
            Kind::Route => &mut self.routes,
        }
    }
}

#[cfg(test)]
mod tests;
