//! `AuthenticationPolicy`: how callers prove who they are.

use serde::Serialize;

use super::jwt::Jwt;
use super::rbac_config::read_one_of;
use super::{Surroundings, check};
use crate::model::{self, AuthenticationTarget, Host, MtlsMode, PortRef};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `spec` of an `AuthenticationPolicy`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationPolicy {
    /// Services that it is about; all of the namespace if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Target>>,
    /// How workloads prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<Peer>>,
    /// Whether workloads need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_is_optional: Option<bool>,
    /// How end users prove who they are: one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origins: Option<Vec<OriginMethod>>,
    /// Whether end users need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_is_optional: Option<bool>,
    /// Which of the two `request.auth.principal` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_binding: Option<String>,
}

/// A service, or some ports of it, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Short name of a service of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ports; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortSelector>>,
}

/// A port, as typed: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PortSelector {
    /// By number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One way in which workloads prove who they are, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Mutual TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
}

/// `mtls`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mtls {
    /// Whether they must; STRICT if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// The modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// They must.
    Strict,
    /// They may.
    Permissive,
    /// They do not.
    Disable,
}

/// One way in which end users prove who they are, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OriginMethod {
    /// A token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

impl Read for AuthenticationPolicy {
    const WHAT: &'static str = "a mapping with `peers` or `origins`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let policy = AuthenticationPolicy {
            targets: fields.optional("targets"),
            peers: fields.optional("peers"),
            peer_is_optional: fields.optional("peerIsOptional"),
            origins: fields.optional("origins"),
            origin_is_optional: fields.optional("originIsOptional"),
            principal_binding: fields.optional("principalBinding"),
        };
        fields.end();
        Some(policy)
    }
}

impl Read for Target {
    const WHAT: &'static str = "a target such as `{name: reviews}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let target = Target { name: fields.required("name"), ports: fields.optional("ports") };
        fields.unsupported("subset", "name the service");
        fields.end();
        Some(target)
    }
}

impl Read for PortSelector {
    const WHAT: &'static str = "a port such as `{number: 9080}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let port = PortSelector { number: fields.optional("number"), name: fields.optional("name") };
        fields.end();
        Some(port)
    }
}

impl Read for Peer {
    const WHAT: &'static str = "a way such as `{mtls: {mode: STRICT}}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        // `mtls:` with nothing after it is how the classic files say STRICT.
        let is_bare = node.field("mtls").is_some_and(Node::is_null);
        let mut fields = context.fields(node, Self::WHAT)?;
        let mtls = fields.optional("mtls").or_else(|| is_bare.then(Mtls::default));
        fields.unsupported("jwt", "tokens are of end users: write it below `origins`");
        if mtls.is_none() && !fields.has("mtls") && !fields.has("jwt") {
            fields.context().error_with_hint("this way is none", "write `mtls: {mode: STRICT}`");
        }
        fields.end();
        Some(Peer { mtls })
    }
}

impl Read for Mtls {
    const WHAT: &'static str = "a mapping with `mode`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let mtls = Mtls { mode: fields.optional("mode") };
        fields.unsupported("allowTls", "TLS without a client's certificate proves nothing: use `mode`");
        fields.end();
        Some(mtls)
    }
}

impl Read for Mode {
    const WHAT: &'static str = "STRICT, PERMISSIVE or DISABLE";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        const NAMES: [(&str, Mode); 3] =
            [("STRICT", Mode::Strict), ("PERMISSIVE", Mode::Permissive), ("DISABLE", Mode::Disable)];
        read_one_of(&NAMES, Self::WHAT, node, context)
    }
}

impl Read for OriginMethod {
    const WHAT: &'static str = "a way such as `{jwt: {issuer: …}}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let origin = OriginMethod { jwt: fields.required("jwt") };
        fields.end();
        Some(origin)
    }
}

