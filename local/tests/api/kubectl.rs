//! The real `kubectl`, where it is installed.

use std::process::Output;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::server::Server;

/// Whether `kubectl` is there; says so when it is not.
async fn is_there() -> bool {
    let found =
        Command::new("kubectl").args(["version", "--client"]).output().await.is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("left out: kubectl is not installed (Debian: apt-get install kubernetes-client)");
    }
    found
}

async fn kubectl(server: &Server, arguments: &[&str]) -> Output {
    let home = server.kubeconfig().parent().expect("a directory").to_owned();
    let mut command = Command::new("kubectl");
    command
        .args(arguments)
        .env("KUBECONFIG", server.kubeconfig())
        .env("HOME", home)
        .env_remove("KUBECTL_REMOTE_COMMAND_WEBSOCKETS");
    command.kill_on_drop(true);
    let run = tokio::time::timeout(Duration::from_secs(30), command.output());
    run.await.unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end")).expect("kubectl runs")
}

async fn good(server: &Server, arguments: &[&str]) -> String {
    let output = kubectl(server, arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "kubectl {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn furnish(server: &Server) {
    let store = server.api.store();
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    store
        .create("deployments.apps", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
        .expect("created");
    let spec = json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    store
        .create("services", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
        .expect("created");
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    store.create("pods", json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})).expect("created");
    let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
    store.patch_status("pods", "default", "p", &status).expect("reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_describe_show_what_people_expect() {
    if !is_there().await {
        return;
    }
    let server = Server::start().await;
    furnish(&server);
    let pods = good(&server, &["get", "pods", "p"]).await;
    let words: Vec<&str> = pods.split_whitespace().collect();
    assert_eq!(words[..9], ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "p", "1/1", "Running", "0"], "{pods}");
    assert!(good(&server, &["get", "pods", "p", "-o", "wide"]).await.contains("10.244.0.9"));
    assert_eq!(good(&server, &["get", "po", "p", "-o", "jsonpath={.status.phase}"]).await, "Running");
    assert!(good(&server, &["get", "services", "-A"]).await.contains("80/TCP"));
    assert!(good(&server, &["get", "deploy,rs,svc,cm,sa,ns"]).await.contains("deployment.apps/web"));
    assert!(good(&server, &["get", "all"]).await.contains("service/web"));
    assert!(good(&server, &["api-resources"]).await.contains("endpointslices"));
    assert!(good(&server, &["version"]).await.contains("meshctl"));
    for what in [
        "pod/p",
        "service/web",
        "deployment/web",
        "namespace/default",
        "serviceaccount/default",
        "configmap/kube-root-ca.crt",
    ] {
        assert!(good(&server, &["describe", what]).await.contains("Name:"), "{what}");
    }
    let missing = kubectl(&server, &["get", "pods", "nothing"]).await;
    assert_eq!(
        String::from_utf8_lossy(&missing.stderr).trim(),
        "Error from server (NotFound): pods \"nothing\" not found"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_delete_scale_label_and_apply_work() {
    if !is_there().await {
        return;
    }
    let server = Server::start().await;
    furnish(&server);
    good(&server, &["wait", "--for=condition=Ready", "pod/p", "--timeout=10s"]).await;
    good(&server, &["scale", "deployment/web", "--replicas=0"]).await;
    good(&server, &["wait", "--for=condition=Available", "deployment/web", "--timeout=10s"]).await;
    good(&server, &["rollout", "status", "deployment/web", "--timeout=10s"]).await;
    good(&server, &["label", "pod", "p", "a=b"]).await;
    assert!(good(&server, &["get", "pods", "-l", "a=b", "-o", "name"]).await.contains("pod/p"));
    server
        .api
        .store()
        .create("configmaps", json!({"metadata": {"name": "made", "namespace": "default"}}))
        .expect("created");
    let file = server.kubeconfig().with_file_name("old.yaml");
    let old = "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata:\n  name: old\nspec:\n  replicas: 0\n  template:\n    metadata:\n      labels:\n        app: old\n    spec:\n      containers:\n      - name: c\n        image: i\n";
    std::fs::write(&file, old).expect("written");
    let path = file.to_str().expect("a path");
    good(&server, &["apply", "-f", path]).await;
    good(&server, &["apply", "--server-side", "--force-conflicts", "-f", path]).await;
    assert_eq!(
        good(
            &server,
            &["get", "deployments.v1.apps", "old", "-o", "jsonpath={.apiVersion} {.spec.selector.matchLabels.app}"]
        )
        .await,
        "apps/v1 old"
    );
    good(&server, &["delete", "-f", path]).await;
    good(&server, &["delete", "configmap", "made"]).await;
    good(&server, &["delete", "pod", "p", "--grace-period=0", "--force"]).await;
    good(&server, &["delete", "deployment", "web", "--cascade=foreground"]).await;
    server.api.store().create("namespaces", json!({"metadata": {"name": "n"}})).expect("created");
    good(&server, &["delete", "namespace", "n"]).await;
    assert!(good(&server, &["get", "ns", "-o", "name"]).await.lines().all(|it| it != "namespace/n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec_reach_the_pod() {
    if !is_there().await {
        return;
    }
    let server = Server::start().await;
    furnish(&server);
    assert_eq!(good(&server, &["logs", "p", "--tail=2"]).await, "two\nthree\n");
    assert_eq!(good(&server, &["logs", "-f", "p"]).await, "one\ntwo\nthree\n");
    assert_eq!(good(&server, &["exec", "p", "--", "hello", "world"]).await, "c: hello world\n");
    let failed = kubectl(&server, &["exec", "p", "--", "exit", "3"]).await;
    assert_eq!(failed.status.code(), Some(3), "{}", String::from_utf8_lossy(&failed.stderr));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_edits_work_and_what_does_not_says_the_way_around() {
    if !is_there().await {
        return;
    }
    let server = Server::start().await;
    furnish(&server);
    good(&server, &["scale", "deployment/web", "--replicas=0"]).await;
    good(&server, &["rollout", "restart", "deployment/web"]).await;
    good(&server, &["rollout", "status", "deployment/web", "--timeout=10s"]).await;
    let revisions = good(&server, &["rollout", "history", "deployment/web"]).await;
    assert!(revisions.contains("REVISION") && revisions.lines().any(|line| line.starts_with('2')), "{revisions}");
    good(&server, &["patch", "deployment/web", "-p", r#"{"spec":{"minReadySeconds":1}}"#]).await;
    good(&server, &["set", "image", "deployment/web", "c=j"]).await;
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(good(&server, &["get", "deployment/web", "-o", image]).await, "j");

    let refused = kubectl(&server, &["create", "configmap", "made", "--from-literal=a=b"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--dry-run=client -o yaml | kubectl apply -f -"), "{said}");
    let made =
        good(&server, &["create", "configmap", "made", "--from-literal=a=b", "--dry-run=client", "-o", "yaml"]).await;
    let file = server.kubeconfig().with_file_name("made.yaml");
    std::fs::write(&file, made).expect("written");
    good(&server, &["apply", "-f", file.to_str().expect("a path")]).await;
    assert_eq!(good(&server, &["get", "configmap", "made", "-o", "jsonpath={.data.a}"]).await, "b");

    let refused = kubectl(&server, &["port-forward", "pod/p", ":80"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("use `meshctl local port-forward`"), "{said}");
    server.stop().await;
}
