//! The node on this machine: real namespaces, real processes, and a kube client. Needs user namespaces and `nft`, as
//! an ordinary user or as root.

#![allow(clippy::disallowed_methods, reason = "tests are no daemon")]

#[path = "support/mesh.rs"]
mod mesh;

use std::time::Duration;

use mesh::{Mesh, PROGRAM, eventually, processes_of, user_namespace_of};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn state<'a>(pod: &'a Value, list: &str, container: &str) -> Option<&'a Value> {
    pod["status"][list].as_array()?.iter().find(|it| it["name"] == container)
}

#[tokio::test]
async fn pods_reach_each_other_by_address_service_and_name() {
    let mesh = Mesh::start().await;
    let a = mesh.serve("a", &["serve", "8080", "I am a"]).await;
    mesh.serve("b", &["serve", "8080", "I am b"]).await;
    let get = async |address: &str| mesh.exec("b", "app", &[PROGRAM, "get", address, "/"]).await;
    assert_eq!(get(&format!("{a}:8080")).await, ("I am a".to_owned(), true));

    // A Service with its endpoints, written by hand so that nothing but the node is tested.
    let service = |name: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
               "spec": {"clusterIP": address, "ports": [{"port": 80, "targetPort": 8080}]}})
    };
    mesh.create(service("front", "10.96.7.7")).await;
    mesh.create(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "front-1", "labels": {"kubernetes.io/service-name": "front"}},
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": true}}],
    }))
    .await;
    mesh.create(service("nobody", "10.96.7.8")).await;
    eventually("the service answers", async || (get("10.96.7.7:80").await.0 == "I am a").then_some(())).await;
    assert_eq!(get("front:80").await.0, "I am a");
    assert_eq!(get("front.default.svc.cluster.local:80").await.0, "I am a");
    // By way of its own service a pod reaches itself.
    let own = mesh.exec("a", "app", &[PROGRAM, "get", "front:80", "/"]).await;
    assert_eq!(own.0, "I am a");
    let (refused, succeeded) = get("nobody:80").await;
    assert!(!succeeded && refused.contains("refused"), "{refused}");
    let (unknown, succeeded) = get("missing:80").await;
    assert!(!succeeded && unknown.contains("not known"), "{unknown}");
    mesh.stop().await;
}

#[tokio::test]
async fn nothing_is_left_when_the_supervisor_is_killed_and_pods_come_back_afterwards() {
    let mesh = Mesh::start().await;
    mesh.serve("a", &["serve", "8080", "I am a"]).await;
    let namespace = user_namespace_of(mesh.record.pid);
    assert!(processes_of(&namespace).len() >= 4, "PID 1, launcher, init and program");
    let pid = mesh.record.pid.to_string();
    assert!(mesh::silently("kill").args(["-KILL", &pid]).status().expect("kill runs").success());
    eventually("every process is gone", async || processes_of(&namespace).is_empty().then_some(())).await;
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&mesh.directory.path().display().to_string()), "a mount is left");
    assert!(local::platform::status(mesh.directory.path()).expect("readable").is_none(), "the record is stale");

    let again = Mesh::start_on(mesh.directory).await;
    again.ready("a").await;
    let restarts =
        again.when("a", |pod| state(pod, "containerStatuses", "app").and_then(|it| it["restartCount"].as_u64())).await;
    assert_eq!(restarts, 1);
    let again = Mesh::start_on(again.stop().await).await;
    again.ready("a").await;
    let restarts =
        again.when("a", |pod| state(pod, "containerStatuses", "app").and_then(|it| it["restartCount"].as_u64())).await;
    assert_eq!(restarts, 2, "a mesh that was stopped in peace is no different");
    again.stop().await;
}

