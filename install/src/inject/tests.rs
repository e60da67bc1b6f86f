use api::names::TOKEN_AUDIENCE;

use super::*;
use crate::rules::Interception;

fn injection() -> Injection {
    Injection::new(Images::of_version("1"), "ROOT")
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
        "spec": {"template": {
            "metadata": {"labels": {"app": "app"}},
            "spec": {
                "initContainers": [{"name": "migrate", "image": "m"}],
                "containers": [{"name": "app", "image": "a", "ports": [{"containerPort": 9080}]}],
            },
        }},
    })
}

fn injected(object: &Value) -> Value {
    match inject_object(object, &injection()) {
        Ok(Outcome::Injected(value)) => value,
        other => panic!("not injected: {other:?}"),
    }
}

fn skipped(object: &Value) -> Skip {
    match inject_object(object, &injection()) {
        Ok(Outcome::Skipped(skip)) => skip,
        other => panic!("not skipped: {other:?}"),
    }
}

#[test]
fn a_deployment_gets_rules_then_proxy_then_its_own_init_containers() {
    let result = injected(&deployment());
    let spec = &result["spec"]["template"]["spec"];
    let names: Vec<_> = spec["initContainers"].as_array().expect("a list").iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, [INIT_CONTAINER, PROXY_CONTAINER, "migrate"]);
    assert_eq!(spec["initContainers"][1]["restartPolicy"], "Always");
    assert_eq!(spec["initContainers"][0]["args"][0], Interception::default().render());
    assert_eq!(spec["containers"], deployment()["spec"]["template"]["spec"]["containers"]);
    assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"], TOKEN_AUDIENCE);
}

#[test]
fn the_socket_of_the_identity_is_the_proxys_unless_the_pod_asks_for_it() {
    let mut asking = deployment();
    let plain = injected(&asking);
    let spec = &plain["spec"]["template"]["spec"];
    assert_eq!(spec["volumes"][1], json!({"name": "workload-socket", "emptyDir": {}}));
    let mount = json!({"name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds"});
    assert_eq!(spec["initContainers"][1]["volumeMounts"][1], mount);
    assert_eq!(spec["containers"], asking["spec"]["template"]["spec"]["containers"]);

    asking["spec"]["template"]["metadata"]["annotations"] =
        json!({"sidecar.meshctl.io/workloadSocket": "true", "sidecar.meshctl.io/workloadSocketUsers": "0, 1000"});
    let given = injected(&asking);
    let spec = &given["spec"]["template"]["spec"];
    let app = &spec["containers"][0];
    assert_eq!(app["volumeMounts"][0]["readOnly"], true);
    let variable =
        json!({"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///var/run/secrets/workload-spiffe-uds/socket"});
    assert_eq!(app["env"], json!([variable]));
    let users = json!({"name": "MESH_WORKLOAD_SOCKET_USERS", "value": "0, 1000"});
    assert!(spec["initContainers"][1]["env"].as_array().expect("a list").contains(&users));
    assert_eq!(remove_object(&given), Some(asking.clone()));

    asking["spec"]["template"]["metadata"]["annotations"]["sidecar.meshctl.io/workloadSocketUsers"] = json!("root");
    assert!(matches!(inject_object(&asking, &injection()), Err(Refusal::Annotation { .. })));
    let mut taken = deployment();
    taken["spec"]["template"]["spec"]["volumes"] = json!([{"name": "workload-socket", "csi": {}}]);
    let refused = inject_object(&taken, &injection()).expect_err("whose socket would it be?");
    assert_eq!(refused.to_string(), "a volume is already called `workload-socket`, which is the sidecar's name");
}

#[test]
fn injecting_twice_gives_what_injecting_once_gives() {
    assert_eq!(skipped(&injected(&deployment())), Skip::AlreadyInjected);
}

#[test]
fn a_cron_job_and_the_items_of_a_list_are_injected() {
    let template = deployment()["spec"]["template"].clone();
    let cron = json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}}});
    let result = injected(&cron);
    assert_eq!(result["spec"]["jobTemplate"]["spec"]["template"]["spec"]["initContainers"][0]["name"], INIT_CONTAINER);
    let list = json!({"kind": "List", "items": [{"kind": "Service"}, deployment()]});
    let result = injected(&list);
    assert_eq!(result["items"][1]["spec"]["template"]["spec"]["initContainers"][1]["name"], PROXY_CONTAINER);
    assert_eq!(result["items"][0], json!({"kind": "Service"}));
}

