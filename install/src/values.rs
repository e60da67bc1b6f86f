//! What an installation can be told.

/// Everything that the manifests depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// Version of the mesh: the tag of images and the value of version labels.
    pub version: String,
    /// Where the images are.
    pub images: Images,
    /// DNS domain of the cluster.
    pub domain: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Its other names.
    pub trust_domain_aliases: Vec<String>,
    /// Whether workloads must prove who they are where no policy says anything; `None` is that they may.
    pub auth_policy: Option<AuthPolicy>,
    /// Replicas of Pilot.
    pub pilot_replicas: u32,
    /// Replicas of the ingress gateway; 0 leaves it out.
    pub gateway_replicas: u32,
    /// Replicas of the CA.
    pub ca_replicas: u32,
    /// Serving certificates of the control plane, made at install.
    pub certificates: Certificates,
}

impl Values {
    /// The defaults, for images of `version` and with `certificates`.
    #[must_use]
    pub fn new(version: &str, certificates: Certificates) -> Self {
        Values {
            version: version.to_owned(),
            images: Images::of_version(version),
            domain: api::names::DEFAULT_DOMAIN.to_owned(),
            trust_domain: api::names::DEFAULT_TRUST_DOMAIN.to_owned(),
            trust_domain_aliases: Vec::new(),
            auth_policy: None,
            pilot_replicas: 1,
            gateway_replicas: 1,
            ca_replicas: 1,
            certificates,
        }
    }

    /// The names that the certificate of a service of the control plane must be valid for.
    #[must_use]
    pub fn dns_names(name: &str, domain: &str) -> Vec<String> {
        let namespace = api::names::SYSTEM_NAMESPACE;
        vec![
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
            format!("{name}.{namespace}"),
        ]
    }
}

/// The classic `authPolicy` of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthPolicy {
    /// Workloads must prove who they are.
    MutualTls,
    /// They do not.
    None,
}

impl AuthPolicy {
    /// Its classic word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            AuthPolicy::MutualTls => "MUTUAL_TLS",
            AuthPolicy::None => "NONE",
        }
    }
}

/// References of the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Of `mesh-proxy`.
    pub proxy: String,
    /// Of the init container: any image with `nft`.
    pub init: String,
    /// Of `mesh-pilot`.
    pub pilot: String,
    /// Of `mesh-ca`.
    pub ca: String,
}

impl Images {
    /// `mesh/proxy`, `mesh/init`, `mesh/pilot` and `mesh/ca`, tagged with `version`.
    #[must_use]
    pub fn of_version(version: &str) -> Self {
        Images {
            proxy: format!("mesh/proxy:{version}"),
            init: format!("mesh/init:{version}"),
            pilot: format!("mesh/pilot:{version}"),
            ca: format!("mesh/ca:{version}"),
        }
    }
}

/// The serving certificates of the control plane. They are not the mesh's identities, which the CA issues: a proxy must
/// know whom it talks to before it has an identity, and while the roots of identities are rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The roots (PEM) that vouch for both, which go into webhook configurations and injected pods.
    pub roots: String,
    /// Pilot's.
    pub pilot: ServingCertificate,
    /// The CA's.
    pub ca: ServingCertificate,
}

/// A serving certificate with its key, PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServingCertificate {
    /// The certificate chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCertificate").finish_non_exhaustive()
    }
}
