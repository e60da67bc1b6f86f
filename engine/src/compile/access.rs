//! `RBAC` filters, of HTTP and of connections alike → rules of who is let in.

#![expect(deprecated, reason = "other control planes still write `metadata`, and Envoy still reads it")]

use std::mem::take;

use ipnet::IpNet;

use super::route_match::{header, text};
use super::strict::{At, Refusal, nothing_left, port, typed};
use crate::proto::{core, extension, http_rbac, matcher, network_rbac, protobuf, rbac as pb};
use crate::tables::{AccessPolicy, Check, ClaimTest, Rbac, Rules};

use matcher::value_matcher::MatchPattern;
use pb::permission::Rule;
use pb::principal::Identifier;

/// Deepest nesting of rules.
const MAX_DEPTH: usize = 16;

/// Compiles the filter of requests; its name is that of the rules.
pub(super) fn http(name: &str, any: &protobuf::Any) -> Result<Rbac, Refusal> {
    let mut message: http_rbac::Rbac = typed(any, extension::RBAC.1)?;
    // Prefixes of counters change nothing.
    message.rules_stat_prefix.clear();
    message.shadow_rules_stat_prefix.clear();
    let rbac = compile(name, message.rules.take(), message.shadow_rules.take())?;
    nothing_left(&message)?;
    Ok(rbac)
}

/// Compiles the filter of connections.
pub(super) fn network(name: &str, any: &protobuf::Any) -> Result<Rbac, Refusal> {
    let mut message: network_rbac::Rbac = typed(any, extension::NETWORK_RBAC.1)?;
    message.stat_prefix.clear();
    message.shadow_rules_stat_prefix.clear();
    let rbac = compile(name, message.rules.take(), message.shadow_rules.take())?;
    // Asked once, before anything is passed on: that is what the default promises, and sooner.
    nothing_left(&message)?;
    Ok(rbac)
}

fn compile(name: &str, enforced: Option<pb::Rbac>, shadow: Option<pb::Rbac>) -> Result<Rbac, Refusal> {
    if enforced.is_none() && shadow.is_none() {
        return Err(Refusal::invalid("there are neither `rules` nor `shadow_rules`"));
    }
    Ok(Rbac {
        name: name.into(),
        rules: enforced.map(rules).transpose().at("rules")?,
        shadow: shadow.map(rules).transpose().at("shadow_rules")?,
    })
}

fn rules(mut message: pb::Rbac) -> Result<Rules, Refusal> {
    let allows = match pb::rbac::Action::try_from(take(&mut message.action)) {
        Ok(pb::rbac::Action::Allow) => true,
        Ok(pb::rbac::Action::Deny) => false,
        Ok(pb::rbac::Action::Log) => return Err(Refusal::not_in_force("action: LOG")),
        Err(error) => return Err(Refusal::invalid(format!("action: {error}"))),
    };
    let mut policies = take(&mut message.policies)
        .into_iter()
        .map(|(name, message)| policy(&name, message).at(&format!("policies[{name}]")))
        .collect::<Result<Vec<_>, _>>()?;
    // As in Envoy they are asked in the order of their names.
    policies.sort_by(|one, other| one.name.cmp(&other.name));
    nothing_left(&message)?;
    Ok(Rules { allows, policies })
}

fn policy(name: &str, mut message: pb::Policy) -> Result<AccessPolicy, Refusal> {
    let all = |nth, check: Result<Check, Refusal>, field| check.at_nth(field, nth);
    let permissions = take(&mut message.permissions).into_iter().enumerate();
    let permissions =
        permissions.map(|(nth, p)| all(nth, permission(p, 0), "permissions")).collect::<Result<Vec<_>, _>>()?;
    let principals = take(&mut message.principals).into_iter().enumerate();
    let principals =
        principals.map(|(nth, p)| all(nth, principal(p, 0), "principals")).collect::<Result<Vec<_>, _>>()?;
    nothing_left(&message)?;
    if permissions.is_empty() || principals.is_empty() {
        return Err(Refusal::invalid("a policy has permissions and principals"));
    }
    Ok(AccessPolicy { name: name.into(), permissions, principals })
}

