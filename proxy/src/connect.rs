//! New connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::failure::Failure;

/// Connects to the first address of `host:port` that answers.
pub(crate) async fn dial(address: &str, mark: Option<u32>) -> io::Result<TcpStream> {
    let connector = Connector { mark };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for address in tokio::net::lookup_host(address).await? {
        match connector.dial(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes the proxy's own connections.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Connector {
    /// Socket mark that the interception rules skip; `None` sets none.
    pub(crate) mark: Option<u32>,
}

impl Connector {
    /// Connects, within `timeout`.
    ///
    /// # Errors
    ///
    /// The endpoint cannot be reached, refuses, or does not answer in time.
    pub(crate) async fn connect(self, address: SocketAddr, timeout: Duration) -> Result<TcpStream, Failure> {
        match tokio::time::timeout(timeout, self.dial(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "the upstream cannot be reached");
                Err(Failure::UpstreamConnect)
            }
            Err(_) => {
                tracing::debug!(%address, ?timeout, "the upstream does not accept the connection in time");
                Err(Failure::UpstreamConnect)
            }
        }
    }

    /// Connects, however long it takes.
    pub(crate) async fn dial(self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(mark) = self.mark {
            socket2::SockRef::from(&socket).set_mark(mark)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
