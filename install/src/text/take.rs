//! Takes a sidecar out of the text of an object.

use api::yaml::Node;

use super::lines::{Edit, Lines};
use super::spot::Spot;
use super::taker::Taker;
use super::{Obstacle, probes, socket};
use crate::inject::Status;

/// Collects the removals that leave an object without its sidecar.
pub(super) fn sidecar(lines: &Lines<'_>, object: &Node, edits: &mut Vec<Edit>) -> Result<(), (String, Obstacle)> {
    let pod = Spot::root(object).pod().ok_or_else(|| ("its pod".to_owned(), Obstacle::Shape))?;
    let Some(status) = Status::of(&pod.node.to_json()) else { return Ok(()) };
    let mut taker = Taker { lines, edits };
    taker.annotation(pod, &status).map_err(|why| ("metadata.annotations".to_owned(), why))?;
    if let Some(spec) = pod.field("spec") {
        probes::restore(lines, spec, &status.probes, taker.edits)?;
        socket::take(&mut taker, spec, &status.sockets)?;
        for (name, names) in [
            ("initContainers", &status.init_containers),
            ("containers", &status.containers),
            ("volumes", &status.volumes),
        ] {
            taker.items((spec, name), names, status.created(name))?;
        }
    }
    Ok(())
}
