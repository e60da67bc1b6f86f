//! The sockets of listeners: opened as listeners come, closed as they go, kept while they change.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::tables::{Listener, Tables};
use runtime::Tasks;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::data::DataPath;
use crate::headers::Edge;
use crate::settings::Role;
use crate::snapshot::Snapshots;

/// Keeps one socket open for each listener that has one of its own.
pub struct Sockets {
    snapshots: Snapshots,
    path: Arc<DataPath>,
    role: Role,
    /// Where connections run.
    connections: Tasks,
    open: HashMap<String, Open>,
    /// Sockets that were opened before their listeners came, so that connections wait instead of being refused.
    ahead: HashMap<SocketAddr, TcpListener>,
    state: SocketsState,
}

struct Open {
    address: SocketAddr,
    stop: CancellationToken,
    additional: HashMap<SocketAddr, CancellationToken>,
}

/// What of the listeners in force is served. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SocketsState {
    shared: Arc<Mutex<Served>>,
}

/// What of the listeners in force is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// The swap of the tables that it is about.
    pub swaps: u64,
    /// Listeners that are served, with the addresses that they have bound.
    pub bound: BTreeMap<String, SocketAddr>,
    /// Listeners that cannot be served, with the reason.
    pub failed: BTreeMap<String, String>,
}

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be bound")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Between attempts to open a socket that could not be opened.
const RETRY: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;

impl Sockets {
    /// Nothing is served yet.
    #[must_use]
    pub fn new(snapshots: Snapshots, path: Arc<DataPath>, role: Role, connections: Tasks) -> Self {
        Sockets {
            snapshots,
            path,
            role,
            connections,
            open: HashMap::new(),
            ahead: HashMap::new(),
            state: SocketsState::default(),
        }
    }

    /// Opens a socket for a listener that has not come yet. Connections to it wait.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub fn open_ahead(&mut self, address: SocketAddr) -> Result<(), BindError> {
        let socket = bind(address)?;
        self.ahead.insert(address, socket);
        Ok(())
    }

    /// What is served.
    #[must_use]
    pub fn state(&self) -> SocketsState {
        self.state.clone()
    }

    /// Follows the tables until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.snapshots.subscribe();
        loop {
            let swaps = changes.borrow_and_update().swaps;
            let tables = self.snapshots.tables().load_full();
            let is_whole = self.reconcile(&tables, swaps);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if !is_whole => {}
            }
        }
    }

    /// Opens and closes sockets so that they fit the tables; `false` if one cannot be opened.
    fn reconcile(&mut self, tables: &Tables, swaps: u64) -> bool {
        self.open.retain(|name, open| {
            let stays = tables.listener(name).filter(|listener| listener.bind && listener.address == open.address);
            let additional = stays.map_or(&[][..], |listener| listener.additional_addresses.as_slice());
            open.additional.retain(|address, stop| {
                let stays = additional.contains(address);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            if stays.is_none() {
                tracing::info!(listener = name, address = %open.address, "a listener is gone; its connections go on");
                open.stop.cancel();
            }
            stays.is_some()
        });
        let mut served = Served { swaps, ..Served::default() };
        let before = self.state.served();
        for listener in tables.bound() {
            let name = listener.name.to_string();
            if self.open.contains_key(&name) {
                let address = before.bound.get(&name).copied().unwrap_or(listener.address);
                self.start_additional(listener);
                served.bound.insert(name, address);
                continue;
            }
            match self.start(listener) {
                Ok(address) => {
                    served.bound.insert(name, address);
                }
                Err(error) => {
                    let reason = runtime::exit::chain(&error);
                    if before.failed.get(&name) != Some(&reason) {
                        tracing::error!(listener = name, reason, "a listener cannot be served; trying again");
                    }
                    served.failed.insert(name, reason);
                }
            }
        }
        let is_whole = served.failed.is_empty();
        *self.state.lock() = served;
        is_whole
    }

    fn start(&mut self, listener: &Listener) -> Result<SocketAddr, BindError> {
        let socket = self.take(listener.address)?;
        let local = socket.local_addr().map_err(|source| BindError { address: listener.address, source })?;
        let stop = CancellationToken::new();
        self.serve(listener, socket, local, stop.clone());
        self.open
            .insert(listener.name.to_string(), Open { address: listener.address, stop, additional: HashMap::new() });
        self.start_additional(listener);
        // What was opened ahead and nobody serves refuses connections rather than letting them wait.
        self.ahead.retain(|address, _| address.port() != listener.address.port());
        Ok(local)
    }

    /// Serves those further addresses of a listener that are not served yet; the others are left alone.
    fn start_additional(&mut self, listener: &Listener) {
        for &address in &listener.additional_addresses {
            let is_open = |open: &Open| open.additional.contains_key(&address);
            if self.open.get(listener.name.as_str()).is_none_or(is_open) {
                continue;
            }
            let bound = self.take(address).and_then(|socket| {
                let local = socket.local_addr().map_err(|source| BindError { address, source })?;
                Ok((socket, local))
            });
            let stop = CancellationToken::new();
            match bound {
                Ok((socket, local)) => self.serve(listener, socket, local, stop.clone()),
                // A machine without IPv6 serves what it can.
                Err(error) => {
                    let reason = runtime::exit::chain(&error);
                    tracing::warn!(listener = %listener.name, reason, "an additional address is not served");
                }
            }
            // One that cannot be served is not tried again as long as the listener has it.
            if let Some(open) = self.open.get_mut(listener.name.as_str()) {
                open.additional.insert(address, stop);
            }
        }
    }

    fn take(&mut self, address: SocketAddr) -> Result<TcpListener, BindError> {
        self.ahead.remove(&address).map_or_else(|| bind(address), Ok)
    }

    fn serve(&self, listener: &Listener, socket: TcpListener, local: SocketAddr, stop: CancellationToken) {
        let name = listener.name.to_string();
        tracing::info!(listener = name, address = %local, "listening");
        let serving = Arc::clone(&self.path).serve_listener(
            name.clone(),
            edge(&self.role, listener),
            socket,
            self.connections.clone(),
        );
        self.connections.spawn("listener", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                result = serving => if let Err(error) = result {
                    tracing::error!(listener = name, %error, "a listener has stopped accepting");
                }
            }
        });
    }
}

impl SocketsState {
    /// What is served now.
    #[must_use]
    pub fn served(&self) -> Served {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Served> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the connections of a listener come from.
fn edge(role: &Role, listener: &Listener) -> Edge {
    match role {
        Role::Gateway => Edge::Gateway,
        Role::Sidecar | Role::Static(_) if listener.restores_original_dst && !listener.use_original_dst => {
            Edge::Inbound
        }
        Role::Sidecar | Role::Static(_) => Edge::Outbound,
    }
}

/// Opens a listening socket. An address that was in use a moment ago can be bound at once.
///
/// # Errors
///
/// When the address is taken, or is none of this machine's.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // As in Envoy an address of IPv6 is one: IPv4 has a socket of its own, if any.
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError { address, source })
}
