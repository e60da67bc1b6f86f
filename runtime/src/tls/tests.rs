use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::Tasks;
use crate::authority::{ServingCertificate, serving_certificate};

fn made() -> ServingCertificate {
    serving_certificate(&["mesh-pilot.mesh-system.svc", "127.0.0.1"], Duration::from_secs(3600))
        .expect("it can be made")
}

async fn listening(made: &ServingCertificate, bounds: Handshakes) -> (TlsListener, SocketAddr) {
    let identity = Identity { certificate_pem: made.cert_pem.as_bytes(), key_pem: made.key_pem.as_bytes() };
    let config = server_config(identity, None, &[b"h2"]).expect("the PEM is good");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (TlsListener::new(listener, config, bounds), address)
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody() {
    let made = made();
    let bounds = Handshakes { at_a_time: 2, timeout: Duration::from_millis(100) };
    let (mut listener, address) = listening(&made, bounds).await;
    let _silent = TcpStream::connect(address).await.expect("it listens");
    let _silent_too = TcpStream::connect(address).await.expect("it listens");
    let config = client_config(made.ca_pem.as_bytes(), &[b"h2"]).expect("the PEM is good");
    let tasks = Tasks::new();
    tasks.spawn("client", async move {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = "mesh-pilot.mesh-system.svc".try_into().expect("a DNS name");
        let mut stream = TlsConnector::from(config).connect(name, stream).await.expect("the server is trusted");
        stream.write_all(b"x").await.expect("the server reads");
        stream.shutdown().await.expect("the server is there");
    });
    let (mut stream, _) = listener.next().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("the client closes in order");
    assert_eq!(text, b"x");
    tasks.join().await;
    assert_eq!(tasks.panics(), 0);
}

#[test]
fn a_pem_that_cannot_be_used_says_why() {
    let made = made();
    for (pem, expected) in
        [("", "the PEM holds no certificate"), (made.key_pem.as_str(), "the PEM holds no certificate")]
    {
        assert_eq!(certificates(pem.as_bytes()).expect_err("no certificate").to_string(), expected);
    }
    let error = private_key(made.cert_pem.as_bytes()).expect_err("no key");
    assert_eq!(error.to_string(), "the PEM holds no private key");
    let other = serving_certificate(&["other"], Duration::from_secs(60)).expect("it can be made");
    let identity = Identity { certificate_pem: made.cert_pem.as_bytes(), key_pem: other.key_pem.as_bytes() };
    let error = server_config(identity, None, &[]).expect_err("they do not fit");
    assert_eq!(error.to_string(), "the certificate and key cannot be used");
}
