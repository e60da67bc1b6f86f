//! Both services over a real socket, with certificates of a root in memory.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use runtime::Tasks;
use runtime::authority::Root;
use runtime::svid::{Clock, Publisher, channel_with_clock};
use rustls_pki_types::UnixTime;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::wire::{
    FETCH_X509_BUNDLES, FETCH_X509_SVID, HEADER, X509BundlesRequest, X509BundlesResponse, X509SvidRequest,
    X509SvidResponse,
};
use super::*;

const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct SetClock(Mutex<SystemTime>);

impl Clock for SetClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = *self.0.lock().expect("not poisoned");
        now.duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// A served socket.
struct World {
    directory: TempDir,
    root: Root,
    publisher: Publisher,
    clock: std::sync::Arc<SetClock>,
    metrics: WorkloadMetrics,
    tasks: Tasks,
}

impl World {
    fn start(users: Users) -> World {
        let clock = std::sync::Arc::new(SetClock(Mutex::new(SystemTime::now())));
        let (publisher, svids) = channel_with_clock(clock.clone());
        let directory = TempDir::new().expect("a directory");
        let metrics = WorkloadMetrics::default();
        let path = directory.path().join("socket");
        let api = WorkloadApi::open(&path, users, svids, metrics.clone()).expect("a socket");
        let tasks = Tasks::new();
        tasks.spawn("workload api", api.serve(tasks.token().clone()));
        World { directory, root: Root::new("one").expect("a root"), publisher, clock, metrics, tasks }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Puts a new certificate in force, and gives its serial number.
    fn issue(&self) -> String {
        let id = REVIEWS.parse().expect("an identity");
        let now = *self.clock.0.lock().expect("not poisoned");
        let svid = self.root.svid(&id, now - HOUR, HOUR * 2).expect("an SVID");
        let serial = svid.serial.clone();
        let mut bundle = self.root.bundle(&id).expect("a bundle");
        let other = Root::new("other").expect("a root");
        bundle.federate(&"other.example".parse().expect("a domain"), other.pem().as_bytes()).expect("roots");
        self.publisher.publish(svid, bundle);
        serial
    }

    async fn channel(&self) -> Channel {
        let path = self.path();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://socket").connect_with_connector(connector).await.expect("it listens")
    }

    async fn sds(&self) -> SecretDiscoveryServiceClient<Channel> {
        SecretDiscoveryServiceClient::new(self.channel().await)
    }

    /// Calls a method of the Workload API, with or without the header.
    async fn spiffe<A, B>(&self, method: &'static str, header: Option<&'static str>) -> Result<Streaming<B>, Status>
    where
        A: prost::Message + Default + Send + Sync + 'static,
        B: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel().await);
        grpc.ready().await.expect("it is connected");
        let mut request = tonic::Request::new(A::default());
        if let Some(value) = header {
            request.metadata_mut().insert(HEADER, value.parse().expect("a value"));
        }
        let codec = tonic_prost::ProstCodec::<A, B>::new();
        let path = http::uri::PathAndQuery::from_static(method);
        grpc.server_streaming(request, path, codec).await.map(tonic::Response::into_inner)
    }

    async fn svids(&self) -> Streaming<X509SvidResponse> {
        self.spiffe::<X509SvidRequest, _>(FETCH_X509_SVID, Some("true")).await.expect("a stream")
    }

    async fn stop(self) {
        self.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
        assert_eq!(self.tasks.panics(), 0);
        assert!(!self.path().exists(), "the socket is taken away");
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    stream.message().await.expect("no failure").expect("an answer")
}

/// The serial number in a certificate.
fn serial(der: &[u8]) -> String {
    runtime::svid::Leaf::read(&der.to_vec().into()).expect("an SVID").peer.serial
}

