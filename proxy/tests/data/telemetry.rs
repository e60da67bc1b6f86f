//! What is told of requests and connections: lines of the log, counters, and traces.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mesh_proxy::access_log::{AccessLog, Encoding, Format};
use mesh_proxy::trace_context::{Formats, Rate, Tracing};
use mesh_proxy::{Edge, Settings};

use crate::mesh::{Mesh, Message1, Peer, Upstream, forward, get, ok, until};

/// A log in a file.
pub(super) struct Logged {
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Logged {
    pub(super) fn start(format: Format) -> (Self, AccessLog) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("access.log");
        let log = AccessLog::open(&file, format).expect("opens");
        (Logged { file, _dir: dir }, log)
    }

    pub(super) async fn lines(&self, count: usize) -> Vec<String> {
        let read = || std::fs::read_to_string(&self.file).unwrap_or_default();
        until("the lines are written", || read().lines().count() >= count).await;
        read().lines().map(str::to_owned).collect()
    }
}

fn text(format: &str) -> Format {
    Format::new(Encoding::Text, Some(format)).expect("a format")
}

/// Every request of an upstream that answers all of them.
fn recording(upstream: Upstream, mesh: &Mesh, answer: Vec<u8>) -> Arc<Mutex<Vec<Message1>>> {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    upstream.serve(&mesh.tasks, move |request| {
        seen.lock().expect("unpoisoned").push(request.clone());
        answer.clone()
    });
    requests
}

#[tokio::test]
async fn requests_are_logged_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let log = AccessLog::open(&file, Format::default()).expect("opens");
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    let up = upstream.address.to_string();
    upstream.serve(&mesh.tasks, |_| ok("hello"));
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    client.ask("GET /\"x HTTP/1.1\r\nHost: shop\r\nUser-Agent: curl\r\nX-Request-Id: 7\r\n\r\n").await;
    client.ask("GET / HTTP/1.1\r\n\r\n").await;
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    until("two lines are written", || lines().lines().count() == 2).await;
    let text = lines();
    let (first, second) = text.split_once('\n').expect("two lines");
    for part in [
        "\"GET /\\\"x HTTP/1.1\" 200 - - via_upstream 0 5 ",
        "\"-\" \"curl\" \"7\" \"shop\"",
        &format!("\"{up}\" up {address} 127.0.0.1:"),
        " all",
    ] {
        assert!(first.contains(part), "{part} in {first}");
    }
    assert!(second.contains("\"- - -\" 400 DPE bad_request bad_request 0 "), "{second}");

    let out = mesh.metrics();
    let total = |code: &str| {
        out.lines().any(|l| l.starts_with("istio_requests_total") && l.contains(code) && l.ends_with(" 1"))
    };
    assert!(total("response_code=\"200\"") && total("response_code=\"400\""), "{out}");
}

#[tokio::test]
async fn traffic_is_counted_by_the_service_and_workload_it_went_to() {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    mesh.service("reviews", upstream.address);
    mesh.routes("http", vec![forward("reviews")]);
    let (http, tcp) = (mesh.http("http", Edge::Outbound).await, mesh.tcp("tcp", "reviews").await);
    upstream.serve(&mesh.tasks, |_| ok("hello"));
    let mut client = Peer::connect(http).await;
    for _ in 0..3 {
        client.ask(get("/")).await;
    }
    let mut opaque = Peer::connect(tcp).await;
    opaque.ask(get("/")).await;
    drop(opaque);
    let whole = |name: &str| {
        let out = mesh.metrics();
        let labels = [
            "reporter=\"source\"",
            "destination_service=\"reviews.shop.svc.cluster.local\"",
            "destination_service_name=\"reviews\"",
            "destination_service_namespace=\"shop\"",
            "destination_workload=\"reviews-v1\"",
            "destination_workload_namespace=\"shop\"",
            "destination_app=\"reviews\"",
            "destination_version=\"v1\"",
        ];
        let line =
            out.lines().find(|line| line.starts_with(&format!("{name}{{")) && labels.iter().all(|l| line.contains(l)));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
    };
    until("all is counted", || whole("istio_tcp_connections_closed_total") == "1").await;
    assert_eq!(whole("istio_requests_total"), "3");
    assert_eq!(whole("istio_response_bytes_sum"), "15.0");
    assert_eq!(whole("istio_tcp_connections_opened_total"), "1");
    assert_eq!(whole("istio_tcp_received_bytes_total"), get("/").len().to_string());
    assert_eq!(whole("istio_tcp_sent_bytes_total"), ok("hello").len().to_string());
}

