use serde_json::{Value as Json, json};

use super::{Id, Registry, Resource};
use crate::model::{Health, Host, IngressPath, Key, Mesh, Protocol, Resolution, Role};

const RULES: Resource = Resource::RouteRule { classic: false };
const CLASSIC_RULES: Resource = Resource::RouteRule { classic: true };

fn key(name: &str) -> Key {
    Key { namespace: "default".to_owned(), name: name.to_owned() }
}

fn host(name: &str) -> Host {
    Host::of_service(name, "default", "cluster.local")
}

fn service(name: &str) -> Json {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.0.5",
            "clusterIPs": ["10.96.0.5"],
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 9080, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        },
    })
}

fn pod(name: &str, address: &str, app: &str, version: &str) -> Json {
    json!({
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": app, "version": version, "pod-template-hash": "abc"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{app}-{version}-abc"), "controller": true}],
        },
        "spec": {
            "serviceAccountName": app,
            "containers": [{"name": app, "ports": [{"containerPort": 8080}]}],
            "initContainers": [{"name": "mesh-proxy", "ports": [{"containerPort": 15020}]}],
        },
        "status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"},
    })
}

fn slice(name: &str, service: &str, pods: &[(&str, &str, bool)]) -> Json {
    let endpoints: Vec<Json> = pods
        .iter()
        .map(|(pod, address, ready)| {
            json!({
                "addresses": [address],
                "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "default"},
            })
        })
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

fn rule(version: &str, spec: &Json) -> Json {
    json!({
        "metadata": {"name": "reviews", "namespace": "default", "resourceVersion": version},
        "spec": spec,
    })
}

fn reviews() -> Registry {
    let mut registry = Registry::new(Mesh::default());
    assert_eq!(registry.apply(Resource::Service, &service("reviews")), []);
    let slice = slice("reviews-1", "reviews", &[("r2", "10.244.0.3", true), ("r1", "10.244.0.2", true)]);
    assert_eq!(registry.apply(Resource::EndpointSlice, &slice), []);
    registry.apply(Resource::Pod, &pod("r1", "10.244.0.2", "reviews", "v1"));
    registry.apply(Resource::Pod, &pod("r2", "10.244.0.3", "reviews", "v2"));
    registry
}

#[test]
fn a_service_has_its_endpoints_and_they_know_their_pods() {
    let registry = reviews();
    let service = &registry.model().services[&host("reviews")];
    assert_eq!(service.resolution, Resolution::Virtual);
    assert_eq!(service.addresses.len(), 1);
    assert_eq!(service.ports[0].protocol, Protocol::Http);
    assert_eq!(service.ports[1].protocol, Protocol::Udp);
    let endpoints = &registry.model().endpoints[&host("reviews")];
    let seen: Vec<_> = endpoints
        .iter()
        .map(|e| (e.address.to_string(), e.port.get(), e.service_port.get(), e.workload.labels["version"].clone()))
        .collect();
    assert_eq!(
        seen,
        [
            ("10.244.0.2".to_owned(), 8080, 9080, "v1".to_owned()),
            ("10.244.0.3".to_owned(), 8080, 9080, "v2".to_owned())
        ]
    );
    let workload = &endpoints[0].workload;
    assert_eq!((workload.owner.as_str(), workload.service_account.as_str()), ("reviews-v1", "reviews"));
    assert!(workload.has_sidecar);
    assert_eq!(workload.ports.iter().map(|port| port.get()).collect::<Vec<_>>(), [8080]);
}

#[test]
fn the_order_in_which_objects_come_does_not_matter() {
    let mut registry = Registry::new(Mesh::default());
    registry.apply(Resource::Pod, &pod("r2", "10.244.0.3", "reviews", "v2"));
    registry.apply(
        Resource::EndpointSlice,
        &slice("reviews-1", "reviews", &[("r1", "10.244.0.2", true), ("r2", "10.244.0.3", true)]),
    );
    registry.apply(Resource::Pod, &pod("r1", "10.244.0.2", "reviews", "v1"));
    registry.apply(Resource::Service, &service("reviews"));
    assert_eq!(registry.model(), reviews().model());
}

#[test]
fn what_changes_nothing_leaves_the_generation_alone() {
    let mut registry = reviews();
    let before = registry.generation();
    let mut annotated = pod("r1", "10.244.0.2", "reviews", "v1");
    annotated["metadata"]["annotations"] = json!({"a": "b"});
    registry.apply(Resource::Pod, &annotated);
    registry.apply(Resource::Service, &service("reviews"));
    registry.remove(Resource::Pod, &key("nobody"));
    assert_eq!(registry.generation(), before);
    registry.apply(Resource::Pod, &pod("r1", "10.244.0.2", "reviews", "v9"));
    assert_eq!(registry.generation(), before + 1);
}

#[test]
fn endpoints_that_are_not_ready_are_left_out_and_those_that_end_drain() {
    let mut registry = reviews();
    let mut changed = slice("reviews-1", "reviews", &[("r1", "10.244.0.2", false), ("r2", "10.244.0.3", false)]);
    changed["endpoints"][1]["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    registry.apply(Resource::EndpointSlice, &changed);
    let endpoints = &registry.model().endpoints[&host("reviews")];
    assert_eq!(endpoints.iter().map(|e| e.health).collect::<Vec<_>>(), [Health::Draining]);
}

#[test]
fn a_slice_that_moves_to_another_service_takes_its_endpoints_along() {
    let mut registry = reviews();
    registry.apply(Resource::Service, &service("ratings"));
    registry.apply(Resource::EndpointSlice, &slice("reviews-1", "ratings", &[("r1", "10.244.0.2", true)]));
    assert_eq!(registry.model().endpoints[&host("reviews")].len(), 0);
    assert_eq!(registry.model().endpoints[&host("ratings")].len(), 1);
    registry.remove(Resource::EndpointSlice, &key("reviews-1"));
    assert_eq!(registry.model().endpoints[&host("ratings")].len(), 0);
    registry.remove(Resource::Service, &key("ratings"));
    assert!(!registry.model().endpoints.contains_key(&host("ratings")));
}

#[test]
fn a_node_has_the_services_that_select_its_pod_ready_or_not() {
    let mut registry = reviews();
    registry.apply(Resource::Service, &service("ratings"));
    registry.apply(Resource::Pod, &pod("new", "10.244.0.9", "reviews", "v3"));
    let node = registry.node(&key("new"), Role::Sidecar).expect("the pod is known");
    assert_eq!(node.services, [host("reviews")]);
    assert_eq!(registry.node(&key("nobody"), Role::Sidecar), None);
}

#[test]
fn a_bad_rule_is_out_of_force_and_says_why_and_others_stay() {
    let mut registry = reviews();
    let good = json!({"destination": {"name": "reviews"}});
    assert_eq!(registry.apply(RULES, &rule("7", &good)), []);
    let id = Id { resource: RULES, key: key("reviews") };
    assert!(registry.status(&id).is_some_and(|status| status.is_accepted && status.resource_version == "7"));
    assert_eq!(registry.model().route_rules[&key("reviews")].origin.resource_version, "7");

    let mut other = rule("8", &json!({"destination": {"name": "reviews"}, "route": [{"weight": 90}]}));
    other["metadata"]["name"] = json!("other");
    let problems = registry.apply(RULES, &other);
    assert_eq!(problems[0].message, "the weights of route `other` add up to 90, not 100");
    assert!(!registry.model().route_rules.contains_key(&key("other")));
    assert!(registry.model().route_rules.contains_key(&key("reviews")));
    assert_eq!(registry.problems().count(), 1);

    other["spec"] = good;
    assert_eq!(registry.apply(RULES, &other), []);
    assert!(registry.model().route_rules.contains_key(&key("other")));
    registry.replace(RULES, [&other]);
    assert!(!registry.model().route_rules.contains_key(&key("reviews")));
}

#[test]
fn of_one_name_in_both_groups_ours_wins_and_the_classic_one_says_so() {
    let mut registry = reviews();
    let spec = |precedence: i32| json!({"destination": {"name": "reviews"}, "precedence": precedence});
    registry.apply(CLASSIC_RULES, &rule("1", &spec(1)));
    assert_eq!(registry.model().route_rules[&key("reviews")].precedence, 1);
    registry.apply(RULES, &rule("2", &spec(2)));
    assert_eq!(registry.model().route_rules[&key("reviews")].precedence, 2);
    let classic = Id { resource: CLASSIC_RULES, key: key("reviews") };
    let status = registry.status(&classic).expect("the classic rule is there");
    assert!(!status.is_accepted);
    assert_eq!(
        status.problems[0].message,
        "config.meshctl.io has a RouteRule of the same name, which wins over this one"
    );
    registry.remove(RULES, &key("reviews"));
    assert_eq!(registry.model().route_rules[&key("reviews")].precedence, 1);
    assert!(registry.status(&classic).is_some_and(|status| status.is_accepted));
}

#[test]
fn ingresses_of_both_versions_mean_the_same() {
    let mut registry = reviews();
    let classic = json!({
        "apiVersion": "extensions/v1beta1",
        "metadata": {"name": "gateway", "annotations": {"kubernetes.io/ingress.class": "mesh"}},
        "spec": {
            "rules": [{"http": {"paths": [
                {"path": "/exact", "backend": {"serviceName": "reviews", "servicePort": 9080}},
                {"path": "/status/.*", "backend": {"serviceName": "reviews", "servicePort": "http"}},
                {"backend": {"serviceName": "reviews", "servicePort": "nothing"}},
            ]}}],
            "backend": {"serviceName": "reviews", "servicePort": 9080},
        },
    });
    let problems = registry.apply(Resource::Ingress, &classic);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "the service default/reviews has no port `nothing`");
    assert_eq!(problems[0].path, "spec.rules[0].http.paths[2]");
    let rules = &registry.model().ingresses[&key("gateway")].rules;
    let paths: Vec<_> = rules.iter().map(|rule| (rule.path.clone(), rule.port.get())).collect();
    assert_eq!(
        paths,
        [
            (IngressPath::Exact("/exact".to_owned()), 9080),
            (IngressPath::Text("/status/".to_owned()), 9080),
            (IngressPath::Text("/".to_owned()), 9080),
        ]
    );

    let today = json!({
        "metadata": {"name": "gateway", "namespace": "default"},
        "spec": {"ingressClassName": "mesh", "rules": [{"host": "Shop.Example.", "http": {"paths": [
            {"path": "/foo/", "pathType": "Prefix", "backend": {"service": {"name": "reviews", "port": {"name": "http"}}}},
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "reviews", "port": {"number": 9080}}}},
        ]}}]},
    });
    assert_eq!(registry.apply(Resource::Ingress, &today), []);
    let rules = &registry.model().ingresses[&key("gateway")].rules;
    assert_eq!(rules[0].host.as_deref(), Some("shop.example"));
    assert_eq!(rules[0].path, IngressPath::Elements("/foo".to_owned()));
    assert_eq!(rules[1].path, IngressPath::Elements("/".to_owned()));

    let mut foreign = today;
    foreign["spec"]["ingressClassName"] = json!("nginx");
    registry.apply(Resource::Ingress, &foreign);
    assert!(registry.model().ingresses.is_empty());
}

