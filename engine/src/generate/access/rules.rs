//! Roles and who has them → policies.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use api::model::{
    AccessRule, AccessSubject, Adapter, Constraint, Enforcement, Host, Model, Node, Pattern, Service, SourceService,
    SubjectTest, Test, is_service,
};
use ipnet::IpNet;

use super::guards::{Guards, Policies, Rules};
use crate::generate::message::quoted;
use crate::proto::{core, extension, matcher, protobuf, rbac as pb, route};

use pb::permission::Rule;
use pb::principal::Identifier;

/// The name under which the claims of verified tokens are kept.
pub(super) const PAYLOAD: &str = "payload";
/// How every identity begins.
const SCHEME: &str = "spiffe://";

/// Adds the roles that are about these services of a workload, where roles are in force.
pub(super) fn add(model: &Model, node: &Node, services: &[&Service], port: Option<NonZeroU16>, guards: &mut Guards) {
    let Some((name, enforcement)) = in_force(model, node, services) else { return };
    for is_http in [true, false] {
        let (enforced, all) = policies(model, node, services, port, is_http);
        let differ = enforced.named.len() != all.named.len();
        let rules = match enforcement {
            Enforcement::Permissive => Rules { enforced: None, shadow: Some(all) },
            Enforcement::Enforced => Rules { enforced: Some(enforced), shadow: differ.then_some(all) },
        };
        guards.add(&name, &rules, is_http);
    }
}

/// What says that roles are in force for these services of a workload, and whether that is on trial; `None` where nothing
/// does. Of two that say it the stricter holds.
fn in_force(model: &Model, node: &Node, services: &[&Service]) -> Option<(String, Enforcement)> {
    let namespace = &node.workload.key.namespace;
    let config = model.access.config().filter(|config| {
        let is_covered = |host: Option<&_>| config.covers(namespace, host);
        hosts(node, services).map_or_else(|| is_covered(None), |mut hosts| hosts.any(|host| is_covered(Some(host))))
    });
    let of_config = config.map(|config| (format!("rbac-config/{}", config.key), config.enforcement));
    if matches!(of_config, Some((_, Enforcement::Enforced))) {
        return of_config;
    }
    let rules = model.access.mixer.rules.values();
    let mut asking = rules.filter(|rule| rule.asks(Adapter::Rbac).next().is_some());
    let rule = asking.find(|rule| selects(rule, node, services));
    rule.map(|rule| (format!("rule/{}", rule.key), Enforcement::Enforced)).or(of_config)
}

/// The services that decide what is in force: what belongs to no service is as open as the workload's services are.
/// `None` where the workload has none.
pub(super) fn hosts<'s>(node: &'s Node, services: &'s [&Service]) -> Option<Box<dyn Iterator<Item = &'s Host> + 's>> {
    match (services, node.services.is_empty()) {
        ([], true) => None,
        ([], false) => Some(Box::new(node.services.iter())),
        (services, _) => Some(Box::new(services.iter().map(|service| &service.host))),
    }
}

/// The policies that count, and these with those on trial.
fn policies(
    model: &Model,
    node: &Node,
    services: &[&Service],
    port: Option<NonZeroU16>,
    is_http: bool,
) -> (Policies, Policies) {
    let (mut enforced, mut all) = (Policies::default(), Policies::default());
    for binding in model.access.bindings.values() {
        let role = api::model::Key { namespace: binding.key.namespace.clone(), name: binding.role.clone() };
        let Some(role) = model.access.roles.get(&role) else { continue };
        let mut of_namespace = services.iter().filter(|service| service.key.namespace == role.key.namespace);
        if of_namespace.next().is_none() {
            continue;
        }
        let principals: Vec<_> =
            binding.subjects.iter().filter_map(|subject| principal(model, subject, is_http)).collect();
        if principals.is_empty() {
            continue;
        }
        for (nth, rule) in role.rules.iter().enumerate() {
            let is_about = |service: &&&Service| {
                service.key.namespace == role.key.namespace && rule.is_about(&service.host, &service.key.name)
            };
            if !services.iter().any(|service| is_about(&service)) || !are_constraints_met(model, node, port, rule) {
                continue;
            }
            let Some(permission) = permission(rule, is_http) else { continue };
            let name = format!("service-role-binding/{}/service-role/{}/rules[{nth}]", binding.key, role.key.name);
            all.add(&name, vec![permission.clone()], principals.clone());
            if binding.enforcement == Enforcement::Enforced {
                enforced.add(&name, vec![permission], principals.clone());
            }
        }
    }
    (enforced, all)
}

