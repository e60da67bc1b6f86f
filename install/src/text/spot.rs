//! A place in an object, and the way to others in it.

use api::yaml::{Entry, Mark, Node};

use crate::inject::pod_path;

/// A value of an object, and the name of the field that holds it.
#[derive(Clone, Copy)]
pub(super) struct Spot<'n> {
    pub(super) node: &'n Node,
    /// Where the field's name stands; none for a document or an item of a list.
    pub(super) key: Option<Mark>,
}

impl<'n> Spot<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Spot { node, key: None }
    }

    pub(super) fn entry(self, name: &str) -> Option<&'n Entry> {
        self.node.entries()?.iter().find(|entry| entry.key == name)
    }

    pub(super) fn field(self, name: &str) -> Option<Spot<'n>> {
        self.entry(name).map(|entry| Spot { node: &entry.value, key: entry.mark })
    }

    /// The value at the end of a path, as in `lifecycle.preStop`.
    pub(super) fn at(self, path: &str) -> Option<Spot<'n>> {
        path.split('.').try_fold(self, |spot, name| spot.field(name))
    }

    /// The pod or pod template of an object.
    pub(super) fn pod(self) -> Option<Spot<'n>> {
        let kind = self.node.field("kind").and_then(Node::text).unwrap_or_default();
        pod_path(kind).iter().try_fold(self, |spot, name| spot.field(name))
    }
}
