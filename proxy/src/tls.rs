//! Mutual TLS between the proxies of a mesh: who is called must be one that may run the service, who calls must be of the
//! mesh, and both show a certificate. Where TLS is wanted nothing ever goes in clear text.

mod configs;
pub(crate) mod handshake;
pub(crate) mod inside;
pub mod reason;
mod records;
pub(crate) mod secure;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use api::spiffe::SpiffeId;
use engine::tables::{Chain, ServerTls};
use runtime::svid::{PeerVerifier, Peers, Svids, peer};
use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls_pki_types::UnixTime;

use self::configs::{Client, Configs};
use self::handshake::{Agreed, Handshake};
use self::inside::Inside;
use self::reason::NoTls;
use crate::arrival::Arrival;
use crate::conn::Conn;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::metrics::handshakes::Side;
use crate::way::Way;

/// TLS of one data path.
#[derive(Debug)]
pub(crate) struct Tls {
    svids: Svids,
    configs: Configs,
    /// Holds callers' chains against the roots and the time of now.
    members: PeerVerifier,
    /// How long a caller's handshake may take.
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Tls {
    pub(crate) fn new(svids: Svids, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        let members = PeerVerifier::new(svids.clone(), Peers::Members);
        Tls { configs: Configs::new(svids.clone()), svids, members, timeout, metrics }
    }

    /// Ends the TLS of a caller's connection if its filter chain does, and takes down who calls.
    ///
    /// # Errors
    ///
    /// There is no handshake in time, or it does not prove that the caller is of the mesh.
    pub(crate) async fn end(&self, chain: &Chain, conn: &mut Conn, arrival: &mut Arrival) -> Result<(), Failure> {
        let Some(tls) = &chain.tls else { return Ok(()) };
        let identity = Box::pin(self.accept(tls, conn, arrival)).await.map_err(Failure::DownstreamTls)?;
        arrival.principal = self.metrics.principals.of(&identity);
        arrival.identity = Some(identity);
        Ok(())
    }

    async fn accept(&self, tls: &ServerTls, conn: &mut Conn, arrival: &Arrival) -> Result<Arc<SpiffeId>, NoTls> {
        let accepting = self.accept_within(tls, conn);
        let accepted = tokio::time::timeout(self.timeout, accepting).await.unwrap_or(Err(NoTls::Slow));
        self.metrics.handshakes.count(Side::Server, accepted.as_ref().map(|(kind, _)| *kind).map_err(|why| *why));
        if let Err(reason) = &accepted {
            let (peer, destination) = (arrival.peer, arrival.destination);
            tracing::debug!(%peer, %destination, reason = reason.code(), "a caller's TLS handshake has failed: {reason}");
        }
        accepted.map(|(_, identity)| identity)
    }

    async fn accept_within(&self, tls: &ServerTls, conn: &mut Conn) -> Result<(HandshakeKind, Arc<SpiffeId>), NoTls> {
        let config = self.configs.server(&tls.alpn)?;
        let session = UnbufferedServerConnection::new(config).map_err(|_| NoTls::NoSvid)?;
        let (agreed, identity) = self.shake(conn, Handshake::Server(Box::new(session)), &self.members).await?;
        Ok((agreed.kind.unwrap_or(HandshakeKind::Full), identity))
    }

    /// Makes TLS of a new connection to an endpoint, which is to carry this; `way` has TLS.
    ///
    /// # Errors
    ///
    /// There is no handshake by `deadline`, or it does not prove that the endpoint may run the service.
    pub(crate) async fn connect(
        &self,
        conn: &mut Conn,
        way: &Way,
        inside: Inside,
        deadline: tokio::time::Instant,
    ) -> Result<(), NoTls> {
        let connecting = Box::pin(self.connect_within(conn, way, inside));
        let made = tokio::time::timeout_at(deadline, connecting).await.unwrap_or(Err(NoTls::Slow));
        self.metrics.handshakes.count(Side::Client, made);
        if let Err(reason) = made {
            let address = way.address;
            tracing::debug!(%address, reason = reason.code(), "the TLS handshake with an upstream has failed: {reason}");
        }
        made.map(drop)
    }

    async fn connect_within(&self, conn: &mut Conn, way: &Way, inside: Inside) -> Result<HandshakeKind, NoTls> {
        let client = self.configs.client(way, inside)?;
        let Client { config, name, verifier, .. } = &*client;
        let session = UnbufferedClientConnection::new(Arc::clone(config), name.clone()).map_err(|_| NoTls::NoSvid)?;
        let made = self.shake(conn, Handshake::Client(Box::new(session)), verifier).await;
        if made.is_err() {
            // Whatever was wrong with a session, the next handshake does not build on it.
            client.forget();
        }
        let (agreed, _) = made?;
        match agreed.alpn {
            Some(chosen) if chosen != inside.word().as_bytes() => Err(NoTls::Alpn),
            // A peer without a word for it takes what comes.
            _ => Ok(agreed.kind.unwrap_or(HandshakeKind::Full)),
        }
    }

    /// Runs a handshake, and gives what was agreed on and who the peer is.
    async fn shake(
        &self,
        conn: &mut Conn,
        handshake: Handshake,
        verifier: &PeerVerifier,
    ) -> Result<(Agreed, Arc<SpiffeId>), NoTls> {
        let as_server = !handshake.is_server();
        conn.begin_tls(handshake).map_err(|error| NoTls::of(&error))?;
        let agreed = std::future::poll_fn(|cx| conn.poll_handshake(cx)).await.map_err(|error| NoTls::of(&error))?;
        let identity = if agreed.kind == Some(HandshakeKind::Resumed) {
            // The chain was verified in the first handshake: since then it may have expired, or lost its root.
            let now = self.svids.now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let verified = verifier.verify(&agreed.chain, UnixTime::since_unix_epoch(now), as_server);
            verified.map_err(|refusal| NoTls::refused(&refusal))?.id
        } else {
            peer(Some(&agreed.chain)).ok_or(NoTls::NoCertificate)?.id
        };
        let identity = Arc::new(identity);
        if let Some(secure) = conn.secure() {
            secure.peer = self.metrics.principals.of(&identity);
        }
        Ok((agreed, identity))
    }

    /// How long a caller's handshake may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.timeout
    }

    /// What the proxy shows to others, and holds them against.
    pub(crate) fn svids(&self) -> &Svids {
        &self.svids
    }

    /// Forgets what was kept for another identity.
    pub(crate) fn forget(&self) {
        self.configs.clear();
    }
}
