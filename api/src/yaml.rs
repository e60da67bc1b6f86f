//! Text of YAML or JSON as trees of values that know where they stand.
//!
//! A file is a stream of documents. Each becomes a [`Node`]; a document that cannot be read becomes a [`Problem`] and
//! does not keep the others from being read. Typed readers walk the tree afterwards (see [`crate::read`]), so that all
//! problems of a file are found in one go, where serde would stop at the first.
//!
//! This is the only module that knows which YAML library is used.

use crate::problem::{Location, Problem};

mod compose;
mod scalar;
mod split;

/// The longest text that is read.
pub const MAX_TEXT: usize = 16 << 20;
/// How deep values may be nested.
pub const MAX_DEPTH: usize = 100;
/// How much aliases may add to a text, in nodes (a long string counts as several).
pub const MAX_EXPANSION: usize = 100_000;

/// A place in a text: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line in the file, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Mark {
    /// The place in the given file.
    #[must_use]
    pub fn in_file(self, file: &str) -> Location {
        Location { file: file.to_owned(), line: self.line, column: self.column }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins; `None` when it did not come from text.
    pub mark: Option<Mark>,
    /// The value.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false` (and YAML 1.1's `yes`, `no`, `on`, `off`, as kubectl reads them).
    Bool(bool),
    /// A number that JSON can hold.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in written order, without duplicates.
    Map(Vec<Entry>),
}

/// One field of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The field's name as written.
    pub key: String,
    /// Where the name stands.
    pub mark: Option<Mark>,
    /// The field's value.
    pub value: Node,
}

/// Reads every document of a text; `file` is the name that problems mention.
///
/// Documents without content are left out. Problems are those of the text itself: syntax, duplicate keys, limits.
///
/// # Examples
///
/// ```
/// let (documents, problems) = api::yaml::parse("pods.yaml", "a: 1\n---\nb: [\n---\nc: 3\n");
/// assert_eq!(documents.len(), 2);
/// assert_eq!(problems[0].location.as_ref().map(|at| at.line), Some(3));
/// ```
#[must_use]
pub fn parse(file: &str, text: &str) -> (Vec<Node>, Vec<Problem>) {
    let mut documents = Vec::new();
    let problems = each(file, text, |document| documents.push(document));
    (documents, problems)
}

/// Reads as [`parse`] does, but hands over each document as soon as it is read, so that only one is held at a time.
#[must_use]
pub fn each(file: &str, text: &str, mut take: impl FnMut(Node)) -> Vec<Problem> {
    let mut problems = Vec::new();
    if text.len() > MAX_TEXT {
        problems.push(
            Problem::error(format!("the text is longer than {} MiB", MAX_TEXT >> 20))
                .at(Location { file: file.to_owned(), line: 1, column: 1 })
                .with_hint("split it into several files"),
        );
        return problems;
    }
    let mut budget = MAX_EXPANSION;
    let mut documents = Vec::new();
    for chunk in split::chunks(text) {
        compose::documents(file, &chunk, &mut budget, &mut documents, &mut problems);
        documents.drain(..).for_each(&mut take);
    }
    problems
}

impl Node {
    /// A tree without places, from JSON.
    #[must_use]
    pub fn from_json(json: &serde_json::Value) -> Node {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.clone()),
            Json::String(text) => Value::String(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Node::from_json).collect()),
            Json::Object(fields) => Value::Map(
                fields
                    .iter()
                    .map(|(key, value)| Entry { key: key.clone(), mark: None, value: Node::from_json(value) })
                    .collect(),
            ),
        };
        Node { mark: None, value }
    }

    /// The value as JSON, in written order.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::Number(number.clone()),
            Value::String(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }

    /// The field of that name, if this is a mapping that has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.entries()?.iter().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    /// The fields, if this is a mapping.
    #[must_use]
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The text, if this is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is nothing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
}

/// Renders JSON as a YAML document, fields in their order, ending in a line break.
#[must_use]
pub fn render(json: &serde_json::Value) -> String {
    // Only a map with keys that are not text could fail, and JSON has none; JSON itself is YAML too.
    let mut text = serde_yaml::to_string(json).unwrap_or_else(|_| json.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
