//! A whole Pilot in this process: a Kubernetes API in memory behind it, real TLS and gRPC in front.

pub(crate) mod api;
pub(crate) mod http;
pub(crate) mod proxy;

use std::net::SocketAddr;
use std::time::Duration;

use mesh_pilot::daemon::Pilot;
use mesh_pilot::settings::{Flags, Listen, Settings};
use serde_json::{Value, json};

pub(crate) use self::api::Api;
pub(crate) use self::proxy::Proxy;

/// The name that Pilot's certificate is for.
pub(crate) const SERVER: &str = "mesh-pilot.mesh-system.svc";
/// A token of the control plane's own account.
pub(crate) const CLI_TOKEN: &str = "mesh-system/meshctl/-";

pub(crate) struct Mesh {
    pub(crate) api: Api,
    pub(crate) pilot: Pilot,
    pub(crate) root: String,
    _certificates: tempfile::TempDir,
}

impl Mesh {
    /// Bookinfo's reviews (v1, v2, v3), ratings and productpage, and a gateway, before Pilot reads them.
    pub(crate) async fn start() -> Mesh {
        let api = Api::new();
        for (name, address) in [("reviews", "10.96.0.20"), ("ratings", "10.96.0.21"), ("productpage", "10.96.0.22")] {
            api.put(service(name, address));
        }
        for (at, version) in ["v1", "v2", "v3"].into_iter().enumerate() {
            api.put(pod("reviews", version, &format!("10.244.0.1{at}")));
        }
        api.put(pod("ratings", "v1", "10.244.0.20"));
        api.put(pod("productpage", "v1", "10.244.0.30"));
        let reviews = [("v1", "10.244.0.10"), ("v2", "10.244.0.11"), ("v3", "10.244.0.12")];
        api.put(slice("reviews", &reviews));
        api.put(slice("ratings", &[("v1", "10.244.0.20")]));
        api.put(slice("productpage", &[("v1", "10.244.0.30")]));
        Mesh::start_with(api).await
    }

    pub(crate) async fn start_with(api: Api) -> Mesh {
        let made =
            runtime::authority::serving_certificate(&[SERVER], Duration::from_secs(3600)).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        for (file, text) in [("tls.crt", &made.cert_pem), ("tls.key", &made.key_pem), ("ca.crt", &made.ca_pem)] {
            std::fs::write(directory.path().join(file), text).expect("written");
        }
        let anywhere: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let flags = Flags { kubeconfig: None, listen: anywhere.ip() };
        let mut settings = Settings::read(flags, &runtime::settings::Env::of([])).expect("defaults");
        settings.listen = Listen { xds: anywhere, webhooks: anywhere, debug: anywhere };
        settings.certificates = directory.path().to_owned();
        // There is no CA: Pilot goes on without an identity of its own.
        "127.0.0.1:1".clone_into(&mut settings.ca.address);
        let pilot = Pilot::start(settings, api.client(), None).await.unwrap_or_else(|failure| panic!("{failure}"));
        let mut ready = pilot.snapshots.changes();
        within(ready.wait_for(|serial| *serial > 0)).await.expect("Pilot runs");
        Mesh { api, pilot, root: made.ca_pem, _certificates: directory }
    }

    /// A stream of the proxy of a pod in `default`, subscribed to everything that a sidecar subscribes to.
    pub(crate) async fn sidecar(&self, pod: &str) -> Proxy {
        let mut proxy = self.connect(pod, &format!("default/default/{pod}")).await;
        proxy.subscribe_all().await;
        proxy
    }

    pub(crate) async fn connect(&self, pod: &str, token: &str) -> Proxy {
        Proxy::connect(
            self.pilot.addresses.xds,
            &self.root,
            &format!("sidecar~127.0.0.1~{pod}.default~default.svc.cluster.local"),
            token,
        )
        .await
    }

    pub(crate) async fn debug(&self, path: &str, token: &str) -> (u16, String) {
        http::get(self.pilot.addresses.debug, &self.root, path, token).await
    }

    /// Asks a webhook about the creation of an object.
    pub(crate) async fn admit(&self, path: &str, kind: &str, object: &Value) -> (u16, String) {
        let (group, version) = object["apiVersion"].as_str().expect("a version").rsplit_once('/').unwrap_or(("", "v1"));
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "u1", "operation": "CREATE", "namespace": "default", "name": "", "dryRun": false,
                "kind": {"group": group, "version": version, "kind": kind},
                "resource": {"group": group, "version": version, "resource": format!("{}s", kind.to_lowercase())},
                "userInfo": {"username": "somebody"}, "object": object,
            },
        });
        self.webhook(path, "application/json", &review.to_string()).await
    }

    pub(crate) async fn webhook(&self, path: &str, content_type: &str, body: &str) -> (u16, String) {
        http::post(self.pilot.addresses.webhooks, &self.root, path, content_type, body).await
    }

    pub(crate) async fn stop(self) {
        within(self.pilot.tasks.stop(Duration::from_secs(5))).await.expect("everything ends");
    }
}

/// Fails instead of waiting for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes no longer than 20 seconds")
}

pub(crate) fn service(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": address, "clusterIPs": [address], "selector": {"app": name},
            "ports": [{"name": "http", "port": 9080, "targetPort": 9080, "protocol": "TCP"}],
        },
    })
}

pub(crate) fn pod(app: &str, version: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{app}-{version}"), "namespace": "default", "labels": {"app": app, "version": version}},
        "spec": {"serviceAccountName": "default", "containers": [{"name": app, "ports": [{"containerPort": 9080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

pub(crate) fn slice(service: &str, endpoints: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(version, address)| {
            json!({
                "addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": format!("{service}-{version}"), "namespace": "default"},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-x"), "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}],
    })
}
