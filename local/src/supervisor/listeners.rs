//! Sockets on the host, opened before the mesh's namespaces exist and passed in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use super::{Options, SuperviseError, loopback_addresses, record, system};

/// A port on the host that is in use, although it was asked for by number.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {port} is in use on this machine ({source})\nhint: choose another with --port, or stop what uses it (`ss -ltnp 'sport = :{port}'` names it)"
)]
pub struct PortInUse {
    /// The port.
    pub port: u16,
    /// What the system said.
    pub source: io::Error,
}

/// One port on the host, on both loopback addresses (on one where the machine has no IPv6).
#[derive(Debug)]
pub(crate) struct HostPort {
    /// The port.
    pub(crate) port: u16,
    /// Its sockets.
    pub(crate) listeners: Vec<TcpListener>,
}

/// All sockets on the host.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// Where kube clients reach the API.
    pub(crate) api: TcpListener,
    /// Ports for Services of type LoadBalancer.
    pub(crate) host_ports: Vec<HostPort>,
    /// A socket that reaches the host's resolver; none when the host has none.
    pub(crate) resolver: Option<UdpSocket>,
}

/// How many ports after the wanted one are tried.
const TRIES: u16 = 100;

impl Listeners {
    /// Opens the API's port (the one it had before, if it is free, so that kubeconfigs stay valid) and the host port.
    pub(super) fn open(options: &Options) -> Result<Self, SuperviseError> {
        let remembered = record::remembered_api_port(&options.state_dir).unwrap_or(0);
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, remembered))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .map_err(system("listen on 127.0.0.1 for the API"))?;
        let host_port = open_host_port(options.host_port, options.next_free_port)?;
        Ok(Self { api, host_ports: vec![host_port], resolver: resolver() })
    }
}

/// A socket connected to the first resolver of the host that can be had.
fn resolver() -> Option<UdpSocket> {
    let config = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let servers =
        config.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.into_iter().find_map(|server| {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((server, 53)).ok()?;
        Some(socket)
    })
}

pub(super) fn open_host_port(wanted: u16, next_free: bool) -> Result<HostPort, PortInUse> {
    let mut first_error = None;
    let last = if next_free { wanted.saturating_add(TRIES) } else { wanted };
    for port in wanted..=last {
        match bind_both(port) {
            Ok(host_port) => return Ok(host_port),
            Err(error) => {
                let in_use = error.kind() == io::ErrorKind::AddrInUse;
                let source = first_error.get_or_insert(error);
                if !in_use {
                    let source = io::Error::new(source.kind(), source.to_string());
                    return Err(PortInUse { port: wanted, source });
                }
            }
        }
    }
    Err(PortInUse { port: wanted, source: first_error.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()) })
}

fn bind_both(port: u16) -> io::Result<HostPort> {
    let [v4, v6] = loopback_addresses(port);
    let first = TcpListener::bind(v4)?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    match TcpListener::bind(SocketAddr::new(v6.ip(), port)) {
        Ok(second) => listeners.push(second),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        // No IPv6 on this machine.
        Err(_) => {}
    }
    Ok(HostPort { port, listeners })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_port_is_taken_unless_the_port_was_asked_for() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let port = taken.local_addr().expect("it is bound").port();
        let other = open_host_port(port, true).expect("one of the next hundred is free");
        assert!(other.port > port);
        let error = open_host_port(port, false).expect_err("it is taken");
        assert!(error.to_string().contains(&format!("port {port} is in use")), "{error}");
    }
}
