//! Typed reading of trees, and everything that finds problems in them.
//!
//! Reading never stops at a problem: it notes it in the [`Context`] and goes on, so that all are known at the end. A
//! type that can be read implements [`Read`]; a mapping reads its fields one by one and then calls [`Fields::end`],
//! which reports those nobody asked for. Checks that come after reading use the same context and name fields by the
//! same paths; where a field stands is looked up only when there is something to say about it.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::problem::{Location, NOT_IN_FORCE, Problem};
use crate::suggest;
use crate::yaml::{Entry, Mark, Node, Value};

mod values;

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
    errors: usize,
    /// Number of problems that were found when there were enough.
    omitted: usize,
}

/// So many problems of one object are told; more help nobody, and an object could be made to have a million.
const MANY: usize = 100;

impl<'a> Context<'a> {
    /// Begins at the root of a document of the given file, if it came from one.
    #[must_use]
    pub fn new(file: Option<&'a str>, root: &'a Node) -> Self {
        Context { file, root, object: None, path: Vec::new(), problems: Vec::new(), errors: 0, omitted: 0 }
    }

    /// Names the object that problems are about from now on, as `RouteRule default/reviews`.
    pub fn name_object(&mut self, object: String) {
        self.object = Some(object);
    }

    /// All that was found, up to a number that nobody reads to the end.
    #[must_use]
    pub fn into_problems(mut self) -> Vec<Problem> {
        if self.omitted > 0 {
            self.path.clear();
            let problem = Problem::error(format!("there are {} more problems in this object", self.omitted));
            let problem = self.placed(problem, self.mark());
            self.problems.push(problem);
        }
        self.problems
    }

    /// Number of problems so far that refuse the object.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether nothing in what is looked at, or in its parts, has been refused.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let here = render_path(&self.path);
        self.omitted == 0
            && !self.problems.iter().any(|problem| {
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
        self.note(problem, Self::mark);
    }

    fn note(&mut self, problem: Problem, mark: impl FnOnce(&Self) -> Option<Mark>) {
        self.errors += usize::from(problem.is_error());
        if self.problems.len() < MANY {
            let problem = self.placed(problem, mark(self));
            self.problems.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    fn placed(&self, problem: Problem, mark: Option<Mark>) -> Problem {
        Problem {
            location: self.file.and_then(|file| mark.map(|mark| mark.in_file(file))),
            object: self.object.clone(),
            path: render_path(&self.path),
            ..problem
        }
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
        let problem = Problem::error(message).with_hint(hint);
        self.note(problem, |context| context.key_mark().or_else(|| context.mark()));
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

#[cfg(test)]
mod tests;
