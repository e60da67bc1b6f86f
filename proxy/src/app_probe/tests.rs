use std::convert::Infallible;
use std::sync::Mutex;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::*;

/// An application on a free port, and the tasks that it ends with.
async fn serving(router: Router) -> (u16, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let tasks = Tasks::new();
    let stop = tasks.token().clone();
    tasks.spawn("application", runtime::admin::serve(listener, router, runtime::admin::Limits::default(), stop));
    (port, tasks)
}

fn prober(told: &str) -> Prober {
    let probes = told.parse().unwrap_or_else(|why| panic!("{why}: {told}"));
    Prober::new(&probes, None, None, Tasks::new()).expect("TLS")
}

/// What the metrics port answers to a probe.
async fn ask(prober: Prober, path: &str) -> (u16, String) {
    let request = Request::get(path).header("user-agent", "kube-probe/1.35").body(axum::body::Body::empty());
    let answer = prober.router().oneshot(request.expect("a request")).await.expect("it answers");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// A probe of this kind at `/app-health/app/readyz`.
async fn outcome(what: &str) -> (u16, String) {
    let told = format!(r#"{{"/app-health/app/readyz": {{{what}, "timeoutSeconds": 1}}}}"#);
    ask(prober(&told), "/app-health/app/readyz").await
}

#[tokio::test]
async fn an_http_probe_asks_the_application_as_the_node_would() {
    let seen: Arc<Mutex<HeaderMap>> = Arc::default();
    let noted = Arc::clone(&seen);
    let page = get(move |uri: Uri, headers: HeaderMap| async move {
        *noted.lock().expect("not poisoned") = headers;
        format!("well, {uri}")
    });
    let (port, _app) = serving(Router::new().route("/health", page)).await;
    let get = format!(
        r#""httpGet": {{"path": "/health?deep=1", "port": {port}, "scheme": "HTTP", "httpHeaders": [{{"name": "Host", "value": "shop"}}, {{"name": "X-Probe", "value": "yes"}}]}}"#
    );
    assert_eq!(outcome(&get).await, (200, "well, /health?deep=1".to_owned()));
    let seen = seen.lock().expect("not poisoned");
    let value = |name: &str| seen[name].to_str().expect("text").to_owned();
    assert_eq!(
        (value("host"), value("x-probe"), value("user-agent")),
        ("shop".to_owned(), "yes".to_owned(), "kube-probe/1.35".to_owned())
    );
    assert_eq!(seen.get_all("host").iter().count(), 1);
}

#[tokio::test]
async fn the_applications_own_status_is_passed_on() {
    let router = Router::new()
        .route("/bad", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "the disk is full") }))
        .route("/here", get(|| async { (StatusCode::FOUND, [("location", "/bad")]) }))
        .route("/away", get(|| async { (StatusCode::FOUND, [("location", "http://192.0.2.1/")]) }))
        .route("/round", get(|| async { (StatusCode::FOUND, [("location", "/round2")]) }))
        .route("/round2", get(|| async { (StatusCode::FOUND, [("location", "/round")]) }));
    let (port, _app) = serving(router).await;
    for (path, expected) in [("/bad", 500), ("/here", 500), ("/away", 302), ("/round", 508), ("/nowhere", 404)] {
        let get = format!(r#""httpGet": {{"path": "{path}", "port": {port}, "scheme": "HTTP"}}"#);
        assert_eq!(outcome(&get).await.0, expected, "{path}");
    }
}

/// A port where nobody listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

