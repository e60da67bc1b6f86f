//! Builds trees from the parser's events, within limits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, Tag};

use super::split::Chunk;
use super::{Entry, MAX_DEPTH, Mark, Node, Value, scalar};
use crate::problem::Problem;

/// Adds the chunk's documents and problems to those found before it.
pub(super) fn documents(
    file: &str,
    chunk: &Chunk<'_>,
    budget: &mut usize,
    documents: &mut Vec<Node>,
    problems: &mut Vec<Problem>,
) {
    let mut composer =
        Composer { chunk, budget, documents, found: Vec::new(), stack: Vec::new(), anchors: HashMap::new() };
    let stopped = composer.run();
    let mut found = composer.found;
    found.extend(stopped.err());
    problems.extend(found.into_iter().map(|trouble| {
        let problem = Problem::error(trouble.message).at(trouble.mark.in_file(file));
        match trouble.hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }));
}

struct Trouble {
    mark: Mark,
    message: String,
    hint: Option<&'static str>,
}

struct Composer<'c, 't> {
    chunk: &'c Chunk<'t>,
    budget: &'c mut usize,
    documents: &'c mut Vec<Node>,
    found: Vec<Trouble>,
    stack: Vec<Frame>,
    /// Nodes with an anchor, by the parser's number, with their height.
    anchors: HashMap<usize, (Node, usize)>,
}

/// A collection that is not complete yet.
struct Frame {
    mark: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<Key>, merges: Vec<(Mark, Node)>, keys: HashSet<String> },
}

/// The name of the field whose value comes next.
struct Key {
    name: String,
    mark: Mark,
    role: Role,
}

#[derive(PartialEq)]
enum Role {
    Field,
    Merge,
    Duplicate,
}

/// From this many fields on, duplicates are looked up in a set.
const MANY_FIELDS: usize = 16;

