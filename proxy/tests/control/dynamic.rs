use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use engine::Kind;
use mesh_proxy::daemon::Daemon;
use mesh_proxy::identity::Identity;
use mesh_proxy::readiness::Readiness;
use runtime::CancellationToken;
use runtime::authority::Root;
use runtime::svid;
use serde_json::Value;
use tonic::Status;

use crate::ads::{Ads, Stream};
use crate::eventually;
use crate::resources::{cluster, endpoint, garbage, listener, resources, routes, tls_cluster};
use crate::upstream::{answering, get, status};

const HOUR: Duration = Duration::from_secs(3600);

/// A proxy that runs until the test is over.
struct Proxy {
    admin: SocketAddr,
    readiness: SocketAddr,
    snapshots: mesh_proxy::snapshot::Snapshots,
    ready: Readiness,
    leave: CancellationToken,
}

fn started(ads: &Ads) -> Proxy {
    let daemon = Daemon::start(ads.settings(), None).expect("it starts");
    let leave = CancellationToken::new();
    let proxy = Proxy {
        admin: daemon.admin,
        readiness: daemon.readiness,
        snapshots: daemon.snapshots.clone(),
        ready: daemon.ready.clone(),
        leave: leave.clone(),
    };
    ads.tasks.spawn("proxy", async move {
        let told = async {
            leave.cancelled().await;
            "the test is over"
        };
        daemon.run(told).await.expect("it leaves in order");
    });
    proxy
}

impl Proxy {
    async fn listens(&self) -> SocketAddr {
        eventually("a listener", || self.ready.sockets.served().bound.values().next().copied()).await
    }

    async fn admin(&self, path: &str) -> Value {
        let answer = get(self.admin, path).await.expect("the admin port listens");
        let body = answer.split_once("\r\n\r\n").expect("an answer has a body").1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}"))
    }

    async fn leaves(self, ads: Ads) {
        self.leave.cancel();
        ads.tasks.token().cancel();
        ads.tasks.join().await;
        assert_eq!(ads.tasks.panics(), 0);
    }
}

/// Answers a first stream with a listener, a route to cluster `a`, and an endpoint.
async fn first_configuration(stream: &mut Stream, upstream: SocketAddr) {
    first_with(stream, &cluster("a"), upstream).await;
}

async fn first_with(stream: &mut Stream, cluster: &str, upstream: SocketAddr) {
    let node = stream.request_for(Kind::Cluster).await.node.expect("the first request names the node");
    assert_eq!(node.id, "gateway~127.0.0.1~gw-x.mesh-system~mesh-system.svc.cluster.local");
    assert_eq!(node.user_agent_name, "mesh-proxy");
    stream.request_for(Kind::Listener).await;
    assert_eq!(stream.exchange(Kind::Cluster, resources("1", cluster), &[]).await, None);
    assert_eq!(stream.request_for(Kind::Endpoints).await.resource_names_subscribe, ["a"]);
    let endpoints = resources("1", &endpoint("a", upstream.port()));
    assert_eq!(stream.exchange(Kind::Endpoints, endpoints, &[]).await, None);
    assert_eq!(stream.exchange(Kind::Listener, resources("1", &listener("http", 0, "r")), &[]).await, None);
    assert_eq!(stream.request_for(Kind::Route).await.resource_names_subscribe, ["r"]);
    assert_eq!(stream.exchange(Kind::Route, resources("1", &routes("r", "a")), &[]).await, None);
}

