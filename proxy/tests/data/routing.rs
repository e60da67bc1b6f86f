//! What routes do: split, rewrite, redirect, delay, abort.

use std::collections::HashMap;
use std::time::Duration;

use engine::proto::{common_fault, extension, fault, protobuf, route, types};
use mesh_proxy::Edge;
use prost::Message;

use crate::mesh::{Mesh, Peer, Upstream, forward, forward_with, get, ok, until};

#[tokio::test]
async fn requests_are_split_by_weight() {
    let mesh = Mesh::new();
    let mut names = Vec::new();
    for (name, weight) in [("v1", 90), ("v2", 10)] {
        let upstream = Upstream::new().await;
        mesh.cluster(name, &[upstream.address]);
        upstream.serve(&mesh.tasks, move |_| ok(name));
        names.push(route::weighted_cluster::ClusterWeight {
            name: name.to_owned(),
            weight: Some(protobuf::UInt32Value { value: weight }),
            ..Default::default()
        });
    }
    let split = forward_with("", |action| {
        action.cluster_specifier =
            Some(route::route_action::ClusterSpecifier::WeightedClusters(route::WeightedCluster {
                clusters: names,
                ..Default::default()
            }));
    });
    mesh.routes("http", vec![split]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    let mut seen: HashMap<String, usize> = HashMap::new();
    for _ in 0..1000 {
        *seen.entry(client.ask(get("/")).await.text().to_owned()).or_default() += 1;
    }
    let second = seen["v2"];
    // Five standard deviations around 100.
    assert!((53..=147).contains(&second), "{seen:?}");
}

fn fault(delay: Option<Duration>, abort: Option<u32>) -> HashMap<String, protobuf::Any> {
    let all = types::FractionalPercent { numerator: 100, denominator: 0 };
    let fault = fault::HttpFault {
        delay: delay.map(|delay| common_fault::FaultDelay {
            percentage: Some(all),
            fault_delay_secifier: Some(common_fault::fault_delay::FaultDelaySecifier::FixedDelay(
                crate::mesh::seconds(delay.as_secs_f64()),
            )),
        }),
        abort: abort.map(|status| fault::FaultAbort {
            percentage: Some(all),
            error_type: Some(fault::fault_abort::ErrorType::HttpStatus(status)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (name, url) = extension::FAULT;
    HashMap::from([(name.to_owned(), protobuf::Any { type_url: url.to_owned(), value: fault.encode_to_vec() })])
}

#[tokio::test]
async fn faults_delay_and_abort() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    upstream.serve(&mesh.tasks, |_| ok("up"));
    for (name, delay, abort) in [
        ("delay", Some(Duration::from_millis(100)), None),
        ("abort", None, Some(418)),
        ("both", Some(Duration::from_millis(100)), Some(555)),
    ] {
        let mut route = forward("up");
        route.typed_per_filter_config = fault(delay, abort);
        mesh.routes(name, vec![route]);
        let address = mesh.http(name, Edge::Outbound).await;
        let mut client = Peer::connect(address).await;
        for _ in 0..2 {
            let begun = tokio::time::Instant::now();
            let answer = client.ask(get("/")).await;
            assert!(begun.elapsed() >= delay.unwrap_or_default(), "{name}");
            assert_eq!(u32::from(answer.status()), abort.unwrap_or(200), "{name}");
            assert_eq!(answer.header("x-mesh-failure"), abort.map(|_| "fault_abort"), "{name}");
        }
    }
}

#[tokio::test]
async fn paths_and_authorities_are_rewritten_and_redirected() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    upstream
        .serve(&mesh.tasks, |request| ok(&format!("{} {}", request.first, request.header("host").unwrap_or_default())));
    mesh.routes(
        "rewrite",
        vec![forward_with("up", |action| {
            action.prefix_rewrite = "/new/".to_owned();
            action.host_rewrite_specifier =
                Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral("other".to_owned()));
        })],
    );
    let address = mesh.http("rewrite", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    assert_eq!(client.ask(get("/a?b=c")).await.text(), "GET /new/a?b=c HTTP/1.1 other");

    let redirect = crate::mesh::route(route::route::Action::Redirect(route::RedirectAction {
        host_redirect: "elsewhere".to_owned(),
        response_code: route::redirect_action::RedirectResponseCode::Found.into(),
        ..Default::default()
    }));
    mesh.routes("redirect", vec![redirect]);
    let address = mesh.http("redirect", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    for request in [get("/x?y"), "POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_owned()] {
        let answer = client.ask(request).await;
        assert_eq!((answer.status(), answer.header("location")), (302, Some("http://elsewhere/x?y")));
    }
}

#[tokio::test]
async fn a_changed_route_is_followed_by_the_next_request_on_the_same_connection() {
    let mesh = Mesh::new();
    for name in ["v1", "v2"] {
        let upstream = Upstream::new().await;
        mesh.cluster(name, &[upstream.address]);
        upstream.serve(&mesh.tasks, move |_| ok(name));
    }
    mesh.routes("http", vec![forward("v1")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    for name in ["v1", "v2", "v1", "v2"] {
        mesh.routes("http", vec![forward(name)]);
        assert_eq!(client.ask(get("/")).await.text(), name);
    }
}

#[tokio::test]
async fn no_request_fails_while_routes_and_endpoints_flip() {
    let mesh = Mesh::new();
    let mut addresses = Vec::new();
    for name in ["v1", "v2", "v3"] {
        let upstream = Upstream::new().await;
        addresses.push(upstream.address);
        mesh.cluster(name, &[upstream.address]);
        upstream.serve(&mesh.tasks, move |_| ok(name));
    }
    mesh.routes("http", vec![forward("v1")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let served = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (done, clients) = (runtime::CancellationToken::new(), runtime::Tasks::new());
    for at in 0..4 {
        let (served, done) = (std::sync::Arc::clone(&served), done.clone());
        clients.spawn("client", async move {
            let mut client = Peer::connect(address).await;
            while !done.is_cancelled() {
                let request = if at % 2 == 0 {
                    get("/")
                } else {
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_owned()
                };
                assert_eq!(client.ask(request).await.status(), 200);
                served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    for flip in 0..200 {
        mesh.routes("http", vec![forward(["v1", "v2", "v3"][flip % 3])]);
        mesh.cluster("v1", &addresses[flip % 2..=flip % 2 + 1]);
        let before = served.load(std::sync::atomic::Ordering::Relaxed);
        until("some requests are served", || served.load(std::sync::atomic::Ordering::Relaxed) >= before + 5).await;
    }
    done.cancel();
    clients.join().await;
    assert_eq!(clients.panics(), 0);
}
