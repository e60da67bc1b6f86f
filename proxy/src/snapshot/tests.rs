use engine::text::read_static;

use super::*;

/// The update that a text holds for one kind.
fn update(kind: Kind, text: &str) -> Update {
    let resources = read_static(text).expect("the test's text is good");
    let resources = resources.into_iter().filter(|resource| resource.kind == kind).map(|resource| Incoming {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        body: resource.body,
    });
    Update { resources: resources.collect(), removed: Vec::new() }
}

fn clusters(names: &[&str]) -> Update {
    let list = names.iter().map(|name| {
        format!(
            "  - {{ name: {name}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{ eds_config: {{ ads: {{}}, \
             resource_api_version: V3 }} }} }}\n"
        )
    });
    update(Kind::Cluster, &format!("static_resources:\n  clusters:\n{}", list.collect::<String>()))
}

fn endpoints(name: &str) -> Update {
    update(
        Kind::Endpoints,
        &format!(
            "endpoints:\n- cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n    - endpoint: {{ address: {{ \
             socket_address: {{ address: 127.0.0.1, port_value: 1 }} }} }}\n"
        ),
    )
}

fn routes(cluster: &str) -> Update {
    update(
        Kind::Route,
        &format!(
            "route_configs:\n- name: r\n  virtual_hosts:\n  - name: v\n    domains: ['*']\n    routes:\n    - match: {{ \
             prefix: / }}\n      route: {{ cluster: {cluster} }}\n"
        ),
    )
}

fn cluster_of_route(snapshots: &Snapshots) -> Option<String> {
    let tables = snapshots.tables().load_full();
    let table = tables.route_tables().next()?;
    match &table.virtual_hosts.first()?.routes.first()?.action {
        engine::tables::Action::Forward(forward) => Some(forward.clusters.first()?.name.to_string()),
        _ => None,
    }
}

/// Snapshots with a route to the cluster `old`, complete.
fn serving() -> Snapshots {
    let snapshots = Snapshots::new();
    assert!(snapshots.apply(Kind::Cluster, &clusters(&["old"])).is_in_force);
    assert!(snapshots.apply(Kind::Endpoints, &endpoints("old")).is_in_force);
    assert!(snapshots.apply(Kind::Route, &routes("old")).is_in_force);
    assert!(snapshots.apply(Kind::Listener, &Update::default()).is_in_force);
    assert!(snapshots.in_force().is_complete());
    snapshots
}

#[test]
fn a_route_waits_for_its_cluster_and_the_clusters_endpoints() {
    let snapshots = serving();
    assert!(!snapshots.apply(Kind::Route, &routes("new")).is_in_force);
    assert_eq!(snapshots.missing(), ["cluster `new`"]);
    assert_eq!(cluster_of_route(&snapshots).as_deref(), Some("old"));
    assert!(!snapshots.apply(Kind::Cluster, &clusters(&["new"])).is_in_force);
    assert_eq!(cluster_of_route(&snapshots).as_deref(), Some("old"));
    assert!(snapshots.apply(Kind::Endpoints, &endpoints("new")).is_in_force);
    assert_eq!(cluster_of_route(&snapshots).as_deref(), Some("new"));
}

#[test]
fn a_cluster_that_is_taken_away_stays_until_no_route_names_it() {
    let snapshots = serving();
    snapshots.apply(Kind::Cluster, &clusters(&["new"]));
    snapshots.apply(Kind::Endpoints, &endpoints("new"));
    let gone = Update { removed: vec!["old".to_owned()], ..Update::default() };
    assert!(!snapshots.apply(Kind::Cluster, &gone).is_in_force);
    assert!(snapshots.tables().load().cluster_named("old").is_some());
    assert!(snapshots.apply(Kind::Route, &routes("new")).is_in_force);
    assert!(snapshots.tables().load().cluster_named("old").is_none());
}

#[test]
fn what_never_comes_is_waited_for_no_longer() {
    let snapshots = serving();
    snapshots.apply(Kind::Route, &routes("new"));
    assert_eq!(snapshots.give_up_waiting(), ["cluster `new`"]);
    assert_eq!(cluster_of_route(&snapshots).as_deref(), Some("new"));
    // It comes late, without its endpoints: nothing else waits for them.
    assert!(!snapshots.apply(Kind::Cluster, &clusters(&["new"])).is_in_force);
    let none = Update { removed: vec!["new".to_owned()], ..Update::default() };
    assert!(snapshots.apply(Kind::Endpoints, &none).is_in_force);
}

#[test]
fn a_bad_resource_is_refused_by_name_and_the_old_one_stays() {
    let snapshots = serving();
    let mut mixed = clusters(&["good"]);
    mixed.resources.push(Incoming { name: "old".into(), version: "2".into(), body: Bytes::from_static(b"\xff\xff") });
    let applied = snapshots.apply(Kind::Cluster, &mixed);
    assert_eq!(applied.refused.len(), 1);
    assert_eq!(applied.refused[0].0, "old");
    let tables = snapshots.tables().load();
    assert!(tables.cluster_named("old").is_some());
    assert!(tables.cluster_named("good").is_some());
    assert_eq!(snapshots.refused()[0].version, "2");
    assert_ne!(snapshots.versions(Kind::Cluster)["old"], "2");
}
