//! `JwtAuthentication` → tokens that are verified.

use std::collections::BTreeSet;
use std::mem::take;

use aws_lc_rs::digest;
use prost::Message;

use super::route_match;
use super::strict::{At, Refusal, nothing_left, typed};
use crate::proto::{core, extension, jwt_authn as pb, protobuf};
use crate::tables::{Need, Provider, TokenRule, Tokens};
use crate::token::KeySet;

use pb::jwt_provider::JwksSourceSpecifier;
use pb::jwt_requirement::RequiresType;
use pb::requirement_rule::RequirementType;

/// How far clocks may be apart unless the provider says otherwise, as in Envoy.
const SKEW: u32 = 60;
/// Deepest nesting of requirements.
const MAX_DEPTH: usize = 8;

/// Compiles the filter that verifies tokens.
pub(super) fn compile(any: &protobuf::Any) -> Result<Tokens, Refusal> {
    let mut message: pb::JwtAuthentication = typed(any, extension::JWT.1)?;
    message.stat_prefix.clear();
    let mut providers = take(&mut message.providers)
        .into_iter()
        .map(|(name, message)| provider(&name, message).at(&format!("providers[{name}]")))
        .collect::<Result<Vec<_>, _>>()?;
    providers.sort_by(|one, other| one.name.cmp(&other.name));
    let rules = take(&mut message.rules)
        .into_iter()
        .enumerate()
        .map(|(nth, message)| rule(message, &providers).at_nth("rules", nth))
        .collect::<Result<Vec<_>, _>>()?;
    nothing_left(&message)?;
    let mut reserved: BTreeSet<Box<str>> = BTreeSet::new();
    for provider in &providers {
        reserved.extend(provider.payload_header.clone());
        reserved.extend(provider.claim_headers.iter().map(|(header, _)| header.clone()));
    }
    Ok(Tokens { providers, rules, reserved: reserved.into_iter().collect() })
}

fn provider(name: &str, mut message: pb::JwtProvider) -> Result<Provider, Refusal> {
    let fingerprint = fingerprint(name, &message);
    let issuer = take(&mut message.issuer);
    if issuer.is_empty() {
        return Err(Refusal::not_in_force("a provider without an issuer"));
    }
    let keys = match message.jwks_source_specifier.take() {
        Some(JwksSourceSpecifier::LocalJwks(source)) => keys(source).at("local_jwks")?,
        Some(JwksSourceSpecifier::RemoteJwks(_)) => return Err(Refusal::not_in_force("remote_jwks")),
        None => return Err(Refusal::invalid("the provider has no keys")),
    };
    let mut headers = Vec::new();
    for header in take(&mut message.from_headers) {
        headers.push((header.name.to_ascii_lowercase().into(), header.value_prefix.into()));
    }
    let mut params: Vec<Box<str>> = take(&mut message.from_params).into_iter().map(Into::into).collect();
    let cookies: Vec<Box<str>> = take(&mut message.from_cookies).into_iter().map(Into::into).collect();
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        headers.push(("authorization".into(), "Bearer ".into()));
        params.push("access_token".into());
    }
    let claim_headers = take(&mut message.claim_to_headers)
        .into_iter()
        .map(|mut message| {
            let pair =
                (take(&mut message.header_name).to_ascii_lowercase().into(), take(&mut message.claim_name).into());
            nothing_left(&message).map(|()| pair)
        })
        .collect::<Result<Vec<_>, _>>()
        .at("claim_to_headers")?;
    let payload_header = take(&mut message.forward_payload_header).to_ascii_lowercase();
    let provider = Provider {
        name: name.into(),
        issuer: issuer.into(),
        audiences: take(&mut message.audiences).into_iter().map(Into::into).collect(),
        keys,
        headers,
        params,
        cookies,
        forward: take(&mut message.forward),
        payload_header: Some(payload_header).filter(|name| !name.is_empty()).map(Into::into),
        claim_headers,
        key: take(&mut message.payload_in_metadata).into(),
        skew: match take(&mut message.clock_skew_seconds) {
            0 => SKEW,
            skew => skew,
        },
        must_expire: take(&mut message.require_expiration),
        fingerprint,
    };
    nothing_left(&message)?;
    Ok(provider)
}

/// Fields of a provider are in one order in its encoding, as it has no maps.
fn fingerprint(name: &str, message: &pb::JwtProvider) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(name.len() as u64).to_be_bytes());
    context.update(name.as_bytes());
    context.update(&message.encode_to_vec());
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

fn keys(source: core::DataSource) -> Result<KeySet, Refusal> {
    use core::data_source::Specifier;
    let text = match source.specifier {
        Some(Specifier::InlineString(text)) => text.into_bytes(),
        Some(Specifier::InlineBytes(bytes)) => bytes,
        Some(Specifier::Filename(_)) => return Err(Refusal::not_in_force("filename")),
        Some(Specifier::EnvironmentVariable(_)) => return Err(Refusal::not_in_force("environment_variable")),
        None => return Err(Refusal::invalid("the provider has no keys")),
    };
    if source.watched_directory.is_some() {
        return Err(Refusal::not_in_force("watched_directory"));
    }
    KeySet::parse(&text).map_err(|error| Refusal::invalid(error.to_string()))
}

fn rule(mut message: pb::RequirementRule, providers: &[Provider]) -> Result<TokenRule, Refusal> {
    let matches = message.r#match.take().ok_or_else(|| Refusal::invalid("`match` is missing"))?;
    let (path, headers, fraction) = route_match::compile(matches).at("match")?;
    if fraction.is_some() {
        return Err(Refusal::not_in_force("match.runtime_fraction"));
    }
    let needs = match message.requirement_type.take() {
        None => None,
        Some(RequirementType::Requires(requirement)) => Some(need(requirement, providers, 0).at("requires")?),
        Some(RequirementType::RequirementName(_)) => return Err(Refusal::not_in_force("requirement_name")),
    };
    Ok(TokenRule { path, headers, needs })
}

fn need(message: pb::JwtRequirement, providers: &[Provider], depth: usize) -> Result<Need, Refusal> {
    if depth == MAX_DEPTH {
        return Err(Refusal::invalid(format!("nested deeper than {MAX_DEPTH}")));
    }
    let all = |list: Vec<pb::JwtRequirement>| {
        if list.len() < 2 {
            return Err(Refusal::invalid("there are fewer than two requirements"));
        }
        list.into_iter().map(|message| need(message, providers, depth + 1)).collect::<Result<Vec<_>, _>>()
    };
    match message.requires_type {
        Some(RequiresType::ProviderName(name)) => {
            let found = providers.iter().position(|provider| *provider.name == *name);
            found.map(Need::Provider).ok_or_else(|| Refusal::invalid(format!("there is no provider `{name}`")))
        }
        Some(RequiresType::RequiresAny(list)) => all(list.requirements).at("requires_any").map(Need::Any),
        Some(RequiresType::RequiresAll(list)) => all(list.requirements).at("requires_all").map(Need::All),
        Some(RequiresType::AllowMissing(_)) => Ok(Need::Missing),
        // A token that is no good must not be as good as none.
        Some(RequiresType::AllowMissingOrFailed(_)) => Err(Refusal::not_in_force("allow_missing_or_failed")),
        Some(RequiresType::ProviderAndAudiences(_)) => Err(Refusal::not_in_force("provider_and_audiences")),
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            Err(Refusal::not_in_force("extract_only_without_validation"))
        }
        None => Err(Refusal::invalid("nothing is required")),
    }
}
