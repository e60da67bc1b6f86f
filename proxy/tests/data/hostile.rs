//! Hostile HTTP/1 on raw sockets: whatever is sent, an upstream sees nothing that two parsers could read differently, the
//! client gets the right status, and its connection ends.
//!
//! Behind each message stands a request for `/admin`: it must never be served.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{Mesh, Peer, Upstream, get, ok, until};

/// Everything that upstreams have been sent.
type Seen = Arc<Mutex<Vec<u8>>>;

/// An upstream that takes down every byte, and answers each head that is whole.
fn record(upstream: Upstream, mesh: &Mesh) -> Seen {
    let seen = Seen::default();
    let (all, record) = (mesh.tasks.clone(), Arc::clone(&seen));
    mesh.tasks.spawn("recording", async move {
        loop {
            let mut peer = tokio::select! {
                peer = upstream.next() => peer,
                () = all.token().cancelled() => return,
            };
            let record = Arc::clone(&record);
            all.spawn("recorded connection", async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = peer.stream.read(&mut bytes).await {
                    record.lock().expect("unpoisoned").extend_from_slice(&bytes[..count]);
                    if bytes[..count].ends_with(b"\r\n\r\n") && peer.stream.write_all(&ok("up")).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    seen
}

fn text(seen: &Seen) -> String {
    String::from_utf8_lossy(&seen.lock().expect("unpoisoned")).into_owned()
}

/// Sends a message with a request for `/admin` behind it, and gives the status, the code, and what came after the answer.
async fn hurl(address: std::net::SocketAddr, message: &[u8]) -> (u16, Option<String>, Vec<u8>) {
    let mut client = Peer::connect(address).await;
    client.send([message, get("/admin").as_bytes()].concat()).await;
    let answer = client.message().await.expect("an answer");
    let rest = client.rest().await.0;
    (answer.status(), answer.header("x-mesh-failure").map(str::to_owned), rest)
}

/// Heads that are refused: the upstream hears nothing of them.
const HEADS: &[(&[u8], u16)] = &[
    // Lines.
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\tX: folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n X: before\r\nHost: a\r\n\r\n", 400),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Bytes that have no place.
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\x80: a\r\n\r\n", 400),
    (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"G\0ET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Names.
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\t: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n(X): a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n", 400),
    // Request lines.
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 505),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"GET / Http/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET /\r\n\r\n", 505),
    (b"GET\r\nHost: a\r\n\r\n", 400),
    (b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 505),
    (b"GET@ / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Targets.
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /#admin HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /%u002f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    (b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET //b/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", 400),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    // Hosts.
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHOST: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a/admin\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: [::1%25lo]\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost_: a\r\nConnection: host\r\n\r\n", 400),
    // Lengths.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent_Length: 0\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: content-length\r\n\r\nhello", 400),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 5\r\n\r\nhello", 400),
    // Both.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    // Other protocols.
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a b\r\n\r\n", 400),
];

/// Ways to write `Transfer-Encoding: chunked` that some parser takes for it, and another does not.
const ENCODINGS: &[&[u8]] = &[
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunk",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: chunked\x0c",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: chunked;foo=bar",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chu\r\n nked",
    b"Transfer-Encoding\r\n : chunked",
    b"Transfer-Encoding: chunked\r",
    b"Transfer-Encoding: chunked\nX: y",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer Encoding: chunked",
    b"Transfer-Encoding chunked",
    b"\x00Transfer-Encoding: chunked",
    b"Transfer-\x80Encoding: chunked",
    b"Transfer-Encoding: chunked\xff",
    b"Transfer-Encoding: chunked\xc2\xa0",
    b"Transfer-Encoding: ch\xc5\xaenked",
];

/// Bodies whose framing breaks: the upstream has their beginning, and never an end.
const BODIES: &[&[u8]] = &[
    b"5\r\nhello\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5h\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n",
    b"5,\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"00000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n",
    b"5;a\0\r\nhello\r\n0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    b"5\r;\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX : a\r\n\r\n",
    b"5\r\nhello\r\n0\r\n folded\r\n\r\n",
    b"5\r\nhello\r\n0\r\nno field\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\n",
];

#[tokio::test]
async fn heads_that_are_refused_are_never_heard_of_at_the_upstream() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let seen = record(upstream, &mesh);
    for (head, status) in HEADS {
        let shown = String::from_utf8_lossy(head);
        let (answered, code, rest) = hurl(address, head).await;
        assert_eq!(answered, *status, "{shown:?}");
        let expected = if *status == 501 { "upgrade_refused" } else { "bad_request" };
        assert_eq!(code.as_deref(), Some(expected), "{shown:?}");
        assert!(rest.is_empty(), "after {shown:?} came {:?}", String::from_utf8_lossy(&rest));
        assert_eq!(text(&seen), "", "{shown:?}");
    }
    for encoding in ENCODINGS {
        for length in [&b""[..], b"Content-Length: 5\r\n"] {
            let head = [b"POST / HTTP/1.1\r\nHost: a\r\n", length, encoding, b"\r\n\r\n0\r\n\r\n"].concat();
            let shown = String::from_utf8_lossy(&head);
            let (answered, code, rest) = hurl(address, &head).await;
            assert_eq!((answered, code.as_deref()), (400, Some("bad_request")), "{shown:?}");
            assert!(rest.is_empty(), "after {shown:?} came {:?}", String::from_utf8_lossy(&rest));
            assert_eq!(text(&seen), "", "{shown:?}");
        }
    }
}

#[tokio::test]
async fn bodies_that_break_have_no_end_at_the_upstream() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let seen = record(upstream, &mesh);
    let extensions = ["1;x=".to_owned(), "y".repeat(1000), "\r\na\r\n".to_owned()].concat().repeat(70);
    let long_line = ["5;x=".to_owned(), "y".repeat(2000), "\r\nhello\r\n".to_owned()].concat();
    let trailers = ["0\r\n".to_owned(), format!("X: {}\r\n", "y".repeat(1000)).repeat(9), "\r\n".to_owned()].concat();
    let large = [extensions, long_line, trailers];
    for body in BODIES.iter().copied().chain(large.iter().map(String::as_bytes)) {
        let shown: String = String::from_utf8_lossy(body).chars().take(80).collect();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (answered, code, rest) = hurl(address, &[head, body].concat()).await;
        assert_eq!((answered, code.as_deref()), (400, Some("bad_request")), "{shown:?}");
        assert!(rest.is_empty(), "after {shown:?} came {:?}", String::from_utf8_lossy(&rest));
        let seen = text(&seen);
        assert!(!seen.contains("admin"), "{shown:?} gave {seen:?}");
        assert!(!seen.contains("\r\n0\r\n"), "the body of {shown:?} was ended: {seen:?}");
    }
}

/// What is written in a strange way and means one thing only: the upstream gets it in the plain way.
const PLAIN: &[(&[u8], &str)] = &[
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (b"GET / HTTP/1.1\r\nhOsT:\t a \t\r\nX:y\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"),
    (b"GET http://A/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET /x?y HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (b"GET //a/./b/%2e%2e/c\\d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a/c/d HTTP/1.1\r\nHost: a\r\n\r\n"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: \u{fffd}\u{fffd}\r\n\r\n"),
    (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X\r\nX: gone\r\nTE: gzip\r\nKeep-Alive: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ChUnKeD\r\n\r\n005;x=\"y\"\r\nhello\r\n00\r\nHost: b\r\nContent-Length: 9\r\nT: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    ),
];

#[tokio::test]
async fn what_means_one_thing_reaches_the_upstream_in_its_plain_form() {
    for (message, expected) in PLAIN {
        let upstream = Upstream::new().await;
        let (mesh, address) = Mesh::simple(upstream.address).await;
        let seen = record(upstream, &mesh);
        let mut client = Peer::connect(address).await;
        client.send(message).await;
        assert_eq!(client.message().await.expect("an answer").text(), "up");
        let seen = text(&seen);
        let is_own = |line: &&str| !["x-request-id:", "traceparent:"].iter().any(|name| starts_with(line, name));
        let plain: String = seen.split_inclusive("\r\n").filter(is_own).collect();
        assert_eq!(plain, *expected, "{:?}", String::from_utf8_lossy(message));
    }
}

#[tokio::test]
async fn a_pipelined_request_is_served_only_if_the_one_before_ended_where_it_says() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let seen = record(upstream, &mesh);
    // The whole second request is the body of the first: CL.0 of an upstream that ignores bodies of GET changes nothing.
    let smuggled = get("/admin");
    let first = format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    let mut client = Peer::connect(address).await;
    assert_eq!(client.ask(first).await.text(), "up");
    let forwarded = text(&seen);
    assert!(forwarded.ends_with(&format!("\r\n\r\n{smuggled}")), "{forwarded:?}");
    assert!(forwarded.contains(&format!("Content-Length: {}\r\n", smuggled.len())), "{forwarded:?}");
    // The answer to what the upstream may have taken for a second request is nobody's.
    client.send(get("/next")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "up");
    until("the next request", || text(&seen).contains("GET /next")).await;
}

/// Answers that are never passed on: the client gets 502, or a reset if it has got the head.
const ANSWERS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\nContent-Length: 6\n\npoison",
    b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n Set-Cookie: poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\0poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nSet-Cookie : poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\npoison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 6\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200\tOK\r\n\r\npoison",
    b"HTTP/1.1  200 OK\r\n\r\npoison",
    b"HTTP/1.1 20 OK\r\n\r\npoison",
    b"HTTP/1.1 2000 OK\r\n\r\npoison",
    b"HTTP/1.1 099 OK\r\n\r\npoison",
    b"HTTP/2.0 200 OK\r\n\r\npoison",
    b"HTTP/1.1 200 OK\x01poison\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    b"poison HTTP/1.1 200 OK\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46poison\r\n\r\n",
];

#[tokio::test]
async fn answers_that_could_be_read_in_two_ways_are_never_passed_on() {
    let flood = b"HTTP/1.1 103 Early Hints\r\nX: poison\r\n\r\n".repeat(17);
    for answer in ANSWERS.iter().copied().chain([&flood[..]]) {
        let shown: String = String::from_utf8_lossy(answer).chars().take(80).collect();
        let upstream = Upstream::new().await;
        let (_mesh, address) = Mesh::simple(upstream.address).await;
        let mut client = Peer::connect(address).await;
        client.send(get("/")).await;
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        server.send(answer).await;
        let mut head = client.head().await;
        while head.as_ref().is_some_and(|(first, _)| first.contains(" 103 ")) {
            head = client.head().await;
        }
        // If it has got nothing but a refusal the connection goes on.
        client.stream.shutdown().await.ok();
        let (rest, in_order) = client.rest().await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        let is_502 = head.as_ref().is_some_and(|(first, _)| first.contains(" 502 "));
        let is_refused = is_502 && rest.starts_with("upstream_protocol");
        assert!(is_refused || head.is_none() || !in_order, "{shown:?} gave {head:?} {rest:?}");
        assert!(!rest.contains("poison"), "{shown:?} gave {rest:?}");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_never_the_answer_to_another_request() {
    for (request, answer) in [
        (get("/"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (get("/"), "HTTP/1.1 204 No Content\r\n\r\n"),
        (get("/"), "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        (get("/"), "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
        (get("/").replace("GET", "HEAD"), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (get("/"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ] {
        let upstream = Upstream::new().await;
        let (_mesh, address) = Mesh::simple(upstream.address).await;
        let mut client = Peer::connect(address).await;
        client.send(&request).await;
        let mut server = upstream.accept().await;
        server.head().await.expect("a request");
        server.send([answer.as_bytes(), &ok("poison")].concat()).await;
        client.head().await.expect("an answer");
        let mut other = Peer::connect(address).await;
        other.send(get("/other")).await;
        let mut server = upstream.accept().await;
        assert_eq!(server.message().await.expect("on a connection of its own").first, "GET /other HTTP/1.1");
        server.send(ok("other")).await;
        assert_eq!(other.message().await.expect("an answer").text(), "other", "{answer:?}");
    }
}

fn starts_with(line: &str, start: &str) -> bool {
    line.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}
