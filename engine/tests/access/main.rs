//! Who is let in at bookinfo's services: from objects as users write them to verdicts, through everything between.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod authentication;
mod classic;
mod generated;
#[path = "../support/issuer.rs"]
mod issuer;
#[path = "../support/mod.rs"]
mod support;

use std::net::IpAddr;
use std::sync::Arc;

use api::model::{Host, Model, MtlsMode, Node, Role};
use api::spiffe::SpiffeId;
use engine::access::admit;
use engine::compile::Compiler;
use engine::decide::{Outcome, decide};
use engine::generate;
use engine::path::{canonical_authority, canonical_path};
use engine::request::{Caller, Connection, Simple};
use engine::tables::{Filter, Http, Tables};
use engine::token::{Verified, authenticate, verify};
use engine::trace::{NoTrace, Recording, Step};
use issuer::{Key, provider};
use serde_json::{Value, json};
use support::*;

/// The tables of a sidecar.
fn tables(model: &Model, node: &Node) -> Tables {
    compiled(model, node).tables()
}

/// How HTTP is served at the port of a workload.
fn http_of(tables: &Tables) -> Arc<Http> {
    let listener = tables.listener("virtual_inbound").unwrap();
    match &listener.chain(9080, Some("http/1.1")).unwrap().filter {
        Filter::Http(http) => Arc::clone(http),
        Filter::Tcp(_) => panic!("the port is opaque"),
    }
}

fn id(namespace: &str, account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().unwrap()
}

/// Whether a request is let in at a service, and by which policy.
fn allowed(model: &Model, service: &str, request: &Simple) -> Option<String> {
    let tables = tables(model, &sidecar(model, service, "v1"));
    let http = http_of(&tables);
    let decision = decide(&tables, &http, request, &mut dice(1), &mut NoTrace);
    match decision.outcome {
        Outcome::Denied(_) => None,
        _ => Some(decision.admission.allowed_by.unwrap_or("open").to_owned()),
    }
}

fn is_allowed(model: &Model, service: &str, request: &Simple) -> bool {
    allowed(model, service, request).is_some()
}

const ON: &str = "
apiVersion: config.meshctl.io/v1alpha2
kind: RbacConfig
metadata: {name: default, namespace: mesh-system}
spec: {mode: 'ON'}
";

/// A role for anybody with these rules.
fn role(rules: &str) -> String {
    format!(
        "{ON}---
apiVersion: config.meshctl.io/v1alpha2
kind: ServiceRole
metadata: {{name: role, namespace: default}}
spec: {{rules: {rules}}}
---
apiVersion: config.meshctl.io/v1alpha2
kind: ServiceRoleBinding
metadata: {{name: bind, namespace: default}}
spec: {{subjects: [{{user: '*'}}], roleRef: {{kind: ServiceRole, name: role}}}}
"
    )
}

/// A role for everything at reviews, for this subject.
fn binding(subject: &str) -> String {
    role("[{services: [reviews]}]").replace("{user: '*'}", subject)
}

#[test]
fn without_a_config_everybody_may_call_everything() {
    let model = model_with(&role("[{services: [ratings]}]").replace("mode: 'ON'", "mode: 'OFF'"));
    assert_eq!(allowed(&model, "reviews", &Simple::get("reviews:9080", "/")).as_deref(), Some("open"));
    assert!(is_allowed(&bookinfo(), "reviews", &Simple::get("reviews:9080", "/")));
}