/// Whether what a rule says of the workload that is called is so.
fn are_constraints_met(model: &Model, node: &Node, port: Option<NonZeroU16>, rule: &AccessRule) -> bool {
    let workload = &node.workload;
    let any = |patterns: &[Pattern], text: &str| patterns.iter().any(|pattern| pattern.matches(text));
    rule.constraints.iter().all(|constraint| match constraint {
        Constraint::DestinationLabel(name, values) => workload.labels.get(name).is_some_and(|value| any(values, value)),
        Constraint::DestinationIp(networks) => {
            workload.addresses.iter().any(|address| networks.iter().any(|network| network.contains(address)))
        }
        Constraint::DestinationPort(ports) => port.is_some_and(|port| ports.contains(&port)),
        Constraint::DestinationUser(values) => {
            let account = format!("ns/{}/sa/{}", workload.key.namespace, workload.service_account);
            model.mesh.trust_domains().any(|domain| any(values, &format!("{domain}/{account}")))
        }
        // That is asked of each request.
        Constraint::Header(..) => true,
    })
}

/// What may be done, as far as it depends on the request; `None` if a connection cannot do it.
pub(super) fn permission(rule: &AccessRule, is_http: bool) -> Option<pb::Permission> {
    let headers = rule.constraints.iter().filter_map(|constraint| match constraint {
        Constraint::Header(name, values) => Some((name, values)),
        _ => None,
    });
    let is_about_http = !rule.paths.is_empty() || !rule.methods.is_empty() || headers.clone().next().is_some();
    if !is_http && is_about_http {
        return None;
    }
    let of = |rule| pb::Permission { rule: Some(rule) };
    let mut all = Vec::new();
    let path = |pattern: &Pattern| {
        let path = matcher::path_matcher::Rule::Path(text(pattern));
        of(Rule::UrlPath(matcher::PathMatcher { rule: Some(path) }))
    };
    all.extend(any_permission(rule.paths.iter().map(path).collect()));
    all.extend(any_permission(rule.methods.iter().map(|method| of(Rule::Header(header(":method", method)))).collect()));
    for (name, values) in headers {
        all.extend(any_permission(values.iter().map(|value| of(Rule::Header(header(name, value)))).collect()));
    }
    Some(match all.len() {
        0 => anything(),
        1 => all.remove(0),
        _ => of(Rule::AndRules(pb::permission::Set { rules: all })),
    })
}

/// Any permission of several; `None` without one.
fn any_permission(mut rules: Vec<pb::Permission>) -> Option<pb::Permission> {
    match rules.len() {
        0 => None,
        1 => Some(rules.remove(0)),
        _ => Some(pb::Permission { rule: Some(Rule::OrRules(pb::permission::Set { rules })) }),
    }
}

/// Everything may be done.
pub(super) fn anything() -> pb::Permission {
    pb::Permission { rule: Some(Rule::Any(true)) }
}

/// Somebody; `None` if no caller can be that.
pub(super) fn principal(model: &Model, subject: &AccessSubject, is_http: bool) -> Option<pb::Principal> {
    let mut all = Vec::new();
    for test in &subject.tests {
        all.push(match test {
            SubjectTest::Workload(pattern) => {
                any_principal(in_every_domain(model, pattern).iter().map(|pattern| identity(pattern, "")).collect())?
            }
            SubjectTest::SourceNamespace(pattern) => {
                any_principal(model.mesh.trust_domains().map(|domain| namespace(domain, pattern)).collect())?
            }
            SubjectTest::SourceService(service) => any_principal(
                accounts(model, service).into_iter().map(|id| identity(&Pattern::Exact(id), "")).collect(),
            )?,
            SubjectTest::SourceIp(networks) => any_principal(networks.iter().map(from).collect())?,
            _ if !is_http => return None,
            SubjectTest::EndUser(pattern) => end_user(pattern)?,
            SubjectTest::Claim(path, pattern) => claim(path, claim_test(pattern)),
            SubjectTest::Header(name, pattern) => {
                pb::Principal { identifier: Some(Identifier::Header(header(name, pattern))) }
            }
        });
    }
    all_principals(all)
}

fn all_principals(mut ids: Vec<pb::Principal>) -> Option<pb::Principal> {
    Some(match ids.len() {
        0 => pb::Principal { identifier: Some(Identifier::Any(true)) },
        1 => ids.remove(0),
        _ => pb::Principal { identifier: Some(Identifier::AndIds(pb::principal::Set { ids })) },
    })
}

fn any_principal(mut ids: Vec<pb::Principal>) -> Option<pb::Principal> {
    match ids.len() {
        0 => None,
        1 => Some(ids.remove(0)),
        _ => Some(pb::Principal { identifier: Some(Identifier::OrIds(pb::principal::Set { ids })) }),
    }
}

