//! Connections to the mesh's own daemons: debug ports of Pilot and CA, a proxy's admin port, through port-forwards.

use std::sync::Arc;
use std::time::Duration;

use api::names::{
    CA, CA_TOKEN_AUDIENCE, PILOT, PROXY_CONTAINER, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, ca_port, pilot_port, proxy_port,
};
use api::suggest::closest;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Selection};
use crate::error::Error;
use crate::resources::{self, Resource, name_of, namespace_of, text};

/// How long a connection through a port-forward may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// An HTTP connection to a port of a pod.
pub struct Connection {
    what: String,
    sender: SendRequest<Empty<Bytes>>,
    token: Option<String>,
    /// Resolves to what the node says when it cannot connect.
    refusal: Option<BoxFuture<'static, Option<String>>>,
    /// The port-forward and the connection's driver live as long as this.
    _tasks: JoinSet<()>,
    _forward: Portforwarder,
}

impl Connection {
    /// Asks for a path and reads the answer as JSON.
    ///
    /// # Errors
    /// When the daemon does not answer, or with something else.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        let body = self.ask(Method::GET, path).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Error::failed(format!("{} answers {path} with something unexpected", self.what)).because(e.to_string())
        })
    }

    /// Has something done, and reads the answer as JSON.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub async fn post<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        let body = self.ask(Method::POST, path).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Error::failed(format!("{} answers {path} with something unexpected", self.what)).because(e.to_string())
        })
    }

    /// Asks for a path and reads the answer as text.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn text(&mut self, path: &str) -> Result<String, Error> {
        self.says(Method::GET, path).await
    }

    /// The error of a connection that broke, in the node's words if it said why.
    async fn broken(&mut self, error: &hyper::Error) -> Error {
        let said = match self.refusal.take() {
            Some(refusal) => tokio::time::timeout(Duration::from_millis(500), refusal).await.ok().flatten(),
            None => None,
        };
        Error::unreachable(format!("{} cannot be reached", self.what))
            .because(said.unwrap_or_else(|| innermost(error)))
            .hint("is it running? `meshctl get pods -A`")
    }

    /// Asks for a path with this method and reads the answer as text.
    ///
    /// # Errors
    /// When the daemon does not answer, or refuses.
    pub async fn says(&mut self, method: Method, path: &str) -> Result<String, Error> {
        let body = self.ask(method, path).await?;
        Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
    }

    async fn ask(&mut self, method: Method, path: &str) -> Result<Bytes, Error> {
        let what = self.what.clone();
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|e| Error::failed("cannot ask").because(e.to_string()))?;
        let exchange = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, body) = match tokio::time::timeout(ANSWER, exchange).await {
            Err(_) => return Err(Error::unreachable(format!("{what} does not answer"))),
            Ok(Err(e)) => return Err(self.broken(&e).await),
            Ok(Ok(answer)) => answer,
        };
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Error::failed(format!("{what} does not accept the token of service account `meshctl`"))
                    .because(String::from_utf8_lossy(&body).trim().to_owned()))
            }
            _ => Err(Error::failed(format!("{what} answers {path} with {status}"))
                .because(String::from_utf8_lossy(&body).trim().to_owned())),
        }
    }
}

/// One daemon of the control plane and the connection to its debug port.
pub struct Daemon {
    /// Name of its pod.
    pub pod: String,
    /// The connection.
    pub connection: Connection,
}

/// A service of the control plane.
struct Service {
    /// Its name, which is that of its Service and the value of its pods' label `app`.
    name: &'static str,
    /// As people call it.
    called: &'static str,
    /// Audience of the token that it wants to see.
    audience: &'static str,
    port: u16,
}

/// Connects to every ready Pilot.
///
/// # Errors
/// When none is ready or one cannot be reached.
pub async fn pilots(cluster: &Cluster) -> Result<Vec<Daemon>, Error> {
    let pilot = Service { name: PILOT, called: "Pilot", audience: TOKEN_AUDIENCE, port: pilot_port::DEBUG };
    daemons(cluster, &pilot).await
}

