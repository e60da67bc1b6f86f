//! Ports of the host for Services of type LoadBalancer: accepted here, relayed to a ready endpoint in turn.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Services;

/// Sockets of one port of the host, which belong to the host's network.
pub(crate) struct HostSockets {
    /// One per loopback address.
    pub(crate) listeners: Vec<TcpListener>,
}

/// Connections of one port at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// Bytes in flight per direction: enough for a loopback segment, little enough for many connections.
const BUFFER: usize = 16 << 10;
/// How long an endpoint may take to accept before the next one is tried.
const CONNECT: Duration = Duration::from_secs(2);

/// Serves one port of the host for the `index`th balanced Service port, until cancelled.
pub(super) fn serve(
    sockets: HostSockets,
    index: usize,
    services: &watch::Receiver<Arc<Services>>,
    tracker: &TaskTracker,
    token: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let turn = Arc::new(AtomicUsize::new(0));
    for listener in sockets.listeners {
        let (services, places, turn) = (services.clone(), Arc::clone(&places), Arc::clone(&turn));
        let (connections, token) = (tracker.clone(), token.clone());
        tracker.spawn(async move {
            let port = Port { index, services, places, turn, tracker: connections, token: token.clone() };
            token.run_until_cancelled(port.accept(listener)).await;
        });
    }
}

/// One port of the host.
struct Port {
    index: usize,
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
            let endpoints = endpoints(&self.services.borrow(), self.index);
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

/// Ready endpoints of the balanced Service port with that number; the mesh's own gateway comes first.
fn endpoints(services: &Services, index: usize) -> Vec<(Ipv4Addr, u16)> {
    let balanced = services.services.iter().filter(|(_, service)| service.is_balanced);
    let mut ports: Vec<_> = balanced
        .flat_map(|(key, service)| {
            service.ports.iter().filter(|port| port.protocol == "tcp").map(move |port| (key, port))
        })
        .collect();
    ports.sort_by_key(|((namespace, name), _)| {
        (namespace != ::api::names::SYSTEM_NAMESPACE, namespace.clone(), name.clone())
    });
    ports.get(index).map(|(_, port)| port.endpoints.clone()).unwrap_or_default()
}

async fn relay(mut client: TcpStream, endpoints: &[(Ipv4Addr, u16)], first: usize) -> io::Result<()> {
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