#[tokio::test]
async fn a_line_has_the_form_that_was_asked_for_until_another_is() {
    let format = text(
        "%REQ(:METHOD)% %REQ(:PATH)% %REQ(X-A?X-B):3% %REQ(NONE?HOST)% %RESP(X-C)% %RESPONSE_CODE_DETAILS% \
         %RESPONSE_FLAGS_LONG% %PROTOCOL% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
         %START_TIME(%Y)% 100%% %ROUTE_NAME%",
    );
    let (logged, log) = Logged::start(format);
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    let up = upstream.address;
    recording(upstream, &mesh, b"HTTP/1.1 200 OK\r\nX-C: see\r\nContent-Length: 0\r\n\r\n".to_vec());
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    client.ask("GET /a?b HTTP/1.1\r\nHost: shop\r\nx-b: longer\r\n\r\n").await;
    let year = jiff::Timestamp::now().strftime("%Y").to_string();
    assert_eq!(
        logged.lines(1).await,
        [format!("GET /a?b lon shop see via_upstream - HTTP/1.1 1 127.0.0.1 {year} 100% all")]
    );

    let json = r#"{"code": "%RESPONSE_CODE%", "who": {"agent": "%REQ(USER-AGENT)%", "none": "%REQ(NONE)%"},
        "up": "to %UPSTREAM_HOST%", "local": "%UPSTREAM_LOCAL_ADDRESS%", "is": true}"#;
    let log = mesh.path.access_log().expect("there is one");
    log.set_format(Format::new(Encoding::Json, Some(json)).expect("a format"));
    client.ask("GET / HTTP/1.1\r\nHost: shop\r\nUser-Agent: a\"b\r\n\r\n").await;
    let lines = logged.lines(2).await;
    let line: serde_json::Value = serde_json::from_str(&lines[1]).expect("JSON");
    assert_eq!((&line["code"], &line["is"]), (&200.into(), &true.into()), "{line}");
    assert_eq!(line["who"], serde_json::json!({"agent": "a\"b", "none": null}), "{line}");
    assert_eq!(line["up"], format!("to {up}"), "{line}");
    assert!(line["local"].as_str().is_some_and(|local| local.starts_with("127.0.0.1:")), "{line}");
}

#[tokio::test]
async fn the_default_json_is_read_by_a_parser_for_requests_failures_and_opaque_connections() {
    let (logged, log) = Logged::start(Format::new(Encoding::Json, None).expect("the default"));
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    mesh.cluster("nobody", &[]);
    recording(upstream, &mesh, ok("hello"));
    mesh.routes("http", vec![forward("up")]);
    mesh.routes("empty", vec![forward("nobody")]);
    let mut client = Peer::connect(mesh.http("http", Edge::Outbound).await).await;
    client.ask(get("/")).await;
    let mut client = Peer::connect(mesh.http("empty", Edge::Outbound).await).await;
    client.ask(get("/")).await;
    let mut client = Peer::connect(mesh.tcp("tcp", "up").await).await;
    client.ask(get("/")).await;
    drop(client);
    let lines = logged.lines(3).await;
    let line = |at: usize| serde_json::from_str::<serde_json::Value>(&lines[at]).expect("JSON");
    let (fine, failed, opaque) = (line(0), line(1), line(2));
    assert_eq!((&fine["response_code"], &fine["bytes_sent"]), (&200.into(), &5.into()), "{fine}");
    assert_eq!((&fine["failure"], &fine["response_flags"]), (&().into(), &().into()), "{fine}");
    assert_eq!(fine["trace_id"].as_str().map(str::len), Some(32), "{fine}");
    assert_eq!((&failed["response_code"], &failed["response_flags"]), (&503.into(), &"UH".into()), "{failed}");
    assert_eq!((&failed["failure"], &failed["upstream_host"]), (&"no_endpoints".into(), &().into()), "{failed}");
    assert_eq!((&opaque["method"], &opaque["response_code"]), (&().into(), &0.into()), "{opaque}");
    assert_eq!((&opaque["upstream_cluster"], &opaque["protocol"]), (&"up".into(), &().into()), "{opaque}");
}

