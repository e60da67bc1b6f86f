//! EndpointSlices: the addresses behind a service, from the pods that it selects.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Controller, Key, concerns_others, key, keys};
use crate::api::object::{array, has_condition, text};
use crate::api::{Api, ApiResult, DeleteOptions, Event, Reason, Selection, Store, object};

const SLICES: &str = "endpointslices.discovery.k8s.io";
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

pub(super) struct Endpoints {
    api: Arc<Api>,
}

impl Endpoints {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }
}

impl Controller for Endpoints {
    const WATCHED: &'static [&'static str] = &["services", "pods", SLICES];

    fn all(&self) -> Vec<Key> {
        keys(self.api.store(), "services")
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        match &*event.resource {
            "services" => vec![key(&event.object)],
            SLICES => match object::label(&event.object, SERVICE) {
                Some(service) => vec![(object::namespace(&event.object).to_owned(), service.to_owned())],
                None => vec![],
            },
            _ => {
                if !concerns_others(event) {
                    return vec![];
                }
                let pods: Vec<&Value> = event.previous.iter().chain([&event.object]).map(|it| &**it).collect();
                let services =
                    self.api.store().list("services", &Selection::namespace(object::namespace(&event.object))).items;
                let selects = |service: &Value| {
                    labels_meant(service).is_some_and(|labels| pods.iter().any(|pod| has_labels(pod, labels)))
                };
                services.iter().filter(|service| selects(service)).map(|service| key(service)).collect()
            }
        }
    }

    async fn reconcile(&self, (namespace, name): &Key) -> ApiResult<()> {
        let store = self.api.store();
        let ours = Selection::namespace(namespace).with_labels(&format!("{SERVICE}={name},{MANAGED}={MANAGER}"))?;
        let present = store.list(SLICES, &ours).items;
        let wanted = match store.get("services", namespace, name) {
            Ok(service) => match selection(&service) {
                Some(selection) => slices(store, &service, &selection),
                // Whoever made the service without a selector makes its endpoints too.
                None => BTreeMap::new(),
            },
            Err(_) => BTreeMap::new(),
        };
        let is_stale = |slice: &Value| {
            wanted.get(object::name(slice)).is_none_or(|wanted| wanted["addressType"] != slice["addressType"])
        };
        let (stale, present): (Vec<_>, Vec<_>) = present.into_iter().partition(|slice| is_stale(slice));
        for slice in &stale {
            store.delete(SLICES, namespace, object::name(slice), &DeleteOptions::default())?;
        }
        for (slice_name, slice) in wanted {
            match present.iter().find(|it| object::name(it) == slice_name) {
                None => match store.create(SLICES, slice) {
                    Err(error) if error.reason != Reason::AlreadyExists => return Err(error),
                    _ => {}
                },
                Some(old) if old["endpoints"] == slice["endpoints"] && old["ports"] == slice["ports"] => {}
                Some(_) => {
                    store.patch(
                        SLICES,
                        namespace,
                        &slice_name,
                        &json!({"endpoints": slice["endpoints"], "ports": slice["ports"]}),
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// The labels of the pods that a service means; `None` when it has no selector.
fn labels_meant(service: &Value) -> Option<&Map<String, Value>> {
    let spec = service.get("spec")?;
    let labels = spec.get("selector")?.as_object().filter(|labels| !labels.is_empty())?;
    (text(spec, "/type") != "ExternalName").then_some(labels)
}

fn has_labels(pod: &Value, labels: &Map<String, Value>) -> bool {
    labels.iter().all(|(key, value)| object::label(pod, key) == value.as_str())
}

/// The pods that a service means; `None` when it has no selector.
fn selection(service: &Value) -> Option<Selection> {
    let labels = labels_meant(service)?;
    Some(Selection::namespace(object::namespace(service)).with_map(labels))
}

/// One slice per set of port numbers: pods may resolve a port's name differently.
fn slices(store: &Store, service: &Value, selection: &Selection) -> BTreeMap<String, Value> {
    let publishes_all = service["spec"]["publishNotReadyAddresses"] == true;
    let is_ipv6 = service["spec"]["ipFamilies"][0] == "IPv6";
    let address_type = if is_ipv6 { "IPv6" } else { "IPv4" };
    let mut by_ports: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in store.list("pods", selection).items {
        let address =
            array(&pod, "/status/podIPs").iter().map(|it| text(it, "/ip")).find(|it| it.contains(':') == is_ipv6);
        let Some(address) = address.filter(|_| !matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed")) else {
            continue;
        };
        let ports = ports(service, &pod);
        let endpoint = endpoint(&pod, address, publishes_all);
        by_ports.entry(ports.to_string()).or_insert_with(|| (ports, vec![])).1.push(endpoint);
    }
    if by_ports.is_empty() {
        // An empty slice tells that there are no endpoints, rather than that nobody has looked.
        by_ports.insert(String::new(), (json!([]), vec![]));
    }
    let name = object::name(service);
    let single = by_ports.len() == 1;
    by_ports
        .into_iter()
        .map(|(ports_text, (ports, endpoints))| {
            let hash = ports_text
                .bytes()
                .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            let slice_name = if single { format!("{name}-endpoints") } else { format!("{name}-{hash:08x}") };
            let metadata = json!({
                "name": slice_name, "namespace": object::namespace(service), "labels": labels(service),
                "ownerReferences": [object::controller_reference(service)],
            });
            (
                slice_name,
                json!({"metadata": metadata, "addressType": address_type, "ports": ports, "endpoints": endpoints}),
            )
        })
        .collect()
}

fn labels(service: &Value) -> Value {
    let mut labels = json!({SERVICE: object::name(service), MANAGED: MANAGER});
    if text(service, "/spec/clusterIP") == "None" {
        labels["service.kubernetes.io/headless"] = json!("");
    }
    labels
}

fn ports(service: &Value, pod: &Value) -> Value {
    let resolve = |port: &Value| {
        let number = match &port["targetPort"] {
            Value::String(name) => match name.parse::<u64>() {
                Ok(number) => json!(number),
                Err(_) => container_port(pod, name)?,
            },
            Value::Null => port["port"].clone(),
            number => number.clone(),
        };
        let mut resolved = json!({"name": text(port, "/name"), "port": number, "protocol": port["protocol"]});
        if port["appProtocol"].is_string() {
            resolved["appProtocol"] = port["appProtocol"].clone();
        }
        Some(resolved)
    };
    array(service, "/spec/ports").iter().filter_map(resolve).collect()
}

fn container_port(pod: &Value, name: &str) -> Option<Value> {
    let containers = array(pod, "/spec/containers").iter().chain(array(pod, "/spec/initContainers"));
    let mut ports = containers.flat_map(|container| array(container, "/ports"));
    ports.find(|port| text(port, "/name") == name).map(|port| port["containerPort"].clone())
}

fn endpoint(pod: &Value, address: &str, publishes_all: bool) -> Value {
    let (serving, terminating) = (has_condition(pod, "Ready"), object::is_deleting(pod));
    json!({
        "addresses": [address],
        "conditions": {"ready": publishes_all || (serving && !terminating), "serving": serving, "terminating": terminating},
        "nodeName": text(pod, "/spec/nodeName"),
        "targetRef": {"kind": "Pod", "namespace": object::namespace(pod), "name": object::name(pod), "uid": object::uid(pod)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_resolved_by_number_or_by_the_pods_name_for_it() {
        let service = json!({"spec": {"ports": [
            {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}, {"name": "x", "port": 7, "targetPort": "nothing"},
            {"name": "y", "port": 9, "targetPort": 99, "protocol": "UDP"},
        ]}});
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}});
        let expected =
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "y", "port": 99, "protocol": "UDP"}]);
        assert_eq!(ports(&service, &pod), expected);
    }

    #[test]
    fn a_terminating_pod_serves_but_is_not_ready() {
        let ready = json!({"type": "Ready", "status": "True"});
        let mut pod = json!({"metadata": {"name": "p"}, "status": {"podIP": "10.244.0.5", "conditions": [ready]}});
        assert_eq!(
            endpoint(&pod, "10.244.0.5", false)["conditions"],
            json!({"ready": true, "serving": true, "terminating": false})
        );
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(
            endpoint(&pod, "10.244.0.5", false)["conditions"],
            json!({"ready": false, "serving": true, "terminating": true})
        );
    }
}
