//! Tokens of end users (JSON Web Tokens, RFC 7519): found in a request, and verified as RFC 8725 asks for.
//!
//! Pure: the time is an argument. A token is believed only if its signature verifies with a key of its issuer that was
//! configured, by an algorithm that the key itself allows. Symmetric algorithms and `none` are not known here at all,
//! so nothing can be confused with them; a key or the address of one within a token is refused.

mod base64;
mod find;
mod json;
mod keys;

use std::sync::Arc;

use serde_json::Value;

use crate::tables::Provider;

pub use base64::{decode, encode};
pub use find::{Authenticated, Refused, authenticate};
pub use json::parse_strictly;
pub use keys::{Algorithm, KeySet, KeySetError};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Longest key id, in bytes.
const MAX_KEY_ID: usize = 256;

/// The claims of a token that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(Value);

impl Claims {
    /// The claims as JSON: always an object.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// `issuer/subject`, if there is a subject.
    #[must_use]
    pub fn principal(&self) -> Option<String> {
        Some(format!("{}/{}", self.0.get("iss")?.as_str()?, self.0.get("sub")?.as_str()?))
    }
}

/// A token that was verified, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The name under which its claims are kept.
    pub key: Box<str>,
    /// Its claims.
    pub claims: Arc<Claims>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("a token is missing")]
    Missing,
    /// There are several that differ.
    #[error("there are several tokens, and they differ")]
    Several,
    /// It is longer than is looked at.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not three parts of base64url, or its parts are no JSON.
    #[error("the token is malformed")]
    Malformed,
    /// A member of its header or a claim is there twice.
    #[error("the token has a member twice")]
    Duplicate,
    /// Its header names no algorithm that is allowed.
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    /// Its header demands something that is not understood (`crit`, `zip`, `b64`, a type of its own).
    #[error("the token's header demands what is not understood")]
    Demands,
    /// Its header brings a key or the address of one along.
    #[error("the token brings its own key along")]
    OwnKey,
    /// None of the issuer's keys is meant.
    #[error("no key of the issuer is for this token")]
    NoKey,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    Signature,
    /// Another issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// For somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// Its times are no times, or it has no end.
    #[error("the token's times make no sense")]
    Times,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
}

impl TokenError {
    /// One word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            TokenError::Missing => "missing",
            TokenError::Several => "several",
            TokenError::TooLong => "too_long",
            TokenError::Malformed => "malformed",
            TokenError::Duplicate => "duplicate_member",
            TokenError::Algorithm => "algorithm",
            TokenError::Demands => "demands",
            TokenError::OwnKey => "own_key",
            TokenError::NoKey => "no_key",
            TokenError::Signature => "signature",
            TokenError::Issuer => "issuer",
            TokenError::Audience => "audience",
            TokenError::Times => "times",
            TokenError::Expired => "expired",
            TokenError::NotYet => "not_yet_valid",
        }
    }
}

/// Verifies a token of a provider at a time, in seconds since 1970. Takes any text and never panics.
///
/// # Errors
/// When there is anything in it that is not as it must be.
pub fn verify(provider: &Provider, token: &str, now: u64) -> Result<Claims, TokenError> {
    let parts = split(token)?;
    let algorithm = header(parts.header)?;
    let claims = object(parts.payload)?;
    // The issuer first: another's token is no forgery, and costs no signature.
    // RFC 7519 §4.1.2: a subject is a string.
    if claims.get("sub").is_some_and(|subject| !subject.is_string()) {
        return Err(TokenError::Malformed);
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&*provider.issuer) {
        return Err(TokenError::Issuer);
    }
    let signature = decode(parts.signature).ok_or(TokenError::Malformed)?;
    provider.keys.verify(algorithm.0, algorithm.1.as_deref(), parts.signed.as_bytes(), &signature)?;
    check_times(&claims, provider, now)?;
    check_audience(&claims, provider)?;
    Ok(Claims(claims))
}

/// Checks the times of claims that were verified before. The rest of them cannot have changed.
///
/// # Errors
/// When the time of the token has not come, or is over.
pub fn check_times(claims: &Value, provider: &Provider, now: u64) -> Result<(), TokenError> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        // Up to the year 33658; within it a double counts seconds exactly.
        Some(value) => value.as_f64().filter(|time| (0.0..1e12).contains(time)).map(Some).ok_or(TokenError::Times),
    };
    let (expires, from, issued) = (time("exp")?, time("nbf")?, time("iat")?);
    if expires.is_none() && provider.must_expire {
        return Err(TokenError::Times);
    }
    // Seconds since 1970 are far below 2^53.
    let (now, skew) = (now as f64, f64::from(provider.skew));
    if expires.is_some_and(|expires| now >= expires + skew) {
        return Err(TokenError::Expired);
    }
    if from.is_some_and(|from| now + skew < from) || issued.is_some_and(|issued| now + skew < issued) {
        return Err(TokenError::NotYet);
    }
    Ok(())
}

fn check_audience(claims: &Value, provider: &Provider) -> Result<(), TokenError> {
    let is_wanted = |audience: &str| provider.audiences.iter().any(|wanted| **wanted == *audience);
    match claims.get("aud") {
        None if provider.audiences.is_empty() => Ok(()),
        Some(Value::String(audience)) if provider.audiences.is_empty() || is_wanted(audience) => Ok(()),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            let is_any = list.iter().filter_map(Value::as_str).any(is_wanted);
            if provider.audiences.is_empty() || is_any { Ok(()) } else { Err(TokenError::Audience) }
        }
        Some(Value::String(_)) | None => Err(TokenError::Audience),
        Some(_) => Err(TokenError::Malformed),
    }
}

/// The parts of a token as text.
struct Parts<'t> {
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
    /// What is signed: the first two with the dot between them.
    signed: &'t str,
}

fn split(token: &str) -> Result<Parts<'_>, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    if payload.contains('.') || [header, payload, signature].iter().any(|part| part.is_empty()) {
        return Err(TokenError::Malformed);
    }
    Ok(Parts { header, payload, signature, signed })
}

fn object(part: &str) -> Result<Value, TokenError> {
    let bytes = decode(part).ok_or(TokenError::Malformed)?;
    let value = parse_strictly(&bytes)?;
    if value.is_object() { Ok(value) } else { Err(TokenError::Malformed) }
}

/// The algorithm and the key id that a header names.
fn header(part: &str) -> Result<(Algorithm, Option<String>), TokenError> {
    let header = object(part)?;
    let has = |name: &str| header.get(name).is_some();
    if ["jwk", "jku", "x5u", "x5c"].iter().any(|name| has(name)) {
        return Err(TokenError::OwnKey);
    }
    if ["crit", "b64", "zip", "enc", "epk", "cty"].iter().any(|name| has(name)) {
        return Err(TokenError::Demands);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            // Tokens of other kinds (logout, events, proofs) are signed by the same issuers, and mean something else.
            if !["jwt", "at+jwt"].contains(&kind) {
                return Err(TokenError::Demands);
            }
        }
        Some(_) => return Err(TokenError::Malformed),
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID => Some(id.clone()),
        Some(_) => return Err(TokenError::Malformed),
    };
    Ok((algorithm.ok_or(TokenError::Algorithm)?, key_id))
}

/// Says what a text would be as a token of a provider without an issuer's keys: for fuzzing, from any bytes.
///
/// # Errors
/// When it is no token.
pub fn check(bytes: &[u8]) -> Result<Value, TokenError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TokenError::Malformed)?;
    let parts = split(text)?;
    header(parts.header)?;
    decode(parts.signature).ok_or(TokenError::Malformed)?;
    object(parts.payload)
}
