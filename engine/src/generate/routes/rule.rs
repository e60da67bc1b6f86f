//! One rule → one `Route`.

use std::num::NonZeroU16;
use std::time::Duration;

use api::model::{
    Action, Condition, Fault, Host, Model, Percent, Protocol, Redirect, Retries, Rewrite, RouteRule, StringMatch,
    Subject, Target,
};
use prost::Message;

use crate::generate::ClusterName;
use crate::generate::message::{any, duration};
use crate::generate::message::{anywhere, quoted};
use crate::generate::wire::{self, Meta};
use crate::proto::{common_fault, extension, fault, matcher, protobuf, route as pb, types};

use pb::route_match::PathSpecifier;

/// How often Envoy draws again when it has drawn an endpoint that was tried already.
const HOST_SELECTIONS: i64 = 5;

/// An encoded `Route`.
pub(in crate::generate) type Encoded = Vec<u8>;

/// The route of a rule on one port of its service, where requests may take so long unless it says otherwise. With an Ingress' path the route is for that path, and the rule's own
/// condition on the path becomes one on `:path`.
pub(in crate::generate) fn of_rule(
    model: &Model,
    rule: &RouteRule,
    (port, timeout): (NonZeroU16, Option<Duration>),
    ingress: Option<&PathSpecifier>,
) -> Encoded {
    let (path, headers) = matches(&rule.conditions, ingress);
    let prefix = uri(&rule.conditions).filter(|_| ingress.is_some()).and_then(|uri| match uri {
        StringMatch::Prefix(prefix) => Some(prefix.as_str()),
        StringMatch::Exact(_) | StringMatch::Regex(_) => None,
    });
    let replaces_match = matches!(path, PathSpecifier::Path(_)) && ingress.is_none()
        || matches!(uri(&rule.conditions), Some(StringMatch::Prefix(_))) && ingress.is_none();
    let action = match &rule.action {
        Action::Redirect(to) => pb::route::Action::Redirect(redirect(to)),
        Action::Route { to, rewrite } => {
            let mut action = forward(model, to, port);
            action.timeout = Some(duration(rule.timeout.or(timeout).unwrap_or_default()));
            action.retry_policy = rule.retries.as_ref().map(retry_policy);
            if let Some(rewrite) = rewrite {
                apply(rewrite, &mut action, replaces_match, prefix);
            }
            pb::route::Action::Route(action)
        }
    };
    let mut route = pb::Route {
        name: format!("route-rule/{}", rule.key),
        r#match: Some(pb::RouteMatch { path_specifier: Some(path), headers, ..Default::default() }),
        action: Some(action),
        ..Default::default()
    };
    if rule.fault != Fault::default() {
        let config = any(extension::FAULT.1, &http_fault(&rule.fault));
        route.typed_per_filter_config.insert(extension::FAULT.0.to_owned(), config);
    }
    let mut bytes = route.encode_to_vec();
    if let Some(location) = &rule.origin.location {
        let origin = [("file", Meta::Text(&location.file)), ("line", Meta::Number(location.line))];
        wire::field(&mut bytes, 4, &wire::mesh_metadata(&origin));
    }
    bytes
}

