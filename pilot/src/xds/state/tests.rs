use std::collections::BTreeMap;

use api::messages::SyncState;
use envoy_types::pb::google::rpc;

use super::*;
use crate::resource::Version;

/// A world whose resources are set one by one.
#[derive(Default)]
struct World {
    serial: u64,
    resources: BTreeMap<(Kind, Arc<str>), Arc<Resource>>,
    log: Vec<(u64, Kind, Arc<str>)>,
}

impl World {
    fn set(&mut self, kind: Kind, name: &str, version: u64) {
        let name: Arc<str> = name.into();
        let mut resource = Resource::new(kind, name.clone(), Version(version), b"");
        if kind == Kind::Cluster {
            resource.endpoints_name = Some(name.clone());
        }
        self.resources.insert((kind, name.clone()), Arc::new(resource));
        self.changed(kind, name);
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        let name: Arc<str> = name.into();
        self.resources.remove(&(kind, name.clone()));
        self.changed(kind, name);
    }

    fn changed(&mut self, kind: Kind, name: Arc<str>) {
        self.serial += 1;
        self.log.push((self.serial, kind, name));
    }
}

impl View for World {
    fn serial(&self) -> u64 {
        self.serial
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        self.resources.get(&(kind, Arc::from(name))).cloned()
    }

    fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        self.resources.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }

    fn changed_since(&self, kind: Kind, serial: u64) -> Option<Vec<Arc<str>>> {
        let later = self.log.iter().filter(|(at, of, _)| *at > serial && *of == kind);
        Some(later.map(|(_, _, name)| name.clone()).collect())
    }
}

fn subscribe(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(push: &Push) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: push.nonce.to_string(), ..subscribe(push.kind, &[]) }
}

fn nack(push: &Push, message: &str) -> DeltaDiscoveryRequest {
    let error = rpc::Status { code: 3, message: message.to_owned(), ..rpc::Status::default() };
    DeltaDiscoveryRequest { error_detail: Some(error), ..ack(push) }
}

fn hear(state: &mut ProxyState, request: &DeltaDiscoveryRequest) -> Heard {
    state.hear(request).expect("within limits")
}

fn names(push: &Push) -> Vec<&str> {
    push.resources.iter().map(|resource| &*resource.name).collect()
}

fn expect(state: &mut ProxyState, world: &World, kind: Kind) -> Push {
    let push = state.next(world).unwrap_or_else(|| panic!("{kind:?} is due"));
    assert_eq!(push.kind, kind, "{push:?}");
    push
}

/// A world with one cluster, its endpoints, one listener and one route.
fn small() -> World {
    let mut world = World::default();
    world.set(Kind::Cluster, "c", 1);
    world.set(Kind::Endpoints, "c", 1);
    world.set(Kind::Listener, "l", 1);
    world.set(Kind::Route, "r", 1);
    world
}

/// A proxy that has all of `world`.
fn settled(world: &World) -> ProxyState {
    let mut state = ProxyState::default();
    hear(&mut state, &subscribe(Kind::Cluster, &[]));
    hear(&mut state, &subscribe(Kind::Listener, &[]));
    hear(&mut state, &subscribe(Kind::Endpoints, &["c"]));
    hear(&mut state, &subscribe(Kind::Route, &["r"]));
    while let Some(push) = state.next(world) {
        hear(&mut state, &ack(&push));
    }
    assert_eq!(state.settled(), world.serial);
    state
}