#[tokio::test]
async fn every_hop_is_a_span_of_the_same_trace() {
    const CAME: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (logged, log) = Logged::start(text("%TRACE_ID% %PARENT_SPAN_ID% %SPAN_ID%"));
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    let requests = recording(upstream, &mesh, ok(""));
    mesh.routes("in", vec![forward("up")]);
    let inbound = mesh.http("in", Edge::Inbound).await;
    mesh.cluster("beyond", &[inbound]);
    mesh.routes("out", vec![forward("beyond")]);
    let mut client = Peer::connect(mesh.http("out", Edge::Outbound).await).await;
    let b3 = "X-B3-TraceId: 1\r\nB3: 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nTraceParent: {CAME}\r\ntracestate: a=1\r\n{b3}\r\n\r\n")).await;
    client.ask("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-bad\r\ntracestate: a=1\r\n\r\n").await;
    let lines = logged.lines(4).await;
    let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let requests = requests.lock().expect("unpoisoned");
    for (hops, request) in lines.chunks(2).zip(requests.iter()) {
        // The inner hop ends first.
        let [inner, outer] = hops else { panic!("two lines: {hops:?}") };
        assert_eq!((inner[0], inner[1]), (outer[0], outer[2]), "{hops:?}");
        let sent = request.header("traceparent").expect("it goes on");
        let sampled = sent.rsplit('-').next().expect("flags");
        assert_eq!(sent, format!("00-{}-{}-{sampled}", inner[0], inner[2]));
    }
    assert_eq!((lines[1][0], lines[1][1]), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"));
    assert_eq!(requests[0].header("tracestate"), Some("a=1"));
    let b3 = requests[0].header("b3").expect("it is told in the formats that it came in");
    assert!(b3.starts_with("0af7651916cd43dd8448eb211c80319c-") && b3.contains("-1-"), "{b3}");
    assert_eq!(requests[0].header("x-b3-traceid"), Some("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!((lines[3][1], requests[1].header("tracestate")), ("-", None), "what is malformed begins nothing");
}

#[tokio::test]
async fn without_sampling_no_trace_begins_but_one_that_came_goes_on() {
    let tracing = Tracing { rate: Rate::NEVER, formats: Formats::default() };
    let mesh = Mesh::with(Settings { tracing, ..Settings::default() });
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    let requests = recording(upstream, &mesh, ok(""));
    mesh.routes("http", vec![forward("up")]);
    let mut client = Peer::connect(mesh.http("http", Edge::Outbound).await).await;
    client.ask(get("/")).await;
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nb3: 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\r\n\r\n").await;
    let requests = requests.lock().expect("unpoisoned");
    assert_eq!(requests[0].header("traceparent"), None);
    assert!(requests[1].header("b3").is_some_and(|b3| b3.contains("-0-b7ad6b7169203331")));
    assert!(requests[1].header("traceparent").is_some_and(|parent| parent.ends_with("-00")));
}

#[tokio::test]
async fn a_request_id_from_outside_is_not_trusted() {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    let requests = recording(upstream, &mesh, ok(""));
    mesh.routes("http", vec![forward("up")]);
    let mut client = Peer::connect(mesh.http("http", Edge::Gateway).await).await;
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\n\r\n").await;
    let outside = "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\nx-forwarded-for: 8.8.8.8\r\n\r\n";
    client.ask(outside).await;
    let requests = requests.lock().expect("unpoisoned");
    assert_eq!(requests[0].header("x-request-id"), Some("mine"));
    assert!(
        requests[1].header("x-request-id").is_some_and(|id| id.len() == 36),
        "{:?}",
        requests[1].header("x-request-id")
    );
}

#[tokio::test]
async fn the_caller_of_an_inbound_request_is_who_pilot_says_is_there() {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    mesh.cluster("app", &[upstream.address]);
    recording(upstream, &mesh, ok("hello"));
    // Whoever connects from loopback is the workload that has its endpoint there.
    mesh.service("callers", "127.0.0.1:1".parse().expect("an address"));
    mesh.routes("http", vec![forward("app")]);
    let address = mesh.http("http", Edge::Inbound).await;
    let spoofed = "GET / HTTP/1.1\r\nHost: a\r\nx-mesh-peer: admin\r\nx-envoy-peer-metadata: admin\r\n\r\n";
    Peer::connect(address).await.ask(spoofed).await;
    mesh.path.metrics().learn_peers();
    Peer::connect(address).await.ask(spoofed).await;
    let out = mesh.metrics();
    let count = |workload: &str| {
        let labels = [
            "reporter=\"destination\"",
            &format!("source_workload=\"{workload}\""),
            "connection_security_policy=\"none\"",
        ];
        let of =
            |line: &&str| line.starts_with("istio_requests_total{") && labels.iter().all(|label| line.contains(label));
        out.lines().find(of).and_then(|line| line.rsplit(' ').next()).unwrap_or("0").to_owned()
    };
    assert_eq!((count("unknown").as_str(), count("reviews-v1").as_str()), ("1", "1"), "{out}");
    assert!(!out.contains("admin"), "{out}");
}

#[tokio::test]
async fn bytes_of_an_opaque_connection_are_counted_while_it_lasts() {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    client.send("four").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.exactly(4).await, b"four");
    server.send("sixsix").await;
    client.exactly(6).await;
    let value = |name: &str| {
        let out = mesh.metrics();
        let line = out.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_default().to_owned();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    until("bytes to the caller are counted", || value("istio_tcp_sent_bytes_total") == "6").await;
    assert_eq!(value("istio_tcp_received_bytes_total"), "4");
    assert_eq!(value("istio_tcp_connections_closed_total"), "0");
    assert_eq!(value("mesh_upstream_connections_open"), "1");
    assert_eq!(value("mesh_upstream_connections_total"), "1");
}
