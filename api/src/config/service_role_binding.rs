//! `ServiceRoleBinding`: who has a role.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rbac_config::EnforcementMode;
use super::service_role::{bracketed, network, pattern, unknown_key};
use super::{Surroundings, check};
use crate::model::{self, AccessSubject, Pattern, SourceService, SubjectTest};
use crate::names::{CLASSIC_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `spec` of a `ServiceRoleBinding`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRoleBinding {
    /// One of these has the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subjects: Option<Vec<Subject>>,
    /// The role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_ref: Option<RoleRef>,
    /// Whether it counts, or is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<EnforcementMode>,
}

/// Somebody, as typed: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// A workload's identity, an end user, or `*` for anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A group of the end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
}

/// The name of a role, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RoleRef {
    /// `ServiceRole`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Read for ServiceRoleBinding {
    const WHAT: &'static str = "a mapping with `subjects` and `roleRef`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let binding = ServiceRoleBinding {
            subjects: fields.required("subjects"),
            role_ref: fields.required("roleRef"),
            mode: fields.optional("mode"),
        };
        fields.end();
        Some(binding)
    }
}

impl Read for Subject {
    const WHAT: &'static str = "a subject such as `{user: \"*\"}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let subject = Subject {
            user: fields.optional("user"),
            group: fields.optional("group"),
            properties: fields.optional("properties"),
        };
        fields.end();
        Some(subject)
    }
}

impl Read for RoleRef {
    const WHAT: &'static str = "a mapping with `kind: ServiceRole` and `name`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let role = RoleRef { kind: fields.required("kind"), name: fields.required("name") };
        // The object of Kubernetes' own RBAC that it is modelled on has it, and some wrote it here.
        fields.ignore("apiGroup");
        fields.end();
        Some(role)
    }
}

impl ServiceRoleBinding {
    /// Takes callers from the classic system namespace for those from the mesh's own.
    pub(super) fn in_own_namespace(&mut self) {
        let subjects = self.subjects.iter_mut().flatten();
        for (key, value) in subjects.flat_map(|subject| subject.properties.iter_mut().flatten()) {
            if ["namespace", "source.namespace"].contains(&key.as_str()) && value == CLASSIC_SYSTEM_NAMESPACE {
                SYSTEM_NAMESPACE.clone_into(value);
            }
        }
    }

    /// Checks the binding and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::ServiceRoleBinding> {
        let subjects = context.within("subjects", |context| {
            if self.subjects.as_ref().is_some_and(Vec::is_empty) {
                context.error_with_hint("a binding without subjects gives nobody the role", "add a subject");
            }
            let subjects = self.subjects.iter().flatten().enumerate();
            subjects.map(|(nth, subject)| context.within(nth, |context| subject.mean(around, context))).collect()
        });
        let role = self.role_ref.as_ref().and_then(|role| context.within("roleRef", |context| role.mean(context)));
        if context.errors() > 0 {
            return None;
        }
        Some(model::ServiceRoleBinding {
            key: around.key.clone(),
            origin: around.origin.clone(),
            subjects,
            role: role?,
            enforcement: self.mode.map(EnforcementMode::mean).unwrap_or_default(),
        })
    }
}

impl RoleRef {
    fn mean(&self, context: &mut Context<'_>) -> Option<String> {
        if let Some(kind) = self.kind.as_deref().filter(|kind| *kind != "ServiceRole") {
            context.within("kind", |context| {
                context.error_with_hint(format!("a binding gives no `{kind}`"), "write `kind: ServiceRole`");
            });
        }
        let name = self.name.as_ref()?;
        if !check::is_dns_name(name) {
            context.within("name", |context| context.error(format!("`{name}` cannot be the name of a ServiceRole")));
        }
        Some(name.clone())
    }
}