impl<'t> Composer<'_, 't> {
    fn run(&mut self) -> Result<(), Trouble> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        for next in Parser::new_from_str_with_options(self.chunk.text, options) {
            let (event, span) = next.map_err(|error| self.syntax(&error))?;
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Trouble> {
        let mark = self.mark(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                if self.awaits_key() {
                    return self.key(text.into_owned(), mark, style == ScalarStyle::Plain);
                }
                let value = scalar_value(text, style, tag.as_deref());
                return self.complete(Node { mark: Some(mark), value }, anchor, mark);
            }
            Event::SequenceStart(_, anchor, _) => return self.open(mark, anchor, Content::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                let (entries, merges, keys) = (Vec::new(), Vec::new(), HashSet::new());
                return self.open(mark, anchor, Content::Map { entries, key: None, merges, keys });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let value = self.close(frame.content);
                    return self.complete(Node { mark: Some(frame.mark), value }, frame.anchor, frame.mark);
                }
            }
            Event::Alias(anchor) => return self.alias(anchor, mark),
            _ => {}
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { content: Content::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, mark: Mark, anchor: usize, content: Content) -> Result<(), Trouble> {
        if self.awaits_key() {
            return Err(trouble(mark, "a list or a mapping cannot be the name of a field", None));
        }
        self.check_depth(mark, 1)?;
        self.stack.push(Frame { mark, anchor, content });
        Ok(())
    }

    fn check_depth(&self, mark: Mark, height: usize) -> Result<(), Trouble> {
        if self.stack.len() + height > MAX_DEPTH {
            return Err(too_deep(mark));
        }
        Ok(())
    }

    /// Takes the name of the next field. A duplicate is reported, and its value dropped on completion.
    fn key(&mut self, name: String, mark: Mark, plain: bool) -> Result<(), Trouble> {
        let Some(Frame { content: Content::Map { entries, key, keys, .. }, .. }) = self.stack.last_mut() else {
            return Ok(());
        };
        let is_merge = plain && name == "<<";
        let duplicate = !is_merge
            && if entries.len() < MANY_FIELDS {
                entries.iter().any(|entry| entry.key == name)
            } else {
                if keys.is_empty() {
                    keys.extend(entries.iter().map(|entry| entry.key.clone()));
                }
                !keys.insert(name.clone())
            };
        if duplicate {
            let first = entries.iter().find(|entry| entry.key == name).and_then(|entry| entry.mark);
            let first = first.map_or(0, |mark| mark.line);
            let message = format!("field `{name}` is here a second time; the first is on line {first}");
            self.found.push(trouble(mark, message, Some("keep one of the two")));
        }
        let role = match (is_merge, duplicate) {
            (true, _) => Role::Merge,
            (_, true) => Role::Duplicate,
            _ => Role::Field,
        };
        *key = Some(Key { name, mark, role });
        Ok(())
    }

    /// Puts a complete node where it belongs: into the open collection, or among the documents.
    fn complete(&mut self, node: Node, anchor: usize, mark: Mark) -> Result<(), Trouble> {
        if anchor != 0 {
            let cost = cost(&node);
            self.spend(cost, mark)?;
            self.anchors.insert(anchor, (node.clone(), height(&node)));
        }
        match self.stack.last_mut() {
            None => {
                if !node.is_null() {
                    self.documents.push(node);
                }
            }
            Some(Frame { content: Content::List(items), .. }) => items.push(node),
            Some(Frame { content: Content::Map { entries, key, merges, .. }, .. }) => match key.take() {
                Some(Key { mark, role: Role::Merge, .. }) => merges.push((mark, node)),
                Some(Key { name, mark, role: Role::Field }) => {
                    entries.push(Entry { key: name, mark: Some(mark), value: node });
                }
                Some(Key { role: Role::Duplicate, .. }) | None => {}
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), Trouble> {
        let Some((node, height)) = self.anchors.get(&anchor) else {
            return Err(trouble(mark, "the alias stands inside of what it names", None));
        };
        if self.awaits_key() {
            return match &node.value {
                Value::String(text) => self.key(text.clone(), mark, false),
                _ => Err(trouble(mark, "only text can be the name of a field", None)),
            };
        }
        let (cost, height) = (cost(node), *height);
        self.check_depth(mark, height)?;
        self.spend(cost, mark)?;
        let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
        self.complete(node.clone(), 0, mark)
    }

    fn spend(&mut self, cost: usize, mark: Mark) -> Result<(), Trouble> {
        match self.budget.checked_sub(cost) {
            Some(rest) => {
                *self.budget = rest;
                Ok(())
            }
            None => Err(trouble(mark, "aliases make this text too large", Some("write the values out"))),
        }
    }

    fn close(&mut self, content: Content) -> Value {
        match content {
            Content::List(items) => Value::List(items),
            Content::Map { mut entries, merges, .. } => {
                for (mark, node) in merges {
                    if !merge(&mut entries, node) {
                        self.found.push(trouble(mark, "`<<` must be a mapping or a list of mappings", None));
                    }
                }
                Value::Map(entries)
            }
        }
    }

    fn mark(&self, line: usize, column: usize) -> Mark {
        let (line, column) =
            (u32::try_from(line).unwrap_or(u32::MAX).max(1), u32::try_from(column).unwrap_or(u32::MAX));
        let shift = if line == 1 { self.chunk.column } else { 0 };
        Mark { line: line.saturating_add(self.chunk.line), column: column.saturating_add(shift).saturating_add(1) }
    }

    fn syntax(&self, error: &ScanError) -> Trouble {
        let mark = self.mark(error.marker().line(), error.marker().col());
        let text = error.info();
        if text.contains("recursion limit") {
            return too_deep(mark);
        }
        let tab = text.contains("tab") || text.contains("Tab");
        let hint = if tab { Some("indent with spaces, not with tabs") } else { None };
        trouble(mark, format!("this is not YAML: {text}"), hint)
    }
}

fn too_deep(mark: Mark) -> Trouble {
    trouble(mark, format!("values are nested more than {MAX_DEPTH} deep"), None)
}

fn trouble(mark: Mark, message: impl Into<String>, hint: Option<&'static str>) -> Trouble {
    Trouble { mark, message: message.into(), hint }
}

fn scalar_value(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    match tag.and_then(Tag::core_suffix) {
        Some("str" | "binary") => Value::String(text.into_owned()),
        Some("int" | "float") => scalar::number(&text).map_or_else(|| Value::String(text.into_owned()), Value::Number),
        Some("bool" | "null") => scalar::resolve(&text),
        _ if style == ScalarStyle::Plain => scalar::resolve(&text),
        _ => Value::String(text.into_owned()),
    }
}

/// Adds the fields of a merge (`<<`) that are not there yet; says whether it was one.
fn merge(entries: &mut Vec<Entry>, node: Node) -> bool {
    let sources = match node.value {
        Value::List(items) => items,
        _ => vec![node],
    };
    let mut known: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for source in sources {
        let Value::Map(merged) = source.value else { return false };
        entries.extend(merged.into_iter().filter(|entry| known.insert(entry.key.clone())));
    }
    true
}

/// What a copy of a node costs, in nodes.
fn cost(node: &Node) -> usize {
    match &node.value {
        Value::String(text) => 1 + text.len() / 64,
        Value::List(items) => 1 + items.iter().map(cost).sum::<usize>(),
        Value::Map(entries) => {
            1 + entries.iter().map(|entry| 1 + entry.key.len() / 64 + cost(&entry.value)).sum::<usize>()
        }
        _ => 1,
    }
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| height(&entry.value)).max().unwrap_or(0),
        _ => 1,
    }
}
