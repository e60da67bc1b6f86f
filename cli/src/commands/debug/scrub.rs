//! Takes out what looks like a secret. Errs towards taking out too much.

use serde_json::Value;

/// What stands where something was taken out.
const LEFT_OUT: &str = "(left out)";

/// Parts of names whose values are secrets.
const NAMES: [&str; 10] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "privatekey",
    "private_key",
    "credential",
];

/// Names that only sound like it: they name a secret, or where it is.
const HARMLESS: [&str; 9] = [
    "secretname",
    "secretref",
    "secretkeyref",
    "imagepullsecrets",
    "serviceaccounttoken",
    "automountserviceaccounttoken",
    "mesh_token_file",
    "tokenreview",
    "secrets",
];

/// Whether a field, variable or flag of this name holds a secret.
fn is_secret(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    NAMES.iter().any(|part| name.contains(part)) && !HARMLESS.contains(&name.as_str())
}

/// Takes secrets out of an object of the API or of an answer in JSON.
pub(super) fn json(value: &mut Value) {
    match value {
        Value::String(text) => *text = self::text(text),
        Value::Array(items) => {
            // `--password`, and its value after it.
            let mut is_next = false;
            for item in items {
                match item {
                    Value::String(word) if is_next => {
                        LEFT_OUT.clone_into(word);
                        is_next = false;
                    }
                    Value::String(word) => {
                        is_next = word.starts_with('-') && !word.contains('=') && is_secret(word);
                        *word = text(&argument(word));
                    }
                    other => json(other),
                }
            }
        }
        Value::Object(fields) => {
            fields.shift_remove("managedFields");
            // It holds the whole object once more, as text.
            fields.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
            let is_secret_variable = fields.get("name").and_then(Value::as_str).is_some_and(is_secret);
            for (name, value) in fields.iter_mut() {
                let is_value = name == "value" && is_secret_variable;
                match value {
                    Value::String(text) if is_value || is_secret(name) => LEFT_OUT.clone_into(text),
                    other => json(other),
                }
            }
        }
        _ => {}
    }
}

/// `--password=x` without its value.
fn argument(word: &str) -> String {
    match word.split_once('=') {
        Some((name, _)) if is_secret(name) && !name.contains(char::is_whitespace) => format!("{name}={LEFT_OUT}"),
        _ => word.to_owned(),
    }
}

/// Takes private keys, tokens and credentials out of a text.
pub(super) fn text(text: &str) -> String {
    tokens(&credentials(&private_keys(text)))
}

fn private_keys(text: &str) -> String {
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(begin) = rest.find("-----BEGIN ") {
        let kind = rest[begin + 11..].split("-----").next().unwrap_or_default();
        let after = begin + 11 + kind.len();
        if !kind.ends_with("PRIVATE KEY") {
            result.push_str(&rest[..after]);
            rest = &rest[after..];
            continue;
        }
        let end_line = format!("-----END {kind}-----");
        result.push_str(&rest[..begin]);
        result.push_str("(private key left out)");
        // One without an end is one to the end.
        rest = rest[after..].split_once(end_line.as_str()).map_or("", |(_, rest)| rest);
    }
    result + rest
}

/// What follows `Bearer` or `Basic`.
fn credentials(text: &str) -> String {
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((at, length)) = first_scheme(rest) {
        let (before, after) = rest.split_at(at + length);
        result.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"',".contains(c)).unwrap_or(after.len());
        result.push_str(if end >= 8 { LEFT_OUT } else { &after[..end] });
        rest = &after[end..];
    }
    result + rest
}

fn first_scheme(text: &str) -> Option<(usize, usize)> {
    let lower = text.to_ascii_lowercase();
    ["bearer ", "basic "].iter().filter_map(|word| Some((lower.find(word)?, word.len()))).min()
}

/// JSON web tokens: three parts between dots, of which the first begins as `{"` does in base64.
fn tokens(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("eyJ") {
        let token = &rest[at..];
        let end = token.find(|c: char| !is_part(c) && c != '.').unwrap_or(token.len());
        result.push_str(&rest[..at]);
        let is_token = token[..end].split('.').count() >= 3 && end > 40;
        result.push_str(if is_token { "(token left out)" } else { &token[..end] });
        rest = &token[end..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_left_out_of_objects() {
        let mut pod = json!({
            "metadata": {"managedFields": [1], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}},
            "spec": {
                "containers": [{
                    "args": ["--db-password", "hunter2", "--token=abc", "--port", "80", "--secretName=x"],
                    "env": [
                        {"name": "DB_PASSWORD", "value": "hunter2"},
                        {"name": "PORT", "value": "80"},
                        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                    ],
                }],
                "volumes": [{"secret": {"secretName": "db"}}],
            },
        });
        json(&mut pod);
        let expected = json!({
            "metadata": {"annotations": {"a": "b"}},
            "spec": {
                "containers": [{
                    "args": ["--db-password", LEFT_OUT, "--token=(left out)", "--port", "80", "--secretName=x"],
                    "env": [
                        {"name": "DB_PASSWORD", "value": LEFT_OUT},
                        {"name": "PORT", "value": "80"},
                        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                    ],
                }],
                "volumes": [{"secret": {"secretName": "db"}}],
            },
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn keys_and_tokens_are_left_out_of_texts() {
        let jwt = format!("eyJ{}.eyJ{}.{}", "a".repeat(20), "b".repeat(20), "c".repeat(20));
        for (given, expected) in [
            (
                "-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----\nx".to_owned(),
                "(private key left out)\nx",
            ),
            ("-----BEGIN PRIVATE KEY-----\nabc".to_owned(), "(private key left out)"),
            (
                "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----".to_owned(),
                "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            ),
            (format!("token: {jwt};"), "token: (token left out);"),
            ("eyJust text".to_owned(), "eyJust text"),
            ("authorization: Bearer abcdefgh12345 ok".to_owned(), "authorization: Bearer (left out) ok"),
            ("a basic need".to_owned(), "a basic need"),
        ] {
            assert_eq!(text(&given), expected, "{given}");
        }
    }
}
