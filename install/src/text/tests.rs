use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::inject::{Outcome, inject_object, inject_pod};
use crate::values::Images;

fn injection() -> Injection {
    Injection::new(Images::of_version("1"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
}

fn trees(text: &str) -> Vec<Value> {
    let (documents, problems) = yaml::parse("t.yaml", text);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    documents.iter().map(Node::to_json).collect()
}

/// An object whose status does not say how its text keeps probes.
fn in_meaning(mut object: Value) -> Value {
    let paths = ["", "/spec/template", "/spec/jobTemplate/spec/template"];
    for path in paths {
        let status = object.pointer_mut(path).and_then(|pod| pod.pointer_mut("/metadata/annotations"));
        let Some(status) = status.and_then(|annotations| annotations.get_mut(api::names::STATUS)) else { continue };
        let mut said: Value = serde_json::from_str(status.as_str().unwrap_or_default()).expect("JSON");
        for probe in said["probes"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            probe.retain(|key, _| key != "lines" && key != "text");
        }
        if said["probes"].is_null()
            && let Some(fields) = said.as_object_mut()
        {
            fields.shift_remove("probes");
        }
        *status = json!(said.to_string());
    }
    object
}

/// Injects, checks what always holds, and returns the text.
fn round_trip(text: &str) -> String {
    let injected = inject("t.yaml", text, &injection()).unwrap_or_else(|e| panic!("{e:?}\n{text}")).text;
    for (before, after) in trees(text).iter().zip(trees(&injected)) {
        let expected = match inject_object(before, &injection()) {
            Ok(Outcome::Injected(expected)) => expected,
            other => panic!("not injected: {other:?}\n{text}"),
        };
        assert_eq!(in_meaning(after), in_meaning(expected), "{injected}");
    }
    let twice = inject("t.yaml", &injected, &injection()).expect("it stays as it is");
    assert_eq!(twice.text, injected, "injecting twice is injecting once");
    let removed = remove("t.yaml", &injected).unwrap_or_else(|e| panic!("{e:?}\n{injected}"));
    assert_eq!(removed.text, text, "the bytes come back from\n{injected}");
    injected
}

/// Whether all lines of `text` are in `longer`, in order.
fn only_adds_lines(text: &str, longer: &str) -> bool {
    let mut lines = longer.split_inclusive('\n');
    text.split_inclusive('\n')
        .all(|line| lines.any(|other| other.trim_end_matches(['\r', '\n']) == line.trim_end_matches(['\r', '\n'])))
}

#[test]
fn text_in_any_block_style_only_gets_more_lines_and_gives_them_back() {
    for text in [
        // Comments, quotes, lists that are indented and not, a template without metadata.
        "# top\napiVersion: apps/v1\nkind: Deployment # what\nmetadata: {name: 'a'}\nspec:\n  template:\n    # here\n    \
         metadata:\n      labels: {app: \"a\"}\n    spec:\n      # the app\n      containers:\n        - name: a # one\n          \
         image: 'x:1'\n          args: [\"--a\", \"b\"]\n# end\n",
        "kind: Job\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers:\n      - name: a\n",
        "kind: Job\nmetadata:\n  name: a\nspec:\n  template:\n    metadata:\n    spec:\n      volumes:\n      initContainers: # none\n      containers:\n      - name: a\n",
        // Lists and annotations that are there already.
        "kind: Pod\nmetadata:\n  name: a\n  annotations:\n    # why\n    b: c\nspec:\n  volumes:\n    # data\n    - name: v\n      \
         emptyDir: {}\n  initContainers:\n  - name: first\n    command: |\n      a\n\n      b\n  containers:\n  - name: a\n",
        // The end of the text is inside of the pod.
        "kind: Pod\nspec:\n  containers:\n  - name: a\nmetadata:\n  name: a",
        "kind: Job\nspec:\n  template:\n    spec:\n      containers:\n      - name: a\n    metadata:",
        "kind: Pod\r\nmetadata:\r\n  name: a\r\nspec:\r\n  containers:\r\n  - name: a\r\n",
        "\u{feff}kind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n",
        // Several documents, and a root without metadata.
        "---\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n---\n# two\nkind: Pod\nspec:\n    containers:\n    - name: ü\n...\n",
        "kind: CronJob\nmetadata: {name: a}\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          containers: [{name: a}]\n",
        "apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  metadata:\n    name: a\n  spec:\n    containers:\n    - name: a\n- kind: Deployment\n  metadata:\n    name: b\n  spec:\n    template:\n      spec:\n        containers:\n        - name: b\n",
        // Anchors that nothing of ours is behind.
        "kind: Pod\nmetadata:\n  name: &n a\n  labels: &l\n    app: *n\nspec:\n  containers:\n  - name: *n\n",
    ] {
        let injected = round_trip(text);
        assert!(only_adds_lines(text, &injected), "{injected}");
    }
}

#[test]
fn containers_that_are_given_the_socket_give_it_back_in_every_style() {
    let asked = "metadata:\n  annotations:\n    sidecar.meshctl.io/workloadSocket: \"true\"\n";
    for spec in [
        // Neither list is there; a comment after the first field; the end of the text is inside the container.
        "spec:\n  containers:\n  - name: a # one\n    # two\n    image: x\n",
        "spec:\n  containers:\n    - name: a\n    - image: x\n      name: b",
        "spec:\n  containers:\n  - ports:\n    - containerPort: 80\n    name: a\n",
        "spec:\r\n  containers:\r\n  - name: a\r\n    image: x\r\n",
        // Lists that are there, in blocks, in brackets, and empty.
        "spec:\n  containers:\n  - name: a\n    env:\n    # mine\n    - name: B\n      value: c\n    volumeMounts:\n      - {name: v, mountPath: /v}\n",
        "spec:\n  containers:\n  - name: a\n    env: [{name: B, value: c}]\n    volumeMounts: []\n    image: x\n",
        "spec:\n  containers:\n  - name: a\n    env:\n    image: x\n",
        "spec: {containers: [{name: a, image: x}, {name: b, env: [{name: C}]}]}\n",
        // One has it already.
        "spec:\n  containers:\n  - name: a\n    env:\n    - name: SPIFFE_ENDPOINT_SOCKET\n      value: unix:///mine\n    volumeMounts:\n    - name: workload-socket\n      mountPath: /mine\n",
    ] {
        let break_ = if spec.contains("\r\n") { "\r\n" } else { "\n" };
        let text = format!("kind: Pod\n{asked}").replace('\n', break_) + spec;
        let injected = round_trip(&text);
        let pod = &trees(&injected)[0];
        for container in pod["spec"]["containers"].as_array().expect("a list") {
            for (list, name) in [("env", "SPIFFE_ENDPOINT_SOCKET"), ("volumeMounts", "workload-socket")] {
                let items = container[list].as_array().expect("a list");
                assert_eq!(items.iter().filter(|item| item["name"] == name).count(), 1, "{injected}");
            }
        }
    }
}

#[test]
fn the_lines_of_a_probe_stay_as_comments() {
    let text = "kind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    # alive?\n    livenessProbe:\n      \
                httpGet: # by HTTP\n        path: '/health'\n\n        # which\n        port: 8080\n      periodSeconds: 5\n    ports: []\n";
    let injected = round_trip(text);
    let expected = "    livenessProbe:\n      #was: httpGet: # by HTTP\n      #was:   path: '/health'\n#was: \n      \
                    #was:   # which\n      #was:   port: 8080\n      httpGet: {\"path\":\"/app-health/a/livez\",\"port\":15020}\n      periodSeconds: 5\n";
    assert!(injected.contains(expected), "{injected}");
    let kept = injected.replace("#was: ", "");
    assert!(only_adds_lines(text, &kept), "every line is still there:\n{injected}");
    // Written anew by a program, the comments are gone; the meaning comes back all the same.
    let (documents, _) = yaml::parse("t.yaml", &injected);
    let removed = remove("t.yaml", &yaml::render(&documents[0].to_json())).expect("it can be taken out");
    assert_eq!(trees(&removed.text), trees(text));
}

#[test]
fn probes_in_every_style_come_back_as_they_were() {
    for text in [
        // The end of the text; a hook; a named port; indentation by four.
        "kind: Pod\nspec:\n    containers:\n    -   name: a\n        ports: [{name: web, containerPort: 80}]\n        lifecycle:\n            \
         preStop:\n                httpGet: {path: /bye, port: web}\n        readinessProbe:\n            tcpSocket:\n                port: web",
        "kind: Pod\r\nspec:\r\n  containers:\r\n  - name: a\r\n    readinessProbe:\r\n      grpc:\r\n        port: 80\r\n",
        // One probe for two purposes, by an anchor.
        "kind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    livenessProbe: &probe\n      httpGet:\n        path: /\n        \
         port: 80\n    readinessProbe: *probe # the same\n    image: x\n",
        // Brackets, and a mark of ours that is the user's.
        "kind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a, livenessProbe: {periodSeconds: 1, httpGet: {'path': \"/\", port: 80}}, image: x}\n",
        "kind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    livenessProbe: {httpGet: {path: /, port: 80}}\n",
        "kind: Pod\nspec:\n  containers:\n  - name: a\n    livenessProbe:\n      #was: tcpSocket\n      httpGet:\n        #was: 1\n        port: 80\n",
        // Classic containers: the proxy is one beside the others.
        "kind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    metadata:\n      annotations:\n        sidecar.meshctl.io/native-sidecar: \"false\"\n    \
         spec:\n      containers:\n      # mine\n      - name: a\n        readinessProbe:\n          tcpSocket:\n            port: 80\n",
    ] {
        round_trip(text);
    }
    let object = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
        {"name": "a", "livenessProbe": {"httpGet": {"path": "/}", "port": 80}}, "readinessProbe": {"tcpSocket": {"port": 80}}},
    ]}});
    round_trip(&format!("{object:#}"));
    round_trip(&object.to_string());
}

