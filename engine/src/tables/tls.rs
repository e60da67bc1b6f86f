//! Where TLS begins and ends, with the proxy's own SVID.

use std::sync::Arc;

use super::{ClusterSpec, Endpoint};

/// TLS that a filter chain ends, with the proxy's own SVID. Callers show a certificate of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// What is chosen from in ALPN, the best first; empty chooses nothing.
    pub alpn: Vec<Box<str>>,
}

/// TLS to a cluster's endpoints, with the proxy's own SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// SPIFFE IDs of which the server must have one (secure naming); empty refuses every server.
    pub servers: Vec<Box<str>>,
    /// Server name (SNI) that is sent; empty sends none.
    pub server_name: Box<str>,
    /// Words of ALPN for what may be spoken to the cluster, the best first (`mesh-h2`, `mesh-http/1.1`, `mesh`). A connection
    /// offers those of them that fit what it will carry: one for opaque bytes offers [`alpn::OPAQUE`] alone.
    pub alpn: Vec<Box<str>>,
    /// Whether a handshake may build on an earlier one.
    pub resumes: bool,
}

impl ClientTls {
    /// The same to an endpoint that its caller has chosen: of the identities that may run the service its own alone.
    pub(super) fn for_one(&self, endpoint: &Endpoint) -> Arc<ClientTls> {
        let path = format!("ns/{}/sa/{}", endpoint.namespace, endpoint.service_account);
        let is_own = |id: &str| {
            let parts = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
            endpoint.service_account.is_empty() || parts.is_some_and(|(_, of_id)| of_id == path)
        };
        Arc::new(ClientTls { servers: self.servers.iter().filter(|id| is_own(id)).cloned().collect(), ..self.clone() })
    }
}

/// Words by which a cluster chooses how to connect to an endpoint, each with its value, in their order.
pub type Words = Vec<(Box<str>, Box<str>)>;

/// How endpoints are connected to: the first whose words the endpoint has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketMatch {
    /// Its name, for people.
    pub name: Box<str>,
    /// What the endpoint's words must be; empty fits every endpoint.
    pub wanted: Words,
    /// TLS; `None` is clear text.
    pub tls: Option<Arc<ClientTls>>,
}

/// Words of ALPN that tell the mesh's own TLS from an application's.
pub mod alpn {
    /// HTTP/2.
    pub const HTTP2: &str = "mesh-h2";
    /// HTTP/1.1.
    pub const HTTP1: &str = "mesh-http/1.1";
    /// Bytes that nobody looks into.
    pub const OPAQUE: &str = "mesh";
    /// All of them.
    pub const ALL: [&str; 3] = [HTTP2, HTTP1, OPAQUE];
}

impl ClusterSpec {
    /// TLS with which an endpoint is connected to; `None` is clear text.
    ///
    /// As in Envoy an endpoint that nothing fits is connected to in clear text.
    #[must_use]
    pub fn tls_for(&self, endpoint: &Endpoint) -> Option<&Arc<ClientTls>> {
        self.sockets.iter().find(|socket| socket.fits(endpoint))?.tls.as_ref()
    }
}

impl SocketMatch {
    fn fits(&self, endpoint: &Endpoint) -> bool {
        self.wanted.iter().all(|wanted| endpoint.socket_words.contains(wanted))
    }
}
