//! The gRPC service: who may open a stream, and which methods there are.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use runtime::svid;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::ads::Ads;
use super::codec::{self, DeltaCodec};
use super::identity::Shown;
use super::stream::Stream;

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const STATE_OF_THE_WORLD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// Largest request: a reconnecting proxy names every resource that it holds.
const LARGEST_REQUEST: usize = 16 << 20;
/// Responses that wait for the connection: at most one of each type is on its way at any time, a few requests to renew,
/// and an error.
const RESPONSES: usize = 16;

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Ads {
    /// Lets a proxy in by its token and starts its stream.
    async fn open(self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Result<Response<Responses>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let shown = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let svid = shown.and_then(|chain| svid::peer(Some(chain.as_slice()))).map(|peer| peer.id);
        let checked = self.authenticator.check(authorization).await;
        let shown = Shown::of(checked, svid).inspect_err(|status| {
            self.metrics.refused_stream();
            tracing::info!(reason = status.message(), "a proxy is not let in");
        })?;
        if !self.snapshots.is_ready() {
            return Err(Status::unavailable("Pilot has not read the state of the cluster yet; try again"));
        }
        let (responses, receiver) = mpsc::channel(RESPONSES);
        let stream = Stream::new(self.clone(), shown, responses);
        self.tasks.spawn("xds stream", stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

type Responses = ReceiverStream<Result<codec::Response, Status>>;
type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for Ads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let ads = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                DELTA => {
                    let mut grpc = Grpc::new(DeltaCodec).max_decoding_message_size(LARGEST_REQUEST);
                    grpc.streaming(Delta(ads), request).await
                }
                STATE_OF_THE_WORLD => Status::unimplemented(
                    "only the delta form of ADS is served: call DeltaAggregatedResources (Envoy: api_type DELTA_GRPC)",
                )
                .into_http(),
                path => Status::unimplemented(format!("there is no method {path} here")).into_http(),
            })
        })
    }
}

/// The delta method.
struct Delta(Ads);

impl StreamingService<DeltaDiscoveryRequest> for Delta {
    type Response = codec::Response;
    type ResponseStream = Responses;
    type Future = Answer<Result<Response<Responses>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        Box::pin(self.0.clone().open(request))
    }
}