#[tokio::test]
async fn a_stream_of_svids_waits_for_the_first_and_gives_each_that_comes_after_it() {
    let world = World::start(Users::Any);
    let mut stream = world.svids().await;
    let first = world.issue();
    let answer = next(&mut stream).await;
    let [svid] = answer.svids.as_slice() else { panic!("one SVID: {answer:?}") };
    assert_eq!(svid.spiffe_id, REVIEWS);
    assert_eq!(serial(&svid.x509_svid), first);
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone()).into();
    let key = runtime::tls::provider().key_provider.load_private_key(key).expect("a key");
    let certified = rustls::sign::CertifiedKey::new(vec![svid.x509_svid.clone().into()], key);
    certified.keys_match().expect("the key is the certificate's");
    assert!(!svid.bundle.is_empty());
    assert_eq!(answer.federated_bundles.keys().collect::<Vec<_>>(), ["spiffe://other.example"]);
    assert!(!format!("{answer:?}").contains("key"), "a key is never printed");

    let second = world.issue();
    assert_eq!(serial(&next(&mut stream).await.svids[0].x509_svid), second);
    assert_ne!(first, second);
    assert_eq!(world.metrics.keys("workload"), 2);
    drop(stream);
    world.stop().await;
}

#[tokio::test]
async fn an_expired_svid_is_given_to_nobody() {
    let world = World::start(Users::Any);
    world.issue();
    *world.clock.0.lock().expect("not poisoned") += HOUR * 2;
    let mut stream = world.svids().await;
    let names = vec![CERTIFICATE.to_owned()];
    let request = DiscoveryRequest { resource_names: names, ..DiscoveryRequest::default() };
    let refusal = world.sds().await.fetch_secrets(request).await.expect_err("it has expired");
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    let renewed = world.issue();
    assert_eq!(serial(&next(&mut stream).await.svids[0].x509_svid), renewed);
    assert_eq!(world.metrics.keys("workload") + world.metrics.keys("sds"), 1);
    world.stop().await;
}

