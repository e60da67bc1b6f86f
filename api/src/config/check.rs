//! Checks that several kinds share.

use std::collections::BTreeMap;

use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use crate::model::Percent;
use crate::read::Context;

/// Whether this is a DNS-1123 label: lower-case letters, digits and dashes, at most 63.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    matches!(bytes.len(), 1..=63)
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

/// Whether this is a DNS-1123 subdomain: labels joined by dots, at most 253.
#[must_use]
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Whether this is a domain name: dotted labels, in either case, at most 255; a trailing dot is allowed.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 255 && text.to_ascii_lowercase().split('.').all(is_dns_label)
}

/// Whether this is a domain name whose first label may begin with a star: `*`, `*.foo.com`, `*-bar.com`, `*foo.com`.
#[must_use]
pub fn is_wildcard_domain(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('*') else { return is_domain(text) };
    // What the star leaves of the first label may begin with a dash.
    rest.is_empty() || is_domain(&format!("x{rest}"))
}

/// Whether this is an IPv4 address, or a range of them as `10.0.0.0/8`.
#[must_use]
pub fn is_ipv4_range(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<ipnet::Ipv4Net>().is_ok()
}

/// Checks labels: keys and values of letters, digits and `-_./`.
pub fn labels(labels: &BTreeMap<String, String>, context: &mut Context<'_>) {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    for (key, value) in labels {
        for (what, text) in [("name", key), ("value", value)] {
            if !plain(text) {
                context.within(key.clone(), |context| {
                    context.error(format!(
                        "the label's {what} `{text}` has other characters than letters, digits and `-_./`"
                    ));
                });
            }
        }
        if key.is_empty() {
            context.error("a label has no name");
        }
    }
}

/// Checks a share in percent, from 0 to 100.
#[must_use]
pub fn percent(field: &'static str, percent: f64, context: &mut Context<'_>) -> Option<Percent> {
    if !(0.0..=100.0).contains(&percent) {
        context
            .within(field, |context| context.error(format!("`{field}` is {percent}, which is not between 0 and 100")));
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1,000,000 by the check above"
    )]
    Some(Percent { millionths: (percent * 10_000.0).round() as u32 })
}

/// Checks that a number is not negative.
pub fn not_negative(field: &'static str, number: Option<i64>, context: &mut Context<'_>) {
    if let Some(number) = number.filter(|number| *number < 0) {
        context.within(field, |context| context.error(format!("`{field}` is {number}, which is less than 0")));
    }
}

/// Checks the name of a header: a lower-case token.
///
/// Says whether it is one.
pub fn header_name(name: &str, context: &mut Context<'_>) -> bool {
    if name.is_empty() {
        context.error("a header has no name");
        return false;
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let hint = format!("write `{}`", name.to_ascii_lowercase());
        context.error_with_hint(format!("the header's name `{name}` is not in lower case"), hint);
        return false;
    }
    let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if !is_token {
        context.error(format!("`{name}` cannot be the name of a header"));
    }
    is_token
}

/// The longest regular expression, in bytes.
const REGEX_LENGTH: usize = 4096;
/// The largest a compiled regular expression may be; the engine allows twice as much.
const REGEX_SIZE: usize = 1 << 19;

/// Checks that a regular expression compiles, and to a reasonable size.
///
/// Says whether it does. As in the engine, `.` and the classes `\d \w \s` are those of ASCII unless the pattern needs
/// more: most patterns are small that way.
pub fn regex(pattern: &str, context: &mut Context<'_>) -> bool {
    let hint = if pattern.contains("(?=") || pattern.contains("(?!") || pattern.contains("(?<") {
        "look-around is not supported: use several rules with different precedence"
    } else {
        "the syntax is that of RE2, and the whole value must match"
    };
    if pattern.len() > REGEX_LENGTH {
        context
            .error_with_hint(format!("the regular expression is longer than {REGEX_LENGTH} bytes"), "make it shorter");
        return false;
    }
    let parse = |unicode| {
        let config = syntax::Config::new().unicode(unicode).utf8(false).nest_limit(64);
        syntax::parse_with(pattern, &config).map_err(Box::new)
    };
    let parsed = match parse(false) {
        // Without counts, and with the small classes, what is compiled is about as long as what is written.
        Ok(_) if !pattern.contains('{') => return true,
        Ok(parsed) => Ok(parsed),
        Err(_) => parse(true),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // The parser's message draws the pattern over several lines; its last line says what is wrong.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            context.error_with_hint(format!("`{pattern}` is not a regular expression: {reason}"), hint);
            return false;
        }
    };
    let config = thompson::Config::new().nfa_size_limit(Some(REGEX_SIZE)).which_captures(thompson::WhichCaptures::None);
    let compiled = thompson::Compiler::new().configure(config).build_from_hir(&parsed);
    if compiled.is_err() {
        context.error_with_hint(format!("the regular expression `{pattern}` is too large"), "use smaller repetitions");
    }
    compiled.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_dns_does() {
        for (name, expected) in [
            ("reviews", true),
            ("a", true),
            ("9", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("Reviews", false),
            ("foobar?", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(is_dns_label(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_star_stands_only_at_the_beginning_of_a_domain() {
        for (name, expected) in [
            ("*", true),
            ("*.bar.com", true),
            ("*foo", true),
            ("*-cnn.com", true),
            ("*0.0.100", true),
            ("cnn.com", true),
            ("foo.*.com", false),
            ("foo*.bar.com", false),
            ("**0", false),
            ("cnn..com", false),
            ("cnn.com:80", false),
        ] {
            assert_eq!(is_wildcard_domain(name), expected, "{name:?}");
        }
    }

    #[test]
    fn regular_expressions_are_those_of_re2_and_of_a_reasonable_size() {
        let node = crate::yaml::Node { mark: None, value: crate::yaml::Value::Null };
        for (pattern, expected) in [
            ("^(.*?;)?(user=jason)(;.*)?$", true),
            (r"\d+\p{Greek}", true),
            ("[ä-ü]", true),
            ("", true),
            ("(", false),
            (r"(a)\1", false),
            ("a(?=b)", false),
            ("(((a{100}){100}){100})", false),
            (&"a".repeat(5000), false),
            (&"(".repeat(4000), false),
        ] {
            let mut context = Context::new(None, &node);
            assert_eq!(regex(pattern, &mut context), expected, "{pattern}");
            assert_eq!(context.into_problems().is_empty(), expected, "{pattern}");
        }
    }
}
