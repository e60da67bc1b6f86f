//! How configuration names services: `IstioService`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Surroundings, check};
use crate::model::{Host, Source};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// The name of a service, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IstioService {
    /// Short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace; the object's own if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What follows the namespace, instead of `svc.` and the cluster's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The whole name, instead of all of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Labels of some of its workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

impl Read for IstioService {
    const WHAT: &'static str = "a service such as `{name: reviews}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let service = IstioService {
            name: fields.optional("name"),
            namespace: fields.optional("namespace"),
            domain: fields.optional("domain"),
            service: fields.optional("service"),
            labels: fields.optional("labels"),
        };
        fields.end();
        Some(service)
    }
}

impl IstioService {
    /// Checks the parts of the name and the labels; says whether they are good.
    pub fn check(&self, context: &mut Context<'_>) -> bool {
        let errors = context.errors();
        let (name, service) = (filled(&self.name), filled(&self.service));
        match (name, service) {
            (None, None) if context.is_clean() => {
                context.error_with_hint(
                    format!("{} names no service", context.subject()),
                    "give it a `name` (or a `service`, the whole host name)",
                );
            }
            (Some(_), Some(_)) => {
                context.error_with_hint(
                    format!("{} has both `name` and `service`", context.subject()),
                    "keep one of the two",
                );
            }
            _ => {}
        }
        if let Some(service) = service {
            for (field, value) in [("namespace", &self.namespace), ("domain", &self.domain)] {
                if filled(value).is_some() {
                    context.within(field, |context| {
                        context.error(format!("`{field}` does not go with `service`, which is the whole name"));
                    });
                }
            }
            if !check::is_wildcard_domain(service) && !check::is_ipv4_range(service) {
                context.within("service", |context| {
                    context.error(format!("`service` is `{service}`, which is neither a host name nor an IPv4 range"));
                });
            }
        }
        for (field, value) in [("name", name), ("namespace", filled(&self.namespace))] {
            if let Some(value) = value.filter(|value| !check::is_dns_label(value)) {
                let hint = if field == "name" && check::is_domain(value) {
                    "use `service` for a whole host name"
                } else {
                    "names have lower-case letters, digits and dashes, at most 63"
                };
                context.within(field, |context| {
                    context.error_with_hint(format!("`{field}` is `{value}`, which cannot be a name in DNS"), hint);
                });
            }
        }
        if let Some(domain) = filled(&self.domain).filter(|domain| !check::is_domain(domain)) {
            context.within("domain", |context| context.error(format!("`domain` is `{domain}`, which is not a domain")));
        }
        if let Some(labels) = &self.labels {
            context.within("labels", |context| check::labels(labels, context));
        }
        context.errors() == errors
    }

    /// The host name that is meant, if there is one and only one.
    ///
    /// A wildcard or a range of addresses is well formed, but no route leads there yet: that is reported.
    #[must_use]
    pub fn host(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Host> {
        if let Some(service) = filled(&self.service) {
            if service.starts_with('*') || service.contains('/') {
                context.within("service", |context| {
                    context.error(format!("a wildcard or range as `service` {}", crate::problem::NOT_IN_FORCE));
                });
                return None;
            }
            return Some(Host::new(service));
        }
        let name = filled(&self.name)?;
        let namespace = filled(&self.namespace).unwrap_or(&around.key.namespace);
        Some(match filled(&self.domain) {
            Some(domain) => Host::new(&format!("{name}.{namespace}.{domain}")),
            None => Host::of_service(name, namespace, around.domain),
        })
    }

    /// The callers that are meant, in a place that selects callers.
    ///
    /// Reports what is wrong; then the answer is `None`.
    #[must_use]
    pub fn source(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Source> {
        if !self.check(context) {
            return None;
        }
        let service = self.host(around, context)?;
        Some(Source { service: Some(service), labels: self.labels.clone().unwrap_or_default() })
    }
}

fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}
