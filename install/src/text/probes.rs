//! Probes in the text of an object: what the user wrote stays beside what takes its place.
//!
//! A handler that is written as lines stays as comments above the new one; one that is written in brackets is kept in the
//! status, as JSON knows no comments.

use api::yaml::{Entry, Node, Value};
use serde_json::{Value as Json, json};

use super::Obstacle;
use super::lines::{Edit, Lines, flow_end, last_line};
use super::spot::Spot;
use crate::inject::{Additions, Original, Rewrite};

/// What a line of the user's begins with while the proxy's stands below it.
const KEPT: &str = "#was: ";

/// Collects the edits that make probes ask the proxy, and notes in the status how the text comes back.
pub(super) fn rewrite(
    lines: &Lines<'_>,
    spec: Spot<'_>,
    additions: &mut Additions,
    edits: &mut Vec<Edit>,
) -> Result<(), (String, Obstacle)> {
    for (at, rewrite) in additions.rewrites.iter().enumerate() {
        let name = || format!("the {} of container {}", rewrite.probe, rewrite.container);
        let kept = one(lines, spec, rewrite, edits).map_err(|why| (name(), why))?;
        let (key, value) = match kept {
            Kept::Lines(count) => ("lines", json!(count)),
            Kept::Text(text) => ("text", json!(text)),
        };
        additions.status["probes"][at][key] = value;
    }
    Ok(())
}

/// How the text of a handler is kept.
enum Kept {
    /// As comments, so many lines.
    Lines(usize),
    /// In the status.
    Text(String),
}

fn one(lines: &Lines<'_>, spec: Spot<'_>, rewrite: &Rewrite, edits: &mut Vec<Edit>) -> Result<Kept, Obstacle> {
    let list = spec.field(rewrite.list).ok_or(Obstacle::Shape)?;
    let Value::List(items) = &list.node.value else { return Err(Obstacle::Shape) };
    let container = items.get(rewrite.index).map(Spot::root).ok_or(Obstacle::Shape)?;
    let probe = container.at(rewrite.probe).ok_or(Obstacle::Shape)?;
    if is_alias(probe) {
        // Whoever else has the same probe keeps it: this one gets one of its own.
        let (map, key) = match rewrite.probe.split_once('.') {
            Some((parent, key)) => (container.field(parent).ok_or(Obstacle::Shape)?, key),
            None => (container, rewrite.probe),
        };
        let mut own = probe.node.to_json();
        if let Some(fields) = own.as_object_mut() {
            fields.shift_remove(rewrite.key);
            fields.insert("httpGet".to_owned(), rewrite.now.clone());
        }
        return comment_out(lines, map.entry(key).ok_or(Obstacle::Shape)?, (key, &own), edits);
    }
    let entry = probe.entry(rewrite.key).ok_or(Obstacle::Shape)?;
    if !lines.is_flow(probe.node) {
        return comment_out(lines, entry, ("httpGet", &rewrite.now), edits);
    }
    let range = range_of(lines, entry).ok_or(Obstacle::Alias)?;
    let text = lines.text.get(range.clone()).ok_or(Obstacle::Shape)?.to_owned();
    edits.push(Edit { range, text: format!("\"httpGet\": {}", rewrite.now), stand_in: None });
    Ok(Kept::Text(text))
}

/// Turns the lines of a field into comments, and writes another one below them.
fn comment_out(
    lines: &Lines<'_>,
    entry: &Entry,
    (key, value): (&str, &Json),
    edits: &mut Vec<Edit>,
) -> Result<Kept, Obstacle> {
    let mark = entry.mark.ok_or(Obstacle::Shape)?;
    if !lines.is_first(mark) {
        return Err(Obstacle::OnItemLine);
    }
    let last = if is_alias(Spot { node: &entry.value, key: entry.mark }) {
        mark.line
    } else {
        last_line(lines, &entry.value).ok_or(Obstacle::Shape)?
    };
    let (start, end) = (lines.start(mark.line).ok_or(Obstacle::Shape)?, lines.end(last));
    let column = usize::try_from(mark.column).unwrap_or(1).saturating_sub(1);
    let old = lines.text.get(start..end).ok_or(Obstacle::Shape)?;
    let mut text = String::with_capacity(old.len() * 2);
    for line in old.split_inclusive('\n') {
        let indentation = line.len() - line.trim_start_matches(' ').len();
        let (before, rest) = line.split_at(indentation.min(column));
        text.push_str(before);
        text.push_str(KEPT);
        text.push_str(rest);
    }
    let line_break = if old.contains("\r\n") { "\r\n" } else { "\n" };
    let is_open = !old.ends_with('\n');
    if is_open {
        text.push_str(line_break);
    }
    text.push_str(&format!("{:column$}{key}: {value}", ""));
    if !is_open {
        text.push_str(line_break);
    }
    let count = old.split_inclusive('\n').count();
    edits.push(Edit { range: start..end, text, stand_in: None });
    Ok(Kept::Lines(count))
}

