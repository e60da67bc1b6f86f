//! The filter chain that a connection is on, as it is in force at the time of each of its requests.

use std::sync::Arc;

use engine::tables::{Chain, Filter, Http, Listener, Tables};

use crate::detect::Found;
use crate::headers::Edge;

/// How the requests of one connection are served: by what its listener says now, not when the connection was accepted.
pub(crate) struct Chosen {
    listener: Arc<Listener>,
    port: u16,
    found: Found,
    http: Arc<Http>,
}

impl Chosen {
    /// The connection was going to `port`, and this was found of it; its chain has this filter.
    pub(crate) fn new(listener: &Arc<Listener>, (port, found): (u16, Found), http: &Arc<Http>) -> Self {
        Chosen { listener: Arc::clone(listener), port, found, http: Arc::clone(http) }
    }

    /// How HTTP was served when it was looked up last.
    pub(crate) fn http(&self) -> &Arc<Http> {
        &self.http
    }

    /// Where requests come in when they came in at `edge` of the proxy.
    pub(crate) fn edge(&self, edge: Edge) -> Edge {
        if self.http.is_edge { Edge::Gateway } else { edge }
    }

    /// Looks up how HTTP is served now. If the listener is gone, or does not serve HTTP here any more, what is known
    /// stays in force for the connection.
    pub(crate) fn look_up(&mut self, tables: &Tables) -> &Arc<Http> {
        let now = tables.listener_of(&self.listener.name);
        if let Some(now) = now
            && !Arc::ptr_eq(now, &self.listener)
        {
            self.listener = Arc::clone(now);
            let chain = self.found.chain(now, self.port);
            if let Some(Chain { filter: Filter::Http(http), .. }) = chain {
                self.http = Arc::clone(http);
            }
        }
        &self.http
    }
}
