//! `Pod`.

use serde::Deserialize;

use super::{Metadata, nullable};

/// A Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "nullable")]
    pub spec: PodSpec,
    /// `status`.
    #[serde(deserialize_with = "nullable")]
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its service account.
    #[serde(deserialize_with = "nullable")]
    pub service_account_name: String,
    /// Its containers.
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    /// Containers that run before them, or beside them as native sidecars.
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
    /// Whether it is in the node's own network.
    #[serde(deserialize_with = "nullable")]
    pub host_network: bool,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Ports that it declares.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
}

/// A port that a container declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Its number.
    pub container_port: u16,
    /// `TCP` (also if empty), `UDP` or `SCTP`.
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
}

/// `status` of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// Its address.
    #[serde(rename = "podIP", deserialize_with = "nullable")]
    pub pod_ip: String,
    /// All its addresses.
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
}

/// An address of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// What an object belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it is the one that manages the object.
    #[serde(deserialize_with = "nullable")]
    pub controller: bool,
}

impl Pod {
    /// What owns the pod: the Deployment rather than its `ReplicaSet`, the `CronJob` rather than its Job, else the
    /// pod itself.
    #[must_use]
    pub fn owner(&self) -> String {
        let owners = &self.metadata.owner_references;
        let Some(owner) = owners.iter().find(|owner| owner.controller).or_else(|| owners.first()) else {
            return self.metadata.name.clone();
        };
        let name = owner.name.as_str();
        let parent = match owner.kind.as_str() {
            "ReplicaSet" => {
                let hash = self.metadata.labels.get("pod-template-hash").map_or("", String::as_str);
                name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')).filter(|_| !hash.is_empty())
            }
            // A CronJob appends the scheduled minute to its name.
            "Job" => name
                .rsplit_once('-')
                .filter(|(_, minute)| minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit()))
                .map(|(parent, _)| parent),
            _ => None,
        };
        parent.unwrap_or(name).to_owned()
    }

    /// Whether the pod has ended for good.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }
}
