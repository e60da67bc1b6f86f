//! Formats that are JSON objects.

use serde_json::{Map, Value};

use super::compile;
use super::format::{Format, FormatError, Manner};

/// Appends the object that `source` is.
pub(super) fn object(format: &mut Format, source: &str) -> Result<(), FormatError> {
    match serde_json::from_str(source) {
        Ok(Value::Object(map)) => members(format, &map),
        Ok(_) => Err(FormatError::Json("it is something else".to_owned())),
        Err(error) => Err(FormatError::Json(error.to_string())),
    }
}

fn members(format: &mut Format, map: &Map<String, Value>) -> Result<(), FormatError> {
    let mut before = "{";
    for (key, value) in map {
        format.literal(before.as_bytes());
        format.literal(Value::from(key.as_str()).to_string().as_bytes());
        format.literal(b":");
        before = ",";
        match value {
            Value::Object(map) => members(format, map)?,
            Value::String(text) => {
                self::value(format, text)
                    .map_err(|source| FormatError::Value { key: key.clone(), source: source.into() })?;
            }
            Value::Number(_) | Value::Bool(_) | Value::Null => format.literal(value.to_string().as_bytes()),
            Value::Array(_) => return Err(FormatError::Json(format!("the value of `{key}` is a list"))),
        }
    }
    format.literal(if map.is_empty() { b"{}" } else { b"}" });
    Ok(())
}

/// A value that is one operator has that operator's type; any other is text.
fn value(format: &mut Format, text: &str) -> Result<(), FormatError> {
    if compile::alone(text) {
        return compile::text(format, text, Manner::JsonValue);
    }
    format.literal(b"\"");
    compile::text(format, text, Manner::JsonText)?;
    format.literal(b"\"");
    Ok(())
}
