//! `ServiceRole`: what may be done.

use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Serialize;

use super::{Surroundings, check};
use crate::model::{self, Constraint, Host, Pattern, is_service};
use crate::read::{Context, Read};
use crate::suggest;
use crate::yaml::Node;

/// `spec` of a `ServiceRole`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceRole {
    /// One of these must allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<AccessRule>>,
}

/// One thing that may be done, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AccessRule {
    /// Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// Paths; any if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Methods; any if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// What else must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<KeyValues>>,
}

/// One attribute and the values that it may have, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeyValues {
    /// The attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

impl Read for ServiceRole {
    const WHAT: &'static str = "a mapping with `rules`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let role = ServiceRole { rules: fields.required("rules") };
        fields.end();
        Some(role)
    }
}

impl Read for AccessRule {
    const WHAT: &'static str = "a mapping with `services`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let rule = AccessRule {
            services: fields.required("services"),
            paths: fields.optional("paths"),
            methods: fields.optional("methods"),
            constraints: fields.optional("constraints"),
        };
        fields.end();
        Some(rule)
    }
}

impl Read for KeyValues {
    const WHAT: &'static str = "a mapping with `key` and `values`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let pair = KeyValues { key: fields.required("key"), values: fields.required("values") };
        fields.end();
        Some(pair)
    }
}

impl ServiceRole {
    /// Checks the role and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::ServiceRole> {
        let rules = context.within("rules", |context| {
            if self.rules.as_ref().is_some_and(Vec::is_empty) {
                context.error_with_hint("a role without rules allows nothing", "give it a rule with `services`");
            }
            let rules = self.rules.iter().flatten().enumerate();
            rules.map(|(nth, rule)| context.within(nth, |context| rule.mean(around, context))).collect()
        });
        (context.errors() == 0).then(|| model::ServiceRole {
            key: around.key.clone(),
            origin: around.origin.clone(),
            rules,
        })
    }
}

impl AccessRule {
    fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> model::AccessRule {
        if self.services.as_ref().is_some_and(Vec::is_empty) {
            context.error_with_hint("a rule without services allows nothing", "name services, or `*` for all");
        }
        let services = patterns("services", self.services.as_deref(), context, |pattern, context| {
            let pattern = pattern.map(str::to_ascii_lowercase);
            is_of_namespace(&pattern, around, context);
            Some(pattern)
        });
        let paths = patterns("paths", self.paths.as_deref(), context, path);
        let methods = patterns("methods", self.methods.as_deref(), context, method);
        let constraints = self.constraints.iter().flatten().enumerate();
        let constraints = context.within("constraints", |context| {
            constraints.filter_map(|(nth, pair)| context.within(nth, |context| pair.mean(context))).collect()
        });
        // Any among others is any.
        let unless_any = |list: Vec<Pattern>| if list.contains(&Pattern::Any) { Vec::new() } else { list };
        model::AccessRule { services, paths: unless_any(paths), methods: unless_any(methods), constraints }
    }
}

/// Reads the patterns of a field; `check` looks at each of them.
pub(super) fn patterns(
    field: &'static str,
    texts: Option<&[String]>,
    context: &mut Context<'_>,
    check: impl Fn(Pattern, &mut Context<'_>) -> Option<Pattern>,
) -> Vec<Pattern> {
    context.within(field, |context| {
        if texts.is_some_and(<[String]>::is_empty) && field != "services" {
            context.error_with_hint(format!("`{field}` is empty, so nothing is allowed"), "leave it out for any");
        }
        let texts = texts.unwrap_or_default().iter().enumerate();
        texts
            .filter_map(|(nth, text)| {
                context.within(nth, |context| pattern(text, context).and_then(|pattern| check(pattern, context)))
            })
            .collect()
    })
}

/// Reads one pattern.
pub(super) fn pattern(text: &str, context: &mut Context<'_>) -> Option<Pattern> {
    if text.is_empty() {
        context.error_with_hint(format!("{} is the empty text", context.subject()), "write `*` for any");
        return None;
    }
    let pattern = Pattern::parse(text);
    if pattern.is_none() {
        context.error_with_hint(
            format!("`{text}` has a star in the middle, or more than one"),
            "a star stands at the beginning or at the end, for any text there",
        );
    }
    pattern
}

/// Warns where a role names a service of another namespace, for which it does not speak.
fn is_of_namespace(pattern: &Pattern, around: &Surroundings<'_>, context: &mut Context<'_>) {
    let Pattern::Exact(name) = pattern else { return };
    let namespace = &around.key.namespace;
    let mut parts = name.splitn(3, '.');
    let (short, second) = (parts.next().unwrap_or_default(), parts.next());
    let own = Host::of_service(short, namespace, around.domain);
    if !is_service(pattern, &own, short) && second.is_some() {
        context.warn(
            format!("a role of namespace `{namespace}` does not speak for `{name}`"),
            format!("write `{short}` or `{own}`, or put the role into that service's namespace"),
        );
    }
}

/// Checks a pattern of paths: one that no path in canonical form can have is refused.
pub(super) fn path(pattern: Pattern, context: &mut Context<'_>) -> Option<Pattern> {
    let text = pattern.text();
    if matches!(pattern, Pattern::Exact(_) | Pattern::Prefix(_)) && !text.starts_with('/') {
        context.error_with_hint(format!("no path begins with `{text}`"), format!("write `/{text}`, or `*{text}`"));
        return None;
    }
    if text.contains(['?', '#']) {
        context.error_with_hint(
            format!("`{pattern}` has a query or fragment, which are not looked at"),
            "leave out what begins with `?` or `#`",
        );
        return None;
    }
    let is_canonical = !text.contains("//")
        && !text.contains("/./")
        && !text.contains("/../")
        && !text.contains('\\')
        && !text.ends_with("/.")
        && !text.ends_with("/..")
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_canonical {
        context.error_with_hint(
            format!("no request's path is `{pattern}` when it is compared"),
            "paths are compared in one form: one slash, no `.` or `..`, no backslash, other characters escaped as `%C3%A9`",
        );
        return None;
    }
    Some(pattern)
}

/// Checks a pattern of methods.
pub(super) fn method(pattern: Pattern, context: &mut Context<'_>) -> Option<Pattern> {
    let text = pattern.text();
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte)) {
        context.error(format!("`{pattern}` is no method"));
        return None;
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        context.warn(format!("no client sends the method `{pattern}`"), format!("write `{upper}`"));
    }
    Some(pattern)
}

