//! Which rules and policies are about a service, for whom, and in which order.

use std::cmp::Reverse;
use std::sync::Arc;

use api::model::{DestinationPolicy, Host, Labels, Model, Node, RouteRule, Source};

/// Rules about a service that apply to a node's requests, in the order in which they are asked.
///
/// What comes after a rule without conditions on the request can never be reached and is left out.
#[must_use]
pub fn rules_for<'m>(model: &'m Model, host: &Host, node: &Node) -> Vec<&'m Arc<RouteRule>> {
    let mut rules = in_order(model, host);
    rules.retain(|rule| rule.source.as_ref().is_none_or(|source| is_from(source, node)));
    let catch_all = rules.iter().position(|rule| rule.conditions.is_empty());
    rules.truncate(catch_all.map_or(rules.len(), |at| at + 1));
    rules
}

/// All rules about a service in the order in which they are asked: precedence descending, those with conditions before
/// those without, then by namespace and name.
#[must_use]
pub fn in_order<'m>(model: &'m Model, host: &Host) -> Vec<&'m Arc<RouteRule>> {
    let mut rules: Vec<_> = model.route_rules.about(host).iter().collect();
    rules.sort_by_key(|rule| {
        let is_conditional = rule.source.is_some() || !rule.conditions.is_empty();
        (Reverse(rule.precedence), Reverse(is_conditional), &rule.key)
    });
    rules
}

/// The policy for the cluster of these labels, as a node's requests see it.
///
/// A policy for exactly these labels goes before one for the service as a whole, then one with a source before one
/// without, then the smaller namespace and name.
pub(super) fn policy_for<'m>(
    model: &'m Model,
    host: &Host,
    labels: &Labels,
    node: &Node,
) -> Option<&'m Arc<DestinationPolicy>> {
    model
        .destination_policies
        .about(host)
        .iter()
        .filter(|policy| policy.labels.is_empty() || policy.labels == *labels)
        .filter(|policy| policy.source.as_ref().is_none_or(|source| is_from(source, node)))
        .min_by_key(|policy| (policy.labels.is_empty(), policy.source.is_none(), &policy.key))
}

/// Whether a node's requests are from a source.
fn is_from(source: &Source, node: &Node) -> bool {
    source.service.as_ref().is_none_or(|service| node.services.contains(service))
        && source.labels.iter().all(|(key, value)| node.workload.labels.get(key) == Some(value))
}

/// Whether the rules about a service differ by who asks.
pub(super) fn depends_on_source(model: &Model, host: &Host) -> bool {
    model.route_rules.about(host).iter().any(|rule| rule.source.is_some())
}

/// Whether any rule differs by who asks.
pub(super) fn any_depends_on_source(model: &Model) -> bool {
    model.route_rules.values().any(|rule| rule.source.is_some())
}
