//! Ports of the host for Services of type LoadBalancer: accepted here, relayed to a ready endpoint in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::api::names::{INGRESS_GATEWAY, SYSTEM_NAMESPACE};
use serde_json::json;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ServiceKey, Services};
use crate::api::Store;
use crate::api::object::text;

/// Annotation of a Service with its ports on the host, as `{"80": 8081}`.
pub(crate) const HOST_PORTS: &str = "local.meshctl.io/host-ports";

/// Sockets of one port of the host, which belong to the host's network.
pub(crate) struct HostSockets {
    /// The port.
    pub(crate) port: u16,
    /// One per loopback address.
    pub(crate) listeners: Vec<TcpListener>,
}

/// Opens ports of the host.
pub(crate) trait OpenPort: Send + Sync + 'static {
    /// Opens that port, or the next free one; waits for an answer that comes at once.
    fn open(&self, wanted: u16) -> io::Result<(u16, Vec<std::net::TcpListener>)>;
}

/// Connections of one port at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// Bytes in flight per direction: enough for a loopback segment, little enough for many connections.
const BUFFER: usize = 16 << 10;
/// How long an endpoint may take to accept before the next one is tried.
const CONNECT: Duration = Duration::from_secs(2);

/// One port of a balanced Service.
type Balanced = (ServiceKey, u16);

/// Gives every port of a balanced Service its port of the host.
pub(super) struct Balancer {
    store: Arc<Store>,
    services: watch::Receiver<Arc<Services>>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Balancer {
    pub(super) fn new(
        store: Arc<Store>,
        services: watch::Receiver<Arc<Services>>,
        tracker: TaskTracker,
        token: CancellationToken,
    ) -> Self {
        Self { store, services, tracker, token }
    }

    /// Follows the Services until cancelled.
    pub(super) async fn follow(mut self, gateway: Option<HostSockets>, more: Arc<dyn OpenPort>) {
        let mut open: BTreeMap<Balanced, CancellationToken> = BTreeMap::new();
        let own = (SYSTEM_NAMESPACE.to_owned(), INGRESS_GATEWAY.to_owned());
        let mut gateway = gateway;
        loop {
            let current = Arc::clone(&self.services.borrow_and_update());
            let wanted = balanced(&current);
            // The gateway's port is open as long as the mesh runs, so that nobody else takes it.
            open.retain(|balanced, port| {
                let stays = balanced.0 == own || wanted.contains(balanced);
                if !stays {
                    port.cancel();
                }
                stays
            });
            for balanced in wanted {
                if open.contains_key(&balanced) {
                    continue;
                }
                let sockets = match gateway.take_if(|_| balanced.0 == own) {
                    Some(sockets) => sockets,
                    None => match self.open(&more, &balanced) {
                        Ok(sockets) => sockets,
                        Err(error) => {
                            let ((namespace, name), port) = &balanced;
                            tracing::warn!(namespace, name, port, %error, "a Service gets no port on the host");
                            continue;
                        }
                    },
                };
                self.note(&balanced, sockets.port);
                let until = self.token.child_token();
                self.serve(sockets, &balanced, &until);
                open.insert(balanced, until);
            }
            if self.services.changed().await.is_err() {
                return;
            }
        }
    }

    /// Opens the port that the Service had before; else one that reminds of its own.
    fn open(&self, more: &Arc<dyn OpenPort>, (key, port): &Balanced) -> io::Result<HostSockets> {
        let earlier = self.noted(key).get(&port.to_string()).copied();
        let wanted = earlier.unwrap_or(if *port < 1024 { 8000 + port } else { *port });
        let (port, listeners) = more.open(wanted)?;
        let adopt = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        Ok(HostSockets { port, listeners: listeners.into_iter().map(adopt).collect::<io::Result<_>>()? })
    }

    fn noted(&self, (namespace, name): &ServiceKey) -> BTreeMap<String, u16> {
        let found = self.store.get("services", namespace, name);
        let pointer = format!("/metadata/annotations/{}", HOST_PORTS.replace('/', "~1"));
        found.ok().and_then(|it| serde_json::from_str(text(&it, &pointer)).ok()).unwrap_or_default()
    }

    /// Writes the port on the Service, where people and `meshctl` look for it.
    fn note(&self, (key, port): &Balanced, host: u16) {
        let mut noted = self.noted(key);
        if noted.insert(port.to_string(), host) == Some(host) {
            return;
        }
        let patch = json!({"metadata": {"annotations": {HOST_PORTS: json!(noted).to_string()}}});
        if let Err(error) = self.store.patch("services", &key.0, &key.1, &patch) {
            tracing::warn!(service = key.1, %error, "the port of a Service on the host could not be noted");
        }
    }

    /// Serves one port of the host, until cancelled.
    fn serve(&self, sockets: HostSockets, balanced: &Balanced, until: &CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let turn = Arc::new(AtomicUsize::new(0));
        for listener in sockets.listeners {
            let port = Port {
                balanced: balanced.clone(),
                services: self.services.clone(),
                places: Arc::clone(&places),
                turn: Arc::clone(&turn),
                tracker: self.tracker.clone(),
                token: self.token.clone(),
            };
            let until = until.clone();
            self.tracker.spawn(async move {
                until.run_until_cancelled(port.accept(listener)).await;
            });
        }
    }
}

/// The TCP ports of all balanced Services.
fn balanced(services: &Services) -> BTreeSet<Balanced> {
    let balanced = services.services.iter().filter(|(_, service)| service.is_balanced);
    let ports = balanced.flat_map(|(key, service)| {
        service.ports.iter().filter(|port| port.protocol == "tcp").map(move |port| (key.clone(), port.port))
    });
    ports.collect()
}

/// One port of the host.
struct Port {
    balanced: Balanced,
    services: watch::Receiver<Arc<Services>>,
    places: Arc<Semaphore>,
    turn: Arc<AtomicUsize>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Port {
    async fn accept(&self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "a connection to a port of the host could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let endpoints = endpoints(&self.services.borrow(), &self.balanced);
            let first = self.turn.fetch_add(1, Ordering::Relaxed);
            let token = self.token.clone();
            self.tracker.spawn(async move {
                if let Some(Err(error)) = token.run_until_cancelled(relay(client, &endpoints, first)).await {
                    tracing::debug!(%error, "a relayed connection ended early");
                }
                drop(place);
            });
        }
    }
}

/// Ready endpoints of a Service's port.
fn endpoints(services: &Services, (key, port): &Balanced) -> Vec<(IpAddr, u16)> {
    let service = services.services.get(key).filter(|service| service.is_balanced);
    let port = service.and_then(|service| service.ports.iter().find(|it| it.port == *port && it.protocol == "tcp"));
    port.map(|port| port.endpoints.clone()).unwrap_or_default()
}

async fn relay(mut client: TcpStream, endpoints: &[(IpAddr, u16)], first: usize) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::ConnectionRefused, "the service has no ready endpoint");
    for attempt in 0..endpoints.len() {
        let endpoint = endpoints[(first + attempt) % endpoints.len()];
        match tokio::time::timeout(CONNECT, TcpStream::connect(endpoint)).await {
            Ok(Ok(mut server)) => {
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                return copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.map(drop);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    // A reset says more than an empty answer would.
    let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    Err(last)
}