/// Collects the edits that give probes their handlers back.
pub(super) fn restore(
    lines: &Lines<'_>,
    spec: Spot<'_>,
    originals: &[Original],
    edits: &mut Vec<Edit>,
) -> Result<(), (String, Obstacle)> {
    for original in originals {
        let name = || format!("the {} of container {}", original.probe, original.container);
        back(lines, spec, original, edits).map_err(|why| (name(), why))?;
    }
    Ok(())
}

fn back(lines: &Lines<'_>, spec: Spot<'_>, original: &Original, edits: &mut Vec<Edit>) -> Result<(), Obstacle> {
    let Some(container) = container(spec, &original.container) else { return Ok(()) };
    let Some(probe) = container.at(&original.probe) else { return Ok(()) };
    let Some(entry) = probe.entry("httpGet") else { return Ok(()) };
    let (map, key) = match original.probe.split_once('.') {
        Some((parent, key)) => (container.field(parent), key),
        None => (Some(container), original.probe.as_str()),
    };
    // The comments are above the handler, or above the whole probe if that came from an alias.
    for entry in [Some(entry), map.and_then(|map| map.entry(key))].into_iter().flatten() {
        if let Some(edit) = original.lines.and_then(|count| uncommented(lines, entry, count)) {
            edits.push(edit);
            return Ok(());
        }
    }
    let fields = || {
        let fields = original.was.iter().map(|(key, value)| format!("{}: {value}", json!(key)));
        fields.collect::<Vec<_>>().join(", ")
    };
    if lines.is_flow(probe.node) {
        let range = range_of(lines, entry).ok_or(Obstacle::Alias)?;
        edits.push(Edit { range, text: original.text.clone().unwrap_or_else(fields), stand_in: None });
        return Ok(());
    }
    // Somebody has written the file anew, without comments.
    let mark = entry.mark.filter(|mark| lines.is_first(*mark)).ok_or(Obstacle::OnItemLine)?;
    let last = last_line(lines, &entry.value).ok_or(Obstacle::Shape)?;
    let (start, end) = (lines.start(mark.line).ok_or(Obstacle::Shape)?, lines.end(last));
    let column = usize::try_from(mark.column).unwrap_or(1).saturating_sub(1);
    let mut text = String::new();
    for line in api::yaml::render(&Json::Object(original.was.clone())).lines() {
        text.push_str(&format!("{:column$}{line}\n", ""));
    }
    edits.push(Edit { range: start..end, text, stand_in: None });
    Ok(())
}

fn container<'n>(spec: Spot<'n>, name: &str) -> Option<Spot<'n>> {
    ["containers", "initContainers"].into_iter().find_map(|list| match &spec.field(list)?.node.value {
        Value::List(items) => {
            items.iter().find(|item| item.field("name").and_then(Node::text) == Some(name)).map(Spot::root)
        }
        _ => None,
    })
}

/// The `count` comments above a field made lines again, without the field; `None` if they are not what is above it.
fn uncommented(lines: &Lines<'_>, entry: &Entry, count: usize) -> Option<Edit> {
    let mark = entry.mark?;
    let first = mark.line.checked_sub(u32::try_from(count).ok()?).filter(|line| *line > 0 && count > 0)?;
    let (start, middle) = (lines.start(first)?, lines.start(mark.line)?);
    let end = lines.end(last_line(lines, &entry.value)?);
    let mut text = String::new();
    for line in lines.text.get(start..middle)?.split_inclusive('\n') {
        let (before, rest) = line.split_once(KEPT)?;
        if !before.trim().is_empty() {
            return None;
        }
        text.push_str(before);
        text.push_str(rest);
    }
    if end == lines.text.len() && !lines.text.ends_with('\n') {
        let line = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(line);
    }
    Some(Edit { range: start..end, text, stand_in: None })
}

/// Where a field in brackets stands, from its name to the end of its value.
fn range_of(lines: &Lines<'_>, entry: &Entry) -> Option<std::ops::Range<usize>> {
    let start = lines.offset(entry.mark?)?;
    let begin = lines.offset(entry.value.mark?).filter(|begin| *begin > start)?;
    Some(start..begin + lines.text.get(begin..).and_then(flow_end)?)
}

/// Whether a value stands elsewhere: before the name of its field.
fn is_alias(spot: Spot<'_>) -> bool {
    match (spot.key, spot.node.mark) {
        (Some(key), Some(mark)) => mark < key,
        _ => false,
    }
}
