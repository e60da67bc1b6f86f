//! Where tokens stand in a request, and which of them it needs.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Claims, TokenError, Verified, encode};
use crate::path::split_query;
use crate::request::Request;
use crate::tables::{Need, Provider, Tokens};

/// What verified tokens amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authenticated {
    /// The tokens.
    pub tokens: Vec<Verified>,
    /// Headers to add for the application, by lower-case name.
    pub add: Vec<(Box<str>, String)>,
    /// Headers in which the application does not get tokens, by lower-case name.
    pub remove: Vec<Box<str>>,
    /// Parameters of the query in which it does not get them either.
    pub remove_params: Vec<Box<str>>,
}

impl Authenticated {
    /// A path with its query as the application gets it: without tokens that are not for it.
    #[must_use]
    pub fn path<'p>(&self, path: Cow<'p, str>) -> Cow<'p, str> {
        let (bare, query) = split_query(&path);
        let pairs = || query.trim_start_matches('?').split('&');
        let is_token = |pair: &&str| {
            let name = pair.split_once('=').map(|(name, _)| name);
            name.is_some_and(|name| self.remove_params.iter().any(|wanted| **wanted == *name))
        };
        if !pairs().any(|pair| is_token(&pair)) {
            return path;
        }
        let rest: Vec<&str> = pairs().filter(|pair| !is_token(pair)).collect();
        let mark = if rest.is_empty() { "" } else { "?" };
        format!("{bare}{mark}{}", rest.join("&")).into()
    }
}

/// Why a request's tokens are not enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// What is wrong.
    pub why: TokenError,
    /// The provider whose token is wrong, or missing.
    pub provider: Box<str>,
}

/// Verifies the tokens that a request needs. `verify` verifies one of a provider; it may remember what it did before.
///
/// # Errors
/// When one of them is missing or no good.
pub fn authenticate<R: Request>(
    tokens: &Tokens,
    request: &R,
    verify: &mut impl FnMut(&Provider, &str) -> Result<Arc<Claims>, TokenError>,
) -> Result<Authenticated, Refused> {
    let bare = crate::path::without_query(request.path());
    // `*` and a tunnel have no path: what is asked of every path is asked of them.
    let bare = if bare.starts_with('/') { bare } else { "/" };
    let rule = tokens
        .rules
        .iter()
        .find(|rule| rule.path.matches(bare) && rule.headers.iter().all(|header| header.matches(request)));
    let mut found = Found { tokens, request, verify, out: Authenticated::default() };
    if let Some(needs) = rule.and_then(|rule| rule.needs.as_ref()) {
        found.fulfil(needs)?;
    }
    Ok(found.out)
}

struct Found<'f, R, V> {
    tokens: &'f Tokens,
    request: &'f R,
    verify: &'f mut V,
    out: Authenticated,
}

impl<R: Request, V: FnMut(&Provider, &str) -> Result<Arc<Claims>, TokenError>> Found<'_, R, V> {
    fn fulfil(&mut self, need: &Need) -> Result<(), Refused> {
        match need {
            Need::Provider(at) => {
                let tokens = self.tokens;
                match tokens.providers.get(*at) {
                    Some(provider) => self.one(provider),
                    None => Err(Refused { why: TokenError::Missing, provider: "".into() }),
                }
            }
            Need::All(needs) => needs.iter().try_for_each(|need| self.fulfil(need)),
            Need::Any(needs) => {
                let mut worst: Option<Refused> = None;
                for need in needs {
                    match self.fulfil(need) {
                        Ok(()) => return Ok(()),
                        // The most telling reason: of what is there, not of what is missing.
                        Err(refused) => {
                            let tells = |refused: &Refused| match refused.why {
                                TokenError::Missing => 0,
                                TokenError::Issuer => 1,
                                _ => 2,
                            };
                            if worst.as_ref().is_none_or(|worst| tells(&refused) > tells(worst)) {
                                worst = Some(refused);
                            }
                        }
                    }
                }
                Err(worst.unwrap_or(Refused { why: TokenError::Missing, provider: "".into() }))
            }
            Need::Missing => {
                let shown = self.tokens.providers.iter().find(|provider| !found(provider, self.request).is_empty());
                match shown {
                    None => Ok(()),
                    Some(provider) => Err(Refused { why: TokenError::Issuer, provider: provider.name.clone() }),
                }
            }
        }
    }

    fn one(&mut self, provider: &Provider) -> Result<(), Refused> {
        let refused = |why| Refused { why, provider: provider.name.clone() };
        let places = found(provider, self.request);
        let Some(first) = places.first() else { return Err(refused(TokenError::Missing)) };
        if places.iter().any(|other| other != first) {
            return Err(refused(TokenError::Several));
        }
        let claims = (self.verify)(provider, first).map_err(refused)?;
        if let Some(header) = &provider.payload_header {
            let text = claims.value().to_string();
            self.out.add.push((header.clone(), encode(text.as_bytes())));
        }
        for (header, claim) in &provider.claim_headers {
            if let Some(text) = claim_text(&claims, claim) {
                self.out.add.push((header.clone(), text));
            }
        }
        if !provider.forward {
            self.out.remove.extend(provider.headers.iter().map(|(name, _)| name.clone()));
            self.out.remove_params.extend(provider.params.iter().cloned());
        }
        self.out.tokens.push(Verified { key: provider.key.clone(), claims });
        Ok(())
    }
}

/// A claim as the value of a header; `None` if it is not there, or cannot be one.
fn claim_text(claims: &Claims, name: &str) -> Option<String> {
    use serde_json::Value;
    let value = match claims.value().get(name) {
        Some(value) => value,
        None => name.split('.').try_fold(claims.value(), |value, part| value.get(part))?,
    };
    match value {
        // Nothing that could end the header, or be read as something else by the application.
        Value::String(text) => text.bytes().all(|byte| (0x20..0x7f).contains(&byte)).then(|| text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null => None,
        Value::Array(_) | Value::Object(_) => Some(encode(value.to_string().as_bytes())),
    }
}

/// Every token that stands where a provider's may stand.
fn found<'r, R: Request>(provider: &Provider, request: &'r R) -> Vec<&'r str> {
    let mut found = Vec::new();
    for (name, prefix) in &provider.headers {
        for value in request.header(name) {
            // What is no text is no token, but it is there: it will be refused.
            let value = std::str::from_utf8(value).unwrap_or("?");
            if let Some(token) = after(value, prefix) {
                found.push(token);
            }
        }
    }
    let query = split_query(request.path()).1;
    for name in &provider.params {
        for pair in query.trim_start_matches('?').split('&') {
            if let Some((key, token)) = pair.split_once('=')
                && *key == **name
            {
                found.push(token);
            }
        }
    }
    for name in &provider.cookies {
        for value in request.header("cookie") {
            let value = std::str::from_utf8(value).unwrap_or_default();
            for pair in value.split(';') {
                if let Some((key, token)) = pair.trim().split_once('=')
                    && *key == **name
                {
                    found.push(token.trim_matches('"'));
                }
            }
        }
    }
    found
}

/// What follows a prefix, which is compared without regard to case, as the names of schemes are.
fn after<'v>(value: &'v str, prefix: &str) -> Option<&'v str> {
    let head = value.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| value[prefix.len()..].trim_matches(' '))
}
