//! A mesh under test: its own supervisor on a temporary state directory, and a client of its API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams, LogParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};

/// The program that is supervisor and application.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_local-test-program");
/// How long a fact may take to come true on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Mesh {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) record: local::supervisor::Record,
    pub(crate) client: Client,
    _supervisor: Supervisor,
}

/// A supervisor outlives whoever started it; that of a test that has failed must not.
struct Supervisor(local::supervisor::Record);

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.0.is_alive() {
            let _ = silently("kill").args(["-KILL", &self.0.pid.to_string()]).status();
        }
    }
}

impl Mesh {
    /// Starts a mesh in a directory of its own.
    pub(crate) async fn start() -> Self {
        Self::start_on(tempfile::tempdir().expect("a temporary directory")).await
    }

    /// Starts a mesh on a state directory that may have been used before.
    pub(crate) async fn start_on(directory: tempfile::TempDir) -> Self {
        let images = BTreeMap::from([("test".to_owned(), vec![PROGRAM.to_owned()]), ("empty".to_owned(), Vec::new())]);
        local::Images { images }.save(directory.path()).expect("the images are kept");
        let spawn = local::platform::Spawn {
            program: PathBuf::from(PROGRAM),
            arguments: vec!["supervise".to_owned(), directory.path().display().to_string(), "0".to_owned()],
            state_dir: directory.path().to_path_buf(),
            patience: PATIENCE,
        };
        let record = match local::platform::spawn_supervisor(&spawn).await {
            Ok(record) => record,
            Err(error) => panic!("these tests need user namespaces and nft: {error}"),
        };
        let supervisor = Supervisor(record.clone());
        let kubeconfig =
            kube::config::Kubeconfig::read_from(directory.path().join("kubeconfig")).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("a configuration");
        let mesh =
            Self { directory, record, client: Client::try_from(config).expect("a client"), _supervisor: supervisor };
        eventually("the default namespace exists", async || {
            let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(mesh.client.clone());
            let namespace = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("a namespace");
            let _ = namespaces.create(&PostParams::default(), &namespace).await;
            namespaces.get("default").await.ok()
        })
        .await;
        mesh
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object of any kind in the default namespace.
    pub(crate) async fn create(&self, object: Value) {
        let api = self.dynamic(&object);
        let object = serde_json::from_value(object).expect("an object");
        api.create(&PostParams::default(), &object).await.expect("the object is created");
    }

    /// The EndpointSlices of a service.
    pub(crate) async fn slices(&self, service: &str) -> Vec<Value> {
        let kind = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "any"}});
        let labels = format!("kubernetes.io/service-name={service}");
        let list = self.dynamic(&kind).list(&kube::api::ListParams::default().labels(&labels)).await.expect("a list");
        list.items.into_iter().map(|it| serde_json::to_value(it).expect("an object")).collect()
    }

    fn dynamic(&self, object: &Value) -> Api<kube::core::DynamicObject> {
        let types = serde_json::from_value(object.clone()).expect("apiVersion and kind");
        let gvk = kube::core::GroupVersionKind::try_from(&types).expect("a kind");
        let resource = kube::core::ApiResource::from_gvk(&gvk);
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    /// Creates a pod that runs the test program.
    pub(crate) async fn run(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["terminationGracePeriodSeconds"] = json!(2);
        let labels = json!({"app": name});
        self.create(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}),
        )
        .await;
    }

    /// Creates a pod with one container, and waits until it is ready.
    pub(crate) async fn serve(&self, name: &str, arguments: &[&str]) -> String {
        let probe = json!({"httpGet": {"port": 8080}});
        let container = json!({"name": "app", "image": "test", "args": arguments, "readinessProbe": probe});
        self.run(name, json!({"containers": [container]})).await;
        self.ready(name).await
    }

    /// Waits until a pod is ready and returns its address.
    pub(crate) async fn ready(&self, name: &str) -> String {
        self.when(name, |pod| {
            let ready = pod["status"]["conditions"]
                .as_array()?
                .iter()
                .any(|it| it["type"] == "Ready" && it["status"] == "True");
            ready.then(|| pod["status"]["podIP"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// Waits until a pod is as `fact` wants it.
    pub(crate) async fn when<T>(&self, name: &str, fact: impl Fn(&Value) -> Option<T>) -> T {
        let last = std::sync::Mutex::new(Value::Null);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(pod) = self.pods().get(name).await {
                let pod = serde_json::to_value(pod).expect("a pod");
                if let Some(found) = fact(&pod) {
                    return found;
                }
                *last.lock().expect("nobody panicked") = pod;
            }
            let log = std::fs::read_to_string(self.directory.path().join("supervisor.log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "pod {name} never got there: {:#}\n{log}",
                last.lock().expect("nobody panicked")["status"]
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command in a container and returns what it prints and whether it succeeded.
    pub(crate) async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> (String, bool) {
        let parameters = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
        let mut process = self.pods().exec(pod, command.to_vec(), &parameters).await.expect("the command runs");
        let (mut stdout, mut stderr) = (process.stdout().expect("stdout"), process.stderr().expect("stderr"));
        let (mut output, mut errors) = (String::new(), String::new());
        let status = process.take_status().expect("a status");
        let (read, read_errors) = tokio::join!(stdout.read_to_string(&mut output), stderr.read_to_string(&mut errors));
        read.and(read_errors).expect("the output is text");
        let status = status.await.expect("the command ends");
        (output + &errors, status.status.as_deref() == Some("Success"))
    }

    pub(crate) async fn log(&self, pod: &str, container: &str, previous: bool) -> String {
        let parameters = LogParams { container: Some(container.to_owned()), previous, ..LogParams::default() };
        self.pods().logs(pod, &parameters).await.unwrap_or_default()
    }

    pub(crate) async fn delete(&self, pod: &str) {
        self.pods().delete(pod, &DeleteParams::default()).await.expect("the pod is deleted");
    }

    /// Ends the mesh as a user does.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        local::platform::down(self.directory.path(), Duration::from_secs(30), false).await.expect("the mesh ends");
        self.directory
    }
}

/// Tries until there is a value.
pub(crate) async fn eventually<T>(what: &str, attempt: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came to pass that {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Process IDs of everything in the user namespace of a mesh.
pub(crate) fn processes_of(user_namespace: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/user")).is_ok_and(|it| it == user_namespace)).collect()
}

/// The user namespace of the mesh that a supervisor runs.
pub(crate) fn user_namespace_of(supervisor: u32) -> PathBuf {
    let children =
        std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).expect("its children");
    let init = children.split_whitespace().next().expect("it has a child");
    std::fs::read_link(format!("/proc/{init}/ns/user")).expect("its namespace")
}

/// Runs a program to its end without a word.
pub(crate) fn silently(program: &str) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
