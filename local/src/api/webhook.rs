//! Calling one admission webhook over TLS.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

use super::object::{array, text};
use super::pki::certificates;
use super::{Selection, Store};

/// Why a webhook could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
    #[error("no endpoints available for service \"{service}\"")]
    NoEndpoint { service: String },
    #[error("its client configuration is not usable: {why}")]
    Configuration { why: String },
    #[error("cannot connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the exchange with it failed")]
    Http(#[from] hyper::Error),
    #[error("it answered with status {code}")]
    Status { code: u16 },
    #[error("its answer cannot be used: {why}")]
    Answer { why: String },
}

/// An answer larger than this is not read.
const MAX_ANSWER: usize = 8 << 20;

struct Destination {
    addresses: Vec<String>,
    host: String,
    path: String,
}

/// Posts an AdmissionReview to a webhook and returns its answer.
pub(super) async fn call(store: &Store, webhook: &Value, review: &Value) -> Result<Value, CallError> {
    let destination = destination(store, &webhook["clientConfig"])?;
    let tls = tls(&webhook["clientConfig"])?;
    let stream = connect(&destination, &tls).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let body = Full::new(Bytes::from(review.to_string()));
    let request = http::Request::post(&destination.path)
        .header("host", &destination.host)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(body)
        .map_err(|error| CallError::Configuration { why: error.to_string() })?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| CallError::Answer { why: error.to_string() })?.to_bytes();
        if code != 200 {
            return Err(CallError::Status { code });
        }
        serde_json::from_slice(&body).map_err(|error| CallError::Answer { why: error.to_string() })
    };
    // The connection is driven here and ends with the exchange: nothing is left to run on its own.
    let drive = async {
        let ended = connection.await;
        match ended {
            Ok(()) => std::future::pending::<CallError>().await,
            Err(error) => CallError::Http(error),
        }
    };
    tokio::select! {
        biased;
        answer = exchange => answer,
        error = drive => Err(error),
    }
}

async fn connect(
    destination: &Destination,
    tls: &tokio_rustls::TlsConnector,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CallError> {
    let name = ServerName::try_from(destination.host.clone())
        .map_err(|error| CallError::Configuration { why: error.to_string() })?;
    let mut failed = CallError::NoEndpoint { service: destination.host.clone() };
    for address in &destination.addresses {
        let attempt = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            tls.connect(name.clone(), stream).await
        };
        match attempt.await {
            Ok(stream) => return Ok(stream),
            Err(source) => failed = CallError::Connect { address: address.clone(), source },
        }
    }
    Err(failed)
}

fn destination(store: &Store, config: &Value) -> Result<Destination, CallError> {
    if let Some(url) = config["url"].as_str() {
        let wrong = |why: &str| CallError::Configuration { why: format!("url \"{url}\" {why}") };
        let uri: http::Uri = url.parse().map_err(|_| wrong("is not one"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("is not https"));
        }
        let host = uri.host().ok_or_else(|| wrong("has no host"))?.trim_matches(['[', ']']).to_owned();
        let address = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        return Ok(Destination { addresses: vec![address], host, path });
    }
    let service = &config["service"];
    let (namespace, name) = (text(service, "/namespace"), text(service, "/name"));
    let port = service["port"].as_u64().unwrap_or(443);
    let path = match text(service, "/path") {
        "" => "/",
        path => path,
    };
    let addresses = endpoints(store, namespace, name, port);
    if addresses.is_empty() {
        return Err(CallError::NoEndpoint { service: format!("{namespace}/{name}:{port}") });
    }
    Ok(Destination { addresses, host: format!("{name}.{namespace}.svc"), path: path.to_owned() })
}

/// The ready endpoints behind a port of a service.
fn endpoints(store: &Store, namespace: &str, name: &str, port: u64) -> Vec<String> {
    let Ok(service) = store.get("services", namespace, name) else { return vec![] };
    let Some(wanted) = array(&service, "/spec/ports").iter().find(|it| it["port"].as_u64() == Some(port)) else {
        return vec![];
    };
    let label = format!("kubernetes.io/service-name={name}");
    let Ok(selection) = Selection::namespace(namespace).with_labels(&label) else { return vec![] };
    let mut addresses = vec![];
    for slice in store.list("endpointslices.discovery.k8s.io", &selection).items {
        let found = array(&slice, "/ports").iter().find(|it| text(it, "/name") == text(wanted, "/name"));
        let Some(port) = found.and_then(|it| it["port"].as_u64()) else { continue };
        for endpoint in array(&slice, "/endpoints").iter().filter(|it| it["conditions"]["ready"] == true) {
            addresses.extend(
                array(endpoint, "/addresses").iter().filter_map(Value::as_str).map(|ip| format!("{ip}:{port}")),
            );
        }
    }
    addresses
}

fn tls(config: &Value) -> Result<tokio_rustls::TlsConnector, CallError> {
    let wrong = |why: String| CallError::Configuration { why };
    let bundle = STANDARD.decode(text(config, "/caBundle")).map_err(|error| wrong(format!("caBundle: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&String::from_utf8_lossy(&bundle)) {
        roots.add(certificate).map_err(|error| wrong(format!("caBundle: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("caBundle holds no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(client)))
}
