//! Handlers: `Rbac` asks roles, `Denier` refuses; and the instance that says nothing.

use serde::Serialize;

use crate::model::Handler;
use crate::problem::NOT_IN_FORCE;
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `spec` of an `Rbac`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rbac {
    /// Where roles are kept: `k8s://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_store_url: Option<String>,
}

impl Read for Rbac {
    const WHAT: &'static str = "a mapping such as `{configStoreUrl: \"k8s://\"}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let rbac = Rbac { config_store_url: fields.optional("configStoreUrl") };
        if fields.has("cacheDuration") {
            fields.context().not_in_force("cacheDuration");
        }
        fields.ignore("cacheDuration");
        fields.end();
        Some(rbac)
    }
}

impl Rbac {
    /// Checks the handler and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, context: &mut Context<'_>) -> Option<Handler> {
        if let Some(url) = self.config_store_url.as_deref().filter(|url| !["k8s://", ""].contains(url)) {
            context.within("configStoreUrl", |context| {
                context.error_with_hint(
                    format!("roles are not read from `{url}`"),
                    "write `k8s://`: roles are where the mesh's other objects are",
                );
            });
        }
        (context.errors() == 0).then_some(Handler::Rbac)
    }
}

/// `spec` of a `Denier`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Denier {
    /// What is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// A status of gRPC, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// Its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Read for Denier {
    const WHAT: &'static str = "a mapping such as `{status: {code: 7, message: Not allowed}}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let denier = Denier { status: fields.required("status") };
        // How long an answer may be remembered: the proxy asks itself, and remembers nothing.
        fields.ignore("validDuration");
        fields.ignore("validUseCount");
        fields.end();
        Some(denier)
    }
}

impl Read for Status {
    const WHAT: &'static str = "a mapping with `code` and `message`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let status = Status { code: fields.required("code"), message: fields.optional("message") };
        fields.end();
        Some(status)
    }
}

/// PERMISSION_DENIED.
const DENIED: i64 = 7;
/// Longest words of a refusal, which stand in every line of the log about it.
const LONGEST: usize = 200;

impl Denier {
    /// Checks the handler and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, context: &mut Context<'_>) -> Option<Handler> {
        let status = self.status.as_ref()?;
        context.within("status", |context| {
            if let Some(code) = status.code.filter(|code| *code != DENIED) {
                context.within("code", |context| {
                    context.error_with_hint(
                        format!("another code than {DENIED}, here {code}, {NOT_IN_FORCE}"),
                        format!("write {DENIED}, PERMISSION_DENIED, which callers get as 403"),
                    );
                });
            }
            let message = status.message.as_deref().unwrap_or_default();
            if message.len() > LONGEST || message.chars().any(char::is_control) {
                context.within("message", |context| {
                    context.error_with_hint(
                        format!("the message is longer than {LONGEST} bytes, or has line breaks"),
                        "say it in one short line, as it stands in the log",
                    );
                });
            }
        });
        let message = status.message.clone().unwrap_or_default();
        (context.errors() == 0).then_some(Handler::Denier { message })
    }
}

/// `spec` of a `CheckNothing`, as typed: there is nothing in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CheckNothing {}

impl Read for CheckNothing {
    const WHAT: &'static str = "an empty mapping";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        context.fields(node, Self::WHAT)?.end();
        Some(CheckNothing {})
    }
}
