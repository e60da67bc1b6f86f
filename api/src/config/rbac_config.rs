//! `RbacConfig`: where roles are in force, and whether what they do not allow is refused.

use serde::Serialize;

use super::{Surroundings, check};
use crate::model::{self, Enforcement, Host, RbacMode};
use crate::names::{CLASSIC_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};
use crate::read::{Context, Read};
use crate::suggest;
use crate::yaml::{Node, Value};

/// `spec` of an `RbacConfig`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RbacConfig {
    /// Where roles are in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What is included with `ON_WITH_INCLUSION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inclusion: Option<Target>,
    /// What is excluded with `ON_WITH_EXCLUSION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusion: Option<Target>,
    /// Whether what no role allows is refused, or only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement_mode: Option<EnforcementMode>,
}

/// Services and namespaces, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Services by host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// Namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
}

/// The modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// Nowhere.
    Off,
    /// Everywhere.
    On,
    /// In what is included.
    OnWithInclusion,
    /// In all but what is excluded.
    OnWithExclusion,
}

/// Whether a policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EnforcementMode {
    /// It counts.
    Enforced,
    /// A dry run.
    Permissive,
}

/// Reads one of the names of an enumeration, or its number, as protobuf's JSON has both.
pub(super) fn read_one_of<T: Copy>(
    names: &[(&str, T)],
    what: &'static str,
    node: &Node,
    context: &mut Context<'_>,
) -> Option<T> {
    let found = match &node.value {
        Value::String(text) => names.iter().find(|(name, _)| name == text),
        Value::Number(number) => number.as_u64().and_then(|nth| names.get(usize::try_from(nth).ok()?)),
        // YAML 1.1 reads `ON` and `OFF` as truth values, and so do programs that write it.
        Value::Bool(value) => names.iter().find(|(name, _)| *name == if *value { "ON" } else { "OFF" }),
        _ => None,
    };
    if found.is_none() {
        let message = format!("{} must be {what}", context.subject());
        let near = node.text().and_then(|text| {
            let upper = text.to_ascii_uppercase();
            suggest::closest(&upper, names.iter().map(|(name, _)| *name))
        });
        match near {
            Some(meant) => context.error_with_hint(message, format!("did you mean `{meant}`?")),
            None => context.error(message),
        }
    }
    found.map(|(_, value)| *value)
}

impl Read for Mode {
    const WHAT: &'static str = "OFF, ON, ON_WITH_INCLUSION or ON_WITH_EXCLUSION";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        const NAMES: [(&str, Mode); 4] = [
            ("OFF", Mode::Off),
            ("ON", Mode::On),
            ("ON_WITH_INCLUSION", Mode::OnWithInclusion),
            ("ON_WITH_EXCLUSION", Mode::OnWithExclusion),
        ];
        read_one_of(&NAMES, Self::WHAT, node, context)
    }
}

impl Read for EnforcementMode {
    const WHAT: &'static str = "ENFORCED or PERMISSIVE";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        const NAMES: [(&str, EnforcementMode); 2] =
            [("ENFORCED", EnforcementMode::Enforced), ("PERMISSIVE", EnforcementMode::Permissive)];
        read_one_of(&NAMES, Self::WHAT, node, context)
    }
}

impl EnforcementMode {
    pub(super) fn mean(self) -> Enforcement {
        match self {
            EnforcementMode::Enforced => Enforcement::Enforced,
            EnforcementMode::Permissive => Enforcement::Permissive,
        }
    }
}

impl Read for Target {
    const WHAT: &'static str = "a mapping with `services` or `namespaces`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let target = Target { services: fields.optional("services"), namespaces: fields.optional("namespaces") };
        fields.end();
        Some(target)
    }
}

