//! TLS that passes through the gateway, told apart by the server's name.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Ran, Scratch, eventually, run};
use serde_json::{Value, json};

const SERVER: &str = r"
import http.server, ssl
class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ('kept ' + self.path).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain('/certs/tls.crt', '/certs/tls.key')
server = http.server.ThreadingHTTPServer(('', 8443), Pages)
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// A server that has its own certificate, and the Ingress that leads to it.
fn objects(certificate: &str, key: &str) -> Value {
    let backend = json!({"service": {"name": "shop", "port": {"name": "https"}}});
    let rule = |host: &str| {
        let paths = [json!({"path": "/", "pathType": "Prefix", "backend": backend})];
        json!({"host": host, "http": {"paths": paths}})
    };
    let meta = |name: &str| json!({"name": name, "namespace": "default", "labels": {"app": "shop"}});
    let mut ingress = meta("shop");
    ingress["annotations"] = json!({"ingress.meshctl.io/ssl-passthrough": "true"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("shop"), "type": "kubernetes.io/tls",
         "stringData": {"tls.crt": certificate, "tls.key": key}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta("shop"),
         "spec": {"selector": {"app": "shop"}, "ports": [{"name": "https", "port": 443, "targetPort": 8443}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta("shop"), "spec": {
            "containers": [{
                "name": "app", "image": "none", "command": ["python3", "-c", SERVER],
                "ports": [{"containerPort": 8443}],
                "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                "volumeMounts": [{"name": "certs", "mountPath": "/certs"}],
            }],
            "volumes": [{"name": "certs", "secret": {"secretName": "shop"}}],
        }},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": ingress,
         "spec": {"ingressClassName": "mesh", "rules": [rule("shop.example"), rule("*.shop.example")]}},
    ]})
}

fn gateway(mesh: &Mesh, arguments: &[&str]) -> Ran {
    mesh.meshctl(&[&["-n", "mesh-system"][..], arguments].concat())
}

pub(crate) fn tls_passes_the_gateway_by_its_server_name_to_a_pod_with_a_sidecar(mesh: &Mesh) {
    let day = Duration::from_secs(86_400);
    let made = runtime::authority::serving_certificate(&["shop.example", "a.shop.example"], day).expect("it is made");
    let roots = Scratch::file("shop-roots.pem", &made.ca_pem);
    let objects = objects(&made.cert_pem, &made.key_pem).to_string();
    let _ = mesh.meshctl_with_input(&["apply", "-f", "-"], &objects).ok();
    let status = mesh.json(&["local", "status", "-o", "json"]);
    let ports = status["hostPorts"].as_array().cloned().unwrap_or_default();
    let port = ports.iter().find(|it| it["service"] == "mesh-ingressgateway" && it["port"] == 443);
    let port = port.map(|it| it["hostPort"].to_string()).unwrap_or_else(|| panic!("{status}"));
    let ask = |server: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", roots.path()]);
        curl.args(["--resolve", &format!("{server}:{port}:127.0.0.1"), &format!("https://{server}:{port}/page")]);
        run(&mut curl)
    };
    for server in ["shop.example", "a.shop.example"] {
        eventually(Duration::from_secs(30), || {
            let ran = ask(server);
            if ran.code == 0 && ran.stdout == "kept /page" { Ok(()) } else { Err(format!("{ran:?}")) }
        });
    }
    // Between the gateway and the sidecar it is by mutual TLS all the same.
    eventually(Duration::from_secs(10), || {
        let metrics = mesh.exec("pod/shop", &["curl", "-s", "http://127.0.0.1:15020/metrics"]).ok().stdout;
        let principal = "source_principal=\"spiffe://cluster.local/ns/mesh-system/sa/mesh-ingressgateway\"";
        let is_it = |line: &&str| line.starts_with("istio_tcp_connections_opened_total{") && line.contains(principal);
        if metrics.lines().any(|line| is_it(&line)) { Ok(()) } else { Err(metrics) }
    });
    let told = mesh.meshctl(&["describe", "service", "shop"]).ok().stdout;
    assert!(told.contains("*.shop.example") && told.contains("TLS passes to port 443"), "{told}");
    let told = gateway(mesh, &["proxy-config", "deploy/mesh-ingressgateway", "listeners"]).ok().stdout;
    assert!(told.contains("server name shop.example"), "{told}");

    let ran = ask("other.example");
    assert!(ran.code != 0 && ran.stdout.is_empty(), "{ran:?}");
    eventually(Duration::from_secs(10), || {
        let log = gateway(mesh, &["local", "logs", "deploy/mesh-ingressgateway"]).ok().stdout;
        if log.contains(" unknown_server ") { Ok(()) } else { Err(log) }
    });
    let metrics = ["local", "exec", "deploy/mesh-ingressgateway", "--", "curl", "-s", "http://127.0.0.1:15020/metrics"];
    let metrics = gateway(mesh, &metrics).ok().stdout;
    assert!(metrics.contains("mesh_connections_refused_total{reason=\"unknown_server\"}"), "{metrics}");

    // Without the Ingress nobody is let through.
    let _ = mesh.meshctl_with_input(&["delete", "-f", "-"], &objects).ok();
    eventually(Duration::from_secs(20), || {
        let ran = ask("shop.example");
        if ran.code != 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
}
