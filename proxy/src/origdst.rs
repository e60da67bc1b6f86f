//! Where an intercepted connection was going before the kernel sent it here.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

/// The original destination of a connection: what netfilter remembers, else (not intercepted) its local address.
///
/// # Errors
///
/// The socket is not connected any more.
pub(crate) fn original_destination(socket: &TcpStream) -> io::Result<SocketAddr> {
    let local = socket.local_addr()?;
    let asked = socket2::SockRef::from(socket);
    let found = if canonical(local).is_ipv4() { asked.original_dst_v4() } else { asked.original_dst_v6() };
    // ENOENT or ENOPROTOOPT: netfilter has not touched this connection.
    Ok(canonical(found.ok().and_then(|address| address.as_socket()).unwrap_or(local)))
}

/// The address with an IPv4 address written as IPv4, so that it is compared as one.
#[must_use]
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
