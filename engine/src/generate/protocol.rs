//! What is spoken to endpoints → the options of a `Cluster`.

use api::model::{CircuitBreaker, Protocol, Role};

use super::message::any;
use crate::proto::{core, extension, protobuf, upstream_http};

use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig as UseDownstream,
};

/// What is spoken on a port, and how many requests a connection may have; nothing where HTTP/1.1 without a bound is meant,
/// or bytes.
///
/// A port that is declared to be HTTP gets what the application that calls speaks, so that a client of HTTP/2 reaches its
/// server as it would without the mesh. What comes in at a gateway says nothing of the service behind it.
pub(super) fn options(
    protocol: Protocol,
    role: Role,
    breaker: Option<&CircuitBreaker>,
) -> Option<(String, protobuf::Any)> {
    let requests = breaker.and_then(|breaker| breaker.requests_per_connection);
    let upstream = match (protocol, role) {
        (Protocol::Http2 | Protocol::Grpc, _) => {
            explicit(ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()))
        }
        (Protocol::Http | Protocol::Auto, Role::Sidecar) => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstream {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
                ..Default::default()
            })
        }
        _ if requests.is_none() => return None,
        _ => explicit(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default())),
    };
    let common = requests.map(|requests| core::HttpProtocolOptions {
        max_requests_per_connection: Some(protobuf::UInt32Value { value: requests.get() }),
        ..Default::default()
    });
    let options = upstream_http::HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(upstream),
        ..Default::default()
    };
    Some((extension::HTTP_OPTIONS.0.to_owned(), any(extension::HTTP_OPTIONS.1, &options)))
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}
