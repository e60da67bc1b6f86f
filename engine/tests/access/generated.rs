//! The filters that are made of policies.

use super::authentication::{authentication, tokens_of};
use super::*;

#[test]
fn cve_2022_21679_what_the_filters_do_not_understand_is_refused_by_name() {
    let model = model_with(&role("[{services: [reviews]}]"));
    let node = sidecar(&model, "reviews", "v1");
    let listener = generate::listener(&model, &node, "virtual_inbound").unwrap();
    let shown = engine::text::to_json(engine::Kind::Listener, &listener.body).unwrap();
    let filter = "/filterChains/0/filters/0/typedConfig/httpFilters/0/typedConfig";
    let policy = "/rules/policies/service-role-binding~1default~1bind~1service-role~1role~1rules[0]";
    for (at, value, expected) in [
        ("/rules/action", json!("LOG"), "action: LOG"),
        ("/trackPerRuleStats", json!(true), "track_per_rule_stats"),
        (
            &format!("{policy}/principals/0"),
            json!({ "remoteIp": { "addressPrefix": "10.0.0.0", "prefixLen": 8 } }),
            "remote_ip",
        ),
        (
            &format!("{policy}/principals/0"),
            json!({ "sourceIp": { "addressPrefix": "10.0.0.0", "prefixLen": 8 } }),
            "source_ip",
        ),
        (
            &format!("{policy}/permissions/0"),
            json!({ "requestedServerName": { "exact": "x" } }),
            "requested_server_name",
        ),
        (&format!("{policy}/permissions/0"), json!({ "andRules": {} }), "the list is empty"),
        (&format!("{policy}/principals"), json!([]), "a policy has permissions and principals"),
    ] {
        let mut changed = shown.clone();
        let (parent, name) = at.rsplit_once('/').unwrap();
        let place = changed.pointer_mut(&format!("{filter}{parent}")).unwrap_or_else(|| panic!("{at}: {shown:#}"));
        match place {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            place => place[name] = value,
        }
        let resource = engine::text::from_json(engine::Kind::Listener, &changed, "x").unwrap();
        let refused = Compiler::new().update(resource.kind, &resource.name, "1", &resource.body).unwrap_err();
        assert!(refused.to_string().contains(expected), "{at}: {refused}");
    }
}

#[test]
fn a_generated_guard_reads_back_as_it_was_written() {
    let key = Key::of("ES256");
    let text = format!(
        "{}---{}---{}",
        role("[{services: [reviews], paths: [/a]}]"),
        tokens_of(&key, ""),
        authentication("s", "default", "{peers: [{mtls: }]}")
    );
    let model = model_with(&text);
    let node = Node { role: Role::Sidecar, ..sidecar(&model, "reviews", "v1") };
    let one = generate::listener(&model, &node, "virtual_inbound").unwrap();
    let other = generate::listener(&model, &node, "virtual_inbound").unwrap();
    assert_eq!(one.version, other.version, "the encoding has one order");
    let tables = tables(&model, &node);
    let http = http_of(&tables);
    let names: Vec<_> = http.access.rbac.iter().map(|rbac| &*rbac.name).collect();
    assert_eq!(names, ["authentication-policy/default/s", "rbac-config/mesh-system/default"]);
    assert_eq!(http.access.tokens.as_ref().map(|tokens| tokens.reserved.len()), Some(1));
    let _ = (canonical_path("/", http.path), canonical_authority("x"));
}

#[test]
fn an_account_is_the_same_in_every_name_of_the_trust_domain() {
    let mut model = model_with(&samples(&[
        "bookinfo/rbac-enable.yaml",
        "bookinfo/rbac-ratings.yaml",
        "bookinfo/rbac-namespace.yaml",
    ]));
    let caller = |domain: &str, account: &str| -> SpiffeId {
        format!("spiffe://{domain}/ns/default/sa/{account}").parse().unwrap()
    };
    let get = Simple::get("ratings:9080", "/ratings/0");
    let allowed = |model: &Model, domain: &str| {
        is_allowed(model, "ratings", &get.clone().from_workload(&caller(domain, "bookinfo-reviews")))
    };
    assert!(allowed(&model, "cluster.local") && !allowed(&model, "old.local"));
    let mut mesh = (*model.mesh).clone();
    mesh.trust_domain_aliases = vec!["old.local".to_owned()];
    model.mesh = Arc::new(mesh);
    assert!(allowed(&model, "cluster.local") && allowed(&model, "old.local"));
    assert!(!allowed(&model, "other.local"));
}
