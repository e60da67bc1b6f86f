//! Another root, stage by stage, each once everybody has acknowledged the one before; and who may ask for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::messages::{AuthorityStatus, Proxies, ProxyStatus, Rotation};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use runtime::Tasks;
use runtime::admin::Limits;
use runtime::svid::follow::Following;
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{KeyKind, PeerVerifier, Peers, Svids};
use runtime::tls::{Handshakes, TlsListener};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::world::{AUDIENCE, RunningCa, SERVER, SetClock, World, id_of, request};

/// Asks the debug port, and gives the status and the text of the answer.
async fn ask(ca: &RunningCa, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let config = runtime::tls::client_config(ca.root.as_bytes(), &[b"http/1.1"]).expect("a configuration");
    let stream = TcpStream::connect(ca.ca.addresses.debug).await.expect("it listens");
    let name = SERVER.try_into().expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.expect("TLS");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let tasks = Tasks::new();
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

pub(crate) async fn status(ca: &RunningCa, token: &str) -> AuthorityStatus {
    let (code, text) = ask(ca, "GET", "/v1/authority", Some(token)).await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

async fn begin(ca: &RunningCa, token: &str) -> AuthorityStatus {
    let (code, text) = ask(ca, "POST", "/v1/rotation", Some(token)).await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Waits until the CA says what is wanted.
pub(crate) async fn until(
    ca: &RunningCa,
    token: &str,
    is_wanted: impl Fn(&AuthorityStatus) -> bool,
) -> AuthorityStatus {
    let mut seen = status(ca, token).await;
    let waiting = async {
        while !is_wanted(&seen) {
            seen = status(ca, token).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    waited.unwrap_or_else(|_| panic!("it never comes about: {seen:?}"));
    seen
}

/// A token of the control plane's own.
pub(crate) fn operator(world: &World) -> String {
    world.account("mesh-system", "meshctl");
    world.token("mesh-system", "meshctl", AUDIENCE)
}

/// What a Pilot does for a rotation: it has an identity of its own, tells of its proxies', and has all of them renew.
pub(crate) struct Pilot {
    pub(crate) proxies: Arc<Mutex<Vec<Proxy>>>,
    ca: Arc<Mutex<String>>,
    pub(crate) tasks: Tasks,
    pub(crate) port: u16,
}

/// Somebody with a certificate that is renewed.
pub(crate) struct Proxy {
    pub(crate) id: String,
    pub(crate) svids: Svids,
    status: Status,
    /// Whether it does nothing of what it is told.
    is_stuck: bool,
}

impl Pilot {
    pub(crate) async fn start(world: &World, ca: &RunningCa, proxies: &[(&str, &str)]) -> Pilot {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        world.account("mesh-system", "mesh-pilot");
        world.pod("mesh-system", "mesh-pilot-0", "mesh-pilot", "mesh-pilot");
        let pilot = Pilot { proxies: Arc::default(), ca: Arc::default(), tasks: Tasks::new(), port };
        pilot.follow(ca);
        pilot.join(world, ca, "mesh-pilot-0", ("mesh-system", "mesh-pilot")).await;
        for (pod, account) in proxies {
            world.pod("default", pod, account, "app");
            pilot.join(world, ca, pod, ("default", account)).await;
        }
        pilot.serve(ca, listener);
        pilot
    }

    /// Leads to this CA from now on, as a Service does.
    pub(crate) fn follow(&self, ca: &RunningCa) {
        *self.ca.lock().expect("not poisoned") = ca.ca.addresses.csr.to_string();
    }

    async fn join(&self, world: &World, ca: &RunningCa, pod: &str, (namespace, account): (&str, &str)) {
        let (publisher, svids) = runtime::svid::channel();
        let status = Status::default();
        let token = world.token_file(&world.pod_token(namespace, account, pod));
        let (dial, address) = (runtime::svid::client::plain_dial(), Arc::clone(&self.ca));
        let mut authority = ca.authority(Some(token));
        authority.dial = Arc::new(move |_| dial(address.lock().expect("not poisoned").clone()));
        let renewal = Renewal {
            authority,
            account: (namespace.to_owned(), account.to_owned()),
            key: KeyKind::P256,
            lifetime: None,
            publisher,
            status: status.clone(),
        };
        self.tasks.spawn("identity", renewal.run(self.tasks.token().clone()));
        svids.ready().await;
        let proxy = Proxy { id: format!("{pod}.{namespace}"), svids, status, is_stuck: false };
        self.proxies.lock().expect("not poisoned").push(proxy);
    }

    pub(crate) fn stick(&self, id: &str, is_stuck: bool) {
        let mut proxies = self.proxies.lock().expect("not poisoned");
        proxies.iter_mut().find(|proxy| proxy.id == id).expect("it is there").is_stuck = is_stuck;
    }

    /// Has one renew once, though it is stuck.
    fn renew(&self, id: &str) {
        let proxies = self.proxies.lock().expect("not poisoned");
        proxies.iter().find(|proxy| proxy.id == id).expect("it is there").status.renew_now();
    }

    fn serve(&self, ca: &RunningCa, listener: TcpListener) {
        let (telling, renewing) = (Arc::clone(&self.proxies), Arc::clone(&self.proxies));
        let router = Router::new()
            .route("/v1/proxies", get(async move || Json(tell(&telling.lock().expect("not poisoned")))))
            .route(
                "/v1/renew",
                post(async move || {
                    let proxies = renewing.lock().expect("not poisoned");
                    proxies.iter().filter(|proxy| !proxy.is_stuck).for_each(|proxy| proxy.status.renew_now());
                    Json(tell(&proxies))
                }),
            );
        // Only who shows a good SVID comes this far.
        let svids = self.proxies.lock().expect("not poisoned")[0].svids.clone();
        let verifier = Arc::new(PeerVerifier::new(svids, Peers::these([CA.parse().expect("an identity")])));
        let config = ca.certificate().verifying_server_config(verifier, &[b"http/1.1"]).expect("a configuration");
        let listener = TlsListener::new(listener, config, Handshakes::default());
        let serving = runtime::admin::serve(listener, router, Limits::default(), self.tasks.token().clone());
        self.tasks.spawn("debug port", serving);
    }
}

const CA: &str = "spiffe://cluster.local/ns/mesh-system/sa/mesh-ca";

fn tell(proxies: &[Proxy]) -> Proxies {
    let told = |proxy: &Proxy| runtime::svid::report::status(&proxy.svids);
    let status = |proxy: &Proxy| ProxyStatus {
        id: proxy.id.clone(),
        role: "sidecar".to_owned(),
        ip: "10.0.0.1".to_owned(),
        version: "1".to_owned(),
        connected_since: String::new(),
        svid: told(proxy),
        traffic: None,
        types: Vec::new(),
    };
    Proxies {
        pilot: "mesh-pilot-0".to_owned(),
        version: "1".to_owned(),
        svid: proxies.first().and_then(told),
        trust_domains: ["cluster.local", "new.example"].map(str::to_owned).into(),
        proxies: proxies.iter().skip(1).map(status).collect(),
    }
}

/// A CA that asks this Pilot.
async fn ca_of(world: &World, port: u16) -> RunningCa {
    let started = world.try_ca(SetClock::new(), |settings| settings.pilot_debug = port).await;
    started.unwrap_or_else(|failure| panic!("{failure}"))
}

/// A CA, a Pilot and proxies.
pub(crate) async fn mesh(world: &World, proxies: &[(&str, &str)]) -> (RunningCa, Pilot) {
    let first = world.ca().await;
    let pilot = Pilot::start(world, &first, proxies).await;
    let ca = ca_of(world, pilot.port).await;
    pilot.follow(&ca);
    first.stop().await;
    (ca, pilot)
}

#[tokio::test]
async fn a_root_is_replaced_in_stages_that_everybody_acknowledges() {
    let world = World::start().await;
    let (ca, pilot) = mesh(&world, &[("reviews-v1", "reviews")]).await;
    let (operator, token) = (operator(&world), world.pod_token("default", "reviews", "reviews-v1"));
    let before = status(&ca, &operator).await;
    assert_eq!((before.rotation, before.is_rotating, before.roots.len()), (Rotation::None, false, 1));

    pilot.stick("reviews-v1.default", true);
    let added = begin(&ca, &operator).await;
    assert_eq!((added.rotation, added.is_rotating, added.roots.len()), (Rotation::Added, true, 2));
    assert_eq!(added.issuer_key, before.issuer_key, "the new root signs nothing yet");
    let lagging = until(&ca, &operator, |seen| seen.waiting_for == ["reviews-v1.default"]).await;
    assert_eq!(
        (lagging.rotation, lagging.waiting),
        (Rotation::Added, 1),
        "it waits for the one that lags, and names it"
    );
    assert_eq!(begin(&ca, &operator).await.bundle, added.bundle, "begun again it is the same");
    let answer = ca.ask_by_token(&world, &token).await.expect("issued");
    assert_eq!(runtime::tls::certificates(answer.roots.as_bytes()).expect("roots").len(), 2);

    pilot.stick("reviews-v1.default", false);
    let retired = until(&ca, &operator, |seen| !seen.is_rotating).await;
    assert_eq!((retired.rotation, retired.roots.len(), retired.waiting), (Rotation::None, 1, 0));
    assert_ne!(retired.issuer_key, before.issuer_key);
    assert_ne!(retired.roots[0].fingerprint, before.roots[0].fingerprint);
    for proxy in pilot.proxies.lock().expect("not poisoned").iter() {
        let has = runtime::svid::report::status(&proxy.svids).expect("a certificate");
        assert_eq!((has.bundle, has.issuer), (retired.bundle.clone(), retired.issuer_key.clone()), "{}", proxy.id);
    }
    pilot.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

/// A CA writes what it does before it does it: whatever the stage at which it ends, the next one goes on.
#[tokio::test]
async fn a_rotation_goes_on_whichever_ca_is_there() {
    let world = World::start().await;
    let (mut ca, pilot) = mesh(&world, &[("reviews-v1", "reviews")]).await;
    let operator = operator(&world);
    let before = status(&ca, &operator).await;
    pilot.stick("reviews-v1.default", true);
    begin(&ca, &operator).await;
    for (stage, trusted) in [(Rotation::Added, 2), (Rotation::Signing, 2), (Rotation::None, 1)] {
        let waits = |seen: &AuthorityStatus| seen.rotation == stage && seen.waiting_for == ["reviews-v1.default"];
        let seen = until(&ca, &operator, waits).await;
        ca.stop().await;
        ca = ca_of(&world, pilot.port).await;
        pilot.follow(&ca);
        let next = until(&ca, &operator, waits).await;
        assert_eq!((&next.roots, next.roots.len()), (&seen.roots, trusted), "{stage:?}");
        assert_eq!(next.issuer_key, seen.issuer_key, "{stage:?}");
        pilot.renew("reviews-v1.default");
    }
    let after = until(&ca, &operator, |seen| !seen.is_rotating).await;
    assert_eq!((after.rotation, after.roots.len()), (Rotation::None, 1));
    assert_ne!(after.roots, before.roots);
    pilot.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn the_old_root_stays_while_a_machine_outside_has_a_certificate_of_it() {
    let world = World::start().await;
    world.account("default", "machine");
    let (ca, pilot) = mesh(&world, &[]).await;
    let (operator, token) = (operator(&world), world.token("default", "machine", AUDIENCE));
    let (_publisher, old) = crate::callers::identity(&world, &ca, &token).await;
    begin(&ca, &operator).await;
    let outside = "spiffe://cluster.local/ns/default/sa/machine outside of pods";
    let waits = |seen: &AuthorityStatus| seen.waiting == 1 && seen.waiting_for[0].starts_with(outside);
    let seen = until(&ca, &operator, waits).await;
    assert_eq!(seen.rotation, Rotation::Added, "it does not know the new root yet");
    // Its next request proves that it knows both, and a CA that is started anew has not forgotten it.
    let now = crate::callers::renewed(&world, &ca, &old).await;
    let seen = until(&ca, &operator, |seen| seen.rotation == Rotation::Signing && waits(seen)).await;
    ca.stop().await;
    let ca = ca_of(&world, pilot.port).await;
    pilot.follow(&ca);
    let again = until(&ca, &operator, waits).await;
    assert_eq!((again.rotation, &again.bundle), (Rotation::Signing, &seen.bundle));
    let now = crate::callers::renewed(&world, &ca, &now.1).await;
    until(&ca, &operator, |seen| seen.rotation == Rotation::None).await;
    ca.ask(&world, None, &now.1, request(None)).await.expect("its certificate is of the new root");
    ca.ask(&world, None, &old, request(None)).await.expect_err("nobody trusts the old root any more");
    pilot.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn a_pod_that_is_gone_is_not_waited_for_and_one_without_pilot_is() {
    let world = World::start().await;
    let (ca, pilot) = mesh(&world, &[]).await;
    let operator = operator(&world);
    for pod in ["gone", "silent"] {
        world.pod("default", pod, "reviews", "app");
        let token = world.pod_token("default", "reviews", pod);
        assert_eq!(id_of(&ca.ask_by_token(&world, &token).await.expect("issued")), crate::world::REVIEWS);
    }
    begin(&ca, &operator).await;
    until(&ca, &operator, |seen| seen.waiting_for == ["gone.default", "silent.default"]).await;
    world.delete("pods", "default", "gone");
    until(&ca, &operator, |seen| seen.waiting_for == ["silent.default"]).await;
    // As a process that hands out identities does: it asks what is in force, and renews.
    let trust = ca.authority(None).trust(&runtime::svid::channel().1).await.expect("nobody has to prove who asks");
    let seen = status(&ca, &operator).await;
    assert_eq!((trust.bundle, trust.issuer), (seen.bundle, seen.issuer_key));
    pilot.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn a_process_without_pilot_follows_the_roots_by_asking() {
    let world = World::start().await;
    let (ca, pilot) = mesh(&world, &[("alone", "reviews")]).await;
    let operator = operator(&world);
    let (svids, renewals) = {
        let mut proxies = pilot.proxies.lock().expect("not poisoned");
        // No Pilot knows of it.
        let alone = proxies.pop().expect("it is there");
        (alone.svids, alone.status)
    };
    let every = Duration::from_millis(50);
    let following = Following { authority: ca.authority(None), svids: svids.clone(), status: renewals, every };
    pilot.tasks.spawn("trust", following.run(pilot.tasks.token().clone()));
    begin(&ca, &operator).await;
    let after = until(&ca, &operator, |seen| !seen.is_rotating).await;
    let has = runtime::svid::report::status(&svids).expect("a certificate");
    assert_eq!((has.bundle, has.issuer), (after.bundle, after.issuer_key));
    pilot.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn without_pilot_nothing_is_taken_away() {
    let world = World::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let ca = ca_of(&world, nobody).await;
    let operator = operator(&world);
    begin(&ca, &operator).await;
    let seen = until(&ca, &operator, |seen| seen.waiting_for.iter().any(|name| name.starts_with("Pilot"))).await;
    assert_eq!(seen.waiting_for, ["Pilot (none is running, and only it knows what proxies have)"]);
    world.account("mesh-system", "mesh-pilot");
    world.pod("mesh-system", "mesh-pilot-0", "mesh-pilot", "mesh-pilot");
    let seen = until(&ca, &operator, |seen| seen.waiting_for.iter().any(|name| name.starts_with("mesh-pilot-0"))).await;
    assert!(seen.waiting_for[0].starts_with("mesh-pilot-0 (it cannot be reached"), "{seen:?}");
    assert_eq!((seen.rotation, seen.roots.len()), (Rotation::Added, 2));
}

#[tokio::test]
async fn strangers_begin_no_rotation_and_a_plugged_in_authority_has_none() {
    let world = World::start().await;
    let ca = world.ca().await;
    let operator = operator(&world);
    for (method, path) in [("POST", "/v1/rotation"), ("GET", "/v1/authority")] {
        assert_eq!(ask(&ca, method, path, None).await.0, 401, "{path}");
        let stranger = world.token("default", "reviews", AUDIENCE);
        assert_eq!(ask(&ca, method, path, Some(&stranger)).await.0, 403, "{path}");
    }
    assert_eq!(ask(&ca, "GET", "/readyz", None).await, (200, "ready\n".to_owned()));
    let (code, metrics) = ask(&ca, "GET", "/metrics", None).await;
    assert!(code == 200 && metrics.contains("mesh_ca_expiry_seconds"), "{metrics}");
    assert_eq!(status(&ca, &operator).await.rotation, Rotation::None);
    world.create("secrets", json!({"metadata": {"namespace": "mesh-system", "name": "cacerts"}, "data": {}}));
    let (code, text) = ask(&ca, "POST", "/v1/rotation", Some(&operator)).await;
    assert!(code == 409 && text.starts_with("the authority is plugged in"), "{text}");
}
