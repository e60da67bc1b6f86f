//! `jwt` of an `AuthenticationPolicy`: a kind of token that is believed.

use serde::Serialize;

use super::{Surroundings, check};
use crate::model::{self, KeySource};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// A kind of token that is believed, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Who issues it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whom it must be for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audiences: Option<Vec<String>>,
    /// Where its keys are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Headers that it may stand in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_headers: Option<Vec<String>>,
    /// Parameters of the query that it may stand in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_params: Option<Vec<String>>,
    /// Cookies that it may stand in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_cookies: Option<Vec<String>>,
    /// Whether the application gets it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_original_token: Option<bool>,
    /// Header in which the application gets the verified claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_payload_to_header: Option<String>,
    /// Headers in which the application gets single claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_claim_to_headers: Option<Vec<ClaimToHeader>>,
}

/// A claim and the header in which the application gets it, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClaimToHeader {
    /// The header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

impl Read for Jwt {
    const WHAT: &'static str = "a mapping with `issuer` and `jwksUri` or `jwks`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let jwt = Jwt {
            issuer: fields.required("issuer"),
            audiences: fields.optional("audiences"),
            jwks_uri: fields.optional("jwksUri"),
            jwks: fields.optional("jwks"),
            jwt_headers: fields.optional("jwtHeaders"),
            jwt_params: fields.optional("jwtParams"),
            jwt_cookies: fields.optional("jwtCookies"),
            forward_original_token: fields.optional("forwardOriginalToken"),
            output_payload_to_header: fields.optional("outputPayloadToHeader"),
            output_claim_to_headers: fields.optional("outputClaimToHeaders"),
        };
        fields.end();
        Some(jwt)
    }
}

impl Read for ClaimToHeader {
    const WHAT: &'static str = "a mapping with `header` and `claim`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let pair = ClaimToHeader { header: fields.required("header"), claim: fields.required("claim") };
        fields.end();
        Some(pair)
    }
}

/// Headers that the mesh or HTTP itself needs: no claim is put into them.
const RESERVED: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "upgrade",
    "authorization",
    "cookie",
    "x-forwarded-for",
];

impl Jwt {
    /// Checks it and says what it means.
    pub(super) fn mean(&self, _around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::Jwt> {
        let errors = context.errors();
        let issuer = self.issuer.clone().unwrap_or_default();
        if self.issuer.as_ref().is_some_and(String::is_empty) {
            context.within("issuer", |context| context.error("`issuer` is the empty text"));
        }
        let audiences = filled("audiences", self.audiences.as_deref(), context);
        let params = filled("jwtParams", self.jwt_params.as_deref(), context);
        let cookies = filled("jwtCookies", self.jwt_cookies.as_deref(), context);
        let headers = filled("jwtHeaders", self.jwt_headers.as_deref(), context);
        let headers: Vec<String> = headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        context.within("jwtHeaders", |context| {
            for (nth, name) in headers.iter().enumerate() {
                context.within(nth, |context| check::header_name(name, context));
            }
        });
        let keys = self.keys(context);
        let output = |name: &str, context: &mut Context<'_>| {
            let name = name.to_ascii_lowercase();
            let is_free = check::header_name(&name, context) && !RESERVED.contains(&name.as_str());
            if !is_free && context.is_clean() {
                context.error_with_hint(format!("no claim can be put into `{name}`"), "use a header of its own");
            }
            is_free.then_some(name)
        };
        let payload_header = self
            .output_payload_to_header
            .as_ref()
            .and_then(|name| context.within("outputPayloadToHeader", |context| output(name, context)));
        let claim_headers = context.within("outputClaimToHeaders", |context| {
            let pairs = self.output_claim_to_headers.iter().flatten().enumerate();
            pairs
                .filter_map(|(nth, pair)| {
                    let (header, claim) = (pair.header.as_ref()?, pair.claim.as_ref()?);
                    let header = context.within(nth, |context| context.within("header", |c| output(header, c)))?;
                    Some((header, claim.clone()))
                })
                .collect()
        });
        let forward = self.forward_original_token != Some(false);
        if !forward && !cookies.is_empty() {
            context.within("forwardOriginalToken", |context| {
                context.error_with_hint(
                    "a token in a cookie cannot be taken out of the request",
                    "let it stand in a header or in the query, or forward it",
                );
            });
        }
        if context.errors() > errors {
            return None;
        }
        Some(model::Jwt {
            issuer,
            audiences,
            keys: keys?,
            headers,
            params,
            cookies,
            forward,
            payload_header,
            claim_headers,
        })
    }

    fn keys(&self, context: &mut Context<'_>) -> Option<KeySource> {
        match (&self.jwks, &self.jwks_uri) {
            (Some(_), Some(_)) => {
                context.error_with_hint("there are both `jwks` and `jwksUri`", "keep one of the two");
                None
            }
            (Some(text), None) => {
                let checked = context.within("jwks", |context| check_key_set(text, context));
                checked.then(|| KeySource::Inline(text.clone()))
            }
            (None, Some(uri)) => {
                context.within("jwksUri", |context| check_uri(uri, context).then(|| KeySource::Uri(uri.clone())))
            }
            (None, None) => {
                if context.is_clean() {
                    context.error_with_hint(
                        "the keys of the issuer are missing",
                        "give `jwksUri`, where they are, or `jwks`, the keys themselves",
                    );
                }
                None
            }
        }
    }
}

fn filled(field: &'static str, texts: Option<&[String]>, context: &mut Context<'_>) -> Vec<String> {
    let texts = texts.unwrap_or_default();
    context.within(field, |context| {
        for (nth, _) in texts.iter().enumerate().filter(|(_, text)| text.is_empty()) {
            context.within(nth, |context| context.error(format!("{} is the empty text", context.subject())));
        }
    });
    texts.to_vec()
}

fn check_uri(uri: &str, context: &mut Context<'_>) -> bool {
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.is_empty() || host.contains('@') || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        context
            .error_with_hint(format!("`{uri}` is no address of a key set"), "write it like `https://issuer/jwks.json`");
        return false;
    }
    if uri.starts_with("http://") {
        context.warn("keys that are fetched in plain text can be replaced on their way", "write `https://`");
    }
    true
}

/// Checks that a text is a set of public keys. What each key is good for the engine says.
fn check_key_set(text: &str, context: &mut Context<'_>) -> bool {
    let set: Result<serde_json::Value, _> = serde_json::from_str(text);
    let set = match set {
        Ok(set) => set,
        Err(error) => {
            context.error_with_hint(format!("`jwks` is no JSON: {error}"), "write `{\"keys\": […]}`");
            return false;
        }
    };
    let Some(keys) = set.get("keys").and_then(serde_json::Value::as_array).filter(|keys| !keys.is_empty()) else {
        context.error_with_hint("`jwks` holds no keys", "write `{\"keys\": […]}`");
        return false;
    };
    let has = |key: &serde_json::Value, member: &str| key.get(member).is_some();
    if keys.iter().any(|key| has(key, "k") || has(key, "d")) {
        context.error_with_hint(
            "`jwks` holds a secret key, which everybody who reads this object now knows",
            "write the public half alone, and replace the key",
        );
        return false;
    }
    true
}
