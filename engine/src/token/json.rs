//! JSON without a member twice: two readers of such a text may see two different tokens.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::TokenError;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 16;
/// What the error of a second member begins with.
const TWICE: &str = "twice: ";

/// Reads JSON of limited depth in which no object has a member twice.
///
/// # Errors
/// When it is none.
pub fn parse_strictly(bytes: &[u8]) -> Result<Value, TokenError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(MAX_DEPTH).deserialize(&mut reader).map_err(|error| {
        if error.to_string().starts_with(TWICE) { TokenError::Duplicate } else { TokenError::Malformed }
    })?;
    reader.end().map_err(|_| TokenError::Malformed)?;
    Ok(value)
}

/// Reads a value of no more than this depth.
struct Strict(usize);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.0.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict(depth))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.0.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict(depth))?;
            if map.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{TWICE}{name}")));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_in_one_way_only() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        for (text, expected) in [
            (r#"{"a":1,"b":{"a":[true,null,"x",1.5,-2]}}"#, Ok(())),
            (r#"{"a":1,"a":1}"#, Err(TokenError::Duplicate)),
            (r#"{"a":{"b":1,"b":2}}"#, Err(TokenError::Duplicate)),
            // The same name, written differently.
            (r#"{"a":1,"\u0061":2}"#, Err(TokenError::Duplicate)),
            (r#"{"a":1}{"#, Err(TokenError::Malformed)),
            (r#"{"a":1e999}"#, Err(TokenError::Malformed)),
            (&deep, Err(TokenError::Malformed)),
            ("", Err(TokenError::Malformed)),
        ] {
            assert_eq!(parse_strictly(text.as_bytes()).map(drop), expected, "{text}");
        }
        assert_eq!(parse_strictly(b"\"\xff\""), Err(TokenError::Malformed));
    }
}