impl Read for RbacConfig {
    const WHAT: &'static str = "a mapping with `mode`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let config = RbacConfig {
            mode: fields.required("mode"),
            inclusion: fields.optional("inclusion"),
            exclusion: fields.optional("exclusion"),
            enforcement_mode: fields.optional("enforcementMode"),
        };
        fields.end();
        Some(config)
    }
}

impl RbacConfig {
    /// Checks the object and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::RbacConfig> {
        let key = &around.key;
        if key.name != model::RbacConfig::NAME {
            context.error_with_hint(
                format!("an RbacConfig named `{}` is in force nowhere", key.name),
                format!("there is one for the mesh, and its name is `{}`", model::RbacConfig::NAME),
            );
        }
        if ![SYSTEM_NAMESPACE, CLASSIC_SYSTEM_NAMESPACE].contains(&key.namespace.as_str()) {
            context.error_with_hint(
                format!("an RbacConfig in namespace `{}` is in force nowhere", key.namespace),
                format!("it is the mesh's: put it into namespace `{SYSTEM_NAMESPACE}`"),
            );
        }
        let scope = |field, target: &Option<Target>, wanted, context: &mut Context<'_>| {
            let target = target.as_ref();
            if target.is_some() && self.mode.is_some_and(|mode| mode != wanted) {
                context.within(field, |context| {
                    context.warn(format!("`{field}` does nothing in this mode"), "leave it out, or change `mode`");
                });
            }
            if target.is_none_or(Target::is_empty) && self.mode == Some(wanted) {
                context.warn(
                    format!("nothing is named in `{field}`"),
                    format!("name services or namespaces in `{field}`, or say ON or OFF"),
                );
            }
            target.map(|target| context.within(field, |context| target.mean(around, context))).unwrap_or_default()
        };
        let inclusion = scope("inclusion", &self.inclusion, Mode::OnWithInclusion, context);
        let exclusion = scope("exclusion", &self.exclusion, Mode::OnWithExclusion, context);
        if context.errors() > 0 {
            return None;
        }
        Some(model::RbacConfig {
            key: key.clone(),
            origin: around.origin.clone(),
            mode: match self.mode? {
                Mode::Off => RbacMode::Off,
                Mode::On => RbacMode::On,
                Mode::OnWithInclusion => RbacMode::OnWithInclusion,
                Mode::OnWithExclusion => RbacMode::OnWithExclusion,
            },
            inclusion,
            exclusion,
            enforcement: self.enforcement_mode.map(EnforcementMode::mean).unwrap_or_default(),
        })
    }
}

impl Target {
    fn is_empty(&self) -> bool {
        self.services.as_ref().is_none_or(Vec::is_empty) && self.namespaces.as_ref().is_none_or(Vec::is_empty)
    }

    fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> model::Scope {
        let mut scope = model::Scope::default();
        for (nth, name) in self.services.iter().flatten().enumerate() {
            context.within("services", |context| {
                context.within(nth, |context| scope.services.extend(host(name, around, context)));
            });
        }
        for (nth, name) in self.namespaces.iter().flatten().enumerate() {
            context.within("namespaces", |context| {
                context.within(nth, |context| {
                    if check::is_dns_label(name) {
                        scope.namespaces.push(name.clone());
                    } else {
                        context.error_with_hint(
                            format!("`{name}` cannot be the name of a namespace"),
                            "name each namespace in full; a star is not understood here",
                        );
                    }
                });
            });
        }
        scope
    }
}

/// The host that a name means, which must say its namespace as the object speaks for all of them.
fn host(name: &str, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Host> {
    if !check::is_domain(name) || !name.contains('.') {
        context.error_with_hint(
            format!("`{name}` does not name one service"),
            format!("write its host name, as `reviews.default.svc.{}`", around.domain),
        );
        return None;
    }
    let host = Host::new(name);
    let parts: Vec<&str> = host.as_str().split('.').collect();
    Some(match parts.as_slice() {
        [service, namespace] | [service, namespace, "svc"] => Host::of_service(service, namespace, around.domain),
        _ => host,
    })
}
