//! Commands on objects, against the local platform's API.

use crate::api::Server;

fn line<'a>(text: &'a str, beginning: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("no line `{beginning}…` in\n{text}"))
}

#[test]
fn objects_are_created_replaced_applied_and_deleted_in_classic_words() {
    let server = Server::with_kinds();
    let home = &server.home;
    let created = home.run(&["create", "-f", "rules.yaml"]);
    assert_eq!(created.code, 0, "{created:?}");
    line(&created.stdout, "Created config route-rule/default/reviews-default at revision ");
    line(&created.stdout, "Created config route-rule/default/reviews-jason at revision ");
    assert!(created.stderr.contains("on context `mesh-test` of "), "{created:?}");

    let replaced = home.run(&["replace", "-f", "rules.yaml"]);
    assert_eq!(replaced.code, 0, "{replaced:?}");
    let text = std::fs::read_to_string(home.path().join("rules.yaml")).expect("read");
    std::fs::write(home.path().join("changed.yaml"), text.replace("precedence: 2", "precedence: 3")).expect("written");
    let applied = home.run(&["apply", "-f", "changed.yaml"]);
    assert_eq!(applied.code, 0, "{applied:?}");
    line(&applied.stdout, "Updated config route-rule/default/reviews-jason to revision ");

    let deleted = home.run(&["delete", "-f", "rules.yaml"]);
    assert_eq!(
        deleted.stdout,
        "Deleted config route-rule/default/reviews-default\nDeleted config route-rule/default/reviews-jason\n"
    );
    assert_eq!(home.run(&["get", "rr", "-o", "name"]).stdout, "");
}

#[test]
fn nothing_is_changed_when_anything_is_in_the_way() {
    let server = Server::with_kinds();
    let home = &server.home;
    let missing = home.run(&["replace", "-f", "rules.yaml"]);
    assert_eq!(missing.code, 1);
    for word in [
        "route-rule default/reviews-default is not there",
        "rules.yaml:1:1",
        "hint: use `meshctl apply`",
        "2 errors in 1 file",
    ] {
        assert!(missing.stderr.contains(word), "{word} is missing in\n{}", missing.stderr);
    }
    let jason = ["create", "route-rule", "reviews-jason", "--destination", "reviews", "--route", "version=v2"];
    assert_eq!(home.run(&jason).code, 0);
    let twice = home.run(&["create", "-f", "rules.yaml"]);
    assert_eq!(twice.code, 1);
    assert!(twice.stderr.contains("route-rule default/reviews-jason is there already"), "{}", twice.stderr);
    let invalid = home.run(&["apply", "-f", "rules.yaml", "-f", "bad.yaml"]);
    assert_eq!(invalid.code, 1);
    let gone = home.run(&["delete", "rr", "reviews-jason", "reviews-json"]);
    assert!(gone.stderr.contains("hint: did you mean `reviews-jason`?"), "{}", gone.stderr);
    let elsewhere = home.run(&["apply", "-f", "rules.yaml", "-n", "nowhere"]);
    assert_eq!(elsewhere.code, 1, "{elsewhere:?}");
    assert_eq!(home.run(&["get", "rr", "-o", "name"]).stdout, "route-rule/reviews-jason\n");
}

