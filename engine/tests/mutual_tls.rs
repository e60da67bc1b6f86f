//! Who speaks TLS to whom: what is generated, as a proxy's tables have it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;

use api::model::{Endpoint, Key, MeshTls, Model, MtlsMode, Node, Protocol, Resolution, Service};
use engine::Kind;
use engine::generate::{self, Affected, affected};
use engine::tables::{Chain, ClientTls, Filter, Seen, Tables, alpn};
use support::*;

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

/// Bookinfo with an authentication policy of the namespace `default`.
fn with_policy(spec: &str) -> Model {
    model_with(&format!(
        "apiVersion: config.meshctl.io/v1alpha2\nkind: AuthenticationPolicy\nmetadata: {{name: default, namespace: default}}\nspec: {spec}\n"
    ))
}

/// Bookinfo with a service `shop` of one port, served by ratings.
fn with_shop(protocol: Protocol) -> (Model, Node) {
    let mut model = with_service(shop(protocol, "10.96.0.99".parse().unwrap()));
    let endpoint = Endpoint { service_port: port(443), ..model.endpoints[&host("ratings")][0].clone() };
    model.endpoints.insert(host("shop"), [endpoint].into());
    let accounts = model.accounts[&host("ratings")].clone();
    model.accounts.insert(host("shop"), accounts);
    let node = Node { services: vec![host("shop")], ..sidecar(&model, "ratings", "v1") };
    (model, node)
}

/// TLS with which a proxy calls the first endpoint of a cluster.
fn tls_to(tables: &Tables, cluster: &str) -> Option<Arc<ClientTls>> {
    let cluster = tables.cluster_named(cluster).unwrap();
    let endpoints = cluster.endpoints.as_ref().unwrap();
    cluster.spec.tls_for(&endpoints.all()[0]).cloned()
}

/// The inbound filter chain of a connection to port 9080, by its name.
fn chain<'t>(tables: &'t Tables, is_tls: bool, protocols: &[&str]) -> Option<&'t Chain> {
    let listener = tables.listener("virtual_inbound").unwrap();
    listener.chain_for(&Seen { port: 9080, is_tls, protocols, ..Seen::default() })
}

fn compile(model: &Model, node: &Node) -> Tables {
    compiled(model, node).tables()
}

/// Bookinfo with a headless service of ratings and details, which run under accounts of their own, and one endpoint without a sidecar.
fn with_headless(protocol: Protocol) -> Model {
    let headless =
        Service { addresses: Vec::new(), resolution: Resolution::Headless, ..shop(protocol, [10, 96, 0, 99].into()) };
    let mut model = with_service(headless);
    let at = |app: &str, last: u8| {
        let mut endpoint =
            Endpoint { service_port: port(443), port: port(443), ..model.endpoints[&host(app)][0].clone() };
        endpoint.address = [10, 244, 9, last].into();
        endpoint
    };
    let (ratings, details, mut bare) = (at("ratings", 1), at("details", 2), at("details", 3));
    Arc::make_mut(&mut bare.workload).takes_tls = false;
    let accounts = ["ratings", "details"].map(|app| (*model.accounts[&host(app)]).clone());
    model.endpoints.insert(host("shop"), [ratings, details, bare].into());
    model.accounts.insert(host("shop"), Arc::new(accounts.into_iter().flatten().collect()));
    model
}

