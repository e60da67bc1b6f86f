//! A workload with go-spiffe has its identity from the socket of a proxy, speaks mutual TLS with servers and clients of
//! ours, and follows every rotation.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_proxy::workload_api::{Users, WorkloadApi, WorkloadMetrics};
use mesh_tests::programs::peer;
use runtime::Tasks;
use runtime::authority::Root;
use runtime::svid::{Peers, Svids, channel, client::connect_tls};
use runtime::tls::{Handshakes, TlsListener};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::identities::{RATINGS, REVIEWS, issue};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const PATIENCE: Duration = Duration::from_secs(20);

/// The program, and what it prints.
pub(crate) struct Workload {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Workload {
    pub(crate) fn start(program: &std::path::Path, socket: &std::path::Path) -> Self {
        let mut command = Command::new(program);
        command.env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display())).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Workload { _child: child, input, lines }
    }

    /// What the next line that begins with `word` says after it.
    pub(crate) async fn says(&mut self, word: &str) -> String {
        let find = async {
            loop {
                let line = self.lines.next_line().await.expect("readable").expect("it runs");
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
                assert!(!line.starts_with("error"), "{word} was expected: {line}");
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("it never says {word}"))
    }

    pub(crate) async fn check(&mut self, address: &str, id: &str) {
        let line = format!("check {address} {id}\n");
        self.input.write_all(line.as_bytes()).await.expect("it reads");
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// gRPC's health service, which tells the test who has called.
#[derive(Clone)]
pub(crate) struct Health(pub(crate) tokio::sync::mpsc::UnboundedSender<runtime::svid::Peer>);

impl UnaryService<Question> for Health {
    type Response = Answer;
    type Future = Later<Result<Response<Answer>, Status>>;

    fn call(&mut self, request: Request<Question>) -> Self::Future {
        let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().expect("a TLS connection");
        let certificates = info.peer_certs().expect("who shows certificates");
        let peer = runtime::svid::peer(Some(&certificates)).expect("an SVID");
        self.0.send(peer).expect("the test listens");
        Box::pin(async { Ok(Response::new(Answer { status: SERVING })) })
    }
}

impl tower::Service<http::Request<Body>> for Health {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let health = self.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), CHECK);
            Ok(Grpc::new(ProstCodec::<Answer, Question>::new()).unary(health, request).await)
        })
    }
}

/// Serves health by mutual TLS to members of the mesh; gives the address.
pub(crate) async fn serve(svids: &Svids, health: Health, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let config = svids.server_config(Peers::Members, &[b"h2"]).expect("a configuration");
    let incoming = TlsListener::new(listener, config, Handshakes::default()).into_stream();
    let stop = tasks.token().clone().cancelled_owned();
    tasks.spawn_vital("server", Server::builder().serve_with_incoming_shutdown(health, incoming, stop));
    address
}

/// Asks the server there, which must be `id`, for its health.
async fn ask(svids: &Svids, address: &str, id: &str) -> Result<i32, String> {
    let peers = Peers::these([id.parse().expect("an identity")]);
    let config = svids.client_config(peers, &[b"h2"]).expect("a configuration");
    let connector = tower::service_fn({
        let address = address.to_owned();
        move |_: http::Uri| {
            let name = "mesh".try_into().expect("a name");
            let connecting = connect_tls(TcpStream::connect(address.clone()), Arc::clone(&config), name);
            async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
        }
    });
    let text = |error: &dyn std::error::Error| runtime::exit::chain(&error);
    let channel = Endpoint::from_static("http://peer").connect_with_connector(connector).await;
    let mut grpc = tonic::client::Grpc::new(channel.map_err(|error| text(&error))?);
    grpc.ready().await.map_err(|error| text(&error))?;
    let codec = ProstCodec::<Question, Answer>::new();
    let path = http::uri::PathAndQuery::from_static(CHECK);
    let answer = grpc.unary(Request::new(Question::default()), path, codec).await;
    answer.map(|answer| answer.into_inner().status).map_err(|error| text(&error))
}

#[tokio::test]
async fn a_workload_with_go_spiffe_speaks_mutual_tls_with_ours_and_follows_every_rotation() {
    let Some(program) = peer("spiffe") else { return };
    let (one, two) = (Root::new("one").expect("a root"), Root::new("two").expect("a root"));
    let both = format!("{}{}", one.pem(), two.pem());
    let (publisher, svids) = channel();
    let directory = tempfile::TempDir::new().expect("a directory");
    let socket = directory.path().join("socket");
    let tasks = Tasks::new();
    let handing = WorkloadApi::open(&socket, Users::Any, svids, WorkloadMetrics::default()).expect("a socket");
    tasks.spawn("workload api", handing.serve(tasks.token().clone()));
    let (ours, our_svids) = channel();
    issue(&ours, RATINGS, &one, &one.pem());
    let (told, mut callers) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(&our_svids, Health(told), &tasks).await;

    // It waits until there is an identity, and is then known by it, both ways.
    let mut workload = Workload::start(&program, &socket);
    let first = issue(&publisher, REVIEWS, &one, &one.pem());
    assert_eq!(workload.says("svid").await, format!("{REVIEWS} {first}"));
    let its = workload.says("listening").await;
    workload.check(&address, RATINGS).await;
    assert_eq!(workload.says("status").await, "SERVING");
    let caller = callers.recv().await.expect("it has called");
    assert_eq!((caller.id.as_str(), caller.serial.as_str()), (REVIEWS, first.as_str()));
    assert_eq!(ask(&our_svids, &its, REVIEWS).await, Ok(SERVING));
    let error = ask(&our_svids, &its, RATINGS).await.expect_err("it is somebody else");
    assert!(error.contains("NotExpected"), "{error}");

    // Another certificate; then another root: trusted first, signing then, and at last alone.
    let second = issue(&publisher, REVIEWS, &one, &both);
    assert_eq!(workload.says("svid").await, format!("{REVIEWS} {second}"));
    issue(&ours, RATINGS, &two, &both);
    workload.check(&address, RATINGS).await;
    assert_eq!(workload.says("status").await, "SERVING");
    assert_eq!(callers.recv().await.expect("it has called").serial, second);
    let third = issue(&publisher, REVIEWS, &two, &two.pem());
    assert_eq!(workload.says("svid").await, format!("{REVIEWS} {third}"));
    workload.check(&address, RATINGS).await;
    assert_eq!(workload.says("status").await, "SERVING");
    assert_eq!(callers.recv().await.expect("it has called").serial, third);
    assert_eq!(ask(&our_svids, &its, REVIEWS).await, Ok(SERVING));

    // A server of the root that is gone, or of another identity, is nobody to it.
    issue(&ours, RATINGS, &one, &both);
    workload.check(&address, RATINGS).await;
    let error = workload.says("error").await;
    assert!(error.contains("x509svid: could not verify leaf certificate"), "{error}");
    issue(&ours, RATINGS, &two, &both);
    workload.check(&address, REVIEWS).await;
    let error = workload.says("error").await;
    assert!(error.contains("unexpected ID"), "{error}");
    tasks.stop(Duration::from_secs(5)).await.expect("everything ends");
    assert_eq!(tasks.panics(), 0);
}
