//! An ADS server that does what the test says, message by message.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use engine::Kind;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use mesh_proxy::settings::{Pilot, PortFlags, Role, Root, Settings};
use runtime::Tasks;
use runtime::authority::{ServingCertificate, serving_certificate};
use runtime::settings::Env;
use runtime::tls::{Handshakes, Identity, TlsListener, server_config};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::SOON;

const NAME: &str = "mesh-pilot.mesh-system.svc";

/// The server, seen from the test.
pub struct Ads {
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
    pub tasks: Tasks,
    certificate: ServingCertificate,
    streams: mpsc::Receiver<Stream>,
    accepted: mpsc::Sender<Stream>,
}

/// One stream that a proxy has opened.
pub struct Stream {
    pub authorization: String,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonce: u64,
}

impl Ads {
    /// A server that listens.
    pub async fn started() -> Self {
        let mut ads = Ads::absent().await;
        ads.start().await;
        ads
    }

    /// A server that will listen on a port that is free for now.
    pub async fn absent() -> Self {
        let reserved = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = reserved.local_addr().expect("it is bound");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("token"), "first\n").expect("it can be written");
        let certificate = serving_certificate(&[NAME], Duration::from_secs(3600)).expect("it can be made");
        let (accepted, streams) = mpsc::channel(8);
        Ads { address, dir, tasks: Tasks::new(), certificate, streams, accepted }
    }

    /// Begins to listen.
    pub async fn start(&mut self) {
        let identity = Identity {
            certificate_pem: self.certificate.cert_pem.as_bytes(),
            key_pem: self.certificate.key_pem.as_bytes(),
        };
        let config = server_config(identity, None, &[b"h2"]).expect("the certificate is good");
        let listener = tokio::net::TcpListener::bind(self.address).await.expect("the port is still free");
        let incoming = TlsListener::new(listener, config, Handshakes::default()).into_stream();
        let service = AggregatedDiscoveryServiceServer::new(Service { accepted: self.accepted.clone() });
        let server = tonic::transport::Server::builder().add_service(service);
        self.tasks.spawn_until_cancelled("ads", async move {
            server.serve_with_incoming(incoming).await.expect("it serves");
        });
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Settings of a gateway that follows this server.
    pub fn settings(&self) -> Settings {
        let env = Env::of([
            ("POD_NAME", "gw-x"),
            ("POD_NAMESPACE", "mesh-system"),
            ("POD_IP", "127.0.0.1"),
            // There is no CA.
            ("MESH_CA_ADDRESS", "127.0.0.1:1"),
        ]);
        let ports = PortFlags { admin: Some(0), metrics: Some(0), readiness: Some(0) };
        let mut settings = Settings::read(Role::Gateway, &env, ports).expect("the settings are good");
        settings.access_log = "off".to_owned();
        settings.drain = Duration::from_secs(5);
        settings.pilot = Pilot {
            address: self.address.to_string(),
            server_name: NAME.to_owned(),
            root: Root::Pem(self.certificate.ca_pem.clone()),
            token_file: self.token_file(),
        };
        settings
    }

    /// The next stream that a proxy opens.
    pub async fn stream(&mut self) -> Stream {
        soon("a stream", self.streams.recv()).await.expect("the server runs")
    }
}

impl Stream {
    /// The next request.
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        soon("a request", self.requests.message()).await.expect("the stream is whole").expect("the stream goes on")
    }

    /// The next request, which must be of a kind.
    pub async fn request_for(&mut self, kind: Kind) -> DeltaDiscoveryRequest {
        let request = self.request().await;
        assert_eq!(request.type_url, kind.type_url(), "{request:?}");
        request
    }

    /// Sends resources, and gives the nonce.
    pub async fn send(&mut self, kind: Kind, resources: Vec<Resource>, removed: &[&str]) -> String {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: nonce.clone(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.responses.send(Ok(response)).await.expect("the proxy listens");
        nonce
    }

    /// Sends resources and waits for the reply to them: `None` if they were accepted, else the words of the refusal.
    pub async fn exchange(&mut self, kind: Kind, resources: Vec<Resource>, removed: &[&str]) -> Option<String> {
        let nonce = self.send(kind, resources, removed).await;
        let reply = self.request_for(kind).await;
        assert_eq!(reply.response_nonce, nonce, "{reply:?}");
        reply.error_detail.map(|detail| detail.message)
    }

    /// Ends the stream.
    pub async fn end(self, status: Status) {
        let _ = self.responses.send(Err(status)).await;
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

struct Service {
    accepted: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let (responses, stream) = mpsc::channel(8);
        let accepted = Stream { authorization, requests: request.into_inner(), responses, nonce: 0 };
        self.accepted.send(accepted).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