#[test]
fn what_get_prints_can_be_given_back() {
    let server = Server::with_kinds();
    let home = &server.home;
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    let yaml = home.run(&["get", "route-rule", "reviews-jason", "-o", "yaml"]).stdout;
    let replaced = home.run_with_input(&["replace", "-f", "-"], &yaml);
    assert_eq!(replaced.code, 0, "{replaced:?}\n{yaml}");
    let list: serde_json::Value = serde_json::from_str(&home.run(&["get", "rr", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["items"][0]["apiVersion"], "config.meshctl.io/v1alpha2");
    let names = home.run(&["get", "rr", "-o", "jsonpath={range .items[*]}{.metadata.name} {end}"]).stdout;
    assert_eq!(names, "reviews-default reviews-jason ");
}

#[test]
fn tables_show_what_matters() {
    let server = Server::with_kinds();
    let home = &server.home;
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    let table = home.run(&["get", "route-rules"]).stdout;
    assert!(table.starts_with("NAME              DESTINATION   PRECEDENCE   MATCH "), "{table}");
    assert!(line(&table, "reviews-jason").contains("cookie~"), "{table}");
    let all = home.run(&["get", "route-rules", "-A", "--no-headers"]).stdout;
    assert_eq!(all.lines().filter(|line| line.starts_with("default   ")).count(), 2, "{all}");
    let namespaces = home.run(&["get", "ns"]).stdout;
    assert!(namespaces.contains("default"), "{namespaces}");
    let none = home.run(&["get", "destination-policies"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.contains("no destinationpolicies found in namespace default"), "{none:?}");
}

#[test]
fn names_and_kinds_that_are_not_there_are_told_with_what_was_probably_meant() {
    let server = Server::with_kinds();
    let home = &server.home;
    assert_eq!(home.run(&["create", "-f", "rules.yaml"]).code, 0);
    let name = home.run(&["get", "rr", "reviews-jasson"]);
    assert_eq!(name.code, 1);
    assert!(name.stderr.contains("hint: did you mean `reviews-jason`?"), "{}", name.stderr);
    let kind = home.run(&["get", "route-rulse"]);
    assert_eq!(kind.code, 1);
    assert!(kind.stderr.contains("hint: did you mean `route-rules`?"), "{}", kind.stderr);
    let json = home.run(&["get", "rr", "reviews-jasson", "-o", "json"]);
    assert_eq!((json.code, json.stderr.as_str()), (1, ""));
    let error: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(error["error"]["exitCode"], 1);
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = Server::with_kinds();
    let home = &server.home;
    for dry_run in ["--dry-run", "--dry-run=client", "--dry-run=server"] {
        let ran = home.run(&["create", "-f", "rules.yaml", dry_run]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("dry run"), "{ran:?}");
    }
    assert_eq!(home.run(&["get", "rr", "-o", "name"]).stdout, "");
}

#[test]
fn without_a_control_plane_it_is_said_how_to_get_one() {
    let server = Server::start();
    let ran = server.home.run(&["proxy-status"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("no control plane in context"), "{ran:?}");
    let rules = server.home.run(&["get", "route-rules"]);
    assert_eq!(rules.code, 1, "{rules:?}");
    assert!(rules.stderr.contains("meshctl install"), "{rules:?}");
}

#[test]
fn diff_shows_what_apply_would_change_and_changes_nothing() {
    let server = Server::with_kinds();
    let home = &server.home;
    let new = home.run(&["diff", "-f", "rules.yaml"]);
    assert_eq!(new.code, 1, "{new:?}");
    line(&new.stdout, "+++ files: route-rule default/reviews-jason");
    assert_eq!(home.run(&["get", "rr", "-o", "name"]).stdout, "", "nothing was written");
    assert_eq!(home.run(&["apply", "-f", "rules.yaml"]).code, 0);
    let same = home.run(&["diff", "-f", "rules.yaml"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{same:?}");
    assert!(same.stderr.contains("0 of 2 objects would change"), "{}", same.stderr);
    let text = std::fs::read_to_string(home.path().join("rules.yaml")).expect("read");
    std::fs::write(home.path().join("changed.yaml"), text.replace("precedence: 2", "precedence: 3")).expect("written");
    let changed = home.run(&["diff", "-f", "changed.yaml"]);
    assert_eq!(changed.code, 1, "{changed:?}");
    line(&changed.stdout, "-  precedence: 2");
    line(&changed.stdout, "+  precedence: 3");
    let json = home.run(&["diff", "-f", "changed.yaml", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((json.code, &answer["different"]), (1, &serde_json::Value::Bool(true)));
    let changes: Vec<_> = answer["objects"].as_array().into_iter().flatten().map(|o| o["change"].clone()).collect();
    assert_eq!(changes, ["none", "updated"]);
}
