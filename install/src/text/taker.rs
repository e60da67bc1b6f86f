//! Takes fields and items out of an object, with their lines or from their brackets.

use api::names::STATUS;
use api::yaml::{Mark, Node, Value};

use super::Obstacle;
use super::lines::{Edit, Lines, flow_end, last_line};
use super::spot::Spot;
use crate::inject::Status;

/// Collects removals.
pub(super) struct Taker<'a, 't> {
    pub(super) lines: &'a Lines<'t>,
    pub(super) edits: &'a mut Vec<Edit>,
}

impl Taker<'_, '_> {
    /// Takes the status, and with it the mappings that were made for it.
    pub(super) fn annotation(&mut self, pod: Spot<'_>, status: &Status) -> Result<(), Obstacle> {
        let metadata = pod.field("metadata").ok_or(Obstacle::Shape)?;
        let annotations = metadata.field("annotations").ok_or(Obstacle::Shape)?;
        let is_last = |spot: Spot<'_>| spot.node.entries().is_some_and(|entries| entries.len() == 1);
        if !(is_last(annotations) && status.created("annotations")) {
            return self.field(annotations, STATUS);
        }
        if !(is_last(metadata) && status.created("metadata")) {
            return self.field(metadata, "annotations");
        }
        self.field(pod, "metadata")
    }

    /// Takes the items of these names out of a list, or the whole list if it was made for them.
    pub(super) fn items(
        &mut self,
        (map, name): (Spot<'_>, &str),
        names: &[String],
        is_made: bool,
    ) -> Result<(), (String, Obstacle)> {
        let Some(list) = map.field(name) else { return Ok(()) };
        let Value::List(items) = &list.node.value else { return Ok(()) };
        let is_ours = |item: &&Node| {
            let name = item.field("name").and_then(Node::text);
            name.is_some_and(|name| names.iter().any(|own| own == name))
        };
        let ours: Vec<&Node> = items.iter().filter(is_ours).collect();
        let result = if ours.len() == items.len() && is_made {
            self.field(map, name)
        } else {
            let is_flow = self.lines.is_flow(list.node);
            ours.iter().try_for_each(|item| match is_flow {
                true => self.flow(item.mark.ok_or(Obstacle::Shape)?, item),
                false => self.block(item.mark.ok_or(Obstacle::Shape)?, item),
            })
        };
        result.map_err(|why| (name.to_owned(), why))
    }

    fn field(&mut self, map: Spot<'_>, name: &str) -> Result<(), Obstacle> {
        let entry = map.entry(name).ok_or(Obstacle::Shape)?;
        let mark = entry.mark.ok_or(Obstacle::Shape)?;
        if map.node.mark.is_some_and(|begin| mark < begin) {
            return Err(Obstacle::Alias);
        }
        if self.lines.is_flow(map.node) {
            return self.flow(mark, &entry.value);
        }
        if !self.lines.is_first(mark) {
            return Err(Obstacle::OnItemLine);
        }
        self.block(mark, &entry.value)
    }

    /// Takes the lines from that of `mark` to the last of the value.
    fn block(&mut self, mark: Mark, value: &Node) -> Result<(), Obstacle> {
        let last = last_line(self.lines, value).ok_or(Obstacle::Shape)?;
        self.edits.push(self.lines.removal(mark.line, last).ok_or(Obstacle::Shape)?);
        Ok(())
    }

    /// Takes an item or a field out of brackets, with the comma after it or else before it; a line that held nothing
    /// else goes too.
    fn flow(&mut self, mark: Mark, value: &Node) -> Result<(), Obstacle> {
        let text = self.lines.text;
        let mut start = self.lines.offset(mark).ok_or(Obstacle::Shape)?;
        let begin = self.lines.offset(value.mark.ok_or(Obstacle::Shape)?).ok_or(Obstacle::Shape)?;
        let mut end = begin + text.get(begin..).and_then(flow_end).ok_or(Obstacle::Shape)?;
        let after = text.get(end..).unwrap_or_default();
        let rest = after.trim_start();
        if rest.starts_with(',') {
            end += after.len() - rest.len() + 1;
            let line = self.lines.line_of(start);
            let (line_start, line_end) = (self.lines.start(line).unwrap_or(start), self.lines.end(line));
            let is_alone = |from: usize, to: usize| text.get(from..to).is_some_and(|blank| blank.trim().is_empty());
            if end <= line_end && is_alone(line_start, start) && is_alone(end, line_end) {
                (start, end) = (line_start, line_end);
            } else if text.get(end..).is_some_and(|rest| rest.starts_with(' ')) {
                end += 1;
            }
        } else if let Some(before) = text.get(..start).map(str::trim_end).and_then(|before| before.strip_suffix(',')) {
            start = before.len();
        }
        self.edits.push(Edit { range: start..end, text: String::new(), stand_in: None });
        Ok(())
    }
}