#[test]
fn the_classic_tasks_give_what_they_describe() {
    let page = id("default", "bookinfo-productpage");
    let reviews = id("default", "bookinfo-reviews");
    let gateway = id("mesh-system", "mesh-ingressgateway");
    let stranger = id("other", "somebody");
    let get = || Simple::get("x:9080", "/x");
    // Nobody has a role: nothing may be called.
    let none = model_with(&samples(&["bookinfo/rbac-enable.yaml"]));
    for service in ["productpage", "details", "reviews", "ratings"] {
        assert!(!is_allowed(&none, service, &get().from_workload(&page)), "{service}");
    }
    // By namespace.
    let by_namespace = model_with(&samples(&["bookinfo/rbac-enable.yaml", "bookinfo/rbac-namespace.yaml"]));
    for service in ["productpage", "details", "reviews", "ratings"] {
        for (caller, expected) in [(&page, true), (&gateway, true), (&stranger, false)] {
            assert_eq!(
                is_allowed(&by_namespace, service, &get().from_workload(caller)),
                expected,
                "{service} {caller}"
            );
        }
        assert!(!is_allowed(&by_namespace, service, &get()), "nobody has no namespace");
        assert!(!is_allowed(&by_namespace, service, &get().from_workload(&page).with_method("POST")), "{service}");
    }
    // One service after the other.
    let mut files = vec!["bookinfo/rbac-enable.yaml", "bookinfo/rbac-productpage.yaml"];
    let mut expected = [("productpage", &gateway, true), ("details", &page, false), ("ratings", &reviews, false)];
    for more in ["", "bookinfo/rbac-details-reviews.yaml", "bookinfo/rbac-ratings.yaml"] {
        if !more.is_empty() {
            files.push(more);
        }
        expected[1].2 |= more.contains("details");
        expected[2].2 |= more.contains("ratings");
        let model = model_with(&samples(&files));
        for (service, caller, expected) in expected {
            assert_eq!(is_allowed(&model, service, &get().from_workload(caller)), expected, "{service} with {files:?}");
        }
        assert!(!is_allowed(&model, "ratings", &get().from_workload(&page)), "only reviews reads ratings");
    }
    let model = model_with(&samples(&files));
    assert_eq!(
        allowed(&model, "ratings", &get().from_workload(&reviews)).as_deref(),
        Some("service-role-binding/default/bind-ratings/service-role/ratings-viewer/rules[0]")
    );
    assert!(is_allowed(&model, "productpage", &get()), "`*` is anybody, known or not");
}

#[test]
fn services_paths_and_methods_are_compared_as_written() {
    for (rules, service, method, path, expected) in [
        ("[{services: ['*']}]", "reviews", "GET", "/x", true),
        ("[{services: [reviews]}]", "reviews", "GET", "/x", true),
        ("[{services: [reviews.default]}]", "reviews", "GET", "/x", true),
        ("[{services: [reviews.default.svc.cluster.local]}]", "reviews", "GET", "/x", true),
        ("[{services: ['REVIEWS']}]", "reviews", "GET", "/x", true),
        ("[{services: ['rev*']}]", "reviews", "GET", "/x", true),
        ("[{services: ['*.svc.cluster.local']}]", "reviews", "GET", "/x", true),
        ("[{services: ['*views']}]", "reviews", "GET", "/x", true),
        // The classic bug: a text without a star is no prefix and no suffix.
        ("[{services: [rev]}]", "reviews", "GET", "/x", false),
        ("[{services: [views]}]", "reviews", "GET", "/x", false),
        ("[{services: [reviews.other]}]", "reviews", "GET", "/x", false),
        ("[{services: [ratings]}]", "reviews", "GET", "/x", false),
        ("[{services: ['*'], paths: [/books]}]", "reviews", "GET", "/books", true),
        ("[{services: ['*'], paths: [/books]}]", "reviews", "GET", "/books2", false),
        ("[{services: ['*'], paths: [/books]}]", "reviews", "GET", "/x/books", false),
        ("[{services: ['*'], paths: ['/books*']}]", "reviews", "GET", "/books2", true),
        ("[{services: ['*'], paths: ['*/review']}]", "reviews", "GET", "/a/b/review", true),
        ("[{services: ['*'], paths: ['*/review']}]", "reviews", "GET", "/a/b/reviews", false),
        ("[{services: ['*'], paths: [/a, /b]}]", "reviews", "GET", "/b", true),
        ("[{services: ['*'], paths: ['*', /b]}]", "reviews", "GET", "/c", true),
        ("[{services: ['*'], methods: [GET, HEAD]}]", "reviews", "HEAD", "/x", true),
        ("[{services: ['*'], methods: [GET, HEAD]}]", "reviews", "POST", "/x", false),
        ("[{services: ['*'], methods: ['*']}]", "reviews", "DELETE", "/x", true),
        ("[{services: ['*'], methods: [GET]}]", "reviews", "get", "/x", false),
        ("[{services: [ratings]}, {services: [reviews], paths: [/r]}]", "reviews", "GET", "/r", true),
        // Constraints on what is called.
        (
            "[{services: ['*'], constraints: [{key: 'destination.labels[version]', values: [v1, v2]}]}]",
            "reviews",
            "GET",
            "/",
            true,
        ),
        ("[{services: ['*'], constraints: [{key: version, values: [v2]}]}]", "reviews", "GET", "/", false),
        (
            "[{services: ['*'], constraints: [{key: destination.labels/app, values: ['rev*']}]}]",
            "reviews",
            "GET",
            "/",
            true,
        ),
        (
            "[{services: ['*'], constraints: [{key: 'destination.labels[none]', values: ['*']}]}]",
            "reviews",
            "GET",
            "/",
            false,
        ),
        (
            "[{services: ['*'], constraints: [{key: app, values: [reviews]}, {key: version, values: [v9]}]}]",
            "reviews",
            "GET",
            "/",
            false,
        ),
        ("[{services: ['*'], constraints: [{key: destination.port, values: ['9080']}]}]", "reviews", "GET", "/", true),
        ("[{services: ['*'], constraints: [{key: destination.port, values: ['80']}]}]", "reviews", "GET", "/", false),
        (
            "[{services: ['*'], constraints: [{key: destination.ip, values: [10.244.0.0/16]}]}]",
            "reviews",
            "GET",
            "/",
            true,
        ),
        (
            "[{services: ['*'], constraints: [{key: destination.user, values: ['*/sa/bookinfo-reviews']}]}]",
            "reviews",
            "GET",
            "/",
            true,
        ),
    ] {
        let model = model_with(&role(rules));
        let request = Simple::get("x:9080", path).with_method(method);
        assert_eq!(is_allowed(&model, service, &request), expected, "{rules} {method} {path}");
    }
}

