//! Serves what proxies should have: delta ADS over TLS.

mod ads;
pub mod codec;
pub mod identity;
pub mod nack;
pub mod proxies;
pub mod service;
pub mod state;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use runtime::Tasks;
use runtime::svid::{PeerVerifier, Peers};
use runtime::tls::TlsListener;
use tokio::net::TcpListener;
use tonic::transport::Server;

pub use self::ads::{Ads, OwnIdentity};
pub use self::proxies::{Proxies, Proxy};
use runtime::certificate::{Certificate, CertificateError};

/// How often a silent connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Streams on one connection; a proxy needs one.
const STREAMS_PER_CONNECTION: u32 = 8;
/// Largest request's headers: a token and little more.
const HEADER_BYTES: u32 = 64 * 1024;

/// Serves ADS on `listener` until the tasks are cancelled.
///
/// # Errors
///
/// When TLS cannot be set up.
pub fn serve(
    ads: Ads,
    listener: TcpListener,
    certificate: &Certificate,
    tasks: &Tasks,
) -> Result<(), CertificateError> {
    // Who comes without an SVID, as at its first start, proves itself by its token.
    let verifier = Arc::new(PeerVerifier::new(ads.identity.svids.clone(), Peers::Members).optional());
    let config = certificate.verifying_server_config(verifier, &[b"h2"])?;
    let incoming = TlsListener::new(listener, config, runtime::tls::Handshakes::default()).into_stream();
    let stopped = tasks.token().clone().cancelled_owned();
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION))
        .http2_max_header_list_size(Some(HEADER_BYTES))
        .serve_with_incoming_shutdown(ads, incoming, stopped);
    tasks.spawn_vital("xds server", server);
    Ok(())
}
