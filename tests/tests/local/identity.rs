//! Every workload has an identity, and `meshctl` shows it.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, run};

use crate::life::{kill, namespace_of, processes_in, under_load};

pub(crate) fn every_proxy_has_the_identity_of_its_account(mesh: &Mesh) {
    let status = eventually(Duration::from_secs(20), || {
        let status = mesh.json(&["proxy-status", "-o", "json"]);
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        if proxies.iter().all(|proxy| proxy["svid"]["id"].is_string()) { Ok(status) } else { Err(status.to_string()) }
    });
    let id_of = |pod: &str| {
        let proxies = status["proxies"].as_array().expect("a list").iter();
        let found = proxies.filter(|proxy| proxy["id"].as_str().is_some_and(|id| id.starts_with(pod)));
        found.map(|proxy| proxy["svid"]["id"].as_str().expect("text").to_owned()).next().unwrap_or_default()
    };
    let accounts = mesh.json(&["get", "pods", "-n", "default", "-o", "json"]);
    for pod in accounts["items"].as_array().expect("a list") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        assert_eq!(id_of(name), format!("spiffe://cluster.local/ns/default/sa/{account}"));
    }
    assert_eq!(id_of("mesh-ingressgateway"), "spiffe://cluster.local/ns/mesh-system/sa/mesh-ingressgateway");
    let bundles: std::collections::BTreeSet<_> =
        status["proxies"].as_array().expect("a list").iter().map(|proxy| proxy["svid"]["bundle"].to_string()).collect();
    assert_eq!(bundles.len(), 1, "all trust the same roots: {status}");
}

pub(crate) fn certificates_are_shown_and_keys_are_not(mesh: &Mesh) {
    let secrets = eventually(Duration::from_secs(20), || {
        let ran = mesh.meshctl(&["proxy-config", "deploy/productpage-v1", "secrets", "-o", "json"]).ok();
        if ran.stdout.contains("\"isValid\": true") { Ok(ran.stdout) } else { Err(ran.stdout) }
    });
    assert!(secrets.contains("spiffe://cluster.local/ns/default/sa/"), "{secrets}");
    assert!(!secrets.contains("PRIVATE KEY"), "{secrets}");
    let table = mesh.meshctl(&["ca", "inspect", "deploy/productpage-v1"]).ok().stdout;
    let has_row = |secret: &str, what: &str| {
        table.lines().any(|line| line.starts_with(secret) && line.split_whitespace().nth(1) == Some(what))
    };
    assert!(has_row("spiffe://cluster.local/ns/default/sa/", "certificate"), "{table}");
    assert!(has_row("cluster.local ", "root"), "{table}");
    let status = mesh.json(&["ca", "status", "-o", "json"]);
    let authority = &status["authorities"][0];
    assert_eq!(authority["trustDomain"], "cluster.local", "{status}");
    assert_eq!(authority["origin"], "self-made root");
    let root = authority["roots"][0]["fingerprint"].as_str().expect("a fingerprint");
    assert!(secrets.contains(root), "the proxy trusts the CA's root");
}

