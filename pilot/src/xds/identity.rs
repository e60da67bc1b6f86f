//! Which proxy a stream belongs to: what it says of itself, held against its token.

use std::net::IpAddr;

use api::model::{Key, Role};
use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};

use crate::auth::Caller;

/// Longest node id that is looked at.
const LONGEST_ID: usize = 1024;

/// A proxy as it introduces itself: `sidecar~10.244.0.7~reviews-v1-0.default~default.svc.cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What it does.
    pub role: Role,
    /// Its address.
    pub address: IpAddr,
    /// Its pod.
    pub pod: Key,
    /// Version of its binary, or of Envoy.
    pub version: String,
}

/// Why a proxy is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistaken {
    /// The first request says nothing of who asks.
    #[error("the first request has no node id; it is `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`")]
    Anonymous,
    /// The id cannot be read.
    #[error("the node id {id:?} is not `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN` (or `gateway~…`)")]
    Unreadable {
        /// As given, shortened.
        id: String,
    },
    /// The token is somebody else's.
    #[error("the node id is of pod {asked}, but the token belongs to {holder}")]
    NotYours {
        /// The pod that it says it is.
        asked: Key,
        /// Whose token it is.
        holder: String,
    },
}

impl Identity {
    /// Reads what a proxy says of itself.
    ///
    /// # Errors
    ///
    /// When it says nothing, or nonsense.
    pub fn read(node: Option<&Node>) -> Result<Self, Mistaken> {
        let node = node.filter(|node| !node.id.is_empty()).ok_or(Mistaken::Anonymous)?;
        let unreadable = || Mistaken::Unreadable { id: node.id.chars().take(80).collect() };
        if node.id.len() > LONGEST_ID {
            return Err(unreadable());
        }
        let mut parts = node.id.splitn(4, '~');
        let (Some(role), Some(address), Some(pod), Some(_domain)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(unreadable());
        };
        let role = match role {
            "sidecar" => Role::Sidecar,
            "gateway" => Role::Gateway,
            _ => return Err(unreadable()),
        };
        let address = address.parse().map_err(|_| unreadable())?;
        let (name, namespace) = pod.rsplit_once('.').ok_or_else(unreadable)?;
        if name.is_empty() || namespace.is_empty() {
            return Err(unreadable());
        }
        let pod = Key { namespace: namespace.to_owned(), name: name.to_owned() };
        Ok(Identity { role, address, pod, version: version(node) })
    }

    /// Holds it against the token.
    ///
    /// # Errors
    ///
    /// When the token is not this pod's.
    pub fn check(&self, caller: &Caller) -> Result<(), Mistaken> {
        let is_own = caller.namespace == self.pod.namespace && caller.pod.as_deref() == Some(&*self.pod.name);
        if is_own {
            return Ok(());
        }
        let holder = match &caller.pod {
            Some(pod) => format!("pod {}/{pod}", caller.namespace),
            None => format!("service account {}/{}, bound to no pod", caller.namespace, caller.service_account),
        };
        Err(Mistaken::NotYours { asked: self.pod.clone(), holder })
    }

    /// `pod.namespace`, as messages and the CLI name a proxy.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}", self.pod.name, self.pod.namespace)
    }

    /// `sidecar` or `gateway`.
    #[must_use]
    pub const fn role(&self) -> &'static str {
        match self.role {
            Role::Sidecar => "sidecar",
            Role::Gateway => "gateway",
        }
    }
}

fn version(node: &Node) -> String {
    let text = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            let number = build.version.unwrap_or_default();
            format!("{}.{}.{}", number.major_number, number.minor_number, number.patch)
        }
        None => String::new(),
    };
    let agent = if node.user_agent_name == "mesh-proxy" { "" } else { node.user_agent_name.as_str() };
    format!("{agent} {text}").trim().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.to_owned(), ..Node::default() }
    }

    #[test]
    fn a_proxy_says_who_it_is() {
        let identity = Identity::read(Some(&node("sidecar~10.244.0.7~web.v1-0.default~default.svc.cluster.local")));
        let identity = identity.expect("reads");
        assert_eq!(identity.pod, Key { namespace: "default".to_owned(), name: "web.v1-0".to_owned() });
        assert_eq!((identity.id().as_str(), identity.role()), ("web.v1-0.default", "sidecar"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Identity::read(None), Err(Mistaken::Anonymous));
        for id in ["x", "router~10.0.0.1~a.b~c", "sidecar~x~a.b~c", "sidecar~10.0.0.1~ab~c", "sidecar~10.0.0.1~.b~c"] {
            assert!(matches!(Identity::read(Some(&node(id))), Err(Mistaken::Unreadable { .. })), "{id}");
        }
    }

    #[test]
    fn a_pod_cannot_be_another_pod() {
        let identity = Identity::read(Some(&node("sidecar~10.0.0.1~a.default~x"))).expect("reads");
        let caller = |namespace: &str, pod: Option<&str>| Caller {
            namespace: namespace.to_owned(),
            service_account: "sa".to_owned(),
            pod: pod.map(str::to_owned),
        };
        assert_eq!(identity.check(&caller("default", Some("a"))), Ok(()));
        for (namespace, pod, expected) in [
            ("default", Some("b"), "the node id is of pod default/a, but the token belongs to pod default/b"),
            ("other", Some("a"), "the node id is of pod default/a, but the token belongs to pod other/a"),
            (
                "default",
                None,
                "the node id is of pod default/a, but the token belongs to service account default/sa, bound to no pod",
            ),
        ] {
            assert_eq!(identity.check(&caller(namespace, pod)).expect_err("is refused").to_string(), expected);
        }
    }
}
