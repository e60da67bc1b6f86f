//! Durations as text: `7s`, `0.5s`, `1m30s`, `100ms`.

use std::time::Duration;

use crate::read::{Context, Read};
use crate::yaml::{Node, Value};

/// A duration as typed; not checked yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

impl Read for DurationText {
    const WHAT: &'static str = "a duration such as `7s`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(DurationText(text.clone())),
            Value::Number(number) => {
                let message = format!("{} is {number}, a number without a unit", context.subject());
                context.error_with_hint(message, format!("write `{number}s` for seconds"));
                None
            }
            _ => {
                context.wrong_type(Self::WHAT, node);
                None
            }
        }
    }
}

impl DurationText {
    /// Checks the duration: at least a millisecond, and whole milliseconds.
    #[must_use]
    pub fn mean(&self, field: &'static str, context: &mut Context<'_>) -> Option<Duration> {
        context.within(field, |context| match parse(&self.0) {
            None => {
                let message = format!("`{field}` is `{}`, which is not a duration", self.0);
                context.error_with_hint(message, "write it like `7s`, `0.5s`, `100ms` or `1m30s`");
                None
            }
            Some(nanos) if nanos < 1_000_000 => {
                context.error(format!("`{field}` is `{}`, which is less than a millisecond", self.0));
                None
            }
            Some(nanos) if nanos % 1_000_000 != 0 => {
                context.error(format!("`{field}` is `{}`, which is not a whole number of milliseconds", self.0));
                None
            }
            Some(nanos) => u64::try_from(nanos / 1_000_000).ok().map(Duration::from_millis),
        })
    }
}

/// The longest duration: a century and more, far below what any clock can hold.
const MAX_NANOS: i128 = i64::MAX as i128;

/// Reads what Go's `time.ParseDuration` and proto JSON write: numbers with units, with a sign in front.
fn parse(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(nanos(number, unit_nanos(unit)?)?).filter(|total| *total <= MAX_NANOS)?;
        rest = tail;
    }
    Some(if negative { -total } else { total })
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn nanos(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > 18 || whole.len() > 18 {
        return None;
    }
    let read = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole = read(whole)?.checked_mul(unit)?;
    let fraction = read(fraction)?.checked_mul(unit)?;
    // A fraction of a nanosecond must not vanish: it is not a whole number of milliseconds.
    whole.checked_add(fraction.checked_add(scale - 1)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("7s", Some(7_000_000_000)),
            ("0.5s", Some(500_000_000)),
            (".5s", Some(500_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("100ms", Some(100_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("0", Some(0)),
            ("0.0000000001s", Some(1)),
            ("7", None),
            ("", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("7 s", None),
            ("7sec", None),
            ("9999999999999h", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