impl AuthenticationPolicy {
    /// Checks the policy and says what it means, with `context` looking at `spec`.
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::AuthenticationPolicy> {
        let targets = context.within("targets", |context| {
            if self.targets.as_ref().is_some_and(Vec::is_empty) {
                context.warn("no target is named, so it is about every service of the namespace", "leave it out");
            }
            let targets = self.targets.iter().flatten().enumerate();
            targets.filter_map(|(nth, target)| context.within(nth, |context| target.mean(around, context))).collect()
        });
        let mtls = self.mtls(context);
        let origins = self.origins(around, context);
        if self.peers.is_none() && self.origins.is_none() && context.is_clean() {
            context.warn("this policy says nothing", "give it `peers` or `origins`");
        }
        match self.principal_binding.as_deref() {
            None | Some("USE_ORIGIN") => {}
            Some("USE_PEER") => context.not_in_force("principalBinding"),
            Some(other) => context.within("principalBinding", |context| {
                context.error_with_hint(format!("`{other}` is no binding"), "write USE_ORIGIN, or leave it out");
            }),
        }
        (context.errors() == 0).then(|| model::AuthenticationPolicy {
            key: around.key.clone(),
            origin: around.origin.clone(),
            targets,
            mtls,
            origins: self.origins.is_some().then_some(origins),
            origin_is_optional: self.origin_is_optional == Some(true),
        })
    }

    fn mtls(&self, context: &mut Context<'_>) -> Option<MtlsMode> {
        let modes = self.peers.iter().flatten().filter_map(|peer| peer.mtls.as_ref());
        let modes = modes.map(|mtls| match mtls.mode {
            None | Some(Mode::Strict) => MtlsMode::Strict,
            Some(Mode::Permissive) => MtlsMode::Permissive,
            Some(Mode::Disable) => MtlsMode::Disable,
        });
        let modes: Vec<_> = modes.collect();
        if let [first, rest @ ..] = modes.as_slice()
            && let Some(other) = rest.iter().find(|other| *other != first)
        {
            context.within("peers", |context| {
                context
                    .warn(format!("`peers` says both {first} and {other}: the stricter holds"), "keep one of the two");
            });
        }
        // The stricter holds.
        let mode = modes.into_iter().max();
        match self.peer_is_optional {
            Some(true) => mode.map(|mode| mode.min(MtlsMode::Permissive)),
            _ => mode,
        }
    }

    fn origins(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Vec<model::Jwt> {
        context.within("origins", |context| {
            let mut meant: Vec<model::Jwt> = Vec::new();
            for (nth, origin) in self.origins.iter().flatten().enumerate() {
                let Some(jwt) = &origin.jwt else { continue };
                let jwt = context.within(nth, |context| {
                    context.within("jwt", |context| {
                        if meant.iter().any(|other| Some(&other.issuer) == jwt.issuer.as_ref()) {
                            let issuer = jwt.issuer.as_deref().unwrap_or_default();
                            context.error_with_hint(
                                format!("jwt with issuer \"{issuer}\" already defined"),
                                "say everything about an issuer in one place",
                            );
                        }
                        jwt.mean(around, context)
                    })
                });
                meant.extend(jwt);
            }
            meant
        })
    }
}

impl Target {
    fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<AuthenticationTarget> {
        let name = self.name.as_ref()?;
        if !check::is_dns_label(name) {
            context.within("name", |context| {
                context.error_with_hint(
                    format!("`{name}` cannot be the name of a service"),
                    "write the short name of a service of this namespace",
                );
            });
        }
        let ports = context.within("ports", |context| {
            let ports = self.ports.iter().flatten().enumerate();
            ports.filter_map(|(nth, port)| context.within(nth, |context| port.mean(context))).collect()
        });
        Some(AuthenticationTarget { service: Host::of_service(name, &around.key.namespace, around.domain), ports })
    }
}

impl PortSelector {
    fn mean(&self, context: &mut Context<'_>) -> Option<PortRef> {
        match (self.number, &self.name) {
            (Some(number), None) => {
                let port = u16::try_from(number).ok().and_then(|number| number.try_into().ok());
                if port.is_none() {
                    context.within("number", |context| context.error(format!("{number} is no port")));
                }
                port.map(PortRef::Number)
            }
            (None, Some(name)) if !name.is_empty() => Some(PortRef::Name(name.clone())),
            (Some(_), Some(_)) => {
                context.error_with_hint("a port has both `number` and `name`", "keep one of the two");
                None
            }
            _ => {
                if context.is_clean() {
                    context.error_with_hint("a port has neither `number` nor `name`", "give it one of the two");
                }
                None
            }
        }
    }
}
