//! The socket of the pod's identity in the text of the application's containers.

use api::yaml::{Node, Value};

use super::Obstacle;
use super::spot::Spot;
use super::taker::Taker;
use super::writer::Writer;
use crate::inject::{Additions, Granted};

/// Adds what containers lack to reach the socket.
pub(super) fn grant(
    writer: &mut Writer<'_, '_>,
    spec: Spot<'_>,
    additions: &Additions,
) -> Result<(), (String, Obstacle)> {
    for grant in &additions.grants {
        let name = |list: &str| format!("`{list}` of container {}", grant.container);
        let container = containers(spec).get(grant.index).map(Spot::root);
        let container = container.ok_or_else(|| (name("name"), Obstacle::Shape))?;
        for (list, item, _) in &grant.items {
            writer.item(container, list, item).map_err(|why| (name(list), why))?;
        }
    }
    Ok(())
}

/// Takes it out again.
pub(super) fn take(taker: &mut Taker<'_, '_>, spec: Spot<'_>, granted: &[Granted]) -> Result<(), (String, Obstacle)> {
    for Granted { container, items } in granted {
        let named = |node: &&Node| node.field("name").and_then(Node::text) == Some(container);
        let Some(spot) = containers(spec).iter().find(named).map(Spot::root) else { continue };
        for (list, item, is_new) in items {
            taker.items((spot, list), &[(*item).to_owned()], *is_new)?;
        }
    }
    Ok(())
}

fn containers<'n>(spec: Spot<'n>) -> &'n [Node] {
    match spec.field("containers").map(|list| &list.node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}
