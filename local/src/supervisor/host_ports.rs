//! Ports on the host that are wanted while the mesh runs: PID 1 asks, the supervisor opens them, as it alone is in the host's
//! network.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::listeners::{HostPort, open_host_port};
use crate::node::{OpenPort, wire};

/// Asks for a port, or the next free one.
#[derive(Serialize, Deserialize)]
struct Ask {
    port: u16,
}

/// The answer; the sockets come with it.
#[derive(Serialize, Deserialize)]
enum Answer {
    Opened { port: u16 },
    Refused { why: String },
}

/// The supervisor's side: answers one question. Returns whether more can come.
///
/// # Errors
/// When the answer cannot be sent.
pub(super) fn answer(requests: &OwnedFd) -> io::Result<bool> {
    let Some((ask, _)) = wire::receive::<Ask>(requests.as_fd())? else { return Ok(false) };
    match open_host_port(ask.port, true) {
        Ok(HostPort { port, listeners }) => {
            let fds: Vec<_> = listeners.iter().map(TcpListener::as_fd).collect();
            wire::send(requests.as_fd(), &Answer::Opened { port }, &fds)?;
        }
        Err(error) => wire::send(requests.as_fd(), &Answer::Refused { why: error.to_string() }, &[])?,
    }
    Ok(true)
}

/// PID 1's side.
pub(super) struct HostPorts(Mutex<OwnedFd>);

impl HostPorts {
    pub(super) fn new(socket: OwnedFd) -> Arc<Self> {
        Arc::new(Self(Mutex::new(socket)))
    }
}

impl OpenPort for HostPorts {
    fn open(&self, wanted: u16) -> io::Result<(u16, Vec<TcpListener>)> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::send(socket.as_fd(), &Ask { port: wanted }, &[])?;
        match wire::receive::<Answer>(socket.as_fd())? {
            Some((Answer::Opened { port }, fds)) => Ok((port, fds.into_iter().map(TcpListener::from).collect())),
            Some((Answer::Refused { why }, _)) => Err(io::Error::other(why)),
            None => Err(io::Error::other("the supervisor has ended")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_opened_for_who_asks_and_the_next_one_when_it_is_taken() {
        let (requests, asks) = wire::socket_pair().expect("a pair of sockets");
        let supervisor = std::thread::spawn(move || while answer(&requests).expect("answered") {});
        let ports = HostPorts::new(asks);
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let (opened, listeners) = ports.open(port).expect("one of the next hundred is free");
        assert!(opened > port);
        for listener in &listeners {
            let address = listener.local_addr().expect("bound");
            assert!(address.ip().is_loopback() && address.port() == opened, "{address}");
            std::net::TcpStream::connect(address).expect("somebody listens");
        }
        drop(ports);
        supervisor.join().expect("it ends with who asks");
    }
}
