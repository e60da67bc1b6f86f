//! Cross-origin requests: `corsPolicy`.

use serde::Serialize;

use super::check;
use super::duration::DurationText;
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `corsPolicy`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Origins that may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_origin: Option<Vec<String>>,
    /// Methods that they may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_methods: Option<Vec<String>>,
    /// Headers that they may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_headers: Option<Vec<String>>,
    /// Headers that they may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expose_headers: Option<Vec<String>>,
    /// How long the answer may be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<DurationText>,
    /// Whether they may send credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
}

/// The methods that a policy can name.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

impl Read for CorsPolicy {
    const WHAT: &'static str = "a mapping with `allowOrigin`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let policy = CorsPolicy {
            allow_origin: fields.optional("allowOrigin"),
            allow_methods: fields.optional("allowMethods"),
            allow_headers: fields.optional("allowHeaders"),
            expose_headers: fields.optional("exposeHeaders"),
            max_age: fields.optional("maxAge"),
            allow_credentials: fields.optional("allowCredentials"),
        };
        fields.end();
        Some(policy)
    }
}

impl CorsPolicy {
    /// Checks the policy, with `context` looking at `corsPolicy`.
    pub fn check(&self, context: &mut Context<'_>) {
        for (index, method) in self.allow_methods.iter().flatten().enumerate() {
            if !METHODS.contains(&method.as_str()) {
                context.within("allowMethods", |context| {
                    context.within(index, |context| {
                        context.error_with_hint(
                            format!("`{method}` is not a method"),
                            format!("the methods are {}", METHODS.join(", ")),
                        );
                    });
                });
            }
        }
        for (field, headers) in [("allowHeaders", &self.allow_headers), ("exposeHeaders", &self.expose_headers)] {
            for (index, header) in headers.iter().flatten().enumerate() {
                context.within(field, |context| {
                    context.within(index, |context| check::header_name(header, context));
                });
            }
        }
        let max_age = self.max_age.as_ref().and_then(|age| age.mean("maxAge", context));
        if max_age.is_some_and(|age| age.subsec_nanos() != 0) {
            context.within("maxAge", |context| context.error("`maxAge` is not a whole number of seconds"));
        }
    }
}
