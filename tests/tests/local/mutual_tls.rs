//! Connections between sidecars prove who both are and show nothing on the way; who has no sidecar is served, or kept out.

use std::time::Duration;

use mesh_tests::access_log::{self, Line};
use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, repository};
use serde_json::Value;

use crate::life::under_load;

const PAGE: &str = "deploy/productpage-v1";
const RATINGS: &str = "http://ratings:9080/ratings/0";

/// A pod that the mesh knows nothing of, with curl.
const STRANGER: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: stranger
  namespace: default
  labels: {app: stranger, sidecar.meshctl.io/inject: "false"}
spec:
  containers:
  - {name: app, image: none, command: [sleep, infinity]}
"#;

/// Prints what it sees on the wire until it has seen a few packets of the port: those with bytes in them.
const CAPTURE: &str = r"
import socket, sys, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
wire.settimeout(0.5)
port, end, seen = int(sys.argv[1]), time.time() + 20, b''
print('ready', flush=True)
while time.time() < end:
    try:
        packet, address = wire.recvfrom(65535)
    except TimeoutError:
        continue
    if address[0] == 'lo' or len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
        continue
    tcp = packet[(packet[0] & 15) * 4:]
    if port not in (int.from_bytes(tcp[0:2], 'big'), int.from_bytes(tcp[2:4], 'big')):
        continue
    seen += tcp[(tcp[12] >> 4) * 4:]
    if b'mesh-h2' in seen and len(seen) > 6000:
        break
sys.stdout.buffer.write(seen)
";

fn sample(name: &str) -> String {
    repository().join("samples").join(name).display().to_string()
}

/// The status and head of a request that a pod sends.
fn ask(mesh: &Mesh, pod: &str, url: &str) -> String {
    mesh.exec(pod, &["curl", "-s", "-i", "-m", "20", url]).stdout
}

