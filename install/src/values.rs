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
    /// Replicas of Pilot.
    pub pilot_replicas: u32,
    /// Replicas of the ingress gateway; 0 leaves it out.
    pub gateway_replicas: u32,
    /// Pilot's serving certificate, made at install.
    pub certificate: PilotCertificate,
}

impl Values {
    /// The defaults, for images of `version` and with `certificate`.
    #[must_use]
    pub fn new(version: &str, certificate: PilotCertificate) -> Self {
        Values {
            version: version.to_owned(),
            images: Images::of_version(version),
            domain: api::names::DEFAULT_DOMAIN.to_owned(),
            trust_domain: api::names::DEFAULT_TRUST_DOMAIN.to_owned(),
            pilot_replicas: 1,
            gateway_replicas: 1,
            certificate,
        }
    }

    /// The names that Pilot's certificate must be valid for.
    #[must_use]
    pub fn pilot_dns_names(domain: &str) -> Vec<String> {
        let (name, namespace) = (api::names::PILOT, api::names::SYSTEM_NAMESPACE);
        vec![
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
            format!("{name}.{namespace}"),
        ]
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
}

impl Images {
    /// `mesh/proxy`, `mesh/init` and `mesh/pilot`, tagged with `version`.
    #[must_use]
    pub fn of_version(version: &str) -> Self {
        Images {
            proxy: format!("mesh/proxy:{version}"),
            init: format!("mesh/init:{version}"),
            pilot: format!("mesh/pilot:{version}"),
        }
    }
}

/// Pilot's serving certificate with the root that vouches for it, all PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct PilotCertificate {
    /// The root, which goes into webhook configurations and injected pods.
    pub ca: String,
    /// The certificate chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for PilotCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PilotCertificate").finish_non_exhaustive()
    }
}
