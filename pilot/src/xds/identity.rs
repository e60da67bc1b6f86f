//! Which proxy a stream belongs to: what it says of itself, held against its token.

use std::net::IpAddr;

use api::messages::{SvidStatus, TrafficStatus, node_metadata as field};
use api::model::{Key, MeshTls, Role};
use api::spiffe::SpiffeId;
use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use envoy_types::pb::google::protobuf::value::Kind;
use runtime::token::{Caller, Refusal};
use tonic::Status;

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
    /// Whether it takes part in mutual TLS.
    pub tls: MeshTls,
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

/// What a proxy has shown of itself when it opened the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is.
    pub caller: Caller,
    /// What it was.
    pub proof: Proof,
}

/// What proves who a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A token, as at the first contact.
    Token,
    /// A token, and an SVID of the same account.
    Both,
    /// An SVID; the token cannot be checked now.
    Svid,
}

impl Shown {
    /// Joins what the token proves with what the SVID does.
    ///
    /// # Errors
    ///
    /// When nothing is proved, or two different identities are.
    pub fn of(token: Result<Caller, Refusal>, svid: Option<SpiffeId>) -> Result<Self, Status> {
        let account = svid.as_ref().map(SpiffeId::account);
        match (token, account) {
            (Ok(caller), None) => Ok(Shown { caller, proof: Proof::Token }),
            (Ok(caller), Some(account)) => {
                if account == Some((&*caller.namespace, &*caller.service_account)) {
                    return Ok(Shown { caller, proof: Proof::Both });
                }
                let (namespace, name) = (caller.namespace, caller.service_account);
                let svid = svid.map(|id| id.to_string()).unwrap_or_default();
                Err(Status::permission_denied(format!("the token is of {namespace}/{name}, but the SVID of {svid}")))
            }
            // Proxies are served on while the API server is away.
            (Err(Refusal::Unavailable { .. }), Some(Some((namespace, account)))) => {
                let caller = Caller { namespace: namespace.to_owned(), service_account: account.to_owned(), pod: None };
                Ok(Shown { caller, proof: Proof::Svid })
            }
            (Err(refusal @ Refusal::Unavailable { .. }), _) => Err(Status::unavailable(refusal.to_string())),
            (Err(refusal), _) => Err(Status::unauthenticated(refusal.to_string())),
        }
    }
}

/// The identity that a proxy tells of in its node, if it is the account's that it has proved to be of.
#[must_use]
pub fn svid(node: &Node, shown: &Shown) -> Option<SvidStatus> {
    let fields = &node.metadata.as_ref()?.fields;
    let text = |name: &str, longest: usize| match fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) if text.len() <= longest && !text.contains(char::is_control) => Some(text.clone()),
        _ => None,
    };
    let id: SpiffeId = text(field::SVID, 2048)?.parse().ok()?;
    let is_own = id.account() == Some((&*shown.caller.namespace, &*shown.caller.service_account));
    is_own.then(|| SvidStatus {
        id: id.to_string(),
        serial: text(field::SVID_SERIAL, 64).unwrap_or_default(),
        since: text(field::SVID_SINCE, 32).unwrap_or_default(),
        not_after: text(field::SVID_NOT_AFTER, 32).unwrap_or_default(),
        bundle: text(field::BUNDLE, 32).unwrap_or_default(),
        issuer: text(field::SVID_ISSUER, 128).unwrap_or_default(),
        is_shown: shown.proof != Proof::Token,
    })
}