#[test]
fn subjects_are_those_whose_every_test_holds() {
    let page = id("default", "bookinfo-productpage");
    let prod = id("prod-eu", "web");
    let other_domain: SpiffeId = "spiffe://evil.test/ns/default/sa/bookinfo-productpage".parse().unwrap();
    for (subject, caller, expected) in [
        ("{user: cluster.local/ns/default/sa/bookinfo-productpage}", Some(&page), true),
        ("{user: 'spiffe://cluster.local/ns/default/sa/bookinfo-productpage'}", Some(&page), true),
        ("{user: cluster.local/ns/default/sa/bookinfo-productpage}", Some(&other_domain), false),
        ("{user: cluster.local/ns/default/sa/bookinfo-productpage}", None, false),
        ("{user: cluster.local/ns/default/sa/bookinfo}", Some(&page), false),
        ("{user: 'cluster.local/ns/default/*'}", Some(&page), true),
        ("{user: '*/sa/bookinfo-productpage'}", Some(&page), true),
        ("{properties: {source.namespace: default}}", Some(&page), true),
        ("{properties: {source.namespace: defaul}}", Some(&page), false),
        ("{properties: {source.namespace: default}}", Some(&other_domain), false),
        ("{properties: {source.namespace: 'prod-*'}}", Some(&prod), true),
        ("{properties: {source.namespace: '*-eu'}}", Some(&prod), true),
        ("{properties: {source.namespace: '*-e'}}", Some(&prod), false),
        ("{properties: {source.namespace: '*'}}", Some(&prod), true),
        ("{properties: {source.namespace: '*'}}", None, false),
        ("{properties: {source.service: productpage}}", Some(&page), true),
        ("{properties: {source.service: productpage.default.svc.cluster.local}}", Some(&page), true),
        ("{properties: {source.service: ratings}}", Some(&page), false),
        ("{properties: {source.service: nothing}}", Some(&page), false),
        ("{properties: {service: productpage, namespace: default}}", Some(&page), true),
        ("{properties: {service: productpage, namespace: abc}}", Some(&page), false),
        (
            "{user: cluster.local/ns/default/sa/bookinfo-productpage, properties: {source.namespace: abc}}",
            Some(&page),
            false,
        ),
        ("{properties: {source.ip: 10.1.0.0/16}}", None, true),
        ("{properties: {source.ip: 10.2.0.0/16}}", None, false),
    ] {
        let model = model_with(&binding(subject));
        let mut request = Simple::get("x:9080", "/");
        request.address = Some("::ffff:10.1.2.3".parse::<IpAddr>().unwrap());
        if let Some(caller) = caller {
            request = request.from_workload(caller);
        }
        assert_eq!(is_allowed(&model, "reviews", &request), expected, "{subject} {caller:?}");
    }
}