#[tokio::test]
async fn an_application_has_no_capability_and_sees_neither_the_sidecars_files_nor_its_processes() {
    let mesh = Mesh::start().await;
    let security = json!({"runAsUser": 1337});
    let token = json!({"serviceAccountToken": {"path": "token", "audience": "mesh-pilot"}});
    mesh.run(
        "p",
        json!({
            "initContainers": [
                {"name": "rules", "image": "empty", "command": ["nft"], "args": ["add table inet marker"],
                 "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
                {"name": "sidecar", "image": "test", "args": ["serve", "9090", "sidecar"], "restartPolicy": "Always",
                 "startupProbe": {"tcpSocket": {"port": 9090}, "periodSeconds": 1}, "securityContext": security,
                 "volumeMounts": [{"name": "proxy", "mountPath": "/var/run/secrets/mesh", "readOnly": true}]},
            ],
            "containers": [{"name": "app", "image": "test", "args": ["serve", "8080", "app"]}],
            "volumes": [{"name": "proxy", "projected": {"sources": [token]}}],
        }),
    )
    .await;
    mesh.ready("p").await;
    let capabilities = async |container: &str| {
        let (status, _) = mesh.exec("p", container, &["cat", "/proc/self/status"]).await;
        let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
        fields.map(|field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
        })
    };
    assert_eq!(capabilities("app").await, [0, 0, 0, 0, 0, 1]);
    let net_raw = 1 << 13;
    assert_eq!(capabilities("sidecar").await, [net_raw, net_raw, net_raw, net_raw, net_raw, 1]);

    let (token, succeeded) = mesh.exec("p", "sidecar", &["cat", "/var/run/secrets/mesh/token"]).await;
    assert!(succeeded && token.split('.').count() == 3, "{token}");
    let (_, seen) = mesh.exec("p", "app", &["cat", "/var/run/secrets/mesh/token"]).await;
    assert!(!seen, "the application sees the sidecar's token");
    let (processes, _) = mesh.exec("p", "app", &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).await;
    assert!(processes.contains("serve 8080") && !processes.contains("9090"), "{processes}");
    // One network for all containers of the pod, and a file system of its own for each.
    let (answer, _) = mesh.exec("p", "app", &[PROGRAM, "get", "127.0.0.1:9090", "/"]).await;
    assert_eq!(answer, "sidecar");
    let (_, written) =
        mesh.exec("p", "app", &["sh", "-c", "echo x > /tmp/own && ! test -e /var/lib && ! touch /usr/x"]).await;
    assert!(written, "the application can write where it must, and only there");
    let (_, shared) = mesh.exec("p", "sidecar", &["test", "-e", "/tmp/own"]).await;
    assert!(!shared, "containers share a file system");
    mesh.stop().await;
}

#[tokio::test]
async fn init_containers_run_in_order_and_sidecars_start_first_and_end_last() {
    let mesh = Mesh::start().await;
    let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
    let note = |what: &str| {
        format!(
            "echo {what} >> /shared/order; trap 'echo {what}-ends >> /shared/order; exit 0' TERM; {}",
            if what.starts_with("init") { "true" } else { "while true; do sleep 0.05; done" }
        )
    };
    let container = |name: &str| json!({"name": name, "image": "empty", "command": ["sh", "-c", note(name)], "volumeMounts": shared});
    let sidecar = |name: &str| {
        let mut sidecar = container(name);
        sidecar["restartPolicy"] = json!("Always");
        sidecar["startupProbe"] = json!({"exec": {"command": ["grep", name, "/shared/order"]}, "periodSeconds": 1});
        sidecar
    };
    let directory = tempfile::tempdir().expect("a directory");
    mesh.run(
        "p",
        json!({
            "initContainers": [container("init1"), sidecar("side1"), container("init2"), sidecar("side2")],
            "containers": [container("main")],
            "volumes": [{"name": "shared", "hostPath": {"path": directory.path()}}],
        }),
    )
    .await;
    mesh.ready("p").await;
    eventually("the application has begun", async || {
        std::fs::read_to_string(directory.path().join("order")).ok().filter(|order| order.contains("main"))
    })
    .await;
    mesh.delete("p").await;
    eventually("the pod is gone", async || mesh.pods().get_opt("p").await.expect("an answer").is_none().then_some(()))
        .await;
    let order = std::fs::read_to_string(directory.path().join("order")).expect("the notes");
    let order: Vec<_> = order.lines().collect();
    assert_eq!(order, ["init1", "side1", "init2", "side2", "main", "main-ends", "side2-ends", "side1-ends"]);
    mesh.stop().await;
}

