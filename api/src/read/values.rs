//! Reading of plain values, lists and mappings.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Context, Read, Step};
use crate::yaml::{Node, Value};

impl Read for String {
    const WHAT: &'static str = "text";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => {
                context.wrong_type(Self::WHAT, node);
                None
            }
        }
    }
}

impl Read for bool {
    const WHAT: &'static str = "true or false";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                context.wrong_type(Self::WHAT, node);
                None
            }
        }
    }
}

impl Read for i64 {
    const WHAT: &'static str = "a whole number";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        if let Value::Number(number) = &node.value {
            if let Some(value) = number.as_i64() {
                return Some(value);
            }
            // JSON knows one kind of number: 100.0 is a whole one.
            if let Some(value) = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 9e15) {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range, by the filter above")]
                return Some(value as i64);
            }
        }
        context.wrong_type(Self::WHAT, node);
        None
    }
}

impl Read for i32 {
    const WHAT: &'static str = "a whole number";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let value = i64::read(node, context)?;
        let narrow = i32::try_from(value).ok();
        if narrow.is_none() {
            let message =
                format!("{} is {value}, which is not between {} and {}", context.subject(), i32::MIN, i32::MAX);
            context.error(message);
        }
        narrow
    }
}

impl Read for f64 {
    const WHAT: &'static str = "a number";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let value = match &node.value {
            Value::Number(number) => number.as_f64(),
            _ => None,
        };
        if value.is_none() {
            context.wrong_type(Self::WHAT, node);
        }
        value
    }
}

impl<T: Read> Read for Vec<T> {
    const WHAT: &'static str = "a list";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            context.wrong_type(Self::WHAT, node);
            return None;
        };
        // An element that cannot be read is left out: its problem refuses the object anyway.
        Some(
            items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| context.within(index, |context| context.read(item)))
                .collect(),
        )
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    const WHAT: &'static str = "a mapping";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            context.wrong_type(Self::WHAT, node);
            return None;
        };
        Some(
            entries
                .iter()
                .filter_map(|entry| {
                    let step = Step::Field(Cow::Borrowed(entry.key.as_str()));
                    let value = context.within(step, |context| context.read(&entry.value))?;
                    Some((entry.key.clone(), value))
                })
                .collect(),
        )
    }
}
