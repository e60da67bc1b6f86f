use proptest::prelude::*;

use super::*;

fn request(text: &str) -> Result<Request, Malformed> {
    let limits = Limits::default();
    let end = Scan::default().find_end(text.as_bytes(), &limits)?.ok_or(Malformed::Control)?;
    let mut request = Request::default();
    parse_request(text.as_bytes(), end, &limits, &mut request)?;
    Ok(request)
}

fn response(text: &str) -> Result<Response, Malformed> {
    let limits = Limits::default();
    let end = Scan::default().find_end(text.as_bytes(), &limits)?.ok_or(Malformed::Control)?;
    let mut response = Response::default();
    parse_response(text.as_bytes(), end, &limits, &mut response)?;
    Ok(response)
}

/// Requests that two parsers could read differently, and why each is refused.
pub(crate) const REFUSED: &[(&str, Malformed)] = &[
    ("GET / HTTP/1.1\nHost: a\n\n", Malformed::BareLineFeed),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", Malformed::BareLineFeed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Malformed::Control),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Malformed::Control),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", Malformed::Control),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", Malformed::Control),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Malformed::Folded),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Malformed::Folded),
    ("\x16\x03\x01", Malformed::Tls),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Malformed::Folded),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\n\r\n", Malformed::NoHost),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Malformed::TwoHosts),
    ("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Malformed::TwoHosts),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n", Malformed::Host),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Malformed::Host),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::HostDisagrees),
    ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::HostDisagrees),
    ("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Malformed::Host),
    ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Host),
    ("GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /% HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET /\r\nHost: a\r\n\r\n", Malformed::Version),
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Method),
    (" / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Method),
    ("\r\n\r\n", Malformed::Method),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Malformed::TwoLengths),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\ncontent-length: 4\r\n\r\n", Malformed::TwoLengths),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", Malformed::TwoLengths),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n", Malformed::FieldName),
    ("POST / HTTP/1.1\r\nHost: a\r\nTRANSFER_ENCODING: chunked\r\n\r\n", Malformed::FieldName),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", Malformed::Length),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n", Malformed::Length),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", Malformed::Length),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n", Malformed::Length),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Malformed::Length),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", Malformed::Length),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        Malformed::LengthAndEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        Malformed::LengthAndEncoding,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Malformed::Encoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Malformed::Encoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Malformed::Encoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Malformed::Encoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Malformed::Encoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Malformed::Control),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Malformed::Encoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", Malformed::Encoding),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        Malformed::Encoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        Malformed::Encoding,
    ),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::Encoding),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", Malformed::Connection),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, content-length\r\n\r\n", Malformed::Connection),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n", Malformed::Connection),
];

#[test]
fn ambiguous_requests_are_refused_each_for_its_reason() {
    for (text, reason) in REFUSED {
        assert_eq!(request(text).map(|_| ()), Err(*reason), "{text:?}");
    }
}

#[test]
fn ordinary_requests_are_read() {
    for (text, method, path, host, length, keep_alive) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", Some("a"), None, true),
        ("\r\nGET /x?y=1 HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET", "/x?y=1", Some("a:80"), None, true),
        ("GET http://A/x HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET", "/x", Some("a:80"), None, true),
        ("GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", Some("a"), None, true),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", Some("a"), None, true),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", "GET", "/", Some("[::1]:80"), None, false),
        ("GET / HTTP/1.0\r\n\r\n", "GET", "/", None, None, false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", None, None, true),
        ("POST /p%20q HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\n\r\n", "POST", "/p%20q", Some("a"), Some(12), true),
        ("PURGE /?%zz HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", "PURGE", "/?%zz", Some("a"), None, true),
    ] {
        let request = request(text).expect(text);
        let head = text.as_bytes();
        assert_eq!(request.method.text(head), Some(method), "{text:?}");
        assert_eq!(request.path(head), path.as_bytes(), "{text:?}");
        assert_eq!(request.host.and_then(|host| host.text(head)), host, "{text:?}");
        assert_eq!((request.length, request.keep_alive), (length, keep_alive), "{text:?}");
    }
}

