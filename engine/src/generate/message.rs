//! Small messages that several resources need.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use prost::Message;

use crate::proto::{core, extension, hcm, listener, protobuf, route, router, tcp_proxy};

/// A TCP address.
pub(super) fn socket_address(address: IpAddr, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// The same port at every address of IPv6, beside those of IPv4.
pub(super) fn every_ipv6_address(port: u16) -> listener::AdditionalAddress {
    let address = Some(socket_address(Ipv6Addr::UNSPECIFIED.into(), port));
    listener::AdditionalAddress { address, ..Default::default() }
}

/// A length of time.
pub(super) fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// "From the same stream as this resource."
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// An extension's configuration.
pub(super) fn any(type_url: &str, message: &impl Message) -> protobuf::Any {
    protobuf::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

/// A network filter.
pub(super) fn network_filter((name, type_url): (&str, &str), message: &impl Message) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(type_url, message))),
    }
}

/// A listener filter.
pub(super) fn listener_filter((name, type_url): (&str, &str), message: &impl Message) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(type_url, message))),
        ..Default::default()
    }
}

/// An HTTP filter.
pub(super) fn http_filter((name, type_url): (&str, &str), message: &impl Message) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(type_url, message))),
        ..Default::default()
    }
}

/// The HTTP filter that ends every chain.
pub(super) fn router_filter() -> hcm::HttpFilter {
    http_filter(extension::ROUTER, &router::Router::default())
}

/// The filter chain's filter that passes bytes to a cluster.
pub(super) fn tcp_filter(stat_prefix: &str, cluster: &str) -> listener::Filter {
    let message = tcp_proxy::TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    network_filter(extension::TCP_PROXY, &message)
}

/// Any path.
pub(super) fn anywhere() -> route::route_match::PathSpecifier {
    route::route_match::PathSpecifier::Prefix("/".to_owned())
}

/// A text as a regex that matches exactly that text.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if r"\.+*?()|[]{}^$".contains(char) {
            out.push('\\');
        }
        out.push(char);
    }
    out
}
