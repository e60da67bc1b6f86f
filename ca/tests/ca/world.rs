//! A Kubernetes API and CAs beside it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use local::api::{
    Api, ApiConfig, ApiError, ApiResult, DeleteOptions, Duplex, ExecRequest, ExecSession, LogRequest, PodRef,
    PodStreams, Store, TokenRequest,
};
use mesh_ca::daemon::Ca;
use mesh_ca::settings::{Flags, Listen, Settings};
use runtime::Tasks;
use runtime::authority::{ServingCertificate, serving_certificate};
use runtime::certificate::Certificate;
use runtime::exit::Failure;
use runtime::svid::client::{Answer, Authority, Pem, RequestError, plain_dial};
use runtime::svid::wire::CertificateRequest;
use runtime::svid::{Clock, Key, KeyKind, Svids};
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// The name in the CA's certificate.
pub(crate) const SERVER: &str = "mesh-ca.mesh-system.svc";
const PILOT: &str = "mesh-pilot.mesh-system.svc";
/// The audience of tokens that are for the CA.
pub(crate) const AUDIENCE: &str = "mesh-ca";
pub(crate) const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// A clock that tests set.
#[derive(Debug)]
pub(crate) struct SetClock(Mutex<SystemTime>);

impl SetClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(SetClock(Mutex::new(SystemTime::now())))
    }

    pub(crate) fn now(&self) -> SystemTime {
        *self.0.lock().expect("not poisoned")
    }

    pub(crate) fn set(&self, now: SystemTime) {
        *self.0.lock().expect("not poisoned") = now;
    }
}

impl Clock for SetClock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

pub(crate) struct World {
    directory: TempDir,
    address: SocketAddr,
    api: Arc<Api>,
    /// The serving certificate of CAs and Pilots, as an installation makes it.
    serving: ServingCertificate,
    _tasks: Tasks,
}

impl World {
    /// An API with the namespaces `mesh-system` and `default`, and the service account `default/reviews`.
    pub(crate) async fn start() -> World {
        let directory = TempDir::new().expect("a directory");
        let store = Arc::new(Store::open(directory.path()).expect("a store"));
        let config = ApiConfig { pki: directory.path().join("pki") };
        let api = Api::open(store, &config, Arc::new(NoNode)).expect("an API");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new();
        local::api::serve(&api, vec![listener], &tasks).expect("served");
        local::api::kubeconfig::write(&directory.path().join("kubeconfig"), "test", address.port(), api.pki())
            .expect("written");
        let serving = serving_certificate(&[SERVER, PILOT], Duration::from_secs(3600)).expect("a certificate");
        let world = World { directory, address, api, serving, _tasks: tasks };
        world.create("namespaces", json!({"metadata": {"name": "mesh-system"}}));
        world.account("default", "reviews");
        world
    }

    pub(crate) fn create(&self, resource: &str, object: Value) {
        self.api.store().create(resource, object).expect("created");
    }

    pub(crate) fn account(&self, namespace: &str, name: &str) {
        self.create("serviceaccounts", json!({"metadata": {"namespace": namespace, "name": name}}));
    }