/// A route that sends everything at a path to one cluster.
pub(in crate::generate) fn to_cluster(
    name: &str,
    path: PathSpecifier,
    cluster: &str,
    timeout: Option<Duration>,
) -> pb::Route {
    pb::Route {
        name: name.to_owned(),
        r#match: Some(pb::RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(pb::route::Action::Route(pb::RouteAction {
            cluster_specifier: Some(pb::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
            timeout: Some(duration(timeout.unwrap_or_default())),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn uri(conditions: &[Condition]) -> Option<&StringMatch> {
    conditions.iter().find(|condition| condition.on == Subject::Uri).map(|condition| &condition.value)
}

fn matches(conditions: &[Condition], ingress: Option<&PathSpecifier>) -> (PathSpecifier, Vec<pb::HeaderMatcher>) {
    let mut path = ingress.cloned();
    let mut headers = Vec::new();
    for condition in conditions {
        let name = match &condition.on {
            Subject::Uri => {
                match (&condition.value, &path) {
                    (StringMatch::Exact(text), None) => path = Some(PathSpecifier::Path(text.clone())),
                    (StringMatch::Prefix(text), None) => path = Some(PathSpecifier::Prefix(text.clone())),
                    (value, _) => headers.push(header(":path", &on_path_with_query(value))),
                }
                continue;
            }
            Subject::Scheme => ":scheme",
            Subject::Method => ":method",
            Subject::Authority => ":authority",
            Subject::Header(name) => name,
        };
        headers.push(header(name, &condition.value));
    }
    (path.unwrap_or_else(anywhere), headers)
}

/// A condition on the path as one on `:path`, which has the query.
fn on_path_with_query(value: &StringMatch) -> StringMatch {
    match value {
        StringMatch::Exact(text) => StringMatch::Regex(format!(r"{}(\?.*)?", quoted(text))),
        StringMatch::Prefix(_) | StringMatch::Regex(_) => value.clone(),
    }
}

fn header(name: &str, value: &StringMatch) -> pb::HeaderMatcher {
    use matcher::string_matcher::MatchPattern;
    let pattern = match value {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text.clone())),
    };
    pb::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(pb::header_matcher::HeaderMatchSpecifier::StringMatch(matcher::StringMatcher {
            match_pattern: Some(pattern),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn forward(model: &Model, to: &[Target], port: NonZeroU16) -> pb::RouteAction {
    use pb::route_action::ClusterSpecifier;
    let name = |target: &Target| {
        let port = port_of(model, &target.host, port);
        ClusterName { host: target.host.clone(), port, labels: target.labels.clone() }.to_string()
    };
    let specifier = match to {
        [only] => ClusterSpecifier::Cluster(name(only)),
        _ => ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
            clusters: to
                .iter()
                .map(|target| pb::weighted_cluster::ClusterWeight {
                    name: name(target),
                    weight: Some(protobuf::UInt32Value { value: target.weight }),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    };
    pb::RouteAction { cluster_specifier: Some(specifier), ..Default::default() }
}

/// The port of another service that a request to `port` goes to: the same number, else its first.
fn port_of(model: &Model, host: &Host, port: NonZeroU16) -> NonZeroU16 {
    let Some(service) = model.services.get(host) else { return port };
    let mut ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp).map(|port| port.number);
    if ports.clone().any(|number| number == port) { port } else { ports.next().unwrap_or(port) }
}

/// Adds a rewrite. The path match's own match is replaced if it stands for the rule's condition, else `prefix` or all.
fn apply(rewrite: &Rewrite, action: &mut pb::RouteAction, replaces_match: bool, prefix: Option<&str>) {
    if let Some(authority) = &rewrite.authority {
        action.host_rewrite_specifier =
            Some(pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(authority.clone()));
    }
    let Some(uri) = &rewrite.uri else { return };
    if replaces_match {
        action.prefix_rewrite = uri.clone();
        return;
    }
    let pattern = prefix.map_or_else(|| "^.*$".to_owned(), |prefix| format!("^{}", quoted(prefix)));
    action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        substitution: uri.replace('\\', r"\\"),
    });
}

/// What the classic rules retry: everything that the endpoint failed, at another endpoint if there is one.
fn retry_policy(retries: &Retries) -> pb::RetryPolicy {
    use pb::retry_policy::{RetryHostPredicate, retry_host_predicate::ConfigType};
    let (name, type_url) = extension::PREVIOUS_HOSTS;
    let other_host = protobuf::Any { type_url: type_url.to_owned(), value: Vec::new() };
    pb::RetryPolicy {
        retry_on: "5xx,connect-failure,refused-stream".to_owned(),
        num_retries: Some(protobuf::UInt32Value { value: retries.attempts.get() }),
        per_try_timeout: retries.per_try_timeout.map(duration),
        retry_host_predicate: vec![RetryHostPredicate {
            name: name.to_owned(),
            config_type: Some(ConfigType::TypedConfig(other_host)),
        }],
        host_selection_retry_max_attempts: HOST_SELECTIONS,
        ..Default::default()
    }
}

fn redirect(to: &Redirect) -> pb::RedirectAction {
    pb::RedirectAction {
        host_redirect: to.authority.clone().unwrap_or_default(),
        path_rewrite_specifier: to.uri.clone().map(pb::redirect_action::PathRewriteSpecifier::PathRedirect),
        response_code: pb::redirect_action::RedirectResponseCode::Found.into(),
        ..Default::default()
    }
}

fn http_fault(from: &Fault) -> fault::HttpFault {
    fault::HttpFault {
        delay: from.delay.as_ref().map(|delay| common_fault::FaultDelay {
            percentage: Some(share(delay.percent)),
            fault_delay_secifier: Some(common_fault::fault_delay::FaultDelaySecifier::FixedDelay(duration(
                delay.fixed,
            ))),
        }),
        abort: from.abort.as_ref().map(|abort| fault::FaultAbort {
            percentage: Some(share(abort.percent)),
            error_type: Some(fault::fault_abort::ErrorType::HttpStatus(abort.status.into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn share(percent: Percent) -> types::FractionalPercent {
    types::FractionalPercent {
        numerator: percent.millionths,
        denominator: types::fractional_percent::DenominatorType::Million.into(),
    }
}

fn regex(pattern: String) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: pattern, ..Default::default() }
}