#[test]
fn json_and_flow_style_are_extended_in_their_own_style() {
    let object = json!({
        "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"template": {
            "metadata": {"annotations": {}, "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "args": ["}", "\"", "'"]}], "volumes": []},
        }},
    });
    let pretty = format!("{object:#}\n");
    let injected = round_trip(&pretty);
    assert!(injected.contains("\n        \"initContainers\": [{\"name\":\"mesh-init\","), "{injected}");
    round_trip(&object.to_string());
    round_trip(&format!("{object}\n{object}\n"));
    let flow = "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: 'x'}]} # short\n";
    let injected = round_trip(flow);
    assert!(injected.contains(", containers: [{name: a, image: 'x'}]} # short\n"), "{injected}");
    round_trip(
        "kind: Pod\nmetadata:\n  name: a\n  annotations: {}\nspec:\n  volumes: []\n  initContainers: [\n    {name: i}\n  ]\n  containers:\n  - name: a\n",
    );
}

#[test]
fn what_cannot_be_extended_is_refused_and_said_why() {
    for (text, expected) in [
        (
            "kind: Pod\nmetadata:\n  name: a\n  annotations: null\nspec:\n  containers: []\n",
            "metadata.annotations: it is written as null",
        ),
        (
            "kind: Job\nx: &t\n  spec:\n    containers: []\nmetadata:\n  name: a\nspec:\n  template: *t\n",
            "its pod template: it is (or comes from) an alias",
        ),
        (
            "kind: Job\nmetadata:\n  name: a\nspec:\n  template:\n    metadata: &m\n      name: x\n    spec:\n      containers: []\n  other: *m\n",
            "it is shared with other places",
        ),
        (
            "kind: List\nitems:\n- kind: Pod\n  spec:\n    containers: []\n",
            "its pod template: it begins on the line of its list item",
        ),
    ] {
        let problems = inject("t.yaml", text, &injection()).expect_err(text);
        assert!(problems[0].to_string().contains(expected), "{}\n{text}", problems[0]);
    }
}