/// Connects to every ready CA.
///
/// # Errors
/// When none is ready or one cannot be reached.
pub async fn cas(cluster: &Cluster) -> Result<Vec<Daemon>, Error> {
    let ca = Service { name: CA, called: "the CA", audience: CA_TOKEN_AUDIENCE, port: ca_port::DEBUG };
    daemons(cluster, &ca).await
}

async fn daemons(cluster: &Cluster, service: &Service) -> Result<Vec<Daemon>, Error> {
    let pods = known("pods")?;
    let labels = format!("app={}", service.name);
    let selection = Selection { namespace: Some(SYSTEM_NAMESPACE), labels: Some(&labels), ..Selection::default() };
    // Asked for at once; the first that is missing in this order is what is told.
    let (list, tls, token) =
        tokio::join!(cluster.list(&pods, &selection), tls(cluster), cluster.token(SYSTEM_NAMESPACE, service.audience));
    let list = list?;
    let ready: Vec<String> = items(&list).filter(|pod| is_ready(pod)).map(|pod| name_of(pod).to_owned()).collect();
    if ready.is_empty() {
        return Err(not_there(cluster, service, &list));
    }
    let (tls, token) = (Arc::new(tls?), token?);
    let mut daemons = Vec::new();
    for pod in ready {
        let what = format!("{} (pod {pod})", service.called);
        let (stream, forward) = forward(cluster, SYSTEM_NAMESPACE, &pod, service.port, &what).await?;
        let name = ServerName::try_from(format!("{}.{SYSTEM_NAMESPACE}.svc", service.name))
            .map_err(|e| Error::failed(format!("{} is no server name", service.name)).because(e.to_string()))?;
        let handshake = tokio_rustls::TlsConnector::from(Arc::clone(&tls)).connect(name, stream);
        let stream = match tokio::time::timeout(CONNECT, handshake).await {
            Err(_) => return Err(Error::unreachable(format!("{what} does not answer"))),
            Ok(Err(e)) => return Err(Error::unreachable(format!("no TLS connection to {what}")).because(e.to_string())),
            Ok(Ok(stream)) => stream,
        };
        let connection = http(stream, forward, service.port, what, Some(token.clone())).await?;
        daemons.push(Daemon { pod, connection });
    }
    Ok(daemons)
}

/// Connects to the admin port of a pod's proxy.
///
/// # Errors
/// When the pod has no proxy or it cannot be reached.
pub async fn proxy_admin(cluster: &Cluster, pod: &Value) -> Result<Connection, Error> {
    let (namespace, name) = (namespace_of(pod), name_of(pod));
    if !has_proxy(pod) {
        return Err(Error::failed(format!("pod {namespace}/{name} has no proxy"))
            .hint("its namespace may not be labelled for injection, or the pod is older than the label"));
    }
    let what = format!("the proxy of {name}.{namespace}");
    let (stream, forward) = forward(cluster, namespace, name, proxy_port::ADMIN, &what).await?;
    http(stream, forward, proxy_port::ADMIN, what, None).await
}

/// Whether a pod has a proxy: a sidecar, or it is a gateway.
#[must_use]
pub fn has_proxy(pod: &Value) -> bool {
    ["initContainers", "containers"]
        .iter()
        .filter_map(|list| pod.pointer(&format!("/spec/{list}"))?.as_array())
        .flatten()
        .any(|container| text(container, &["name"]) == Some(PROXY_CONTAINER))
}