/// How much of its traffic is by mutual TLS, as the proxy tells it.
#[must_use]
pub fn traffic(node: &Node) -> Option<TrafficStatus> {
    let fields = &node.metadata.as_ref()?.fields;
    let number = |name: &str| match fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => text.parse().ok(),
        _ => None,
    };
    let mutual_tls = number(field::TRAFFIC_MUTUAL_TLS)?;
    Some(TrafficStatus { mutual_tls, clear_text: number(field::TRAFFIC_CLEAR_TEXT)? })
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
        Ok(Identity { role, address, pod, version: version(node), tls: tls(node) })
    }

    /// Holds it against what the proxy has shown. `account` is the service account of the pod, if the pod is known: an
    /// SVID is of an account, and not of one of its pods.
    ///
    /// # Errors
    ///
    /// When the token, or the SVID, is not this pod's.
    pub fn check(&self, shown: &Shown, account: Option<&str>) -> Result<(), Mistaken> {
        let caller = &shown.caller;
        let is_pod = match shown.proof {
            Proof::Token | Proof::Both => caller.pod.as_deref() == Some(&*self.pod.name),
            Proof::Svid => account == Some(caller.service_account.as_str()),
        };
        if caller.namespace == self.pod.namespace && is_pod {
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

/// What a proxy says of mutual TLS. Who says nothing has no part in it.
fn tls(node: &Node) -> MeshTls {
    let said = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(field::TLS)?.kind.as_ref());
    match said {
        Some(Kind::StringValue(text)) if text == field::TLS_OWN => MeshTls::Own,
        Some(Kind::StringValue(text)) if text == field::TLS_SDS => MeshTls::Sds,
        _ => MeshTls::None,
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
        let caller = |namespace: &str, pod: Option<&str>| Shown {
            caller: Caller {
                namespace: namespace.to_owned(),
                service_account: "sa".to_owned(),
                pod: pod.map(str::to_owned),
            },
            proof: Proof::Token,
        };
        assert_eq!(identity.check(&caller("default", Some("a")), None), Ok(()));
        let svid = |namespace: &str| Shown { proof: Proof::Svid, ..caller(namespace, None) };
        assert_eq!(identity.check(&svid("default"), Some("sa")), Ok(()), "an SVID is for all pods of its account");
        assert!(identity.check(&svid("default"), Some("other")).is_err());
        assert!(identity.check(&svid("default"), None).is_err(), "a pod that nobody knows");
        assert!(identity.check(&svid("other"), Some("sa")).is_err());
        for (namespace, pod, expected) in [
            ("default", Some("b"), "the node id is of pod default/a, but the token belongs to pod default/b"),
            ("other", Some("a"), "the node id is of pod default/a, but the token belongs to pod other/a"),
            (
                "default",
                None,
                "the node id is of pod default/a, but the token belongs to service account default/sa, bound to no pod",
            ),
        ] {
            assert_eq!(identity.check(&caller(namespace, pod), None).expect_err("is refused").to_string(), expected);
        }
    }

    #[test]
    fn cve_2021_34824_what_is_shown_must_be_of_one_account() {
        let caller = || Caller { namespace: "default".to_owned(), service_account: "sa".to_owned(), pod: None };
        let id = |text: &str| Some(text.parse::<SpiffeId>().expect("an identity"));
        let own = "spiffe://cluster.local/ns/default/sa/sa";
        let away = || Refusal::Unavailable { reason: "no answer".to_owned() };
        let proof = |token, svid| Shown::of(token, svid).map(|shown| shown.proof).map_err(|status| status.code());
        assert_eq!(proof(Ok(caller()), None), Ok(Proof::Token));
        assert_eq!(proof(Ok(caller()), id(own)), Ok(Proof::Both));
        assert_eq!(proof(Err(away()), id(own)), Ok(Proof::Svid), "while the API server is away");
        assert_eq!(proof(Err(away()), None), Err(tonic::Code::Unavailable));
        for other in ["spiffe://cluster.local/ns/default/sa/other", "spiffe://cluster.local/some/thing"] {
            assert_eq!(proof(Ok(caller()), id(other)), Err(tonic::Code::PermissionDenied), "{other}");
        }
        let refused = Refusal::Refused { reason: "expired".to_owned() };
        assert_eq!(proof(Err(refused), id(own)), Err(tonic::Code::Unauthenticated), "a bad token is not made up for");
    }
}
