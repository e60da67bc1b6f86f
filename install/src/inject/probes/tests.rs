use super::super::{Injection, Outcome, Skip, inject_object, inject_pod, remove_object};
use super::*;
use crate::values::Images;

fn injection() -> Injection {
    Injection::new(Images::of_version("1"), "ROOT")
}

#[expect(clippy::needless_pass_by_value, reason = "the tests give it literals")]
fn pod(container: Value, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": annotations},
        "spec": {"containers": [container]},
    })
}

fn injected(object: &Value) -> Value {
    match inject_object(object, &injection()) {
        Ok(Outcome::Injected(value)) => value,
        other => panic!("not injected: {other:?}"),
    }
}

fn refused(object: &Value) -> String {
    inject_object(object, &injection()).expect_err("it is refused").to_string()
}

/// What the proxy of an injected pod is told.
fn told(pod: &Value) -> Value {
    let proxy = pod["spec"]["initContainers"].as_array().into_iter().flatten().find(|it| it["name"] == "mesh-proxy");
    let env = proxy.and_then(|proxy| proxy["env"].as_array()).into_iter().flatten();
    let told = env.filter(|variable| variable["name"] == VARIABLE).find_map(|variable| variable["value"].as_str());
    told.map_or(Value::Null, |told| serde_json::from_str(told).expect("JSON"))
}

fn probed() -> Value {
    json!({
        "name": "app",
        "ports": [{"name": "web", "containerPort": 8080}, {"name": "rpc", "containerPort": 9000}],
        "startupProbe": {"tcpSocket": {"port": "rpc"}, "periodSeconds": 2},
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "web", "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": "b"}]},
            "timeoutSeconds": 4,
        },
        "livenessProbe": {"grpc": {"port": 9000, "service": "shop"}},
        "lifecycle": {
            "preStop": {"httpGet": {"path": "bye", "port": 8080}},
            "postStart": {"exec": {"command": ["true"]}},
        },
    })
}

#[test]
fn every_probe_asks_the_proxy_and_the_proxy_knows_what_to_ask() {
    let pod = pod(probed(), json!({}));
    let injected = injected(&pod);
    let container = &injected["spec"]["containers"][0];
    let get = |path: &str| json!({"path": path, "port": 15020});
    assert_eq!(container["startupProbe"], json!({"httpGet": get("/app-health/app/startupz"), "periodSeconds": 2}));
    assert_eq!(container["readinessProbe"], json!({"httpGet": get("/app-health/app/readyz"), "timeoutSeconds": 4}));
    assert_eq!(container["livenessProbe"], json!({"httpGet": get("/app-health/app/livez")}));
    assert_eq!(container["lifecycle"]["preStop"], json!({"httpGet": get("/app-lifecycle/app/prestopz")}));
    assert_eq!(container["lifecycle"]["postStart"], pod["spec"]["containers"][0]["lifecycle"]["postStart"]);
    let headers = json!([{"name": "A", "value": "b"}]);
    assert_eq!(
        told(&injected),
        json!({
            "/app-health/app/startupz": {"tcpSocket": {"port": 9000}, "timeoutSeconds": 1},
            "/app-health/app/readyz": {
                "httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTPS", "httpHeaders": headers}, "timeoutSeconds": 4,
            },
            "/app-health/app/livez": {"grpc": {"port": 9000, "service": "shop"}, "timeoutSeconds": 1},
            "/app-lifecycle/app/prestopz": {"httpGet": {"path": "bye", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1},
        })
    );
    assert_eq!(remove_object(&injected), Some(pod));
}

#[test]
fn what_is_no_question_to_the_pods_port_stays_as_it_is() {
    for handler in [
        json!({"exec": {"command": ["true"]}}),
        json!({"httpGet": {"host": "elsewhere.example", "path": "/", "port": 80}}),
    ] {
        let pod = pod(json!({"name": "app", "livenessProbe": handler}), json!({}));
        let injected = injected(&pod);
        assert_eq!(injected["spec"]["containers"], pod["spec"]["containers"]);
        assert_eq!(told(&injected), Value::Null);
    }
    for key in ["sidecar.meshctl.io/rewriteAppHTTPProbers", "sidecar.istio.io/rewriteAppHTTPProbers"] {
        let pod = pod(probed(), json!({key: "false"}));
        assert_eq!(injected(&pod)["spec"]["containers"], pod["spec"]["containers"], "{key}");
    }
}

#[test]
fn probes_of_the_users_own_native_sidecars_are_rewritten_too() {
    let mut pod = pod(json!({"name": "app"}), json!({}));
    let cache = json!({"name": "cache", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 6379}}});
    pod["spec"]["initContainers"] = json!([{"name": "first"}, cache]);
    let injected = injected(&pod);
    let sidecar = &injected["spec"]["initContainers"][3];
    assert_eq!(sidecar["readinessProbe"]["httpGet"]["path"], "/app-health/cache/readyz");
    assert_eq!(remove_object(&injected), Some(pod));
}

#[test]
fn a_probe_of_a_port_that_is_not_there_is_refused() {
    let pod = pod(json!({"name": "app", "livenessProbe": {"tcpSocket": {"port": "web"}}}), json!({}));
    let refusal = refused(&pod);
    assert!(
        refusal.contains("the livenessProbe of container `app`") && refusal.contains("tcpSocket.port"),
        "{refusal}"
    );
}