/// A pattern of identities that begins with a name of the mesh's trust domain, with each of its names: they are the same.
fn in_every_domain(model: &Model, pattern: &Pattern) -> Vec<Pattern> {
    let of_domain = |text: &str| {
        let own = model.mesh.trust_domains().find_map(|domain| text.strip_prefix(domain)?.strip_prefix('/'))?;
        Some(model.mesh.trust_domains().map(|domain| format!("{domain}/{own}")).collect::<Vec<_>>())
    };
    let all = match pattern {
        Pattern::Exact(text) => of_domain(text).map(|all| all.into_iter().map(Pattern::Exact).collect()),
        Pattern::Prefix(text) => of_domain(text).map(|all| all.into_iter().map(Pattern::Prefix).collect()),
        Pattern::Any | Pattern::Suffix(_) => None,
    };
    all.unwrap_or_else(|| vec![pattern.clone()])
}

/// An identity by its certificate. Any text is any identity, but there must be one.
fn identity(pattern: &Pattern, before: &str) -> pb::Principal {
    let name = match pattern {
        Pattern::Any => None,
        Pattern::Exact(id) => Some(text(&Pattern::Exact(format!("{SCHEME}{before}{id}")))),
        Pattern::Prefix(id) => Some(text(&Pattern::Prefix(format!("{SCHEME}{before}{id}")))),
        Pattern::Suffix(id) => Some(text(&Pattern::Suffix(id.clone()))),
    };
    let authenticated = pb::principal::Authenticated { principal_name: name };
    pb::Principal { identifier: Some(Identifier::Authenticated(authenticated)) }
}

/// A namespace by the certificate's identity, in the mesh's own trust domain.
fn namespace(domain: &str, pattern: &Pattern) -> pb::Principal {
    let before = format!("{domain}/ns/");
    match pattern {
        Pattern::Any => identity(&Pattern::Prefix(String::new()), &before),
        Pattern::Exact(name) => identity(&Pattern::Prefix(format!("{name}/sa/")), &before),
        // No name of a namespace has a slash, so this does not reach into the account.
        Pattern::Prefix(name) => identity(&Pattern::Prefix(name.clone()), &before),
        Pattern::Suffix(name) => {
            let regex = format!("{SCHEME}{}[^/]*{}/sa/.+", quoted(&before), quoted(name));
            let pattern =
                matcher::string_matcher::MatchPattern::SafeRegex(matcher::RegexMatcher { regex, ..Default::default() });
            let name = matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() };
            let authenticated = pb::principal::Authenticated { principal_name: Some(name) };
            pb::Principal { identifier: Some(Identifier::Authenticated(authenticated)) }
        }
    }
}

/// The accounts of the endpoints of a service, as identities without their scheme.
fn accounts(model: &Model, source: &SourceService) -> BTreeSet<String> {
    let is_short = !source.name.text().contains('.');
    let is_meant = |service: &&std::sync::Arc<Service>| {
        is_service(&source.name, &service.host, &service.key.name)
            && (!is_short || service.key.namespace == source.namespace)
    };
    let endpoints = model.services.values().filter(is_meant).filter_map(|service| model.endpoints.get(&service.host));
    endpoints
        .flat_map(|endpoints| endpoints.iter())
        .map(|endpoint| &endpoint.workload)
        .filter(|workload| !workload.service_account.is_empty())
        .flat_map(|workload| {
            let account = format!("ns/{}/sa/{}", workload.key.namespace, workload.service_account);
            model.mesh.trust_domains().map(move |domain| format!("{domain}/{account}"))
        })
        .collect()
}

fn from(network: &IpNet) -> pb::Principal {
    let range = core::CidrRange {
        address_prefix: network.network().to_string(),
        prefix_len: Some(protobuf::UInt32Value { value: network.prefix_len().into() }),
    };
    pb::Principal { identifier: Some(Identifier::DirectRemoteIp(range)) }
}