#[test]
fn pods_are_left_alone_for_a_reason() {
    let mut opted_out = deployment();
    opted_out["spec"]["template"]["metadata"]["annotations"] = json!({INJECT: "false"});
    assert_eq!(skipped(&opted_out), Skip::OptedOut);
    let mut classic = deployment();
    classic["spec"]["template"]["metadata"]["annotations"] = json!({CLASSIC_INJECT: "false"});
    assert_eq!(skipped(&classic), Skip::OptedOut);
    let mut host = deployment();
    host["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    assert_eq!(skipped(&host), Skip::HostNetwork);
    assert_eq!(skipped(&json!({"kind": "Service", "spec": {}})), Skip::NoPods);
}

#[test]
fn when_injection_is_off_only_a_pod_that_asks_gets_a_sidecar() {
    let off = Injection { default: false, ..injection() };
    assert_eq!(inject_object(&deployment(), &off), Ok(Outcome::Skipped(Skip::NotAsked)));
    let mut asks = deployment();
    asks["spec"]["template"]["metadata"]["labels"][INJECT] = json!("true");
    assert!(matches!(inject_object(&asks, &off), Ok(Outcome::Injected(_))));
}

#[test]
fn a_pod_that_cannot_be_injected_is_refused_with_the_reason() {
    let mut taken = deployment();
    taken["spec"]["template"]["spec"]["containers"][0]["name"] = json!(PROXY_CONTAINER);
    assert_eq!(
        inject_object(&taken, &injection()),
        Err(Refusal::NameTaken { what: "container", name: PROXY_CONTAINER.to_owned() })
    );
    let mut unclear = deployment();
    unclear["spec"]["template"]["metadata"]["annotations"] = json!({INJECT: "maybe"});
    let refusal = inject_object(&unclear, &injection()).expect_err("unclear policy");
    assert_eq!(refusal.to_string(), "sidecar.meshctl.io/inject is `maybe`; it is `true` or `false`");
    let mut wrong = deployment();
    wrong["spec"]["template"]["spec"]["volumes"] = json!("none");
    let refusal = inject_object(&wrong, &injection()).expect_err("wrong shape");
    assert_eq!(refusal.to_string(), "spec.volumes is not a list");
}

fn annotated(annotations: &[(&str, &str)]) -> Value {
    let mut object = deployment();
    for (key, value) in annotations {
        object["spec"]["template"]["metadata"]["annotations"][*key] = json!(value);
    }
    object
}

fn rules_of(object: &Value) -> String {
    let result = injected(object);
    let rules = &result["spec"]["template"]["spec"]["initContainers"][0]["args"][0];
    rules.as_str().expect("rules").to_owned()
}

fn proxy_of(object: &Value) -> Value {
    injected(object)["spec"]["template"]["spec"]["initContainers"][1].clone()
}

fn variable<'a>(proxy: &'a Value, name: &str) -> &'a Value {
    let variables = proxy["env"].as_array().expect("variables");
    variables.iter().find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn annotations_narrow_what_is_intercepted_in_our_spelling_and_the_classic_one() {
    for prefix in ["sidecar.meshctl.io/", "traffic.sidecar.istio.io/"] {
        for (name, value, expected, line) in [
            ("includeInboundPorts", "*", true, "meta l4proto tcp redirect to :15006"),
            ("includeInboundPorts", "80, 9080", true, "tcp dport { 80, 9080 } redirect to :15006"),
            ("includeInboundPorts", "", false, "redirect to :15006"),
            ("excludeInboundPorts", "22", true, "tcp dport { 22, 15000, 15001, 15006, 15020, 15021 } return"),
            ("excludeOutboundPorts", "3306,25", true, "tcp dport { 25, 3306 } return"),
            ("includeOutboundIPRanges", "*", true, "meta l4proto tcp redirect to :15001"),
            (
                "includeOutboundIPRanges",
                "10.96.0.0/16",
                true,
                "ip daddr { 10.96.0.0/16 } meta l4proto tcp redirect to :15001",
            ),
            ("includeOutboundIPRanges", "", false, "redirect to :15001"),
            ("excludeOutboundIPRanges", "192.0.2.7,fd00::/8", true, "ip daddr { 192.0.2.7/32 } return"),
            ("excludeOutboundIPRanges", "192.0.2.7,fd00::/8", true, "ip6 daddr { fd00::/8 } return"),
        ] {
            let rules = rules_of(&annotated(&[(&format!("{prefix}{name}"), value)]));
            assert_eq!(rules.contains(line), expected, "{prefix}{name}: {value:?}\n{rules}");
        }
    }
    let ours_wins =
        [("sidecar.meshctl.io/excludeInboundPorts", "1"), ("traffic.sidecar.istio.io/excludeInboundPorts", "2")];
    assert!(rules_of(&annotated(&ours_wins)).contains("{ 1, 15000"));
}

