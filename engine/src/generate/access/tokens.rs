//! Tokens of end users → the filter that verifies them.
//!
//! Where an issuer's keys are not known, its tokens let nobody in: there is no default key, and no key is no access.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::model::{AuthenticationPolicy, Jwt, KeySource, Model, Pattern};
use prost::Message;

use super::guards::{Guards, Policies, Rules};
use super::rules::{PAYLOAD, anything, header};
use crate::generate::{message, wire};
use crate::proto::{core, extension, jwt_authn as pb, protobuf, rbac, route};
use crate::token::KeySet;

use pb::jwt_requirement::RequiresType;

/// Adds what policies ask for. `is_auto` says that what is not HTTP is told by the first bytes, so that it must not be a
/// way around the tokens.
pub(super) fn add(model: &Model, policies: &[&Arc<AuthenticationPolicy>], is_auto: bool, guards: &mut Guards) {
    let mut providers: BTreeMap<String, pb::JwtProvider> = BTreeMap::new();
    let mut needs = Vec::new();
    for policy in policies {
        let name = format!("authentication-policy/{}", policy.key);
        let mut of_policy = Vec::new();
        let mut keyless = Vec::new();
        for (nth, jwt) in policy.origins.iter().flatten().enumerate() {
            match keys(model, jwt) {
                Some(keys) => {
                    let name = format!("{name}/origins[{nth}]");
                    of_policy.push(RequiresType::ProviderName(name.clone()));
                    providers.insert(name, provider(jwt, keys));
                }
                None => keyless.push(jwt),
            }
        }
        if policy.origin_is_optional {
            // A token that cannot be verified must not be passed on as if it had been.
            if !keyless.is_empty() {
                guards.add(&format!("{name}/no-keys"), &without_tokens(&keyless), true);
            }
            if !of_policy.is_empty() {
                of_policy.push(RequiresType::AllowMissing(protobuf::Empty {}));
            }
        } else if of_policy.is_empty() {
            guards.add(&format!("{name}/no-keys"), &nobody(), true);
        }
        if is_auto && !policy.origin_is_optional {
            guards.add(&format!("{name}/no-token"), &nobody(), false);
        }
        needs.extend(any(of_policy));
    }
    let Some(need) = all(needs) else { return };
    let rule = pb::RequirementRule {
        r#match: Some(route::RouteMatch { path_specifier: Some(message::anywhere()), ..Default::default() }),
        requirement_type: Some(pb::requirement_rule::RequirementType::Requires(need)),
    };
    let mut body = Vec::new();
    for (name, provider) in &providers {
        let mut entry = Vec::new();
        wire::field(&mut entry, 1, name.as_bytes());
        wire::field(&mut entry, 2, &provider.encode_to_vec());
        wire::field(&mut body, 1, &entry);
    }
    wire::field(&mut body, 2, &rule.encode_to_vec());
    // Tokens are verified before any rule is asked.
    guards.http.insert(0, super::guards::http_filter(extension::JWT.0, extension::JWT.1, body));
}

/// Keys of an issuer that can be used.
fn keys<'m>(model: &'m Model, jwt: &'m Jwt) -> Option<&'m str> {
    let text = match &jwt.keys {
        KeySource::Inline(text) => text.as_str(),
        KeySource::Uri(uri) => model.access.key_sets.get(uri)?,
    };
    KeySet::parse(text.as_bytes()).is_ok().then_some(text)
}