#[test]
fn fields_that_connection_names_are_marked() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nFoo: 1\r\nBar: 2\r\nConnection: keep-alive, foo\r\n\r\n";
    let request = request(text).expect("valid");
    let marked: Vec<_> = request.fields.iter().map(|field| field.is_nominated).collect();
    assert_eq!(marked, [false, true, false, false]);
}

#[test]
fn the_protocols_that_a_client_offers_are_those_of_upgrade_if_connection_says_so() {
    let offered = |head: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
        let request = request(&text)?;
        Ok(request.offered(text.as_bytes()).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    };
    for (head, expected) in [
        ("Connection: Upgrade\r\nUpgrade: websocket", Ok(vec!["websocket".to_owned()])),
        (
            "Connection: keep-alive, uPGRADE\r\nUpgrade: h2c ,spdy/3.1,",
            Ok(vec!["h2c".to_owned(), "spdy/3.1".to_owned()]),
        ),
        ("Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b", Ok(vec!["a".to_owned(), "b".to_owned()])),
        ("Upgrade: websocket", Ok(vec![])),
        ("Connection: Upgrade", Ok(vec![])),
        ("Connection: Upgrade\r\nUpgrade: web socket", Err(Malformed::Upgrade)),
        ("Connection: Upgrade\r\nUpgrade: a//b", Err(Malformed::Upgrade)),
        ("Connection: Upgrade\r\nUpgrade: a/", Err(Malformed::Upgrade)),
        ("Connection: Upgrade\r\nUpgrade: \"a\"", Err(Malformed::Upgrade)),
    ] {
        assert_eq!(offered(head), expected, "{head}");
    }
}

#[test]
fn white_space_around_values_is_no_part_of_them() {
    let text = "GET / HTTP/1.1\r\nHost:a\r\nX:  admin \t\r\nY: b\r\n\r\n";
    let request = request(text).expect("valid");
    let read: Vec<_> =
        request.fields.iter().map(|field| (field.value.text(text.as_bytes()).expect("text"), field.is_plain)).collect();
    assert_eq!(read, [("a", false), ("admin", false), ("b", true)]);
}

#[test]
fn large_heads_and_many_fields_are_refused() {
    let limits = Limits { head: 100, fields: 3 };
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100));
    assert_eq!(Scan::default().find_end(long.as_bytes(), &limits), Err(Malformed::HeadTooLarge));
    assert_eq!(Scan::default().find_end(&[b'a'; 100], &limits), Err(Malformed::HeadTooLarge));
    let many = "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
    let end = Scan::default().find_end(many.as_bytes(), &limits).expect("small").expect("whole");
    let parsed = parse_request(many.as_bytes(), end, &limits, &mut Request::default());
    assert_eq!(parsed, Err(Malformed::TooManyFields));
}

#[test]
fn a_head_is_found_wherever_the_reads_cut_it() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    for cut in 0..text.len() {
        let mut scan = Scan::default();
        let first = scan.find_end(&text[..cut], &Limits::default()).expect("valid so far");
        let end = first.or(scan.find_end(text, &Limits::default()).expect("valid"));
        assert_eq!(end, Some(text.len() - 4), "cut at {cut}");
    }
}

#[test]
fn responses_are_read_or_refused() {
    let ok = response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").expect("valid");
    assert_eq!((ok.status, ok.length, ok.keep_alive), (200, Some(3), true));
    assert_eq!(response("HTTP/1.1 404\r\n\r\n").map(|r| r.status), Ok(404));
    assert_eq!(response("HTTP/1.0 200 \r\n\r\n").map(|r| r.keep_alive), Ok(false));
    for (text, reason) in [
        ("HTTP/1.1 200 OK\nContent-Length: 3\n\n", Malformed::BareLineFeed),
        ("HTTP/1.1 2000 OK\r\n\r\n", Malformed::Status),
        ("HTTP/1.1 20 OK\r\n\r\n", Malformed::Status),
        ("HTTP/1.1 099 OK\r\n\r\n", Malformed::Status),
        ("HTTP/1.1200 OK\r\n\r\n", Malformed::Status),
        ("HTTP/2.0 200 OK\r\n\r\n", Malformed::Version),
        ("ICY 200 OK\r\n\r\n", Malformed::Status),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed::Status),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Malformed::TwoLengths),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::LengthAndEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Malformed::Encoding),
    ] {
        assert_eq!(response(text).map(|_| ()), Err(reason), "{text:?}");
    }
}

