//! `Ingress`, of `networking.k8s.io/v1` and of `extensions/v1beta1` alike.

use serde::Deserialize;

use super::{Metadata, nullable};
use crate::names::{INGRESS_CLASS, INGRESS_CLASS_ANNOTATION, NGINX_SSL_PASSTHROUGH, SSL_PASSTHROUGH};

/// An Ingress, of either version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "nullable")]
    pub spec: IngressSpec,
}

/// `spec` of an Ingress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// Its class.
    #[serde(deserialize_with = "nullable")]
    pub ingress_class_name: String,
    /// Where requests go that no rule takes.
    #[serde(alias = "backend")]
    pub default_backend: Option<Backend>,
    /// Its rules.
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<Rule>,
    /// Certificates for TLS that ends at the gateway; only their number is looked at.
    #[serde(deserialize_with = "nullable")]
    pub tls: Vec<serde_json::Value>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The host that it is about; empty is any.
    #[serde(deserialize_with = "nullable")]
    pub host: String,
    /// Its paths.
    #[serde(deserialize_with = "nullable")]
    pub http: Http,
}

/// The paths of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Http {
    /// Its paths.
    #[serde(deserialize_with = "nullable")]
    pub paths: Vec<Path>,
}

/// One path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Path {
    /// The path; empty is all.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// How it is compared.
    #[serde(deserialize_with = "nullable")]
    pub path_type: PathType,
    /// Where its requests go.
    pub backend: Backend,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PathType {
    /// Equal.
    Exact,
    /// Element by element.
    Prefix,
    /// As the controller likes; for us, the classic way: `/foo.*` is a prefix, all else is exact.
    #[default]
    ImplementationSpecific,
}

/// Where requests go, in either version's form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backend {
    /// The form of `v1`.
    pub service: Option<ServiceBackend>,
    /// The form of `v1beta1`.
    pub service_name: Option<String>,
    /// The form of `v1beta1`.
    pub service_port: Option<PortRef>,
}

/// A service and its port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceBackend {
    /// The service's name.
    pub name: String,
    /// Its port.
    pub port: ServiceBackendPort,
}

/// A port by name or number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceBackendPort {
    /// By name.
    pub name: Option<String>,
    /// By number.
    pub number: Option<u16>,
}

/// A port by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

impl Ingress {
    /// Whether the Ingress is of the mesh's class, by field or by annotation.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let annotation = self.metadata.annotations.get(INGRESS_CLASS_ANNOTATION).map(String::as_str);
        // The annotation wins where both are, as Kubernetes says.
        annotation.unwrap_or(&self.spec.ingress_class_name) == INGRESS_CLASS
    }

    /// Whether TLS passes through to its services, by our annotation or by nginx's.
    ///
    /// # Errors
    ///
    /// The annotation, and its value, where that is neither `true` nor `false`.
    pub fn passes_tls(&self) -> Result<bool, (&'static str, &str)> {
        let annotations = &self.metadata.annotations;
        let said =
            [SSL_PASSTHROUGH, NGINX_SSL_PASSTHROUGH].into_iter().find_map(|key| Some((key, annotations.get(key)?)));
        match said.map(|(key, value)| (key, value.as_str())) {
            None | Some((_, "false")) => Ok(false),
            Some((_, "true")) => Ok(true),
            Some(wrong) => Err(wrong),
        }
    }
}

impl Backend {
    /// The service's name and port, whichever form they are in.
    #[must_use]
    pub fn target(&self) -> Option<(&str, PortRef)> {
        if let Some(service) = &self.service {
            let port = match (&service.port.number, &service.port.name) {
                (Some(number), _) => PortRef::Number(*number),
                (None, Some(name)) => PortRef::Name(name.clone()),
                (None, None) => return None,
            };
            return Some((&service.name, port));
        }
        Some((self.service_name.as_deref()?, self.service_port.clone()?))
    }
}
