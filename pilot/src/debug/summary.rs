//! `GET /v1/snapshot`: what Pilot knows, in numbers and names.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::resource::Kind;
use crate::snapshot::Snapshot;

/// A snapshot in short.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    serial: u64,
    services: Vec<Service>,
    ingresses: Vec<String>,
    objects: Vec<Object>,
    pods: usize,
    /// Number of resources by type.
    resources: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Serialize)]
struct Service {
    host: String,
    addresses: Vec<String>,
    ports: Vec<u16>,
    endpoints: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: &'static str,
    namespace: String,
    name: String,
    resource_version: String,
    accepted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl Summary {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let model = &snapshot.model;
        let services = model.services.values().map(|service| Service {
            host: service.host.to_string(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            ports: service.ports.iter().map(|port| port.number.get()).collect(),
            endpoints: model.endpoints.get(&service.host).map_or(0, |endpoints| endpoints.len()),
        });
        let objects = snapshot.objects.all().map(|(object, state)| Object {
            kind: object.resource.kind(),
            api_version: object.resource.api_version(),
            namespace: object.key.namespace.clone(),
            name: object.key.name.clone(),
            resource_version: state.resource_version.clone(),
            accepted: state.is_accepted,
            problems: state.problems.iter().map(ToString::to_string).collect(),
        });
        Summary {
            serial: snapshot.serial,
            services: services.collect(),
            ingresses: model.ingresses.keys().map(ToString::to_string).collect(),
            objects: objects.collect(),
            pods: snapshot.nodes.len(),
            resources: Kind::ALL.into_iter().map(|kind| (kind.short(), snapshot.tables.len(kind))).collect(),
        }
    }
}
