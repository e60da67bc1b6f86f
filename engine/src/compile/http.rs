//! `HttpConnectionManager` and `TcpProxy`.

use std::mem::take;
use std::sync::Arc;

use super::strict::{At, Refusal, duration, nothing_left, typed};
use super::{access, cluster, fault, route, route_action, tokens};
use crate::proto::{extension, hcm as pb, protobuf, router, tcp_proxy};
use crate::tables::{Access, Fault, Http, Name, PathPolicy, Rbac, Routes, Slashes, Tcp, Upgrades, WeightedCluster};

use pb::http_connection_manager::{CodecType, PathWithEscapedSlashesAction, RouteSpecifier};

/// Compiles how HTTP is served.
pub(super) fn manager(any: &protobuf::Any) -> Result<Http, Refusal> {
    let mut message: pb::HttpConnectionManager = typed(any, extension::HCM.1)?;
    match CodecType::try_from(take(&mut message.codec_type)) {
        Ok(CodecType::Auto | CodecType::Http1) => {}
        Ok(codec) => return Err(Refusal::not_in_force(format!("codec_type: {}", codec.as_str_name()))),
        Err(error) => return Err(Refusal::invalid(format!("codec_type: {error}"))),
    }
    let stat_prefix = take(&mut message.stat_prefix).into();
    let routes = match message.route_specifier.take() {
        Some(RouteSpecifier::RouteConfig(config)) => Routes::Inline(Arc::new(route::table(config).at("route_config")?)),
        Some(RouteSpecifier::Rds(rds)) => {
            cluster::from_ads(rds.config_source).at("rds.config_source")?;
            if rds.route_config_name.is_empty() {
                return Err(Refusal::invalid("`rds.route_config_name` is empty"));
            }
            Routes::Named(Name::new(&rds.route_config_name))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => return Err(Refusal::not_in_force("scoped_routes")),
        None => return Err(Refusal::invalid("there are neither `rds` nor `route_config`")),
    };
    let Filters { access, faults, default_fault } = filters(take(&mut message.http_filters))?;
    let path = path_policy(&mut message)?;
    let mut common = message.common_http_protocol_options.take().unwrap_or_default();
    let idle_timeout = duration(common.idle_timeout.take()).at("common_http_protocol_options.idle_timeout")?;
    nothing_left(&common).at("common_http_protocol_options")?;
    let is_edge = message.use_remote_address.take().is_some_and(|edge| edge.value);
    let upgrades = upgrades(take(&mut message.upgrade_configs))?;
    nothing_left(&message)?;
    Ok(Http { stat_prefix, routes, access, faults, default_fault, path, idle_timeout, is_edge, upgrades })
}

/// Protocols that connections may switch to, and CONNECT, which Envoy counts among them.
fn upgrades(configs: Vec<pb::http_connection_manager::UpgradeConfig>) -> Result<Upgrades, Refusal> {
    let (mut upgrades, mut seen) = (Upgrades::default(), Vec::new());
    for (nth, mut config) in configs.into_iter().enumerate() {
        let mut read = || {
            let name = take(&mut config.upgrade_type).to_ascii_lowercase();
            let is_enabled = config.enabled.take().is_none_or(|enabled| enabled.value);
            nothing_left(&config)?;
            if name.is_empty() {
                return Err(Refusal::invalid("`upgrade_type` is empty"));
            }
            if seen.contains(&name) {
                return Err(Refusal::invalid(format!("`{name}` is said twice")));
            }
            match name.as_str() {
                _ if !is_enabled => {}
                "connect" => upgrades.connect = true,
                "connect-udp" => return Err(Refusal::not_in_force("upgrade_type: CONNECT-UDP")),
                protocol => upgrades.protocols.push(protocol.into()),
            }
            seen.push(name);
            Ok(())
        };
        read().at_nth("upgrade_configs", nth)?;
    }
    Ok(upgrades)
}

/// What the filters before the router do.
#[derive(Default)]
struct Filters {
    access: Access,
    faults: bool,
    default_fault: Option<Fault>,
}

/// Filters, in the only order in which they make sense: tokens are verified, rules look at them, faults are injected,
/// and the router is last. A second fault filter would draw again, so there is at most one, and so it is with tokens.
fn filters(filters: Vec<pb::HttpFilter>) -> Result<Filters, Refusal> {
    let mut found = Filters::default();
    let count = filters.len();
    if count == 0 {
        return Err(Refusal::invalid("`http_filters` is empty: the router is missing"));
    }
    for (nth, mut filter) in filters.into_iter().enumerate() {
        let mut read = || {
            let name = take(&mut filter.name);
            let Some(pb::http_filter::ConfigType::TypedConfig(any)) = filter.config_type.take() else {
                return Err(Refusal::not_in_force("a filter without typed_config"));
            };
            nothing_left(&filter)?;
            match any.type_url.as_str() {
                url if url == extension::ROUTER.1 && nth + 1 == count => {
                    nothing_left(&typed::<router::Router>(&any, extension::ROUTER.1)?)
                }
                url if url == extension::ROUTER.1 => Err(Refusal::invalid("the router is not the last filter")),
                _ if nth + 1 == count => Err(Refusal::invalid("the last filter is not the router")),
                url if url == extension::JWT.1 && found.access.is_open() && !found.faults => {
                    found.access.tokens = Some(Arc::new(tokens::compile(&any)?));
                    Ok(())
                }
                url if url == extension::RBAC.1 && !found.faults => {
                    found.access.rbac.push(access::http(&name, &any)?);
                    Ok(())
                }
                url if url == extension::JWT.1 || url == extension::RBAC.1 => Err(Refusal::invalid(format!(
                    "`{name}` is out of order: tokens are verified first and once, then come rules, then faults"
                ))),
                url if url == extension::FAULT.1 && !found.faults => {
                    found.faults = true;
                    found.default_fault = fault::fault(&any)?;
                    Ok(())
                }
                url => Err(Refusal::not_in_force(url)),
            }
        };
        read().at_nth("http_filters", nth)?;
    }
    Ok(found)
}

/// Paths are always normalised, so that `normalize_path: false` is refused.
fn path_policy(message: &mut pb::HttpConnectionManager) -> Result<PathPolicy, Refusal> {
    if message.normalize_path == Some(protobuf::BoolValue { value: true }) {
        message.normalize_path = None;
    }
    let action = PathWithEscapedSlashesAction::try_from(take(&mut message.path_with_escaped_slashes_action))
        .map_err(|error| Refusal::invalid(format!("path_with_escaped_slashes_action: {error}")))?;
    let escaped_slashes = match action {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault | PathWithEscapedSlashesAction::KeepUnchanged => {
            Slashes::Keep
        }
        PathWithEscapedSlashesAction::RejectRequest => Slashes::Reject,
        PathWithEscapedSlashesAction::UnescapeAndForward => Slashes::Unescape,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => {
            return Err(Refusal::not_in_force("path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT"));
        }
    };
    Ok(PathPolicy { merge_slashes: take(&mut message.merge_slashes), escaped_slashes })
}

/// Compiles how bytes are passed.
pub(super) fn tcp(any: &protobuf::Any, rbac: Vec<Rbac>) -> Result<Tcp, Refusal> {
    use tcp_proxy::tcp_proxy::ClusterSpecifier;
    let mut message: tcp_proxy::TcpProxy = typed(any, extension::TCP_PROXY.1)?;
    let clusters: Vec<_> = match message.cluster_specifier.take() {
        Some(ClusterSpecifier::Cluster(name)) => vec![WeightedCluster { name: Name::new(&name), weight: 1 }],
        Some(ClusterSpecifier::WeightedClusters(list)) => list
            .clusters
            .into_iter()
            .map(|mut cluster| {
                let of =
                    WeightedCluster { name: Name::new(&take(&mut cluster.name)), weight: take(&mut cluster.weight) };
                nothing_left(&cluster).map(|()| of)
            })
            .collect::<Result<_, _>>()
            .at("weighted_clusters")?,
        None => Vec::new(),
    };
    if clusters.iter().any(|cluster| cluster.name.as_str().is_empty()) {
        return Err(Refusal::invalid("the cluster has no name"));
    }
    route_action::total(clusters.iter().map(|cluster| cluster.weight))?;
    let stat_prefix = take(&mut message.stat_prefix).into();
    let idle_timeout = duration(message.idle_timeout.take()).at("idle_timeout")?;
    nothing_left(&message)?;
    Ok(Tcp { stat_prefix, rbac, clusters, idle_timeout })
}