#[test]
fn an_endpoint_that_is_called_by_its_address_must_prove_its_own_account() {
    let to = |tables: &Tables, address: &str| tables.tls_to(address.parse().unwrap());
    let model = with_headless(Protocol::Tcp);
    let mut compiler = compiled(&model, &sidecar(&model, "productpage", "v1"));
    let tables = compiler.tables();
    assert!(tables.cluster_named("passthrough").unwrap().spec.secures_known);
    assert!(!tables.cluster_named("inbound_passthrough").unwrap().spec.secures_known);
    for (address, account) in [("10.244.9.1:443", "bookinfo-ratings"), ("10.244.9.2:443", "bookinfo-details")] {
        let tls = to(&tables, address).expect("TLS");
        assert_eq!(tls.servers, [format!("spiffe://cluster.local/ns/default/sa/{account}").into()]);
        assert_eq!(tls.alpn, [alpn::OPAQUE.into()]);
    }
    // Of a service with an address of its own too, past it.
    let reviews = model.endpoints[&host("reviews")][0].address;
    assert_eq!(to(&tables, &format!("{reviews}:9080")).expect("TLS").alpn, [alpn::HTTP2.into(), alpn::HTTP1.into()]);
    for stranger in ["10.244.9.3:443", "10.244.9.1:80", "10.244.9.4:443", "[fd00::1]:443"] {
        assert_eq!(to(&tables, stranger), None, "{stranger}");
    }
    // What is not there any more, or not to be called by TLS, is not.
    for (nth, name) in generate::cluster_names_of(&model, &host("reviews")).iter().enumerate() {
        let is_there = to(&compiler.tables(), &format!("{reviews}:9080")).is_some();
        assert!(is_there || nth > 1, "the cluster of its version has it still");
        compiler.remove(Kind::Cluster, &name.to_string());
    }
    assert_eq!(to(&compiler.tables(), &format!("{reviews}:9080")), None);
    compiler.remove(Kind::Endpoints, "outbound|443||shop.default.svc.cluster.local");
    assert_eq!(to(&compiler.tables(), "10.244.9.1:443"), None);
    assert!(to(&tables, "10.244.9.1:443").is_some(), "tables of before are as they were");
    let off = with_policy("{peers: [{mtls: {mode: DISABLE}}]}").access;
    let model = Model { access: off, ..model };
    assert_eq!(to(&compile(&model, &sidecar(&model, "productpage", "v1")), "10.244.9.1:443"), None);
}

#[test]
fn services_with_sidecars_are_called_by_tls_without_a_word() {
    let model = bookinfo();
    for node in [sidecar(&model, "productpage", "v1"), gateway()] {
        let tls = tls_to(&compile(&model, &node), REVIEWS).expect("TLS");
        assert_eq!(tls.servers, ["spiffe://cluster.local/ns/default/sa/bookinfo-reviews".into()]);
        assert_eq!(&*tls.server_name, "outbound_.9080_._.reviews.default.svc.cluster.local");
        assert_eq!(tls.alpn, [alpn::HTTP2.into(), alpn::HTTP1.into()]);
    }
}

#[test]
fn workloads_without_a_sidecar_that_takes_it_are_called_in_clear_text() {
    let mut model = bookinfo();
    let plain = model.endpoints[&host("reviews")].iter().map(|endpoint| {
        let workload = api::model::Workload { takes_tls: false, ..(*endpoint.workload).clone() };
        Endpoint { workload: Arc::new(workload), ..endpoint.clone() }
    });
    let plain: Vec<_> = plain.collect();
    model.endpoints.insert(host("reviews"), plain.into());
    assert_eq!(tls_to(&compile(&model, &sidecar(&model, "productpage", "v1")), REVIEWS), None);
}

#[test]
fn a_proxy_without_an_identity_neither_speaks_it_nor_waits_for_it() {
    let model = bookinfo();
    let node = Node { tls: MeshTls::None, ..sidecar(&model, "reviews", "v1") };
    let tables = compile(&model, &node);
    assert_eq!(tls_to(&tables, REVIEWS), None);
    let inbound = tables.listener("virtual_inbound").unwrap();
    assert!(inbound.all_chains().all(|chain| chain.tls.is_none()));
    assert!(!inbound.must_inspect(9080).is_any());
}

