use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runtime::Tasks;
use tokio::sync::watch;

use crate::resources::{listener, routes};
use crate::upstream::{answering, get, holding, status};
use crate::{SOON, eventually};

/// The binary on a configuration, killed with the test.
pub struct Running {
    child: Child,
    log: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(config: &Path) -> Self {
        Running::of(command(config))
    }

    /// As this command says.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it is built");
        let stderr = child.stderr.take().expect("it is piped");
        let (lines, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, log, seen: Vec::new() }
    }

    /// The address in the first log line that has `words`, as `name=address`.
    pub async fn address(&mut self, words: &str, name: &str) -> SocketAddr {
        let key = format!("{name}=");
        eventually(words, || {
            self.seen.extend(self.log.try_iter());
            let line = self.seen.iter().find(|line| line.contains(words))?;
            line.split(' ').find_map(|part| part.strip_prefix(&key))?.parse().ok()
        })
        .await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    async fn ends(&mut self) -> i32 {
        eventually("its end", || self.child.try_wait().expect("it is ours")).await.code().expect("it exits by itself")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
    command.arg("--config").arg(config);
    command.args(["--admin-port", "0", "--metrics-port", "0", "--readiness-port", "0"]);
    command.env("MESH_ACCESS_LOG", "off").env("MESH_DRAIN_SECONDS", "10");
    command
}

/// A file with a listener, a route, and a cluster with one endpoint.
fn config(dir: &Path, upstream: SocketAddr) -> std::path::PathBuf {
    let cluster = format!(
        "  clusters:
  - name: up
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}
",
        upstream.port()
    );
    let path = dir.join("config.yaml");
    let text = format!("{}{cluster}{}", listener("http", 0, "r"), routes("r", "up"));
    std::fs::write(&path, text).expect("it can be written");
    path
}

#[tokio::test]
async fn a_request_passes_through_the_binary_on_a_configuration_from_a_file() {
    let (tasks, dir) = (Tasks::new(), tempfile::tempdir().expect("a directory"));
    let upstream = answering(&tasks, "hello").await;
    let mut proxy = Running::start(&config(dir.path(), upstream));
    let address = proxy.address("listening", "address").await;
    assert!(get(address, "/").await.expect("the listener is open").ends_with("hello"));
    let readiness = proxy.address("the proxy has started", "readiness").await;
    assert_eq!(status(&get(readiness, "/healthz/ready").await.expect("it listens")), 200);
    let admin = proxy.address("the proxy has started", "admin").await;
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .args(["request", "get", "clusters", "--admin-port", &admin.port().to_string()])
        .output()
        .expect("it is built");
    assert!(output.status.success(), "{output:?}");
    let clusters: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["total"], 1);
    proxy.terminate();
    assert_eq!(proxy.ends().await, 0);
    tasks.stop(SOON).await.expect("the upstream ends");
}

#[tokio::test]
async fn a_request_under_way_is_finished_after_sigterm() {
    let (tasks, dir) = (Tasks::new(), tempfile::tempdir().expect("a directory"));
    let (release, held) = watch::channel(());
    let upstream = holding(&tasks, "late", held).await;
    let mut proxy = Running::start(&config(dir.path(), upstream));
    let address = proxy.address("listening", "address").await;
    let (answer, ()) = tokio::join!(get(address, "/"), async {
        // The request has arrived at the upstream when its task exists.
        eventually("the request", || {
            tasks.running().iter().any(|(name, _)| *name == "upstream connection").then_some(())
        })
        .await;
        proxy.terminate();
        eventually("the closed listener", || std::net::TcpStream::connect(address).is_err().then_some(())).await;
        release.send(()).expect("the upstream waits");
    });
    assert!(answer.expect("the connection was accepted").ends_with("late"));
    assert_eq!(proxy.ends().await, 0);
    tasks.stop(SOON).await.expect("the upstream ends");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name_and_the_resources() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bad.yaml");
    for (text, expected) in [
        ("static_resources: { listenerz: [] }", "`listenerz` is not in force"),
        (&*listener("http", 0, "absent"), "route configuration `absent` is named but not in the file"),
        (
            &*routes("r", "up").replace("cluster: up", "cluster: up, request_mirror_policies: [{ cluster: a }]"),
            "route configuration `r`: ",
        ),
    ] {
        std::fs::write(&path, text).expect("it can be written");
        let output = command(&path).output().expect("it is built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("bad.yaml") && said.contains(expected), "{said}");
    }
    let output = command(&dir.path().join("absent.yaml")).output().expect("it is built");
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.yaml cannot be read: No such file"));
}