#[test]
fn an_included_port_is_intercepted_outside_of_the_included_ranges_too() {
    let rules = rules_of(&annotated(&[
        ("sidecar.meshctl.io/includeOutboundIPRanges", ""),
        ("sidecar.meshctl.io/includeOutboundPorts", "9000"),
    ]));
    assert!(rules.contains("tcp dport { 9000 } redirect to :15001"), "{rules}");
}

#[test]
fn bad_annotations_are_refused_with_the_reason() {
    for (key, value, expected) in [
        ("sidecar.meshctl.io/excludeInboundPorts", "80,x", "is `80,x`: `x` is not a port (1 to 65535)"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "0", "`0` is not a port"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*", "`*` is possible only where ports are included"),
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "10.0.0.0/33",
            "`10.0.0.0/33` is not a range of addresses",
        ),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*", "`*` is possible only where ranges are included"),
        ("sidecar.istio.io/interceptionMode", "TPROXY", "only `REDIRECT` is in force"),
        ("sidecar.meshctl.io/proxyCPU", "much", "not a quantity"),
        ("sidecar.meshctl.io/proxyMemory", "64MB", "not a quantity"),
        ("sidecar.meshctl.io/statusPort", "15006", "the proxy uses this port for something else"),
        ("sidecar.meshctl.io/statusPort", "9080", "a container of the pod uses this port"),
        ("sidecar.meshctl.io/excludeInbundPorts", "1", "did you mean sidecar.meshctl.io/excludeInboundPorts?"),
    ] {
        let refusal = inject_object(&annotated(&[(key, value)]), &injection()).expect_err(key).to_string();
        assert!(refusal.contains(expected) && refusal.contains(key), "{refusal}");
    }
    let mut number = deployment();
    number["spec"]["template"]["metadata"]["annotations"] = json!({"sidecar.meshctl.io/excludeInboundPorts": 80});
    let refusal = inject_object(&number, &injection()).expect_err("a number").to_string();
    assert!(refusal.contains("annotations are text; put it in quotes"), "{refusal}");
}

#[test]
fn annotations_set_port_image_and_resources_of_the_proxy() {
    let object = annotated(&[
        ("sidecar.meshctl.io/statusPort", "16000"),
        ("sidecar.meshctl.io/proxyCPU", "100m"),
        ("sidecar.istio.io/proxyMemory", "64Mi"),
        ("sidecar.meshctl.io/proxyMemoryLimit", "1Gi"),
        ("sidecar.meshctl.io/proxyImage", "mine/proxy:2"),
    ]);
    let proxy = proxy_of(&object);
    assert_eq!(proxy["startupProbe"]["httpGet"]["port"], 16000);
    assert_eq!(variable(&proxy, "MESH_READINESS_PORT")["value"], "16000");
    let expected = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}});
    assert_eq!(proxy["resources"], expected);
    assert_eq!(proxy["image"], "mine/proxy:2");
    assert!(rules_of(&object).contains("15020, 16000 } return"));
}

