//! `match` of a rule, as far as it is a conjunction of equalities: `destination.namespace == "default" && …`.
//!
//! The language of expressions is larger. What is not of this form is refused by its own words.

use crate::config::{Surroundings, check, service_role};
use crate::model::{Host, Pattern, SubjectTest, Test};
use crate::names::{CLASSIC_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};
use crate::problem::NOT_IN_FORCE;
use crate::read::Context;
use crate::suggest;

/// Reads an expression, with `context` looking at it; empty is everything.
pub(super) fn tests(text: &str, around: &Surroundings<'_>, context: &mut Context<'_>) -> Vec<Test> {
    if text.trim().is_empty() || text.trim() == "true" {
        return Vec::new();
    }
    let mut tests = Vec::new();
    let mut terms = vec![text.trim()];
    // The last is looked at next: what stands first is pushed last.
    while let Some(term) = terms.pop() {
        let parts = split(term, "&&");
        if parts.len() > 1 {
            terms.extend(parts.into_iter().rev().map(str::trim));
        } else if let Some(inner) = in_parentheses(term) {
            terms.push(inner.trim());
        } else {
            tests.extend(test(term, around, context));
        }
    }
    tests
}

/// One equality.
fn test(term: &str, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Test> {
    let sides = split(term, "==");
    let equality = match sides.as_slice() {
        [one, other] => match (literal(one), literal(other)) {
            (None, Some(value)) => attribute(one).map(|of| (of, value)),
            (Some(value), None) => attribute(other).map(|of| (of, value)),
            _ => None,
        },
        _ => None,
    };
    let Some(((name, key), value)) = equality else {
        let larger = term.contains(['|', '!', '<', '>', '(', '+', '-', '*', '/', '%', '[']) || sides.len() == 2;
        let hint = "write tests such as `source.namespace == \"default\"`, and `&&` between them";
        match larger {
            true => context.error_with_hint(format!("`{term}` in `match` {NOT_IN_FORCE}"), hint),
            false => context.error_with_hint(format!("`{term}` in `match` is no test"), hint),
        }
        return None;
    };
    meaning(name, key, value, around, context)
}

/// The attributes that a test can be about.
const ATTRIBUTES: [&str; 8] = [
    "destination.namespace",
    "destination.service",
    "destination.labels[NAME]",
    "source.user",
    "source.namespace",
    "request.path",
    "request.method",
    "request.headers[NAME]",
];

/// Attributes of Mixer's vocabulary that are not among them.
const LATER: [&str; 36] = [
    "api.operation",
    "api.protocol",
    "api.service",
    "api.version",
    "connection.id",
    "connection.mtls",
    "context.protocol",
    "context.time",
    "context.timestamp",
    "destination.domain",
    "destination.ip",
    "destination.labels",
    "destination.name",
    "destination.port",
    "destination.serviceAccount",
    "destination.uid",
    "destination.user",
    "origin.ip",
    "origin.uid",
    "origin.user",
    "request.api_key",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.principal",
    "request.headers",
    "request.host",
    "request.id",
    "request.scheme",
    "request.size",
    "request.time",
    "request.useragent",
    "source.ip",
    "source.labels",
    "source.name",
    "source.service",
    "source.uid",
];

fn meaning(
    name: &str,
    key: Option<&str>,
    value: String,
    around: &Surroundings<'_>,
    context: &mut Context<'_>,
) -> Option<Test> {
    match (name, key) {
        ("destination.namespace", None) => Some(Test::DestinationNamespace(value)),
        ("destination.service", None) => service(&value, around, context),
        ("destination.labels", Some(label)) => Some(Test::DestinationLabel(label.to_owned(), value)),
        ("source.user" | "source.principal", None) => {
            let id = value.strip_prefix("spiffe://").unwrap_or(&value).to_owned();
            if !id.contains('/') || format!("spiffe://{id}").parse::<crate::spiffe::SpiffeId>().is_err() {
                context.error_with_hint(
                    format!("`{value}` is nobody's identity"),
                    "write `<trust domain>/ns/<namespace>/sa/<service account>`",
                );
                return None;
            }
            Some(Test::Caller(SubjectTest::Workload(Pattern::Exact(id))))
        }
        ("source.namespace", None) if value == CLASSIC_SYSTEM_NAMESPACE => {
            context.error_with_hint(
                format!("the system namespace `{value}` is called `{SYSTEM_NAMESPACE}` here"),
                format!("write `source.namespace == \"{SYSTEM_NAMESPACE}\"`"),
            );
            None
        }
        ("source.namespace", None) => Some(Test::Caller(SubjectTest::SourceNamespace(Pattern::Exact(value)))),
        ("request.path", None) => {
            service_role::path(Pattern::Exact(value), context).map(|path| Test::Path(path.text().to_owned()))
        }
        ("request.method", None) => {
            service_role::method(Pattern::Exact(value), context).map(|method| Test::Method(method.text().to_owned()))
        }
        ("request.headers", Some(header)) => {
            let header = header.to_ascii_lowercase();
            check::header_name(&header, context).then_some(Test::Header(header, value))
        }
        ("source.labels", Some(label)) => {
            context.error_with_hint(
                format!(
                    "`source.labels[\"{label}\"]` cannot be proved by the caller, whose certificate names its account, so asking for it {NOT_IN_FORCE}"
                ),
                "name its account with `source.user`, or its namespace with `source.namespace`",
            );
            None
        }
        _ => {
            let known = ATTRIBUTES.join(", ");
            let near = suggest::closest(name, ATTRIBUTES.iter().map(|of| of.trim_end_matches("[NAME]")));
            match near.filter(|near| *near != name) {
                _ if LATER.contains(&name) => context.error_with_hint(
                    format!("the attribute `{name}` in `match` {NOT_IN_FORCE}"),
                    format!("in force here: {known}"),
                ),
                Some(near) => {
                    context.error_with_hint(format!("`{name}` is no attribute"), format!("did you mean `{near}`?"))
                }
                None => {
                    context.error_with_hint(format!("`{name}` is no attribute"), format!("known here: {known}"));
                }
            }
            None
        }
    }
}

/// The service that a whole host name means.
fn service(name: &str, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Test> {
    if !check::is_domain(name) || !name.contains('.') {
        context.error_with_hint(
            format!("no service is `{name}` when it is compared"),
            format!("write its whole host name, as `reviews.default.svc.{}`", around.domain),
        );
        return None;
    }
    Some(Test::DestinationService(Host::new(name)))
}

/// A name, and the key behind it.
fn attribute(text: &str) -> Option<(&str, Option<&str>)> {
    let text = text.trim();
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_')
    };
    let Some((name, rest)) = text.split_once('[') else { return is_name(text).then_some((text, None)) };
    let key = rest.strip_suffix(']')?.trim().strip_prefix('"')?.strip_suffix('"')?;
    (is_name(name.trim()) && !key.is_empty() && !key.contains(['"', '\\'])).then_some((name.trim(), Some(key)))
}

/// The text of a literal: in double quotes, or in backticks.
fn literal(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(raw) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.to_owned());
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut value = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => value.push(characters.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            other => value.push(other),
        }
    }
    Some(value)
}

