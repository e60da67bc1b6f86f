//! Connections from the application beside the proxy, and those that a gateway takes from outside.

use std::sync::Arc;

use engine::tables::{Filter, Listener};
use tokio::net::TcpStream;

use crate::arrival::Arrival;
use crate::conn::Conn;
use crate::data::DataPath;
use crate::detect::inspect;
use crate::failure::Failure;
use crate::headers::Edge;
use crate::http::{self, Chosen};
use crate::origdst::canonical;
use crate::tcp;

/// Serves one outbound connection, from its original destination to its report.
///
/// # Errors
///
/// It ended before it was served as its caller meant.
pub(crate) async fn serve(
    path: &DataPath,
    edge: Edge,
    accepted: &Arc<Listener>,
    socket: TcpStream,
) -> Result<(), Failure> {
    // In a box of its own, so that a connection does not hold for ever what it began with.
    let begun = Box::pin(begin(path, edge, accepted, socket)).await?;
    let Some((chosen, arrival, conn)) = begun else { return Ok(()) };
    http::serve(path, chosen, (edge, arrival), conn).await
}

/// Finds out what a connection is, and gives back what is needed to serve it if it is HTTP; anything else is served.
async fn begin(
    path: &DataPath,
    edge: Edge,
    accepted: &Arc<Listener>,
    socket: TcpStream,
) -> Result<Option<(Chosen, Arrival, Conn)>, Failure> {
    let mut arrival = path.arrival(&socket, accepted)?;
    // Who connects from loopback is known by no address that others could not have as well.
    arrival.own = Some(canonical(arrival.peer).ip()).filter(|ip| edge == Edge::Outbound && !ip.is_loopback());
    let tables = path.tables.load_full();
    let listener = tables.hand_over(accepted, arrival.destination);
    let port = arrival.destination.port();
    let mut conn = Conn::new(socket);
    let found = match inspect(path, listener, &mut conn, port).await {
        Ok(found) => found,
        Err(Failure::SlowRequest) => return path.refuse(edge, &arrival, Failure::SlowRequest).map(|()| None),
        Err(failure) => return Err(failure),
    };
    let Some(chain) = found.chain(listener, port) else {
        return path.turn_away(edge, &arrival, (listener, found)).map(|()| None);
    };
    if let Err(failure) = path.tls.end(chain, &mut conn, &mut arrival).await {
        return path.refuse(edge, &arrival, failure).map(|()| None);
    }
    match &chain.filter {
        // A connection may outlive many tables: it does not keep those that it began with.
        Filter::Http(http) => Ok(Some((Chosen::new(listener, (port, found), http), arrival, conn))),
        Filter::Tcp(tcp) => {
            Box::pin(tcp::serve(path, &tables, tcp, (edge, arrival), (conn, found))).await.map(|()| None)
        }
    }
}