#[test]
fn additions_go_clusters_endpoints_listeners_routes() {
    let world = small();
    let mut state = ProxyState::default();
    hear(&mut state, &subscribe(Kind::Cluster, &[]));
    hear(&mut state, &subscribe(Kind::Listener, &[]));
    hear(&mut state, &subscribe(Kind::Route, &["r"]));
    let clusters = expect(&mut state, &world, Kind::Cluster);
    assert_eq!(names(&clusters), ["c"]);
    assert!(state.next(&world).is_none(), "listeners wait for clusters");
    hear(&mut state, &ack(&clusters));
    assert!(state.next(&world).is_none(), "listeners wait until endpoints are asked for");
    assert!(state.is_awaiting_endpoints());
    hear(&mut state, &subscribe(Kind::Endpoints, &["c"]));
    let endpoints = expect(&mut state, &world, Kind::Endpoints);
    assert!(state.next(&world).is_none());
    hear(&mut state, &ack(&endpoints));
    let listeners = expect(&mut state, &world, Kind::Listener);
    hear(&mut state, &ack(&listeners));
    let routes = expect(&mut state, &world, Kind::Route);
    assert!(state.settled() < world.serial);
    hear(&mut state, &ack(&routes));
    assert!(state.next(&world).is_none());
    assert_eq!(state.settled(), world.serial);
}

#[test]
fn endpoints_do_not_wait_for_the_acknowledgement_of_clusters() {
    let world = small();
    let mut state = ProxyState::default();
    hear(&mut state, &subscribe(Kind::Cluster, &[]));
    let clusters = expect(&mut state, &world, Kind::Cluster);
    hear(&mut state, &subscribe(Kind::Endpoints, &["c"]));
    let endpoints = expect(&mut state, &world, Kind::Endpoints);
    hear(&mut state, &ack(&endpoints));
    hear(&mut state, &ack(&clusters));
    assert!(state.next(&world).is_none());
}

#[test]
fn a_proxy_that_never_asks_for_endpoints_gets_its_routes_after_a_while() {
    let world = small();
    let mut state = ProxyState::default();
    hear(&mut state, &subscribe(Kind::Cluster, &[]));
    hear(&mut state, &subscribe(Kind::Listener, &[]));
    let clusters = expect(&mut state, &world, Kind::Cluster);
    hear(&mut state, &ack(&clusters));
    assert!(state.is_awaiting_endpoints());
    state.stop_awaiting_endpoints();
    expect(&mut state, &world, Kind::Listener);
}

#[test]
fn one_changed_route_costs_one_route() {
    let mut world = small();
    let mut state = settled(&world);
    world.set(Kind::Route, "other", 1);
    assert!(state.next(&world).is_none(), "nobody asked for it");
    world.set(Kind::Route, "r", 2);
    let routes = expect(&mut state, &world, Kind::Route);
    assert_eq!(names(&routes), ["r"]);
    world.set(Kind::Route, "r", 3);
    world.set(Kind::Route, "r", 4);
    assert!(state.next(&world).is_none(), "one response at a time");
    hear(&mut state, &ack(&routes));
    let routes = expect(&mut state, &world, Kind::Route);
    assert_eq!(routes.resources[0].version, Version(4), "what is in between is never sent");
}

#[test]
fn removals_come_last_and_the_other_way_round() {
    let mut world = small();
    let mut state = settled(&world);
    for kind in Kind::ALL {
        world.remove(kind, if kind == Kind::Listener { "l" } else { "c" });
    }
    world.set(Kind::Route, "r", 2);
    let mut order = Vec::new();
    while let Some(push) = state.next(&world) {
        order.push((push.kind, push.removed.len()));
        hear(&mut state, &ack(&push));
    }
    assert_eq!(order, [(Kind::Route, 0), (Kind::Listener, 1), (Kind::Endpoints, 1), (Kind::Cluster, 1)]);
}

#[test]
fn what_a_reconnecting_proxy_holds_is_not_sent_again() {
    let mut world = small();
    world.set(Kind::Cluster, "d", 5);
    let mut state = ProxyState::default();
    let initial = [("c", Version(1)), ("d", Version(4)), ("gone", Version(9))];
    let request = DeltaDiscoveryRequest {
        initial_resource_versions: initial.into_iter().map(|(name, v)| (name.to_owned(), v.to_string())).collect(),
        ..subscribe(Kind::Cluster, &[])
    };
    hear(&mut state, &request);
    let push = expect(&mut state, &world, Kind::Cluster);
    assert_eq!(names(&push), ["d"], "only what differs");
    hear(&mut state, &ack(&push));
    hear(&mut state, &subscribe(Kind::Endpoints, &["d"]));
    while let Some(push) = state.next(&world) {
        if push.kind == Kind::Cluster {
            assert_eq!(push.removed, [Arc::from("gone")]);
        }
        hear(&mut state, &ack(&push));
    }
}

