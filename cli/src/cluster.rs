//! The API server of a mesh: objects as JSON, errors in plain words, never a wait without an end.

use std::error::Error as _;
use std::time::Duration;

use api::names::CLI_SERVICE_ACCOUNT;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::KubeConfigOptions;
use kube::core::Status;
use serde_json::{Value, json};

use crate::context::{Origin, Target};
use crate::error::Error;
use crate::resources::Resource;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(4);
/// How long a question may wait for its answer to begin.
const READ: Duration = Duration::from_secs(5);
/// How long an answer may take once it has begun.
const BODY: Duration = Duration::from_secs(60);
/// How long a change may take, with the webhooks that it asks.
const WRITE: Duration = Duration::from_secs(40);
/// The name under which fields are owned.
const FIELD_MANAGER: &str = "meshctl";

/// A connection to a mesh's API server.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    /// How the mesh is called.
    pub description: String,
    /// The name of the local mesh that it is, if it is one.
    pub local: Option<String>,
    /// Namespace of the context.
    pub namespace: String,
    server: String,
}

/// Which objects a list holds.
#[derive(Debug, Clone, Default)]
pub struct Selection<'a> {
    /// Namespace; `None` is all.
    pub namespace: Option<&'a str>,
    /// Label selector.
    pub labels: Option<&'a str>,
    /// Field selector.
    pub fields: Option<&'a str>,
}

impl Selection<'_> {
    fn query(&self) -> String {
        let mut query = Vec::new();
        if let Some(labels) = self.labels {
            query.push(format!("labelSelector={}", escape(labels)));
        }
        if let Some(fields) = self.fields {
            query.push(format!("fieldSelector={}", escape(fields)));
        }
        query.join("&")
    }
}

