//! Which clusters have an endpoint at an address, for connections whose callers have chosen the endpoint themselves.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Cluster, Name, NameMap};

/// Clusters by the addresses of their endpoints; only those that call some of them by TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(NameMap<Arc<[Name]>>);

impl Places {
    /// The clusters that have an endpoint at an address.
    pub(super) fn clusters_at(&self, address: SocketAddr) -> impl Iterator<Item = &Name> {
        self.0.get_str(&address.to_string()).into_iter().flat_map(|names| names.iter())
    }

    /// Takes over what changed of a cluster. Costs what that cluster has.
    pub(crate) fn follow(&mut self, old: Option<&Cluster>, new: Option<&Cluster>) {
        let (before, after) = (addresses(old), addresses(new));
        let Some(cluster) = new.or(old).map(|cluster| &cluster.spec.name) else { return };
        for gone in before.difference(&after) {
            self.change(*gone, |names| names.retain(|name| name != cluster));
        }
        for come in after.difference(&before) {
            self.change(*come, |names| names.push(cluster.clone()));
        }
    }

    fn change(&mut self, address: SocketAddr, change: impl FnOnce(&mut Vec<Name>)) {
        let key = address.to_string();
        let mut names = self.0.get_str(&key).map_or_else(Vec::new, |names| names.to_vec());
        change(&mut names);
        if names.is_empty() {
            self.0.remove(&key);
        } else {
            self.0.insert(Name::new(&key), names.into());
        }
    }
}

fn addresses(cluster: Option<&Cluster>) -> HashSet<SocketAddr> {
    let Some(cluster) = cluster.filter(|cluster| cluster.spec.sockets.iter().any(|socket| socket.tls.is_some())) else {
        return HashSet::new();
    };
    cluster.endpoints.iter().flat_map(|endpoints| endpoints.all()).map(|endpoint| endpoint.address).collect()
}
