//! Services, their endpoints, and the pods behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::{Registry, protocol, put, put_shared};
use crate::kubernetes::{Conditions, EndpointSlice, Pod, Service, SliceEndpoint};
use crate::model::{
    self, Accounts, Endpoint, Health, Host, Key, Labels, MtlsMode, Port, Protocol, Resolution, Workload,
};
use crate::names::{CLASSIC_AUTH, PROXY_CONTAINER, STATUS, STATUS_MUTUAL_TLS};
use crate::problem::{Location, Problem};

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Registry {
    pub(super) fn take_service(&mut self, key: &Key, service: Option<Service>) {
        let changed = match service {
            Some(service) => {
                let changed = self.services.get(key).is_none_or(|old| {
                    old.spec != service.spec || old.metadata.annotations != service.metadata.annotations
                });
                self.services.insert(key.clone(), service);
                changed
            }
            None => self.services.remove(key).is_some(),
        };
        if changed {
            self.update_service(key);
            self.update_ingresses_of(key);
        }
    }

    pub(super) fn take_slice(&mut self, key: &Key, slice: Option<EndpointSlice>) {
        let before = match slice {
            Some(slice) => self.slices.insert(key.clone(), slice),
            None => self.slices.remove(key),
        };
        let owner = |slice: &EndpointSlice| slice.metadata.labels.get(SERVICE_NAME).cloned();
        let namespace = &key.namespace;
        let of = |name: String| Key { namespace: namespace.clone(), name };
        let old = before.as_ref().and_then(owner).map(of);
        let new = self.slices.get(key).and_then(owner).map(of);
        let mut pods: BTreeSet<Key> = before.iter().flat_map(|slice| pods_of(slice, namespace)).collect();
        pods.extend(self.slices.get(key).iter().flat_map(|slice| pods_of(slice, namespace)));
        if let Some(old) = &old
            && let Some(names) = self.slices_of.get_mut(old)
        {
            names.remove(&key.name);
            if names.is_empty() {
                self.slices_of.remove(old);
            }
        }
        if let Some(new) = &new {
            self.slices_of.entry(new.clone()).or_default().insert(key.name.clone());
        }
        for service in [old, new].into_iter().flatten().collect::<BTreeSet<_>>() {
            self.index_pods(&service, &pods);
            self.update_service(&service);
        }
    }

    /// Notes for each of the pods whether the service has it in one of its slices.
    fn index_pods(&mut self, service: &Key, pods: &BTreeSet<Key>) {
        let listed: BTreeSet<Key> =
            self.slices_of_service(service).flat_map(|slice| pods_of(slice, &service.namespace)).collect();
        for pod in pods {
            if listed.contains(pod) {
                self.services_of.entry(pod.clone()).or_default().insert(service.clone());
            } else if let Some(services) = self.services_of.get_mut(pod) {
                services.remove(service);
                if services.is_empty() {
                    self.services_of.remove(pod);
                }
            }
        }
    }

    pub(super) fn take_pod(&mut self, key: &Key, pod: Option<&Pod>) {
        let changed = match pod.filter(|pod| !pod.is_over()) {
            Some(pod) => put(&mut self.pods, key, Some(workload(pod))),
            None => self.pods.remove(key).is_some(),
        };
        if changed {
            for service in self.services_of.get(key).cloned().unwrap_or_default() {
                self.update_service(&service);
            }
        }
    }

    fn slices_of_service<'s>(&'s self, service: &'s Key) -> impl Iterator<Item = &'s EndpointSlice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(&Key { namespace: service.namespace.clone(), name: name.clone() }))
    }

    /// Brings the model's service and its endpoints up to date.
    fn update_service(&mut self, key: &Key) {
        let host = self.host(key);
        let service = self.services.get(key).map(|service| meant(service, key, &host));
        let endpoints = service.as_ref().map(|service| self.endpoints(service));
        let accounts = service.as_ref().map(|_| self.accounts(key));
        let mut changed = put_shared(&mut self.model.services, &host, service);
        changed |= put_shared(&mut self.model.accounts, &host, accounts);
        match endpoints {
            Some(endpoints) if self.model.endpoints.get(&host).is_some_and(|old| **old == *endpoints) => {}
            Some(endpoints) => {
                self.model.endpoints.insert(host, endpoints.into());
                changed = true;
            }
            None if self.model.endpoints.contains_key(&host) => {
                self.model.endpoints.remove(&host);
                changed = true;
            }
            None => {}
        }
        self.generation += u64::from(changed);
    }

    fn endpoints(&self, service: &model::Service) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for slice in self.slices_of_service(&service.key) {
            for endpoint in &slice.endpoints {
                let Some(health) = health(endpoint.conditions) else { continue };
                // Addresses of one endpoint are interchangeable; consumers are to use the first.
                let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
                let Some(address) = address else { continue };
                let workload = self.workload_at(endpoint, address, &service.key.namespace);
                for port in &slice.ports {
                    let Some(number) = port.port.and_then(NonZeroU16::new) else { continue };
                    let of_service = service
                        .ports
                        .iter()
                        .find(|known| known.name == port.name && known.protocol != Protocol::Udp)
                        .filter(|_| matches!(port.protocol.as_str(), "" | "TCP"));
                    let Some(of_service) = of_service else { continue };
                    endpoints.push(Endpoint {
                        address,
                        port: number,
                        service_port: of_service.number,
                        health,
                        workload: workload.clone(),
                    });
                }
            }
        }
        let place = |endpoint: &Endpoint| (endpoint.address, endpoint.port, endpoint.service_port);
        endpoints.sort_by_key(|endpoint| (place(endpoint), endpoint.health != Health::Ready));
        endpoints.dedup_by_key(|endpoint| place(endpoint));
        endpoints
    }

    /// The accounts of a service's pods, also of those that are not ready: what runs it does not come and go with them.
    fn accounts(&self, service: &Key) -> Accounts {
        let pods = self.slices_of_service(service).flat_map(|slice| pods_of(slice, &service.namespace));
        let workloads = pods.filter_map(|pod| self.pods.get(&pod));
        workloads
            .map(|workload| Key { namespace: workload.key.namespace.clone(), name: workload.service_account.clone() })
            .collect()
    }

    /// The pod at an address; a stand-in where there is none, or it is not known yet.
    fn workload_at(&self, endpoint: &SliceEndpoint, address: IpAddr, namespace: &str) -> Arc<Workload> {
        let pod = pod_of(endpoint, namespace);
        if let Some(workload) = pod.as_ref().and_then(|key| self.pods.get(key)) {
            return workload.clone();
        }
        let key = pod.unwrap_or_else(|| Key { namespace: namespace.to_owned(), name: address.to_string() });
        Arc::new(Workload {
            owner: key.name.clone(),
            key,
            addresses: vec![address],
            labels: Labels::new(),
            service_account: String::new(),
            ports: Vec::new(),
            has_sidecar: false,
            takes_tls: false,
        })
    }
}

