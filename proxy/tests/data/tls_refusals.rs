//! Peers with whom there is no TLS: each is refused, with its reason in reply, log and metric, and never in clear text.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_proxy::{Edge, Settings};
use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, SanType};
use runtime::authority::Root;
use runtime::svid::{Key, KeyKind};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::mesh::mutual::{CALLER, Domain, HOUR, Mode, SERVER};
use crate::mesh::{Mesh, Peer, SOON, Upstream, forward, get, ok, until};
use crate::tls::Pair;

/// Shows whatever certificate it is given, and believes any.
#[derive(Debug)]
struct Anybody(Arc<CertifiedKey>);

impl Anybody {
    fn new(signer: &Root, params: &CertificateParams) -> Arc<Self> {
        let key = Key::generate(KeyKind::P256).expect("a key");
        let leaf = signer.sign(params, &key).expect("a certificate");
        let key = runtime::tls::provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(key.pkcs8()));
        Arc::new(Anybody(Arc::new(CertifiedKey::new(vec![leaf], key.expect("a key")))))
    }

    fn client(self: Arc<Self>) -> Arc<ClientConfig> {
        let config = builder(&[&TLS13]).with_client_cert_resolver(self);
        Arc::new(offering(config))
    }

    fn server(self: Arc<Self>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(runtime::tls::provider());
        let builder = builder.with_protocol_versions(&[&TLS13]).expect("TLS 1.3").with_no_client_auth();
        let mut config = builder.with_cert_resolver(self);
        config.alpn_protocols = vec![b"mesh-http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn builder(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let builder = ClientConfig::builder_with_provider(runtime::tls::provider());
    let builder = builder.with_protocol_versions(versions).expect("versions");
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Believer))
}

fn offering(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"mesh-http/1.1".to_vec()];
    config.enable_sni = false;
    config
}

impl ResolvesClientCert for Anybody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Anybody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Believes any server.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        runtime::tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Certificates of an identity with one fault each, and the word that each is refused with.
fn faults(of: &str) -> Vec<(&'static str, CertificateParams)> {
    let now = SystemTime::now();
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = Root::params(of, now - HOUR, 2 * HOUR).expect("good");
        change(&mut params);
        params
    };
    let uri = |text: &str| SanType::URI(text.try_into().expect("ASCII"));
    // GeneralNames with one URI that holds a NUL.
    let nul = format!("{of}\0.evil");
    let length = u8::try_from(nul.len()).expect("short");
    let mut names = vec![0x30, length + 2, 0x86, length];
    names.extend_from_slice(nul.as_bytes());
    vec![
        ("tls_wrong_purpose", with(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])),
        ("tls_trust_domain", with(&|p| p.subject_alt_names = vec![uri("spiffe://other.example/ns/shop/sa/reviews")])),
        ("tls_several_uris", with(&|p| p.subject_alt_names.push(uri("spiffe://cluster.local/ns/shop/sa/x")))),
        (
            "tls_nul_in_name",
            with(&|p| {
                p.subject_alt_names.clear();
                p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names.clone())];
            }),
        ),
        ("tls_no_uri", with(&|p| p.subject_alt_names = vec![SanType::DnsName("reviews".try_into().expect("ASCII"))])),
        ("tls_not_spiffe", with(&|p| p.subject_alt_names = vec![uri("https://cluster.local/ns/shop/sa/reviews")])),
        ("tls_expired", with(&|p| p.not_after = (now - Duration::from_secs(1)).into())),
        ("tls_not_yet_valid", with(&|p| p.not_before = (now + HOUR).into())),
        ("tls_authority", with(&|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained))),
    ]
}

fn good(of: &str) -> CertificateParams {
    Root::params(of, SystemTime::now() - HOUR, 2 * HOUR).expect("good")
}

/// What a caller gets to read that asks with this configuration.
async fn ask(address: SocketAddr, config: Arc<ClientConfig>) -> Vec<u8> {
    let socket = TcpStream::connect(address).await.expect("connects");
    let asking = async {
        let name = ServerName::try_from("mesh").expect("a name");
        let Ok(mut stream) = TlsConnector::from(config).connect(name, socket).await else { return Vec::new() };
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        read
    };
    tokio::time::timeout(SOON, asking).await.expect("the connection ends soon")
}