#[tokio::test]
async fn bundles_are_given_by_trust_domain_and_without_a_key() {
    let world = World::start(Users::Any);
    world.issue();
    let stream = world.spiffe::<X509BundlesRequest, X509BundlesResponse>(FETCH_X509_BUNDLES, Some("true")).await;
    let answer = next(&mut stream.expect("a stream")).await;
    let mut domains: Vec<_> = answer.bundles.keys().map(String::as_str).collect();
    domains.sort_unstable();
    assert_eq!(domains, ["spiffe://cluster.local", "spiffe://other.example"]);
    assert!(answer.bundles.values().all(|roots| !roots.is_empty()));
    assert_eq!(world.metrics.keys("workload"), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_request_without_the_security_header_is_refused() {
    let world = World::start(Users::Any);
    world.issue();
    for header in [None, Some("false"), Some("True")] {
        let refused = world.spiffe::<X509SvidRequest, X509SvidResponse>(FETCH_X509_SVID, header).await;
        assert_eq!(refused.expect_err("it is refused").code(), Code::InvalidArgument, "{header:?}");
    }
    assert_eq!((world.metrics.refusals("header"), world.metrics.keys("workload")), (3, 0));
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_served_is_said_to_be_unimplemented() {
    let world = World::start(Users::Any);
    for method in ["/SpiffeWorkloadAPI/FetchJWTSVID", "/SpiffeWorkloadAPI/ValidateJWTSVID", "/other.Service/Method"] {
        let refused = world.spiffe::<X509SvidRequest, X509SvidResponse>(method, Some("true")).await;
        assert_eq!(refused.expect_err("it is not there").code(), Code::Unimplemented, "{method}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_user_that_the_setting_does_not_name_is_refused_by_both_services() {
    let own = rustix::process::getuid().as_raw();
    let world = World::start(Users::These(vec![own + 1]));
    world.issue();
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&world.path()), 0o666, "somebody else may ask");
    let refused = world.spiffe::<X509SvidRequest, X509SvidResponse>(FETCH_X509_SVID, Some("true")).await;
    assert_eq!(refused.expect_err("it is refused").code(), Code::PermissionDenied);
    let refused = world.sds().await.fetch_secrets(DiscoveryRequest::default()).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(world.metrics.refusals("user"), 2);
    world.stop().await;

    let world = World::start(Users::These(vec![own]));
    assert_eq!(mode(&world.path()), 0o600, "nobody else may even connect");
    world.issue();
    next(&mut world.svids().await).await;
    world.stop().await;
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_anything_else_is_not() {
    let world = World::start(Users::Any);
    let (_publisher, svids) = channel_with_clock(world.clock.clone());
    // As by a process before this one that was killed: its file is there, and nobody answers.
    let path = world.directory.path().join("left");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let api = WorkloadApi::open(&path, Users::Any, svids.clone(), WorkloadMetrics::default()).expect("it is replaced");
    UnixStream::connect(&path).await.expect("it listens");
    drop(api);
    let file = world.directory.path().join("file");
    std::fs::write(&file, "mine").expect("writes");
    let error = WorkloadApi::open(&file, Users::Any, svids, WorkloadMetrics::default()).expect_err("it is a file");
    assert!(matches!(error, SocketError::Taken { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "mine");
    world.stop().await;
}

#[tokio::test]
async fn connections_over_the_bound_are_closed_and_counted() {
    let world = World::start(Users::Any);
    world.issue();
    let mut held = Vec::new();
    for _ in 0..socket::CONNECTIONS {
        held.push(UnixStream::connect(world.path()).await.expect("it listens"));
    }
    let mut over = UnixStream::connect(world.path()).await.expect("the kernel takes it");
    let closed = tokio::io::AsyncReadExt::read(&mut over, &mut [0; 64]).await.expect("the end");
    assert_eq!((closed, world.metrics.refusals("connections")), (0, 1));
    drop(held);
    world.stop().await;
}

fn read(resource: Option<&Any>) -> (String, Type) {
    let secret = Secret::decode(resource.expect("a resource").value.as_slice()).expect("a secret");
    (secret.name, secret.r#type.expect("of a type"))
}

fn inline(source: Option<&envoy_types::pb::envoy::config::core::v3::DataSource>) -> Vec<u8> {
    use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineString(text)) => text.clone().into_bytes(),
        other => panic!("not inline: {other:?}"),
    }
}

/// Serial number of the certificate in a secret, whose key must fit.
fn certificate(resource: Option<&Any>) -> String {
    let (name, Type::TlsCertificate(found)) = read(resource) else { panic!("no certificate") };
    assert_eq!(name, CERTIFICATE);
    let chain = inline(found.certificate_chain.as_ref());
    let identity = runtime::tls::Identity { certificate_pem: &chain, key_pem: &inline(found.private_key.as_ref()) };
    runtime::tls::server_config(identity, None, &[]).expect("certificate and key fit");
    serial(&runtime::tls::certificates(&chain).expect("a certificate")[0])
}

/// A stream of requests that the test writes.
fn asking<T: Send + 'static>() -> (tokio::sync::mpsc::Sender<T>, tokio_stream::wrappers::ReceiverStream<T>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    (sender, tokio_stream::wrappers::ReceiverStream::new(receiver))
}

fn world_of(names: &[&str], last: Option<&DiscoveryResponse>) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: last.map(|last| last.nonce.clone()).unwrap_or_default(),
        version_info: last.map(|last| last.version_info.clone()).unwrap_or_default(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test]
async fn sds_by_the_state_of_the_world_gives_what_is_named_and_again_when_it_changes() {
    let world = World::start(Users::Any);
    let first = world.issue();
    let (asks, requests) = asking();
    asks.send(world_of(&[CERTIFICATE, ROOTS, "other"], None)).await.expect("open");
    let mut answers = world.sds().await.stream_secrets(requests).await.expect("a stream").into_inner();
    let answer = next(&mut answers).await;
    let names: Vec<_> = answer.resources.iter().map(|resource| read(Some(resource)).0).collect();
    assert_eq!(names, [ROOTS, CERTIFICATE], "what is not known is not given");
    assert_eq!(certificate(answer.resources.last()), first);
    let (_, Type::ValidationContext(roots)) = read(answer.resources.first()) else { panic!("no roots") };
    let roots = runtime::tls::certificates(&inline(roots.trusted_ca.as_ref())).expect("roots");
    assert_eq!(roots.len(), 1, "those of other trust domains must not vouch for ours");

    // An acknowledgement is answered by nothing; a new certificate is.
    asks.send(world_of(&[CERTIFICATE, ROOTS, "other"], Some(&answer))).await.expect("open");
    let second = world.issue();
    let answer = next(&mut answers).await;
    assert_eq!(certificate(answer.resources.last()), second);
    // A refusal is written down, and what was refused is not sent again.
    let refusal = rpc::Status { message: "no such cipher".to_owned(), ..rpc::Status::default() };
    let refused = DiscoveryRequest { error_detail: Some(refusal), ..world_of(&[CERTIFICATE], Some(&answer)) };
    asks.send(refused).await.expect("open");
    let answer = next(&mut answers).await;
    assert_eq!(answer.resources.len(), 1, "fewer names are another question");
    assert_eq!(world.metrics.refusals("secret"), 1);
    world.stop().await;
}

#[tokio::test]
async fn sds_by_delta_gives_what_is_new_and_says_what_is_not_here() {
    let world = World::start(Users::Any);
    let first = world.issue();
    let (asks, requests) = asking();
    let subscribe = |names: &[&str]| DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let mut question = subscribe(&[CERTIFICATE, "other"]);
    question.initial_resource_versions.insert(CERTIFICATE.to_owned(), first);
    asks.send(question).await.expect("open");
    let mut answers = world.sds().await.delta_secrets(requests).await.expect("a stream").into_inner();
    let answer: DeltaDiscoveryResponse = next(&mut answers).await;
    assert_eq!((answer.resources.len(), answer.removed_resources.as_slice()), (0, &["other".to_owned()][..]));
    let second = world.issue();
    let answer = next(&mut answers).await;
    let [resource] = answer.resources.as_slice() else { panic!("one resource") };
    assert_eq!(certificate(resource.resource.as_ref()), second);
    asks.send(subscribe(&[ROOTS])).await.expect("open");
    assert_eq!(next(&mut answers).await.resources[0].name, ROOTS);
    assert_eq!(world.metrics.keys("sds"), 1);
    world.stop().await;
}

#[tokio::test]
async fn secrets_are_fetched_at_once_or_not_at_all() {
    let world = World::start(Users::Any);
    let mut sds = world.sds().await;
    let missing = sds.fetch_secrets(world_of(&[ROOTS], None)).await.expect_err("nothing is there yet");
    assert_eq!(missing.code(), Code::Unavailable);
    let serial = world.issue();
    let answer = sds.fetch_secrets(world_of(&[CERTIFICATE], None)).await.expect("it is there").into_inner();
    assert_eq!(certificate(answer.resources.first()), serial);
    let unknown = sds.fetch_secrets(world_of(&["file-root:/etc/passwd"], None)).await.expect_err("there is none");
    assert_eq!(unknown.code(), Code::NotFound);
    let other = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..world_of(&[CERTIFICATE], None)
    };
    assert_eq!(sds.fetch_secrets(other).await.expect_err("not here").code(), Code::InvalidArgument);
    world.stop().await;
}

#[test]
fn settings_say_where_and_for_whom() {
    let read = |variables: [(&str, &str); 2]| Settings::read(&Env::of(variables));
    let settings = read([("MESH_WORKLOAD_SOCKET", "/run/x"), ("MESH_WORKLOAD_SOCKET_USERS", "0, 1000")]);
    let expected = Settings { path: Some("/run/x".into()), users: Users::These(vec![0, 1000]) };
    assert_eq!(settings.expect("both make sense"), expected);
    let off = read([("MESH_WORKLOAD_SOCKET", "off"), ("MESH_WORKLOAD_SOCKET_USERS", "any")]);
    assert_eq!(off.expect("both make sense"), Settings { path: None, users: Users::Any });
    let error = read([("MESH_WORKLOAD_SOCKET_USERS", "root"), ("", "")]).expect_err("users are numbers");
    assert!(error.to_string().starts_with("MESH_WORKLOAD_SOCKET_USERS=\"root\" is not"), "{error}");
}