fn deeper(depth: usize) -> Result<usize, Refusal> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Refusal::invalid(format!("nested deeper than {MAX_DEPTH}"))) }
}

fn permission(message: pb::Permission, depth: usize) -> Result<Check, Refusal> {
    let depth = deeper(depth)?;
    let set = |set: pb::permission::Set| {
        let rules = set.rules.into_iter().map(|rule| permission(rule, depth)).collect::<Result<Vec<_>, _>>()?;
        not_empty(rules)
    };
    match message.rule {
        None => Err(Refusal::invalid("the permission is empty")),
        Some(Rule::AndRules(rules)) => set(rules).at("and_rules").map(Check::All),
        Some(Rule::OrRules(rules)) => set(rules).at("or_rules").map(Check::Any),
        Some(Rule::Any(any)) => always(any),
        Some(Rule::NotRule(rule)) => Ok(Check::Not(Box::new(permission(*rule, depth).at("not_rule")?))),
        Some(Rule::Header(message)) => header(message).at("header").map(Check::Header),
        Some(Rule::UrlPath(message)) => path(message).at("url_path"),
        Some(Rule::DestinationIp(range)) => network_of(&range).at("destination_ip").map(Check::Destination),
        Some(Rule::DestinationPort(number)) => {
            let number = u32::from(port(number).at("destination_port")?);
            Ok(Check::DestinationPort(number..number + 1))
        }
        Some(Rule::DestinationPortRange(range)) => {
            let end = |number: i32| u32::try_from(number).map_err(|_| Refusal::invalid("a port is negative"));
            Ok(Check::DestinationPort(end(range.start)?..end(range.end)?))
        }
        Some(Rule::Metadata(message)) => claim(message).at("metadata"),
        Some(Rule::SourcedMetadata(message)) => sourced(message).at("sourced_metadata"),
        Some(Rule::RequestedServerName(_)) => Err(Refusal::not_in_force("requested_server_name")),
        Some(Rule::Matcher(_)) => Err(Refusal::not_in_force("matcher")),
        Some(Rule::UriTemplate(_)) => Err(Refusal::not_in_force("uri_template")),
    }
}

fn principal(message: pb::Principal, depth: usize) -> Result<Check, Refusal> {
    let depth = deeper(depth)?;
    let set = |set: pb::principal::Set| {
        let ids = set.ids.into_iter().map(|id| principal(id, depth)).collect::<Result<Vec<_>, _>>()?;
        not_empty(ids)
    };
    match message.identifier {
        None => Err(Refusal::invalid("the principal is empty")),
        Some(Identifier::AndIds(ids)) => set(ids).at("and_ids").map(Check::All),
        Some(Identifier::OrIds(ids)) => set(ids).at("or_ids").map(Check::Any),
        Some(Identifier::Any(any)) => always(any),
        Some(Identifier::NotId(id)) => Ok(Check::Not(Box::new(principal(*id, depth).at("not_id")?))),
        Some(Identifier::Authenticated(mut message)) => {
            let name = message.principal_name.take().map(text).transpose().at("authenticated.principal_name")?;
            nothing_left(&message).at("authenticated")?;
            Ok(Check::Identity(name))
        }
        Some(Identifier::DirectRemoteIp(range)) => network_of(&range).at("direct_remote_ip").map(Check::Source),
        Some(Identifier::Header(message)) => header(message).at("header").map(Check::Header),
        Some(Identifier::UrlPath(message)) => path(message).at("url_path"),
        Some(Identifier::Metadata(message)) => claim(message).at("metadata"),
        Some(Identifier::SourcedMetadata(message)) => sourced(message).at("sourced_metadata"),
        // These look at what the request says of itself.
        Some(Identifier::SourceIp(_)) => Err(Refusal::not_in_force("source_ip")),
        Some(Identifier::RemoteIp(_)) => Err(Refusal::not_in_force("remote_ip")),
        Some(Identifier::FilterState(_)) => Err(Refusal::not_in_force("filter_state")),
        Some(Identifier::Custom(_)) => Err(Refusal::not_in_force("custom")),
    }
}

