//! The classic files about who may call what, as they are.

use api::object::{self, ParsedObject};
use api::problem::Problem;

fn read(file: &str) -> (Vec<ParsedObject>, Vec<Problem>) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/access").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    object::validate_text(file, &text)
}

#[test]
fn the_classic_files_are_accepted_as_they_are() {
    for (file, count) in [
        ("istio-rbac-enable.yaml", 3),
        ("istio-rbac-namespace.yaml", 2),
        ("istio-rbac-productpage.yaml", 2),
        ("istio-rbac-details-reviews.yaml", 2),
        ("istio-rbac-ratings.yaml", 2),
        ("mixer-rule-deny-serviceaccount.yaml", 3),
        ("mixer-rule-deny-serviceaccount-0.2.12.yaml", 3),
    ] {
        let (objects, problems) = read(file);
        assert_eq!((objects.len(), problems), (count, vec![]), "{file}");
        for parsed in objects {
            let text = api::yaml::render(&parsed.json);
            let (again, problems) = object::validate_text("again.yaml", &text);
            assert_eq!(problems, [], "{file}: {text}");
            assert_eq!(again[0].json, parsed.json, "{file}: {text}");
        }
    }
}

#[test]
fn what_classic_files_say_of_the_mesh_is_kept_where_the_mesh_is() {
    let (objects, _) = read("istio-rbac-enable.yaml");
    let places: Vec<_> = objects.iter().map(|it| (it.ours.map(|kind| kind.kind), it.title())).collect();
    assert_eq!(
        places,
        [
            (Some("Authorization"), "authorization mesh-system/requestcontext".to_owned()),
            (Some("Rbac"), "rbac mesh-system/handler".to_owned()),
            (Some("Rule"), "rule mesh-system/rbaccheck".to_owned()),
        ]
    );
    assert!(objects.iter().all(|it| it.json["metadata"]["namespace"] == "mesh-system"));
    // The ingress gateway stands in the system namespace, by either of its names.
    let (objects, _) = read("istio-rbac-namespace.yaml");
    assert_eq!(objects[1].json["spec"]["subjects"][1]["properties"]["namespace"], "mesh-system");
    let ours = "apiVersion: config.meshctl.io/v1alpha2\nkind: Rule\nmetadata: {name: a, namespace: istio-system}\n\
        spec: {actions: [{handler: a.denier, instances: [a.checknothing]}]}\n";
    let (objects, _) = object::validate_text("x.yaml", ours);
    assert_eq!(objects[0].namespace.as_deref(), Some("istio-system"), "our own group means what it says");
}

#[test]
fn what_of_the_other_files_waits_is_said_by_its_own_words() {
    let said = |file: &str| -> Vec<String> {
        let (_, problems) = read(file);
        problems.iter().filter(|problem| problem.is_error()).map(ToString::to_string).collect()
    };
    assert_eq!(
        said("mixer-rule-deny-label.yaml"),
        ["mixer-rule-deny-label.yaml:21:10: `source.labels[\"app\"]` cannot be proved by the caller, whose certificate \
          names its account, so asking for it is understood but not in force yet"]
            .map(str::to_owned)
            .into_iter()
            .chain(["mixer-rule-deny-label.yaml:21:10: `source.labels[\"version\"]` cannot be proved by the caller, \
                     whose certificate names its account, so asking for it is understood but not in force yet"
                .to_owned()])
            .collect::<Vec<_>>()
    );
    assert_eq!(
        said("rbac.yaml"),
        [
            "rbac.yaml:8:11: `user` from anything else, here `request.auth.principal | \"\"`, is understood but not in force yet",
            "rbac.yaml:9:13: `groups` from anything else, here `request.auth.principal | \"\"`, is understood but not in force yet",
            "rbac.yaml:19:16: `version` from anything else, here `request.headers[\"version\"] | \"\"`, is understood but not in force yet",
        ]
    );
}