/// Finds the pod that `POD`, `pod/NAME`, `deploy/NAME` or `NAME.NAMESPACE` means; a ready one if there are several.
///
/// # Errors
/// When there is none.
pub async fn find_pod(cluster: &Cluster, namespace: &str, word: &str) -> Result<Value, Error> {
    let pods = known("pods")?;
    if let Some((kind, name)) = word.split_once('/') {
        let resource = resources::by_word(kind).ok_or_else(|| {
            Error::usage(format!("`{kind}` in `{word}` is not a kind that has pods"))
                .hint("write pod/NAME or deploy/NAME")
        })?;
        if resource.kind == "Pod" {
            return match cluster.get(&pods, namespace, name).await? {
                Some(pod) => Ok(pod),
                None => Err(missing_pod(cluster, &pods, namespace, name).await?),
            };
        }
        return pod_of(cluster, &pods, &resource, namespace, name).await;
    }
    if let Some(pod) = cluster.get(&pods, namespace, word).await? {
        return Ok(pod);
    }
    if let Some((name, other)) = word.rsplit_once('.')
        && let Some(pod) = cluster.get(&pods, other, name).await?
    {
        return Ok(pod);
    }
    let deployments = known("deployments")?;
    let all = Selection { namespace: Some(namespace), ..Selection::default() };
    let list = cluster.list(&deployments, &all).await?;
    if items(&list).any(|d| name_of(d) == word) || of_app(&list, word).is_some() {
        return pod_of(cluster, &pods, &deployments, namespace, word).await;
    }
    Err(missing_pod(cluster, &pods, namespace, word).await?)
}

async fn pod_of(
    cluster: &Cluster,
    pods: &Resource,
    owner: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Value, Error> {
    let word = owner.word();
    let list = Selection { namespace: Some(namespace), ..Selection::default() };
    let object = match cluster.get(owner, namespace, name).await? {
        Some(object) => Some(object),
        None => of_app(&cluster.list(owner, &list).await?, name),
    };
    let Some(object) = object else {
        let list = cluster.list(owner, &list).await?;
        let error = Error::failed(format!("there is no {word} `{name}` in namespace {namespace}"));
        return Err(match closest(name, items(&list).map(name_of)) {
            Some(near) => error.hint(format!("did you mean `{word}/{near}`?")),
            None => error.hint(format!("see `meshctl get {} -n {namespace}`", owner.plural)),
        });
    };
    let labels = object.pointer("/spec/selector/matchLabels").or_else(|| object.pointer("/spec/selector"));
    let selector: Vec<String> = labels
        .and_then(Value::as_object)
        .map(|labels| labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect())
        .unwrap_or_default();
    if selector.is_empty() {
        return Err(Error::failed(format!("{word} {namespace}/{name} selects no pods")));
    }
    let labels = selector.join(",");
    let selection = Selection { namespace: Some(namespace), labels: Some(&labels), ..Selection::default() };
    let list = cluster.list(pods, &selection).await?;
    let found: Vec<&Value> = items(&list).filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).collect();
    match found.iter().find(|pod| is_ready(pod)).or(found.first()) {
        Some(pod) => Ok((*pod).clone()),
        None => Err(Error::failed(format!("{word} {namespace}/{name} has no pods"))
            .hint(format!("see `meshctl get {} {name} -n {namespace}`", owner.plural))),
    }
}

/// The one object of a list whose pods are labelled `app=NAME`: `deploy/productpage` means `productpage-v1` when there
/// is no other version of it.
pub(crate) fn of_app(list: &Value, name: &str) -> Option<Value> {
    let is_of_app = |object: &&Value| text(object, &["spec", "template", "metadata", "labels", "app"]) == Some(name);
    let mut found = items(list).filter(is_of_app);
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one.clone()),
        _ => None,
    }
}

async fn missing_pod(cluster: &Cluster, pods: &Resource, namespace: &str, name: &str) -> Result<Error, Error> {
    let list = cluster.list(pods, &Selection { namespace: Some(namespace), ..Selection::default() }).await?;
    let error = Error::failed(format!("there is no pod or deployment `{name}` in namespace {namespace}"));
    let near = closest(name, items(&list).map(name_of))
        .or_else(|| items(&list).map(name_of).find(|pod| pod.starts_with(name)));
    Ok(match near {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("see `meshctl get pods -n {namespace}`, or choose another namespace with -n")),
    })
}

