//! A Kubernetes API → Pilot → a proxy's stream, with everything between them real.

mod envoy;
mod harness;
mod webhooks;

use api::messages::{Applied, Proxies, SyncState};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use harness::{CLI_TOKEN, Mesh, within};
use mesh_pilot::resource::Kind;
use prost::Message;

const REVIEWS: &str = "reviews.default.svc.cluster.local:9080";
const ROUTES: [&str; 3] =
    [REVIEWS, "ratings.default.svc.cluster.local:9080", "productpage.default.svc.cluster.local:9080"];

/// A rule that sends all of a service's requests to one version.
fn rule(name: &str, version: &str, more: &str) -> String {
    format!(
        "apiVersion: config.meshctl.io/v1alpha2\nkind: RouteRule\nmetadata: {{name: {name}, namespace: default, generation: 1}}\n\
         spec:\n  destination: {{name: reviews}}\n  route:\n  - labels: {{version: {version}}}\n{more}"
    )
}

/// Clusters that the routes of a configuration lead to, in order.
fn clusters(body: &[u8]) -> String {
    let routes = RouteConfiguration::decode(body).expect("a RouteConfiguration");
    format!("{:?}", routes.virtual_hosts[0].routes)
}

#[tokio::test]
async fn a_changed_rule_costs_a_proxy_one_route_configuration() {
    let mesh = Mesh::start().await;
    let mut proxy = mesh.sidecar("productpage-v1").await;
    mesh.api.put_yaml(&rule("all-v1", "v1", ""));
    // The first rule to name a version brings the version's cluster with it, before the route.
    let mut order = Vec::new();
    while order.last() != Some(&Kind::Route) {
        let response = proxy.next().await.expect("open");
        order.push(proxy.ack(&response).await);
    }
    assert_eq!(order, [Kind::Cluster, Kind::Endpoints, Kind::Route]);
    assert!(clusters(&proxy.held[&Kind::Route][REVIEWS].1).contains("outbound|9080|version=v1|reviews"));
    mesh.api.put_yaml(&rule("all-v1", "v1", "  httpReqTimeout:\n    simpleTimeout: {timeout: 3s}\n"));
    let response = proxy.next().await.expect("open");
    let names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!((names.as_slice(), response.removed_resources.len()), ([REVIEWS].as_slice(), 0));
    proxy.ack(&response).await;
    assert!(proxy.is_quiet().await, "and nothing else");
    mesh.stop().await;
}

#[tokio::test]
async fn a_reconnecting_proxy_gets_only_what_changed() {
    let mesh = Mesh::start().await;
    let proxy = mesh.sidecar("productpage-v1").await;
    let mut again = mesh.connect("productpage-v1", "default/default/productpage-v1").await;
    again.resubscribe(&proxy).await;
    again.subscribe(Kind::Route, &["nothing.default.svc.cluster.local:1"]).await;
    let response = again.next().await.expect("open");
    assert!(response.resources.is_empty(), "only the new name is answered: {response:?}");
    assert_eq!(response.removed_resources, ["nothing.default.svc.cluster.local:1"]);
    again.ack(&response).await;
    assert!(again.is_quiet().await);
    mesh.stop().await;
}

#[tokio::test]
async fn a_refusal_is_shown_with_the_proxys_words() {
    let mesh = Mesh::start().await;
    let mut proxy = mesh.sidecar("productpage-v1").await;
    let version = mesh.api.put_yaml(&rule("slow", "v1", "  httpReqTimeout:\n    simpleTimeout: {timeout: 3s}\n"));
    loop {
        let response = proxy.next().await.expect("open");
        if response.type_url == Kind::Route.type_url() {
            proxy.nack(&response, &format!("{REVIEWS}: unknown field `x`")).await;
            break;
        }
        proxy.ack(&response).await;
    }
    let question =
        format!("/v1/applied?kind=route-rule&namespace=default&name=slow&resourceVersion={version}&timeout=10");
    let (status, body) = mesh.debug(&question, CLI_TOKEN).await;
    assert_eq!(status, 200, "{body}");
    let applied: Applied = serde_json::from_str(&body).expect("an Applied");
    assert!(applied.known && applied.accepted, "{applied:?}");
    assert_eq!((applied.proxies, applied.applied), (1, 0));
    assert_eq!(applied.rejected[0].resource, "productpage-v1.default");
    assert_eq!(applied.rejected[0].error, "unknown field `x`");
    let (_, body) = mesh.debug("/v1/proxies", CLI_TOKEN).await;
    let proxies: Proxies = serde_json::from_str(&body).expect("Proxies");
    let routes = &proxies.proxies[0].types[1];
    assert_eq!((routes.kind.as_str(), routes.state), ("RDS", SyncState::Rejected));
    assert_eq!(routes.rejected[0].resource, REVIEWS);
    mesh.stop().await;
}

