//! The API's server: TLS, HTTP/1.1 and HTTP/2, one task per connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::tokens::User;
use super::whole::{Api, StartError};
use super::{handler, pki};

/// Connections that are served at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// A peer that has not finished its TLS handshake by then is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// A peer that has not finished its request's head by then is let go. The time between two requests counts as well: it is longer
/// than Go's clients and kube's keep a connection that rests, so that they end it, and no request meets its end.
const REST: Duration = Duration::from_secs(120);

/// Serves the API on all listeners until the tasks are told to stop.
///
/// # Errors
/// When TLS cannot be set up or a listener cannot be used.
pub fn serve(api: &Arc<Api>, listeners: Vec<TcpListener>, tasks: &Tasks) -> Result<(), StartError> {
    let acceptor = TlsAcceptor::from(api.pki.server_config()?);
    for listener in listeners {
        let (api, acceptor, tasks_of_listener) = (api.clone(), acceptor.clone(), tasks.clone());
        let token = tasks.token().clone();
        tasks.spawn("api-accept", async move {
            token.run_until_cancelled(accept(api, listener, acceptor, tasks_of_listener)).await;
        });
    }
    let (token, stop) = (tasks.token().clone(), api.stop.clone());
    tasks.spawn("api-stop", async move {
        token.cancelled().await;
        stop.cancel();
    });
    Ok(())
}

async fn accept(api: Arc<Api>, listener: TcpListener, acceptor: TlsAcceptor, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the local API could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (api, acceptor, token) = (api.clone(), acceptor.clone(), tasks.token().clone());
        tasks.spawn("api-connection", async move {
            token.run_until_cancelled(connection(api, stream, acceptor)).await;
            drop(place);
        });
    }
}

async fn connection(api: Arc<Api>, stream: TcpStream, acceptor: TlsAcceptor) {
    let local: Option<IpAddr> = stream.local_addr().ok().map(|it| it.ip());
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, ?local, "a connection could not be set up");
    }
    let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake with the local API failed");
            return;
        }
        Err(_) => return,
    };
    let peer = peer(&stream);
    let service = service_fn(move |request| {
        let (api, peer) = (api.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(Box::pin(handler::handle(api, peer, request)).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(REST).max_buf_size(64 << 10);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the local API ended early");
    }
}

/// Whom the client certificate speaks for, if there is one.
fn peer(stream: &tokio_rustls::server::TlsStream<TcpStream>) -> Option<User> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (name, mut groups) = pki::subject(certificate)?;
    groups.push("system:authenticated".into());
    Some(User { name, groups, ..User::default() })
}
