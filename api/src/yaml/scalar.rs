//! What a scalar without quotes means, by the rules that kubectl reads YAML by.

use serde_json::Number;

use super::Value;

/// Resolves a plain scalar: YAML 1.2's core schema with YAML 1.1's `yes`, `on`, `0644` and `1_000`, as kubectl does.
///
/// A single `y` or `n` stays text, and so does what JSON cannot hold as a number (`.inf`, `.nan`).
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// Reads a number as YAML writes it.
pub(super) fn number(text: &str) -> Option<Number> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) {
        return None;
    }
    let (negative, digits) = match first {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    integer(negative, digits).or_else(|| float(negative, digits))
}

fn integer(negative: bool, digits: &str) -> Option<Number> {
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'0'..=b'7' | b'_', ..] if digits.bytes().all(|byte| matches!(byte, b'0'..=b'7' | b'_')) => {
            (8, &digits[1..])
        }
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) || !digits.chars().all(|c| c.is_digit(radix) || c == '_') {
        return None;
    }
    let value = if digits.contains('_') {
        u64::from_str_radix(&digits.replace('_', ""), radix)
    } else {
        u64::from_str_radix(digits, radix)
    };
    match (value.ok()?, negative) {
        (value, false) => Some(value.into()),
        (value, true) => 0_i64.checked_sub_unsigned(value).map(Number::from),
    }
}

fn float(negative: bool, digits: &str) -> Option<Number> {
    let has_digit = digits.bytes().any(|byte| byte.is_ascii_digit());
    let plausible =
        digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !has_digit || !plausible || digits.starts_with(['+', '-', 'e', 'E']) {
        return None;
    }
    let value: f64 = digits.parse().ok()?;
    Number::from_f64(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::yaml::Node;

    #[test]
    fn plain_scalars_mean_what_kubectl_makes_of_them() {
        for (text, expected) in [
            ("reviews", json!("reviews")),
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("y", json!("y")),
            ("7", json!(7)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("0644", json!(0o644)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("089", json!(89)),
            ("1_000", json!(1000)),
            ("1.5", json!(1.5)),
            ("-.5", json!(-0.5)),
            ("1e3", json!(1000.0)),
            ("7s", json!("7s")),
            ("1.2.3", json!("1.2.3")),
            ("10.0.0.1", json!("10.0.0.1")),
            (".inf", json!(".inf")),
            ("-", json!("-")),
            (".", json!(".")),
            ("2017-01-01", json!("2017-01-01")),
            ("1e999", json!("1e999")),
        ] {
            assert_eq!(Node { mark: None, value: resolve(text) }.to_json(), expected, "{text:?}");
        }
    }
}