fn status(mesh: &Mesh, pod: &str, url: &str) -> String {
    ask(mesh, pod, url).split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Lines of a sidecar's metric with all of these labels.
fn series(mesh: &Mesh, pod: &str, labels: &[&str]) -> Vec<String> {
    let metrics = mesh.exec(pod, &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok().stdout;
    let requests = metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
    requests.filter(|line| labels.iter().all(|label| line.contains(label))).map(str::to_owned).collect()
}

fn with_stranger(mesh: &Mesh, test: impl FnOnce(&str)) {
    let file = Scratch::file("stranger.yaml", STRANGER);
    let _ = mesh.meshctl(&["apply", "-f", file.path()]).ok();
    eventually(Duration::from_secs(30), || {
        let ran = mesh.exec("pod/stranger", &["true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    test("pod/stranger");
    let _ = mesh.meshctl(&["delete", "-f", file.path()]).ok();
}

pub(crate) fn every_hop_between_sidecars_is_by_mutual_tls_without_a_word(mesh: &Mesh) {
    let id = |account: &str| format!("spiffe://cluster.local/ns/default/sa/bookinfo-{account}");
    eventually(Duration::from_secs(20), || {
        let _ = mesh.browser().get("/productpage", &[]).expect("the gateway answers");
        for (pod, source, destination) in [
            (PAGE, "spiffe://cluster.local/ns/mesh-system/sa/mesh-ingressgateway".to_owned(), id("productpage")),
            ("deploy/details-v1", id("productpage"), id("details")),
            ("deploy/reviews-v1", id("productpage"), id("reviews")),
            ("deploy/ratings-v1", id("reviews"), id("ratings")),
        ] {
            let labels = [
                "reporter=\"destination\"",
                "connection_security_policy=\"mutual_tls\"",
                &format!("source_principal=\"{source}\""),
                &format!("destination_principal=\"{destination}\""),
            ];
            if series(mesh, pod, &labels).is_empty() {
                return Err(format!("{pod} counts no request so: {:?}", series(mesh, pod, &[])));
            }
        }
        Ok(())
    });
    // The same is told by `proxy-status`, some seconds later.
    eventually(Duration::from_secs(30), || {
        let status = mesh.json(&["proxy-status", "-o", "json"]);
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        let details = proxies.iter().find(|it| it["id"].as_str().is_some_and(|id| id.starts_with("details")));
        let count = details.map_or(&Value::Null, |it| &it["traffic"]["mutualTls"]).as_u64().unwrap_or_default();
        if count > 0 { Ok(()) } else { Err(status.to_string()) }
    });
    let table = mesh.meshctl(&["proxy-status"]).ok().stdout;
    assert!(table.lines().next().is_some_and(|line| line.contains("TLS")), "{table}");
}

pub(crate) fn nothing_of_a_request_is_seen_between_pods(mesh: &Mesh) {
    const SECRET: &str = "x-secret: open-sesame";
    let capture = |from: &str, url: &str| {
        // The sidecar's container alone may look at the wire.
        let looking =
            ["local", "exec", "deploy/details-v1", "-c", "mesh-proxy", "--", "python3", "-c", CAPTURE, "9080"];
        let mut child = mesh.command(&looking);
        let child = child.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        let mut child = child.stderr(std::process::Stdio::inherit()).spawn().expect("it starts");
        let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        std::io::BufRead::read_line(&mut out, &mut ready).expect("a line");
        assert_eq!(ready, "ready\n");
        // A connection of its own for each, so that a handshake is among what is seen.
        for _ in 0..30 {
            let _ = mesh.exec(from, &["curl", "-s", "-H", SECRET, "-H", "connection: close", url]);
        }
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut out, &mut seen).expect("bytes");
        let _ = child.wait();
        String::from_utf8_lossy(&seen).into_owned()
    };
    let seen = capture(PAGE, "http://details:9080/details/0");
    assert!(!seen.is_empty(), "something is seen at all");
    for word in ["open-sesame", "HTTP/1.1", "GET ", "details/0", "Paperback"] {
        assert!(!seen.contains(word), "{word} is seen on the wire: {seen}");
    }
    // The same eyes see what a pod without a sidecar sends.
    with_stranger(mesh, |stranger| {
        let seen = capture(stranger, "http://details:9080/details/0");
        assert!(seen.contains("open-sesame"), "the capture sees clear text where there is some: {seen}");
    });
}

pub(crate) fn a_stranger_is_served_until_it_is_strict_and_was_named_before(mesh: &Mesh) {
    with_stranger(mesh, |stranger| {
        assert_eq!(status(mesh, stranger, RATINGS), "200", "PERMISSIVE serves both");
        let create = ["create", "authentication-policy", "ratings", "--mode", "strict", "--service", "ratings"];
        let trial = mesh.meshctl(&[&create[..], &["--dry-run=traffic"]].concat());
        assert_eq!(trial.code, 1, "{trial:?}");
        assert!(
            trial.stdout.contains("default/stranger") && trial.stdout.contains("default/ratings:9080"),
            "{trial:?}"
        );
        assert!(trial.stderr.contains("would be cut off"), "{trial:?}");
        let trial = mesh.meshctl(&[&create[..], &["--dry-run=traffic", "-o", "json"]].concat());
        let found: Value = serde_json::from_str(&trial.stdout).expect("JSON");
        let callers: Vec<&Value> = found["wouldCutOff"].as_array().expect("a list").iter().collect();
        let named = |it: &&&Value| it["caller"]["workload"] == "stranger" && it["port"] == 9080;
        assert!(callers.iter().any(|it| named(&it)), "{found}");

        let _ = mesh.meshctl(&["create", "-f", &sample("auth/strict-ratings.yaml"), "--wait"]).ok();
        let described = mesh.meshctl(&["describe", "service", "ratings"]).ok().stdout;
        assert!(described.contains("STRICT (authentication-policy/default/ratings)"), "{described}");
        let refused = ask(mesh, stranger, RATINGS);
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("x-mesh-failure: policy_denied"), "{refused}");
        assert_eq!(status(mesh, stranger, "http://details:9080/details/0"), "200", "others are as they were");
        assert_eq!(status(mesh, PAGE, RATINGS), "200", "workloads of the mesh have proved who they are");
        eventually(Duration::from_secs(5), || {
            let log = mesh.meshctl(&["local", "logs", "deploy/ratings-v1", "-c", "mesh-proxy"]).ok().stdout;
            let denied = |line: &Line| {
                line.code == "policy_denied" && line.details == "authentication-policy/default/ratings[none]"
            };
            if access_log::lines(&log).any(|line| denied(&line)) { Ok(()) } else { Err(log) }
        });
        let again = mesh.meshctl(&["apply", "-f", &sample("auth/strict-ratings.yaml"), "--dry-run=traffic"]).ok();
        assert!(again.stdout.contains("nobody would be cut off"), "whom it keeps out already: {again:?}");
        let _ = mesh.meshctl(&["delete", "-f", &sample("auth/strict-ratings.yaml"), "--wait"]).ok();

        // A namespace, and the whole mesh.
        for file in ["auth/strict.yaml", "auth/strict-mesh.yaml"] {
            let _ = mesh.meshctl(&["create", "-f", &sample(file), "--wait"]).ok();
            assert_eq!(status(mesh, stranger, "http://details:9080/details/0"), "403", "{file}");
            let page = mesh.browser().get("/productpage", &[]).expect("the gateway answers");
            assert!(page.status == 200 && page.body.contains("Book Details"), "{file}: {}", page.body);
            let _ = mesh.meshctl(&["delete", "-f", &sample(file), "--wait"]).ok();
        }
        assert_eq!(status(mesh, stranger, RATINGS), "200");
    });
}

/// A Service without an address of its own: its name is those of its pods.
const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: ratings-each, namespace: default}
spec:
  clusterIP: None
  selector: {app: ratings}
  ports: [{name: http, port: 9080}]
";

pub(crate) fn what_a_pod_sends_to_itself_is_plain_and_to_another_pods_address_it_is_not(mesh: &Mesh) {
    let _ = mesh.meshctl_with_input(&["apply", "-f", "-"], HEADLESS).ok();
    assert_eq!(status(mesh, "deploy/ratings-v1", RATINGS), "200", "to itself, through its service");
    let pods = mesh.json(&["get", "pods", "-n", "default", "-l", "app=ratings", "-o", "json"]);
    let address = pods["items"][0]["status"]["podIP"].as_str().expect("an address");
    let direct = format!("http://{address}:9080/ratings/0");
    assert_eq!(status(mesh, PAGE, &direct), "200", "past the service");
    let _ = mesh.meshctl(&["create", "-f", &sample("auth/strict.yaml"), "--wait"]).ok();
    assert_eq!(status(mesh, "deploy/ratings-v1", RATINGS), "200", "to itself it needs no proof");
    for url in [direct.as_str(), "http://ratings-each:9080/ratings/0"] {
        eventually(Duration::from_secs(20), || match &*status(mesh, PAGE, url) {
            "200" => Ok(()),
            other => Err(format!("{url}: {other}")),
        });
    }
    let labels =
        ["reporter=\"destination\"", "source_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-productpage\""];
    assert!(!series(mesh, "deploy/ratings-v1", &labels).is_empty(), "they know who has asked");
    with_stranger(mesh, |stranger| {
        assert_eq!(status(mesh, stranger, &direct), "403", "who has no sidecar proves nothing")
    });
    let _ = mesh.meshctl(&["delete", "-f", &sample("auth/strict.yaml"), "--wait"]).ok();
    let _ = mesh.meshctl_with_input(&["delete", "-f", "-"], HEADLESS).ok();
}

pub(crate) fn roles_decide_by_identity(mesh: &Mesh) {
    let files: Vec<String> = ["rbac-enable.yaml", "rbac-productpage.yaml", "rbac-ratings.yaml"]
        .iter()
        .flat_map(|name| ["-f".to_owned(), Mesh::sample(name)])
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let _ = mesh.meshctl(&[&["create"][..], &files, &["--wait"]].concat()).ok();
    assert_eq!(status(mesh, "deploy/reviews-v2", RATINGS), "200", "reviews may read ratings");
    assert_eq!(status(mesh, PAGE, RATINGS), "403", "productpage may not");
    assert_eq!(mesh.browser().get("/productpage", &[]).expect("the gateway answers").status, 200, "anybody may");
    with_stranger(mesh, |stranger| {
        assert_eq!(status(mesh, stranger, RATINGS), "403", "who proves nothing is nobody");
        let forged = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H"];
        let header = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        assert_eq!(
            mesh.exec(stranger, &[&forged[..], &[header, RATINGS]].concat()).stdout,
            "403",
            "a header proves nothing"
        );
    });
    let _ = mesh.meshctl(&[&["delete"][..], &files, &["--wait"]].concat()).ok();
}

pub(crate) fn while_modes_flip_no_request_fails(mesh: &Mesh) {
    const FLIPS: usize = 200;
    let policies = ["STRICT", "PERMISSIVE", "DISABLE", "PERMISSIVE"].map(|mode| {
        Scratch::file(
            &format!("{mode}-{}.yaml", mode.len()),
            &format!(
                "apiVersion: config.meshctl.io/v1alpha2\nkind: AuthenticationPolicy\nmetadata: {{name: default, namespace: default}}\nspec: {{peers: [{{mtls: {{mode: {mode}}}}}]}}\n"
            ),
        )
    });
    let sent = under_load(mesh, || {
        for flip in 0..FLIPS {
            let _ = mesh.meshctl(&["apply", "-f", policies[flip % policies.len()].path(), "--wait"]).ok();
        }
    });
    println!("  {sent} pages during {FLIPS} flips, none failed");
    assert!(sent > 100, "{sent}");
    let _ = mesh.meshctl(&["delete", "authentication-policy", "default", "-n", "default", "--wait"]).ok();
}

pub(crate) fn without_the_ca_traffic_goes_on(mesh: &Mesh) {
    let ca = ["local", "scale", "deploy/mesh-ca", "-n", "mesh-system"];
    let _ = mesh.meshctl(&[&ca[..], &["--replicas", "0", "--wait"]].concat()).ok();
    let _ = mesh.meshctl(&["create", "-f", &sample("auth/strict.yaml"), "--wait"]).ok();
    for _ in 0..20 {
        assert_eq!(mesh.browser().get("/productpage", &[]).expect("the gateway answers").status, 200);
    }
    let _ = mesh.meshctl(&["delete", "-f", &sample("auth/strict.yaml"), "--wait"]).ok();
    let _ = mesh.meshctl(&[&ca[..], &["--replicas", "1", "--wait"]].concat()).ok();
}
