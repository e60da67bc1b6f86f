//! Accepts the connections of a listener, and serves each until it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::tables::Listener;
use runtime::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::data::DataPath;
use crate::headers::Edge;
use crate::leave::until_cut;
use crate::{inbound, outbound};

impl DataPath {
    /// Serves the connections of `socket` by the listener that the tables have under `name` at the time of each, until
    /// none has come for a moment after the drain began, or `tasks` are cancelled. Every connection is a task of `tasks`.
    ///
    /// A connection that comes while there is no such listener is closed.
    ///
    /// # Errors
    ///
    /// The socket cannot accept any more.
    pub async fn serve_listener(
        self: Arc<Self>,
        name: String,
        edge: Edge,
        socket: TcpListener,
        tasks: Tasks,
    ) -> io::Result<()> {
        let accepting = self.metrics.listeners.of(&name);
        let mut leaves_by = None;
        let mut is_over = false;
        loop {
            is_over |= leaves_by.is_some_and(|by| Instant::now() > by);
            let accepted = tokio::select! {
                biased;
                () = tasks.token().cancelled() => return Ok(()),
                () = self.drain.cut() => return Ok(()),
                () = self.drain.started(), if leaves_by.is_none() => {
                    leaves_by = Some(Instant::now() + LEAVING);
                    continue;
                }
                accepted = socket.accept() => accepted,
                // What the kernel has accepted already is served before the socket is closed.
                () = std::future::ready(()), if is_over => return Ok(()),
                // Who has not heard yet that the proxy leaves is served.
                () = tokio::time::sleep(QUIET), if leaves_by.is_some() => {
                    is_over = true;
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => continue,
                Err(error) if is_shortage(&error) => {
                    tracing::warn!(%error, listener = name, "no connection can be accepted for the moment");
                    tokio::time::sleep(SHORTAGE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // The application beside the proxy is one source, which the limit of all connections is enough for.
            let source = (edge != Edge::Outbound).then(|| peer.ip());
            let place = match self.metrics.admission.admit(source) {
                Ok(place) => place,
                Err(limit) => {
                    self.metrics.limits.hit(limit);
                    tracing::debug!(listener = name, %peer, ?limit, "a connection is refused: there are too many");
                    crate::conn::Conn::new(stream).reset();
                    continue;
                }
            };
            let Some(listener) = self.tables.load().listener(&name).cloned() else {
                tracing::debug!(listener = name, "a connection is closed: the listener does not exist");
                continue;
            };
            let (path, open) = (Arc::clone(&self), accepting.begin());
            tasks.spawn("connection", async move {
                let _place = place;
                path.serve_connection(edge, &listener, stream).await;
                drop(open);
            });
        }
    }

    /// Serves one connection, from its original destination to its report.
    pub async fn serve_connection(&self, edge: Edge, listener: &Arc<Listener>, socket: TcpStream) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "the connection is gone before it is served");
            return;
        }
        // Pinned here: moved on, it would take its memory twice.
        let serving = std::pin::pin!(async {
            match edge {
                Edge::Inbound => inbound::serve(self, listener, socket).await,
                Edge::Outbound | Edge::Gateway => outbound::serve(self, edge, listener, socket).await,
            }
        });
        if let Some(Err(failure)) = until_cut(&self.drain, serving).await {
            tracing::debug!(listener = %listener.name, failure = failure.code(), "a connection ended early");
        }
    }
}

/// When no connection has come for so long after the drain began, everybody knows.
const QUIET: Duration = Duration::from_millis(500);
/// And no connection is taken after so long, whoever has heard.
const LEAVING: Duration = Duration::from_secs(2);
const SHORTAGE: Duration = Duration::from_millis(50);

/// The connection is gone, the socket is not.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Descriptors or memory are short.
fn is_shortage(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    const ENOMEM: i32 = 12;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS | ENOMEM))
}