#[test]
fn every_object_is_reported() {
    let text = "kind: Service\napiVersion: v1\nmetadata: {name: s}\n---\napiVersion: x.dev/v1\nkind: Widget\nmetadata: {name: w}\n---\n\
                apiVersion: x.dev/v1\nkind: Rollout\nmetadata: {name: r}\nspec: {template: {spec: {containers: [{name: a}]}}}\n";
    let changed = inject("t.yaml", text, &injection()).expect("it works");
    let told: Vec<_> = changed.reports.iter().map(|report| (report.name.as_str(), report.skipped)).collect();
    assert_eq!(told, [("s", Some(Skip::NoPods)), ("w", Some(Skip::UnknownKind)), ("r", None)]);
}

#[test]
fn a_pod_that_was_injected_elsewhere_and_written_anew_loses_its_sidecar_too() {
    let object = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}});
    let Ok(Outcome::Injected(injected)) = inject_object(&object, &injection()) else { panic!("not injected") };
    let removed = remove("t.yaml", &yaml::render(&injected)).expect("it works");
    assert_eq!(trees(&removed.text), [object]);
}

/// Text as it may stand in a file, with what makes writing and reading hard.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}",
        "[ -~]{0,12}",
        "[a-z \n#:'\"-]{0,20}",
        Just("true".to_owned()),
        Just("0644".to_owned())
    ]
}