#[tokio::test]
async fn one_who_waits_for_a_change_hears_when_every_proxy_has_it() {
    let mesh = Mesh::start().await;
    let mut first = mesh.sidecar("productpage-v1").await;
    let mut second = mesh.sidecar("ratings-v1").await;
    let version = mesh.api.put_yaml(&rule("all-v3", "v3", ""));
    let question =
        format!("/v1/applied?kind=RouteRule&namespace=default&name=all-v3&resourceVersion={version}&timeout=20");
    let follow = async |proxy: &mut harness::Proxy| {
        while proxy.held[&Kind::Route][REVIEWS].1.is_empty()
            || !clusters(&proxy.held[&Kind::Route][REVIEWS].1).contains("version=v3")
        {
            let response = proxy.next().await.expect("open");
            proxy.ack(&response).await;
        }
    };
    let ((_, body), (), ()) =
        within(async { tokio::join!(mesh.debug(&question, CLI_TOKEN), follow(&mut first), follow(&mut second)) }).await;
    let applied: Applied = serde_json::from_str(&body).expect("an Applied");
    assert_eq!((applied.proxies, applied.applied), (2, 2), "{applied:?}");
    mesh.api.delete("config.meshctl.io/v1alpha2", "RouteRule", "default", "all-v3");
    let question = "/v1/applied?kind=RouteRule&namespace=default&name=all-v3&deleted=true&timeout=20";
    let back = async |proxy: &mut harness::Proxy| {
        while clusters(&proxy.held[&Kind::Route][REVIEWS].1).contains("version=v3")
            || proxy.held[&Kind::Cluster].keys().any(|name| name.contains("v3"))
        {
            let response = proxy.next().await.expect("open");
            proxy.ack(&response).await;
        }
    };
    let ((_, body), (), ()) =
        within(async { tokio::join!(mesh.debug(question, CLI_TOKEN), back(&mut first), back(&mut second)) }).await;
    let applied: Applied = serde_json::from_str(&body).expect("an Applied");
    assert!(applied.known, "{applied:?}");
    assert_eq!((applied.proxies, applied.applied), (2, 2), "{applied:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn callers_get_the_routes_that_are_meant_for_them() {
    let mesh = Mesh::start().await;
    mesh.api.put_yaml(&rule("for-ratings", "v2", "  match:\n    source: {name: ratings}\n"));
    let productpage = mesh.sidecar("productpage-v1").await;
    let mut ratings = mesh.sidecar("ratings-v1").await;
    while !clusters(&ratings.held[&Kind::Route][REVIEWS].1).contains("version=v2") {
        let response = ratings.next().await.expect("open");
        ratings.ack(&response).await;
    }
    assert!(!clusters(&productpage.held[&Kind::Route][REVIEWS].1).contains("version=v2"));
    mesh.stop().await;
}

#[tokio::test]
async fn cve_2026_31838_strangers_are_told_why_they_are_not_let_in() {
    let mesh = Mesh::start().await;
    let mut stranger = mesh.connect("productpage-v1", "nonsense").await;
    stranger.subscribe(Kind::Cluster, &[]).await;
    let status = stranger.next().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("invalid bearer token"), "{status:?}");
    let mut impostor = mesh.connect("productpage-v1", "default/default/ratings-v1").await;
    impostor.subscribe(Kind::Cluster, &[]).await;
    let status = impostor.next().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("pod default/ratings-v1"), "{status:?}");
    for (token, expected) in [("nonsense", 401), ("default/default/ratings-v1", 403), (CLI_TOKEN, 200)] {
        assert_eq!(mesh.debug("/v1/snapshot", token).await.0, expected, "{token}");
    }
    assert_eq!(mesh.debug("/readyz", "").await, (200, "ready\n".to_owned()));
    let (status, metrics) = mesh.debug("/metrics", "").await;
    assert!(status == 200 && metrics.contains("mesh_pilot_refused_streams_total 2"), "{metrics}");
    mesh.stop().await;
}

