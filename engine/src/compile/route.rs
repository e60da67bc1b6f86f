//! `RouteConfiguration` → its table.

use std::mem::take;

use super::fault::per_filter;
use super::strict::{At, Refusal, decode, named, nothing_left};
use super::{route_action, route_match};
use crate::decide::index::{DomainIndex, RouteIndex};
use crate::proto::{core, protobuf, route as pb};
use crate::tables::{Domain, Name, Origin, Route, RouteTable, VirtualHost};

/// Compiles a route configuration that came by RDS.
pub(super) fn compile(name: &str, body: &[u8]) -> Result<RouteTable, Refusal> {
    let message: pb::RouteConfiguration = decode(body)?;
    named(name, &message.name)?;
    table(message)
}

/// Compiles a route configuration.
pub(super) fn table(mut message: pb::RouteConfiguration) -> Result<RouteTable, Refusal> {
    let name = Name::new(&take(&mut message.name));
    let virtual_hosts = take(&mut message.virtual_hosts)
        .into_iter()
        .enumerate()
        .map(|(nth, host)| virtual_host(host).at_nth("virtual_hosts", nth))
        .collect::<Result<Vec<_>, _>>()?;
    let ignore_port = take(&mut message.ignore_port_in_host_matching);
    if message.validate_clusters == Some(protobuf::BoolValue { value: false }) {
        message.validate_clusters = None;
    }
    nothing_left(&message)?;
    let domains = DomainIndex::new(virtual_hosts.iter().map(|host| host.domains.as_slice()))
        .map_err(|clash| Refusal::invalid(format!("the domain `{}` is claimed twice", clash.domain)))?;
    Ok(RouteTable { name, virtual_hosts, ignore_port, domains })
}

fn virtual_host(mut message: pb::VirtualHost) -> Result<VirtualHost, Refusal> {
    let name = take(&mut message.name);
    if name.is_empty() {
        return Err(Refusal::invalid("the virtual host has no name"));
    }
    let domains = take(&mut message.domains).iter().map(|text| domain(text)).collect::<Result<Vec<_>, _>>()?;
    if domains.is_empty() {
        return Err(Refusal::invalid("the virtual host has no domains"));
    }
    let fault = per_filter(&mut message.typed_per_filter_config)?;
    let routes = take(&mut message.routes)
        .into_iter()
        .enumerate()
        .map(|(nth, message)| route(message).at_nth("routes", nth))
        .collect::<Result<Vec<_>, _>>()?;
    nothing_left(&message)?;
    let index = RouteIndex::new(&routes);
    Ok(VirtualHost { name: name.into(), domains, routes, fault, index })
}

fn domain(text: &str) -> Result<Domain, Refusal> {
    let lower = text.to_ascii_lowercase();
    let domain = match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
        (Some(""), _) => Domain::Any,
        (Some(end), None) => Domain::Suffix(end.into()),
        (None, Some(start)) => Domain::Prefix(start.into()),
        (None, None) => Domain::Exact(lower.as_str().into()),
        (Some(_), Some(_)) => return Err(Refusal::invalid(format!("the domain `{text}` has two stars"))),
    };
    match &domain {
        Domain::Exact(part) if part.is_empty() => Err(Refusal::invalid("a domain is empty")),
        Domain::Exact(part) | Domain::Suffix(part) | Domain::Prefix(part) if part.contains('*') => {
            Err(Refusal::invalid(format!("the domain `{text}` has a star in the middle")))
        }
        _ => Ok(domain),
    }
}

fn route(mut message: pb::Route) -> Result<Route, Refusal> {
    let name = take(&mut message.name);
    let matches = message.r#match.take().ok_or_else(|| Refusal::invalid("the route has no match"))?;
    let (path, headers, fraction) = route_match::compile(matches).at("match")?;
    let origin = message.metadata.take().and_then(|metadata| origin(&metadata));
    let fault = per_filter(&mut message.typed_per_filter_config)?;
    let action = message.action.take().ok_or_else(|| Refusal::invalid("the route has no action"))?;
    let action = route_action::compile(action)?;
    nothing_left(&message)?;
    Ok(Route { name: name.into(), origin, path, headers, fraction, fault, action })
}

fn origin(metadata: &core::Metadata) -> Option<Origin> {
    use protobuf::value::Kind;
    let line = metadata.filter_metadata.get("mesh")?.fields.get("line")?.kind.as_ref();
    let file = super::endpoints::mesh_text(metadata, "file");
    match line {
        Some(Kind::NumberValue(line)) if !file.is_empty() && (0.0..=f64::from(u32::MAX)).contains(line) => {
            Some(Origin { file, line: *line as u32 })
        }
        _ => None,
    }
}
