//! A stock Envoy has `default` and `ROOTCA` from the socket of a proxy, speaks mutual TLS with them to both sides, and
//! follows every rotation.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener as _;
use engine::generate::{Bootstrap, envoy_bootstrap};
use mesh_proxy::workload_api::{CERTIFICATE, ROOTS, Users, WorkloadApi, WorkloadMetrics};
use runtime::Tasks;
use runtime::authority::Root;
use runtime::svid::client::connect_tls;
use runtime::svid::{Peers, Svids, channel, peer};
use runtime::tls::{Handshakes, TlsListener};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::identities::{RATINGS, REVIEWS, issue};
use crate::proxy::{free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// The program; `None` where it has not been fetched, which is told, and is a failure in CI.
fn program() -> Option<PathBuf> {
    let fetched = mesh_tests::programs::repository().join("target/envoy/bin/envoy");
    let path = std::env::var_os("ENVOY").map_or(fetched, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    let lacks = "Envoy is not there; run scripts/get-envoy first";
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lacks}");
    println!("left out: {lacks}");
    None
}

/// A secret by SDS: the certificate by the state of the world, the roots by delta, so that both are tried.
fn secret(name: &str) -> Value {
    let api = if name == ROOTS { "DELTA_GRPC" } else { "GRPC" };
    let source = json!({
        "api_type": api, "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": api::messages::node_metadata::SDS_CLUSTER}}],
    });
    json!({"name": name, "sds_config": {"api_config_source": source, "resource_api_version": "V3"}})
}

/// Envoy's certificate, and how it holds peers against the roots.
fn common(ids: &[&str]) -> Value {
    let names: Vec<Value> = ids.iter().map(|id| json!({"san_type": "URI", "matcher": {"exact": id}})).collect();
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [secret(CERTIFICATE)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": secret(ROOTS),
        },
    })
}

fn transport(kind: &str, context: Value) -> Value {
    let mut context = context;
    context["@type"] = json!(format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext"));
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn listener(port: u16, cluster: &str) -> Value {
    json!({"name": cluster, "address": address(port), "filter_chains": [{"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster, "cluster": cluster,
        },
    }]}]})
}

fn cluster(name: &str, port: u16) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
    }})
}

/// Envoy's ports: to a server that must be RATINGS, to one that must be REVIEWS, and from members of the mesh.
struct Ports {
    right: u16,
    wrong: u16,
    inward: u16,
}

/// Our bootstrap, with listeners of its own in place of Pilot's.
fn bootstrap(socket: &Path, ports: &Ports, (ours, plain): (u16, u16)) -> Value {
    let mut bootstrap = envoy_bootstrap(&Bootstrap {
        node_id: "sidecar~127.0.0.1~reviews-v1.default~default.svc.cluster.local".to_owned(),
        node_cluster: "reviews-v1.default".to_owned(),
        pilot_address: "127.0.0.1:1".to_owned(),
        pilot_name: "nobody".to_owned(),
        root_file: String::new(),
        token_file: String::new(),
        admin_port: 0,
        sds_socket: Some(socket.display().to_string()),
    });
    let mut inward = listener(ports.inward, "plain");
    let context = json!({"require_client_certificate": true, "common_tls_context": common(&[RATINGS])});
    inward["filter_chains"][0]["transport_socket"] = transport("Downstream", context);
    let (mut right, mut wrong) = (cluster("right", ours), cluster("wrong", ours));
    for (cluster, id) in [(&mut right, RATINGS), (&mut wrong, REVIEWS)] {
        cluster["transport_socket"] = transport("Upstream", json!({"common_tls_context": common(&[id])}));
    }
    if let Some(fields) = bootstrap.as_object_mut() {
        fields.remove("dynamic_resources");
    }
    bootstrap["static_resources"]["listeners"] =
        json!([listener(ports.right, "right"), listener(ports.wrong, "wrong"), inward]);
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().expect("that of the secrets");
    clusters.extend([right, wrong, cluster("plain", plain)]);
    bootstrap
}

