//! One stream to Pilot: TLS, the token, and gRPC.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use hyper_util::rt::TokioIo;
use runtime::svid::Svids;
use runtime::svid::client::connect_tls;
use runtime::tls::TlsError;
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::connect::dial;
use crate::settings::{Pilot, Root};

/// Why there is no stream to Pilot.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The root certificate cannot be read.
    #[error("the root certificate {path} cannot be read")]
    Root {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("the token {path} cannot be read")]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The token is not one.
    #[error("the token {path} holds characters that no token has")]
    NoToken {
        /// Where it is.
        path: PathBuf,
    },
    /// The address cannot be used.
    #[error("the address {address} or the server name {server_name} cannot be used")]
    Settings {
        /// `MESH_PILOT_ADDRESS`.
        address: String,
        /// `MESH_PILOT_SERVER_NAME`.
        server_name: String,
    },
    /// The root certificate is none.
    #[error("the root certificate of Pilot cannot be used")]
    NoRoot(#[source] TlsError),
    /// Pilot cannot be reached, or does not prove who it is.
    #[error("cannot connect to {address}")]
    Connect {
        /// `MESH_PILOT_ADDRESS`.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// Pilot refuses the stream.
    #[error("Pilot at {address} refuses the stream ({code:?}): {message}")]
    Refused {
        /// `MESH_PILOT_ADDRESS`.
        address: String,
        /// The gRPC code.
        code: tonic::Code,
        /// Pilot's words.
        message: String,
    },
}

/// A stream to Pilot.
pub(super) struct Connection {
    pub(super) requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub(super) responses: Streaming<DeltaDiscoveryResponse>,
}

/// A first configuration of a large mesh comes in one response.
const LARGEST_RESPONSE: usize = 256 * 1024 * 1024;
/// After one response there are at most a reply and two changes of subscriptions to send.
const REQUESTS: usize = 8;
const CONNECT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Opens a stream and sends `first`. Root and token are read anew, as both are replaced while the proxy runs.
///
/// The connection bears `mark`, so that a sidecar does not intercept its own question.
pub(super) async fn open(
    (pilot, mark): (&Pilot, Option<u32>),
    svids: &Svids,
    first: Vec<DeltaDiscoveryRequest>,
) -> Result<Connection, ConnectError> {
    let address = || pilot.address.clone();
    let token = token(pilot)?;
    let roots = runtime::tls::roots(&root(pilot)?).map_err(ConnectError::NoRoot)?;
    let tls = svids.named_client_config(roots, &[b"h2"]).map_err(ConnectError::NoRoot)?;
    let settings = || ConnectError::Settings { address: address(), server_name: pilot.server_name.clone() };
    let name = ServerName::try_from(pilot.server_name.clone()).map_err(|_| settings())?;
    // TLS is in the connector below: there the proxy shows its SVID, whose key is nowhere but in memory.
    let endpoint = Endpoint::from_shared(format!("http://{}", pilot.address))
        .map_err(|_| settings())?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true);
    let dial = tower::service_fn({
        let address = pilot.address.clone();
        move |_: http::Uri| {
            let (address, tls, name) = (address.clone(), Arc::clone(&tls), name.clone());
            async move { connect_tls(dial(&address, mark), tls, name).await.map(TokioIo::new) }
        }
    });
    let connecting = async { endpoint.connect_with_connector(dial).await };
    let channel = match tokio::time::timeout(CONNECT * 2, connecting).await {
        Ok(connected) => connected.map_err(|source| ConnectError::Connect { address: address(), source })?,
        Err(_) => return Err(refused(pilot, &tonic::Status::deadline_exceeded("no answer to the TLS handshake"))),
    };
    let (requests, stream) = mpsc::channel(REQUESTS.max(first.len()));
    for request in first {
        // There is room: the channel was made for them.
        let _ = requests.try_send(request);
    }
    let mut request = Request::new(ReceiverStream::new(stream));
    request.metadata_mut().insert("authorization", token);
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST_RESPONSE);
    match client.delta_aggregated_resources(request).await {
        Ok(response) => Ok(Connection { requests, responses: response.into_inner() }),
        Err(status) => Err(refused(pilot, &status)),
    }
}

/// How an open stream ended.
pub(super) fn refused(pilot: &Pilot, status: &tonic::Status) -> ConnectError {
    ConnectError::Refused { address: pilot.address.clone(), code: status.code(), message: status.message().to_owned() }
}

fn root(pilot: &Pilot) -> Result<Vec<u8>, ConnectError> {
    match &pilot.root {
        Root::Pem(pem) => Ok(pem.clone().into_bytes()),
        Root::File(path) => std::fs::read(path).map_err(|source| ConnectError::Root { path: path.clone(), source }),
    }
}

fn token(pilot: &Pilot) -> Result<MetadataValue<Ascii>, ConnectError> {
    let path = &pilot.token_file;
    let token = std::fs::read_to_string(path).map_err(|source| ConnectError::Token { path: path.clone(), source })?;
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {}", token.trim()).parse().map_err(|_| ConnectError::NoToken { path: path.clone() })?;
    value.set_sensitive(true);
    Ok(value)
}