#[test]
fn classic_containers_are_there_on_request_and_the_application_can_wait_for_the_proxy() {
    for (annotations, waits) in [
        (json!({"sidecar.meshctl.io/native-sidecar": "false"}), false),
        (json!({"sidecar.meshctl.io/nativeSidecar": "false"}), false),
        (json!({"sidecar.istio.io/nativeSidecar": "false"}), false),
        (
            json!({
                "sidecar.meshctl.io/native-sidecar": "false",
                "sidecar.meshctl.io/holdApplicationUntilProxyStarts": "true",
            }),
            true,
        ),
        (
            json!({
                "sidecar.istio.io/nativeSidecar": "false",
                "proxy.istio.io/config": "concurrency: 2\nholdApplicationUntilProxyStarts: true\n",
            }),
            true,
        ),
    ] {
        let pod = pod(probed(), annotations);
        let injected = injected(&pod);
        let names = |list: &str| -> Vec<String> {
            let items = injected["spec"][list].as_array().into_iter().flatten();
            items.filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(names("initContainers"), ["mesh-init"]);
        assert_eq!(names("containers"), ["mesh-proxy", "app"], "the application starts after the proxy");
        let proxy = &injected["spec"]["containers"][0];
        assert_eq!(proxy.get("restartPolicy"), None);
        assert_eq!(proxy["lifecycle"]["postStart"]["exec"]["command"] == json!(["mesh-proxy", "wait"]), waits);
        assert_eq!(injected["spec"]["containers"][1]["livenessProbe"]["httpGet"]["port"], 15020);
        assert_eq!(inject_pod(&injected, &injection()), Ok(Outcome::Skipped(Skip::AlreadyInjected)));
        assert_eq!(remove_object(&injected), Some(pod));
    }
}

#[test]
fn pods_that_get_into_the_proxys_way_are_refused() {
    let clash = |port: u16| pod(json!({"name": "app", "ports": [{"containerPort": port}]}), json!({}));
    for port in [15000, 15001, 15006, 15020, 15021] {
        assert_eq!(refused(&clash(port)), format!("container `app` uses port {port}, which is the proxy's"));
    }
    injected(&clash(15022));
    let udp = json!({"name": "app", "ports": [{"containerPort": 15020, "protocol": "UDP"}]});
    injected(&pod(udp, json!({})));
    let own = pod(json!({"name": "app", "securityContext": {"runAsUser": 1337}}), json!({}));
    assert!(refused(&own).starts_with("container `app` runs as user 1337, which is the proxy's"), "{}", refused(&own));
    let mut whole = pod(json!({"name": "app"}), json!({}));
    whole["spec"]["securityContext"] = json!({"runAsUser": 1337});
    assert!(refused(&whole).starts_with("the pod runs as user 1337"), "{}", refused(&whole));
}

#[test]
fn the_webhooks_status_is_that_of_the_file() {
    let file = pod(json!({"name": "app"}), json!({}));
    let mut stored = file.clone();
    stored["spec"]["volumes"] = json!([{"name": "kube-api-access-x2k4z", "projected": {}}]);
    let status = |pod: &Value| injected(pod)["metadata"]["annotations"][api::names::STATUS].clone();
    assert_eq!(status(&stored), status(&file));
    assert_eq!(remove_object(&injected(&stored)), Some(stored));
}

#[test]
fn interfaces_and_log_level_are_asked_for_by_annotation() {
    let rules = |annotations: Value| {
        let pod = injected(&pod(json!({"name": "app"}), annotations));
        pod["spec"]["initContainers"][0]["args"][0].as_str().unwrap_or_default().to_owned()
    };
    for prefix in ["sidecar.meshctl.io", "traffic.sidecar.istio.io"] {
        let text = rules(json!({format!("{prefix}/excludeInterfaces"): "net1, eth2"}));
        assert!(text.contains("iifname { \"net1\", \"eth2\" } return"), "{text}");
        assert!(text.contains("oifname { \"net1\", \"eth2\" } return"), "{text}");
    }
    for key in ["sidecar.meshctl.io/rerouteInterfaces", "traffic.sidecar.istio.io/kubevirtInterfaces"] {
        let text = rules(json!({key: "virbr0"}));
        assert!(text.contains("iifname { \"virbr0\" } meta l4proto tcp redirect to :15001"), "{text}");
    }
    let evil = pod(json!({"name": "app"}), json!({"sidecar.meshctl.io/excludeInterfaces": "a\" } drop #"}));
    assert!(refused(&evil).contains("is not the name of a network interface"), "{}", refused(&evil));
    for (key, level, expected) in
        [("sidecar.meshctl.io/logLevel", "debug", "debug"), ("sidecar.istio.io/logLevel", "warning", "warn")]
    {
        let pod = injected(&pod(json!({"name": "app"}), json!({key: level})));
        let env = pod["spec"]["initContainers"][1]["env"].as_array().expect("variables");
        assert!(env.contains(&json!({"name": "MESH_LOG", "value": expected})), "{env:?}");
    }
    let loud = pod(json!({"name": "app"}), json!({"sidecar.meshctl.io/logLevel": "loud"}));
    assert!(refused(&loud).contains("a level is trace, debug, info, warn, error or off"), "{}", refused(&loud));
}
