use std::collections::BTreeMap;

use super::{Context, Read};
use crate::yaml::{self, Node};

#[derive(Debug, Default, PartialEq)]
struct Pet {
    full_name: Option<String>,
    age: Option<i32>,
    tags: Option<BTreeMap<String, String>>,
    friends: Option<Vec<Pet>>,
    weight: Option<f64>,
    is_tame: Option<bool>,
}

impl Read for Pet {
    const WHAT: &'static str = "a pet";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let pet = Pet {
            full_name: fields.required("fullName"),
            age: fields.optional("age"),
            tags: fields.optional("tags"),
            friends: fields.optional("friends"),
            weight: fields.optional("weight"),
            is_tame: fields.optional("isTame"),
        };
        fields.unsupported("wings", "pets do not fly here");
        fields.end();
        Some(pet)
    }
}

fn read(text: &str) -> (Option<Pet>, Vec<String>) {
    let (documents, problems) = yaml::parse("pet.yaml", text);
    assert_eq!(problems, []);
    let mut context = Context::new(Some("pet.yaml"), &documents[0]);
    let pet = context.read(&documents[0]);
    let lines = context
        .into_problems()
        .into_iter()
        .map(|problem| match &problem.hint {
            Some(hint) => format!("{problem} ({hint})"),
            None => problem.to_string(),
        })
        .collect();
    (pet, lines)
}

#[test]
fn both_spellings_of_a_field_are_read() {
    let (pet, problems) = read("full_name: Rex\nisTame: yes\nfriends:\n- full_name: Tom\n  age: 100.0\n");
    assert!(problems.is_empty(), "{problems:?}");
    let tom = Pet { full_name: Some("Tom".to_owned()), age: Some(100), ..Pet::default() };
    let rex =
        Pet { full_name: Some("Rex".to_owned()), is_tame: Some(true), friends: Some(vec![tom]), ..Pet::default() };
    assert_eq!(pet, Some(rex));
    let (_, problems) = read("full_name: Rex\nfullName: Tom\n");
    assert_eq!(
        problems,
        ["pet.yaml:2:11: `full_name` and `fullName` are two spellings of one field (keep one of the two)"]
    );
}

#[test]
fn every_problem_is_found_at_once_and_where_it_is() {
    let (_, problems) = read(concat!(
        "fulName: Rex\n",
        "age: 1.5\n",
        "tags:\n",
        "  version: 1.10\n",
        "  good: yes\n",
        "friends:\n",
        "- Tom\n",
        "- fullName: [Tom]\n",
        "  age: 99999999999\n",
        "  weight: \"7\"\n",
        "isTame: 1\n",
        "wings: 2\n",
    ));
    assert_eq!(
        problems,
        [
            "pet.yaml:1:1: `fullName` is missing",
            "pet.yaml:2:6: `age` must be a whole number, not the number 1.5",
            "pet.yaml:4:12: `version` must be text, not the number 1.1 (put it in quotes: \"1.1\")",
            "pet.yaml:5:9: `good` must be text, not `true` (put it in quotes: \"true\")",
            "pet.yaml:7:3: `friends[0]` must be a pet, not the text `Tom`",
            "pet.yaml:8:3: `fullName` must be text, not a list",
            "pet.yaml:9:8: `age` is 99999999999, which is not between -2147483648 and 2147483647",
            "pet.yaml:10:11: `weight` must be a number, not the text `7` (leave the quotes out: 7)",
            "pet.yaml:11:9: `isTame` must be true or false, not the number 1",
            "pet.yaml:12:8: `wings` is not supported (pets do not fly here)",
            "pet.yaml:1:1: unknown field `fulName` (did you mean `fullName`?)",
        ]
    );
}

#[test]
fn null_is_the_same_as_leaving_a_field_out() {
    assert_eq!(read("fullName: Rex\nage:\nfriends: null\n").1, [] as [&str; 0]);
    assert_eq!(read("fullName:\nage: 1\n").1, ["pet.yaml:1:1: `fullName` is missing"]);
    assert_eq!(read("fullName: Rex\nfriends: [~]\n").1, ["pet.yaml:2:11: `friends[0]` is missing"]);
}

#[test]
fn an_object_with_a_million_problems_tells_the_first_hundred() {
    let text = format!("fullName: Rex\nfriends: [{}]\n", "1,".repeat(100_000));
    let (_, problems) = read(&text);
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100], "pet.yaml:1:1: there are 99900 more problems in this object");
}