    pub(crate) fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.api.store().delete(resource, namespace, name, &DeleteOptions::now()).expect("deleted");
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.api.store().get(resource, namespace, name).ok()
    }

    /// A pod that runs, at this machine's address.
    pub(crate) fn pod(&self, namespace: &str, name: &str, account: &str, app: &str) {
        self.create(
            "pods",
            json!({
                "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
                "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "none"}]},
                "status": {"phase": "Running", "podIP": "127.0.0.1"},
            }),
        );
    }

    /// The token that a pod's proxy shows to the CA.
    pub(crate) fn pod_token(&self, namespace: &str, account: &str, pod: &str) -> String {
        let request = TokenRequest {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            pod: Some(pod.to_owned()),
            ..TokenRequest::default()
        };
        self.api.tokens().issue(self.api.store(), &request).expect("a token").token
    }

    /// The root of the serving certificates.
    pub(crate) fn root(&self) -> String {
        self.serving.ca_pem.clone()
    }

    /// A directory with the serving certificate, as a CA has it mounted.
    pub(crate) fn certificates(&self) -> PathBuf {
        let path = self.directory.path().join(format!("certificates-{}", rand_name()));
        std::fs::create_dir(&path).expect("a directory");
        let made = &self.serving;
        for (file, text) in [("tls.crt", &made.cert_pem), ("tls.key", &made.key_pem), ("ca.crt", &made.ca_pem)] {
            std::fs::write(path.join(file), text).expect("written");
        }
        path
    }

    /// What leads a process to the API.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A token of a service account.
    pub(crate) fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let request = TokenRequest {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            audiences: vec![audience.to_owned()],
            ..TokenRequest::default()
        };
        self.api.tokens().issue(self.api.store(), &request).expect("a token").token
    }

    /// The same token as the API would have issued it two hours ago.
    pub(crate) fn expired_token(&self, namespace: &str, account: &str) -> String {
        let token = self.token(namespace, account, AUDIENCE);
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        let pki = self.api.pki();
        let decoding = jsonwebtoken::DecodingKey::from_ec_pem(pki.token_public.as_bytes()).expect("a key");
        let mut claims = jsonwebtoken::decode::<Value>(&token, &decoding, &validation).expect("a good token").claims;
        for claim in ["exp", "iat", "nbf"] {
            claims[claim] = json!(claims[claim].as_i64().expect("a time") - 7200);
        }
        let encoding = jsonwebtoken::EncodingKey::from_ec_pem(pki.token_key.as_bytes()).expect("a key");
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        jsonwebtoken::encode(&header, &claims, &encoding).expect("signed")
    }

    /// Where the API listens.
    pub(crate) fn api_address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn client(&self) -> kube::Client {
        let file = Kubeconfig::read_from(self.kubeconfig()).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("a usable one")).expect("a client")
    }

    /// Starts a CA with the system's clock.
    pub(crate) async fn ca(&self) -> RunningCa {
        self.try_ca(SetClock::new(), |_| {}).await.unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Starts a CA with this clock, and with other settings.
    pub(crate) async fn try_ca(
        &self,
        clock: Arc<SetClock>,
        change: impl FnOnce(&mut Settings),
    ) -> Result<RunningCa, Failure> {
        let certificates = self.certificates();
        let anywhere: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let flags = Flags { kubeconfig: None, listen: anywhere.ip() };
        let mut settings = Settings::read(flags, &runtime::settings::Env::of([])).expect("defaults");
        settings.listen = Listen { csr: anywhere, debug: anywhere };
        settings.certificates = certificates.clone();
        change(&mut settings);
        let ca = Ca::start(settings, self.client().await, clock).await?;
        Ok(RunningCa { ca, root: self.root(), certificates })
    }

    /// Writes a token where a client reads it.
    pub(crate) fn token_file(&self, token: &str) -> PathBuf {
        let path = self.directory.path().join(format!("token-{}", rand_name()));
        std::fs::write(&path, token).expect("written");
        path
    }
}

fn rand_name() -> String {
    runtime::svid::join::JoinToken::generate().name()
}

pub(crate) struct RunningCa {
    pub(crate) ca: Ca,
    pub(crate) root: String,
    certificates: PathBuf,
}

impl RunningCa {
    /// How this CA is reached.
    pub(crate) fn authority(&self, token_file: Option<PathBuf>) -> Authority {
        Authority {
            address: self.ca.addresses.csr.to_string(),
            server_name: SERVER.to_owned(),
            roots: Pem::Text(self.root.clone()),
            token_file,
            dial: plain_dial(),
        }
    }

    /// Asks with a token, and with what `svids` has to show.
    pub(crate) async fn ask(
        &self,
        world: &World,
        token: Option<&str>,
        svids: &Svids,
        request: CertificateRequest,
    ) -> Result<Answer, RequestError> {
        self.authority(token.map(|token| world.token_file(token))).request(svids, request).await
    }

    /// Asks with a token alone.
    pub(crate) async fn ask_by_token(&self, world: &World, token: &str) -> Result<Answer, RequestError> {
        let (_publisher, svids) = runtime::svid::channel();
        self.ask(world, Some(token), &svids, request(None)).await
    }

    /// The serving certificate, which is good for Pilot too.
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::load(&self.certificates).expect("it is good")
    }

    pub(crate) async fn stop(self) {
        self.ca.tasks.stop(Duration::from_secs(5)).await.expect("every task ends");
    }
}

/// A request with a new key that asks for `id`.
pub(crate) fn request(id: Option<&str>) -> CertificateRequest {
    let id = id.map(|id| id.parse().expect("an identity"));
    let csr = Key::generate(KeyKind::P256).expect("a key").request(id.as_ref()).expect("a request");
    CertificateRequest { csr, validity_duration: 0, metadata: None }
}

/// Whose certificate was issued.
pub(crate) fn id_of(answer: &Answer) -> String {
    runtime::svid::Leaf::read(&answer.chain[0]).expect("an SVID").peer.id.to_string()
}

/// The gRPC code and text of a refusal.
pub(crate) fn refusal(answer: Result<Answer, RequestError>) -> (tonic::Code, String) {
    match answer {
        Ok(answer) => panic!("issued to {}", id_of(&answer)),
        Err(RequestError::Refused { code, message }) => (code, message),
        Err(error) => panic!("{}", runtime::exit::chain(&error)),
    }
}

/// There are no pods here.
struct NoNode;

impl PodStreams for NoNode {
    fn log(&self, _: LogRequest) -> BoxFuture<'_, ApiResult<mpsc::Receiver<std::io::Result<Bytes>>>> {
        async { Err(ApiError::bad_request("there is no node")) }.boxed()
    }

    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, ApiResult<ExecSession>> {
        async { Err(ApiError::bad_request("there is no node")) }.boxed()
    }

    fn port_forward(&self, _: PodRef, _: u16) -> BoxFuture<'_, ApiResult<Box<dyn Duplex>>> {
        async { Err(ApiError::bad_request("there is no node")) }.boxed()
    }
}