fn not_empty(checks: Vec<Check>) -> Result<Vec<Check>, Refusal> {
    if checks.is_empty() { Err(Refusal::invalid("the list is empty")) } else { Ok(checks) }
}

fn always(any: bool) -> Result<Check, Refusal> {
    // Envoy refuses `false` too.
    if any { Ok(Check::Always(true)) } else { Err(Refusal::invalid("`any` must be true")) }
}

fn path(message: matcher::PathMatcher) -> Result<Check, Refusal> {
    match message.rule {
        Some(matcher::path_matcher::Rule::Path(message)) => text(message).map(Check::Path),
        None => Err(Refusal::invalid("nothing is said about the path")),
    }
}

fn network_of(range: &core::CidrRange) -> Result<IpNet, Refusal> {
    let invalid = || Refusal::invalid(format!("`{}` is no network", range.address_prefix));
    let address: std::net::IpAddr = range.address_prefix.parse().map_err(|_| invalid())?;
    let length = range.prefix_len.map_or(0, |length| length.value);
    let network = IpNet::new(address, u8::try_from(length).map_err(|_| invalid())?).map_err(|_| invalid())?;
    Ok(network.trunc())
}

fn sourced(mut message: pb::SourcedMetadata) -> Result<Check, Refusal> {
    let matcher = message.metadata_matcher.take().ok_or_else(|| Refusal::invalid("`metadata_matcher` is missing"))?;
    // What is left is the source, which is the request's own metadata by default.
    nothing_left(&message)?;
    claim(matcher)
}

/// Metadata are the claims of verified tokens, and nothing else.
fn claim(mut message: matcher::MetadataMatcher) -> Result<Check, Refusal> {
    let filter = take(&mut message.filter);
    if filter != extension::JWT.0 {
        return Err(Refusal::not_in_force(format!("metadata of `{filter}`")));
    }
    let mut path = take(&mut message.path).into_iter().map(|segment| match segment.segment {
        Some(matcher::metadata_matcher::path_segment::Segment::Key(key)) => Ok(Box::from(key)),
        None => Err(Refusal::invalid("a part of the path is empty")),
    });
    let key: Box<str> = path.next().ok_or_else(|| Refusal::invalid("the path is empty"))??;
    let path = path.collect::<Result<Vec<_>, _>>()?;
    let value = message.value.take().ok_or_else(|| Refusal::invalid("the value is missing"))?;
    let test = value_test(value, 0).at("value")?;
    let invert = take(&mut message.invert);
    nothing_left(&message)?;
    let check = Check::Claim { key, path, test };
    Ok(if invert { Check::Not(Box::new(check)) } else { check })
}

fn value_test(message: matcher::ValueMatcher, depth: usize) -> Result<ClaimTest, Refusal> {
    let depth = deeper(depth)?;
    match message.match_pattern {
        Some(MatchPattern::StringMatch(message)) => text(message).map(ClaimTest::Text),
        Some(MatchPattern::PresentMatch(true)) => Ok(ClaimTest::Present),
        Some(MatchPattern::ListMatch(message)) => match message.match_pattern {
            Some(matcher::list_matcher::MatchPattern::OneOf(message)) => {
                value_test(*message, depth).map(|test| ClaimTest::OneOf(Box::new(test)))
            }
            None => Err(Refusal::invalid("nothing is said about the list")),
        },
        Some(MatchPattern::OrMatch(message)) => {
            let tests = message.value_matchers.into_iter().map(|message| value_test(message, depth));
            tests.collect::<Result<Vec<_>, _>>().map(ClaimTest::Or)
        }
        Some(MatchPattern::PresentMatch(false)) => Err(Refusal::not_in_force("present_match: false")),
        Some(MatchPattern::NullMatch(_)) => Err(Refusal::not_in_force("null_match")),
        Some(MatchPattern::DoubleMatch(_)) => Err(Refusal::not_in_force("double_match")),
        Some(MatchPattern::BoolMatch(_)) => Err(Refusal::not_in_force("bool_match")),
        None => Err(Refusal::invalid("nothing is said about the value")),
    }
}