#[test]
fn a_wrong_part_of_a_rule_is_refused_where_it_stands() {
    let rule =
        |spec: &str| format!("apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {{name: r}}\nspec: {spec}\n");
    let action = "{handler: h.denier, instances: [i.checknothing]}";
    for (kind, spec, expected) in [
        ("rule", "{actions: []}", "a rule without actions does nothing"),
        ("rule", "{match: 'true'}", "`actions` is missing"),
        ("rule", "{actions: [{handler: h.denier, instances: []}]}", "a handler that is asked nothing"),
        ("rule", "{actions: [{handler: h, instances: [i.checknothing]}]}", "`h` names nothing"),
        (
            "rule",
            "{actions: [{handler: h.memquota, instances: [i.quota]}]}",
            "the adapter `memquota` here is understood",
        ),
        ("rule", "{actions: [{handler: h.deneir, instances: [i.checknothing]}]}", "there is no adapter `deneir`"),
        ("rule", "{actions: [{handler: h.denier, instances: [i.quota]}]}", "the template `quota` here is understood"),
        ("rule", "{actions: [{handler: h.denier, instances: [i.authorization]}]}", "the template `authorization` here"),
        ("rule", "{actions: [{handler: h.denier, instances: [i.chcknothing]}]}", "there is no template `chcknothing`"),
        ("rule", "{actions: [{handler: h.denier, instances: [i.checknothing, i.checknothing]}]}", "a second time"),
        ("rule", &format!("{{match: 'source.ip == ip(\"1.2.3.4\")', actions: [{action}]}}"), "`source.ip == ip("),
        ("rule", &format!("{{match: 'request.path == \"a\"', actions: [{action}]}}"), "no path begins with `a`"),
        (
            "rule",
            &format!("{{match: 'source.namespace == \"istio-system\"', actions: [{action}]}}"),
            "is called `mesh-system`",
        ),
        ("rule", &format!("{{actions: [{action}], x: 1}}"), "unknown field `x`"),
        (
            "rule",
            "{match: 'source.namespace == \"a\"', actions: [{handler: h.rbac, instances: [i.authorization]}]}",
            "asking roles about some requests to a workload only, here `source.namespace == \"a\"`, is understood",
        ),
        ("rbac", "{config_store_url: 'fs:///etc'}", "roles are not read from `fs:///etc`"),
        ("rbac", "{cacheDuration: 10s}", "`cacheDuration` is understood but not in force yet"),
        ("denier", "{}", "`status` is missing"),
        ("denier", "{status: {code: 9}}", "another code than 7, here 9, is understood but not in force yet"),
        ("denier", "{status: {code: 7, message: \"a\\nb\"}}", "longer than 200 bytes, or has line breaks"),
        ("checknothing", "{x: 1}", "unknown field `x`"),
        ("authorization", "{subject: {user: source.user}}", "`action` is missing"),
    ] {
        let (objects, problems) =
            object::validate_text("x.yaml", &rule(spec).replace("kind: rule", &format!("kind: {kind}")));
        assert!(problems.iter().any(|problem| problem.message.contains(expected)), "{kind} {spec}: {problems:?}");
        assert!(!objects[0].is_accepted, "{kind} {spec}");
    }
}

#[test]
fn cve_2022_24726_what_is_nested_without_end_is_refused_as_text_and_as_json() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{a: ", "}")] {
        let text = format!(
            "apiVersion: config.meshctl.io/v1alpha2\nkind: Rule\nmetadata: {{name: a}}\nspec: {}\n",
            deep(open, close)
        );
        let (objects, problems) = object::validate_text("deep.yaml", &text);
        assert!(objects.is_empty() && problems.iter().any(Problem::is_error), "{open}: {problems:?}");
        // The webhooks read JSON, whose reader has a bound of its own.
        assert!(serde_json::from_str::<serde_json::Value>(&deep(open, close)).is_err(), "{open}");
    }
    let pattern = deep("(", ")");
    let rule = format!(
        "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata: {{name: a}}\nspec:\n  destination: {{name: a}}\n  \
         match: {{request: {{headers: {{uri: {{regex: '{pattern}'}}}}}}}}\n"
    );
    let (_, problems) = object::validate_text("regex.yaml", &rule);
    assert!(problems.iter().any(|problem| problem.message.contains("regular expression")), "{:?}", problems.len());
}