#[tokio::test]
async fn callers_with_a_bad_certificate_are_refused_with_the_reason() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Permissive).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let root = &pair.domain.root;
    let answer = ask(pair.inbound, Anybody::new(root, &good(CALLER)).client()).await;
    assert!(answer.ends_with(b"hello"), "a good certificate is taken: {:?}", String::from_utf8_lossy(&answer));
    let other = Root::new("mesh root").expect("another root of the same name");
    let mut cases: Vec<_> = faults(CALLER).into_iter().map(|(word, params)| (word, root, params)).collect();
    cases.push(("tls_unknown_root", &other, good(CALLER)));
    for (word, signer, params) in cases {
        let before = pair.handshakes("server", word);
        let answer = ask(pair.inbound, Anybody::new(signer, &params).client()).await;
        assert!(answer.is_empty(), "{word}: {:?}", String::from_utf8_lossy(&answer));
        until(word, || pair.handshakes("server", word) == before + 1).await;
    }
    for (word, config) in [
        ("tls_no_certificate", builder(&[&TLS13]).with_no_client_auth()),
        ("tls_incompatible", builder(&[&TLS12]).with_client_cert_resolver(Anybody::new(root, &good(CALLER)))),
    ] {
        assert_eq!(ask(pair.inbound, Arc::new(offering(config))).await, b"", "{word}");
        until(word, || pair.handshakes("server", word) == 1).await;
    }
    assert_eq!(pair.handshakes("server", "full"), 1);
}

#[tokio::test]
async fn servers_with_a_bad_certificate_are_refused_with_the_reason() {
    let domain = Domain::new();
    let mesh = domain.join(CALLER).mesh();
    mesh.routes("out", vec![forward("reviews")]);
    let http = mesh.http("out", Edge::Outbound).await;
    let other = Root::new("mesh root").expect("another root of the same name");
    let mut cases: Vec<_> = faults(SERVER).into_iter().map(|(word, params)| (word, &domain.root, params)).collect();
    cases.push(("tls_unknown_root", &other, good(SERVER)));
    cases.push(("tls_not_expected", &domain.root, good("spiffe://cluster.local/ns/shop/sa/other")));
    let mut client_only = good(SERVER);
    client_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    cases.push(("tls_wrong_purpose", &domain.root, client_only));
    for (word, signer, params) in cases {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        mesh.by_tls("reviews", socket.local_addr().expect("an address"), &[SERVER], false);
        let acceptor = TlsAcceptor::from(Anybody::new(signer, &params).server());
        let serving = async {
            loop {
                let (stream, _) = socket.accept().await.expect("accepts");
                if acceptor.accept(stream).await.is_ok() {
                    panic!("{word}: the caller goes on");
                }
            }
        };
        let mut client = Peer::connect(http).await;
        let answer = tokio::select! { () = serving => continue, answer = client.ask(get("/")) => answer };
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some(word)));
    }
}

#[tokio::test]
async fn where_tls_is_wanted_nothing_goes_in_clear_text() {
    // A server that knows no TLS.
    let upstream = Upstream::new().await;
    let mesh = Domain::new().join(CALLER).mesh();
    mesh.by_tls("reviews", upstream.address, &[SERVER], false);
    mesh.routes("out", vec![forward("reviews")]);
    let mut client = Peer::connect(mesh.http("out", Edge::Outbound).await).await;
    let serving = async {
        loop {
            let mut peer = upstream.accept().await;
            assert_eq!(peer.exactly(1).await, [0x16], "it begins with a handshake");
            peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            let (rest, _) = peer.rest().await;
            assert!(!String::from_utf8_lossy(&rest).contains("GET /"));
        }
    };
    let answer = tokio::select! { answer = client.ask(get("/")) => answer, () = serving => unreachable!() };
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("tls_malformed")));
}