#[tokio::test]
async fn a_proxy_without_pilot_waits_says_so_and_becomes_ready_when_pilot_comes() {
    let mut ads = Ads::absent().await;
    let proxy = started(&ads);
    let reason = eventually("a failed attempt", || {
        proxy
            .ready
            .check()
            .expect_err("nothing has come")
            .strip_prefix("no configuration from Pilot yet: ")
            .map(str::to_owned)
    });
    assert!(reason.await.starts_with("cannot connect to 127.0.0.1:"));
    let answer = get(proxy.readiness, "/healthz/ready").await.expect("the readiness port listens");
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("not ready: no configuration from Pilot yet"), "{answer}");

    ads.start().await;
    let upstream = answering(&ads.tasks, "hello").await;
    first_configuration(&mut ads.stream().await, upstream).await;
    let address = proxy.listens().await;
    eventually("readiness", || proxy.ready.check().ok()).await;
    assert_eq!(status(&get(proxy.readiness, "/healthz/ready").await.expect("it listens")), 200);
    assert!(get(address, "/").await.expect("the listener is open").ends_with("hello"));
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn a_proxy_that_is_to_speak_tls_is_not_ready_before_it_has_a_certificate() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    first_with(&mut ads.stream().await, &tls_cluster("a"), SocketAddr::from(([127, 0, 0, 1], 1))).await;
    proxy.listens().await;
    let reason = eventually("a failed attempt at the CA", || {
        let reason = proxy.ready.check().expect_err("others would be refused");
        reason.strip_prefix("no certificate from the CA yet: ").map(str::to_owned)
    });
    let reason = reason.await;
    assert!(reason.contains("ca-token cannot be read"), "{reason}");

    let id = "spiffe://cluster.local/ns/mesh-system/sa/gateway".parse().expect("an identity");
    let root = Root::new("root").expect("a root");
    let (publisher, svids) = svid::channel();
    let has_one = Readiness { identity: Identity { svids, status: None }, ..proxy.ready.clone() };
    assert!(has_one.check().expect_err("there is none").contains("no CA and no files are configured"));
    publisher.publish(
        root.svid(&id, SystemTime::now() - HOUR, 24 * HOUR).expect("an SVID"),
        root.bundle(&id).expect("a bundle"),
    );
    assert_eq!(has_one.check(), Ok(()));
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn a_resource_that_is_not_understood_is_refused_by_name_and_the_old_one_stays() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    let upstream = answering(&ads.tasks, "hello").await;
    let mut stream = ads.stream().await;
    first_configuration(&mut stream, upstream).await;
    let address = proxy.listens().await;

    let unknown = routes("r", "a").replace("cluster: a", "cluster: a, request_mirror_policies: [{ cluster: a }]");
    let refusal = stream.exchange(Kind::Route, resources("2", &unknown), &[]).await.expect("it is refused");
    assert!(refusal.starts_with("r: "), "{refusal}");
    assert!(refusal.contains("request_mirror_policies"), "{refusal}");
    assert!(get(address, "/").await.expect("the listener is open").ends_with("hello"));

    let mut mixed = resources("2", &cluster("b"));
    mixed.push(garbage(Kind::Cluster, "a", "2"));
    mixed.push(garbage(Kind::Cluster, "c", "2"));
    let refusal = stream.exchange(Kind::Cluster, mixed, &[]).await.expect("it is refused in part");
    let names: Vec<&str> = refusal.split("; ").filter_map(|part| part.split(": ").next()).collect();
    assert_eq!(names, ["a", "c"], "{refusal}");
    assert_eq!(stream.request_for(Kind::Endpoints).await.resource_names_subscribe, ["b"]);
    assert!(get(address, "/").await.expect("the listener is open").ends_with("hello"));

    let dump = proxy.admin("/config_dump").await;
    let rejected = dump["rejected"].as_array().expect("a list");
    let names: Vec<&str> = rejected.iter().filter_map(|rejected| rejected["name"].as_str()).collect();
    assert_eq!(names, ["r", "a", "c"]);
    assert_eq!(dump["routes"][0]["version"], "1");
    assert_eq!(dump["routes"][0]["resource"]["virtualHosts"][0]["name"], "all");
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn a_new_stream_shows_the_new_token_and_what_is_in_hand_and_traffic_flows_meanwhile() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    let upstream = answering(&ads.tasks, "hello").await;
    let mut stream = ads.stream().await;
    assert_eq!(stream.authorization, "Bearer first");
    first_configuration(&mut stream, upstream).await;
    let address = proxy.listens().await;

    std::fs::write(ads.token_file(), "second").expect("it can be written");
    stream.end(Status::unavailable("Pilot restarts")).await;
    let mut stream = ads.stream().await;
    assert_eq!(stream.authorization, "Bearer second");
    assert!(proxy.ready.check().is_ok());
    assert!(get(address, "/").await.expect("the listener is open").ends_with("hello"));
    for (kind, name) in [(Kind::Cluster, "a"), (Kind::Endpoints, "a"), (Kind::Listener, "http"), (Kind::Route, "r")] {
        let request = stream.request_for(kind).await;
        assert_eq!(request.initial_resource_versions.get(name).map(String::as_str), Some("1"), "{request:?}");
        let by_name: Vec<String> =
            if matches!(kind, Kind::Endpoints | Kind::Route) { vec![name.to_owned()] } else { Vec::new() };
        assert_eq!(request.resource_names_subscribe, by_name);
    }
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn a_route_to_a_new_cluster_is_acknowledged_when_the_cluster_has_endpoints() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    let (old, new) = (answering(&ads.tasks, "old").await, answering(&ads.tasks, "new").await);
    let mut stream = ads.stream().await;
    first_configuration(&mut stream, old).await;
    let address = proxy.listens().await;

    let nonce = stream.send(Kind::Route, resources("2", &routes("r", "b")), &[]).await;
    assert_eq!(stream.exchange(Kind::Cluster, resources("1", &cluster("b")), &[]).await, None);
    assert_eq!(stream.request_for(Kind::Endpoints).await.resource_names_subscribe, ["b"]);
    assert!(get(address, "/").await.expect("the listener is open").ends_with("old"));
    assert_eq!(stream.exchange(Kind::Endpoints, resources("1", &endpoint("b", new.port())), &[]).await, None);
    assert_eq!(stream.request_for(Kind::Route).await.response_nonce, nonce);
    assert!(get(address, "/").await.expect("the listener is open").ends_with("new"));

    // The old cluster goes, and with it the wish for its endpoints.
    assert_eq!(stream.exchange(Kind::Cluster, Vec::new(), &["a"]).await, None);
    assert_eq!(stream.request_for(Kind::Endpoints).await.resource_names_unsubscribe, ["a"]);
    let clusters = proxy.admin("/clusters").await;
    assert_eq!(clusters["clusters"].as_array().map(Vec::len), Some(1));
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["address"], format!("127.0.0.1:{}", new.port()));
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["total"], 1);
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn a_listener_that_gets_another_address_keeps_the_socket_that_it_has() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    let upstream = answering(&ads.tasks, "hello").await;
    let mut stream = ads.stream().await;
    first_configuration(&mut stream, upstream).await;
    let address = proxy.listens().await;
    let more = "    additional_addresses:
    - address: { socket_address: { address: 127.0.0.2, port_value: 0 } }
    filter_chains:";
    for (version, text) in
        [("2", listener("http", 0, "r").replace("    filter_chains:", more)), ("3", listener("http", 0, "r"))]
    {
        let before = proxy.ready.sockets.served().swaps;
        assert_eq!(stream.exchange(Kind::Listener, resources(version, &text), &[]).await, None);
        let served = eventually("the change", || {
            let served = proxy.ready.sockets.served();
            (served.swaps > before).then_some(served)
        });
        let served = served.await;
        assert_eq!((served.bound.get("http"), served.failed.len()), (Some(&address), 0), "{served:?}");
        assert!(get(address, "/").await.expect("the listener is open").ends_with("hello"));
    }
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn a_listener_that_is_removed_is_closed_and_the_others_stay() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    let upstream = answering(&ads.tasks, "hello").await;
    let mut stream = ads.stream().await;
    first_configuration(&mut stream, upstream).await;
    let first = proxy.listens().await;

    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = reserved.local_addr().expect("it is bound").port();
    drop(reserved);
    assert_eq!(stream.exchange(Kind::Listener, resources("1", &listener("more", port, "r")), &[]).await, None);
    eventually("the second listener", || proxy.ready.sockets.served().bound.contains_key("more").then_some(())).await;
    let second = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(get(second, "/").await.expect("it is open").ends_with("hello"));

    assert_eq!(stream.exchange(Kind::Listener, Vec::new(), &["more"]).await, None);
    eventually("its end", || (!proxy.ready.sockets.served().bound.contains_key("more")).then_some(())).await;
    eventually("its closed socket", || std::net::TcpStream::connect(second).is_err().then_some(())).await;
    assert!(get(first, "/").await.expect("it is open").ends_with("hello"));
    assert_eq!(proxy.snapshots.held(Kind::Listener).len(), 1);
    proxy.leaves(ads).await;
}

