use serde_json::json;

use super::{validate_object, validate_text};

/// What the CLI prints for a text.
fn report(text: &str) -> Vec<String> {
    let (_, problems) = validate_text("f.yaml", text);
    problems
        .iter()
        .map(|problem| match &problem.hint {
            Some(hint) => format!("{problem} | {hint}"),
            None => problem.to_string(),
        })
        .collect()
}

fn rule(spec: &str) -> String {
    format!("apiVersion: config.meshctl.io/v1alpha2\nkind: RouteRule\nmetadata: {{name: r}}\nspec:\n{spec}")
}

#[test]
fn ten_problems_in_one_file_are_ten_problems() {
    let text = "\
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: Reviews
spec:
  destination:
    name: reviews
    lables: {}
  precedence: high
  match:
    request:
      headers:
        Cookie: {exact: a}
        uri: {regex: \"(\"}
  route:
  - labels: {version: v1}
    weight: 60
  - labels: {version: v2}
    weight: 30
  httpReqTimeout: {simpleTimeout: {timeout: 1}}
  httpFault:
    delay: {percent: 200, fixedDelay: 7x}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRul
metadata: {name: x}
---
kind: RouteRule
---
a: [
";
    assert_eq!(
        report(text),
        [
            "f.yaml:4:9: `name` is `Reviews`, which cannot be the name of an object | names have lower-case letters, digits, dashes and dots",
            "f.yaml:8:5: unknown field `lables` in `spec.destination` | did you mean `labels`?",
            "f.yaml:9:15: `precedence` must be a whole number, not the text `high`",
            "f.yaml:13:9: the header's name `Cookie` is not in lower case | write `cookie`",
            "f.yaml:14:22: `(` is not a regular expression: unclosed group | the syntax is that of RE2, and the whole value must match",
            "f.yaml:15:3: the weights of route `Reviews` add up to 90, not 100 | add a destination with weight 10, or make the others larger",
            "f.yaml:20:45: `timeout` is 1, a number without a unit | write `1s` for seconds",
            "f.yaml:22:22: `percent` is 200, which is not between 0 and 100",
            "f.yaml:22:39: `fixedDelay` is `7x`, which is not a duration | write it like `7s`, `0.5s`, `100ms` or `1m30s`",
            "f.yaml:25:7: `RouteRul` is not a kind of `config.istio.io/v1alpha2` | did you mean `RouteRule`?",
            "f.yaml:28:1: `apiVersion` is missing",
            "f.yaml:28:1: `metadata` is missing",
            "f.yaml:30:4: this is not YAML: unclosed bracket '['",
        ]
    );
}

#[test]
fn what_is_understood_but_not_in_force_is_refused_with_those_words() {
    for (field, value) in [
        ("mirror", "{name: copy}"),
        ("corsPolicy", "{allowOrigin: ['*']}"),
        ("appendHeaders", "{x-a: b}"),
        ("websocketUpgrade", "true"),
        ("l4Fault", "{terminate: {percent: 1}}"),
    ] {
        let text = rule(&format!("  destination: {{name: a}}\n  {field}: {value}\n"));
        let expected = format!("`{field}` is understood but not in force yet | leave it out for now");
        let found = report(&text);
        assert!(found.len() == 1 && found[0].ends_with(&expected), "{field}: {found:?}");
    }
    let kinds = "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata: {name: a}\n---\n\
                 apiVersion: config.istio.io/v1alpha2\nkind: memquota\nmetadata: {name: a}\nspec: {}\n";
    let found = report(kinds);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|line| line.contains("is understood but not in force yet")), "{found:?}");
}

#[test]
fn an_empty_text_is_a_problem() {
    for text in ["", "\n", "# nothing\n", "---\n---\n"] {
        assert_eq!(
            report(text),
            ["f.yaml:1:1: there is no object in here | an object begins with `apiVersion:` and `kind:`"]
        );
    }
    assert_eq!(
        report("just text\n"),
        ["f.yaml:1:1: the document must be an object with `apiVersion` and `kind`, not the text `just text`"]
    );
}

#[test]
fn kinds_of_others_are_passed_through_but_for_slips_in_basic_types() {
    let text = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, namespace: shop, labels: {version: 1}}
spec:
  replicas: three
  unknownToUs: fine
  template:
    spec:
      containers:
      - name: a
        env: [{name: PORT, value: 9080}]
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
anything: {goes: 1}
";
    assert_eq!(
        report(text),
        [
            "f.yaml:3:56: `version` must be text, not the number 1 | put it in quotes: \"1\"",
            "f.yaml:5:13: `replicas` must be a whole number, not the text `three`",
            "f.yaml:11:35: `value` must be text, not the number 9080 | put it in quotes: \"9080\"",
        ]
    );
    let (objects, _) = validate_text("f.yaml", text);
    assert_eq!(objects.len(), 2);
    assert_eq!((objects[0].title().as_str(), objects[0].is_accepted), ("Deployment shop/a", false));
    assert!(objects[1].is_accepted);
    assert_eq!(objects[1].json["anything"], json!({"goes": 1}));
    assert_eq!(objects[1].location.as_ref().map(|at| at.line), Some(13));
}