fn probe() -> impl Strategy<Value = Option<Value>> {
    let header = json!([{"name": "a", "value": "b: c"}]);
    let handler = prop_oneof![
        ("[a-z/]{0,8}", 1_u16..=65535).prop_map(|(path, port)| json!({"httpGet": {"path": path, "port": port}})),
        (1_u16..=65535)
            .prop_map(move |port| json!({"httpGet": {"port": port, "scheme": "HTTPS", "httpHeaders": header}})),
        (1_u16..=65535).prop_map(|port| json!({"tcpSocket": {"port": port}})),
        ("[a-z.]{0,8}", 1_u16..=65535).prop_map(|(service, port)| json!({"grpc": {"port": port, "service": service}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ];
    prop::option::of((handler, prop::option::of(1..60)).prop_map(|(mut probe, timeout)| {
        if let Some(timeout) = timeout {
            probe["timeoutSeconds"] = json!(timeout);
        }
        probe
    }))
}

/// A port that is not the proxy's.
fn free_port() -> impl Strategy<Value = u16> {
    (1_u16..=65535).prop_filter("the proxy's", |port| ![15000, 15001, 15006, 15020, 15021].contains(port))
}

fn container() -> impl Strategy<Value = Value> {
    let ports = prop::collection::vec(free_port(), 0..3);
    let probes = (probe(), probe(), probe());
    ("[a-z]{1,8}", words(), prop::option::of(prop::collection::vec(words(), 0..3)), ports, probes).prop_map(
        |(name, image, args, ports, (startup, ready, live))| {
            let ports: Vec<Value> = ports.into_iter().map(|port| json!({"containerPort": port})).collect();
            let mut container = json!({"name": name, "image": image, "ports": ports});
            if let Some(args) = args {
                container["args"] = json!(args);
            }
            for (name, probe) in [("startupProbe", startup), ("readinessProbe", ready), ("livenessProbe", live)] {
                if let Some(probe) = probe {
                    container[name] = probe;
                }
            }
            container
        },
    )
}

/// A pod template with and without each of the fields that injection adds to.
fn template() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[a-z]{1,5}", words(), 0..3);
    let annotations = prop::option::of(prop::collection::btree_map("[a-z]{1,5}/[a-z]{1,5}", words(), 0..3));
    let lists = (
        prop::collection::vec(container(), 1..3),
        prop::option::of(prop::collection::vec(container(), 0..3)),
        prop::option::of(prop::collection::vec(
            ("[a-z]{1,8}").prop_map(|name| json!({"name": name, "emptyDir": {}})),
            0..3,
        )),
    );
    (prop::bool::ANY, labels, annotations, lists, prop::bool::ANY).prop_map(
        |(has_metadata, labels, annotations, (containers, init, volumes), volumes_first)| {
            let mut template = json!({});
            if has_metadata {
                template["metadata"] = json!({"labels": labels});
                if let Some(annotations) = annotations {
                    template["metadata"]["annotations"] = json!(annotations);
                }
            }
            let (mut containers, mut init) = (containers, init);
            // Names are unique in a pod.
            let all = containers.iter_mut().chain(init.iter_mut().flatten());
            for (number, container) in all.enumerate() {
                let name = container["name"].as_str().unwrap_or_default();
                container["name"] = json!(format!("{name}{number}"));
            }
            let mut spec = json!({});
            if volumes_first && let Some(volumes) = &volumes {
                spec["volumes"] = json!(volumes);
            }
            spec["containers"] = json!(containers);
            if let Some(init) = init {
                spec["initContainers"] = json!(init);
            }
            if let Some(volumes) = volumes {
                spec["volumes"] = json!(volumes);
            }
            template["spec"] = spec;
            template
        },
    )
}

fn without_probes(item: &Value) -> Value {
    let mut item = item.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.retain(|key, _| !key.ends_with("Probe"));
    }
    item
}

fn deployment(template: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {"template": template}})
}

