//! What connections are taken for by their first bytes, and where that leads.

use mesh_proxy::Settings;
use mesh_proxy::access_log::{AccessLog, Encoding, Format};

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, until};

/// A ClientHello that asks for a server, as a client sends it.
pub fn client_hello(server_name: Option<&str>) -> Vec<u8> {
    fn prefixed(size: usize, content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_be_bytes()[4 - size..], content].concat()
    }
    // A key share of 1,216 bytes, as clients with a post-quantum group have one.
    let mut extensions = [&[0, 51][..], &prefixed(2, &[5; 1216])].concat();
    if let Some(name) = server_name {
        let list = prefixed(2, &[&[0][..], &prefixed(2, name.as_bytes())].concat());
        extensions.extend([&[0, 0][..], &prefixed(2, &list)].concat());
    }
    let content = [
        &[3, 3][..],
        &[7; 32],
        &prefixed(1, &[9; 32]),
        &prefixed(2, &[0x13, 1]),
        &prefixed(1, &[0]),
        &prefixed(2, &extensions),
    ];
    let message = [&[1][..], &prefixed(3, &content.concat())].concat();
    [&[22, 3, 1][..], &prefixed(2, &message)].concat()
}

fn counted(mesh: &Mesh, result: &str) -> u64 {
    let metrics = mesh.metrics();
    let start = format!("mesh_protocol_detection_total{{result=\"{result}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{metrics}"));
    line.parse().expect("a number")
}

#[tokio::test]
async fn tls_goes_by_its_server_name_and_without_one_that_fits_where_it_would_have_gone() {
    let (one, below, rest) = (Upstream::new().await, Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    for (name, upstream) in [("one", &one), ("below", &below), ("rest", &rest)] {
        mesh.cluster(name, &[upstream.address]);
    }
    let chains: [(&[&str], &str); 3] =
        [(&["one.example", "www.one.example"], "one"), (&["*.one.example"], "below"), (&[], "rest")];
    let address = mesh.tls("tls", &chains).await;
    for (server_name, expected) in [
        (Some("one.example"), &one),
        (Some("WWW.ONE.example"), &one),
        (Some("a.b.one.example"), &below),
        (Some("two.example"), &rest),
        (Some("10.0.0.1"), &rest),
        (Some("one.example\n"), &rest),
        (None, &rest),
    ] {
        let hello = client_hello(server_name);
        let mut client = Peer::connect(address).await;
        // In two pieces, the first without the name.
        client.send(&hello[..600]).await;
        client.send(&hello[600..]).await;
        let mut server = expected.accept().await;
        assert_eq!(server.exactly(hello.len()).await, hello, "{server_name:?}");
        server.send("server hello").await;
        assert_eq!(client.exactly(12).await, b"server hello");
    }
    assert_eq!(counted(&mesh, "tls"), 7);
}

#[tokio::test]
async fn what_is_no_client_hello_is_passed_unread() {
    let (one, rest) = (Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    mesh.cluster("one", &[one.address]);
    mesh.cluster("rest", &[rest.address]);
    let address = mesh.tls("tls", &[(&["one.example"], "one"), (&[], "rest")]).await;
    let mut cut = client_hello(Some("one.example"));
    cut.truncate(700);
    let mut broken = client_hello(Some("one.example"));
    broken[5] = 2;
    for (bytes, result) in [(broken, "opaque"), (b"\x16\x03\x01\xff\xff\x01".to_vec(), "opaque"), (cut, "undecided")] {
        let before = counted(&mesh, result);
        let mut client = Peer::connect(address).await;
        client.send(&bytes).await;
        let mut server = rest.accept().await;
        assert_eq!(server.exactly(bytes.len()).await, bytes);
        assert_eq!(counted(&mesh, result), before + 1, "{result}");
    }
    assert!(!one.has_connection().await);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_and_counted() {
    let (web, other) = (Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    mesh.cluster("web", &[web.address]);
    mesh.cluster("other", &[other.address]);
    mesh.routes("web", vec![forward("web")]);
    let address = mesh.auto("auto", "web", "other").await;
    for greeting in ["220 mail ESMTP\r\n", "\x4a\0\0\0\x0a8.0.36\0", "SSH-2.0-OpenSSH_9.6\r\n"] {
        let mut client = Peer::connect(address).await;
        let mut server = other.accept().await;
        server.send(greeting).await;
        assert_eq!(client.exactly(greeting.len()).await, greeting.as_bytes());
        client.send("EHLO a\r\n").await;
        assert_eq!(server.exactly(8).await, b"EHLO a\r\n");
    }
    assert_eq!((counted(&mesh, "silent"), counted(&mesh, "late_http")), (3, 0));
}

#[tokio::test]
async fn http_that_came_too_late_to_be_recognised_is_passed_and_told() {
    let (web, other) = (Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    mesh.cluster("web", &[web.address]);
    mesh.cluster("other", &[other.address]);
    mesh.routes("web", vec![forward("web")]);
    let address = mesh.auto("auto", "web", "other").await;
    let mut client = Peer::connect(address).await;
    let mut server = other.accept().await;
    client.send(get("/late")).await;
    assert_eq!(server.message().await.expect("a request").first, "GET /late HTTP/1.1");
    assert_eq!((counted(&mesh, "silent"), counted(&mesh, "late_http")), (1, 1));
    server.send(ok("late")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "late");
}

#[tokio::test]
async fn who_asks_for_an_unknown_server_is_closed_and_told_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let one = Upstream::new().await;
    let format = Some("%MESH_FAILURE% %RESPONSE_FLAGS% %REQUESTED_SERVER_NAME%\n");
    let log = AccessLog::open(&file, Format::new(Encoding::Text, format).expect("a format")).expect("opens");
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    mesh.cluster("one", &[one.address]);
    let address = mesh.tls("tls", &[(&["*.one.example"], "one")]).await;
    for hello in
        [client_hello(Some("one.example")), client_hello(Some("two.example")), client_hello(None), get("/").into()]
    {
        let mut client = Peer::connect(address).await;
        client.send(&hello).await;
        assert!(client.rest().await.0.is_empty());
    }
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the lines", || text().lines().count() == 4).await;
    let mut lines: Vec<String> = text().lines().map(str::to_owned).collect();
    lines.sort();
    let expected =
        ["no_route NR -", "unknown_server NR -", "unknown_server NR one.example", "unknown_server NR two.example"];
    assert_eq!(lines, expected);
    let metrics = mesh.metrics();
    for (reason, count) in [("unknown_server", 3), ("no_route", 1)] {
        let line = format!("mesh_connections_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(!one.has_connection().await);
}

#[tokio::test]
async fn the_access_log_names_the_server_that_was_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let upstream = Upstream::new().await;
    let format = Format::new(Encoding::Text, Some("asks for %REQUESTED_SERVER_NAME%\n")).expect("a format");
    let log = AccessLog::open(&file, format).expect("opens");
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tls("tls", &[(&[], "up")]).await;
    let mut client = Peer::connect(address).await;
    client.send(client_hello(Some("shop.example"))).await;
    drop(upstream.accept().await);
    drop(client);
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the line", || text().contains('\n')).await;
    assert_eq!(text(), "asks for shop.example\n");
}
