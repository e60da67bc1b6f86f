//! Kubernetes' own objects, as far as the mesh needs to understand them.
//!
//! These are mirrors: fields that the mesh does not look at are left out, unknown ones are not its business.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::Key;

pub mod basic;
mod ingress;
mod pod;
mod service;

pub use ingress::{Backend, Ingress, IngressSpec, Path, PathType, PortRef, Rule};
pub use pod::{Container, ContainerPort, OwnerReference, Pod, PodIp, PodSpec, PodStatus};
pub use service::{Conditions, EndpointSlice, Service, ServicePort, ServiceSpec, SliceEndpoint, SlicePort, TargetRef};

/// `metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; empty for objects outside of any, and in files that leave it to the command line.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// The API server's version of the object.
    #[serde(deserialize_with = "nullable")]
    pub resource_version: String,
    /// When the object began to be deleted.
    pub deletion_timestamp: Option<String>,
    /// What the object belongs to.
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// Namespace (`default` if there is none) and name.
    #[must_use]
    pub fn key(&self) -> Key {
        let namespace = if self.namespace.is_empty() { "default" } else { &self.namespace };
        Key { namespace: namespace.to_owned(), name: self.name.clone() }
    }
}

/// Reads null as nothing, as Kubernetes does.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
