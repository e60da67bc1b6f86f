//! A request on its way.

use std::sync::Arc;

use engine::tables::Cluster;

use crate::pump::Pump;
use crate::retry::{Clock, Tries};

/// A request on its way to a cluster.
pub(super) struct Call<'c, 't> {
    pub(super) cluster: &'t Arc<Cluster>,
    pub(super) tries: &'c mut Tries<'t>,
    pub(super) clock: &'c mut Clock,
    pub(super) body: &'c mut Pump,
}