#[tokio::test]
async fn a_program_that_exits_at_once_and_an_image_without_program_say_so() {
    let mesh = Mesh::start().await;
    mesh.run(
        "crash",
        json!({"containers": [{"name": "app", "image": "empty", "command": ["sh", "-c", "echo out of luck; exit 3"]}]}),
    )
    .await;
    mesh.run("unknown", json!({"containers": [{"name": "app", "image": "example.com/unknown:1"}]})).await;
    mesh.run("hollow", json!({"containers": [{"name": "app", "image": "empty"}]})).await;
    mesh.run("missing", json!({"containers": [{"name": "app", "image": "empty", "command": ["/no/such/program"]}]}))
        .await;
    let waiting = async |pod: &str, reason: &str| {
        mesh.when(pod, |it| {
            let app = state(it, "containerStatuses", "app")?;
            (app["state"]["waiting"]["reason"] == reason).then(|| app.clone())
        })
        .await
    };
    let crash = waiting("crash", "CrashLoopBackOff").await;
    assert_eq!(crash["restartCount"], 2, "the first restart is immediate");
    assert_eq!(crash["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(crash["lastState"]["terminated"]["message"], "out of luck");
    assert_eq!(mesh.log("crash", "app", true).await, "out of luck\n");
    let message = |app: &Value| app["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    let unknown = message(&waiting("unknown", "ImageNotResolved").await);
    assert!(unknown.contains("--image example.com/unknown:1=PROGRAM"), "{unknown}");
    let hollow = message(&waiting("hollow", "ImageNotResolved").await);
    assert!(hollow.contains("has no program"), "{hollow}");
    let missing = waiting("missing", "CrashLoopBackOff").await;
    let error = missing["lastState"]["terminated"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("cannot execute `/no/such/program`"), "{error}");
    mesh.stop().await;
}

#[tokio::test]
async fn a_pod_that_fails_its_liveness_probe_is_restarted_and_one_that_completes_is_not() {
    let mesh = Mesh::start().await;
    let liveness = json!({"exec": {"command": ["test", "-e", "/alive"]}, "periodSeconds": 1, "failureThreshold": 1});
    mesh.run("sick", json!({"containers": [{"name": "app", "image": "empty", "command": ["sleep", "1000"], "livenessProbe": liveness}]})).await;
    mesh.run("done", json!({"restartPolicy": "OnFailure", "containers": [{"name": "app", "image": "test", "args": ["say", "done"]}]})).await;
    mesh.when("sick", |pod| {
        state(pod, "containerStatuses", "app").filter(|it| it["restartCount"].as_u64() > Some(0)).map(|_| ())
    })
    .await;
    mesh.when("done", |pod| (pod["status"]["phase"] == "Succeeded").then_some(())).await;
    assert_eq!(mesh.log("done", "app", false).await, "done\n");
    mesh.stop().await;
}

#[tokio::test]
async fn configuration_reaches_the_program() {
    let mesh = Mesh::start().await;
    mesh.create(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"color": "blue"}}),
    )
    .await;
    mesh.create(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "hush"}}),
    )
    .await;
    let env = json!([
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "$(COLOR)-$(ME)"},
    ]);
    let print = "echo $COLOR $KEY $ME $BOTH $1; cat /config/color /keys/key; pwd; sleep 1000";
    mesh.run("p", json!({
        "containers": [{"name": "app", "image": "empty", "env": env, "workingDir": "/tmp",
            "command": ["sh", "-c", print, "sh"], "args": ["$(ADDRESS)"],
            "volumeMounts": [{"name": "c", "mountPath": "/config"}, {"name": "k", "mountPath": "/keys"}]}],
        "volumes": [{"name": "c", "configMap": {"name": "settings"}}, {"name": "k", "secret": {"secretName": "keys"}}],
    }))
    .await;
    let address = mesh.ready("p").await;
    let log = eventually("the program has spoken", async || {
        Some(mesh.log("p", "app", false).await).filter(|log| log.contains("/tmp"))
    })
    .await;
    assert_eq!(log, format!("blue hush p blue-p {address}\nbluehush/tmp\n"));
    mesh.stop().await;
}

#[tokio::test]
async fn ports_of_pods_are_reached_from_the_host() {
    let mesh = Mesh::start().await;
    let _ = mesh.serve("a", &["serve", "8080", "I am a"]).await;
    let ask = async |stream: &mut dyn DuplexStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let mut forward = mesh.pods().portforward("a", &[8080]).await.expect("a forwarded port");
    let mut stream = forward.take_stream(8080).expect("its stream");
    assert!(ask(&mut stream).await.expect("an answer").ends_with("I am a"));
    mesh.stop().await;
}