#[test]
fn the_proxy_learns_whose_it_is_for_telemetry() {
    let proxy = proxy_of(&deployment());
    let path = |name| variable(&proxy, name)["valueFrom"]["fieldRef"]["fieldPath"].clone();
    assert_eq!(
        (path("MESH_APP"), path("MESH_VERSION")),
        (json!("metadata.labels['app']"), json!("metadata.labels['version']"))
    );
    assert_eq!(variable(&proxy, "MESH_OWNER")["value"], "app");
    let mut recommended = deployment();
    recommended["spec"]["template"]["metadata"]["labels"] = json!({"app.kubernetes.io/name": "app"});
    let proxy = proxy_of(&recommended);
    let path = &variable(&proxy, "MESH_APP")["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(path, "metadata.labels['app.kubernetes.io/name']");
}

#[test]
fn a_pods_owner_is_what_a_user_wrote_rather_than_what_a_controller_made() {
    for (kind, name, expected) in [
        ("ReplicaSet", "app-5d8f", "app"),
        ("Job", "nightly-28123456", "nightly"),
        ("Job", "once", "once"),
        ("StatefulSet", "db", "db"),
    ] {
        let pod = json!({
            "metadata": {
                "labels": {"pod-template-hash": "5d8f"},
                "ownerReferences": [{"kind": kind, "name": name, "controller": true}],
            },
            "spec": {"containers": [{"name": "app"}]},
        });
        let Ok(Outcome::Injected(pod)) = inject_pod(&pod, &injection()) else { panic!("not injected") };
        assert_eq!(variable(&pod["spec"]["initContainers"][1], "MESH_OWNER")["value"], expected);
    }
}

#[test]
fn system_namespaces_and_kinds_without_pods_are_told_apart() {
    let mut system = deployment();
    system["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(skipped(&system), Skip::SystemNamespace);
    let pod = json!({"metadata": {"namespace": "kube-system"}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(inject_pod(&pod, &injection()), Ok(Outcome::Skipped(Skip::SystemNamespace)), "nor by the webhook");
    assert_eq!(skipped(&json!({"apiVersion": "v1", "kind": "PodList", "items": []})), Skip::UnknownKind);
    assert_eq!(skipped(&json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {}})), Skip::UnknownKind);
    let mut rollout = deployment();
    rollout["apiVersion"] = json!("argoproj.io/v1alpha1");
    rollout["kind"] = json!("Rollout");
    assert_eq!(injected(&rollout)["spec"]["template"]["spec"]["initContainers"][0]["name"], INIT_CONTAINER);
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "template": deployment()["spec"]["template"]});
    assert_eq!(injected(&template)["template"]["spec"]["initContainers"][0]["name"], INIT_CONTAINER);
}

#[test]
fn taking_the_sidecar_out_gives_the_object_back() {
    assert_eq!(remove_object(&injected(&deployment())), Some(deployment()));
    assert_eq!(remove_object(&deployment()), None);
}

#[test]
fn what_the_proxy_tells_of_traffic_is_asked_for_by_annotations() {
    let annotated = |name: &str, value: &str| {
        let mut object = deployment();
        object["spec"]["template"]["metadata"]["annotations"] = json!({format!("sidecar.meshctl.io/{name}"): value});
        object
    };
    for (name, value, variable) in [
        ("accessLog", "off", "MESH_ACCESS_LOG"),
        ("accessLogEncoding", "json", "MESH_ACCESS_LOG_ENCODING"),
        ("accessLogFormat", "%DURATION%", "MESH_ACCESS_LOG_FORMAT"),
        ("traceSampling", "0.1", "MESH_TRACE_SAMPLING"),
    ] {
        let object = injected(&annotated(name, value));
        let env = object["spec"]["template"]["spec"]["initContainers"][1]["env"].as_array().expect("a list").clone();
        assert!(env.contains(&json!({"name": variable, "value": value})), "{env:?}");
    }
    for (name, value) in
        [("accessLog", ""), ("accessLogEncoding", "xml"), ("accessLogFormat", " "), ("traceSampling", "101")]
    {
        let refused = inject_object(&annotated(name, value), &injection());
        assert!(matches!(&refused, Err(Refusal::Annotation { key, .. }) if key.ends_with(name)), "{refused:?}");
    }
}

#[test]
fn every_kind_of_workload_is_injected_by_its_name() {
    let template = deployment()["spec"]["template"].clone();
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
    ] {
        let object = json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": "app", "namespace": "shop"},
            "spec": {"serviceName": "app", "template": template},
        });
        let result = injected(&object);
        let containers = &result["spec"]["template"]["spec"]["initContainers"];
        assert_eq!(
            (&containers[0]["name"], &containers[1]["name"]),
            (&json!(INIT_CONTAINER), &json!(PROXY_CONTAINER)),
            "{kind}"
        );
        assert_eq!(result["spec"]["serviceName"], "app", "{kind}: the rest is as it was");
        assert_eq!(skipped(&result), Skip::AlreadyInjected, "{kind}");
        assert_eq!(remove_object(&result), Some(object), "{kind}: what was put in is taken out again");
    }
}