#[test]
fn responses_without_body_have_none_whatever_they_say() {
    for (status, to_head, done) in
        [(200, false, false), (200, true, true), (204, false, true), (304, false, true), (100, false, true)]
    {
        let parsed = response(&format!("HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\n")).expect("valid");
        assert_eq!(Body::of_response(&parsed, to_head).is_done(), done, "{status} {to_head}");
    }
}

fn unchunk(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, usize), Malformed> {
    let mut body = Body::Chunked(chunked::Chunked::default());
    let (mut content, mut trailers, mut at, mut seen) = (Vec::new(), 0, 0, 0);
    loop {
        match body.next(&bytes[at..seen])? {
            Piece::More if seen == bytes.len() => return Err(Malformed::Control),
            Piece::More => seen = (seen + step).min(bytes.len()),
            Piece::Data { data, consumed } => {
                content.extend_from_slice(&bytes[at..seen][data]);
                at += consumed;
            }
            Piece::Trailer { consumed, .. } => {
                trailers += 1;
                at += consumed;
            }
            Piece::End { consumed } => return Ok((content, trailers, at + consumed)),
        }
    }
}

#[test]
fn chunked_bodies_are_read_strictly() {
    for step in [1, 2, 3, 7, 1000] {
        for (text, content, trailers) in [
            ("0\r\n\r\n", "", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\n", "hello0123456789", 2),
        ] {
            let read = unchunk(text.as_bytes(), step);
            assert_eq!(read, Ok((content.as_bytes().to_vec(), trailers, text.len())), "{text:?} by {step}");
        }
    }
    for (text, reason) in [
        ("\r\n", Malformed::Chunk),
        ("5\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("5\r\nhello0\r\n\r\n", Malformed::Chunk),
        ("5\r\nhello\n0\r\n\r\n", Malformed::Chunk),
        ("5 \r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        (" 5\r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("0x5\r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("+5\r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("-1\r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("5;a\x01\r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("FFFFFFFFFFFFFFFFF\r\n", Malformed::Chunk),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", Malformed::Chunk),
        ("0\r\n\n", Malformed::Trailer),
    ] {
        assert_eq!(unchunk(text.as_bytes(), 1), Err(reason), "{text:?}");
    }
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(2000));
    assert_eq!(unchunk(extension.as_bytes(), 1), Err(Malformed::Chunk));
    let trailer = format!("0\r\nT: {}\r\n\r\n", "a".repeat(9000));
    assert_eq!(unchunk(trailer.as_bytes(), 1), Err(Malformed::Trailer));
}

fn noisy() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"GET ",
        b"/ ",
        b"HTTP/1.1",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host: a",
        b":",
        b" ",
        b"Content-Length: ",
        b"5",
        b"0",
        b"Transfer-Encoding: chunked",
        b"hello",
        b"Connection: ",
        b",",
        b"close",
        b"\0",
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        b"\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"http://a",
        b"[::1]",
        b"%",
        b"\xff",
    ];
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_the_codec_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzz::requests(&bytes);
        let _ = unchunk(&bytes, 5);
    }

    #[test]
    fn nothing_like_http_makes_the_codec_panic(bytes in noisy()) {
        crate::fuzz::requests(&bytes);
        let _ = response(&String::from_utf8_lossy(&bytes));
        let _ = unchunk(&bytes, 3);
    }

    #[test]
    fn an_accepted_request_has_one_host_and_one_framing(bytes in noisy()) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Ok(request) = request(&text) {
            let hosts = request.fields.iter().filter(|field| field.kind == Kind::Host).count();
            prop_assert!(hosts == 1 || (hosts == 0 && request.version == Version::Http10));
            prop_assert!(!(request.is_chunked && request.length.is_some()));
        }
    }
}
