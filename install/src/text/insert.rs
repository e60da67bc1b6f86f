//! Puts a sidecar into the text of an object.

use api::yaml::Node;

use super::lines::{Edit, Lines, is_indentless};
use super::spot::Spot;
use super::writer::{Renderer, Writer};
use super::{Obstacle, probes, socket};
use crate::inject::Additions;

/// Collects the insertions that give an object its sidecar. The status learns how the text of probes is kept.
pub(super) fn additions(
    lines: &Lines<'_>,
    object: &Node,
    additions: &mut Additions,
    renderer: &mut Renderer,
    edits: &mut Vec<Edit>,
) -> Result<(), (String, Obstacle)> {
    let Some(pod) = Spot::root(object).pod() else { return Err(("its pod".to_owned(), Obstacle::Shape)) };
    let Some(spec) = pod.field("spec") else { return Err(("spec".to_owned(), Obstacle::Shape)) };
    probes::rewrite(lines, spec, additions, edits)?;
    let mut writer = Writer { lines, renderer, edits };
    writer.annotation(pod, &additions.status.to_string())?;
    socket::grant(&mut writer, spec, additions)?;
    // Lists are indented in their fields as those of the user are.
    let step = spec.field("containers").and_then(|list| {
        let (key, first) = (list.key?, list.node.mark?);
        (first.line > key.line && !is_indentless(list.node)).then(|| first.column.saturating_sub(key.column))
    });
    let step = usize::try_from(step.unwrap_or(0)).unwrap_or(0).min(8);
    for (name, items) in [
        ("initContainers", &additions.init_containers),
        ("containers", &additions.containers),
        ("volumes", &additions.volumes),
    ] {
        match spec.field(name) {
            _ if items.is_empty() => {}
            Some(list) => writer.items(list, name, items)?,
            None => writer.new_list(spec, name, items, step)?,
        }
    }
    Ok(())
}