/// The text with comments between the lines that may have them: after a field's name without a value.
fn commented(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.trim_end() {
            "  template:" | "    spec:" | "    metadata:" => format!("{} # why\n  # and a line\n", line.trim_end()),
            _ => line.to_owned(),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_pod_template_survives_in_any_style(template in template()) {
        let object = deployment(&template);
        let block = yaml::render(&object);
        for text in [block.clone(), commented(&block), format!("{object:#}"), object.to_string(), block.replace('\n', "\r\n")] {
            // Line breaks within text are not kept when all of them are changed: such a text means something else.
            if trees(&text) == [object.clone()] {
                round_trip(&text);
            }
        }
    }

    #[test]
    fn nothing_of_the_users_pod_is_lost_and_webhook_and_cli_agree(template in template()) {
        let Ok(Outcome::Injected(by_cli)) = inject_object(&deployment(&template), &injection()) else {
            return Err(TestCaseError::fail("not injected"));
        };
        // What the controllers make of the template, as the webhook sees it.
        let mut pod = template.clone();
        pod["metadata"]["labels"]["pod-template-hash"] = json!("5d8f");
        pod["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "app-5d8f", "controller": true}]);
        let Ok(Outcome::Injected(by_webhook)) = inject_pod(&pod, &injection()) else {
            return Err(TestCaseError::fail("not injected"));
        };
        prop_assert_eq!(&by_cli["spec"]["template"]["spec"], &by_webhook["spec"]);
        for key in ["containers", "initContainers", "volumes"] {
            let own = template["spec"][key].as_array().cloned().unwrap_or_default();
            let all = by_webhook["spec"][key].as_array().cloned().unwrap_or_default();
            let last: Vec<Value> = all[all.len() - own.len()..].iter().map(without_probes).collect();
            let own: Vec<Value> = own.iter().map(without_probes).collect();
            prop_assert_eq!(last, own, "{} of the user come last, unchanged but for probes", key);
        }
        let asked: Vec<&Value> = by_webhook["spec"]["containers"].as_array().into_iter().flatten()
            .flat_map(|container| ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| &container[probe]))
            .collect();
        prop_assert!(asked.iter().all(|probe| probe["tcpSocket"].is_null() && probe["grpc"].is_null()));
        prop_assert!(asked.iter().all(|probe| probe["httpGet"].is_null() || probe["httpGet"]["port"] == 15020));
        prop_assert_eq!(inject_pod(&by_webhook, &injection()), Ok(Outcome::Skipped(Skip::AlreadyInjected)));
        let removed = inject::remove_pod(&by_webhook);
        prop_assert_eq!(removed.as_ref(), Some(&pod));
    }
}
