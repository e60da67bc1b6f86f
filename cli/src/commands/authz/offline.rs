//! Callers and workloads of files: what Pilot would make of them, without a mesh.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use api::model::{Key, Mesh, Model, Node, Role};
use api::problem::{Location, any_error};
use api::registry::{Registry, Resource};
use engine::compile::Compiler;
use engine::generate;
use engine::tables::Tables;
use serde_json::{Value, json};

use super::verdict::Target;
use super::{Caller, CheckArgs, Question, Service, identity, simple_caller, with_namespace};
use crate::app::App;
use crate::error::Error;
use crate::objects;
use crate::resources::{name_of, namespace_of, text};

/// Reads the files and finds in them who calls and what is called.
pub(super) fn targets(app: &App, args: &CheckArgs, mut question: Question) -> Result<(Question, Vec<Target>), Error> {
    let sources = objects::sources(&args.files)?;
    let parsed = objects::parse(&sources);
    if any_error(&parsed.problems) {
        return Err(objects::invalid(parsed.problems, sources.len(), "nothing was decided"));
    }
    let namespace = app.global.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let world = World::of(&parsed.objects, &namespace);
    let model = world.registry.model();
    question.caller = world.caller(args, &namespace)?;
    let service = Service::parse(&args.to)?;
    let of_service = service.namespace.clone().unwrap_or(namespace);
    let host = api::model::Host::of_service(&service.name, &of_service, &model.mesh.domain);
    let Some(known) = model.services.get(&host) else {
        let names = model.services.values().map(|service| service.key.name.as_str());
        let error = Error::failed(format!("the files have no service `{}` in namespace {of_service}", service.name));
        return Err(match api::suggest::closest(&service.name, names) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("name the file of the service and its workloads with -f too"),
        });
    };
    let port = known.ports.iter().find(|port| service.port.is_none_or(|wanted| port.number.get() == wanted));
    let Some(port) = port else {
        return Err(Error::failed(format!("service {of_service}/{} does not serve that port", service.name)));
    };
    let places = places(model);
    let mut targets = Vec::new();
    for endpoint in model.endpoints.get(&host).into_iter().flat_map(|all| all.iter()) {
        if endpoint.service_port != port.number {
            continue;
        }
        let Some(node) = world.registry.node(&endpoint.workload.key, Role::Sidecar) else { continue };
        targets.push(Target {
            pod: endpoint.workload.key.to_string(),
            address: SocketAddr::new(endpoint.address, endpoint.port.get()),
            tables: Some(compiled(model, &node)?),
            places: places.clone(),
        });
    }
    if targets.is_empty() {
        return Err(Error::failed(format!("the files have no workload of service {of_service}/{}", service.name))
            .hint("name the file of its Deployment with -f too"));
    }
    Ok((question, targets))
}

/// Objects of files, with pods made up for the workloads.
struct World {
    registry: Registry,
    /// Pods by `kind/name` of what they are of, in lower case.
    pods: BTreeMap<(String, String), Value>,
}

