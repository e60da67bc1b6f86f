//! Who asks → which method → a stream.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use runtime::CancellationToken;
use runtime::svid::Svids;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Extensions, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::following::{Answers, Following};
use super::secrets::Secrets;
use super::socket::{Peer, Users};
use super::wire::{
    FETCH_X509_BUNDLES, FETCH_X509_SVID, HEADER, X509BundlesRequest, X509BundlesResponse, X509SvidRequest,
    X509SvidResponse,
};
use super::{WorkloadMetrics, spiffe};

/// Largest message: names of secrets.
const LARGEST_MESSAGE: usize = 64 * 1024;
/// What the paths of the two services begin with.
const SPIFFE: &str = "/SpiffeWorkloadAPI/";
const SDS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/";
/// What audit and metrics call the SPIFFE Workload API.
const API: &str = "workload";

/// What all streams share.
pub(super) struct Shared {
    svids: Svids,
    users: Users,
    metrics: WorkloadMetrics,
    stop: CancellationToken,
}

impl Shared {
    /// What a stream of this request follows.
    pub(super) fn following(&self, extensions: &Extensions, api: &'static str) -> Result<Following, Status> {
        // Put there by `Serving`, which lets nobody through without.
        let peer = extensions.get::<Peer>().ok_or_else(|| Status::permission_denied("nobody knows who asks"))?;
        Ok(Following::new(&self.svids, &self.stop, (*peer, api), &self.metrics))
    }

    /// Who is at the other end, if that is somebody who may ask.
    fn admit(&self, request: &http::Request<Body>) -> Result<Peer, Status> {
        let path = request.uri().path();
        match request.extensions().get().and_then(Peer::of) {
            Some(peer) if self.users.may_ask(peer.user) => return Ok(peer),
            Some(Peer { user, group, process }) => tracing::warn!(
                target: "audit", path, user, group, process, reason = "user",
                "a request for the pod's identity was refused: MESH_WORKLOAD_SOCKET_USERS does not name this user"
            ),
            None => tracing::warn!(
                target: "audit", path, reason = "user",
                "a request for the pod's identity was refused: the kernel does not say who is at the other end"
            ),
        }
        self.metrics.refused("user");
        Err(Status::permission_denied("this user may not ask for the pod's identity"))
    }

    /// Whether the request was meant for a Workload API.
    fn check_header(&self, request: &http::Request<Body>) -> Result<(), Status> {
        let mut values = request.headers().get_all(HEADER).iter();
        if values.next().is_some_and(|value| value == "true") && values.next().is_none() {
            return Ok(());
        }
        self.metrics.refused("header");
        Err(Status::invalid_argument(format!("the security header is missing: send the metadata `{HEADER}: true`")))
    }
}

/// Both services. Clones share everything.
#[derive(Clone)]
pub(super) struct Serving {
    shared: Arc<Shared>,
    secrets: SecretDiscoveryServiceServer<Secrets>,
}

impl Serving {
    pub(super) fn new(svids: Svids, users: Users, metrics: WorkloadMetrics, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared { svids, users, metrics, stop });
        let secrets = SecretDiscoveryServiceServer::new(Secrets(Arc::clone(&shared)));
        Serving { shared, secrets: secrets.max_decoding_message_size(LARGEST_MESSAGE) }
    }

    async fn answer(mut self, mut request: http::Request<Body>) -> http::Response<Body> {
        let admitted = self.shared.admit(&request);
        let is_spiffe = request.uri().path().starts_with(SPIFFE);
        let admitted = admitted
            .and_then(|peer| if is_spiffe { self.shared.check_header(&request).map(|()| peer) } else { Ok(peer) });
        match admitted {
            Ok(peer) => drop(request.extensions_mut().insert(peer)),
            Err(status) => return status.into_http(),
        }
        match request.uri().path() {
            FETCH_X509_SVID => {
                let codec = ProstCodec::<X509SvidResponse, X509SvidRequest>::new();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_MESSAGE);
                grpc.server_streaming(FetchSvids(self.shared), request).await
            }
            FETCH_X509_BUNDLES => {
                let codec = ProstCodec::<X509BundlesResponse, X509BundlesRequest>::new();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_MESSAGE);
                grpc.server_streaming(FetchBundles(self.shared), request).await
            }
            path if path.starts_with(SPIFFE) => {
                let text = "identities are X.509 SVIDs here (FetchX509SVID, FetchX509Bundles); the profile of JWT SVIDs is \
                            not served";
                Status::unimplemented(text).into_http()
            }
            path if path.starts_with(SDS) => match self.secrets.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            path => Status::unimplemented(format!("there is no method {path} here")).into_http(),
        }
    }
}

impl Service<http::Request<Body>> for Serving {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let serving = self.clone();
        Box::pin(async move { Ok(serving.answer(request).await) })
    }
}

type Streaming<T> = Pin<Box<dyn Future<Output = Result<Response<Answers<T>>, Status>> + Send>>;

struct FetchSvids(Arc<Shared>);

impl ServerStreamingService<X509SvidRequest> for FetchSvids {
    type Response = X509SvidResponse;
    type ResponseStream = Answers<X509SvidResponse>;
    type Future = Streaming<X509SvidResponse>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        let answer =
            self.0.following(request.extensions(), API).map(|following| Response::new(spiffe::svids(following)));
        Box::pin(std::future::ready(answer))
    }
}

struct FetchBundles(Arc<Shared>);

impl ServerStreamingService<X509BundlesRequest> for FetchBundles {
    type Response = X509BundlesResponse;
    type ResponseStream = Answers<X509BundlesResponse>;
    type Future = Streaming<X509BundlesResponse>;

    fn call(&mut self, request: Request<X509BundlesRequest>) -> Self::Future {
        let answer =
            self.0.following(request.extensions(), API).map(|following| Response::new(spiffe::bundles(following)));
        Box::pin(std::future::ready(answer))
    }
}
