//! Typed reading of trees, and everything that finds problems in them.
//!
//! Reading never stops at a problem: it notes it in the [`Context`] and goes on, so that all are known at the end. A
//! type that can be read implements [`Read`]; a mapping reads its fields one by one and then calls [`Fields::end`],
//! which reports those nobody asked for. Checks that come after reading use the same context and name fields by the
//! same paths; where a field stands is looked up only when there is something to say about it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::problem::{Location, NOT_IN_FORCE, Problem};
use crate::suggest;
use crate::yaml::{Entry, Mark, Node, Value};

/// A type that can be read from a tree.
pub trait Read: Sized {
    /// What it is called in messages: `a whole number`.
    const WHAT: &'static str;

    /// Reads the value, or reports why it cannot be one. Only called on what is not null.
    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self>;
}

/// One step from a value into it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'a> {
    /// Into a field, by its name in camelCase.
    Field(Cow<'a, str>),
    /// Into a list, from 0.
    Index(usize),
}

impl From<&'static str> for Step<'_> {
    fn from(name: &'static str) -> Self {
        Step::Field(Cow::Borrowed(name))
    }
}

impl From<String> for Step<'_> {
    fn from(name: String) -> Self {
        Step::Field(Cow::Owned(name))
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// What is being looked at, and what was found so far.
#[derive(Debug)]
pub struct Context<'a> {
    file: Option<&'a str>,
    root: &'a Node,
    object: Option<String>,
    path: Vec<Step<'a>>,
    problems: Vec<Problem>,
}

impl<'a> Context<'a> {
    /// Begins at the root of a document of the given file, if it came from one.
    #[must_use]
    pub fn new(file: Option<&'a str>, root: &'a Node) -> Self {
        Context { file, root, object: None, path: Vec::new(), problems: Vec::new() }
    }

    /// Names the object that problems are about from now on, as `RouteRule default/reviews`.
    pub fn name_object(&mut self, object: String) {
        self.object = Some(object);
    }

    /// All that was found.
    #[must_use]
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Number of problems so far that refuse the object.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    /// Whether nothing in what is looked at, or in its parts, has been refused.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let here = render_path(&self.path);
        !self.problems.iter().any(|problem| {
            let below = problem.path.strip_prefix(&here);
            problem.is_error()
                && below.is_some_and(|rest| here.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Looks into a field or an element for the time of `look`.
    pub fn within<T>(&mut self, step: impl Into<Step<'a>>, look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step.into());
        let result = look(self);
        self.path.pop();
        result
    }

    /// Reports that what is looked at is wrong.
    pub fn error(&mut self, message: impl Into<String>) {
        self.report(Problem::error(message));
    }

    /// Reports that what is looked at is wrong, and what to do about it.
    pub fn error_with_hint(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Problem::error(message).with_hint(hint));
    }

    /// Reports something that is allowed, but probably not what was meant.
    pub fn warn(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Problem::warning(message).with_hint(hint));
    }

    /// Reports that a field of what is looked at is known, but does nothing yet.
    pub fn not_in_force(&mut self, field: &'static str) {
        self.within(field, |context| {
            context.error_with_hint(format!("`{field}` {NOT_IN_FORCE}"), "leave it out for now");
        });
    }

    fn report(&mut self, problem: Problem) {
        let problem = Problem {
            location: self.file.and_then(|file| self.mark().map(|mark| mark.in_file(file))),
            object: self.object.clone(),
            path: render_path(&self.path),
            ..problem
        };
        self.problems.push(problem);
    }

    /// Where the object begins, if it came from a file.
    #[must_use]
    pub fn origin(&self) -> Option<Location> {
        Some(self.root.mark?.in_file(self.file?))
    }

    /// Where what is looked at stands: a scalar itself, else the name of its field, else what it is missing from.
    fn mark(&self) -> Option<Mark> {
        let mut node = self.root;
        let mut mark = node.mark;
        for step in &self.path {
            let (next, name) = match (step, &node.value) {
                (Step::Field(name), Value::Map(entries)) => match find(entries, name) {
                    Some(entry) => (&entry.value, entry.mark),
                    None => return mark,
                },
                (Step::Index(index), Value::List(items)) => match items.get(*index) {
                    Some(item) => (item, item.mark),
                    None => return mark,
                },
                _ => return mark,
            };
            node = next;
            let is_scalar = !matches!(node.value, Value::Map(_) | Value::List(_) | Value::Null);
            mark = if is_scalar { node.mark } else { name };
        }
        mark
    }

    /// Reads a value and reports it when it is null.
    pub fn read<T: Read>(&mut self, node: &'a Node) -> Option<T> {
        if node.is_null() {
            self.error(format!("{} is missing", self.subject()));
            return None;
        }
        T::read(node, self)
    }

    /// Begins to read a mapping, or reports that this is none.
    pub fn fields(&mut self, node: &'a Node, what: &'static str) -> Option<Fields<'a, '_>> {
        match &node.value {
            Value::Map(entries) => Some(Fields { entries, context: self, asked: Vec::new() }),
            _ => {
                self.wrong_type(what, node);
                None
            }
        }
    }

    /// Reports that what is looked at is of the wrong type.
    pub fn wrong_type(&mut self, expected: &'static str, found: &Node) {
        let message = format!("{} must be {expected}, not {}", self.subject(), describe(found));
        let hint = match &found.value {
            Value::Number(number) if expected == String::WHAT => Some(format!("put it in quotes: \"{number}\"")),
            Value::Bool(value) if expected == String::WHAT => Some(format!("put it in quotes: \"{value}\"")),
            Value::String(text) if expected.contains("number") && text.trim().parse::<f64>().is_ok() => {
                Some(format!("leave the quotes out: {}", text.trim()))
            }
            _ => None,
        };
        match hint {
            Some(hint) => self.error_with_hint(message, hint),
            None => self.error(message),
        }
    }

    /// What is looked at, for the beginning of a message: `` `weight` ``.
    #[must_use]
    pub fn subject(&self) -> String {
        match self.path.as_slice() {
            [] => "the document".to_owned(),
            [.., Step::Field(name)] => format!("`{name}`"),
            [.., Step::Field(name), Step::Index(index)] => format!("`{name}[{index}]`"),
            [.., Step::Index(index)] => format!("`[{index}]`"),
        }
    }
}

fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text `{text}`"),
        Value::String(_) => "text".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

fn render_path(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => {
                // Writing to a string cannot fail.
                let _ = write!(text, "[{index}]");
            }
            Step::Field(name) if name.contains(['.', '/', '[']) => {
                let _ = write!(text, "[\"{name}\"]");
            }
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
        }
    }
    text
}