#[tokio::test]
async fn without_a_certificate_there_is_no_tls_and_clear_text_where_it_is_allowed() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Permissive).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    // The far side has heard nothing of its CA yet.
    let nobody = Mesh::with(Settings::default());
    nobody.cluster("app", &[upstream_of(&pair)]);
    nobody.routes("in", vec![forward("app")]);
    let inbound = nobody.inbound("inbound", Mode::Permissive, "in", "app").await;
    pair.near.by_tls("reviews", inbound, &[SERVER], false);
    let answer = Peer::connect(pair.http).await.ask(get("/")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("tls_closed")));
    assert!(nobody.metrics().contains("mesh_tls_handshakes_total{side=\"server\",result=\"tls_no_svid\"}"));
    let plain = Peer::connect(inbound).await.ask(get("/")).await;
    assert_eq!((plain.status(), plain.text()), (200, "hello"));
    // Nor has the near side: no byte goes to the endpoint.
    let silent = Upstream::new().await;
    nobody.by_tls("reviews", silent.address, &[SERVER], false);
    nobody.routes("out", vec![forward("reviews")]);
    let answer = Peer::connect(nobody.http("out", Edge::Outbound).await).await.ask(get("/")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("tls_no_svid")));
    assert_eq!(silent.accept().await.rest().await.0, b"");
}

/// The application beside the far side of a pair, through which it can be asked in clear text.
fn upstream_of(pair: &Pair) -> SocketAddr {
    pair.inbound
}

/// A whole ClientHello that offers the mesh's word.
fn hello() -> Vec<u8> {
    let config = Arc::new(offering(builder(&[&TLS13]).with_no_client_auth()));
    let mut client = ClientConnection::new(config, ServerName::try_from("mesh").expect("a name")).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes it");
    bytes
}

#[tokio::test]
async fn a_handshake_that_stops_in_the_middle_is_ended() {
    let upstream = Upstream::new().await;
    let settings = Settings { handshake_timeout: Duration::from_millis(50), ..Settings::default() };
    let pair = Pair::with(upstream.address, Mode::Strict, false, settings).await;
    let mut slow = Peer::connect(pair.inbound).await;
    slow.send(hello()).await;
    let (answer, _) = slow.rest().await;
    assert_eq!(answer.first(), Some(&0x16), "the server has answered, and waited");
    until("it is counted", || pair.handshakes("server", "tls_slow") == 1).await;
    assert!(pair.far.metrics().contains("mesh_limit_hits_total{limit=\"slow_handshake\"} 1"));
    until("it is gone", || pair.far.connections() == 0).await;
}

#[tokio::test]
async fn garbage_behind_a_client_hello_ends_the_connection() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    for (garbage, word) in [
        (&b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"[..], "tls_malformed"),
        (&[0x16, 3, 3, 0, 4, 1, 2, 3, 4], "tls_malformed"),
        (&[0x17, 3, 3, 0xff, 0xff, 0], "tls_malformed"),
        (&[0x15, 3, 3, 0, 2, 2, 40], "tls_alert"),
    ] {
        let before = pair.handshakes("server", word);
        let mut client = Peer::connect(pair.inbound).await;
        let mut bytes = hello();
        bytes.extend_from_slice(garbage);
        client.send(bytes).await;
        client.rest().await;
        until(word, || pair.handshakes("server", word) == before + 1).await;
    }
    // So does an end.
    let mut client = Peer::connect(pair.inbound).await;
    client.send(hello()).await;
    client.stream.shutdown().await.expect("shuts down");
    client.rest().await;
    until("it is closed", || pair.handshakes("server", "tls_closed") == 1).await;
}

#[tokio::test]
async fn a_caller_whom_the_server_refuses_is_told_so() {
    for has_proxy in [false, true] {
        let upstream = Upstream::new().await;
        let pair = Pair::with(upstream.address, Mode::Strict, has_proxy, Settings::default()).await;
        // The server trusts another root than that of its callers.
        let other = Domain::new().root.bundle(&pair.server.id).expect("a bundle");
        pair.server.publisher.publish_bundle(other);
        let answer = Peer::connect(pair.http).await.ask(get("/")).await;
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("tls_alert")), "{has_proxy}");
        assert!(pair.handshakes("server", "tls_unknown_root") >= 1);
    }
}