trait DuplexStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> DuplexStream for T {}

#[tokio::test]
async fn a_second_supervisor_on_the_same_state_is_refused_and_down_leaves_nothing() {
    let mesh = Mesh::start().await;
    let spawn = local::platform::Spawn {
        program: PROGRAM.into(),
        arguments: vec!["supervise".to_owned(), mesh.directory.path().display().to_string(), "0".to_owned()],
        state_dir: mesh.directory.path().to_path_buf(),
        patience: Duration::from_secs(10),
    };
    let refused = local::platform::spawn_supervisor(&spawn).await.expect_err("there is one already").to_string();
    assert!(refused.contains("already running") && refused.contains("meshctl local down"), "{refused}");
    let namespace = user_namespace_of(mesh.record.pid);
    let path = mesh.directory.path().to_path_buf();
    let down = local::platform::down(&path, Duration::from_secs(30), true).await.expect("it ends");
    assert_eq!(down, local::platform::Down { was_running: true, purged: true });
    assert!(processes_of(&namespace).is_empty() && !path.exists());
}

#[tokio::test]
async fn commands_take_input_and_report_how_they_end_and_logs_are_followed() {
    let mesh = Mesh::start().await;
    let talk = "for i in 1 2 3; do echo line $i; done; while ! test -e /tmp/go; do sleep 0.05; done; echo the end";
    let container = json!({"name": "app", "image": "empty", "command": ["sh", "-c", talk]});
    mesh.run("p", json!({"restartPolicy": "Never", "containers": [container]})).await;
    mesh.ready("p").await;

    let parameters = kube::api::AttachParams::default().stdin(true).stderr(false);
    let mut process = mesh.pods().exec("p", ["sh", "-c", "cat; exit 7"], &parameters).await.expect("it runs");
    let (mut stdin, mut stdout) = (process.stdin().expect("stdin"), process.stdout().expect("stdout"));
    stdin.write_all(b"hello").await.expect("it reads");
    stdin.shutdown().await.expect("its input ends");
    drop(stdin);
    let mut echoed = String::new();
    stdout.read_to_string(&mut echoed).await.expect("text");
    assert_eq!(echoed, "hello");
    let status = process.take_status().expect("a status").await.expect("it ends");
    let code = status.details.and_then(|details| details.causes).and_then(|causes| causes[0].message.clone());
    assert_eq!(code.as_deref(), Some("7"));

    let follow = kube::api::LogParams { follow: true, tail_lines: Some(1), ..Default::default() };
    let log = mesh.pods().log_stream("p", &follow).await.expect("a log");
    let (_, gone) = mesh.exec("p", "app", &["touch", "/tmp/go"]).await;
    assert!(gone);
    let mut text = String::new();
    futures_util::io::AsyncReadExt::read_to_string(&mut std::pin::pin!(log), &mut text).await.expect("text");
    assert_eq!(text, "line 3\nthe end\n");
    mesh.stop().await;
}

#[tokio::test]
async fn dns_answers_for_the_cluster_and_fails_fast_for_what_it_cannot_know() {
    let mesh = Mesh::start().await;
    let address = mesh.serve("a", &["serve", "8080", "I am a"]).await;
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let ports = json!([{"name": "http", "port": 8080}]);
    mesh.create(service("direct", json!({"clusterIP": "None", "selector": {"app": "a"}, "ports": ports}))).await;
    mesh.create(service("front", json!({"selector": {"app": "a"}, "ports": ports}))).await;
    let external = json!({"type": "ExternalName", "externalName": "front.default.svc.cluster.local"});
    mesh.create(service("elsewhere", external)).await;
    let hosts = async |name: &str| {
        let (text, _) = mesh.exec("a", "app", &["getent", "ahostsv4", name]).await;
        text.split_whitespace().next().map(str::to_owned)
    };
    eventually("the headless service leads to its pod", async || (hosts("direct").await? == address).then_some(()))
        .await;
    let virtual_address = eventually("the service has an address", async || hosts("front").await).await;
    assert!(virtual_address.starts_with("10.96."), "{virtual_address}");
    assert_eq!(hosts("elsewhere").await, Some(virtual_address));
    eventually("the service answers", async || {
        let (answer, _) = mesh.exec("a", "app", &[PROGRAM, "get", "elsewhere:8080", "/"]).await;
        (answer == "I am a").then_some(())
    })
    .await;
    assert_eq!(hosts("nobody.default.svc.cluster.local").await, None);
    let begun = tokio::time::Instant::now();
    assert_eq!(hosts("name.invalid").await, None);
    assert!(begun.elapsed() < Duration::from_secs(15), "a name of nobody took {:?}", begun.elapsed());
    mesh.stop().await;
}

