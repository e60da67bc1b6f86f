use std::net::SocketAddr;

use runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A key set with one good key.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn fetcher(allows_local: bool) -> Fetcher {
    Fetcher::new(rustls::RootCertStore::empty(), allows_local)
}

/// A server that answers every request with what `answer` makes of its path; `None` never answers.
async fn issuer(
    tasks: &Tasks,
    answer: impl Fn(&str, SocketAddr) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tasks.spawn("issuer", async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..count]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            match answer(&path, address) {
                Some(bytes) => drop(stream.write_all(&bytes).await),
                None => std::future::pending().await,
            }
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn cve_2025_64527_a_key_set_is_fetched_and_anything_else_refused() {
    let tasks = Tasks::new();
    let at = issuer(&tasks, |path, own| {
        Some(match path {
            "/keys" => ok(KEYS),
            "/html" => ok("<html>not JSON</html>"),
            "/empty" => ok(r#"{"keys":[]}"#),
            "/secret" => ok(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
            "/deep" => ok(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
            "/once" => redirect("/keys"),
            "/away" => redirect(&format!("http://{own}/once")),
            "/loop" => redirect("/loop"),
            "/file" => redirect("file:///etc/passwd"),
            "/nowhere" => redirect(""),
            // 50 MB, of which no more than a bit is read.
            "/huge" => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n{}", " ".repeat(1 << 20)).into_bytes()
            }
            "/garbage" => b"\x00\x01\x02 nothing of HTTP\r\n\r\n".to_vec(),
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(),
            _ => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        })
    })
    .await;
    for (path, expected) in [
        ("keys", Ok(())),
        ("once", Ok(())),
        ("away", Ok(())),
        ("html", Err("the answer is of no use")),
        ("empty", Err("the answer is of no use")),
        ("secret", Err("the answer is of no use")),
        ("deep", Err("the answer is of no use")),
        ("loop", Err("the redirect to")),
        ("file", Err("the redirect to `file:///etc/passwd`")),
        ("nowhere", Err("the redirect to")),
        ("huge", Err("the answer is longer than")),
        ("garbage", Err("the answer cannot be read")),
        ("cut", Err("the answer cannot be read")),
        ("down", Err("the answer is 503")),
    ] {
        let fetched = fetcher(true).fetch(&format!("http://{at}/{path}")).await;
        match (fetched, expected) {
            (Ok(text), Ok(())) => assert_eq!(&*text, KEYS, "{path}"),
            (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{path}: {error}"),
            (fetched, _) => panic!("{path}: {fetched:?}"),
        }
    }
    tasks.token().cancel();
}

#[tokio::test]
async fn this_machine_is_fetched_from_only_if_the_operator_says_so() {
    let tasks = Tasks::new();
    let at = issuer(&tasks, |_, _| Some(ok(KEYS))).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let error = fetcher(false).fetch(&format!("http://{host}:{}/keys", at.port())).await.expect_err(host);
        assert!(matches!(error, FetchError::Forbidden { .. }), "{host}: {error}");
    }
    for uri in ["ftp://a/keys", "http://", "keys", "", "https://a b/"] {
        assert!(matches!(fetcher(true).fetch(uri).await, Err(FetchError::Address(_))), "{uri}");
    }
    tasks.token().cancel();
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_does_not_answer_is_waited_for_no_longer_than_a_moment() {
    let tasks = Tasks::new();
    let at = issuer(&tasks, |_, _| None).await;
    let fetched = fetcher(true).fetch(&format!("http://{at}/keys")).await;
    assert!(matches!(fetched, Err(FetchError::TooSlow)), "{fetched:?}");
    tasks.token().cancel();
}

#[tokio::test]
async fn what_policies_name_is_fetched_and_how_it_stands_is_told() {
    let tasks = Tasks::new();
    let at = issuer(&tasks, |path, _| Some(if path == "/keys" { ok(KEYS) } else { ok("no") })).await;
    let (wanted, state) = (watch::Sender::new(BTreeSet::new()), KeySets::default());
    let (changes, mut said) = mpsc::channel(8);
    let follower = Follower { fetcher: fetcher(true), wanted: wanted.subscribe(), changes, state: state.clone() };
    tasks.spawn("keys", follower.run(tasks.token().clone()));
    let (good, bad) = (format!("http://{at}/keys"), format!("http://{at}/bad"));
    wanted.send_replace([good.clone(), bad.clone()].into());
    let mut found = BTreeMap::new();
    while found.len() < 2 {
        let Some(Change::KeySet(uri, fetched)) = said.recv().await else { panic!("it has ended") };
        found.insert(uri, fetched.is_ok());
    }
    assert_eq!(found, BTreeMap::from([(good.clone(), true), (bad.clone(), false)]));
    let all = state.all();
    assert_eq!((all[&good].keys, all[&good].error.clone()), (1, None));
    assert!(all[&bad].keys == 0 && all[&bad].failures == 1 && all[&bad].error.is_some(), "{all:?}");
    tasks.token().cancel();
}
