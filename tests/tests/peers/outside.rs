//! A machine outside of the cluster: it joins with a token of `meshctl ca issue`, and calls members by mutual TLS.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mesh_tests::programs::{peer, program, repository};
use runtime::Tasks;
use runtime::svid::{Bundle, Key, KeyKind, Publisher, Svid, Svids, channel};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::identities::REVIEWS;
use crate::proxy::free_port;
use crate::spiffe::{Health, Workload, serve};
use crate::world::{AUDIENCE, RunningCa, SERVER, World};

const BATCH: &str = "spiffe://cluster.local/ns/default/sa/batch";
const PATIENCE: Duration = Duration::from_secs(30);

/// What `meshctl` prints as JSON.
async fn meshctl(world: &World, arguments: &[&str]) -> Value {
    let mut command = Command::new(program("meshctl"));
    command.arg("--kubeconfig").arg(world.kubeconfig()).args(arguments);
    let ran = command.output().await.expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

/// `mesh-proxy identity`, as docs/security.md says that it is run there.
struct Machine {
    _child: Child,
    directory: tempfile::TempDir,
    metrics: u16,
    readiness: u16,
}

impl Machine {
    fn start(ca: &RunningCa, token: &str) -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        let (metrics, readiness) = (free_port(), free_port());
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        write("token", token);
        write("root.pem", &ca.root);
        let mut command = Command::new(program("mesh-proxy"));
        command
            .arg("identity")
            .env_clear()
            .env("POD_NAME", "machine")
            .env("POD_NAMESPACE", "default")
            .env("POD_IP", "127.0.0.1")
            .env("SERVICE_ACCOUNT", "batch")
            .env("MESH_CA_ADDRESS", ca.ca.addresses.csr.to_string())
            .env("MESH_CA_SERVER_NAME", SERVER)
            .env("MESH_CA_TOKEN_FILE", directory.path().join("token"))
            .env("MESH_PILOT_ROOT", directory.path().join("root.pem"))
            .env("MESH_WORKLOAD_SOCKET", directory.path().join("socket"))
            .env("MESH_METRICS_PORT", metrics.to_string())
            .env("MESH_READINESS_PORT", readiness.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().expect("it starts");
        Machine { _child: child, directory, metrics, readiness }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Waits until its metrics say something, and gives them.
    async fn until(&self, what: &str, fact: impl Fn(&Metrics) -> bool) -> Metrics {
        let asking = async {
            loop {
                if let Some((200, text)) = get(self.metrics, "/metrics").await {
                    let metrics = Metrics(text);
                    if fact(&metrics) {
                        return metrics;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not soon: {what}"))
    }

    async fn is_ready(&self) -> bool {
        get(self.readiness, "/healthz/ready").await.is_some_and(|(status, _)| status == 200)
    }
}

/// Metrics as they are scraped.
struct Metrics(String);

impl Metrics {
    fn value(&self, name: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

/// Status and body of a GET, if somebody answers.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A member of the mesh, whose certificate the same CA has issued.
async fn member(world: &World, ca: &RunningCa) -> (Publisher, Svids) {
    let key = Key::generate(KeyKind::P256).expect("a key");
    let (publisher, svids) = channel();
    let csr = key.request(None).expect("a request");
    let request = runtime::svid::wire::CertificateRequest { csr, validity_duration: 3600, metadata: None };
    let token = world.token("default", "reviews", AUDIENCE);
    let answer = ca.ask(world, Some(&token), &svids, request).await.expect("issued");
    let bundle = Bundle::from_pem(&answer.domains[0], &answer.domains[1..], answer.roots.as_bytes()).expect("roots");
    publisher.publish(Svid::new(answer.chain, key).expect("an SVID"), bundle);
    (publisher, svids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_outside_joins_by_a_token_once_and_calls_members_of_the_mesh() {
    let Some(spiffe) = peer("spiffe") else { return };
    let world = World::start().await;
    world.account("default", "batch");
    let ca = world.ca().await;
    let issued = meshctl(&world, &["ca", "issue", "--service-account", "default/batch", "-o", "json"]).await;
    assert_eq!(issued["ca"], "mesh-ca.mesh-system.svc:15013");
    let token = issued["token"].as_str().expect("a token");

    let machine = Machine::start(&ca, token);
    let metrics =
        machine.until("it has a certificate", |metrics| metrics.value("mesh_svid_renewals_total") == Some(1.0)).await;
    let (left, lifetime) = (metrics.value("mesh_svid_expiry_seconds"), metrics.value("mesh_svid_lifetime_seconds"));
    let (left, lifetime) = (left.expect("a gauge"), lifetime.expect("a gauge"));
    assert!(left > lifetime * 0.9 && left <= lifetime, "{left} of {lifetime}");
    assert_eq!(metrics.value("mesh_svid_renewal_failures_total"), Some(0.0));
    assert!(machine.is_ready().await);

    // What runs there has its identity from the socket, and calls a member, which sees who calls.
    let (_publisher, svids) = member(&world, &ca).await;
    let tasks = Tasks::new();
    let (told, mut callers) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(&svids, Health(told), &tasks).await;
    let mut workload = Workload::start(&spiffe, &machine.socket());
    let said = workload.says("svid").await;
    let (id, serial) = said.split_once(' ').expect("an identity and a number");
    assert_eq!(id, BATCH);
    workload.check(&address, REVIEWS).await;
    assert_eq!(workload.says("status").await, "SERVING");
    let caller = callers.recv().await.expect("it has called");
    // Go leaves out the byte that makes the number positive.
    assert_eq!((caller.id.as_str(), caller.serial.trim_start_matches("00")), (BATCH, serial.trim_start_matches("00")));

    // The token was good for one certificate.
    let thief = Machine::start(&ca, token);
    let metrics = thief
        .until("it is refused", |metrics| metrics.value("mesh_svid_renewal_failures_total").is_some_and(|n| n >= 1.0))
        .await;
    assert_eq!(metrics.value("mesh_svid_renewals_total"), Some(0.0));
    assert_eq!(metrics.value("mesh_svid_expiry_seconds"), Some(0.0));
    assert!(!thief.is_ready().await);
    tasks.stop(Duration::from_secs(5)).await.expect("everything ends");
}

/// The words of an expression that may be metrics of ours.
fn metrics_of(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(move |c| !is_part(c)).filter(|word| word.starts_with("mesh_"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_alert_of_the_sample_is_about_a_metric_that_is_there() {
    let world = World::start().await;
    let ca = world.ca().await;
    let machine = Machine::start(&ca, "nonsense");
    let scraped = machine.until("it is served", |_| true).await.0;
    let mut all = scraped;
    for source in ["ca/src/metrics.rs", "proxy/src/metrics/handshakes.rs"] {
        all.push_str(&read(&repository().join(source)));
    }
    let rules = read(&repository().join("samples/prometheus/mesh-alerts.yaml"));
    let expressions: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 4, "{rules}");
    for expression in expressions {
        for metric in metrics_of(expression) {
            let name = metric.strip_suffix("_total").unwrap_or(metric);
            assert!(all.contains(name), "{metric} of `{expression}` is nowhere");
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