/// The attributes that a constraint can be about.
const KEYS: [&str; 7] = [
    "destination.labels[NAME]",
    "destination.ip",
    "destination.port",
    "destination.namespace",
    "destination.name",
    "destination.user",
    "request.headers[NAME]",
];

/// An attribute with names behind it: `request.headers[x]`, `destination.labels/x` or `.x`; quotes may be around names.
pub(super) fn bracketed<'k>(key: &'k str, attribute: &str) -> Option<Vec<&'k str>> {
    let rest = key.strip_prefix(attribute)?;
    if let Some(name) = rest.strip_prefix(['/', '.']) {
        return (!name.is_empty()).then(|| vec![name]);
    }
    let names: Vec<&str> = rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect();
    let names: Vec<_> = names.into_iter().map(|name| name.trim_matches(['"', '\''])).collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

impl KeyValues {
    fn mean(&self, context: &mut Context<'_>) -> Option<Constraint> {
        let key = self.key.as_deref()?;
        let texts = self.values.as_deref()?;
        let mut values = || patterns("values", Some(texts), context, |pattern, _| Some(pattern));
        let label = |name: &str, values| Some(Constraint::DestinationLabel(name.to_owned(), values));
        if let Some(names) = bracketed(key, "destination.labels") {
            return label(names.first()?, values());
        }
        if let Some(names) = bracketed(key, "request.headers") {
            let values = values();
            let name = names.first()?.to_ascii_lowercase();
            return context.within("key", |context| {
                check::header_name(&name, context).then_some(Constraint::Header(name, values))
            });
        }
        match key {
            "destination.ip" => Some(Constraint::DestinationIp(networks("values", texts, context))),
            "destination.port" => Some(Constraint::DestinationPort(ports(texts, context))),
            "destination.user" | "destination.principal" => {
                let values = values().into_iter();
                let bare = |value: Pattern| value.map(|text| text.trim_start_matches("spiffe://").to_owned());
                Some(Constraint::DestinationUser(values.map(bare).collect()))
            }
            "destination.namespace" | "destination.name" => {
                context.within("key", |context| {
                    context.error_with_hint(
                        format!("`{key}` says nothing new: a role speaks for its own namespace and its `services`"),
                        "leave the constraint out, or name the services in `services`",
                    );
                });
                None
            }
            // What the classic samples call `app` and `version` are labels of the workload that is called.
            name if !name.contains(['.', '[', ']']) => label(name, values()),
            _ => {
                context.within("key", |context| unknown_key(key, &KEYS, context));
                None
            }
        }
    }
}

/// Reports an attribute that is not among these.
pub(super) fn unknown_key(key: &str, known: &[&str], context: &mut Context<'_>) {
    let near = suggest::closest(key, known.iter().copied());
    let hint =
        near.map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
    context.error_with_hint(format!("`{key}` is no attribute that is known here"), hint);
}

/// Reads addresses and ranges of them.
pub(super) fn networks(field: &'static str, texts: &[String], context: &mut Context<'_>) -> Vec<IpNet> {
    context.within(field, |context| {
        let texts = texts.iter().enumerate();
        texts.filter_map(|(nth, text)| context.within(nth, |context| network(text, context))).collect()
    })
}

/// Reads an address or a range of them.
pub(super) fn network(text: &str, context: &mut Context<'_>) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().map(IpNet::from).ok());
    if network.is_none() {
        context.error_with_hint(
            format!("`{text}` is neither an address nor a range of them"),
            "write it like `10.0.0.1`, `10.0.0.0/8` or `fd00::/8`",
        );
    }
    network.map(|network| network.trunc())
}

fn ports(texts: &[String], context: &mut Context<'_>) -> Vec<NonZeroU16> {
    context.within("values", |context| {
        let texts = texts.iter().enumerate();
        texts
            .filter_map(|(nth, text)| {
                let port = text.parse().ok();
                if port.is_none() {
                    context.within(nth, |context| context.error(format!("`{text}` is no port")));
                }
                port
            })
            .collect()
    })
}