#[test]
fn an_ingress_follows_the_named_port_of_its_service() {
    let mut registry = Registry::new(Mesh::default());
    let ingress = json!({
        "metadata": {"name": "gateway", "namespace": "default"},
        "spec": {"ingressClassName": "mesh", "rules": [{"http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "reviews", "port": {"name": "http"}}}},
        ]}}]},
    });
    assert_eq!(registry.apply(Resource::Ingress, &ingress).len(), 1);
    registry.apply(Resource::Service, &service("reviews"));
    assert_eq!(registry.model().ingresses[&key("gateway")].rules[0].port.get(), 9080);
    assert_eq!(registry.problems().count(), 0);
}

#[test]
fn an_object_that_cannot_be_read_is_a_problem_of_its_own() {
    let mut registry = reviews();
    let mut bad = service("ratings");
    bad["spec"]["ports"] = json!([{"port": "http"}]);
    assert_eq!(registry.apply(Resource::Service, &bad).len(), 1);
    assert!(registry.model().services.contains_key(&host("reviews")));
    assert_eq!(registry.apply(Resource::Service, &service("ratings")), []);
    assert_eq!(registry.problems().count(), 0);
}

#[test]
fn a_service_is_run_by_the_accounts_of_its_pods_ready_or_not() {
    let mut registry = reviews();
    let accounts = |registry: &Registry| -> Vec<String> {
        let accounts = registry.model().accounts_of(&host("reviews"));
        accounts.into_iter().flat_map(|accounts| accounts.iter()).map(ToString::to_string).collect()
    };
    assert_eq!(accounts(&registry), ["default/reviews"]);
    let mut other = pod("r2", "10.244.0.3", "reviews", "v2");
    other["spec"]["serviceAccountName"] = json!("other");
    registry.apply(Resource::Pod, &other);
    let unready = slice("reviews-1", "reviews", &[("r1", "10.244.0.2", true), ("r2", "10.244.0.3", false)]);
    registry.apply(Resource::EndpointSlice, &unready);
    assert_eq!(registry.model().endpoints[&host("reviews")].len(), 1);
    assert_eq!(accounts(&registry), ["default/other", "default/reviews"]);
    registry.remove(Resource::Service, &key("reviews"));
    assert_eq!(accounts(&registry), Vec::<String>::new());
}