/// Whether a pod says that it is ready.
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions").and_then(Value::as_array).is_some_and(|conditions| {
        conditions.iter().any(|c| text(c, &["type"]) == Some("Ready") && text(c, &["status"]) == Some("True"))
    }) && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// The name of the trust domain, as Pilot is told it.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn trust_domain(cluster: &Cluster) -> Result<String, Error> {
    let pilot = cluster.get(&known("deployments")?, SYSTEM_NAMESPACE, PILOT).await?;
    let containers = pilot.as_ref().and_then(|it| it.pointer("/spec/template/spec/containers")?.as_array());
    let variables = containers.into_iter().flatten().filter_map(|container| container.get("env")?.as_array()).flatten();
    let told = variables.filter(|variable| text(variable, &["name"]) == Some("MESH_TRUST_DOMAIN"));
    let told = told.filter_map(|variable| text(variable, &["value"])).next();
    Ok(told.unwrap_or(api::names::DEFAULT_TRUST_DOMAIN).to_owned())
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

/// A kind that is known without asking.
///
/// # Errors
/// Never for the words used here.
pub fn known(word: &str) -> Result<Resource, Error> {
    resources::by_word(word).ok_or_else(|| Error::failed(format!("kind {word} is not known")))
}

fn not_there(cluster: &Cluster, service: &Service, pods: &Value) -> Error {
    let count = items(pods).count();
    if count == 0 {
        return Error::unreachable(format!("no control plane in {}", cluster.description))
            .because(format!("there is no pod labelled app={} in namespace {SYSTEM_NAMESPACE}", service.name))
            .hint("install it with `meshctl install`, or start a mesh on this machine with `meshctl local up`");
    }
    let state: Vec<String> = items(pods)
        .map(|pod| format!("{}: {}", name_of(pod), text(pod, &["status", "phase"]).unwrap_or("no status")))
        .collect();
    Error::unreachable(format!("{} is not ready", service.called))
        .because(state.join("\n"))
        .hint(format!("see `meshctl get pods -n {SYSTEM_NAMESPACE}`"))
}

async fn tls(cluster: &Cluster) -> Result<rustls::ClientConfig, Error> {
    let missing = |what: &str| {
        Error::failed(format!("cannot trust Pilot: {what}")).hint("is the control plane installed? `meshctl install`")
    };
    let config = cluster
        .get(&known("configmaps")?, SYSTEM_NAMESPACE, "mesh-root")
        .await?
        .ok_or_else(|| missing("ConfigMap mesh-system/mesh-root is not there"))?;
    let pem = text(&config, &["data", "root-cert.pem"])
        .ok_or_else(|| missing("ConfigMap mesh-system/mesh-root has no root-cert.pem"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| missing("the root is not PEM").because(e.to_string()))?;
        roots.add(certificate).map_err(|e| missing("the root is no certificate").because(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::failed("TLS cannot be set up").because(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

type Forwarded = (Box<dyn Stream>, Portforwarder);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn forward(cluster: &Cluster, namespace: &str, pod: &str, port: u16, what: &str) -> Result<Forwarded, Error> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let mut forward = match tokio::time::timeout(CONNECT, pods.portforward(pod, &[port])).await {
        Err(_) => {
            return Err(Error::unreachable(format!("no port-forward to {what}")).because("no answer within 5 seconds"));
        }
        Ok(Err(e)) => return Err(Error::unreachable(format!("no port-forward to {what}")).because(innermost(&e))),
        Ok(Ok(forward)) => forward,
    };
    let stream = forward
        .take_stream(port)
        .ok_or_else(|| Error::unreachable(format!("no port-forward to {what}")).because("the stream did not open"))?;
    Ok((Box::new(stream), forward))
}

async fn http<S>(
    stream: S,
    mut forward: Portforwarder,
    port: u16,
    what: String,
    token: Option<String>,
) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Error::unreachable(format!("no connection to {what}")).because(innermost(&e)))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // How it ends shows at the request that it ends.
        let _ = connection.await;
    });
    let refusal = forward.take_error(port).map(|refusal| -> BoxFuture<'static, Option<String>> { Box::pin(refusal) });
    Ok(Connection { what, sender, token, refusal, _tasks: tasks, _forward: forward })
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