impl World {
    fn of(objects: &[objects::Object], namespace: &str) -> Self {
        let mut world = World { registry: Registry::new(Mesh::default()), pods: BTreeMap::new() };
        let mut services = Vec::new();
        for object in objects {
            let mut value = object.value.clone();
            if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.entry("namespace").or_insert_with(|| json!(namespace));
            }
            let kind = text(&value, &["kind"]).unwrap_or_default().to_owned();
            let resource = Resource::of(text(&value, &["apiVersion"]).unwrap_or_default(), &kind);
            match (resource, kind.as_str()) {
                (Some(Resource::Pod), _) => {
                    world.add_pod(("pod", name_of(&value)), &value, value.clone(), object);
                }
                (None, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job") => {
                    let template = value.pointer("/spec/template").cloned().unwrap_or_default();
                    let kind = if kind == "Deployment" { "deploy".to_owned() } else { kind.to_lowercase() };
                    world.add_pod((&kind, &format!("{}-0", name_of(&value))), &value, template, object);
                }
                (Some(resource), _) => {
                    if resource == Resource::Service {
                        services.push(value.clone());
                    }
                    world.registry.apply_from(resource, &value, object.location.clone());
                }
                (None, _) => {}
            }
        }
        for service in &services {
            if let Some(slice) = world.slice(service) {
                world.registry.apply(Resource::EndpointSlice, &slice);
            }
        }
        world
    }

    /// Adds a pod with an address of its own.
    fn add_pod(&mut self, (kind, name): (&str, &str), owner: &Value, mut pod: Value, object: &objects::Object) {
        let Ok(nth) = u16::try_from(self.pods.len() + 1) else { return };
        let [high, low] = nth.to_be_bytes();
        let address = Ipv4Addr::new(10, 0, high, low).to_string();
        let Some(fields) = pod.as_object_mut() else { return };
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(namespace_of(owner));
        fields.insert("status".to_owned(), json!({ "podIP": address, "phase": "Running" }));
        self.registry.apply_from(Resource::Pod, &pod, object.location.clone());
        self.pods.insert((kind.to_owned(), format!("{}/{}", namespace_of(owner), name_of(owner))), pod);
    }

    /// The endpoints of a service, as the control plane of a cluster would find them.
    fn slice(&self, service: &Value) -> Option<Value> {
        let selector = service.pointer("/spec/selector")?.as_object()?;
        let namespace = namespace_of(service);
        let of_service = |pod: &&Value| {
            let labels = pod.pointer("/metadata/labels");
            namespace_of(pod) == namespace
                && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        };
        let pods: Vec<&Value> = self.pods.values().filter(of_service).collect();
        let ports = service.pointer("/spec/ports")?.as_array()?;
        let ports: Vec<Value> = ports
            .iter()
            .map(|port| {
                let target = port.get("targetPort").and_then(Value::as_u64).or_else(|| named(&pods, port));
                let number = target.or_else(|| port.get("port").and_then(Value::as_u64));
                json!({ "name": text(port, &["name"]).unwrap_or_default(), "port": number, "protocol": "TCP" })
            })
            .collect();
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| {
                json!({
                    "addresses": [text(pod, &["status", "podIP"])],
                    "conditions": { "ready": true },
                    "targetRef": { "kind": "Pod", "name": name_of(pod), "namespace": namespace },
                })
            })
            .collect();
        Some(json!({
            "metadata": {
                "name": name_of(service), "namespace": namespace,
                "labels": { "kubernetes.io/service-name": name_of(service) },
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": endpoints,
        }))
    }

    fn caller(&self, args: &CheckArgs, namespace: &str) -> Result<Caller, Error> {
        let domain = &self.registry.model().mesh.trust_domain;
        if let Some(caller) = simple_caller(args, namespace, domain)? {
            return Ok(caller);
        }
        let (kind, name) = args.from.split_once('/').unwrap_or(("", &args.from));
        let kind = if kind.starts_with("deploy") { "deploy" } else { kind };
        let (name, namespace) = with_namespace(name, namespace);
        let name = format!("{namespace}/{name}");
        let found = self.pods.iter().find(|((of, known), _)| *known == name && (kind.is_empty() || of == kind));
        // `deploy/productpage` means `productpage-v1` when there is no other version of it.
        let of_app = || {
            let is_of_app = |pod: &&Value| {
                let app = text(pod, &["metadata", "labels", "app"]).unwrap_or_default();
                format!("{}/{app}", namespace_of(pod)) == name
            };
            self.pods.values().find(is_of_app)
        };
        let Some(pod) = found.map(|(_, pod)| pod).or_else(of_app) else {
            return Err(Error::failed(format!("the files have no workload `{}`", args.from))
                .hint("name a Deployment of the files, or an account as sa/NAME, or `nobody`"));
        };
        let account = text(pod, &["spec", "serviceAccountName"]).unwrap_or_default();
        let address = text(pod, &["status", "podIP"]).and_then(|address| address.parse::<IpAddr>().ok());
        let identity = identity(domain, namespace_of(pod), account)?;
        Ok(Caller { identity: Some(identity).filter(|_| !args.plain), address })
    }
}

/// The number of a port that a service calls by name.
fn named(pods: &[&Value], port: &Value) -> Option<u64> {
    let name = text(port, &["targetPort"])?;
    let containers = pods.iter().filter_map(|pod| pod.pointer("/spec/containers")?.as_array()).flatten();
    let mut ports = containers.filter_map(|container| container.get("ports")?.as_array()).flatten();
    ports.find(|port| text(port, &["name"]) == Some(name))?.get("containerPort")?.as_u64()
}

/// Where policies were written, by the name that verdicts have for them.
fn places(model: &Model) -> Vec<(String, String)> {
    let access = &model.access;
    let place = |kind: &str, key: &Key, location: &Option<Location>| {
        Some((format!("{kind}/{key}"), format!("{}:{}", location.as_ref()?.file, location.as_ref()?.line)))
    };
    let mut places = Vec::new();
    places.extend(access.configs.values().filter_map(|o| place("rbac-config", &o.key, &o.origin.location)));
    places.extend(access.bindings.values().filter_map(|o| place("service-role-binding", &o.key, &o.origin.location)));
    places.extend(
        access.authentication.values().filter_map(|o| place("authentication-policy", &o.key, &o.origin.location)),
    );
    places
}

fn compiled(model: &Model, node: &Node) -> Result<Tables, Error> {
    let mut compiler = Compiler::new();
    let listener = generate::listener(model, node, "virtual_inbound");
    let listener = listener.ok_or_else(|| Error::failed("the workload has no inbound listener"))?;
    compiler
        .update(listener.kind, &listener.name, &listener.version, &listener.body)
        .map_err(|e| Error::failed("what is generated cannot be compiled").because(e.to_string()))?;
    Ok(compiler.tables())
}
