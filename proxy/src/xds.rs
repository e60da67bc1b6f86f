//! The client of Pilot: one stream at a time, for ever; what is in hand stays in force while there is none.

mod backoff;
mod connection;
mod introduction;
mod session;
mod status;

use std::sync::Arc;
use std::time::Duration;

use engine::Kind;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::connection::ConnectError;
pub use self::status::{State, Status, XdsMetrics};

use self::backoff::Backoff;
use self::connection::Connection;
use self::session::{Outcome, Session};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::settings::{Pilot, Settings};
use crate::snapshot::Snapshots;

/// How long resources wait for others that they refer to. Envoy's limit is 15 s; here nothing but a server that never
/// sends what it refers to makes it pass.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the first stream waits for an identity to show.
const FIRST_IDENTITY: Duration = Duration::from_millis(500);
/// How often Pilot is told of traffic, if there was any.
const TRAFFIC: Duration = Duration::from_secs(10);
/// How long a stream on which Pilot says nothing must last before it counts as served.
const SETTLED: Duration = Duration::from_secs(1);

/// The client of Pilot.
pub struct Client {
    /// How Pilot is reached.
    pub pilot: Pilot,
    /// Mark of the connection to it, which the interception rules skip; `None` sets none.
    pub mark: Option<u32>,
    /// Who asks.
    pub node: Node,
    /// What proves it, once the CA has vouched for it.
    pub identity: Identity,
    /// What there is of traffic.
    pub metrics: Arc<Metrics>,
    /// Where resources go.
    pub snapshots: Snapshots,
    /// How it goes.
    pub status: Status,
}

impl Client {
    /// Follows Pilot until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        if let Some(status) = &self.identity.status {
            // The CA answers in milliseconds, so that already the first stream is mutually authenticated.
            let first = tokio::time::timeout(FIRST_IDENTITY, status.first_outcome());
            let _ = stop.run_until_cancelled(first).await;
        }
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = Box::pin(self.follow(&mut backoff)) => ended,
            };
            let is_complete = self.snapshots.in_force().is_complete();
            let wait = backoff.next(is_complete, rand::random());
            self.status.lost(&ended, is_complete, wait);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One stream, from connecting to its end.
    async fn follow(&self, backoff: &mut Backoff) -> ConnectError {
        let svids = &self.identity.svids;
        let mut renewals = svids.changes();
        renewals.mark_unchanged();
        let mut told = self.metrics.traffic();
        let node = introduction::node(&self.node, svids, told);
        let (mut session, first) = Session::open(node, self.snapshots.clone());
        let mut connection = match connection::open((&self.pilot, self.mark), svids, first).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let mut settles_at = Some(Instant::now() + SETTLED);
        let mut waiting_until = None;
        let mut tell_traffic = tokio::time::interval(TRAFFIC);
        tell_traffic.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.snapshots.missing().is_empty() {
                waiting_until = None;
            } else {
                waiting_until.get_or_insert_with(|| Instant::now() + PATIENCE);
            }
            let requests = tokio::select! {
                message = connection.responses.message() => match message {
                    Ok(Some(response)) => {
                        self.settle(&mut settles_at, backoff);
                        self.answer(&mut session, response)
                    }
                    Ok(None) => return connection::refused(&self.pilot, &tonic::Status::ok("it has closed the stream")),
                    Err(status) => return connection::refused(&self.pilot, &status),
                },
                Ok(()) = renewals.changed() => vec![introduction::again(&self.node, svids, told)],
                _ = tell_traffic.tick() => {
                    let now = self.metrics.traffic();
                    if now == std::mem::replace(&mut told, now) {
                        continue;
                    }
                    vec![introduction::again(&self.node, svids, now)]
                }
                () = until(settles_at) => {
                    self.settle(&mut settles_at, backoff);
                    continue;
                }
                () = until(waiting_until) => {
                    let missing = self.snapshots.give_up_waiting();
                    tracing::warn!(?missing, "Pilot has not sent what other resources refer to; going on without");
                    session.on_in_force()
                }
            };
            send(&connection, requests).await;
        }
    }

    /// Takes a response in and says what to send.
    fn answer(&self, session: &mut Session, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let Some(reply) = introduction::renewal(&response) else {
            return self.report(session.on_response(response));
        };
        if let Some(status) = &self.identity.status {
            tracing::info!("Pilot asks to renew the certificate, as what is trusted has changed");
            status.renew_now();
        }
        vec![reply]
    }

    /// Takes note that Pilot serves the stream: it has answered, or has nothing to say and has not refused it either.
    fn settle(&self, settles_at: &mut Option<Instant>, backoff: &mut Backoff) {
        if settles_at.take().is_some() {
            backoff.reset();
            self.status.connected(&self.pilot.address);
        }
    }

    fn report(&self, outcome: Outcome) -> Vec<DeltaDiscoveryRequest> {
        let service = outcome.kind.map_or("unknown", Kind::service);
        for (name, reason) in &outcome.refused {
            tracing::warn!(
                kind = service,
                name,
                reason,
                "a resource is refused; what was in force under its name stays"
            );
        }
        let Outcome { accepted, is_in_force, .. } = outcome;
        tracing::debug!(kind = service, accepted, refused = outcome.refused.len(), is_in_force, "resources from Pilot");
        self.status.updated(service, accepted as u64, outcome.refused.len() as u64);
        outcome.requests
    }
}

/// Waits until a moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Sends requests. That the stream has ended is seen by its reader.
async fn send(connection: &Connection, requests: Vec<DeltaDiscoveryRequest>) {
    for request in requests {
        let _ = connection.requests.send(request).await;
    }
}

/// Who the proxy is, as Pilot (or any xDS server) is told.
#[must_use]
pub fn node(settings: &Settings) -> Node {
    let workload = &settings.workload;
    let mut version = runtime::version::VERSION.split('.').map(|part| part.parse().unwrap_or(0));
    let mut part = || version.next().unwrap_or(0);
    let version = SemanticVersion { major_number: part(), minor_number: part(), patch: part() };
    Node {
        id: workload.node_id(&settings.role),
        cluster: format!("{}.{}", workload.owner, workload.namespace),
        user_agent_name: "mesh-proxy".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
            version: Some(version),
            metadata: None,
        })),
        ..Default::default()
    }
}
