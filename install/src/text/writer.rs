//! Writes what is added to an object between the lines that are there, or in their brackets.

use std::collections::VecDeque;

use api::names::STATUS;
use api::yaml::{Mark, Node, Value};
use serde_json::{Value as Json, json};

use super::Obstacle;
use super::lines::{Edit, Lines, is_indentless, last_line};
use super::spot::Spot;
use crate::inject::stand_in;

/// How a place can be extended.
pub(super) enum Shape {
    /// By lines at `at`, each indented to `column` (from 0).
    Lines { at: usize, column: usize },
    /// By items after the bracket that ends at `at`.
    Flow { at: usize, is_empty: bool },
}

/// Renders what is added, and keeps what it has rendered, part by part: the objects of a file are given nearly the same, and each
/// something of its own.
#[derive(Default)]
pub(super) struct Renderer {
    kept: VecDeque<Part>,
    /// Where the part after the last one stands that was found: they are asked for in the same order again and again.
    next: usize,
}

/// A field, or an item of the list in one, and its lines.
struct Part {
    key: String,
    is_item: bool,
    value: Json,
    lines: String,
}

impl Renderer {
    /// A value as lines without indentation: what [`api::yaml::render`] makes of it.
    fn lines(&mut self, value: &Json) -> String {
        let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) else {
            return api::yaml::render(value);
        };
        let mut text = String::with_capacity(2048);
        for (key, value) in fields {
            match value.as_array() {
                // A list stands at its field's own indentation.
                Some(items) if !items.is_empty() => {
                    let head = self.part(key, false, &json!([]));
                    text.extend([head.trim_end_matches(" []\n"), "\n"]);
                    items.iter().for_each(|item| text.push_str(self.part(key, true, item)));
                }
                _ => text.push_str(self.part(key, false, value)),
            }
        }
        text
    }

    fn part(&mut self, key: &str, is_item: bool, value: &Json) -> &str {
        const KEPT: usize = 128;
        let is_it = |part: &Part| part.is_item == is_item && part.key == key && part.value == *value;
        let count = self.kept.len();
        let found = (0..count).map(|away| (self.next + away) % count).find(|at| is_it(&self.kept[*at]));
        let at = found.unwrap_or_else(|| {
            if count == KEPT {
                self.kept.pop_front();
            }
            let lines = api::yaml::render(&if is_item { json!([value]) } else { json!({ key: value }) });
            self.kept.push_back(Part { key: key.to_owned(), is_item, value: value.clone(), lines });
            self.kept.len() - 1
        });
        self.next = if found.is_some() { at + 1 } else { self.next.saturating_sub(usize::from(count == KEPT)) };
        &self.kept[at].lines
    }
}

/// Collects insertions.
pub(super) struct Writer<'a, 't> {
    pub(super) lines: &'a Lines<'t>,
    pub(super) renderer: &'a mut Renderer,
    pub(super) edits: &'a mut Vec<Edit>,
}

impl Writer<'_, '_> {
    pub(super) fn annotation(&mut self, pod: Spot<'_>, status: &str) -> Result<(), (String, Obstacle)> {
        let Some(metadata) = pod.field("metadata") else {
            return self.fields(pod, "its pod template", &json!({"metadata": {"annotations": {STATUS: status}}}));
        };
        match metadata.field("annotations") {
            None => self.fields(metadata, "metadata", &json!({"annotations": {STATUS: status}})),
            Some(annotations) => self.fields(annotations, "metadata.annotations", &json!({STATUS: status})),
        }
    }

    /// Adds fields to a mapping.
    fn fields(&mut self, map: Spot<'_>, name: &str, fields: &Json) -> Result<(), (String, Obstacle)> {
        match self.shape(map).map_err(|why| (name.to_owned(), why))? {
            Shape::Lines { at, column } => {
                // The status differs from object to object: keeping it would be of no use.
                let text = indented(&api::yaml::render(fields), column);
                self.edits.push(self.lines.insertion(at, text, None));
            }
            Shape::Flow { at, is_empty } => {
                let text = fields.to_string();
                // Without its own brackets.
                self.flow(map.node, at, is_empty, &[text[1..text.len() - 1].to_owned()]);
            }
        }
        Ok(())
    }

    /// Adds items to a list.
    pub(super) fn items(&mut self, list: Spot<'_>, name: &str, items: &[Json]) -> Result<(), (String, Obstacle)> {
        match self.shape(list).map_err(|why| (format!("spec.{name}"), why))? {
            Shape::Lines { at, column } => {
                let (text, stand_in) = (self.rendered(items, column), stand_ins(items, column));
                self.edits.push(self.lines.insertion(at, text, Some(stand_in)));
            }
            Shape::Flow { at, is_empty } => {
                let parts: Vec<String> = items.iter().map(Json::to_string).collect();
                self.flow(list.node, at, is_empty, &parts);
                let stand_ins: Vec<String> = items.iter().map(|item| stand_in(item).to_string()).collect();
                self.check_flow(list.node, at, is_empty, &stand_ins);
            }
        }
        Ok(())
    }