/// An end user by `issuer/subject`: wherever the slash between the two may be.
fn end_user(pattern: &Pattern) -> Option<pb::Principal> {
    let iss = |pattern: &Pattern| claim(&["iss".to_owned()], string(pattern));
    let sub = |pattern: &Pattern| match pattern.text() {
        "" => claim(&["sub".to_owned()], present()),
        _ => claim(&["sub".to_owned()], string(pattern)),
    };
    let whole = pattern.text();
    let splits = whole.match_indices('/').map(|(at, _)| (&whole[..at], &whole[at + 1..]));
    let both = |one, other| all_principals(vec![one, other]);
    let mut ways: Vec<pb::Principal> = Vec::new();
    match pattern {
        Pattern::Any => ways.extend(both(claim(&["iss".to_owned()], present()), claim(&["sub".to_owned()], present()))),
        Pattern::Exact(_) => {
            let exact = |text: &str| Pattern::Exact(text.to_owned());
            ways.extend(
                splits
                    .filter(|(_, subject)| !subject.is_empty())
                    .filter_map(|(issuer, subject)| both(iss(&exact(issuer)), sub(&exact(subject)))),
            );
        }
        Pattern::Prefix(_) => {
            ways.extend(both(iss(pattern), sub(&Pattern::Prefix(String::new()))));
            ways.extend(splits.filter_map(|(issuer, subject)| {
                both(iss(&Pattern::Exact(issuer.to_owned())), sub(&Pattern::Prefix(subject.to_owned())))
            }));
        }
        Pattern::Suffix(_) => {
            ways.push(sub(pattern));
            ways.extend(splits.filter(|(_, subject)| !subject.is_empty()).filter_map(|(issuer, subject)| {
                both(iss(&Pattern::Suffix(issuer.to_owned())), sub(&Pattern::Exact(subject.to_owned())))
            }));
        }
    }
    any_principal(ways)
}

/// A claim of a verified token.
fn claim(path: &[String], value: matcher::ValueMatcher) -> pb::Principal {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    let path = std::iter::once(PAYLOAD).chain(path.iter().map(String::as_str));
    let matcher = matcher::MetadataMatcher {
        filter: extension::JWT.0.to_owned(),
        path: path.map(|key| PathSegment { segment: Some(Segment::Key(key.to_owned())) }).collect(),
        value: Some(value),
        ..Default::default()
    };
    let sourced = pb::SourcedMetadata { metadata_matcher: Some(matcher), ..Default::default() };
    pb::Principal { identifier: Some(Identifier::SourcedMetadata(sourced)) }
}

fn value(pattern: matcher::value_matcher::MatchPattern) -> matcher::ValueMatcher {
    matcher::ValueMatcher { match_pattern: Some(pattern) }
}

fn present() -> matcher::ValueMatcher {
    value(matcher::value_matcher::MatchPattern::PresentMatch(true))
}

fn string(pattern: &Pattern) -> matcher::ValueMatcher {
    value(matcher::value_matcher::MatchPattern::StringMatch(text(pattern)))
}

/// A text, or one text of a list.
fn claim_test(pattern: &Pattern) -> matcher::ValueMatcher {
    use matcher::value_matcher::MatchPattern;
    if *pattern == Pattern::Any {
        return present();
    }
    let one_of = matcher::list_matcher::MatchPattern::OneOf(Box::new(string(pattern)));
    let list = value(MatchPattern::ListMatch(Box::new(matcher::ListMatcher { match_pattern: Some(one_of) })));
    value(MatchPattern::OrMatch(matcher::OrMatcher { value_matchers: vec![string(pattern), list] }))
}

fn text(pattern: &Pattern) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    let pattern = match pattern {
        Pattern::Any => MatchPattern::Prefix(String::new()),
        Pattern::Exact(text) => MatchPattern::Exact(text.clone()),
        Pattern::Prefix(text) => MatchPattern::Prefix(text.clone()),
        Pattern::Suffix(text) => MatchPattern::Suffix(text.clone()),
    };
    matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

/// A header, or a part of the head that is called like one.
pub(super) fn header(name: &str, pattern: &Pattern) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier = match pattern {
        Pattern::Any => HeaderMatchSpecifier::PresentMatch(true),
        pattern => HeaderMatchSpecifier::StringMatch(text(pattern)),
    };
    route::HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// Whether a rule is about these services of a workload, as far as that is known before there is a request.
///
/// Where several services share a port, nobody can tell which of them a caller means: the rule is about it if it is about
/// one of them.
pub(super) fn selects(rule: &api::model::Rule, node: &Node, services: &[&Service]) -> bool {
    let workload = &node.workload;
    rule.speaks_for(&workload.key.namespace)
        && rule.tests.iter().all(|test| match test {
            Test::DestinationNamespace(name) => *name == workload.key.namespace,
            Test::DestinationService(wanted) => {
                hosts(node, services).is_some_and(|mut hosts| hosts.any(|host| host == wanted))
            }
            Test::DestinationLabel(name, value) => workload.labels.get(name) == Some(value),
            Test::Caller(_) | Test::Path(_) | Test::Method(_) | Test::Header(..) => true,
        })
}
