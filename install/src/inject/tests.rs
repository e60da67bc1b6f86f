use super::*;

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
    assert_eq!(inject_object(&taken, &injection()), Err(Refusal::NameTaken { name: PROXY_CONTAINER.to_owned() }));
    let mut unclear = deployment();
    unclear["spec"]["template"]["metadata"]["annotations"] = json!({INJECT: "maybe"});
    let refusal = inject_object(&unclear, &injection()).expect_err("unclear policy");
    assert_eq!(refusal.to_string(), "sidecar.meshctl.io/inject is `maybe`; it is `true` or `false`");
    let mut wrong = deployment();
    wrong["spec"]["template"]["spec"]["volumes"] = json!("none");
    let refusal = inject_object(&wrong, &injection()).expect_err("wrong shape");
    assert_eq!(refusal.to_string(), "spec.volumes is not a list");
}