#[tokio::test]
async fn the_admin_port_tells_and_is_for_this_machine_only() {
    let mut ads = Ads::started().await;
    let proxy = started(&ads);
    let upstream = answering(&ads.tasks, "hello").await;
    let mut stream = ads.stream().await;
    first_configuration(&mut stream, upstream).await;
    let address = proxy.listens().await;
    let listeners = proxy.admin("/listeners").await;
    assert_eq!(listeners["listeners"][0]["boundAddress"], address.to_string());
    let info = proxy.admin("/server_info").await;
    assert_eq!(info["role"], "gateway");
    assert_eq!(info["resources"]["LDS"], 1);
    let stats = get(proxy.admin, "/stats").await.expect("the admin port listens");
    assert!(stats.contains("mesh_build_info{component=\"proxy\""), "{stats}");
    assert!(stats.contains("mesh_xds_connected 1"), "{stats}");

    let port = proxy.admin.port();
    let asked = tokio::task::spawn_blocking(move || mesh_proxy::admin::request::send(port, "POST", "/drain"));
    let answer = asked.await.expect("it does not panic").expect("it is answered");
    assert!(answer.starts_with(b"draining"));
    assert!(proxy.ready.check().expect_err("it drains").starts_with("draining"));
    eventually("the closed listener", || std::net::TcpStream::connect(address).is_err().then_some(())).await;
    proxy.leaves(ads).await;
}
