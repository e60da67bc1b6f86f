//! OpenSSL's own client against a sidecar's port for mutual TLS, with a certificate that the mesh's CA has signed.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, repository};

/// A pod that may ask for its identity's key, and one without a sidecar, from which nothing is intercepted.
const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: keeper
  annotations: {sidecar.meshctl.io/workloadSocket: \"true\"}
spec:
  containers: [{name: app, image: none, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata:
  name: outsider
  labels: {sidecar.meshctl.io/inject: \"false\"}
spec:
  containers: [{name: app, image: none, command: [sleep, infinity]}]
";

/// A secret by SDS, as text with its PEM blocks.
fn secret(mesh: &Mesh, name: &str) -> String {
    // A field with the name, in a frame of gRPC.
    let frame = format!("\\000\\000\\000\\000\\{:03o}\\032\\{:03o}{name}", name.len() + 2, name.len());
    let script = format!(
        "printf '{frame}' | curl -s --http2-prior-knowledge -o - --unix-socket \"${{SPIFFE_ENDPOINT_SOCKET#unix://}}\" \
         -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- \
         http://socket/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets | tr -d '\\000'"
    );
    mesh.exec("pod/keeper", &["sh", "-c", &script]).stdout
}

/// All PEM blocks of a kind.
fn blocks(text: &str, kind: &str) -> String {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let blocks = text.split(&begin).skip(1).filter_map(|rest| rest.split_once(&end));
    blocks.map(|(body, _)| format!("{begin}{body}{end}\n")).collect()
}

pub(crate) fn openssl_is_served_with_a_certificate_of_the_ca_and_refused_without(mesh: &Mesh) {
    let file = Scratch::file("openssl.yaml", PODS);
    let _ = mesh.meshctl(&["apply", "-f", file.path()]).ok();
    let strict = repository().join("samples/auth/strict.yaml").display().to_string();
    let _ = mesh.meshctl(&["create", "-f", &strict, "--wait"]).ok();
    let identity = eventually(Duration::from_secs(60), || {
        let answer = secret(mesh, "default");
        if answer.contains("BEGIN PRIVATE KEY") { Ok(answer) } else { Err(answer) }
    });
    let (chain, key) = (blocks(&identity, "CERTIFICATE"), blocks(&identity, "PRIVATE KEY"));
    let roots = blocks(&secret(mesh, "ROOTCA"), "CERTIFICATE");
    assert!(!roots.is_empty() && !chain.is_empty());
    let pods = mesh.json(&["get", "pods", "-n", "default", "-l", "app=ratings", "-o", "json"]);
    let address = pods["items"][0]["status"]["podIP"].as_str().expect("an address").to_owned();

    let ask = |certificate: &str| {
        let script = format!(
            "cd /tmp && printf %s '{chain}' > chain.pem && printf %s '{key}' > key.pem && printf %s '{roots}' > roots.pem && \
             {{ printf 'GET /ratings/0 HTTP/1.1\\r\\nHost: ratings:9080\\r\\nConnection: close\\r\\n\\r\\n'; sleep 5; }} | \
             timeout 20 openssl s_client -connect {address}:9080 -alpn mesh-http/1.1 -CAfile roots.pem {certificate} \
             -verify_return_error -ign_eof 2>&1"
        );
        mesh.exec("pod/outsider", &["sh", "-c", &script]).stdout
    };
    let served = ask("-cert chain.pem -key key.pem");
    for expected in
        ["TLSv1.3", "Verify return code: 0 (ok)", "ALPN protocol: mesh-http/1.1", "HTTP/1.1 200", "\"ratings\""]
    {
        assert!(served.contains(expected), "{expected} is not in {served}");
    }
    let refused = ask("");
    assert!(!refused.contains("HTTP/1.1 "), "nothing is answered: {refused}");
    assert!(refused.contains("certificate required"), "it is told why: {refused}");
    let _ = mesh.meshctl(&["delete", "-f", &strict, "--wait"]).ok();
    let _ = mesh.meshctl(&["delete", "-f", file.path()]).ok();
}
