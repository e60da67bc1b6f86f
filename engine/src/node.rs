//! The id under which a proxy asks Pilot for its configuration.

use std::fmt;
use std::net::IpAddr;

use api::model::Role;

/// A proxy's id: `sidecar~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId {
    /// What the proxy does.
    pub role: Role,
    /// The pod's address.
    pub ip: IpAddr,
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The cluster's DNS domain.
    pub domain: String,
}

impl NodeId {
    /// Reads an id; `None` if it is not in this form.
    ///
    /// # Examples
    /// ```
    /// use engine::node::NodeId;
    /// let text = "sidecar~10.244.0.1~reviews-v1-x.default~default.svc.cluster.local";
    /// let id = NodeId::parse(text).unwrap();
    /// assert_eq!((id.pod.as_str(), id.namespace.as_str()), ("reviews-v1-x", "default"));
    /// assert_eq!(id.to_string(), text);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('~');
        let role = match parts.next()? {
            "sidecar" => Role::Sidecar,
            "gateway" => Role::Gateway,
            _ => return None,
        };
        let ip = parts.next()?.parse().ok()?;
        // A pod's name may have dots, a namespace has none.
        let (pod, namespace) = parts.next()?.rsplit_once('.')?;
        let domain = parts.next()?.strip_prefix(namespace)?.strip_prefix(".svc.")?;
        let is_whole = parts.next().is_none() && !pod.is_empty() && !namespace.is_empty() && !domain.is_empty();
        is_whole.then(|| NodeId {
            role,
            ip,
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            domain: domain.to_owned(),
        })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Sidecar => "sidecar",
            Role::Gateway => "gateway",
        };
        let NodeId { ip, pod, namespace, domain, .. } = self;
        write!(f, "{role}~{ip}~{pod}.{namespace}~{namespace}.svc.{domain}")
    }
}
