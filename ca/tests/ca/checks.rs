//! What OpenSSL makes of what the CA issues.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::svid::wire::CertificateRequest;
use runtime::svid::{Key, KeyKind};

use crate::world::{AUDIENCE, REVIEWS, World};

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// What `openssl` says.
fn openssl(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let ran = Command::new("openssl").args(arguments).current_dir(directory).output();
    let ran = ran.unwrap_or_else(|error| panic!("openssl: {error}; install it first (apt-get install openssl)"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.success(), text(&ran.stdout) + &text(&ran.stderr))
}

#[tokio::test]
async fn openssl_verifies_what_the_ca_has_issued() {
    let world = World::start().await;
    let ca = world.ca().await;
    let token = world.token("default", "reviews", AUDIENCE);
    let (_publisher, svids) = runtime::svid::channel();
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let csr = Key::generate(kind).expect("a key").request(None).expect("a request");
        let request = CertificateRequest { csr, validity_duration: 0, metadata: None };
        let answer = ca.ask(&world, Some(&token), &svids, request).await.expect("issued");
        let directory = tempfile::TempDir::new().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        write("leaf.pem", &pem(&answer.chain[0]));
        write("chain.pem", &answer.chain[1..].iter().map(|der| pem(der)).collect::<String>());
        write("roots.pem", &answer.roots);
        for purpose in ["sslserver", "sslclient"] {
            let mut verify = vec!["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "roots.pem"];
            if answer.chain.len() > 1 {
                verify.extend(["-untrusted", "chain.pem"]);
            }
            let (is_good, said) = openssl(directory.path(), &[verify, vec!["leaf.pem"]].concat());
            assert!(is_good && said.contains("leaf.pem: OK"), "{purpose}: {said}");
        }
        let shown = ["subjectAltName", "keyUsage", "extendedKeyUsage", "basicConstraints"].join(",");
        let (_, said) = openssl(directory.path(), &["x509", "-in", "leaf.pem", "-noout", "-ext", &shown]);
        let uri = format!("URI:{REVIEWS}");
        for wanted in [uri.as_str(), "Digital Signature", "TLS Web Server Authentication", "CA:FALSE"] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        // Of another CA it is nobody's.
        let other = World::start().await;
        let stranger = other.ca().await;
        let theirs = stranger.ask_by_token(&other, &other.token("default", "reviews", AUDIENCE)).await.expect("issued");
        write("roots.pem", &theirs.roots);
        let (is_good, said) = openssl(directory.path(), &["verify", "-CAfile", "roots.pem", "leaf.pem"]);
        assert!(!is_good, "{said}");
    }
}