#[test]
fn a_list_is_its_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n";
    let (objects, problems) = validate_text("f.yaml", text);
    assert_eq!(problems, []);
    assert_eq!(objects.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn an_object_is_defined_once_per_text_whatever_the_group() {
    let ours = rule("  destination: {name: a}\n");
    let classic = ours.replace("config.meshctl.io", "config.istio.io");
    assert_eq!(
        report(&format!("{ours}---\n{classic}")),
        [
            "f.yaml:7:1: RouteRule r is here a second time; the first is on line 1 | give it another name, or leave it out"
        ]
    );
}

#[test]
fn objects_of_ours_are_rendered_in_their_native_form() {
    let text = "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata: {name: r, labels: {a: b}}\nspec:\n  \
                destination: {name: a}\n  http_req_timeout: {simple_timeout: {timeout: 10s}}\n  http_fault: {abort: {percent: 50, http_status: 500}}\n";
    let (objects, problems) = validate_text("f.yaml", text);
    assert_eq!(problems, []);
    assert_eq!(
        objects[0].json,
        json!({
            "apiVersion": "config.meshctl.io/v1alpha2",
            "kind": "RouteRule",
            "metadata": {"name": "r", "labels": {"a": "b"}},
            "spec": {
                "destination": {"name": "a"},
                "httpReqTimeout": {"simpleTimeout": {"timeout": "10s"}},
                "httpFault": {"abort": {"percent": 50, "httpStatus": 500}},
            },
        })
    );
}

#[test]
fn the_webhook_finds_the_same_problems_as_the_cli() {
    let text = rule("  destination: {name: a}\n  route: [{weight: 90}]\n  redirect: {uri: /}\n");
    let (objects, problems) = validate_text("f.yaml", &text);
    let again = validate_object(&objects[0].json);
    let words = |problems: &[crate::problem::Problem]| {
        problems.iter().map(|problem| (problem.path.clone(), problem.message.clone())).collect::<Vec<_>>()
    };
    assert_eq!(words(&problems), words(&again));
    assert_eq!(again.len(), 2);
    assert_eq!(again[1].to_string(), "RouteRule r: `route` does not go with `redirect`");
}

#[test]
fn a_wrong_group_or_version_says_which_is_right() {
    let text = rule("  destination: {name: a}\n");
    assert_eq!(
        report(&text.replace("v1alpha2", "v1")),
        ["f.yaml:1:13: there is no version `config.meshctl.io/v1` | write `config.meshctl.io/v1alpha2`"]
    );
    assert_eq!(
        report(&text.replace("meshctl", "mshctl")),
        [
            "f.yaml:1:13: `RouteRule` is not a kind of `config.mshctl.io/v1alpha2` | write `apiVersion: config.meshctl.io/v1alpha2`"
        ]
    );
}

#[test]
fn egress_rules_are_checked_though_they_are_not_in_force() {
    let text = |service: &str, protocol: &str| {
        format!(
            "apiVersion: config.istio.io/v1alpha2\nkind: EgressRule\nmetadata: {{name: e}}\nspec:\n  \
             destination: {{service: \"{service}\"}}\n  ports: [{{port: 443, protocol: {protocol}}}]\n"
        )
    };
    for (service, protocol, expected) in [
        ("*.googleapis.com", "https", None),
        ("10.0.0.1", "tcp", None),
        ("10.0.0.0/8", "mongo", None),
        ("10.0.0.0/8", "http", Some("a range of addresses does not go with http, which knows host names")),
        ("example.com", "tcp", Some("a host name does not go with tcp, which knows addresses alone")),
        ("example.com", "ftp", Some("`ftp` is not a protocol of egress rules")),
    ] {
        let (_, problems) = validate_text("f.yaml", &text(service, protocol));
        let (later, refused): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.is_not_in_force());
        assert_eq!(later.len(), 1, "{service} {protocol}");
        assert_eq!(refused.first().map(|problem| problem.message.as_str()), expected, "{service} {protocol}");
    }
}

#[test]
fn what_does_nothing_is_a_warning_and_stays_in_force() {
    for (field, expected) in [
        ("httpFault: {}", "`httpFault` has no fault, so it does nothing"),
        ("httpReqTimeout: {}", "`httpReqTimeout` is empty, so it does nothing"),
        ("httpFault: {abort: {httpStatus: 500}}", "`abort` has no `percent`, so it hits no request"),
        ("match: {request: {headers: {uri: {prefix: a}}}}", "no path begins with `a`, so this rule matches nothing"),
        ("route: [{destination: {name: b, labels: {v: a}}}]", "labels of the destination are not looked at"),
    ] {
        let (objects, problems) = validate_text("f.yaml", &rule(&format!("  destination: {{name: a}}\n  {field}\n")));
        assert_eq!(problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), [expected]);
        assert!(objects[0].is_accepted && !problems[0].is_error(), "{field}");
    }
}

#[test]
fn circuit_breakers_and_retries_are_accepted_and_slips_in_them_named() {
    let policy = |breaker: &str| {
        format!(
            "apiVersion: config.istio.io/v1alpha2\nkind: DestinationPolicy\nmetadata: {{name: a}}\nspec:\n  \
             destination: {{name: a}}\n  circuitBreaker: {{simpleCb: {breaker}}}\n"
        )
    };
    for good in ["{maxConnections: 1, httpMaxPendingRequests: 1}", "{sleepWindow: 30s, httpConsecutiveErrors: 1}", "{}"]
    {
        assert!(report(&policy(good)).is_empty(), "{good}: {:?}", report(&policy(good)));
    }
    for (bad, part) in [
        ("{maxConnections: -1}", "maxConnections"),
        ("{httpMaxEjectionPercent: 101}", "not between 0 and 100"),
        ("{sleepWindow: 1}", "without a unit"),
    ] {
        let found = report(&policy(bad));
        assert!(found.len() == 1 && found[0].contains(part), "{bad}: {found:?}");
    }
    let retries =
        |retry: &str| rule(&format!("  destination: {{name: a}}\n  httpReqRetries: {{simpleRetry: {retry}}}\n"));
    assert!(report(&retries("{attempts: 3, perTryTimeout: 2s}")).is_empty());
    assert!(report(&retries("{attempts: -3}"))[0].contains("attempts"));
}
