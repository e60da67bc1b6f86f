//! Configurations of TLS, kept so that sessions can be resumed: by servers as long as they have one certificate, by
//! clients per endpoint and per what they want of it.
//!
//! A session is resumed only between the same two identities: what a server gave out under one certificate is of no use
//! under its next, and a client uses a ticket only with the certificate that it was given for, at the endpoint that gave
//! it. A resumed handshake verifies no chain; who resumes holds the chain of the first handshake against the roots and the
//! time of now ([`super::Tls`]).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::spiffe::SpiffeId;
use foldhash::fast::FixedState;
use runtime::svid::{PeerVerifier, Peers, Svid, Svids};
use runtime::tls::TlsError;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::{ClientConfig, NamedGroup, ServerConfig};
use rustls_pki_types::ServerName;

use super::inside::Inside;
use super::reason::NoTls;
use crate::way::Way;

/// Endpoints that configurations, and with them tickets, are kept for; those that were not used lately are forgotten.
const MOST: usize = 4096;
/// Tickets that are kept of an endpoint.
const TICKETS: usize = 4;

/// Configurations that are kept.
#[derive(Debug)]
pub(super) struct Configs {
    svids: Svids,
    servers: Mutex<Vec<Server>>,
    clients: Mutex<HashMap<(Way, Inside), Arc<Client>, FixedState>>,
    turn: AtomicU64,
}

/// How connections are accepted under one certificate.
#[derive(Debug)]
struct Server {
    alpn: Vec<Box<str>>,
    under: Arc<Svid>,
    config: Arc<ServerConfig>,
}

/// How an endpoint is connected to.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    /// Holds a chain against the roots and the time of now.
    pub(super) verifier: PeerVerifier,
    tickets: Arc<Tickets>,
    used: AtomicU64,
}

impl Client {
    /// Forgets what sessions could be resumed with.
    pub(super) fn forget(&self) {
        lock(&self.tickets.kept).clear();
    }
}

impl Configs {
    pub(super) fn new(svids: Svids) -> Self {
        Configs { svids, servers: Mutex::default(), clients: Mutex::default(), turn: AtomicU64::new(0) }
    }

    /// How connections are accepted with these words in ALPN.
    pub(super) fn server(&self, alpn: &[Box<str>]) -> Result<Arc<ServerConfig>, NoTls> {
        let svid = self.svids.current().ok_or(NoTls::NoSvid)?;
        let mut servers = lock(&self.servers);
        servers.retain(|server| Arc::ptr_eq(&server.under, &svid));
        if let Some(server) = servers.iter().find(|server| *server.alpn == *alpn) {
            return Ok(Arc::clone(&server.config));
        }
        let words: Vec<&[u8]> = alpn.iter().map(|word| word.as_bytes()).collect();
        let config = self.svids.resuming_server_config(Peers::Members, &words).map_err(|error| cannot(&error))?;
        let mut config = ServerConfig::clone(&config);
        // Records after the handshake are the proxy's own.
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        servers.push(Server { alpn: alpn.to_vec(), under: svid, config: Arc::clone(&config) });
        Ok(config)
    }

    /// How an endpoint is connected to for what the connection will carry; `way` has TLS.
    pub(super) fn client(&self, way: &Way, inside: Inside) -> Result<Arc<Client>, NoTls> {
        let Some(tls) = &way.tls else { return Err(NoTls::NoSvid) };
        if self.svids.current().is_none() {
            return Err(NoTls::NoSvid);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut clients = lock(&self.clients);
        let key = (way.clone(), inside);
        if let Some(client) = clients.get(&key) {
            client.used.store(turn, Ordering::Relaxed);
            return Ok(Arc::clone(client));
        }
        // Who is no identity is nobody, and as a name of a server refuses it.
        let servers: Vec<SpiffeId> = tls.servers.iter().filter_map(|id| id.parse().ok()).collect();
        let peers = Peers::these(servers);
        let word = inside.word();
        let offered: Vec<&[u8]> = match tls.alpn.iter().any(|known| **known == *word) {
            true => vec![word.as_bytes()],
            false => tls.alpn.iter().map(|word| word.as_bytes()).collect(),
        };
        let config = self.svids.client_config(peers.clone(), &offered).map_err(|error| cannot(&error))?;
        let tickets = Arc::new(Tickets { svids: self.svids.clone(), kept: Mutex::default(), group: Mutex::default() });
        let mut config = ClientConfig::clone(&config);
        config.enable_secret_extraction = true;
        config.resumption = match tls.resumes {
            true => Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>),
            false => Resumption::disabled(),
        };
        let name = ServerName::try_from(tls.server_name.to_string()).ok();
        config.enable_sni = name.is_some();
        let client = Arc::new(Client {
            config: Arc::new(config),
            name: name.unwrap_or_else(|| ServerName::IpAddress(way.address.ip().into())),
            verifier: PeerVerifier::new(self.svids.clone(), peers),
            tickets,
            used: AtomicU64::new(turn),
        });
        if clients.len() >= MOST {
            let recent = turn.saturating_sub(MOST as u64 / 2);
            clients.retain(|_, client| client.used.load(Ordering::Relaxed) > recent);
        }
        clients.insert(key, Arc::clone(&client));
        Ok(client)
    }

    /// Forgets all of them: for when the proxy has become somebody else.
    pub(super) fn clear(&self) {
        lock(&self.servers).clear();
        lock(&self.clients).clear();
    }
}

fn cannot(error: &TlsError) -> NoTls {
    tracing::error!(%error, "TLS cannot be configured");
    NoTls::NoSvid
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What sessions with one endpoint can be resumed with, each with the certificate that it was given for.
struct Tickets {
    svids: Svids,
    kept: Mutex<VecDeque<(Arc<Svid>, Tls13ClientSessionValue)>>,
    group: Mutex<Option<NamedGroup>>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *lock(&self.group) = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *lock(&self.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let Some(svid) = self.svids.current() else { return };
        let mut kept = lock(&self.kept);
        if kept.len() >= TICKETS {
            kept.pop_front();
        }
        kept.push_back((svid, value));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let svid = self.svids.current()?;
        let mut kept = lock(&self.kept);
        kept.retain(|(under, _)| Arc::ptr_eq(under, &svid));
        kept.pop_back().map(|(_, value)| value)
    }
}
