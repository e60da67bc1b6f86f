//! `Listener` → its table entry.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use super::strict::{At, Refusal, decode, duration, named, nothing_left, port, socket_address, typed};
use super::{access, http, tls};
use crate::proto::{core, extension, http_inspector, listener as pb, original_dst, protobuf, tls_inspector};
use crate::tables::{Chain, ChainMatch, Filter, Listener, Name, Ports, Rbac, ServerName};

/// How long the first bytes may take unless the listener says otherwise.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles a listener.
pub(super) fn compile(name: &str, body: &[u8]) -> Result<Listener, Refusal> {
    let mut message: pb::Listener = decode(body)?;
    let own = take(&mut message.name);
    named(name, &own)?;
    let address = socket_address(message.address.take()).at("address")?;
    let additional_addresses = take(&mut message.additional_addresses)
        .into_iter()
        .enumerate()
        .map(|(nth, mut additional)| {
            let address = socket_address(additional.address.take()).at_nth("additional_addresses", nth)?;
            nothing_left(&additional).at_nth("additional_addresses", nth)?;
            Ok(address)
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let bind = message.bind_to_port.take().is_none_or(|bind| bind.value);
    let use_original_dst = message.use_original_dst.take().is_some_and(|value| value.value);
    core::TrafficDirection::try_from(take(&mut message.traffic_direction))
        .map_err(|error| Refusal::invalid(format!("traffic_direction: {error}")))?;
    let filters = listener_filters(take(&mut message.listener_filters))?;
    let inspect_timeout = duration(message.listener_filters_timeout.take()).at("listener_filters_timeout")?;
    let chains = take(&mut message.filter_chains)
        .into_iter()
        .enumerate()
        .map(|(nth, message)| chain(message).at_nth("filter_chains", nth))
        .collect::<Result<Vec<_>, _>>()?;
    let default_chain = message.default_filter_chain.take().map(chain).transpose().at("default_filter_chain")?;
    let continue_on_timeout = take(&mut message.continue_on_listener_filters_timeout);
    nothing_left(&message)?;
    if chains.is_empty() && default_chain.is_none() {
        return Err(Refusal::invalid("the listener has no filter chain"));
    }
    for (nth, chain) in chains.iter().enumerate() {
        if chains.iter().take(nth).any(|other| other.matches == chain.matches) {
            return Err(Refusal::invalid("two filter chains are for the same connections"))
                .at_nth("filter_chains", nth);
        }
    }
    Ok(Listener {
        name: Name::new(&own),
        address,
        additional_addresses,
        bind,
        use_original_dst,
        restores_original_dst: filters.original_dst || use_original_dst,
        inspects_http: filters.inspector,
        inspects_not: filters.inspects_not,
        inspects_tls: filters.tls_inspector,
        inspects_tls_not: filters.inspects_tls_not,
        inspect_timeout: Some(inspect_timeout.unwrap_or(INSPECT_TIMEOUT)).filter(|timeout| !timeout.is_zero()),
        continue_on_timeout,
        chains,
        default_chain,
    })
}

#[derive(Default)]
struct ListenerFilters {
    original_dst: bool,
    inspector: bool,
    inspects_not: Option<Ports>,
    tls_inspector: bool,
    inspects_tls_not: Option<Ports>,
}

fn listener_filters(filters: Vec<pb::ListenerFilter>) -> Result<ListenerFilters, Refusal> {
    let mut found = ListenerFilters::default();
    for (nth, mut filter) in filters.into_iter().enumerate() {
        let mut read = || {
            filter.name.clear();
            let Some(pb::listener_filter::ConfigType::TypedConfig(any)) = filter.config_type.take() else {
                return Err(Refusal::not_in_force("a listener filter without typed_config"));
            };
            match any.type_url.as_str() {
                url if url == extension::ORIGINAL_DST.1 => {
                    typed::<original_dst::OriginalDst>(&any, url)?;
                    found.original_dst = true;
                }
                url if url == extension::HTTP_INSPECTOR.1 => {
                    nothing_left(&typed::<http_inspector::HttpInspector>(&any, url)?)?;
                    found.inspector = true;
                    found.inspects_not = filter.filter_disabled.take().map(ports).transpose().at("filter_disabled")?;
                }
                url if url == extension::TLS_INSPECTOR.1 => {
                    nothing_left(&typed::<tls_inspector::TlsInspector>(&any, url)?)?;
                    found.tls_inspector = true;
                    found.inspects_tls_not =
                        filter.filter_disabled.take().map(ports).transpose().at("filter_disabled")?;
                }
                url => return Err(Refusal::not_in_force(url)),
            }
            nothing_left(&filter)
        };
        read().at_nth("listener_filters", nth)?;
    }
    Ok(found)
}

fn ports(predicate: pb::ListenerFilterChainMatchPredicate) -> Result<Ports, Refusal> {
    use pb::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let all = |set: MatchSet| set.rules.into_iter().map(ports).collect::<Result<Vec<_>, _>>();
    match predicate.rule {
        None => Err(Refusal::invalid("the predicate is empty")),
        Some(Rule::AnyMatch(any)) => Ok(if any { Ports::Any } else { Ports::Not(Box::new(Ports::Any)) }),
        Some(Rule::DestinationPortRange(range)) => Ok(Ports::Range(range.start, range.end)),
        Some(Rule::OrMatch(set)) => all(set).map(Ports::Or),
        Some(Rule::AndMatch(set)) => all(set).map(Ports::And),
        Some(Rule::NotMatch(rule)) => ports(*rule).map(|ports| Ports::Not(Box::new(ports))),
    }
}

fn chain(mut message: pb::FilterChain) -> Result<Chain, Refusal> {
    let name = take(&mut message.name);
    let matches = chain_match(message.filter_chain_match.take()).at("filter_chain_match")?;
    let mut filters = take(&mut message.filters);
    let tls = message.transport_socket.take().map(tls::server).transpose().at("transport_socket")?.flatten();
    nothing_left(&message)?;
    let Some(last) = filters.pop() else {
        return Err(Refusal::invalid("a filter chain has a filter that ends it: HTTP or TCP"));
    };
    let count = filters.len();
    let mut rbac = Vec::new();
    for (nth, filter) in filters.into_iter().enumerate() {
        let (name, any) = extension_of(filter).at_nth("filters", nth)?;
        if any.type_url != extension::NETWORK_RBAC.1 {
            return Err(Refusal::not_in_force(any.type_url)).at_nth("filters", nth);
        }
        rbac.push(access::network(&name, &any).at_nth("filters", nth)?);
    }
    let filter = extension_of(last).and_then(|(_, any)| terminal(&any, rbac)).at_nth("filters", count)?;
    Ok(Chain { name: name.into(), matches, tls, filter })
}

/// A filter's name and configuration.
fn extension_of(mut filter: pb::Filter) -> Result<(String, protobuf::Any), Refusal> {
    let name = take(&mut filter.name);
    let Some(pb::filter::ConfigType::TypedConfig(any)) = filter.config_type.take() else {
        return Err(Refusal::not_in_force("a filter without typed_config"));
    };
    nothing_left(&filter)?;
    Ok((name, any))
}

/// The filter that ends a chain.
fn terminal(any: &protobuf::Any, rbac: Vec<Rbac>) -> Result<Filter, Refusal> {
    match any.type_url.as_str() {
        url if url == extension::HCM.1 && rbac.is_empty() => Ok(Filter::Http(Arc::new(http::manager(any)?))),
        url if url == extension::HCM.1 => Err(Refusal::not_in_force("a network RBAC filter before HTTP")),
        url if url == extension::TCP_PROXY.1 => Ok(Filter::Tcp(Arc::new(http::tcp(any, rbac)?))),
        url => Err(Refusal::not_in_force(url)),
    }
}

fn chain_match(message: Option<pb::FilterChainMatch>) -> Result<ChainMatch, Refusal> {
    let Some(mut message) = message else { return Ok(ChainMatch::default()) };
    let destination_port = message.destination_port.take().map(|number| port(number.value)).transpose()?;
    let application_protocols = take(&mut message.application_protocols).into_iter().map(Into::into).collect();
    let server_names = take(&mut message.server_names)
        .iter()
        .map(|text| {
            let name = ServerName::parse(text);
            name.ok_or_else(|| {
                Refusal::invalid(format!("`{text}` is no server name: a star is for the first label alone"))
            })
        })
        .collect::<Result<_, _>>()
        .at("server_names")?;
    let is_tls = match &*take(&mut message.transport_protocol) {
        "" => None,
        "tls" => Some(true),
        "raw_buffer" => Some(false),
        other => return Err(Refusal::not_in_force(format!("transport_protocol: {other}"))),
    };
    nothing_left(&message)?;
    Ok(ChainMatch { destination_port, server_names, is_tls, application_protocols })
}