#[tokio::test]
async fn a_read_only_root_refuses_writing_but_into_volumes() {
    let mesh = Mesh::start().await;
    let volume = json!([{"name": "data", "mountPath": "/data"}]);
    mesh.run(
        "p",
        json!({
            "containers": [
                {"name": "fixed", "image": "test", "args": ["serve", "8080", "x"], "volumeMounts": volume,
                 "securityContext": {"readOnlyRootFilesystem": true}},
                {"name": "free", "image": "test", "args": ["serve", "8081", "x"]},
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }),
    )
    .await;
    mesh.ready("p").await;
    for (container, path, expected) in [
        ("fixed", "/data/file", true),
        ("fixed", "/file", false),
        ("fixed", "/tmp/file", false),
        ("fixed", "/run/file", false),
        ("free", "/file", true),
        ("free", "/tmp/file", true),
        ("free", "/usr/file", false),
    ] {
        let (said, succeeded) = mesh.exec("p", container, &["sh", "-c", &format!("echo x > {path}")]).await;
        assert_eq!(succeeded, expected, "{container} {path}: {said}");
        assert!(succeeded || said.contains("Read-only file system"), "{said}");
    }
    mesh.stop().await;
}

#[tokio::test]
async fn pods_reach_each_other_by_ipv6_and_services_have_one_family() {
    let mesh = Mesh::start().await;
    mesh.serve("a", &["serve", "8080", "I am a"]).await;
    mesh.serve("b", &["serve", "8080", "I am b"]).await;
    let addresses = async |pod: &str| {
        mesh.when(pod, |pod| {
            let list = pod["status"]["podIPs"].as_array()?.iter();
            let list: Vec<String> = list.filter_map(|it| it["ip"].as_str()).map(str::to_owned).collect();
            (list.len() == 2).then_some(list)
        })
        .await
    };
    let (a, b) = (addresses("a").await, addresses("b").await);
    assert!(a[0].starts_with("10.244.") && a[1].starts_with("fd10:244::"), "{a:?}");
    let get = async |address: &str, path: &str| mesh.exec("b", "app", &[PROGRAM, "get", address, path]).await;
    assert_eq!(get(&format!("[{}]:8080", a[1]), "/").await, ("I am a".to_owned(), true));
    assert_eq!(get(&format!("[{}]:8080", a[1]), "/peer").await, (b[1].clone(), true), "nobody hides the caller");

    let service = |name: &str, more: Value| {
        let mut spec = json!({"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8080}]});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    };
    mesh.create(service("six", json!({"ipFamilies": ["IPv6"]}))).await;
    mesh.create(service("six-headless", json!({"ipFamilies": ["IPv6"], "clusterIP": "None"}))).await;
    mesh.create(service("nobody", json!({"ipFamilies": ["IPv6"], "selector": {"app": "nobody"}}))).await;
    eventually("the service answers", async || (get("six:80", "/").await.0 == "I am a").then_some(())).await;
    assert_eq!(get("six.default.svc.cluster.local:80", "/peer").await.0, b[1]);
    assert_eq!(get("six-headless:8080", "/").await.0, "I am a");
    // By way of its own service a pod reaches itself.
    assert_eq!(mesh.exec("a", "app", &[PROGRAM, "get", "six:80", "/"]).await.0, "I am a");
    let (refused, succeeded) = get("nobody:80", "/").await;
    assert!(!succeeded && refused.contains("refused"), "{refused}");
    let slices = mesh.slices("six").await;
    assert_eq!((&slices[0]["addressType"], &slices[0]["endpoints"][0]["addresses"][0]), (&json!("IPv6"), &json!(a[1])));
    mesh.stop().await;
}
