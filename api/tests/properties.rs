//! What holds for any input: nothing panics, and what is written is read back.

use api::config::duration::DurationText;
use api::model::Mesh;
use api::object::{validate_object, validate_text};
use api::read::Context;
use api::registry::{Registry, Resource};
use api::spiffe::SpiffeId;
use api::yaml;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const RULE: &str = "\
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: reviews, namespace: default}
spec:
  destination: &d {name: reviews}
  precedence: 2
  match:
    source: *d
    request:
      headers:
        cookie: {regex: \"^(.*?;)?(user=jason)(;.*)?$\"}
        uri: {prefix: /}
  route:
  - labels: {version: v1}
    weight: 75
  - labels: {version: v2}
    weight: 25
  httpFault:
    delay: {percent: 10.5, fixedDelay: 1m30s}
    abort: {percent: 1, httpStatus: 500}
  httpReqTimeout: {simpleTimeout: {timeout: 0.5s}}
---
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata: {name: reviews}
spec:
  destination: {name: reviews, labels: {version: v1}}
  loadBalancing: {name: RANDOM}
";

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        "\\PC{0,12}".prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        prop::sample::select(vec![
            "yes", "0644", "1_000", "~", "<<", "- a", "a: b", "#", "1e3", "", " a", "*a", "&a", "!a", "|", "%"
        ])
        .prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-zA-Z<:# -]{0,8}", inner, 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

/// A value with one of its parts replaced.
fn with_replaced(value: &Json, path: &[prop::sample::Index], part: &Json) -> Json {
    let Some((step, rest)) = path.split_first() else { return part.clone() };
    let mut value = value.clone();
    match &mut value {
        Json::Object(fields) if !fields.is_empty() => {
            let at = step.index(fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                *field = with_replaced(field, rest, part);
            }
            value
        }
        Json::Array(items) if !items.is_empty() => {
            let at = step.index(items.len());
            items[at] = with_replaced(&items[at], rest, part);
            value
        }
        _ => part.clone(),
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_places_lie_in_it(text in any::<String>()) {
        let (_, problems) = validate_text("f", &text);
        for problem in problems {
            let location = problem.location.expect("every problem of a text has a place");
            prop_assert!(location.line as usize <= text.split('\n').count() + 1 && location.column >= 1);
        }
    }

    #[test]
    fn no_text_of_yaml_characters_panics(text in "[-a:{}\\[\\],&*!|>'\"%#?<~ \n\t.0-9]{0,60}") {
        let _ = validate_text("f", &text);
    }

    #[test]
    fn no_damage_to_a_good_text_panics(at in any::<prop::sample::Index>(), length in 0..20_usize, with in "\\PC{0,6}") {
        let (start, end) = (at.index(RULE.len()), (at.index(RULE.len()) + length).min(RULE.len()));
        let text = format!("{}{with}{}", &RULE[..start], &RULE[end..]);
        let _ = validate_text("f", &text);
    }

    #[test]
    fn any_json_is_rendered_as_yaml_that_reads_the_same(value in json()) {
        let value = json!({"value": value});
        let text = yaml::render(&value);
        let (documents, problems) = yaml::parse("f", &text);
        prop_assert!(problems.is_empty(), "{}\n{:?}", text, problems);
        prop_assert_eq!(documents[0].to_json(), value, "{}", text);
    }

    #[test]
    fn json_text_is_read_as_json(value in json()) {
        let value = json!({"value": value});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON can be written")] {
            let (documents, problems) = yaml::parse("f", &text);
            prop_assert!(problems.is_empty(), "{}\n{:?}", text, problems);
            prop_assert_eq!(documents[0].to_json(), value.clone(), "{}", text);
        }
    }

    #[test]
    fn no_change_to_a_good_object_panics(
        path in prop::collection::vec(any::<prop::sample::Index>(), 1..7), part in json(), second in any::<bool>(),
    ) {
        let (objects, _) = validate_text("f", RULE);
        let changed = with_replaced(&objects[usize::from(second)].json, &path, &part);
        let problems = validate_object(&changed);
        let text = yaml::render(&changed);
        let (_, again) = validate_text("f", &text);
        // The text sorts by place, so compare as sets.
        let words = |problems: &[api::problem::Problem]| {
            let mut words: Vec<_> = problems.iter().map(|problem| problem.message.clone()).collect();
            words.sort();
            words
        };
        if changed.is_object() && changed["kind"] != json!("List") {
            prop_assert_eq!(words(&problems), words(&again), "{}", text);
        }
    }

    #[test]
    fn no_object_makes_the_registry_panic(part in json(), path in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
        let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"a": "b"}}});
        let slice = json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "a"}},
            "endpoints": [{"addresses": ["1.2.3.4"], "targetRef": {"kind": "Pod", "name": "p"}}],
            "ports": [{"name": "http", "port": 80}],
        });
        let mut registry = Registry::new(Mesh::default());
        for resource in Resource::ALL {
            for object in [&service, &slice, &part] {
                registry.apply(resource, &with_replaced(object, &path, &part));
                registry.apply(resource, object);
            }
        }
    }

    #[test]
    fn no_text_makes_small_parsers_panic(text in "\\PC{0,20}|[-+0-9.nusmhµ]{0,30}|spiffe://[a-z./]{0,20}") {
        let node = yaml::Node { mark: None, value: yaml::Value::Null };
        let _ = DurationText(text.clone()).mean("timeout", &mut Context::new(None, &node));
        if let Ok(id) = text.parse::<SpiffeId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}
