//! `Authorization`: what roles and bindings look at, as attributes of a request.
//!
//! The proxy knows these attributes by themselves, so an instance can only say what it would do anyway. What it says
//! otherwise is refused: the fields of roles would mean something else than their author thinks.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::Instance;
use crate::problem::NOT_IN_FORCE;
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `spec` of an `Authorization`, as typed. Each text is an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Authorization {
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Does what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

/// Who calls, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// What `user` of bindings is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What `group` of bindings is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// What their `properties` are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
}

/// What is done, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Action {
    /// The namespace whose roles are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What `services` of roles are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What their `methods` are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What their `paths` are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What their `constraints` are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
}

impl Read for Authorization {
    const WHAT: &'static str = "a mapping with `subject` and `action`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let it = Authorization { subject: fields.required("subject"), action: fields.required("action") };
        fields.end();
        Some(it)
    }
}

impl Read for Subject {
    const WHAT: &'static str = "a mapping with `user`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let subject = Subject {
            user: fields.required("user"),
            groups: fields.optional("groups"),
            properties: fields.optional("properties"),
        };
        fields.end();
        Some(subject)
    }
}

impl Read for Action {
    const WHAT: &'static str = "a mapping with `namespace`, `service`, `method` and `path`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let action = Action {
            namespace: fields.required("namespace"),
            service: fields.required("service"),
            method: fields.required("method"),
            path: fields.required("path"),
            properties: fields.optional("properties"),
        };
        fields.end();
        Some(action)
    }
}

impl Authorization {
    /// Checks the instance and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, context: &mut Context<'_>) -> Option<Instance> {
        if let Some(subject) = &self.subject {
            context.within("subject", |context| {
                field("user", subject.user.as_deref(), &["source.principal", "source.user"], context);
                field("groups", subject.groups.as_deref(), &["", "request.auth.claims[\"groups\"]"], context);
                let known = |name: &str| match name {
                    "namespace" | "service" => vec![format!("source.{name}")],
                    name => vec![name.to_owned(), format!("source.labels[\"{name}\"]")],
                };
                properties(subject.properties.as_ref(), known, context);
            });
        }
        if let Some(action) = &self.action {
            context.within("action", |context| {
                field("namespace", action.namespace.as_deref(), &["destination.namespace"], context);
                field("service", action.service.as_deref(), &["destination.service"], context);
                field("method", action.method.as_deref(), &["request.method"], context);
                field("path", action.path.as_deref(), &["request.path"], context);
                let known = |name: &str| match name.contains('.') {
                    true => vec![name.to_owned()],
                    false => vec![format!("destination.labels[\"{name}\"]")],
                };
                properties(action.properties.as_ref(), known, context);
            });
        }
        (context.errors() == 0).then_some(Instance::Authorization)
    }
}

fn properties(
    properties: Option<&BTreeMap<String, String>>,
    known: impl Fn(&str) -> Vec<String>,
    context: &mut Context<'_>,
) {
    context.within("properties", |context| {
        for (name, text) in properties.into_iter().flatten() {
            let known = known(name);
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            context.within(name.clone(), |context| is_one_of(text, &known, context));
        }
    });
}

fn field(name: &'static str, text: Option<&str>, known: &[&str], context: &mut Context<'_>) {
    context.within(name, |context| text.into_iter().for_each(|text| is_one_of(text, known, context)));
}

/// Refuses an expression that is not one of these, or one of these with the empty text where it is absent.
fn is_one_of(text: &str, known: &[&str], context: &mut Context<'_>) {
    let bare = match text.rsplit_once('|') {
        Some((bare, default)) if default.trim() == "\"\"" => bare.trim(),
        _ if text.trim() == "\"\"" => "",
        _ => text.trim(),
    };
    if known.contains(&bare) {
        return;
    }
    let meant = known.last().copied().unwrap_or_default();
    let subject = context.subject();
    context.error_with_hint(
        format!("{subject} from anything else, here `{text}`, {NOT_IN_FORCE}"),
        if meant.is_empty() {
            "write \"\"".to_owned()
        } else {
            format!("write `{meant} | \"\"`, which is what {subject} of roles and bindings is compared with")
        },
    );
}
