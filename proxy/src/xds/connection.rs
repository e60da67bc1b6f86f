//! One stream to Pilot: TLS, the token, and gRPC.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Streaming};

use crate::connect::Connector;
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
    /// The address cannot be used, or the root certificate is none.
    #[error("the address {address} or the root certificate cannot be used")]
    Settings {
        /// `MESH_PILOT_ADDRESS`.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
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
    pilot: &Pilot,
    mark: Option<u32>,
    first: Vec<DeltaDiscoveryRequest>,
) -> Result<Connection, ConnectError> {
    let address = || pilot.address.clone();
    let token = token(pilot)?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(root(pilot)?))
        .domain_name(pilot.server_name.clone());
    let settings = |source| ConnectError::Settings { address: address(), source };
    let endpoint = Endpoint::from_shared(format!("https://{}", pilot.address))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(settings)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true);
    let dial = tower::service_fn({
        let address = pilot.address.clone();
        move |_: http::Uri| {
            let address = address.clone();
            async move { dial(&address, mark).await.map(TokioIo::new) }
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

/// Connects to the first address of Pilot that answers.
async fn dial(address: &str, mark: Option<u32>) -> io::Result<TcpStream> {
    let connector = Connector { mark };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for address in tokio::net::lookup_host(address).await? {
        match connector.dial(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
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