#[tokio::test]
async fn an_application_that_is_not_there_fails_its_probes_with_the_reason() {
    let port = closed_port();
    for what in [
        format!(r#""httpGet": {{"path": "/", "port": {port}, "scheme": "HTTP"}}"#),
        format!(r#""tcpSocket": {{"port": {port}}}"#),
        format!(r#""grpc": {{"port": {port}}}"#),
    ] {
        let (status, text) = outcome(&what).await;
        assert_eq!(status, 503, "{text}");
        assert!(text.starts_with(&format!("127.0.0.1:{port} cannot be reached: ")), "{text}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("bound").port();
    assert_eq!(outcome(&format!(r#""tcpSocket": {{"port": {port}}}"#)).await.0, 200, "it accepts");
    let get = format!(r#""httpGet": {{"path": "/", "port": {port}, "scheme": "HTTP"}}"#);
    assert_eq!(outcome(&get).await, (504, "the application does not answer within 1s\n".to_owned()));
}

#[tokio::test]
async fn an_https_probe_takes_any_certificate() {
    let made = runtime::authority::serving_certificate(&["somebody.else"], std::time::Duration::from_secs(60));
    let made = made.expect("a certificate");
    let identity =
        runtime::tls::Identity { certificate_pem: made.cert_pem.as_bytes(), key_pem: made.key_pem.as_bytes() };
    let config = runtime::tls::server_config(identity, None, &[]).expect("TLS");
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let tasks = Tasks::new();
    tasks.spawn("application", async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let stream = acceptor.accept(stream).await.expect("a handshake");
        let page = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"secret"))))
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), page).await;
    });
    let get = format!(r#""httpGet": {{"path": "/", "port": {port}, "scheme": "HTTPS"}}"#);
    assert_eq!(outcome(&get).await, (200, "secret".to_owned()));
}

/// A health service of gRPC for one connection: `web` serves, `batch` does not, others are unknown.
async fn health() -> (u16, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let tasks = Tasks::new();
    tasks.spawn("application", async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let check = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let question = request.into_body().collect().await.expect("a question").to_bytes();
            let (status, state) = match question.get(7..) {
                Some(b"web") | None => ("0", 1),
                Some(b"batch") => ("0", 2),
                Some(_) => ("5", 0),
            };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().expect("a value"));
            let data = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, state]);
            let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
            let answer = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(answer.body(StreamBody::new(futures_util::stream::iter(frames))).expect("an answer"))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), check).await;
    });
    (port, tasks)
}

#[tokio::test]
async fn a_grpc_probe_asks_the_health_service() {
    for (service, status, said) in [
        ("", 200, "SERVING"),
        ("web", 200, "SERVING"),
        ("batch", 503, "says that `batch` is NOT_SERVING"),
        ("other", 503, "answers with gRPC status 5"),
    ] {
        let (port, _app) = health().await;
        let (found, text) = outcome(&format!(r#""grpc": {{"port": {port}, "service": "{service}"}}"#)).await;
        assert_eq!(found, status, "{service}: {text}");
        assert!(text.contains(said), "{service}: {text}");
    }
}

#[tokio::test]
async fn only_what_the_proxy_was_told_can_be_asked_for() {
    let (status, text) = ask(
        prober(r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "timeoutSeconds": 1}}"#),
        "/app-health/b/livez",
    )
    .await;
    assert_eq!((status, text.as_str()), (404, "there is no such probe; known here: /app-health/a/livez\n"));
}

#[test]
fn probes_that_make_no_sense_are_refused_with_the_reason() {
    for (text, expected) in [
        ("[]", "invalid type"),
        (r#"{"/a": {"timeoutSeconds": 1}}"#, "/a: it has none or several of httpGet, tcpSocket and grpc"),
        (r#"{"/a": {"tcpSocket": {"port": 70000}, "timeoutSeconds": 1}}"#, "70000"),
        (r#"{"/a": {"httpGet": {"path": "/", "port": 1, "scheme": "FTP"}, "timeoutSeconds": 1}}"#, "FTP is neither"),
        (
            r#"{"/a": {"httpGet": {"path": "/", "port": 1, "scheme": "HTTP", "httpHeaders": [{"name": "a b"}]}, "timeoutSeconds": 1}}"#,
            "`a b` is no header's name",
        ),
    ] {
        let error = text.parse::<AppProbes>().expect_err(text);
        assert!(error.contains(expected), "{error}");
    }
}
