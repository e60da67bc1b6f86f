//! The classic files as they are: roles that a rule asks, and a rule that refuses.

use super::*;

/// Files of the classic releases, as one text.
fn classic(names: &[&str]) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/data/access");
    let read = |name: &&str| std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    names.iter().map(read).collect::<Vec<_>>().join("\n---\n")
}

fn get() -> Simple {
    Simple::get("x:9080", "/x")
}

#[test]
fn the_classic_role_files_give_what_their_task_describes() {
    let page = id("default", "bookinfo-productpage");
    let reviews = id("default", "bookinfo-reviews");
    let gateway = id("mesh-system", "mesh-ingressgateway");
    let stranger = id("other", "somebody");
    let hops = [("productpage", &gateway), ("details", &page), ("reviews", &page), ("ratings", &reviews)];
    for (files, expected) in [
        (&["istio-rbac-enable"][..], [false, false, false, false]),
        (&["istio-rbac-enable", "istio-rbac-namespace"], [true, true, true, true]),
        (&["istio-rbac-enable", "istio-rbac-productpage"], [true, false, false, false]),
        (&["istio-rbac-enable", "istio-rbac-productpage", "istio-rbac-details-reviews"], [true, true, true, false]),
        (
            &["istio-rbac-enable", "istio-rbac-productpage", "istio-rbac-details-reviews", "istio-rbac-ratings"],
            [true, true, true, true],
        ),
        // Roles without a rule that asks them keep nobody out.
        (&["istio-rbac-ratings"], [true, true, true, true]),
    ] {
        let model = model_with(&classic(files));
        for ((service, caller), expected) in hops.into_iter().zip(expected) {
            assert_eq!(is_allowed(&model, service, &get().from_workload(caller)), expected, "{service} with {files:?}");
            let post = get().from_workload(caller).with_method("POST");
            assert_eq!(is_allowed(&model, service, &post), !files[0].contains("enable"), "{service} with {files:?}");
        }
        if files.len() > 1 {
            for service in ["details", "reviews", "ratings"] {
                assert!(!is_allowed(&model, service, &get().from_workload(&stranger)), "{service} with {files:?}");
                assert!(!is_allowed(&model, service, &get()), "{service} with {files:?}");
            }
        }
    }
    // A denial names the rule.
    let model = model_with(&classic(&["istio-rbac-enable"]));
    assert_eq!(denied(&model, "ratings", &get()).as_deref(), Some("rule/mesh-system/rbaccheck[none]"));
    // What the rule does not select is as it was.
    let other = classic(&["istio-rbac-enable"]).replace("\"default\"", "\"other\"");
    assert!(is_allowed(&model_with(&other), "ratings", &get()));
}

/// Who refuses a request at v1 of a service.
fn denied(model: &Model, service: &str, request: &Simple) -> Option<String> {
    let tables = tables(model, &sidecar(model, service, "v1"));
    admit(&http_of(&tables).access.rbac, request, &mut NoTrace).denied.map(|denied| denied.to_string())
}

/// Roles that are asked by a rule with this `match`, in this namespace.
fn asked(namespace: &str, selects: &str) -> Model {
    model_with(&format!(
        "apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {{name: ask, namespace: {namespace}}}
spec:
  match: {selects}
  actions:
  - {{handler: roles.rbac, instances: [who.authorization]}}
"
    ))
}

#[test]
fn a_rule_asks_roles_where_its_match_says_so() {
    for (namespace, selects, reviews, ratings) in [
        ("mesh-system", "", true, true),
        ("mesh-system", "destination.labels[\"app\"] == \"reviews\"", true, false),
        ("mesh-system", "destination.labels[\"none\"] == \"reviews\"", false, false),
        ("mesh-system", "destination.service == \"ratings.default.svc.cluster.local\"", false, true),
        (
            "mesh-system",
            "destination.namespace == \"default\" && destination.labels[\"version\"] == \"v1\"",
            true,
            true,
        ),
        ("mesh-system", "destination.namespace == \"other\"", false, false),
        ("istio-system", "", true, true),
        // A rule of another namespace speaks for that one alone.
        ("default", "", true, true),
        ("other", "", false, false),
    ] {
        let model = asked(namespace, selects);
        let found = (!is_allowed(&model, "reviews", &get()), !is_allowed(&model, "ratings", &get()));
        assert_eq!(found, (reviews, ratings), "{namespace}: {selects}");
    }
}

