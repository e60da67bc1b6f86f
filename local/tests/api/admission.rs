use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::server::Server;

/// A webhook over real TLS that labels what is created, and refuses what is named `bad`.
struct Hook {
    ca: String,
    port: u16,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    async fn start(name: &str) -> Self {
        let key = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(vec![]));
        let log = seen.clone();
        let tasks = TaskTracker::new();
        let of_connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), log.clone());
                of_connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let log = log.clone();
                        async move {
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).expect("a review");
                            let answer = answer(&review);
                            log.lock().expect("unpoisoned").push(review);
                            Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(answer.to_string()))))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { ca: STANDARD.encode(key.cert.pem()), port, seen }
    }
}

fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if request["name"] == "bad" {
        response = json!({"uid": request["uid"], "allowed": false, "status": {"message": "it is bad", "code": 422}});
    } else if request["operation"] == "CREATE" {
        let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]);
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn configuration(client: &Value, resource: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": "hook"},
        "webhooks": [{
            "name": "hook.example.com", "clientConfig": client, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": policy, "timeoutSeconds": 2,
            "namespaceSelector": {"matchLabels": {"hooked": "yes"}},
            "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}],
        }],
    })
}

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_behind_a_service_changes_and_refuses_objects() {
    let server = Server::start().await;
    let hook = Hook::start("hook.mesh.svc").await;
    let store = server.api.store();
    for (name, labels) in [("mesh", json!({})), ("apps", json!({"hooked": "yes"}))] {
        store.create("namespaces", json!({"metadata": {"name": name, "labels": labels}})).expect("created");
    }
    let service = json!({"metadata": {"name": "hook", "namespace": "mesh"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": hook.port}]}});
    store.create("services", service).expect("created");
    let slice = json!({
        "metadata": {"name": "hook", "namespace": "mesh", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": hook.port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
    });
    store.create("endpointslices.discovery.k8s.io", slice).expect("created");
    let client = json!({"service": {"name": "hook", "namespace": "mesh", "path": "/inject"}, "caBundle": hook.ca});
    store.create(MUTATING, configuration(&client, "pods", "Fail")).expect("created");
    let pod = |name: &str, labels: Value| -> Pod {
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).expect("a pod")
    };
    let pods: Api<Pod> = Api::namespaced(server.client().await, "apps");
    let made = pods.create(&PostParams::default(), &pod("good", json!({}))).await.expect("created");
    assert_eq!(made.metadata.labels.expect("labels")["seen"], "yes");
    let refused = pods.create(&PostParams::default(), &pod("bad", json!({}))).await.expect_err("refused");
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 422);
    assert_eq!(status.message, "admission webhook \"hook.example.com\" denied the request: it is bad");
    pods.create(&PostParams::default(), &pod("skipped", json!({"skip": "yes"}))).await.expect("created");
    let elsewhere: Api<Pod> = Api::default_namespaced(server.client().await);
    elsewhere.create(&PostParams::default(), &pod("elsewhere", json!({}))).await.expect("created");
    let names: Vec<String> = hook
        .seen
        .lock()
        .expect("unpoisoned")
        .iter()
        .map(|it| it["request"]["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["good", "bad"], "selectors decide who is asked about");
    let seen = hook.seen.lock().expect("unpoisoned")[0].clone();
    assert_eq!(seen["request"]["userInfo"]["username"], "admin");
    assert_eq!(seen["request"]["object"]["spec"]["serviceAccountName"], "default", "defaults come first");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_webhook_matters_as_its_failure_policy_says() {
    let server = Server::start().await;
    let store = server.api.store();
    store.create("namespaces", json!({"metadata": {"name": "apps", "labels": {"hooked": "yes"}}})).expect("created");
    let hook = Hook::start("another.name").await;
    let url = json!({"url": format!("https://127.0.0.1:{}/", hook.port), "caBundle": hook.ca});
    store.create(MUTATING, configuration(&url, "configmaps", "Fail")).expect("created");
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "apps");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("one");
    let refused =
        maps.create(&PostParams::default(), &map).await.expect_err("its certificate is for another name").to_string();
    assert!(refused.contains("failed calling webhook \"hook.example.com\""), "{refused}");
    store
        .patch(MUTATING, "", "hook", &json!({"webhooks": configuration(&url, "configmaps", "Ignore")["webhooks"]}))
        .expect("patched");
    maps.create(&PostParams::default(), &map).await.expect("created all the same");
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    server.stop().await;
}
