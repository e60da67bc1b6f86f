//! What is spoken on a port.

use crate::kubernetes::ServicePort;
use crate::model::Protocol;

/// Finds out what is spoken on a port: by `appProtocol`, else by the port's name up to the first dash.
///
/// A name that says nothing is no statement: the first bytes decide then, where classic releases took it for opaque.
#[must_use]
pub fn protocol(port: &ServicePort) -> Protocol {
    if !matches!(port.protocol.as_str(), "" | "TCP") {
        return Protocol::Udp;
    }
    let by_app = match port.app_protocol.to_ascii_lowercase().as_str() {
        "" => None,
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Https),
        word => named(word),
    };
    let prefix = port.name.split('-').next().unwrap_or_default().to_ascii_lowercase();
    by_app.or_else(|| named(&prefix)).unwrap_or(Protocol::Auto)
}

fn named(word: &str) -> Option<Protocol> {
    Some(match word {
        "http" => Protocol::Http,
        "http2" | "h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Https,
        "tcp" | "mongo" | "redis" | "mysql" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_port_says_what_is_spoken_unless_app_protocol_does() {
        for (name, app_protocol, transport, expected) in [
            ("http", "", "TCP", Protocol::Http),
            ("http-web", "", "", Protocol::Http),
            ("HTTP2-x", "", "TCP", Protocol::Http2),
            ("grpc", "", "TCP", Protocol::Grpc),
            ("https", "", "TCP", Protocol::Https),
            ("mongo", "", "TCP", Protocol::Tcp),
            ("redis-main", "", "TCP", Protocol::Tcp),
            ("httptest", "", "TCP", Protocol::Auto),
            ("", "", "TCP", Protocol::Auto),
            ("http", "tcp", "TCP", Protocol::Tcp),
            ("web", "kubernetes.io/h2c", "TCP", Protocol::Http2),
            ("http", "example.com/own", "TCP", Protocol::Http),
            ("http", "", "UDP", Protocol::Udp),
            ("dns", "", "UDP", Protocol::Udp),
        ] {
            let port = ServicePort {
                name: name.to_owned(),
                port: 80,
                protocol: transport.to_owned(),
                app_protocol: app_protocol.to_owned(),
            };
            assert_eq!(protocol(&port), expected, "{name:?} {app_protocol:?} {transport:?}");
        }
    }
}