#[test]
fn the_server_is_one_of_the_accounts_that_run_the_service_in_any_name_of_the_trust_domain() {
    let mut model = bookinfo();
    let account = |name: &str| Key { namespace: "default".to_owned(), name: name.to_owned() };
    model.accounts.insert(host("reviews"), Arc::new([account("a"), account("b")].into()));
    let mut mesh = (*model.mesh).clone();
    mesh.trust_domain_aliases = vec!["old.local".to_owned()];
    model.mesh = Arc::new(mesh);
    let tls = tls_to(&compile(&model, &sidecar(&model, "productpage", "v1")), REVIEWS).expect("TLS");
    let servers: Vec<&str> = tls.servers.iter().map(|server| &**server).collect();
    assert_eq!(
        servers,
        [
            "spiffe://cluster.local/ns/default/sa/a",
            "spiffe://old.local/ns/default/sa/a",
            "spiffe://cluster.local/ns/default/sa/b",
            "spiffe://old.local/ns/default/sa/b",
        ]
    );
}

#[test]
fn a_port_that_is_served_by_nobody_with_an_identity_has_no_tls() {
    let mut model = bookinfo();
    model.accounts.remove(&host("reviews"));
    assert_eq!(tls_to(&compile(&model, &sidecar(&model, "productpage", "v1")), REVIEWS), None);
}

#[test]
fn what_is_offered_tells_what_is_spoken() {
    for (protocol, words) in [
        (Protocol::Http, &[alpn::HTTP2, alpn::HTTP1][..]),
        (Protocol::Grpc, &[alpn::HTTP2, alpn::HTTP1]),
        (Protocol::Auto, &alpn::ALL),
        (Protocol::Tcp, &[alpn::OPAQUE]),
        (Protocol::Https, &[alpn::OPAQUE]),
    ] {
        let (model, _) = with_shop(protocol);
        let tables = compile(&model, &sidecar(&model, "productpage", "v1"));
        let tls = tls_to(&tables, "outbound|443||shop.default.svc.cluster.local").expect("TLS");
        assert_eq!(tls.alpn.iter().map(|word| &**word).collect::<Vec<_>>(), words, "{protocol:?}");
    }
}

#[test]
fn the_meshs_own_tls_is_ended_and_an_applications_passes() {
    let cases = [
        // Protocol, TLS?, what is offered, the chain, whether TLS ends there.
        (Protocol::Http, true, &[alpn::HTTP2][..], "mesh-http", true),
        (Protocol::Http, true, &[alpn::HTTP1], "mesh-http", true),
        (Protocol::Http, true, &["h2", "http/1.1"], "http", false),
        (Protocol::Http, false, &["http/1.1"], "http", false),
        (Protocol::Auto, true, &[alpn::HTTP2, alpn::HTTP1], "mesh-http", true),
        (Protocol::Auto, true, &[alpn::OPAQUE], "mesh-tcp", true),
        (Protocol::Auto, true, &["h2", "http/1.1"], "tls", false),
        (Protocol::Auto, true, &[], "tls", false),
        (Protocol::Auto, false, &["http/1.1"], "http", false),
        (Protocol::Auto, false, &[], "tcp", false),
        (Protocol::Tcp, true, &[alpn::OPAQUE], "mesh-tcp", true),
        (Protocol::Tcp, true, &["h2"], "tcp", false),
        (Protocol::Tcp, false, &[], "tcp", false),
    ];
    for (protocol, is_tls, offered, name, ends) in cases {
        let (model, node) = with_shop(protocol);
        let tables = compile(&model, &node);
        let chain = chain(&tables, is_tls, offered).expect("a chain");
        let told = (&*chain.name, chain.tls.is_some());
        assert_eq!(told, (format!("inbound|9080|{name}").as_str(), ends), "{protocol:?} {is_tls} {offered:?}");
    }
}

#[test]
fn an_applications_tls_is_opaque_on_its_way_out_whatever_it_offers() {
    let (model, _) = with_shop(Protocol::Auto);
    let tables = compile(&model, &sidecar(&model, "productpage", "v1"));
    let listener = tables.listener("10.96.0.99_443").unwrap();
    let of = |is_tls, protocols: &[&str]| {
        let chain = listener.chain_for(&Seen { port: 443, is_tls, protocols, ..Seen::default() }).unwrap();
        matches!(chain.filter, Filter::Http(_))
    };
    assert!(of(false, &["http/1.1"]));
    assert!(!of(true, &["h2", "http/1.1"]));
    assert!(!of(false, &[]));
}