    /// Adds a list to a mapping.
    pub(super) fn new_list(
        &mut self,
        map: Spot<'_>,
        name: &str,
        items: &[Json],
        step: usize,
    ) -> Result<(), (String, Obstacle)> {
        match self.shape(map).map_err(|why| ("spec".to_owned(), why))? {
            Shape::Lines { at, column } => {
                let head = format!("{:column$}{name}:\n", "");
                let (text, stand_in) = (self.rendered(items, column + step), stand_ins(items, column + step));
                self.edits.push(self.lines.insertion(at, format!("{head}{text}"), Some(format!("{head}{stand_in}"))));
            }
            Shape::Flow { at, is_empty } => {
                let list = |items: Vec<String>| [format!("\"{name}\": [{}]", items.join(", "))];
                self.flow(map.node, at, is_empty, &list(items.iter().map(Json::to_string).collect()));
                let stand_ins = items.iter().map(|item| stand_in(item).to_string()).collect();
                self.check_flow(map.node, at, is_empty, &list(stand_ins));
            }
        }
        Ok(())
    }

    /// Adds an item to a list of a container, which is an item of a list itself.
    pub(super) fn item(&mut self, container: Spot<'_>, name: &str, item: &Json) -> Result<(), Obstacle> {
        let shape = match container.field(name) {
            Some(list) => self.shape(list)?,
            None if self.lines.is_flow(container.node) => {
                let Shape::Flow { at, is_empty } = self.shape(container)? else { return Err(Obstacle::Shape) };
                self.flow(container.node, at, is_empty, &[format!("\"{name}\": [{item}]")]);
                return Ok(());
            }
            None => {
                let (at, column) = self.below_first(container)?;
                let text = format!("{:column$}{name}:\n{:column$}- {item}\n", "", "");
                self.edits.push(self.lines.insertion(at, text, None));
                return Ok(());
            }
        };
        match shape {
            Shape::Lines { at, column } => {
                let text = format!("{:column$}- {item}\n", "");
                self.edits.push(self.lines.insertion(at, text, None));
            }
            Shape::Flow { at, is_empty } => {
                let list = container.field(name).ok_or(Obstacle::Shape)?;
                self.flow(list.node, at, is_empty, &[item.to_string()]);
            }
        }
        Ok(())
    }

    /// Where a field can be added to an item of a list whose first field stands on the item's own line, and its column.
    fn below_first(&self, item: Spot<'_>) -> Result<(usize, usize), Obstacle> {
        let Value::Map(entries) = &item.node.value else { return Err(Obstacle::Shape) };
        let first = entries.first().ok_or(Obstacle::Shape)?;
        let mark = first.mark.ok_or(Obstacle::Shape)?;
        if item.node.mark.is_some_and(|begin| mark < begin) {
            return Err(Obstacle::Alias);
        }
        let column = usize::try_from(mark.column).unwrap_or(1).saturating_sub(1);
        if let Value::List(_) | Value::Map(_) = &first.value.value {
            let last = last_line(self.lines, &first.value).ok_or(Obstacle::Shape)?;
            return Ok((self.lines.end(last), column));
        }
        Ok((self.lines.end(mark.line), column))
    }

    fn rendered(&mut self, items: &[Json], column: usize) -> String {
        let mut text = String::new();
        for item in items {
            let rendered = self.renderer.lines(item);
            text.reserve(rendered.len() + rendered.len() / 2);
            for (number, line) in rendered.split_inclusive('\n').enumerate() {
                let dash = if number == 0 { "- " } else { "  " };
                push_line(&mut text, column, dash, line);
            }
        }
        text
    }

    /// Inserts after an opening bracket: each part on a line of its own if the bracket ends its line, else right there.
    fn flow(&mut self, node: &Node, at: usize, is_empty: bool, parts: &[String]) {
        let (at, text) = self.in_brackets(node, at, is_empty, parts);
        self.edits.push(self.lines.insertion(at, text, None));
    }

    /// Gives the last insertion a stand-in with these parts.
    fn check_flow(&mut self, node: &Node, at: usize, is_empty: bool, parts: &[String]) {
        let (_, text) = self.in_brackets(node, at, is_empty, parts);
        if let Some(edit) = self.edits.last_mut() {
            edit.stand_in = Some(text);
        }
    }