fn provider(jwt: &Jwt, keys: &str) -> pb::JwtProvider {
    let is_default = jwt.headers.is_empty() && jwt.params.is_empty() && jwt.cookies.is_empty();
    let (headers, params) = if is_default {
        (vec![bearer()], vec!["access_token".to_owned()])
    } else {
        let named = |name: &String| match name.as_str() {
            "authorization" => bearer(),
            name => pb::JwtHeader { name: name.to_owned(), value_prefix: String::new() },
        };
        (jwt.headers.iter().map(named).collect(), jwt.params.clone())
    };
    let source = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(keys.to_owned())),
        ..Default::default()
    };
    pb::JwtProvider {
        issuer: jwt.issuer.clone(),
        audiences: jwt.audiences.clone(),
        require_expiration: true,
        forward: jwt.forward,
        from_headers: headers,
        from_params: params,
        from_cookies: jwt.cookies.clone(),
        forward_payload_header: jwt.payload_header.clone().unwrap_or_default(),
        payload_in_metadata: PAYLOAD.to_owned(),
        claim_to_headers: jwt
            .claim_headers
            .iter()
            .map(|(header, claim)| pb::JwtClaimToHeader {
                header_name: header.clone(),
                claim_name: claim.clone(),
                ..Default::default()
            })
            .collect(),
        jwks_source_specifier: Some(pb::jwt_provider::JwksSourceSpecifier::LocalJwks(source)),
        ..Default::default()
    }
}

fn bearer() -> pb::JwtHeader {
    pb::JwtHeader { name: "authorization".to_owned(), value_prefix: "Bearer ".to_owned() }
}

fn any(mut needs: Vec<RequiresType>) -> Option<RequiresType> {
    match needs.len() {
        0 => None,
        1 => needs.pop(),
        _ => Some(RequiresType::RequiresAny(pb::JwtRequirementOrList { requirements: requirements(needs) })),
    }
}

fn all(mut needs: Vec<RequiresType>) -> Option<pb::JwtRequirement> {
    let requires_type = match needs.len() {
        0 => return None,
        1 => needs.pop(),
        _ => Some(RequiresType::RequiresAll(pb::JwtRequirementAndList { requirements: requirements(needs) })),
    };
    Some(pb::JwtRequirement { requires_type })
}

fn requirements(needs: Vec<RequiresType>) -> Vec<pb::JwtRequirement> {
    needs.into_iter().map(|need| pb::JwtRequirement { requires_type: Some(need) }).collect()
}

/// Rules that let nobody in.
fn nobody() -> Rules {
    Rules { enforced: Some(Policies::default()), shadow: None }
}

/// Rules that let in who shows no token of these.
fn without_tokens(jwts: &[&Jwt]) -> Rules {
    let mut shown = Vec::new();
    for jwt in jwts {
        let provider = provider(jwt, "");
        for header_of in &provider.from_headers {
            shown.push(match header_of.value_prefix.as_str() {
                "" => header(&header_of.name, &Pattern::Any),
                prefix => {
                    let mut begins = header(&header_of.name, &Pattern::Prefix(prefix.to_owned()));
                    // Names of schemes are compared without regard to case.
                    if let Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(text)) =
                        &mut begins.header_match_specifier
                    {
                        text.ignore_case = true;
                    }
                    begins
                }
            });
        }
        shown.extend(provider.from_params.iter().map(|name| contains(":path", name)));
        shown.extend(provider.from_cookies.iter().map(|name| contains("cookie", name)));
    }
    let is_shown = |header| rbac::Permission { rule: Some(rbac::permission::Rule::Header(header)) };
    let mut shown: Vec<_> = shown.into_iter().map(is_shown).collect();
    let any = match shown.len() {
        0 => anything(),
        1 => shown.remove(0),
        _ => {
            let set = rbac::permission::Set { rules: shown };
            rbac::Permission { rule: Some(rbac::permission::Rule::OrRules(set)) }
        }
    };
    let none = rbac::Permission { rule: Some(rbac::permission::Rule::NotRule(Box::new(any))) };
    let anybody = rbac::Principal { identifier: Some(rbac::principal::Identifier::Any(true)) };
    let mut policies = Policies::default();
    policies.add("no-token", vec![none], vec![anybody]);
    Rules { enforced: Some(policies), shadow: None }
}

/// A header, or a part of the head, with `name=` somewhere in it: no token is missed, though something else may be taken
/// for one.
fn contains(header: &str, name: &str) -> route::HeaderMatcher {
    use crate::proto::matcher::{StringMatcher, string_matcher::MatchPattern};
    let text = StringMatcher { match_pattern: Some(MatchPattern::Contains(format!("{name}="))), ..Default::default() };
    route::HeaderMatcher {
        name: header.to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(text)),
        ..Default::default()
    }
}
