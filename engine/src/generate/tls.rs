//! Mutual TLS between proxies → the transport sockets of clusters and filter chains.
//!
//! What a caller does is chosen by the endpoint ([`metadata`]): TLS where its workload's proxy takes it and no policy is
//! against it, else clear text. What a server does is chosen by the first bytes: the mesh's own TLS is told by its words of
//! ALPN, so that an application's own TLS passes as the bytes that it is.

use std::num::NonZeroU16;

use api::messages::node_metadata::SDS_CLUSTER;
use api::model::{Host, Key, MeshTls, Model, MtlsMode, Node, Protocol, Service};
use api::spiffe::{SpiffeId, TrustDomain};
use prost::Message;

use super::{ClusterName, access, message, wire};
use crate::compile::{BUNDLE, CERTIFICATE, SOCKET_MATCH};
use crate::proto::{cluster as pb, core, extension, matcher, protobuf, raw_buffer, tls};
use crate::tables::alpn;

use core::config_source::ConfigSourceSpecifier;
use tls::common_tls_context::{CombinedCertificateValidationContext as Combined, ValidationContextType};

/// The word of endpoints that take the mesh's TLS, and its value.
const WORD: (&str, &str) = ("tlsMode", "mesh");

/// How a proxy connects to the endpoints of a cluster; empty is in clear text.
pub(super) fn sockets(
    model: &Model,
    node: &Node,
    cluster: &ClusterName,
    protocol: Protocol,
) -> Vec<pb::cluster::TransportSocketMatch> {
    let words = offered(node.tls, protocol);
    let servers = servers(model, &cluster.host);
    if words.is_empty() || servers.is_empty() {
        return Vec::new();
    }
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common(words, Some(&servers))),
        sni: server_name(cluster),
        ..Default::default()
    };
    let text = protobuf::Value { kind: Some(protobuf::value::Kind::StringValue(WORD.1.to_owned())) };
    let wanted = protobuf::Struct { fields: [(WORD.0.to_owned(), text)].into() };
    let of = |name: &str, wanted, socket| pb::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: wanted,
        transport_socket: Some(socket),
    };
    vec![
        of("mesh-tls", Some(wanted), socket(extension::UPSTREAM_TLS, &context)),
        of("plain", None, socket(extension::RAW_BUFFER, &raw_buffer::RawBuffer {})),
    ]
}

/// The transport socket of a filter chain for connections that offer one of these words.
pub(super) fn server(node: &Node, words: &[&str]) -> core::TransportSocket {
    // An Envoy that chose one of the words would take what follows for HTTP/1.1, whatever the word.
    let words = if node.tls == MeshTls::Own { words } else { &[] };
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common(words, None)),
        require_client_certificate: Some(protobuf::BoolValue { value: true }),
        ..Default::default()
    };
    socket(extension::DOWNSTREAM_TLS, &context)
}

/// Metadata of those endpoints of a service's port that take the mesh's TLS; empty where they are not called by it.
pub(super) fn metadata(model: &Model, service: &Service, port: NonZeroU16) -> Vec<u8> {
    let applied = access::authentication(model, &service.key.namespace, Some((service, port)));
    match applied.mode(model) {
        MtlsMode::Disable => Vec::new(),
        MtlsMode::Permissive | MtlsMode::Strict => wire::metadata(SOCKET_MATCH, &[(WORD.0, wire::Meta::Text(WORD.1))]),
    }
}

/// What may be offered on connections to a port.
fn offered(tls: MeshTls, protocol: Protocol) -> &'static [&'static str] {
    match (tls, protocol) {
        (MeshTls::None, _) | (_, Protocol::Udp) => &[],
        (MeshTls::Own, Protocol::Http | Protocol::Http2 | Protocol::Grpc) => &[alpn::HTTP2, alpn::HTTP1],
        (MeshTls::Own, Protocol::Auto) => &alpn::ALL,
        // An Envoy offers the same whatever it goes on to speak: it has TLS where that is known beforehand.
        (MeshTls::Sds, Protocol::Http) => &[alpn::HTTP1],
        (MeshTls::Sds, Protocol::Http2 | Protocol::Grpc) => &[alpn::HTTP2],
        (MeshTls::Sds, Protocol::Auto) => &[],
        (_, Protocol::Https | Protocol::Tcp) => &[alpn::OPAQUE],
    }
}

/// The identities that may run a service, in every name of the trust domain. A name that no certificate can have lets
/// nobody in.
fn servers(model: &Model, host: &Host) -> Vec<String> {
    let domains: Vec<TrustDomain> = model.mesh.trust_domains().filter_map(|name| name.parse().ok()).collect();
    let accounts = model.accounts_of(host).into_iter().flat_map(|accounts| accounts.iter());
    let of = |account: &Key| {
        let ids = domains.iter().map(|domain| SpiffeId::of_account(domain, &account.namespace, &account.name));
        ids.filter_map(|id| id.ok().map(|id| id.to_string())).collect::<Vec<_>>()
    };
    accounts.flat_map(of).collect()
}

/// `outbound_.9080_._.reviews.default.svc.cluster.local`: the cluster as a name that DNS could have, without its labels.
fn server_name(cluster: &ClusterName) -> String {
    format!("outbound_.{}_._.{}", cluster.port, cluster.host)
}

fn socket((name, type_url): (&str, &str), context: &impl Message) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(message::any(type_url, context))),
    }
}

/// TLS 1.3 with the proxy's own certificate, trusting the mesh's roots and, if they are given, these servers alone.
fn common(words: &[&str], servers: Option<&[String]>) -> tls::CommonTlsContext {
    let bundle = secret(BUNDLE);
    let trusted = match servers {
        None => ValidationContextType::ValidationContextSdsSecretConfig(bundle),
        Some(servers) => ValidationContextType::CombinedValidationContext(Combined {
            default_validation_context: Some(tls::CertificateValidationContext {
                match_typed_subject_alt_names: servers.iter().map(|server| named(server)).collect(),
                ..Default::default()
            }),
            validation_context_sds_secret_config: Some(bundle),
            ..Default::default()
        }),
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(CERTIFICATE)],
        alpn_protocols: words.iter().map(|word| (*word).to_owned()).collect(),
        validation_context_type: Some(trusted),
        ..Default::default()
    }
}

fn named(server: &str) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(server.to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A secret from the socket in the pod. Our own proxy has it without asking.
fn secret(name: &str) -> tls::SdsSecretConfig {
    let service = core::grpc_service::EnvoyGrpc { cluster_name: SDS_CLUSTER.to_owned(), ..Default::default() };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(service)),
            ..Default::default()
        }],
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..Default::default()
        }),
    }
}