#[test]
fn a_sidecar_takes_mutual_tls_if_injection_says_so() {
    let mut registry = reviews();
    let takes = |registry: &Registry| registry.model().endpoints[&host("reviews")][0].workload.takes_tls;
    assert!(!takes(&registry), "an older one");
    let mut injected = pod("r1", "10.244.0.2", "reviews", "v1");
    injected["metadata"]["annotations"] = json!({ "sidecar.meshctl.io/status": "{\"mutualTls\":true}" });
    registry.apply(Resource::Pod, &injected);
    assert!(takes(&registry));
}

#[test]
fn the_classic_annotation_is_about_a_port_and_wrong_ones_are_told() {
    let mut registry = reviews();
    let mut annotated = service("reviews");
    annotated["metadata"]["annotations"] = json!({
        "auth.istio.io/9080": "NONE", "auth.istio.io/1": "MUTUAL_TLS", "auth.istio.io/53": "yes",
    });
    let told: Vec<String> = registry.apply(Resource::Service, &annotated).iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|it| it.contains("auth.istio.io/53 is `yes`, which says nothing")), "{told:?}");
    assert!(
        told.iter().any(|it| it.contains("auth.istio.io/1 is about a port that the Service does not have")),
        "{told:?}"
    );
    let mode = |registry: &Registry| registry.model().services[&host("reviews")].ports[0].mtls;
    assert_eq!(mode(&registry), Some(crate::model::MtlsMode::Disable));
    registry.apply(Resource::Service, &service("reviews"));
    assert_eq!(mode(&registry), None);
}
