//! HTTPS probes.

use std::io;
use std::net::Ipv4Addr;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects over TLS to whoever answers.
pub(crate) struct ProbeTls {
    connector: TlsConnector,
}

impl ProbeTls {
    /// Prepares the configuration.
    ///
    /// # Errors
    /// When the crypto library supports no TLS version, which it does.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        Ok(Self { connector: runtime::probe_tls::any_certificate()? })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the other side does not speak TLS.
    pub(crate) async fn connect(&self, address: Ipv4Addr, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(ServerName::IpAddress(address.into()), stream).await
    }
}
