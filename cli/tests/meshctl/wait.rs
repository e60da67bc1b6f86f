//! `wait` and `describe`, against the local platform's API without a Pilot.

use crate::api::Server;

#[test]
fn what_is_so_already_is_not_waited_for() {
    let server = Server::with_kinds();
    let home = &server.home;
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    for (what, said) in [
        ("jsonpath={.spec.precedence}=2", "route-rule/reviews-jason condition met\n"),
        ("jsonpath={.spec.destination}", "route-rule/reviews-jason condition met\n"),
        ("create", "route-rule/reviews-jason created\n"),
    ] {
        let ran = home.run(&["wait", "rr/reviews-jason", "--for", what]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, said), "{ran:?}");
    }
    let gone = home.run(&["wait", "rr", "never-there", "--for=delete", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&gone.stdout).expect("JSON");
    assert_eq!((gone.code, &answer["objects"][0]["reached"]), (0, &"deleted".into()));
}

#[test]
fn a_change_ends_the_wait() {
    let server = Server::with_kinds();
    let home = &server.home;
    let coming = home.command(&["wait", "rr/reviews-jason", "--for=create"]).spawn().expect("it starts");
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(ended(coming), (Some(0), "route-rule/reviews-jason created\n".to_owned()));
    let going = home.command(&["wait", "-f", "rules.yaml", "--for=delete"]).spawn().expect("it starts");
    assert_eq!(home.run(&["delete", "-f", "rules.yaml"]).code, 0);
    let expected = "route-rule/reviews-default deleted\nroute-rule/reviews-jason deleted\n";
    assert_eq!(ended(going), (Some(0), expected.to_owned()));
}

#[test]
fn a_wait_that_is_over_says_how_things_are() {
    let server = Server::with_kinds();
    let home = &server.home;
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    for (what, said) in [
        ("jsonpath={.spec.precedence}=9", "route-rule default/reviews-jason after 300 ms: {.spec.precedence} is 2"),
        ("condition=Ready", "it has no condition Ready"),
        ("delete", "it is there"),
    ] {
        let ran = home.run(&["wait", "rr/reviews-jason", "--timeout", "300ms", "--for", what]);
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
    for (arguments, code, said) in [
        (&["rr/reviews-jasson", "--for=condition=A"][..], 1, "did you mean `reviews-jason`?"),
        (&["rr/reviews-jason"], 3, "no control plane"),
        (&["ns/default"], 2, "what to wait for of namespace default is missing"),
        (&["ns/default", "--for=applied"], 2, "proxies do not apply namespace default"),
        (&["rr/reviews-jason", "--for=ready"], 2, "it can be applied, create, delete"),
        (&[], 2, "what to wait for is missing"),
    ] {
        let ran = home.run(&[&["wait"], arguments].concat());
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(said), "{arguments:?}: {ran:?}");
    }
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}, {name: x, port: 9081}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: everything}
spec: {destination: {name: reviews}, precedence: 9, route: [{labels: {version: v9}}]}
";

#[test]
fn a_service_is_described_with_its_rules_in_order_and_its_problems() {
    let server = Server::with_kinds();
    let home = &server.home;
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    assert_eq!(home.run_with_input(&["create", "-f", "-"], SERVICE).code, 0);
    let ran = home.run(&["describe", "service", "reviews"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let place = |text: &str| ran.stdout.find(text).unwrap_or_else(|| panic!("`{text}` is missing in\n{}", ran.stdout));
    assert!(place("route-rule/everything") < place("route-rule/reviews-jason"), "{}", ran.stdout);
    assert!(place("route-rule/reviews-jason") < place("route-rule/reviews-default"), "{}", ran.stdout);
    for said in [
        "reviews.default.svc.cluster.local",
        "no pod that is ready serves reviews.default.svc.cluster.local",
        "port 9081 does not say what is spoken there",
        "route-rule/reviews-default is never asked: route-rule/everything comes first and takes everything",
        "route-rule/everything sends 100% of its requests to pods of reviews.default.svc.cluster.local with version=v9",
        "what proxies have applied is not known: no control plane",
    ] {
        place(said);
    }
    let json = home.run(&["describe", "svc/reviews", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["ports"][0],
        serde_json::json!({"port": "9080", "name": "http", "protocol": "HTTP", "endpoints": "0", "mutualTls": "PERMISSIVE"})
    );
    let rule = home.run(&["describe", "rr", "reviews-default"]);
    assert!(rule.code == 0 && rule.stdout.contains("this one"), "{rule:?}");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2}\n";
    assert_eq!(home.run_with_input(&["create", "-f", "-"], secret).code, 0);
    let secret = home.run(&["describe", "secret", "s"]);
    assert!(secret.code == 0 && !secret.stdout.contains("aHVudGVyMg"), "{secret:?}");
    let missing = home.run(&["describe", "svc", "reveiws"]);
    assert!(missing.code == 1 && missing.stderr.contains("did you mean `reviews`?"), "{missing:?}");
}