#[tokio::test]
async fn a_bad_object_is_named_and_the_others_stay_in_force() {
    let mesh = Mesh::start().await;
    let mut proxy = mesh.sidecar("productpage-v1").await;
    let bad = mesh.api.put_yaml(&rule("bad", "v1", "    weight: 90\n"));
    mesh.api.put_yaml(&rule("good", "v2", ""));
    while !clusters(&proxy.held[&Kind::Route][REVIEWS].1).contains("version=v2") {
        let response = proxy.next().await.expect("open");
        proxy.ack(&response).await;
    }
    let question = format!("/v1/applied?kind=RouteRule&namespace=default&name=bad&resourceVersion={bad}");
    let (_, body) = mesh.debug(&question, CLI_TOKEN).await;
    let applied: Applied = serde_json::from_str(&body).expect("an Applied");
    assert!(applied.known && !applied.accepted, "{applied:?}");
    assert!(applied.problems[0].contains("90"), "{applied:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn what_is_known_stays_in_force_while_the_api_server_is_away() {
    let mesh = Mesh::start().await;
    let _proxy = mesh.sidecar("productpage-v1").await;
    mesh.api.be_away(true);
    let token = "default/default/productpage-v1";
    let mut late = mesh.connect("productpage-v1", token).await;
    late.subscribe_all().await;
    assert_eq!(mesh.debug("/readyz", "").await.0, 200);
    mesh.api.be_away(false);
    mesh.api.compact();
    mesh.api.put_yaml(&rule("after", "v2", ""));
    while !clusters(&late.held[&Kind::Route][REVIEWS].1).contains("version=v2") {
        let response = late.next().await.expect("open");
        late.ack(&response).await;
    }
    mesh.stop().await;
}

#[tokio::test]
async fn objects_say_in_their_status_what_became_of_them() {
    let mesh = Mesh::start().await;
    mesh.api.put_yaml(&rule("bad", "v1", "    weight: 90\n"));
    mesh.api.put_yaml(&rule("good", "v2", ""));
    let condition = |name: &str| {
        let object = mesh.api.get("config.meshctl.io/v1alpha2", "RouteRule", "default", name)?;
        let condition = object["status"]["conditions"].get(0)?.clone();
        Some((condition["status"].as_str()?.to_owned(), condition["message"].as_str()?.to_owned()))
    };
    let mut versions = mesh.pilot.snapshots.changes();
    let (bad, good) = within(async {
        loop {
            if let (Some(bad), Some(good)) = (condition("bad"), condition("good")) {
                return (bad, good);
            }
            versions.changed().await.expect("Pilot runs");
        }
    })
    .await;
    assert_eq!((bad.0.as_str(), good.0.as_str()), ("False", "True"));
    assert!(bad.1.contains("90"), "{bad:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn classic_rules_count_as_soon_as_the_api_server_has_their_kind() {
    let api = harness::Api::new();
    api.serve_classic();
    api.put(harness::service("reviews", "10.96.0.20"));
    api.put(harness::pod("productpage", "v1", "10.244.0.30"));
    api.put_yaml(&rule("classic", "v2", "").replace("config.meshctl.io", "config.istio.io"));
    let mesh = Mesh::start_with(api).await;
    let mut proxy = mesh.connect("productpage-v1", "default/default/productpage-v1").await;
    proxy.subscribe(Kind::Route, &[REVIEWS]).await;
    let response = proxy.next().await.expect("open");
    proxy.ack(&response).await;
    assert!(clusters(&proxy.held[&Kind::Route][REVIEWS].1).contains("version=v2"));
    mesh.stop().await;
}

#[tokio::test]
async fn who_has_no_identity_is_told_nothing_of_tls() {
    let mesh = Mesh::start().await;
    let own = mesh.sidecar("productpage-v1").await;
    let mut plain = mesh.connect("ratings-v1", "default/default/ratings-v1").await;
    plain.tls = "";
    plain.subscribe_all().await;
    let says = |proxy: &harness::Proxy, kind: Kind| {
        let mut bodies = proxy.held[&kind].values().map(|(_, body)| String::from_utf8_lossy(body).into_owned());
        bodies.any(|body| body.contains("TlsContext"))
    };
    for kind in [Kind::Cluster, Kind::Listener] {
        assert!(says(&own, kind) && !says(&plain, kind), "{kind:?}");
    }
    // It follows changes all the same.
    mesh.api.put_yaml(&rule("all-v1", "v1", ""));
    let response = plain.next().await.expect("open");
    assert_eq!(plain.ack(&response).await, Kind::Cluster);
    assert!(plain.held[&Kind::Cluster].keys().any(|name| name.contains("version=v1")));
    assert!(!says(&plain, Kind::Cluster));
    mesh.stop().await;
}