impl Subject {
    fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> AccessSubject {
        let properties = self.properties.as_ref();
        if self.user.is_none() && self.group.is_none() && properties.is_none_or(BTreeMap::is_empty) {
            if context.is_clean() {
                context.error_with_hint("a subject that says nothing is nobody", "write `user: \"*\"` for anybody");
            }
            return AccessSubject::default();
        }
        let mut tests = Vec::new();
        if let Some(text) = &self.user {
            context.within("user", |context| {
                tests.extend(pattern(text, context).and_then(|pattern| user(pattern, context)));
            });
        }
        if let Some(text) = &self.group {
            context.within("group", |context| {
                tests.extend(pattern(text, context).map(|group| SubjectTest::Claim(vec!["groups".to_owned()], group)));
            });
        }
        context.within("properties", |context| {
            for (key, text) in properties.into_iter().flatten() {
                let test = context.within(key.clone(), |context| self.property(key, text, around, context));
                tests.extend(test);
            }
        });
        AccessSubject { tests }
    }

    fn property(
        &self,
        key: &str,
        text: &str,
        around: &Surroundings<'_>,
        context: &mut Context<'_>,
    ) -> Option<SubjectTest> {
        if key == "source.ip" {
            return network(text, context).map(|network| SubjectTest::SourceIp(vec![network]));
        }
        let value = pattern(text, context)?;
        if let Some(path) = bracketed(key, "request.auth.claims") {
            return Some(SubjectTest::Claim(path.into_iter().map(str::to_owned).collect(), value));
        }
        if let Some(names) = bracketed(key, "request.headers") {
            let name = names.first()?.to_ascii_lowercase();
            return check::header_name(&name, context).then_some(SubjectTest::Header(name, value));
        }
        if bracketed(key, "source.labels").is_some() || ["app", "version"].contains(&key) {
            context.error_with_hint(
                format!("`{key}` cannot be proved by the caller: its certificate names its account, not its labels"),
                "name its account with `user`, or its namespace with the property `source.namespace`",
            );
            return None;
        }
        let claim = |name: &str, value| Some(SubjectTest::Claim(vec![name.to_owned()], value));
        match key {
            "source.namespace" | "namespace" => Some(SubjectTest::SourceNamespace(value)),
            "source.service" | "service" => {
                let namespace = self.properties.iter().flatten().find_map(|(key, text)| {
                    let is_namespace = ["source.namespace", "namespace"].contains(&key.as_str());
                    (is_namespace && !text.contains('*')).then(|| text.clone())
                });
                let namespace = namespace.unwrap_or_else(|| around.key.namespace.clone());
                Some(SubjectTest::SourceService(SourceService { name: value.map(str::to_ascii_lowercase), namespace }))
            }
            "source.principal" | "source.user" => Some(workload(&value)),
            "request.auth.principal" => Some(SubjectTest::EndUser(value)),
            "request.auth.audiences" => claim("aud", value),
            "request.auth.presenter" => claim("azp", value),
            _ => {
                unknown_key(key, &PROPERTIES, context);
                None
            }
        }
    }
}

/// The attributes that a property can be about.
const PROPERTIES: [&str; 9] = [
    "source.namespace",
    "source.service",
    "source.principal",
    "source.ip",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[NAME]",
    "request.headers[NAME]",
];

/// Who a user is: anybody; a workload if the name has the form of an identity; else an end user.
///
/// The two never meet: a token cannot make its owner a workload, as `user` means workloads alone where it has that form.
fn user(pattern: Pattern, context: &mut Context<'_>) -> Option<SubjectTest> {
    if pattern == Pattern::Any {
        return None;
    }
    let text = pattern.text();
    if text.starts_with("spiffe://") || text.contains("/ns/") || text.contains("/sa/") {
        let test = workload(&pattern);
        if let SubjectTest::Workload(Pattern::Exact(id)) = &test
            && format!("spiffe://{id}").parse::<crate::spiffe::SpiffeId>().is_err()
        {
            context.error_with_hint(
                format!("`{id}` is nobody's identity"),
                "write `<trust domain>/ns/<namespace>/sa/<service account>`",
            );
        }
        return Some(test);
    }
    Some(SubjectTest::EndUser(pattern))
}

fn workload(pattern: &Pattern) -> SubjectTest {
    SubjectTest::Workload(pattern.map(|text| text.strip_prefix("spiffe://").unwrap_or(text).to_owned()))
}