    fn in_brackets(&self, node: &Node, at: usize, is_empty: bool, parts: &[String]) -> (usize, String) {
        let rest = self.lines.text.get(at..).unwrap_or_default();
        let line = rest.split_inclusive('\n').next().unwrap_or_default();
        let first = match &node.value {
            Value::List(items) => items.first().and_then(|item| item.mark),
            Value::Map(entries) => entries.first().and_then(|entry| entry.mark),
            _ => None,
        };
        match first {
            Some(first) if line.trim().is_empty() && line.ends_with('\n') => {
                let column = usize::try_from(first.column).unwrap_or(1).saturating_sub(1);
                (at + line.len(), parts.iter().map(|part| format!("{:column$}{part},\n", "")).collect())
            }
            _ => (at, parts.join(", ") + if is_empty { "" } else { ", " }),
        }
    }

    /// How a mapping or list can be extended at its beginning.
    fn shape(&self, spot: Spot<'_>) -> Result<Shape, Obstacle> {
        let lines = self.lines;
        let mark = spot.node.mark.ok_or(Obstacle::Shape)?;
        if spot.key.is_some_and(|key| mark < key) {
            return Err(Obstacle::Alias);
        }
        let begins = lines.from(mark).ok_or(Obstacle::Shape)?;
        let is_empty = match &spot.node.value {
            Value::Null => return self.nothing(spot.key.ok_or(Obstacle::Shape)?),
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => return Err(Obstacle::Shape),
        };
        if lines.is_flow(spot.node) {
            let at = lines.offset(mark).ok_or(Obstacle::Shape)? + 1;
            return Ok(Shape::Flow { at, is_empty });
        }
        let column = match spot.key {
            Some(key) if is_indentless(spot.node) => key.column,
            _ if begins.starts_with(['&', '!', '*']) => return Err(Obstacle::Decorated),
            _ => mark.column,
        };
        let column = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        match spot.key {
            Some(key) if mark.line > key.line => Ok(Shape::Lines { at: lines.end(key.line), column }),
            Some(_) => Err(Obstacle::Decorated),
            None if lines.is_first(mark) => {
                Ok(Shape::Lines { at: lines.start(mark.line).ok_or(Obstacle::Shape)?, column })
            }
            None => Err(Obstacle::OnItemLine),
        }
    }

    /// A field whose value is not written at all can be given one below its name.
    fn nothing(&self, key: Mark) -> Result<Shape, Obstacle> {
        let line = self.lines.from(key).and_then(|text| text.lines().next()).ok_or(Obstacle::Shape)?;
        let after = line.split_once(':').map_or(line, |(_, after)| after).trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(Obstacle::Null);
        }
        let column = usize::try_from(key.column).unwrap_or(1) + 1;
        Ok(Shape::Lines { at: self.lines.end(key.line), column })
    }
}

fn stand_ins(items: &[Json], column: usize) -> String {
    items.iter().map(|item| format!("{:column$}- {}\n", "", stand_in(item))).collect()
}

fn indented(text: &str, column: usize) -> String {
    let mut result = String::with_capacity(text.len() + 64);
    text.split_inclusive('\n').for_each(|line| push_line(&mut result, column, "", line));
    result
}

fn push_line(text: &mut String, column: usize, before: &str, line: &str) {
    if !line.trim().is_empty() {
        text.extend(std::iter::repeat_n(' ', column));
        text.push_str(before);
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Images, Injection};

    #[test]
    fn what_is_rendered_part_by_part_is_what_is_rendered_whole() {
        let injection = Injection::new(Images::of_version("1"), "-----BEGIN\n\nx\n-----END\n");
        let mut renderer = Renderer::default();
        // So many that parts are forgotten, and made again.
        for round in 0..300 {
            let pod = json!({
                "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": format!("no-{round}")},
                "spec": {"template": {"metadata": {"labels": {"app": if round % 7 == 0 { "a" } else { "b" }}},
                         "spec": {"containers": [{"name": "app"}]}}},
            });
            let additions = crate::inject::plan_object(&pod, &injection).expect("sound").expect("injected");
            let lists = [additions.init_containers, additions.containers, additions.volumes];
            for item in lists.iter().flatten() {
                assert_eq!(renderer.lines(item), api::yaml::render(item));
            }
            assert!(renderer.kept.len() <= 128);
        }
        for odd in
            [json!({"a b": [1], "e": [], "n": [[1, 2], {}], "o": {}, "t": ["x: y", "a\nb\n"]}), json!({}), json!([1])]
        {
            assert_eq!(renderer.lines(&odd), api::yaml::render(&odd));
        }
    }
}
