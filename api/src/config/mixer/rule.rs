//! `Rule`: what is asked about which requests.

use serde::Serialize;

use super::selection;
use crate::config::{Surroundings, check};
use crate::kinds;
use crate::model::{self, Adapter, Key, Reference, RuleAction};
use crate::problem::NOT_IN_FORCE;
use crate::read::{Context, Read};
use crate::suggest;
use crate::yaml::Node;

/// `spec` of a `Rule`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Which requests: an expression; without one all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub selects: Option<String>,
    /// What is asked about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<Action>>,
}

/// Asks a handler, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Action {
    /// The handler, `name.adapter` or `name.adapter.namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// What it is asked, `name.template` or `name.template.namespace` each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<String>>,
}

impl Read for Rule {
    const WHAT: &'static str = "a mapping with `match` and `actions`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let rule = Rule { selects: fields.optional("match"), actions: fields.required("actions") };
        fields.end();
        Some(rule)
    }
}

impl Read for Action {
    const WHAT: &'static str = "a mapping with `handler` and `instances`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let action = Action { handler: fields.required("handler"), instances: fields.required("instances") };
        fields.end();
        Some(action)
    }
}

impl Rule {
    /// Checks the rule and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::Rule> {
        let tests = context.within("match", |context| {
            let text = self.selects.as_deref().unwrap_or_default();
            selection::tests(text, around, context)
        });
        let actions: Vec<RuleAction> = context.within("actions", |context| {
            if self.actions.as_ref().is_some_and(Vec::is_empty) {
                context.error_with_hint("a rule without actions does nothing", "name a handler and instances for it");
            }
            let actions = self.actions.iter().flatten().enumerate();
            actions.filter_map(|(nth, action)| context.within(nth, |context| action.mean(around, context))).collect()
        });
        let asks_roles = actions.iter().any(|action| action.adapter == Adapter::Rbac);
        if asks_roles && tests.iter().any(model::Test::is_of_request) {
            let text = self.selects.as_deref().unwrap_or_default();
            context.within("match", |context| {
                context.error_with_hint(
                    format!("asking roles about some requests to a workload only, here `{text}`, {NOT_IN_FORCE}"),
                    "select workloads, as with `destination.namespace == \"default\"`; roles say which requests they allow",
                );
            });
        }
        (context.errors() == 0).then(|| model::Rule {
            key: around.key.clone(),
            origin: around.origin.clone(),
            tests,
            actions,
        })
    }
}

/// What each adapter is asked.
const ADAPTERS: [(&str, Adapter, &str); 2] =
    [("rbac", Adapter::Rbac, "authorization"), ("denier", Adapter::Denier, "checknothing")];

impl Action {
    fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<RuleAction> {
        let text = self.handler.as_deref()?;
        let named = context.within("handler", |context| {
            let (kind, key) = reference(text, "handler.rbac", around, context)?;
            let known = ADAPTERS.iter().find(|(adapter, ..)| *adapter == kind);
            if known.is_none() {
                not_known("adapter", kind, ADAPTERS.iter().map(|(adapter, ..)| *adapter), context);
            }
            known.map(|(kind, adapter, template)| (Reference::new(kind, &key), *adapter, *template))
        });
        let (handler, adapter, template) = named?;
        let texts = self.instances.as_deref().unwrap_or_default();
        let instances = context.within("instances", |context| {
            if self.instances.is_some() && texts.is_empty() {
                context.error_with_hint("a handler that is asked nothing does nothing", "name an instance");
            }
            let each = texts.iter().enumerate();
            each.filter_map(|(nth, text)| {
                context.within(nth, |context| {
                    if texts.iter().take(nth).any(|before| before == text) {
                        context.error_with_hint(format!("`{text}` is here a second time"), "leave it out");
                    }
                    let example = if adapter == Adapter::Rbac { "context.authorization" } else { "any.checknothing" };
                    let (kind, key) = reference(text, example, around, context)?;
                    if kind != template {
                        not_known("template", kind, [template].into_iter(), context);
                        return None;
                    }
                    Some(Reference::new(template, &key))
                })
            })
            .collect()
        });
        Some(RuleAction { adapter, handler, instances })
    }
}

/// Reads `name.kind` or `name.kind.namespace`.
fn reference<'t>(
    text: &'t str,
    example: &str,
    around: &Surroundings<'_>,
    context: &mut Context<'_>,
) -> Option<(&'t str, Key)> {
    let parts: Vec<&str> = text.split('.').collect();
    let (name, kind, namespace) = match parts.as_slice() {
        [name, kind] => (*name, *kind, around.key.namespace.as_str()),
        [name, kind, namespace] => (*name, *kind, *namespace),
        _ => ("", "", ""),
    };
    if !check::is_dns_label(name) || kind.is_empty() || !check::is_dns_label(namespace) {
        context.error_with_hint(
            format!("`{text}` names nothing"),
            format!("write it like `{example}`, with its namespace behind where that is another"),
        );
        return None;
    }
    Some((kind, Key { namespace: namespace.to_owned(), name: name.to_owned() }))
}

/// Refuses an adapter or a template that is none here.
fn not_known<'k>(what: &str, kind: &str, known: impl Iterator<Item = &'k str> + Clone, context: &mut Context<'_>) {
    let here = known.clone().collect::<Vec<_>>().join(", ");
    if kinds::is_later(kind) || kinds::named(kind).is_ok_and(kinds::Kind::is_of_mixer) {
        context.error_with_hint(format!("the {what} `{kind}` here {NOT_IN_FORCE}"), format!("in force here: {here}"));
        return;
    }
    let hint =
        suggest::closest(kind, known).map_or(format!("there is {here}"), |near| format!("did you mean `{near}`?"));
    context.error_with_hint(format!("there is no {what} `{kind}`"), hint);
}
