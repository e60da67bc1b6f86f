use serde_json::{Value as Json, json};

use super::{MAX_DEPTH, Node, parse};

fn documents(text: &str) -> Vec<Json> {
    let (documents, problems) = parse("t.yaml", text);
    assert_eq!(problems, [], "{text}");
    documents.iter().map(Node::to_json).collect()
}

/// Problems as the user sees them.
fn problems(text: &str) -> Vec<String> {
    parse("t.yaml", text).1.iter().map(ToString::to_string).collect()
}

#[test]
fn yaml_and_json_are_read_alike() {
    for (text, expected) in [
        ("a: 1\n---\nb: 2\n", vec![json!({"a": 1}), json!({"b": 2})]),
        ("---\n# nothing\n---\na: 1\n...\n", vec![json!({"a": 1})]),
        (
            "{\"a\": 1}\n{\"b\": [true, null, \"x\\u00e9\\/\"]}",
            vec![json!({"a": 1}), json!({"b": [true, null, "xé/"]})],
        ),
        ("{\n\t\"a\": {\n\t\t\"b\": 1\n\t}\n}\n", vec![json!({"a": {"b": 1}})]),
        ("{\"a\": \"\\ud83d\\ude00\"}", vec![json!({"a": "😀"})]),
        ("\u{feff}a: 1\r\nb:\r\n- x\r\n", vec![json!({"a": 1, "b": ["x"]})]),
        ("a: |\n  one\n  two\nb: >-\n  one\n  two\n", vec![json!({"a": "one\ntwo\n", "b": "one two"})]),
        ("a: \"1\"\nb: '2'\nc: !!str 3\nd: !!int \"4\"\n", vec![json!({"a": "1", "b": "2", "c": "3", "d": 4})]),
        ("on: 1\n2: x\ntrue: y\n", vec![json!({"on": 1, "2": "x", "true": "y"})]),
        ("a: &x {b: 1}\nc: *x\nd: [*x]\n", vec![json!({"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}]})]),
        ("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\n", vec![json!({"a": {"b": 1, "c": 2}, "d": {"c": 3, "b": 1}})]),
        ("%YAML 1.2\n---\na: 1\n", vec![json!({"a": 1})]),
        (
            &format!("{{\"a\": \"{0}\", \"b\": [\"{0}\"]}}", "x".repeat(5000)),
            vec![json!({"a": "x".repeat(5000), "b": ["x".repeat(5000)]})],
        ),
        (
            &format!("a: \"{0}\"\nb:\n- '{0}'\n- {0}\n", "x".repeat(5000)),
            vec![json!({"a": "x".repeat(5000), "b": ["x".repeat(5000), "x".repeat(5000)]})],
        ),
        ("", vec![]),
        ("# only a comment\n", vec![]),
    ] {
        assert_eq!(documents(text), expected, "{text:?}");
    }
}

#[test]
fn places_are_lines_and_columns_of_the_file() {
    let (documents, _) = parse("t.yaml", "a: 1\n---\n\nb:\n  - cä: x\n    d: \"y\"\n");
    let list = documents[1].field("b").expect("b is there");
    let super::Value::List(items) = &list.value else { panic!("b is a list") };
    let entries = items[0].entries().expect("the element is a mapping");
    let places: Vec<_> = entries
        .iter()
        .flat_map(|entry| [entry.mark, entry.value.mark])
        .map(|mark| mark.map(|mark| (mark.line, mark.column)))
        .collect();
    assert_eq!(places, [Some((5, 5)), Some((5, 9)), Some((6, 5)), Some((6, 8))]);

    let (documents, _) = parse("t.json", "{\"a\": 1} {\n\"b\": 2}");
    let place =
        |document: &Node, name: &str| document.field(name).and_then(|node| node.mark).map(|m| (m.line, m.column));
    assert_eq!(place(&documents[0], "a"), Some((1, 7)));
    assert_eq!(place(&documents[1], "b"), Some((2, 6)));
}

#[test]
fn a_broken_document_leaves_the_others_readable() {
    let (documents, problems) = parse("t.yaml", "a: 1\n---\nb: [1\nc: }\n---\nd: 4\n---\ne:\n\tf: 5\n");
    assert_eq!(documents.iter().map(Node::to_json).collect::<Vec<_>>(), [json!({"a": 1}), json!({"d": 4})]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    let lines: Vec<_> = problems.iter().filter_map(|problem| problem.location.as_ref()).map(|at| at.line).collect();
    assert!((3..=5).contains(&lines[0]) && lines[1] == 9, "{lines:?}");
    assert_eq!(problems[1].hint.as_deref(), Some("indent with spaces, not with tabs"));
}

#[test]
fn duplicate_fields_are_refused_wherever_they_are() {
    assert_eq!(
        problems("a: 1\nb: {c: 1, c: 2}\na: 3\n"),
        [
            "t.yaml:2:11: field `c` is here a second time; the first is on line 2",
            "t.yaml:3:1: field `a` is here a second time; the first is on line 1",
        ]
    );
    let many: String = (0..100).map(|i| format!("k{i}: {i}\n")).collect();
    assert_eq!(
        problems(&format!("{many}k7: 1\n")),
        ["t.yaml:101:1: field `k7` is here a second time; the first is on line 8"]
    );
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..10 {
        let last = i - 1;
        bomb += &format!("a{i}: &a{i} [*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last}]\n");
    }
    assert!(problems(&bomb)[0].ends_with("aliases make this text too large"), "{:?}", problems(&bomb));

    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(10_000));
    assert!(problems(&long)[0].ends_with("aliases make this text too large"));

    assert!(problems(&"[".repeat(100_000))[0].contains("nested"), "{:?}", problems(&"[".repeat(100_000)));
    let nested = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert_eq!(problems(&nested).len(), 1);
    let mut tower = format!("a0: &a0 {}{}\n", "[".repeat(60), "]".repeat(60));
    for i in 1..5 {
        tower += &format!("a{i}: &a{i} {}*a{}{}\n", "[".repeat(60), i - 1, "]".repeat(60));
    }
    assert!(problems(&tower)[0].contains("deep"));
    assert!(problems(&"a".repeat(super::MAX_TEXT + 1))[0].contains("longer than 16 MiB"));
}

#[test]
fn what_cannot_be_the_name_of_a_field_is_refused() {
    assert_eq!(problems("? [a, b]\n: 1\n"), ["t.yaml:1:3: a list or a mapping cannot be the name of a field"]);
    assert_eq!(problems("a:\n  <<: 1\n"), ["t.yaml:2:3: `<<` must be a mapping or a list of mappings"]);
    assert_eq!(problems("a: &a [*a]\n").len(), 1);
    assert_eq!(problems("a: *nobody\n").len(), 1);
}

#[test]
fn rendered_yaml_is_read_back_as_it_was() {
    let value = json!({
        "text": "plain", "yes": "yes", "number": "1", "null": "null", "empty": "", "colon": "a: b", "dash": "- a",
        "lines": "a\nb\n", "tab": "\t", "octal": "0644", "float": 1.5, "whole": 7, "list": [1, [2], {"a": null}],
        "none": [], "nothing": {}, "regex": "^(.*?;)?(user=jason)(;.*)?$", "unicode": "é\u{1}\u{85}\u{feff}",
        "hash": "a # b", "long": "word ".repeat(60), "trailing": "a ", "y": "y", "tilde": "~", "date": "2017-01-01",
    });
    let text = super::render(&value);
    assert_eq!(documents(&text), [value], "{text}");
}