#[test]
fn a_refused_resource_is_remembered_and_not_sent_again_until_it_changes() {
    let mut world = small();
    let mut state = settled(&world);
    world.set(Kind::Route, "r", 2);
    let push = expect(&mut state, &world, Kind::Route);
    assert_eq!(hear(&mut state, &nack(&push, "r: unknown field `mirror`")), Heard::Nack(Kind::Route, 1));
    assert!(state.next(&world).is_none());
    assert_eq!(state.settled(), world.serial, "a refusal settles the matter too");
    assert_eq!(state.refusal(Kind::Route, "r"), Some("unknown field `mirror`"));
    let status = &state.status()[1];
    assert_eq!((status.kind.as_str(), status.state, status.resources), ("RDS", SyncState::Rejected, 1));
    world.set(Kind::Route, "r", 3);
    let push = expect(&mut state, &world, Kind::Route);
    assert_eq!(hear(&mut state, &ack(&push)), Heard::Ack(Kind::Route));
    assert_eq!(state.refusal(Kind::Route, "r"), None);
    assert_eq!(state.status()[1].state, SyncState::Synced);
}

#[test]
fn an_old_nonce_acknowledges_nothing() {
    let world = small();
    let mut state = ProxyState::default();
    hear(&mut state, &subscribe(Kind::Cluster, &[]));
    let push = expect(&mut state, &world, Kind::Cluster);
    let stale = DeltaDiscoveryRequest { response_nonce: "999".to_owned(), ..ack(&push) };
    assert_eq!(hear(&mut state, &stale), Heard::Subscription);
    assert_eq!(state.status()[2].state, SyncState::Stale);
}

#[test]
fn a_named_resource_that_is_missing_is_said_to_be_and_sent_when_it_appears() {
    let mut world = small();
    let mut state = settled(&world);
    hear(&mut state, &subscribe(Kind::Route, &["later"]));
    let push = expect(&mut state, &world, Kind::Route);
    assert_eq!(push.removed, [Arc::from("later")]);
    hear(&mut state, &ack(&push));
    assert!(state.next(&world).is_none());
    world.set(Kind::Route, "later", 1);
    assert_eq!(names(&expect(&mut state, &world, Kind::Route)), ["later"]);
}

#[test]
fn an_unsubscribed_resource_is_not_sent_and_a_resubscribed_one_is() {
    let mut world = small();
    let mut state = settled(&world);
    let drop =
        DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["r".to_owned()], ..subscribe(Kind::Route, &[]) };
    hear(&mut state, &drop);
    world.set(Kind::Route, "r", 2);
    assert!(state.next(&world).is_none());
    hear(&mut state, &subscribe(Kind::Route, &["r"]));
    assert_eq!(names(&expect(&mut state, &world, Kind::Route)), ["r"]);
}

#[test]
fn a_wildcard_over_nothing_is_answered_once() {
    let world = World::default();
    let mut state = ProxyState::default();
    hear(&mut state, &subscribe(Kind::Listener, &["*"]));
    let push = expect(&mut state, &world, Kind::Listener);
    assert!(push.resources.is_empty());
    hear(&mut state, &ack(&push));
    assert!(state.next(&world).is_none());
}

#[test]
fn a_peer_cannot_make_pilot_keep_more_than_the_limit() {
    let mut state = ProxyState::default();
    let long = "x".repeat(LONGEST_NAME + 1);
    assert!(state.hear(&subscribe(Kind::Route, &[&long])).is_err());
    let many = DeltaDiscoveryRequest {
        resource_names_subscribe: (0..=MOST_NAMES).map(|n| n.to_string()).collect(),
        ..subscribe(Kind::Route, &[])
    };
    let status = state.hear(&many).expect_err("too many");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let other = DeltaDiscoveryRequest { type_url: "type.googleapis.com/x.Y".to_owned(), ..Default::default() };
    assert_eq!(hear(&mut state, &other), Heard::UnknownType);
}
