//! What a `Route` does → action.

#![expect(deprecated, reason = "`total_weight` is deprecated, but a wrong one must still be refused")]

use std::mem::take;
use std::time::Duration;

use super::fault::http_status;
use super::retry;
use super::route_match::substitution;
use super::strict::{At, Refusal, duration, nothing_left, port};
use crate::proto::{core, protobuf, route as pb};
use crate::tables::{Action, Direct, Forward, HostRewrite, Name, PathRewrite, Redirect, RedirectPath, WeightedCluster};

use pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use pb::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier};

/// How long a request may take unless the route says otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles an action.
pub(super) fn compile(action: pb::route::Action) -> Result<Action, Refusal> {
    match action {
        pb::route::Action::Route(message) => forward(message).at("route").map(Action::Forward),
        pb::route::Action::Redirect(message) => redirect(message).at("redirect").map(Action::Redirect),
        pb::route::Action::DirectResponse(message) => direct(message).at("direct_response").map(Action::Direct),
        pb::route::Action::FilterAction(_) => Err(Refusal::not_in_force("filter_action")),
        pb::route::Action::NonForwardingAction(_) => Err(Refusal::not_in_force("non_forwarding_action")),
    }
}

fn forward(mut message: pb::RouteAction) -> Result<Forward, Refusal> {
    let clusters = match message.cluster_specifier.take() {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => {
            vec![WeightedCluster { name: Name::new(&name), weight: 1 }]
        }
        Some(ClusterSpecifier::WeightedClusters(message)) => weighted(message).at("weighted_clusters")?,
        Some(ClusterSpecifier::Cluster(_)) | None => return Err(Refusal::invalid("the route has no cluster")),
        Some(ClusterSpecifier::ClusterHeader(_)) => return Err(Refusal::not_in_force("cluster_header")),
        Some(_) => return Err(Refusal::not_in_force("cluster_specifier_plugin")),
    };
    let total_weight = total(clusters.iter().map(|cluster| cluster.weight))?;
    let timeout = duration(message.timeout.take()).at("timeout")?.unwrap_or(TIMEOUT);
    let retry = message.retry_policy.take().map(retry::compile).transpose().at("retry_policy")?.flatten();
    let path = path_rewrite(&mut message)?;
    let host = match message.host_rewrite_specifier.take() {
        None => HostRewrite::Keep,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => HostRewrite::Literal(host.into()),
        Some(_) => return Err(Refusal::not_in_force("host_rewrite_specifier")),
    };
    let cluster_not_found =
        match ClusterNotFoundResponseCode::try_from(take(&mut message.cluster_not_found_response_code)) {
            Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => 503,
            Ok(ClusterNotFoundResponseCode::NotFound) => 404,
            Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
            Err(error) => return Err(Refusal::invalid(format!("cluster_not_found_response_code: {error}"))),
        };
    nothing_left(&message)?;
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    Ok(Forward { clusters, total_weight, timeout, retry: retry.map(Box::new), path, host, cluster_not_found })
}

fn path_rewrite(message: &mut pb::RouteAction) -> Result<PathRewrite, Refusal> {
    let prefix = take(&mut message.prefix_rewrite);
    match (prefix.as_str(), message.regex_rewrite.take()) {
        ("", None) => Ok(PathRewrite::Keep),
        (_, None) => Ok(PathRewrite::Prefix(prefix.into())),
        ("", Some(rewrite)) => {
            let pattern = rewrite.pattern.ok_or_else(|| Refusal::invalid("`regex_rewrite` has no pattern"))?;
            let regex = substitution(&pattern).at("regex_rewrite")?;
            Ok(PathRewrite::Regex(Box::new(regex), rewrite.substitution.into()))
        }
        (_, Some(_)) => Err(Refusal::invalid("`prefix_rewrite` and `regex_rewrite` exclude each other")),
    }
}

fn weighted(mut message: pb::WeightedCluster) -> Result<Vec<WeightedCluster>, Refusal> {
    let clusters = take(&mut message.clusters)
        .into_iter()
        .enumerate()
        .map(|(nth, cluster)| one(cluster).at_nth("clusters", nth))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(protobuf::UInt32Value { value }) = message.total_weight.take() {
        let sum = total(clusters.iter().map(|cluster| cluster.weight))?;
        if value != sum {
            return Err(Refusal::invalid(format!("the weights add up to {sum}, not {value}")));
        }
    }
    nothing_left(&message)?;
    Ok(clusters)
}

fn one(mut message: pb::weighted_cluster::ClusterWeight) -> Result<WeightedCluster, Refusal> {
    let name = take(&mut message.name);
    if name.is_empty() {
        return Err(Refusal::invalid("the cluster has no name"));
    }
    let weight = message.weight.take().map_or(0, |weight| weight.value);
    nothing_left(&message)?;
    Ok(WeightedCluster { name: Name::new(&name), weight })
}

/// The sum of weights: at least 1, and a number of 32 bits.
pub(super) fn total(weights: impl Iterator<Item = u32>) -> Result<u32, Refusal> {
    let sum = weights.map(u64::from).sum::<u64>();
    u32::try_from(sum)
        .ok()
        .filter(|sum| *sum > 0)
        .ok_or_else(|| Refusal::invalid(format!("the weights add up to {sum}, which is nothing or too much")))
}

fn redirect(mut message: pb::RedirectAction) -> Result<Redirect, Refusal> {
    let status = match RedirectResponseCode::try_from(take(&mut message.response_code)) {
        Ok(RedirectResponseCode::MovedPermanently) => 301,
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        Err(error) => return Err(Refusal::invalid(format!("response_code: {error}"))),
    };
    let host = take(&mut message.host_redirect);
    let number = port(take(&mut message.port_redirect))?;
    let scheme: Option<Box<str>> = match message.scheme_rewrite_specifier.take() {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.into()),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let path = match message.path_rewrite_specifier.take() {
        None => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => RedirectPath::Whole(path.into()),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => RedirectPath::Prefix(prefix.into()),
        Some(_) => return Err(Refusal::not_in_force("path_rewrite_specifier")),
    };
    let strip_query = take(&mut message.strip_query);
    nothing_left(&message)?;
    Ok(Redirect {
        status,
        scheme,
        host: Some(host).filter(|host| !host.is_empty()).map(Into::into),
        port: Some(number).filter(|number| *number != 0),
        path,
        strip_query,
    })
}

fn direct(mut message: pb::DirectResponseAction) -> Result<Direct, Refusal> {
    use core::data_source::Specifier;
    let status = http_status(take(&mut message.status)).at("status")?;
    let mut source = message.body.take().unwrap_or_default();
    let body = match source.specifier.take() {
        None => Vec::new(),
        Some(Specifier::InlineString(text)) => text.into_bytes(),
        Some(Specifier::InlineBytes(bytes)) => bytes,
        Some(_) => return Err(Refusal::not_in_force("any body but inline_string and inline_bytes")),
    };
    nothing_left(&source).at("body")?;
    nothing_left(&message)?;
    Ok(Direct { status, body: body.into() })
}