impl Cluster {
    /// Prepares a connection; the first request makes it.
    ///
    /// # Errors
    /// When what the kubeconfig says cannot be used.
    pub async fn open(target: &Target) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: Some(target.context.clone()), ..KubeConfigOptions::default() };
        let unusable = |e: String| Error::failed(format!("{target} cannot be used")).because(e);
        let mut config = kube::Config::from_custom_kubeconfig(target.kubeconfig.clone(), &options)
            .await
            .map_err(|e| unusable(e.to_string()))?;
        config.connect_timeout = Some(CONNECT);
        config.write_timeout = None;
        config.default_retry = false;
        if config
            .cluster_url
            .host()
            .is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
        {
            config.proxy_url = None;
        }
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).map_err(|e| unusable(chain(&e)))?;
        let local = match &target.origin {
            Origin::Local(name) => Some(name.clone()),
            Origin::Files(_) => None,
        };
        Ok(Cluster { client, description: target.to_string(), local, namespace, server })
    }

    /// The client itself, for streams: logs, exec, port-forward.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// One object, if it is there.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
        self.get_path(&resource.path(Some(namespace), Some(name))).await
    }

    /// What a path of the API answers, if it is there.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn get_path(&self, path: &str) -> Result<Option<Value>, Error> {
        match self.send(Method::GET, path, None, READ).await {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Api(status)) if status.code == 404 => Ok(None),
            Err(failure) => Err(self.explain(failure)),
        }
    }

    /// A list of objects, as the server gives it.
    ///
    /// # Errors
    /// When the server cannot be asked or does not know the kind.
    pub async fn list(&self, resource: &Resource, selection: &Selection<'_>) -> Result<Value, Error> {
        let path = format!("{}?{}", resource.path(selection.namespace, None), selection.query());
        self.send(Method::GET, &path, None, READ).await.map_err(|failure| match failure {
            Failure::Api(status) if status.code == 404 => self.kind_not_served(resource),
            other => self.explain(other),
        })
    }

    /// A list as the server would print it, if it can (`Table` of `meta.k8s.io`); else the list itself.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn table(
        &self,
        resource: &Resource,
        selection: &Selection<'_>,
        name: Option<&str>,
    ) -> Result<Value, Error> {
        let path = format!("{}?{}", resource.path(selection.namespace, name), selection.query());
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let request = Request::get(path).header(header::ACCEPT, accept);
        self.ask(request, Vec::new(), READ).await.map_err(|failure| match failure {
            Failure::Api(status) if status.code == 404 && name.is_none() => self.kind_not_served(resource),
            other => self.explain(other),
        })
    }

    /// Makes an object.
    ///
    /// # Errors
    /// When it is there already, is refused, or the server cannot be asked.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
        dry_run: bool,
    ) -> Result<Value, Error> {
        let path = format!("{}?{}", resource.path(Some(namespace), None), manager(dry_run));
        self.send(Method::POST, &path, Some(object), WRITE).await.map_err(|f| self.explain(f))
    }

    /// Asks for something that the API makes on the spot, as a token.
    ///
    /// # Errors
    /// When it is refused or the server cannot be asked.
    pub async fn post(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.send(Method::POST, path, Some(object), READ).await.map_err(|f| self.explain(f))
    }

    /// Puts an object in the place of the one that is there.
    ///
    /// # Errors
    /// When it is not there, has changed meanwhile, is refused, or the server cannot be asked.
    pub async fn replace(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
        dry_run: bool,
    ) -> Result<Value, Error> {
        let path = own_path(resource, namespace, object, &manager(dry_run));
        self.send(Method::PUT, &path, Some(object), WRITE).await.map_err(|f| self.explain(f))
    }

    /// Makes an object, or brings the one that is there to what is given (server-side apply).
    ///
    /// # Errors
    /// When it is refused or the server cannot be asked.
    pub async fn apply(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
        dry_run: bool,
    ) -> Result<Value, Error> {
        let path = own_path(resource, namespace, object, &format!("force=true&{}", manager(dry_run)));
        let request = Request::patch(path).header(header::CONTENT_TYPE, "application/apply-patch+yaml");
        self.ask(request, object.to_string().into_bytes(), WRITE).await.map_err(|f| self.explain(f))
    }

    /// Merges `change` into an object.
    ///
    /// # Errors
    /// When it is not there, is refused, or the server cannot be asked.
    pub async fn merge(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> Result<Value, Error> {
        let path = format!("{}?{}", resource.path(Some(namespace), Some(name)), manager(false));
        let request = Request::patch(path).header(header::CONTENT_TYPE, "application/merge-patch+json");
        self.ask(request, change.to_string().into_bytes(), WRITE).await.map_err(|f| self.explain(f))
    }

    /// Deletes an object; `false` if it was not there.
    ///
    /// # Errors
    /// When it is refused or the server cannot be asked.
    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str, dry_run: bool) -> Result<bool, Error> {
        let mut options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
        if dry_run {
            options["dryRun"] = json!(["All"]);
        }
        let path = resource.path(Some(namespace), Some(name));
        match self.send(Method::DELETE, &path, Some(&options), WRITE).await {
            Ok(_) => Ok(true),
            Err(Failure::Api(status)) if status.code == 404 => Ok(false),
            Err(failure) => Err(self.explain(failure)),
        }
    }

    /// Follows the objects of a kind from a version on.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn watch(
        &self,
        resource: &Resource,
        selection: &Selection<'_>,
        from: &str,
    ) -> Result<impl futures_util::AsyncBufRead + use<>, Error> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={}&{}",
            resource.path(selection.namespace, None),
            escape(from),
            selection.query()
        );
        let request =
            Request::get(path).body(Vec::new()).map_err(|e| Error::failed("cannot ask").because(e.to_string()))?;
        let opened = tokio::time::timeout(READ, self.client.request_stream(request)).await;
        opened.map_err(|_| self.explain(Failure::Slow)).and_then(|answer| answer.map_err(|e| self.explain(e.into())))
    }

    /// A token of the CLI's own service account, for Pilot's debug port.
    ///
    /// # Errors
    /// When the server gives none.
    pub async fn token(&self, namespace: &str, audience: &str) -> Result<String, Error> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{CLI_SERVICE_ACCOUNT}/token");
        let ask = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": [audience], "expirationSeconds": 600 },
        });
        let answer = self.post(&path, &ask).await?;
        crate::resources::text(&answer, &["status", "token"])
            .map(str::to_owned)
            .ok_or_else(|| Error::failed("the API server gave no token"))
    }

    /// Fails unless the API server answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<Value, Error> {
        self.send(Method::GET, "/version", None, READ).await.map_err(|f| self.explain(f))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>, limit: Duration) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.ask(request, body.map(|b| b.to_string().into_bytes()).unwrap_or_default(), limit).await
    }

    async fn ask(&self, request: http::request::Builder, body: Vec<u8>, limit: Duration) -> Result<Value, Failure> {
        let request = request.body(body).map_err(|e| Failure::Unaskable(e.to_string()))?;
        let answer = tokio::time::timeout(limit, self.client.send(request.map(Body::from)));
        let answer = answer.await.map_err(|_| Failure::Slow)?.map_err(Failure::from)?;
        let status = answer.status();
        let body = tokio::time::timeout(BODY, answer.into_body().collect()).await.map_err(|_| Failure::Slow)?;
        let body = body.map_err(Failure::from)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| Failure::Unreadable(e.to_string()));
        }
        Err(match serde_json::from_slice::<Status>(&body) {
            Ok(refusal) if refusal.code != 0 || !refusal.message.is_empty() => {
                Failure::Api(Box::new(Status { code: status.as_u16(), ..refusal }))
            }
            // Somebody else's words, as a proxy's in between.
            _ => Failure::Api(Box::new(Status {
                code: status.as_u16(),
                message: format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]).trim()),
                ..Status::default()
            })),
        })
    }

    /// The error for a kind that the server does not have.
    #[must_use]
    pub fn kind_not_served(&self, resource: &Resource) -> Error {
        let error = Error::failed(format!(
            "{} does not serve {} ({})",
            self.description,
            resource.plural,
            resource.api_version()
        ));
        if resource.is_mesh() {
            return error.hint("the mesh is not installed there: `meshctl install`");
        }
        error
    }

    fn explain(&self, failure: Failure) -> Error {
        match failure {
            Failure::Api(status) => refused(&status),
            Failure::Unaskable(why) => Error::usage("this cannot be asked").because(why),
            Failure::Slow => self.away("it does not answer in time"),
            Failure::Transport(why) => self.away(&why),
            Failure::Unreadable(why) => {
                Error::failed(format!("{} answers with something that is not the Kubernetes API", self.server))
                    .because(why)
            }
        }
    }

    fn away(&self, why: &str) -> Error {
        let error = Error::unreachable(format!("cannot reach {} at {}", self.description, self.server)).because(why);
        match &self.local {
            Some(_) => error.hint("see how it is with `meshctl local status`"),
            None => {
                error.hint("check the server's address, or choose another mesh with --context, --kubeconfig or --name")
            }
        }
    }
}