#[test]
fn of_a_rule_and_a_config_the_stricter_holds() {
    let rule = classic(&["istio-rbac-enable"]);
    let config = |spec: &str| format!("{rule}\n---{}", ON.replace("{mode: 'ON'}", spec));
    for (text, expected) in [
        (rule.clone(), "rule/mesh-system/rbaccheck[none]"),
        (config("{mode: 'OFF'}"), "rule/mesh-system/rbaccheck[none]"),
        (config("{mode: ON, enforcementMode: PERMISSIVE}"), "rule/mesh-system/rbaccheck[none]"),
        (config("{mode: ON}"), "rbac-config/mesh-system/default[none]"),
    ] {
        assert_eq!(denied(&model_with(&text), "reviews", &get()).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn each_row_of_the_classic_roles_holds() {
    // What the file's `authorization` says besides is not in force; its roles are.
    let text = classic(&["rbac"]);
    let roles: Vec<&str> = text.split("\n---").filter(|object| object.contains("kind: ServiceRole")).collect();
    let mut model = model_with(&format!("{ON}---{}", roles.join("\n---")));
    let make = |model: &mut Model, name: &str, namespace: &str, host: Host| {
        let mut service = (**model.services.get(&support::host("details")).unwrap()).clone();
        service.key = api::model::Key { namespace: namespace.to_owned(), name: name.to_owned() };
        service.host = host.clone();
        let endpoints = ["v1", "v3"].map(|version| {
            let mut endpoint = model.endpoints[&support::host("details")][0].clone();
            let mut workload = (*endpoint.workload).clone();
            workload.key.namespace = namespace.to_owned();
            workload.service_account = format!("{name}-account");
            workload.labels = labels(&[("app", name), ("version", version)]);
            endpoint.workload = Arc::new(workload);
            endpoint
        });
        model.endpoints.insert(host.clone(), Arc::new(endpoints));
        model.services.insert(host, Arc::new(service));
    };
    for name in ["products", "bookstore"] {
        make(&mut model, name, "default", Host::new(&format!("{name}.svc.cluster.local")));
    }
    make(&mut model, "reviews", "abc", Host::of_service("reviews", "abc", "cluster.local"));
    make(&mut model, "carts", "abc", Host::of_service("carts", "abc", "cluster.local"));
    let verdict = |host: &str, version: &str, request: &Simple| {
        let host = Host::new(host);
        let endpoints = &model.endpoints[&host];
        let of_version = |endpoint: &&api::model::Endpoint| endpoint.workload.labels["version"] == version;
        let workload = Arc::clone(&endpoints.iter().find(of_version).unwrap().workload);
        let node = Node { role: Role::Sidecar, workload, services: vec![host], tls: api::model::MeshTls::Own };
        let tables = tables(&model, &node);
        admit(&http_of(&tables).access.rbac, request, &mut NoTrace).denied.is_none()
    };
    let (products, bookstore) = ("products.svc.cluster.local", "bookstore.svc.cluster.local");
    let reviews = "reviews.default.svc.cluster.local";
    let (shop, cart) = (id("abc", "reviews-account"), id("abc", "carts-account"));
    let (acme, other) = (id("acme", "anything"), id("default", "bookinfo-reviews"));
    for (host, version, caller, method, path, expected) in [
        // products-viewer: GET and HEAD of v1 and v2, for the service reviews of namespace abc.
        (products, "v1", &shop, "GET", "/any", true),
        (products, "v1", &shop, "HEAD", "/any", true),
        (products, "v1", &shop, "POST", "/any", false),
        (products, "v3", &shop, "GET", "/any", false),
        (products, "v1", &cart, "GET", "/any", false),
        (products, "v1", &other, "GET", "/any", false),
        (products, "v1", &acme, "GET", "/any", false),
        (bookstore, "v1", &shop, "GET", "/1/review", false),
        // book-reader: anything at reviews*, and what ends in /review at the book store, for namespace acme.
        (reviews, "v1", &acme, "GET", "/any", true),
        (reviews, "v3", &acme, "DELETE", "/any", true),
        (reviews, "v1", &other, "GET", "/any", false),
        (bookstore, "v1", &acme, "GET", "/1/review", true),
        (bookstore, "v1", &acme, "GET", "/review", true),
        (bookstore, "v1", &acme, "GET", "/1/review?x=y", true),
        (bookstore, "v1", &acme, "GET", "/1/reviews", false),
        (bookstore, "v1", &acme, "GET", "/1/review/x", false),
        (bookstore, "v1", &acme, "POST", "/1/review", false),
        (bookstore, "v1", &other, "GET", "/1/review", false),
        (products, "v1", &id("acmes", "x"), "GET", "/any", false),
    ] {
        let request = Simple::get("x", path).from_workload(caller).with_method(method);
        assert_eq!(verdict(host, version, &request), expected, "{caller} {method} {host}{path} of {version}");
    }
    assert!(!verdict(products, "v1", &Simple::get("x", "/any")), "nobody has none of these roles");
}

#[test]
fn a_denier_refuses_by_account_with_its_own_words() {
    let page = id("default", "bookinfo-productpage");
    let reviews = id("default", "bookinfo-reviews");
    for file in ["mixer-rule-deny-serviceaccount", "mixer-rule-deny-serviceaccount-0.2.12"] {
        let model = model_with(&classic(&[file]));
        let namespace = if file.ends_with("12") { "mesh-system" } else { "default" };
        assert_eq!(
            denied(&model, "details", &get().from_workload(&page)),
            Some(format!("rule/{namespace}/denyproductpage[denier/{namespace}/denyproductpagehandler: Not allowed]"))
        );
        assert!(is_allowed(&model, "details", &get().from_workload(&reviews)), "{file}");
        assert!(is_allowed(&model, "details", &get()), "who proves nothing is not that account");
        assert!(is_allowed(&model, "reviews", &get().from_workload(&page)), "{file}");
    }
    // It goes before what roles allow, and needs no handler to be in force.
    let roles = ["istio-rbac-enable", "istio-rbac-namespace"];
    let text = classic(&["mixer-rule-deny-serviceaccount", roles[0], roles[1]]);
    let rule: Vec<&str> = text.split("\n---").filter(|object| !object.contains("kind: denier")).collect();
    let model = model_with(&rule.join("\n---"));
    assert_eq!(
        denied(&model, "details", &get().from_workload(&page)).as_deref(),
        Some("rule/default/denyproductpage[denier/default/denyproductpagehandler]")
    );
    assert!(is_allowed(&model, "details", &get().from_workload(&reviews)));
}

/// A rule that refuses at reviews what its `match` selects.
fn refusing(selects: &str) -> Model {
    let text = classic(&["mixer-rule-deny-serviceaccount"]);
    let (before, _) = text.split_once("  match:").unwrap();
    model_with(&format!(
        "{before}  match: {selects}\n  actions:\n  - {{handler: denyproductpagehandler.denier, \
         instances: [denyproductpagerequest.checknothing]}}\n"
    ))
}

#[test]
fn a_denier_refuses_what_every_part_of_its_match_selects() {
    let page = id("default", "bookinfo-productpage");
    let request = || Simple::get("x", "/a/b?q=1").from_workload(&page).with_header("x-a", "1");
    for (selects, expected) in [
        ("", true),
        ("source.namespace == \"default\"", true),
        ("source.namespace == \"defaul\"", false),
        ("request.path == \"/a/b\"", true),
        ("request.path == \"/a\"", false),
        ("request.method == \"GET\"", true),
        ("request.method == \"POST\"", false),
        ("request.headers[\"X-A\"] == \"1\"", true),
        ("request.headers[\"x-b\"] == \"1\"", false),
        ("request.path == \"/a/b\" && request.method == \"GET\" && source.namespace == \"default\"", true),
        ("request.path == \"/a/b\" && request.method == \"GET\" && source.namespace == \"other\"", false),
        ("request.path == \"/a/b\" && request.method == \"POST\" && source.namespace == \"default\"", false),
        ("destination.labels[\"app\"] == \"reviews\"", true),
        ("destination.labels[\"app\"] == \"ratings\"", false),
    ] {
        assert_eq!(denied(&refusing(selects), "reviews", &request()).is_some(), expected, "{selects}");
    }
    // One of several values is enough to be kept out, in whatever order they come.
    let twice = Simple::get("x", "/").with_header("x-a", "0").with_header("x-a", "1");
    assert!(denied(&refusing("request.headers[\"x-a\"] == \"1\""), "reviews", &twice).is_some());
}

#[test]
fn a_denier_keeps_connections_out_and_what_they_lack_is_no_way_around() {
    let page = id("default", "bookinfo-productpage");
    let reviews = id("default", "bookinfo-reviews");
    for (selects, caller, expected) in [
        ("source.user == \"cluster.local/ns/default/sa/bookinfo-productpage\"", &page, true),
        ("source.user == \"cluster.local/ns/default/sa/bookinfo-productpage\"", &reviews, false),
        ("source.namespace == \"default\" && request.path == \"/a\"", &page, true),
        ("source.namespace == \"other\" && request.path == \"/a\"", &page, false),
    ] {
        let mut model = refusing(selects);
        let mut opaque = (**model.services.get(&host("reviews")).unwrap()).clone();
        opaque.ports[0].protocol = api::model::Protocol::Tcp;
        model.services.insert(host("reviews"), Arc::new(opaque));
        let tables = tables(&model, &sidecar(&model, "reviews", "v1"));
        let listener = tables.listener("virtual_inbound").unwrap();
        for port in [9080, 12345] {
            let Filter::Tcp(tcp) = &listener.chain(port, None).unwrap().filter else { panic!("HTTP") };
            let caller = Caller { identity: Some(caller), ..Caller::default() };
            let denied = admit(&tcp.rbac, &Connection(caller), &mut NoTrace).denied;
            assert_eq!(denied.is_some(), expected, "{selects} at {port}");
        }
    }
}