/// What stands in parentheses that belong together and are around all of it.
fn in_parentheses(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut depth = 0_i32;
    for (_, byte) in outside_of_quotes(inner) {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        if depth < 0 {
            return None;
        }
    }
    (depth == 0).then_some(inner)
}

/// Splits at an operator, outside of quotes and parentheses.
fn split<'t>(text: &'t str, operator: &str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0_i32, 0);
    for (at, byte) in outside_of_quotes(text) {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        if depth == 0 && at >= begin && text[at..].starts_with(operator) {
            parts.push(&text[begin..at]);
            begin = at + operator.len();
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// The ASCII characters that are in no quotes, with their places.
fn outside_of_quotes(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut quote = None;
    let mut is_escaped = false;
    text.bytes().enumerate().filter(move |(_, byte)| {
        let was_escaped = is_escaped;
        is_escaped = quote == Some(b'"') && *byte == b'\\' && !was_escaped;
        match quote {
            Some(open) => {
                if *byte == open && !was_escaped {
                    quote = None;
                }
                false
            }
            None if [b'"', b'`'].contains(byte) => {
                quote = Some(*byte);
                false
            }
            None => byte.is_ascii(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Origin};
    use crate::yaml::{Node, Value};

    fn read(text: &str) -> (Vec<Test>, Vec<String>) {
        let node = Node { mark: None, value: Value::Null };
        let mut context = Context::new(None, &node);
        let key = Key { namespace: "default".to_owned(), name: "r".to_owned() };
        let around = Surroundings { key, origin: Origin::default(), domain: "cluster.local" };
        let tests = tests(text, &around, &mut context);
        (tests, context.into_problems().into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn a_conjunction_of_equalities_is_read() {
        let namespace = |name: &str| Test::DestinationNamespace(name.to_owned());
        let user = |id: &str| Test::Caller(SubjectTest::Workload(Pattern::Exact(id.to_owned())));
        let label = |value: &str| Test::DestinationLabel("app".to_owned(), value.to_owned());
        for (text, expected) in [
            ("", vec![]),
            ("true", vec![]),
            ("destination.namespace == \"default\"", vec![namespace("default")]),
            ("\"default\"==destination.namespace", vec![namespace("default")]),
            ("destination.namespace == `default`", vec![namespace("default")]),
            (
                "destination.labels[\"app\"] == \"details\" && source.user == \"cluster.local/ns/default/sa/page\"",
                vec![label("details"), user("cluster.local/ns/default/sa/page")],
            ),
            ("source.user == \"spiffe://cluster.local/ns/a/sa/b\"", vec![user("cluster.local/ns/a/sa/b")]),
            (
                "(destination.namespace == \"a\" && (destination.labels[\"app\"]==\"b\"))",
                vec![namespace("a"), label("b")],
            ),
            ("destination.labels[\"app\"] == \"a && b == \\\"c\\\"\"", vec![label("a && b == \"c\"")]),
            ("request.path == \"/x\"", vec![Test::Path("/x".to_owned())]),
            ("request.headers[\"X-A\"] == \"é\"", vec![Test::Header("x-a".to_owned(), "é".to_owned())]),
            (
                "destination.service == \"Details.default.svc.cluster.local\"",
                vec![Test::DestinationService(Host::of_service("details", "default", "cluster.local"))],
            ),
        ] {
            assert_eq!(read(text), (expected, vec![]), "{text}");
        }
    }

    #[test]
    fn what_is_not_followed_is_refused_by_its_own_words() {
        for (text, expected) in [
            ("destination.namespace == \"a\" || source.namespace == \"b\"", NOT_IN_FORCE),
            ("destination.namespace != \"a\"", NOT_IN_FORCE),
            ("!(destination.namespace == \"a\")", NOT_IN_FORCE),
            ("(destination.namespace | \"a\") == \"a\"", NOT_IN_FORCE),
            ("source.namespace == destination.namespace", NOT_IN_FORCE),
            ("match(destination.service, \"details*\")", NOT_IN_FORCE),
            ("source.ip == ip(\"1.2.3.4\")", NOT_IN_FORCE),
            ("source.labels[\"app\"] == \"reviews\"", NOT_IN_FORCE),
            ("request.size == \"1\"", NOT_IN_FORCE),
            ("destination.namespac == \"a\"", "is no attribute"),
            ("colour == \"red\"", "is no attribute"),
            ("destination.namespace", "is no test"),
            ("destination.namespace == \"a\" &&", "is no test"),
            ("destination.namespace = \"a\"", "is no test"),
            ("destination.service == \"details\"", "when it is compared"),
            ("source.user == \"alice\"", "nobody's identity"),
            ("destination.namespace == \"a\"b\"", NOT_IN_FORCE),
        ] {
            let (_, problems) = read(text);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn no_text_is_taken_for_less_than_it_says() {
        // Whatever is read has a test for each `==`: nothing was passed over in silence.
        for text in
            ["a.b == \"c\" source.user == \"d\"", "(source.namespace == \"a\") \"b\"", "((", "))", "\"", "[\"\"]", "\\"]
        {
            assert!(!read(text).1.is_empty(), "{text}");
        }
    }
}