pub(crate) fn a_join_token_is_made_for_an_account_that_is_there(mesh: &Mesh) {
    let token = mesh.meshctl(&["ca", "issue", "--service-account", "default/default"]).ok();
    assert!(token.stdout.starts_with("mesh-join-"), "{token:?}");
    let missing = mesh.meshctl(&["ca", "issue", "--service-account", "nobody"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("there is no service account `nobody` in namespace default"), "{missing:?}");
}

pub(crate) fn a_rotation_of_the_root_interrupts_nothing(mesh: &Mesh) {
    let root = |mesh: &Mesh| mesh.json(&["ca", "status", "-o", "json"])["authorities"][0]["roots"].clone();
    let before = root(mesh);
    let served = under_load(mesh, || {
        let rotated = mesh.meshctl(&["ca", "rotate", "root", "--wait", "--timeout", "120s"]);
        let lines = rotated.ok().stdout;
        assert_eq!(lines.lines().count(), 3, "three stages: {lines}");
    });
    assert!(served > 10, "there was traffic all the time");
    let after = root(mesh);
    assert_eq!(after.as_array().map(Vec::len), Some(1), "the old root is gone: {after}");
    assert_ne!(before, after);
}

/// Pods whose application does nothing: one that asks for the socket of its identity, one that does not.
const APPLICATIONS: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: asks
  annotations: {sidecar.meshctl.io/workloadSocket: \"true\"}
spec:
  containers: [{name: app, image: none, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: asks-not}
spec:
  containers: [{name: app, image: none, command: [sleep, infinity]}]
";

pub(crate) fn an_application_has_its_identity_from_the_socket_where_its_pod_asks_for_it(mesh: &Mesh) {
    let file = Scratch::file("workload-socket.yaml", APPLICATIONS);
    let _ = mesh.meshctl(&["apply", "-f", file.path()]).ok();
    for pod in ["asks", "asks-not"] {
        eventually(Duration::from_secs(60), || {
            let found = mesh.json(&["get", "pod", pod, "-n", "default", "-o", "json"]);
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
            if is_ready { Ok(()) } else { Err(found["status"].to_string()) }
        });
    }
    // A question to SDS for the secret `default`, as gRPC writes it.
    let ask = |path: &str| {
        let script = format!(
            "printf '\\000\\000\\000\\000\\011\\032\\007default' | curl -s --http2-prior-knowledge -i -o - \
             --unix-socket \"${{SPIFFE_ENDPOINT_SOCKET#unix://}}\" -H 'content-type: application/grpc' -H 'te: trailers' \
             --data-binary @- http://socket{path} | tr -d '\\000'"
        );
        mesh.exec("pod/asks", &["sh", "-c", &script]).ok().stdout
    };
    let secret = eventually(Duration::from_secs(20), || {
        let answer = ask("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets");
        if answer.contains("BEGIN CERTIFICATE") { Ok(answer) } else { Err(answer) }
    });
    assert!(secret.contains("BEGIN PRIVATE KEY"), "the key comes with it");
    // curl may lose an answer that comes while it still sends.
    eventually(Duration::from_secs(20), || {
        let refused = ask("/SpiffeWorkloadAPI/FetchX509SVID");
        let is_told = refused.contains("grpc-status: 3") && refused.contains("security%20header");
        if is_told { Ok(()) } else { Err(refused) }
    });
    let log = mesh.meshctl(&["local", "logs", "pod/asks", "-c", "mesh-proxy"]).ok().stdout;
    assert!(log.contains("the private key was handed out") && log.contains("sa/default"), "{log}");

    let not = mesh
        .exec("pod/asks-not", &["sh", "-c", "ls /var/run/secrets/workload-spiffe-uds; echo $SPIFFE_ENDPOINT_SOCKET"]);
    assert_eq!(not.stdout.trim(), "", "nobody sees the socket unasked");
    let _ = mesh.meshctl(&["delete", "-f", file.path()]).ok();
}

/// Process of a program of the mesh, in the pod whose name begins like this; any pod's if it is empty.
fn process_of(mesh: &Mesh, program: &str, pod: &str) -> u32 {
    let (_, namespace) = namespace_of(mesh);
    let found = processes_in(&namespace).into_iter().find(|pid| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let words = |text: Vec<u8>| text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let is_program = words(read("cmdline")).first().is_some_and(|word| word.ends_with(program.as_bytes()));
        is_program
            && (pod.is_empty()
                || words(read("environ")).iter().any(|it| it.starts_with(format!("POD_NAME={pod}").as_bytes())))
    });
    found.unwrap_or_else(|| panic!("{program} {pod} runs"))
}

/// The roots that the CA hands out, and how far a rotation is; `None` while no CA answers.
fn authority(mesh: &Mesh) -> Option<(serde_json::Value, String)> {
    let ran = mesh.meshctl(&["ca", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).ok().filter(|_| ran.code == 0)?;
    let authority = &status["authorities"][0];
    Some((authority["roots"].clone(), authority["rotation"].as_str()?.to_owned()))
}

/// What the CA says of a rotation, once it answers.
fn rotation(mesh: &Mesh) -> Option<serde_json::Value> {
    let ran = mesh.meshctl(&["ca", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).ok().filter(|_| ran.code == 0)?;
    Some(status["authorities"][0].clone())
}

/// Stops a proxy for as long as something is done: it neither hears nor answers.
fn with_stopped(mesh: &Mesh, pod: &str, test: impl FnOnce()) {
    let lagging = process_of(mesh, "mesh-proxy", pod);
    let signal = |name: &str| {
        let _ = run(std::process::Command::new("sh").args(["-c", &format!("kill -{name} {lagging}")])).ok();
    };
    signal("STOP");
    test();
    signal("CONT");
}

/// A proxy that is stopped holds the rotation at each of its stages, where the CA is killed.
pub(crate) fn a_rotation_goes_on_where_a_killed_ca_left_it(mesh: &Mesh) {
    let (before, stage) = authority(mesh).expect("the CA answers");
    assert_eq!(stage, "none");
    let sent = under_load(mesh, || {
        let begun = mesh.meshctl(&["ca", "rotate", "root"]).ok();
        assert!(begun.stdout.contains("under way (stage: added)"), "{begun:?}");
        let mut killed = std::collections::BTreeSet::new();
        // Whatever stage it is found at, it is killed there once.
        let stages = eventually(Duration::from_secs(120), || {
            let Some(seen) = rotation(mesh) else { return Err("no CA answers".to_owned()) };
            let stage = seen["rotation"].as_str().unwrap_or_default().to_owned();
            if seen["isRotating"] == false {
                return Ok(killed.clone());
            }
            if killed.insert(stage) {
                kill(process_of(mesh, "mesh-ca", ""));
            }
            Err(seen.to_string())
        });
        assert!(stages.contains("added"), "it was killed at {stages:?}");
    });
    assert!(sent > 10, "there was traffic all the time");
    let (after, stage) = authority(mesh).expect("the CA answers");
    assert_eq!((after.as_array().map(Vec::len), stage.as_str()), (Some(1), "none"), "the old root is gone: {after}");
    assert_ne!(before, after);
}

pub(crate) fn a_rotation_stops_and_names_the_proxy_that_lags(mesh: &Mesh) {
    with_stopped(mesh, "ratings", || {
        let stopped = mesh.meshctl(&["ca", "rotate", "root", "--wait", "--timeout", "6s"]);
        assert_eq!(stopped.code, 4, "{stopped:?}");
        let lags = |line: &str| line.contains("lagging:") && line.contains("ratings-");
        assert!(stopped.stderr.lines().any(lags), "{stopped:?}");
        assert!(stopped.stderr.contains("both roots stay trusted"), "{stopped:?}");
        // The CA that comes after one that is killed waits for the same.
        kill(process_of(mesh, "mesh-ca", ""));
        let waits = eventually(Duration::from_secs(30), || {
            let seen = rotation(mesh).ok_or_else(|| "no CA answers".to_owned())?;
            let names = seen["waitingFor"].to_string();
            if names.starts_with("[\"ratings") && seen["waiting"] == 1 { Ok(seen) } else { Err(seen.to_string()) }
        });
        assert_eq!((waits["rotation"].as_str(), waits["roots"].as_array().map(Vec::len)), (Some("added"), Some(2)));
        let told = mesh.meshctl(&["ca", "status"]).ok();
        assert!(told.stderr.contains("waiting for ratings"), "{told:?}");
    });
    // It goes on by itself once the proxy does; the same command follows.
    let rest = mesh.meshctl(&["ca", "rotate", "root", "--wait", "--timeout", "60s"]).ok();
    assert!((1..=3).contains(&rest.stdout.lines().count()), "{rest:?}");
    assert_eq!(authority(mesh).expect("the CA answers").1, "none");
}
