//! How many P-256 signing requests a CA answers per second of one core's time, end to end: a real CA on a thread of its
//! own, whose time is the scheduler's; the callers, which are as many pods as requests, and the API server are on others.
//!
//! `reading and signing` is the least that any CA can do. `on an open connection` is what istio-csr does.
//! `a connection each` is what daemons of this mesh do: a handshake with the post-quantum group for each request.

#[path = "../tests/ca/world.rs"]
#[expect(dead_code, reason = "tests use the rest of it")]
mod world;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream;
use mesh_ca::authority::{Material, Policy};
use mesh_ca::csr::Csr;
use runtime::svid::client::{Authority, Pem, connect_tls, plain_dial};
use runtime::svid::wire::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use runtime::svid::{Key, KeyKind};
use tokio::net::TcpStream;
use tonic_prost::ProstCodec;

use world::{SERVER, World};

/// Pods; their requests are made beforehand, as making one is the caller's work.
const MADE: usize = 256;
/// Requests that are under way at a time.
const AT_A_TIME: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let seconds = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(3);
    let csrs: Vec<String> =
        (0..MADE).map(|_| Key::generate(KeyKind::P256).and_then(|key| key.request(None)).expect("a request")).collect();
    println!("{:<24}{:>18}{:>16}", "P-256", "per CPU second", "µs of CPU each");
    alone(&csrs, seconds);
    let served = Served::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        on_an_open_connection(&served, &csrs, seconds).await;
        a_connection_each(&served, &csrs, seconds).await;
    });
    // Connections end with their tasks; the CA waits for them.
    drop(runtime);
    served.end();
}

fn report(what: &str, count: u64, cpu: Duration) {
    let each = cpu.as_secs_f64() / count.max(1) as f64;
    println!("{what:<24}{:>18.0}{:>16.1}", 1.0 / each, each * 1e6);
}

/// Reading and signing, without a server.
fn alone(csrs: &[String], seconds: u64) {
    let policy = Policy::of("cluster.local".parse().expect("a trust domain"));
    let material = Material::make_root(&policy, SystemTime::now()).expect("a root");
    let authority = material.authority(policy, Arc::new(rustls::time_provider::DefaultTimeProvider)).expect("it fits");
    let id = world::REVIEWS.parse().expect("an identity");
    let (mut count, end) = (0, SystemTime::now() + Duration::from_secs(seconds));
    let before = cpu_of("thread-self");
    while SystemTime::now() < end {
        for csr in csrs {
            let csr = Csr::from_pem(csr.as_bytes()).expect("a good request");
            let _ = authority.issue(&id, &csr.key, None).expect("issued");
            count += 1;
        }
    }
    report("reading and signing", count, cpu_of("thread-self") - before);
}

/// Run time of a thread, as the scheduler counts it.
fn cpu_of(thread: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).expect("Linux tells");
    let run = stat.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(run.expect("a number"))
}

/// A CA on a thread of its own, and the cluster's API on another.
struct Served {
    authority: Authority,
    /// A token of each pod.
    tokens: Vec<String>,
    thread: String,
    end: tokio::sync::oneshot::Sender<()>,
    joined: std::thread::JoinHandle<()>,
    _api: tokio::runtime::Runtime,
}

impl Served {
    fn start() -> Self {
        let api =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let world = api.block_on(World::start());
        let pod = |nth: usize| {
            let name = format!("reviews-{nth}");
            world.pod("default", &name, "reviews", "reviews");
            world.pod_token("default", "reviews", &name)
        };
        let tokens: Vec<String> = (0..MADE).map(pod).collect();
        let first = tokens[0].clone();
        let (tell, told) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let joined = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let ca = world.ca().await;
                let file = world.token_file(&first);
                let link = std::fs::read_link("/proc/thread-self").expect("Linux tells");
                tell.send((ca.authority(Some(file)), link.display().to_string())).expect("it is waited for");
                let _ = ended.await;
                ca.stop().await;
            });
        });
        let (authority, thread) = told.recv().expect("it starts");
        Served { authority, tokens, thread, end, joined, _api: api }
    }

    fn end(self) {
        let _ = self.end.send(());
        self.joined.join().expect("it ends in order");
    }
}

/// Many requests at a time on one connection, which stays open.
async fn on_an_open_connection(served: &Served, csrs: &[String], seconds: u64) {
    let (_publisher, svids) = runtime::svid::channel();
    let Pem::Text(root) = &served.authority.roots else { return };
    let roots = runtime::tls::roots(root.as_bytes()).expect("roots");
    let config = svids.named_client_config(roots, &[b"h2"]).expect("a configuration");
    let address = served.authority.address.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let name = SERVER.try_into().expect("a name");
        let connecting = connect_tls(TcpStream::connect(address.clone()), Arc::clone(&config), name);
        async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://ca");
    let channel = endpoint.connect_with_connector(connector).await.expect("connected");
    let ask = |nth: usize| {
        let (csr, token) = (csrs[nth].clone(), &served.tokens[nth]);
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        let mut request = tonic::Request::new(CertificateRequest { csr, validity_duration: 0, metadata: None });
        let token = format!("Bearer {token}").parse().expect("a token");
        request.metadata_mut().insert("authorization", token);
        async move {
            grpc.ready().await.expect("connected");
            let codec = ProstCodec::<CertificateRequest, CertificateResponse>::new();
            let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE);
            let _ = grpc.unary(request, path, codec).await.expect("issued");
        }
    };
    measure("on an open connection", served, seconds, ask).await;
}

/// A connection for each request.
async fn a_connection_each(served: &Served, csrs: &[String], seconds: u64) {
    let authority = Authority { dial: plain_dial(), ..served.authority.clone() };
    let ask = |nth: usize| {
        let (csr, authority) = (csrs[nth].clone(), authority.clone());
        async move {
            let (_publisher, svids) = runtime::svid::channel();
            let request = CertificateRequest { csr, validity_duration: 0, metadata: None };
            let _ = authority.request(&svids, request).await.expect("issued");
        }
    };
    measure("a connection each", served, seconds, ask).await;
}

async fn measure<F: Future<Output = ()>>(what: &str, served: &Served, seconds: u64, ask: impl Fn(usize) -> F) {
    let end = SystemTime::now() + Duration::from_secs(seconds);
    let before = cpu_of(&served.thread);
    let wanted = (0..MADE).cycle().take_while(|_| SystemTime::now() < end);
    let count = stream::iter(wanted).map(ask).buffer_unordered(AT_A_TIME).count().await;
    report(what, count.try_into().unwrap_or(0), cpu_of(&served.thread) - before);
}