/// Whether a name as written is the field of that camelCase name: either spelling is good.
fn is_named(written: &str, name: &str) -> bool {
    if written == name {
        return true;
    }
    if !written.contains('_') {
        return false;
    }
    let mut upper = false;
    let mut expected = name.chars();
    for character in written.chars() {
        if character == '_' {
            upper = true;
            continue;
        }
        let character = if upper { character.to_ascii_uppercase() } else { character };
        upper = false;
        if expected.next() != Some(character) {
            return false;
        }
    }
    expected.next().is_none()
}

fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key == name).or_else(|| entries.iter().find(|entry| is_named(&entry.key, name)))
}

/// The fields of a mapping that is being read.
#[derive(Debug)]
pub struct Fields<'a, 'c> {
    entries: &'a [Entry],
    context: &'c mut Context<'a>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a, '_> {
    /// The field's value, in either spelling; null counts as absent.
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        self.asked.push(name);
        let mut found = self.entries.iter().filter(|entry| is_named(&entry.key, name));
        let first = found.next()?;
        if let Some(second) = found.next() {
            let message = format!("`{}` and `{}` are two spellings of one field", first.key, second.key);
            self.context.within(second.key.clone(), |context| context.error_with_hint(message, "keep one of the two"));
        }
        (!first.value.is_null()).then_some(&first.value)
    }

    /// Reads a field that may be missing.
    pub fn optional<T: Read>(&mut self, name: &'static str) -> Option<T> {
        let node = self.node(name)?;
        self.context.within(name, |context| T::read(node, context))
    }

    /// Reads a field and reports when it is missing.
    pub fn required<T: Read>(&mut self, name: &'static str) -> Option<T> {
        match self.node(name) {
            Some(node) => self.context.within(name, |context| T::read(node, context)),
            None => {
                self.context.error(format!("`{name}` is missing"));
                None
            }
        }
    }

    /// Passes over a field that is somebody else's business.
    pub fn ignore(&mut self, name: &'static str) {
        self.asked.push(name);
    }

    /// Refuses a field that no version of the mesh will support, if it is there.
    pub fn unsupported(&mut self, name: &'static str, hint: &'static str) {
        if self.node(name).is_some() {
            self.context.within(name, |context| context.error_with_hint(format!("`{name}` is not supported"), hint));
        }
    }

    /// Whether the field is there (null is not).
    #[must_use]
    pub fn has(&self, name: &'static str) -> bool {
        self.entries.iter().any(|entry| is_named(&entry.key, name) && !entry.value.is_null())
    }

    /// What is being read, to report on it.
    pub fn context(&mut self) -> &mut Context<'a> {
        self.context
    }

    /// Reports the fields that nobody asked for.
    pub fn end(self) {
        let Fields { entries, context, asked } = self;
        for entry in entries {
            if asked.iter().any(|name| is_named(&entry.key, name)) {
                continue;
            }
            let hint = suggest::closest(&entry.key, asked.iter().copied()).map_or_else(
                || format!("known here: {}", asked.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            let key = &entry.key;
            let message = match render_path(&context.path) {
                path if path.is_empty() => format!("unknown field `{key}`"),
                path => format!("unknown field `{key}` in `{path}`"),
            };
            context.unknown_field(key, message, hint);
        }
    }
}

impl Context<'_> {
    fn unknown_field(&mut self, key: &str, message: String, hint: String) {
        self.path.push(Step::Field(Cow::Owned(key.to_owned())));
        // The name is what is wrong, so that is where to point.
        let mark = self.key_mark().or_else(|| self.mark());
        let problem = Problem {
            location: self.file.and_then(|file| mark.map(|mark| mark.in_file(file))),
            object: self.object.clone(),
            path: render_path(&self.path),
            ..Problem::error(message).with_hint(hint)
        };
        self.problems.push(problem);
        self.path.pop();
    }

    fn key_mark(&self) -> Option<Mark> {
        let (last, parents) = self.path.split_last()?;
        let parent = parents.iter().try_fold(self.root, |node, step| match (step, &node.value) {
            (Step::Field(name), Value::Map(entries)) => find(entries, name).map(|entry| &entry.value),
            (Step::Index(index), Value::List(items)) => items.get(*index),
            _ => None,
        })?;
        match (last, &parent.value) {
            (Step::Field(name), Value::Map(entries)) => find(entries, name)?.mark,
            _ => None,
        }
    }
}

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

#[cfg(test)]
mod tests;
