//! `Cluster` → its table entry.

use std::mem::take;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::endpoints::{assignment, mesh_text};
use super::strict::{At, Refusal, decode, duration, named, nothing_left, typed};
use super::{cluster_limits, tls};
use crate::proto::{cluster as pb, core, extension, upstream_http};
use crate::tables::{Cluster, ClusterSpec, Discovery, Endpoints, Identity, Lb, Name, Upstream};

use pb::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};

/// Metadata of a cluster of original destinations by which endpoints are called as their own clusters have it.
pub(crate) const KNOWN_ENDPOINTS: (&str, &str) = ("known_endpoints", "by_tls");

/// How long connecting may take unless the cluster says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Compiles a cluster; endpoints only if it lists them itself. Counters of addresses that stay are those of `old`.
pub(super) fn compile(name: &str, body: &[u8], old: Option<&Endpoints>) -> Result<Cluster, Refusal> {
    let mut message: pb::Cluster = decode(body)?;
    let own = take(&mut message.name);
    named(name, &own)?;
    let discovery = discovery(&mut message, &own)?;
    let lb = balancing(&mut message, &discovery)?;
    let endpoints = match (&discovery, message.load_assignment.take()) {
        (Discovery::Static, list) => Some(Arc::new(assignment(list.unwrap_or_default(), old).at("load_assignment")?)),
        (_, None) => None,
        (_, Some(_)) => return Err(Refusal::invalid("`load_assignment` is for clusters of type STATIC")),
    };
    let connect_timeout = duration(message.connect_timeout.take()).at("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT);
    if connect_timeout.is_zero() {
        return Err(Refusal::invalid("`connect_timeout` is zero"));
    }
    let (upstream, requests_per_connection) = upstream(&mut message)?;
    let outlier = message.outlier_detection.take().map(cluster_limits::outlier);
    let outlier = outlier.transpose().at("outlier_detection")?.flatten();
    let breakers = message.circuit_breakers.take().unwrap_or_default();
    let limits = cluster_limits::compile(breakers).at("circuit_breakers")?;
    let sockets = tls::sockets(take(&mut message.transport_socket_matches))?;
    let metadata = message.metadata.take().unwrap_or_default();
    let secures_known = *mesh_text(&metadata, KNOWN_ENDPOINTS.0) == *KNOWN_ENDPOINTS.1;
    let service = identity(&metadata).filter(|_| !secures_known);
    nothing_left(&message)?;
    let spec = ClusterSpec {
        name: Name::new(&own),
        discovery,
        lb,
        connect_timeout,
        upstream,
        limits,
        requests_per_connection,
        outlier,
        sockets,
        secures_known,
        service,
    };
    Ok(Cluster { spec: Arc::new(spec), endpoints, usage: Arc::default() })
}

fn discovery(message: &mut pb::Cluster, name: &str) -> Result<Discovery, Refusal> {
    let kind = match message.cluster_discovery_type.take() {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(kind).map_err(|error| Refusal::invalid(format!("type: {error}")))?
        }
        Some(ClusterDiscoveryType::ClusterType(_)) => return Err(Refusal::not_in_force("cluster_type")),
    };
    match kind {
        DiscoveryType::Static => Ok(Discovery::Static),
        DiscoveryType::OriginalDst => Ok(Discovery::OriginalDestination),
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            Err(Refusal::not_in_force(format!("type: {}", kind.as_str_name())))
        }
        DiscoveryType::Eds => {
            let config = message.eds_cluster_config.take().unwrap_or_default();
            from_ads(config.eds_config).at("eds_cluster_config.eds_config")?;
            let service = if config.service_name.is_empty() { name } else { &config.service_name };
            Ok(Discovery::Eds(Name::new(service)))
        }
    }
}

/// Accepts "from the same stream", and nothing else.
pub(super) fn from_ads(source: Option<core::ConfigSource>) -> Result<(), Refusal> {
    let Some(mut source) = source else { return Err(Refusal::invalid("the source is missing")) };
    use core::config_source::ConfigSourceSpecifier;
    match source.config_source_specifier.take() {
        Some(ConfigSourceSpecifier::Ads(_)) => {}
        Some(_) => return Err(Refusal::not_in_force("any source but ads")),
        None => return Err(Refusal::invalid("the source is missing")),
    }
    if matches!(core::ApiVersion::try_from(source.resource_api_version), Ok(core::ApiVersion::V3)) {
        source.resource_api_version = 0;
    }
    nothing_left(&source)
}

fn balancing(message: &mut pb::Cluster, discovery: &Discovery) -> Result<Lb, Refusal> {
    let policy = LbPolicy::try_from(take(&mut message.lb_policy))
        .map_err(|error| Refusal::invalid(format!("lb_policy: {error}")))?;
    match (policy, discovery) {
        (LbPolicy::ClusterProvided, Discovery::OriginalDestination) => Ok(Lb::RoundRobin),
        (_, Discovery::OriginalDestination) => {
            Err(Refusal::invalid("a cluster of type ORIGINAL_DST has lb_policy CLUSTER_PROVIDED"))
        }
        (LbPolicy::RoundRobin, _) => Ok(Lb::RoundRobin),
        (LbPolicy::LeastRequest, _) => Ok(Lb::LeastRequest),
        (LbPolicy::Random, _) => Ok(Lb::Random),
        (policy, _) => Err(Refusal::not_in_force(format!("lb_policy: {}", policy.as_str_name()))),
    }
}

/// What is spoken to the endpoints, and how many requests a connection may have.
fn upstream(message: &mut pb::Cluster) -> Result<(Upstream, Option<NonZeroU32>), Refusal> {
    use upstream_http::http_protocol_options::UpstreamProtocolOptions;
    use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
    let Some(any) = message.typed_extension_protocol_options.remove(extension::HTTP_OPTIONS.0) else {
        return Ok((Upstream::Http1, None));
    };
    let read = || {
        let mut options: upstream_http::HttpProtocolOptions = typed(&any, extension::HTTP_OPTIONS.1)?;
        let upstream = match options.upstream_protocol_options.take() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match config.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => nothing_left(&http1).map(|()| Upstream::Http1)?,
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => nothing_left(&http2).map(|()| Upstream::Http2)?,
                _ => return Err(Refusal::not_in_force("explicit_http_config")),
            },
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(mut config)) => {
                nothing_left(&config.http_protocol_options.take().unwrap_or_default())?;
                nothing_left(&config.http2_protocol_options.take().unwrap_or_default())?;
                nothing_left(&config).at("use_downstream_protocol_config")?;
                Upstream::AsDownstream
            }
            Some(_) => return Err(Refusal::not_in_force("upstream_protocol_options")),
            None => return Err(Refusal::invalid("`upstream_protocol_options` is missing")),
        };
        let mut common = options.common_http_protocol_options.take().unwrap_or_default();
        let requests = common.max_requests_per_connection.take().and_then(|number| NonZeroU32::new(number.value));
        nothing_left(&common).at("common_http_protocol_options")?;
        nothing_left(&options)?;
        Ok((upstream, requests))
    };
    read().at("typed_extension_protocol_options")
}

fn identity(metadata: &core::Metadata) -> Option<Identity> {
    metadata.filter_metadata.get("mesh").map(|_| Identity {
        host: mesh_text(metadata, "host"),
        name: mesh_text(metadata, "name"),
        namespace: mesh_text(metadata, "namespace"),
    })
}