/// Why a request to the API server failed.
enum Failure {
    Api(Box<Status>),
    Transport(String),
    Unreadable(String),
    Unaskable(String),
    Slow,
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Failure::Api(status),
            kube::Error::SerdeError(e) => Failure::Unreadable(e.to_string()),
            kube::Error::FromUtf8(e) => Failure::Unreadable(e.to_string()),
            other => Failure::Transport(chain(&other)),
        }
    }
}

/// The innermost cause of a transport error, which is the one that means something to a person.
fn chain(error: &kube::Error) -> String {
    let mut source = error.source();
    let mut words = error.to_string();
    while let Some(cause) = source {
        words = match cause.downcast_ref::<std::io::Error>() {
            Some(io) if io.get_ref().is_none() => crate::error::io_words(io),
            _ => cause.to_string(),
        };
        source = cause.source();
    }
    if words.contains("deadline has elapsed") {
        return "no connection within 4 seconds".to_owned();
    }
    words.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What the API server said no to.
fn refused(status: &Status) -> Error {
    let message = status.message.trim();
    let what = if message.is_empty() { format!("the API server answered {}", status.code) } else { message.to_owned() };
    if what.contains("failed calling webhook") && what.contains("meshctl") {
        let why = what.split_once("failed calling webhook").map_or(what.as_str(), |(_, why)| why);
        let why = why.split_once(": ").map_or(why, |(_, why)| why).to_owned();
        return Error::unreachable("Pilot does not answer, so nobody can say whether this is valid")
            .because(why)
            .hint(format!("see `meshctl get pods -n {}`", api::names::SYSTEM_NAMESPACE));
    }
    if let Some((_, why)) = what.split_once("denied the request: ") {
        return Error::failed(format!("refused: {why}"));
    }
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match code {
        StatusCode::INSUFFICIENT_STORAGE => {
            Error::failed("the mesh's disk is full, so nothing was changed").because(what).hint(
                "what runs goes on; free space on that disk, and run the command again",
            )
        }
        StatusCode::UNAUTHORIZED => Error::failed("the API server does not accept the credentials").because(what),
        StatusCode::FORBIDDEN if status.reason == "Forbidden" && what.contains("cannot") => {
            Error::failed(what).hint("ask the cluster's administrator for this permission")
        }
        StatusCode::CONFLICT if status.reason == "Conflict" => {
            Error::conflict("the object was changed meanwhile").because(what).hint(
                "run the command again; a file that has a `resourceVersion` must be read anew first, with `meshctl get -o yaml`",
            )
        }
        _ => Error::failed(what),
    }
}

/// The path of an object with a query.
fn own_path(resource: &Resource, namespace: &str, object: &Value, query: &str) -> String {
    format!("{}?{query}", resource.path(Some(namespace), Some(crate::resources::name_of(object))))
}

fn manager(dry_run: bool) -> String {
    format!("fieldManager={FIELD_MANAGER}{}", if dry_run { "&dryRun=All" } else { "" })
}

/// A query value, percent-encoded.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