/// A server by mutual TLS that tells each caller its certificate's serial number.
async fn telling(svids: &Svids, tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let config = svids.server_config(Peers::Members, &[]).expect("a configuration");
    let mut listener = TlsListener::new(listener, config, Handshakes::default());
    tasks.spawn_until_cancelled("telling", async move {
        loop {
            let (mut stream, _) = listener.accept().await;
            let caller = peer(stream.get_ref().1.peer_certificates()).expect("it was verified");
            // A caller that goes away ends its connection only.
            let _ = stream.write_all(format!("{} {}", caller.id, caller.serial).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

/// A server without TLS that says a word.
async fn plain(tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tasks.spawn_until_cancelled("plain", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"plain").await;
        }
    });
    port
}

/// All that is said on a connection; nothing, if it is cut.
async fn read(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text
}

async fn through(port: u16) -> String {
    read(TcpStream::connect(("127.0.0.1", port)).await.expect("Envoy listens")).await
}

/// What Envoy's own server gives to a caller, and the serial number of the certificate that it shows.
async fn inward(svids: &Svids, port: u16) -> Result<(String, String), String> {
    let peers = Peers::these([REVIEWS.parse().expect("an identity")]);
    let config = svids.client_config(peers, &[]).expect("a configuration");
    let name = "mesh".try_into().expect("a name");
    let stream = connect_tls(TcpStream::connect(("127.0.0.1", port)), Arc::clone(&config), name).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let serial = peer(stream.get_ref().1.peer_certificates()).expect("it was verified").serial;
    Ok((read(stream).await, serial))
}

/// Asks until the answer is the expected one: Envoy takes new secrets some moments after they were sent.
async fn until<F: Future<Output = String>>(expected: &str, ask: impl Fn() -> F) {
    let mut last = String::new();
    let asking = async {
        while last != expected {
            last = ask().await;
        }
    };
    let timed_out = tokio::time::timeout(PATIENCE, asking).await.is_err();
    assert!(!timed_out, "{expected} never comes; the last answer is {last:?}");
}

#[tokio::test]
async fn a_stock_envoy_has_its_secrets_from_the_socket_and_speaks_mutual_tls_with_them() {
    let Some(program) = program() else { return };
    let (one, two) = (Root::new("one").expect("a root"), Root::new("two").expect("a root"));
    let both = format!("{}{}", one.pem(), two.pem());
    let directory = tempfile::TempDir::new().expect("a directory");
    let socket = directory.path().join("socket");
    let tasks = Tasks::new();
    let (publisher, svids) = channel();
    let metrics = WorkloadMetrics::default();
    let handing = WorkloadApi::open(&socket, Users::Any, svids, metrics.clone()).expect("a socket");
    tasks.spawn("workload api", handing.serve(tasks.token().clone()));
    let (ours, our_svids) = channel();
    issue(&ours, RATINGS, &one, &one.pem());
    let servers = (telling(&our_svids, &tasks).await, plain(&tasks).await);

    let ports = Ports { right: free_port(), wrong: free_port(), inward: free_port() };
    let config = directory.path().join("bootstrap.json");
    std::fs::write(&config, bootstrap(&socket, &ports, servers).to_string()).expect("written");
    let log = std::fs::File::create(directory.path().join("log")).expect("a log");
    let _envoy = tokio::process::Command::new(program)
        .args(["--concurrency", "1", "-l", "warning", "--use-dynamic-base-id", "-c"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("Envoy starts");
    // It waits for its secrets, as there are none yet.
    let first = issue(&publisher, REVIEWS, &one, &one.pem());
    let right = ports.right;
    tokio::task::spawn_blocking(move || wait_for(right)).await.expect("Envoy listens");
    until(&format!("{REVIEWS} {first}"), || through(ports.right)).await;
    assert_eq!(through(ports.wrong).await, "", "the server is not whom this cluster wants");
    assert_eq!(inward(&our_svids, ports.inward).await, Ok(("plain".to_owned(), first.clone())));

    // Another certificate; then another root: trusted first, signing then, and at last alone.
    let second = issue(&publisher, REVIEWS, &one, &both);
    until(&format!("{REVIEWS} {second}"), || through(ports.right)).await;
    issue(&ours, RATINGS, &two, &both);
    until(&format!("{REVIEWS} {second}"), || through(ports.right)).await;
    let third = issue(&publisher, REVIEWS, &two, &two.pem());
    until(&format!("{REVIEWS} {third}"), || through(ports.right)).await;
    assert_eq!(inward(&our_svids, ports.inward).await, Ok(("plain".to_owned(), third)));
    issue(&ours, RATINGS, &one, &both);
    until("", || through(ports.right)).await;
    let refused = inward(&our_svids, ports.inward).await.map(|(said, _)| said);
    assert!(refused.as_ref().is_err() || refused.as_deref() == Ok(""), "the old root is gone: {refused:?}");
    assert_eq!(metrics.refusals("secret"), 0, "Envoy took every secret");
    tasks.stop(Duration::from_secs(5)).await.expect("everything ends");
    assert_eq!(tasks.panics(), 0);
}