#[test]
fn modes_decide_who_is_called_how_and_who_is_let_in() {
    for (mode, is_called, is_guarded) in
        [(MtlsMode::Disable, false, false), (MtlsMode::Permissive, true, false), (MtlsMode::Strict, true, true)]
    {
        let model = with_policy(&format!("{{targets: [{{name: reviews}}], peers: [{{mtls: {{mode: {mode}}}}}]}}"));
        let tables = compile(&model, &sidecar(&model, "reviews", "v1"));
        assert_eq!(tls_to(&tables, REVIEWS).is_some(), is_called, "{mode}");
        let ratings = "outbound|9080||ratings.default.svc.cluster.local";
        assert!(tls_to(&tables, ratings).is_some(), "a policy of reviews is nothing to ratings");
        for (is_tls, offered) in [(true, alpn::HTTP2), (false, "http/1.1")] {
            // The chain for TLS is there whatever the mode: callers follow a change a moment later.
            let chain = chain(&tables, is_tls, &[offered]).expect("a chain");
            assert_eq!(chain.tls.is_some(), is_tls);
            let Filter::Http(http) = &chain.filter else { panic!("HTTP is spoken") };
            assert_eq!(!http.access.rbac.is_empty(), is_guarded, "{mode} {offered}");
        }
    }
}

#[test]
fn the_classic_setting_and_annotation_say_the_same_as_policies() {
    let mut model = bookinfo();
    let mut mesh = (*model.mesh).clone();
    mesh.mtls = MtlsMode::Strict;
    model.mesh = Arc::new(mesh);
    let mode = |model: &Model| {
        let service = Arc::clone(&model.services[&host("reviews")]);
        generate::authentication(model, "default", Some((&service, port(9080)))).mode(model)
    };
    assert_eq!(mode(&model), MtlsMode::Strict);
    let annotated = |model: &mut Model, mtls| {
        let mut service = (*model.services[&host("reviews")]).clone();
        service.ports[0].mtls = Some(mtls);
        model.services.insert(host("reviews"), Arc::new(service));
    };
    annotated(&mut model, MtlsMode::Disable);
    assert_eq!(mode(&model), MtlsMode::Disable, "a port's annotation goes before the mesh's setting");
    model.access = with_policy("{targets: [{name: reviews, ports: [{number: 9080}]}], peers: [{mtls: }]}").access;
    assert_eq!(mode(&model), MtlsMode::Strict, "of two about a port the stricter holds");
}

#[test]
fn a_change_touches_what_it_is_about() {
    let before = bookinfo();
    let mut after = before.clone();
    after.access = with_policy("{targets: [{name: reviews}], peers: [{mtls: {mode: DISABLE}}]}").access;
    let touched = affected(&before, &after);
    assert_eq!(touched.endpoints, [host("reviews")].into());
    assert!(touched.clusters.is_empty() && touched.access);
    let mut strict = before.clone();
    strict.access = with_policy("{peers: [{mtls: {mode: STRICT}}]}").access;
    assert_eq!(affected(&before, &strict), Affected { access: true, ..Affected::default() }, "callers do as before");
    let mut other = before.clone();
    let account = Key { namespace: "default".to_owned(), name: "other".to_owned() };
    other.accounts.insert(host("reviews"), Arc::new([account].into()));
    assert_eq!(affected(&before, &other).clusters, [host("reviews")].into());
    let names = |model: &Model| {
        let all = generate::everything(model, &sidecar(model, "productpage", "v1"));
        all.into_iter().map(|resource| (resource.kind, resource.name, resource.version)).collect::<Vec<_>>()
    };
    let differing: Vec<_> = names(&other).into_iter().filter(|it| !names(&before).contains(it)).collect();
    assert_eq!(
        differing.iter().map(|(kind, name, _)| (*kind, name.as_str())).collect::<Vec<_>>(),
        [(Kind::Cluster, REVIEWS)]
    );
}