#[test]
fn end_users_are_known_by_verified_claims_alone() {
    let claims = json!({ "iss": "https://issuer.test", "sub": "jason", "aud": ["x", "y"], "azp": "app",
        "groups": ["readers", "writers"], "realm": { "roles": ["admin"] }, "level": 3, "group": "solo" });
    let verified = token_with(&claims);
    for (subject, expected) in [
        ("{properties: {request.auth.principal: 'https://issuer.test/jason'}}", true),
        ("{user: 'https://issuer.test/jason'}", true),
        ("{properties: {request.auth.principal: 'https://issuer.test/*'}}", true),
        ("{properties: {request.auth.principal: 'https://issuer.*'}}", true),
        ("{properties: {request.auth.principal: '*/jason'}}", true),
        ("{properties: {request.auth.principal: '*'}}", true),
        ("{properties: {request.auth.principal: 'https://issuer.test/jaso'}}", false),
        ("{properties: {request.auth.principal: 'https://other.test/*'}}", false),
        ("{properties: {request.auth.audiences: y}}", true),
        ("{properties: {request.auth.presenter: app}}", true),
        ("{properties: {'request.auth.claims[groups]': readers}}", true),
        ("{properties: {'request.auth.claims[groups]': read}}", false),
        ("{properties: {'request.auth.claims[realm][roles]': admin}}", true),
        ("{properties: {'request.auth.claims[group]': solo}}", true),
        ("{properties: {'request.auth.claims[none]': '*'}}", false),
        ("{properties: {'request.auth.claims[level]': '3'}}", false),
        ("{group: writers}", true),
        ("{group: '*'}", true),
        ("{group: admins}", false),
        ("{group: readers, properties: {request.auth.presenter: other}}", false),
        // An end user is no workload, whatever a token says.
        ("{user: cluster.local/ns/default/sa/bookinfo-productpage}", false),
    ] {
        let model = model_with(&binding(subject));
        let mut request = Simple::get("x:9080", "/");
        assert!(!is_allowed(&model, "reviews", &request), "{subject} without a token");
        request.tokens.push(verified.clone());
        assert_eq!(is_allowed(&model, "reviews", &request), expected, "{subject}");
        // Two tokens: what is said of the end user must be so by both.
        request.tokens.push(token_with(&json!({ "iss": "https://b.test", "sub": "b" })));
        assert!(!is_allowed(&model, "reviews", &request) || subject.contains("'*'"), "{subject} with two tokens");
    }
    let posing = json!({ "iss": "cluster.local/ns/default/sa", "sub": "bookinfo-productpage" });
    let model = model_with(&binding("{user: cluster.local/ns/default/sa/bookinfo-productpage}"));
    let mut request = Simple::get("x:9080", "/");
    request.tokens.push(token_with(&posing));
    assert!(!is_allowed(&model, "reviews", &request));
}

/// Claims as if a token with them had been verified.
fn token_with(claims: &Value) -> Verified {
    let key = Key::of("EdDSA");
    let mut claims = claims.clone();
    claims["exp"] = json!(2000);
    let mut provider = provider(&key.set(), &[]);
    provider.issuer = claims["iss"].as_str().unwrap().into();
    let token = key.token("EdDSA", &claims);
    Verified { key: "payload".into(), claims: verify(&provider, &token, 1500).unwrap().into() }
}

#[test]
fn modes_say_where_roles_are_in_force() {
    let config = |spec: &str| ON.replace("{mode: 'ON'}", spec);
    let host = "reviews.default.svc.cluster.local";
    for (spec, reviews, ratings) in [
        ("{mode: 'OFF'}".to_owned(), true, true),
        ("{mode: ON}".to_owned(), false, false),
        (format!("{{mode: ON_WITH_INCLUSION, inclusion: {{services: [{host}]}}}}"), false, true),
        ("{mode: ON_WITH_INCLUSION, inclusion: {services: [reviews.default]}}".to_owned(), false, true),
        ("{mode: ON_WITH_INCLUSION, inclusion: {namespaces: [default]}}".to_owned(), false, false),
        ("{mode: ON_WITH_INCLUSION, inclusion: {namespaces: [other]}}".to_owned(), true, true),
        (format!("{{mode: ON_WITH_EXCLUSION, exclusion: {{services: [{host}]}}}}"), true, false),
        ("{mode: ON_WITH_EXCLUSION, exclusion: {namespaces: [default]}}".to_owned(), true, true),
        ("{mode: ON, enforcementMode: PERMISSIVE}".to_owned(), true, true),
    ] {
        let model = model_with(&config(&spec));
        let get = Simple::get("x:9080", "/");
        assert_eq!(
            (is_allowed(&model, "reviews", &get), is_allowed(&model, "ratings", &get)),
            (reviews, ratings),
            "{spec}"
        );
    }
}

