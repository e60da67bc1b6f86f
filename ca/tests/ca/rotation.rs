//! Another root, stage by stage; and who may ask for it.

use std::sync::Arc;

use api::messages::{AuthorityStatus, Rotation};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use mesh_ca::store::{Step, Store};
use serde_json::json;
use tokio::net::TcpStream;

use crate::world::{AUDIENCE, RunningCa, SERVER, World, id_of, request};

/// Asks the debug port, and gives the status and the text of the answer.
async fn ask(ca: &RunningCa, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let config = runtime::tls::client_config(ca.root.as_bytes(), &[b"http/1.1"]).expect("a configuration");
    let stream = TcpStream::connect(ca.ca.addresses.debug).await.expect("it listens");
    let name = SERVER.try_into().expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.expect("TLS");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let tasks = runtime::Tasks::new();
    tasks.spawn("connection", async move {
        let _ = connection.await;
    });
    let mut request = http::Request::builder().method(method).uri(path).header("host", "ca");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("answered");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn status(ca: &RunningCa, token: &str) -> AuthorityStatus {
    let (code, text) = ask(ca, "GET", "/v1/authority", Some(token)).await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

async fn step(ca: &RunningCa, step: &str, token: &str) -> AuthorityStatus {
    let (code, text) = ask(ca, "POST", &format!("/v1/rotation/{step}"), Some(token)).await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// A token of the control plane's own.
fn operator(world: &World) -> String {
    world.account("mesh-system", "meshctl");
    world.token("mesh-system", "meshctl", AUDIENCE)
}

#[tokio::test]
async fn a_root_is_replaced_in_stages_that_overlap() {
    let world = World::start().await;
    let ca = world.ca().await;
    let (operator, token) = (operator(&world), world.token("default", "reviews", AUDIENCE));
    let before = status(&ca, &operator).await;
    assert_eq!((before.rotation, before.roots.len()), (Rotation::None, 1));

    let added = step(&ca, "add", &operator).await;
    assert_eq!((added.rotation, added.roots.len()), (Rotation::Added, 2));
    assert_eq!(added.issuer_key, before.issuer_key, "the new root signs nothing yet");
    assert_ne!(added.bundle, before.bundle);
    assert_eq!(step(&ca, "add", &operator).await, added, "asked for again it changes nothing");

    let signing = step(&ca, "sign", &operator).await;
    assert_eq!((signing.rotation, &signing.bundle), (Rotation::Signing, &added.bundle));
    assert_ne!(signing.issuer_key, before.issuer_key);
    let answer = ca.ask_by_token(&world, &token).await.expect("issued");
    assert_eq!(runtime::tls::certificates(answer.roots.as_bytes()).expect("roots").len(), 2);
    let leaf = runtime::svid::Leaf::read(&answer.chain[0]).expect("an SVID");
    assert_eq!(leaf.issuer, signing.issuer_key);

    // A CA that starts in the middle is where the others are.
    let other = world.ca().await;
    let seen = status(&other, &operator).await;
    assert_eq!(
        (seen.rotation, &seen.bundle, &seen.issuer_key),
        (Rotation::Signing, &signing.bundle, &signing.issuer_key)
    );

    let retired = step(&ca, "retire", &operator).await;
    assert_eq!((retired.rotation, retired.roots.len()), (Rotation::None, 1));
    assert_eq!(retired.issuer_key, signing.issuer_key);
    assert_ne!(retired.roots[0].fingerprint, before.roots[0].fingerprint);
    assert_eq!(id_of(&ca.ask_by_token(&world, &token).await.expect("issued")), crate::world::REVIEWS);
}

/// A CA writes what it does before it does it: one that dies right after that is a step that others find taken.
#[tokio::test]
async fn a_ca_that_dies_at_any_stage_leaves_the_rotation_to_the_next() {
    let world = World::start().await;
    let operator = operator(&world);
    let token = world.token("default", "reviews", AUDIENCE);
    let first = world.ca().await;
    let (_publisher, old) = crate::callers::identity(&world, &first, &token).await;
    let policy = first.ca.authority.load().policy().clone();
    first.stop().await;
    let store = Store::new(world.client().await);
    for (step, word, stage, trusted) in [
        (Step::Add, "add", Rotation::Added, 2),
        (Step::Sign, "sign", Rotation::Signing, 2),
        (Step::Retire, "retire", Rotation::None, 1),
    ] {
        store.rotate(step, &policy, std::time::SystemTime::now()).await.expect("it comes next");
        let next = world.ca().await;
        let seen = AuthorityStatus { issued: Default::default(), ..status(&next, &operator).await };
        assert_eq!((seen.rotation, seen.roots.len()), (stage, trusted), "{word}");
        assert_eq!(step_again(&next, word, &operator).await, seen, "asked for again it changes nothing");
        let answer = next.ask_by_token(&world, &token).await.expect("it signs at every stage");
        let leaf = runtime::svid::Leaf::read(&answer.chain[0]).expect("an SVID");
        assert_eq!(leaf.issuer, seen.issuer_key, "{word}");
        let by_old = next.ask(&world, None, &old, request(None)).await;
        assert_eq!(by_old.is_ok(), stage != Rotation::None, "{word}: the old root is trusted until it is retired");
        next.stop().await;
    }
}

async fn step_again(ca: &RunningCa, word: &str, token: &str) -> AuthorityStatus {
    AuthorityStatus { issued: Default::default(), ..step(ca, word, token).await }
}

#[tokio::test]
async fn an_svid_of_a_retired_root_is_refused_and_one_of_an_old_root_is_not() {
    let world = World::start().await;
    let ca = world.ca().await;
    let (operator, token) = (operator(&world), world.token("default", "reviews", AUDIENCE));
    let (_publisher, old) = crate::callers::identity(&world, &ca, &token).await;
    step(&ca, "add", &operator).await;
    step(&ca, "sign", &operator).await;
    ca.ask(&world, None, &old, request(None)).await.expect("the old root is still trusted");
    step(&ca, "retire", &operator).await;
    ca.ask(&world, None, &old, request(None)).await.expect_err("nobody trusts the old root any more");
}

#[tokio::test]
async fn steps_out_of_order_and_from_outside_are_refused() {
    let world = World::start().await;
    let ca = world.ca().await;
    let operator = operator(&world);
    let (code, text) = ask(&ca, "POST", "/v1/rotation/sign", Some(&operator)).await;
    assert_eq!((code, text.as_str()), (409, "the rotation is at stage None, where Sign is not the next step\n"));
    assert_eq!(ask(&ca, "POST", "/v1/rotation/all", Some(&operator)).await.0, 404);
    for path in ["/v1/rotation/add", "/v1/authority"] {
        let method = if path.ends_with("add") { "POST" } else { "GET" };
        assert_eq!(ask(&ca, method, path, None).await.0, 401, "{path}");
        let stranger = world.token("default", "reviews", AUDIENCE);
        assert_eq!(ask(&ca, method, path, Some(&stranger)).await.0, 403, "{path}");
    }
    assert_eq!(ask(&ca, "GET", "/readyz", None).await, (200, "ready\n".to_owned()));
    let (code, metrics) = ask(&ca, "GET", "/metrics", None).await;
    assert!(code == 200 && metrics.contains("mesh_ca_expiry_seconds"), "{metrics}");
    assert_eq!(status(&ca, &operator).await.rotation, Rotation::None);
    world.create("secrets", json!({"metadata": {"namespace": "mesh-system", "name": "cacerts"}, "data": {}}));
    let (code, text) = ask(&ca, "POST", "/v1/rotation/add", Some(&operator)).await;
    assert!(code == 409 && text.starts_with("the authority is plugged in"), "{text}");
}