fn pod_of(endpoint: &SliceEndpoint, namespace: &str) -> Option<Key> {
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod")?;
    let namespace = if target.namespace.is_empty() { namespace } else { &target.namespace };
    Some(Key { namespace: namespace.to_owned(), name: target.name.clone() })
}

fn pods_of(slice: &EndpointSlice, namespace: &str) -> Vec<Key> {
    slice.endpoints.iter().filter_map(|endpoint| pod_of(endpoint, namespace)).collect()
}

/// Whether an endpoint takes requests at all, and how readily. An unknown condition counts as ready.
fn health(conditions: Conditions) -> Option<Health> {
    if conditions.ready.unwrap_or(true) {
        return Some(Health::Ready);
    }
    let drains = conditions.terminating == Some(true) && conditions.serving == Some(true);
    drains.then_some(Health::Draining)
}

fn meant(service: &Service, key: &Key, host: &Host) -> model::Service {
    let spec = &service.spec;
    let resolution = match (spec.kind.as_str(), spec.cluster_ip.as_str()) {
        ("ExternalName", _) => Resolution::External(Host::new(&spec.external_name)),
        (_, "None") => Resolution::Headless,
        _ => Resolution::Virtual,
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in std::iter::once(&spec.cluster_ip).chain(&spec.cluster_ips).filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut ports: Vec<Port> = Vec::new();
    for port in &spec.ports {
        let Some(number) = NonZeroU16::new(port.port) else { continue };
        let mtls = annotated(service, port.port);
        let port = Port { name: port.name.clone(), number, protocol: protocol(port), mtls };
        match ports.iter_mut().find(|known| known.number == number) {
            // DNS and the like serve one number over both transports: TCP's is the mesh's.
            Some(known) if known.protocol == Protocol::Udp => *known = port,
            Some(_) => {}
            None => ports.push(port),
        }
    }
    model::Service { host: host.clone(), key: key.clone(), addresses, ports, resolution }
}

/// Whether the sidecar was injected by a version that knows of mutual TLS.
fn takes_tls(pod: &Pod) -> bool {
    let status = pod.metadata.annotations.get(STATUS).and_then(|text| serde_json::from_str(text).ok());
    status
        .is_some_and(|status: serde_json::Value| status.get(STATUS_MUTUAL_TLS) == Some(&serde_json::Value::Bool(true)))
}

/// What a Service's annotation says of a port. A value that is none says nothing; it is reported with the service.
fn annotated(service: &Service, port: u16) -> Option<MtlsMode> {
    let value = service.metadata.annotations.get(&format!("{CLASSIC_AUTH}{port}"))?;
    MtlsMode::of_classic(value)
}

/// Annotations about mutual TLS that say nothing: of another value, or of a port that the Service does not have.
pub(super) fn wrong_annotations(service: &Service, location: Option<&Location>) -> Vec<Problem> {
    let about =
        service.metadata.annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(CLASSIC_AUTH)?, value)));
    let wrong = about.filter_map(|(port, value)| {
        if MtlsMode::of_classic(value).is_none() {
            return Some((
                format!("annotation {CLASSIC_AUTH}{port} is `{value}`, which says nothing"),
                "write MUTUAL_TLS or NONE",
            ));
        }
        let has_port = service.spec.ports.iter().any(|known| known.port.to_string() == port);
        (!has_port).then(|| {
            (
                format!("annotation {CLASSIC_AUTH}{port} is about a port that the Service does not have"),
                "write the number of a port of the Service",
            )
        })
    });
    let key = service.metadata.key();
    let problems = wrong.map(|(message, hint)| {
        let problem = Problem::warning(message).in_object(format!("Service {key}")).with_hint(hint);
        match location {
            Some(location) => problem.at(location.clone()),
            None => problem,
        }
    });
    problems.collect()
}

fn workload(pod: &Pod) -> Workload {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let all = pod.status.pod_ips.iter().map(|address| &address.ip);
    for address in std::iter::once(&pod.status.pod_ip).chain(all).filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let containers = || pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let ports: BTreeSet<NonZeroU16> = pod
        .spec
        .containers
        .iter()
        .filter(|container| container.name != PROXY_CONTAINER)
        .flat_map(|container| &container.ports)
        .filter(|port| matches!(port.protocol.as_str(), "" | "TCP"))
        .filter_map(|port| NonZeroU16::new(port.container_port))
        .collect();
    let account = &pod.spec.service_account_name;
    Workload {
        key: pod.metadata.key(),
        owner: pod.owner(),
        addresses,
        labels: pod.metadata.labels.clone(),
        service_account: if account.is_empty() { "default".to_owned() } else { account.clone() },
        ports: ports.into_iter().collect(),
        has_sidecar: containers().any(|container| container.name == PROXY_CONTAINER),
        takes_tls: takes_tls(pod),
    }
}
