//! Connections from the mesh to the application beside the proxy.

use std::sync::Arc;
use std::time::SystemTime;

use engine::tables::{Filter, Listener};
use tokio::net::TcpStream;

use crate::arrival::Arrival;
use crate::conn::Conn;
use crate::data::DataPath;
use crate::detect::spoken::Spoken;
use crate::detect::{Found, detect, inspect};
use crate::failure::Failure;
use crate::headers::Edge;
use crate::http::{self, Chosen};
use crate::origdst::canonical;
use crate::tcp;

/// Serves one inbound connection, from its original destination to its report.
///
/// The port that it was going to chooses the filter chain; ports that no service declares have the default chain.
///
/// # Errors
///
/// It ended before it was served as its caller meant.
pub(crate) async fn serve(path: &DataPath, listener: &Arc<Listener>, socket: TcpStream) -> Result<(), Failure> {
    // In a box of its own, so that a connection does not hold for ever what it began with.
    let begun = Box::pin(begin(path, listener, socket)).await?;
    let Some((chosen, arrival, conn)) = begun else { return Ok(()) };
    http::serve(path, chosen, (EDGE, arrival), conn).await
}

const EDGE: Edge = Edge::Inbound;

/// Finds out what a connection is, and gives back what is needed to serve it if it is HTTP; anything else is served.
async fn begin(
    path: &DataPath,
    listener: &Arc<Listener>,
    socket: TcpStream,
) -> Result<Option<(Chosen, Arrival, Conn)>, Failure> {
    let mut arrival = path.arrival(&socket, listener)?;
    let port = arrival.destination.port();
    let mut conn = Conn::new(socket);
    let mut found = match inspect(path, listener, &mut conn, port).await {
        Ok(found) => found,
        Err(Failure::SlowRequest) => return path.refuse(EDGE, &arrival, Failure::SlowRequest).map(|()| None),
        Err(failure) => return Err(failure),
    };
    if found.spoken == Some(Spoken::Silent)
        && listener.must_inspect(port).tls
        && !may_be_silent(path, &found, listener, &arrival)
    {
        let longer = Some(path.tls.handshake_timeout());
        match detect(&mut conn, true, longer).await {
            Ok(late) => found = late,
            Err(failure) => return path.refuse(EDGE, &arrival, failure).map(|()| None),
        }
    }
    let Some(chain) = found.chain(listener, port) else {
        return path.turn_away(EDGE, &arrival, (listener, found)).map(|()| None);
    };
    if chain.tls.is_none() {
        path.metrics.clear_text.count(canonical(arrival.peer).ip(), arrival.source, port, SystemTime::now());
    }
    if let Err(failure) = path.tls.end(chain, &mut conn, &mut arrival).await {
        return path.refuse(EDGE, &arrival, failure).map(|()| None);
    }
    match &chain.filter {
        Filter::Http(http) => Ok(Some((Chosen::new(listener, (port, found), http), arrival, conn))),
        Filter::Tcp(tcp) => {
            let tables = path.tables.load_full();
            Box::pin(tcp::serve(path, &tables, tcp, (EDGE, arrival), (conn, found))).await.map(|()| None)
        }
    }
}

/// Whether a caller that has said nothing yet may be taken for one in clear text: a server that speaks first would wait for it for
/// ever. Where HTTP is spoken, or clear text is refused, nothing is lost by waiting for what may be a ClientHello.
fn may_be_silent(path: &DataPath, found: &Found, listener: &Listener, arrival: &Arrival) -> bool {
    match found.chain(listener, arrival.destination.port()).map(|chain| &chain.filter) {
        Some(Filter::Tcp(tcp)) => !path.authoriser.would_refuse(&tcp.rbac, arrival),
        Some(Filter::Http(_)) | None => false,
    }
}