#[test]
fn a_dry_run_lets_in_and_says_what_it_would_not() {
    let config = role("[{services: [ratings]}]").replace("{mode: 'ON'}", "{mode: ON, enforcementMode: PERMISSIVE}");
    let on_trial = model_with(&config);
    let verdict = |model: &Model, service: &str| {
        let tables = tables(model, &sidecar(model, service, "v1"));
        let http = http_of(&tables);
        let admission = admit(&http.access.rbac, &Simple::get("x", "/"), &mut NoTrace);
        (admission.denied.map(|denied| denied.to_string()), admission.would_deny.map(|denied| denied.to_string()))
    };
    let refused = Some("rbac-config/mesh-system/default[none]".to_owned());
    assert_eq!(verdict(&on_trial, "reviews"), (None, refused.clone()));
    assert_eq!(verdict(&on_trial, "ratings"), (None, None));
    // A single binding on trial: it lets nobody in yet, but says whom it would.
    let binding = role("[{services: [reviews]}]").replace("roleRef:", "mode: PERMISSIVE, roleRef:");
    assert_eq!(verdict(&model_with(&binding), "reviews"), (refused, None));
}

#[test]
fn connections_are_let_in_by_who_makes_them_and_by_nothing_that_they_lack() {
    let page = id("default", "bookinfo-productpage");
    for (subject, rules, expected) in [
        ("{user: '*'}", "[{services: [reviews]}]", true),
        ("{user: cluster.local/ns/default/sa/bookinfo-productpage}", "[{services: [reviews], methods: ['*']}]", true),
        ("{user: cluster.local/ns/default/sa/other}", "[{services: [reviews]}]", false),
        // A rule about requests lets no connection in.
        ("{user: '*'}", "[{services: [reviews], methods: [GET]}]", false),
        ("{user: '*'}", "[{services: [reviews], paths: [/x]}]", false),
        ("{group: readers}", "[{services: [reviews]}]", false),
        ("{properties: {'request.headers[x]': '*'}}", "[{services: [reviews]}]", false),
    ] {
        let mut model = model_with(&role(rules).replace("{user: '*'}", subject));
        let service = model.services.get(&host("reviews")).unwrap();
        let mut opaque = (**service).clone();
        opaque.ports[0].protocol = api::model::Protocol::Tcp;
        model.services.insert(host("reviews"), Arc::new(opaque));
        let tables = tables(&model, &sidecar(&model, "reviews", "v1"));
        let listener = tables.listener("virtual_inbound").unwrap();
        let Filter::Tcp(tcp) = &listener.chain(9080, None).unwrap().filter else { panic!("HTTP") };
        let caller = Caller { identity: Some(&page), ..Caller::default() };
        let admission = admit(&tcp.rbac, &Connection(caller), &mut NoTrace);
        assert_eq!(admission.denied.is_none(), expected, "{subject} {rules}");
        // Ports that no service declares are no way around.
        let Filter::Tcp(passed) = &listener.chain(12345, None).unwrap().filter else { panic!("HTTP") };
        assert!(admit(&passed.rbac, &Connection(caller), &mut NoTrace).denied.is_some(), "{subject} {rules}");
    }
}

#[test]
fn a_trace_says_which_policy_decided_and_what_the_others_want() {
    let model = model_with(&role(
        "[{services: [reviews], paths: [/a], methods: [GET]}, {services: [reviews], paths: ['/b*']}]",
    ));
    let tables = tables(&model, &sidecar(&model, "reviews", "v1"));
    let mut trace = Recording::default();
    let http = http_of(&tables);
    let decision = decide(&tables, &http, &Simple::get("x", "/bc"), &mut dice(1), &mut trace);
    let policy = |nth: usize| format!("service-role-binding/default/bind/service-role/role/rules[{nth}]");
    assert_eq!(decision.admission.allowed_by, Some(policy(1).as_str()));
    let Step::Policy { policy: first, wants, .. } = &trace.steps[0] else { panic!("{:#?}", trace.steps) };
    assert_eq!((first, wants.as_deref()), (&policy(0), Some("path exact `/a` and :method exact `GET`")));
    assert!(matches!(&trace.steps[2], Step::Admission { allowed: true, policy: Some(by), .. } if *by == policy(1)));
}
