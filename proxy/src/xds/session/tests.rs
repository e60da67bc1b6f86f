use envoy_types::pb::google::protobuf::Any;

use super::*;

fn resource(kind: Kind, name: &str, version: &str, body: &[u8]) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any { type_url: kind.type_url().to_owned(), value: body.to_vec() }),
        ..Default::default()
    }
}

fn response(kind: Kind, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        resources,
        ..Default::default()
    }
}

fn eds_cluster(name: &str) -> Resource {
    let text = format!(
        "static_resources:\n  clusters:\n  - {{ name: {name}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{ \
         eds_config: {{ ads: {{}}, resource_api_version: V3 }} }} }}\n"
    );
    let made = engine::text::read_static(&text).expect("the test's text is good").remove(0);
    resource(Kind::Cluster, name, "1", &made.body)
}

fn open(snapshots: &Snapshots) -> (Session, Vec<DeltaDiscoveryRequest>) {
    let node = Node { id: "sidecar~x".to_owned(), ..Default::default() };
    Session::open(node, snapshots.clone())
}

#[test]
fn a_first_stream_asks_for_what_comes_unasked_and_names_the_node_once() {
    let (_, requests) = open(&Snapshots::new());
    let kinds: Vec<&str> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(kinds, [Kind::Cluster.type_url(), Kind::Listener.type_url()]);
    assert!(requests[0].node.is_some());
    assert!(requests[1].node.is_none());
    assert!(requests.iter().all(|request| request.resource_names_subscribe.is_empty()));
}

#[test]
fn endpoints_are_asked_for_as_clusters_name_them_and_given_up_with_them() {
    let (mut session, _) = open(&Snapshots::new());
    let outcome = session.on_response(response(Kind::Cluster, "1", vec![eds_cluster("a"), eds_cluster("b")]));
    assert_eq!(outcome.requests.len(), 2);
    assert_eq!(outcome.requests[0].response_nonce, "1");
    assert!(outcome.requests[0].error_detail.is_none());
    assert_eq!(outcome.requests[1].resource_names_subscribe, ["a", "b"]);
    let gone =
        DeltaDiscoveryResponse { removed_resources: vec!["a".to_owned()], ..response(Kind::Cluster, "2", Vec::new()) };
    let outcome = session.on_response(gone);
    assert_eq!(outcome.requests[1].resource_names_unsubscribe, ["a"]);
}

#[test]
fn a_reply_names_each_refused_resource_and_the_others_are_in_force() {
    let snapshots = Snapshots::new();
    let (mut session, _) = open(&snapshots);
    let bad = resource(Kind::Cluster, "bad", "1", b"\xff\xff\xff");
    let empty = Resource { name: "empty".to_owned(), ..Default::default() };
    let outcome =
        session.on_response(response(Kind::Cluster, "1", vec![bad, eds_cluster("good"), empty, eds_cluster("good")]));
    let detail = outcome.requests[0].error_detail.as_ref().expect("it is refused in part");
    assert_eq!(detail.code, INVALID_ARGUMENT);
    for part in ["bad: ", "empty: it has no body", "good: it is in the response twice"] {
        assert!(detail.message.contains(part), "{part} in {}", detail.message);
    }
    assert!(snapshots.tables().load().cluster_named("good").is_some());
    assert_eq!(outcome.accepted, 1);
}

#[test]
fn a_new_stream_says_what_is_in_hand() {
    let snapshots = Snapshots::new();
    let (mut session, _) = open(&snapshots);
    session.on_response(response(Kind::Cluster, "1", vec![eds_cluster("a")]));
    let (_, requests) = open(&snapshots);
    assert_eq!(requests[0].initial_resource_versions["a"], "1");
    assert_eq!(requests[1].type_url, Kind::Endpoints.type_url());
    assert_eq!(requests[1].resource_names_subscribe, ["a"]);
}

#[test]
fn a_type_that_was_not_asked_for_is_refused() {
    let (mut session, _) = open(&Snapshots::new());
    let unknown = DeltaDiscoveryResponse { type_url: "x.y/Z".to_owned(), nonce: "7".to_owned(), ..Default::default() };
    let outcome = session.on_response(unknown);
    assert_eq!(outcome.requests[0].response_nonce, "7");
    assert!(outcome.requests[0].error_detail.is_some());
}

#[test]
fn a_route_configuration_is_acknowledged_when_requests_follow_it() {
    let snapshots = Snapshots::new();
    let (mut session, _) = open(&snapshots);
    let text = "route_configs:\n- name: r\n  virtual_hosts:\n  - name: v\n    domains: ['*']\n    routes:\n    - match: { \
                prefix: / }\n      route: { cluster: a }\n";
    let made = engine::text::read_static(text).expect("the test's text is good").remove(0);
    let outcome = session.on_response(response(Kind::Route, "1", vec![resource(Kind::Route, "r", "1", &made.body)]));
    assert!(outcome.requests.is_empty());
    assert!(!outcome.is_in_force);
    session.on_response(response(Kind::Cluster, "2", vec![eds_cluster("a")]));
    let none = DeltaDiscoveryResponse {
        removed_resources: vec!["a".to_owned()],
        ..response(Kind::Endpoints, "3", Vec::new())
    };
    let outcome = session.on_response(none);
    let nonces: Vec<&str> = outcome.requests.iter().map(|request| request.response_nonce.as_str()).collect();
    assert_eq!(nonces, ["3", "1"]);
}
