//! What others make of what the CA issues: OpenSSL of the certificates, and a reader of the log of the audit.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::svid::wire::CertificateRequest;
use runtime::svid::{Key, KeyKind, Leaf};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::world::{AUDIENCE, REVIEWS, World, id_of, refusal, request};

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

/// Keeps the lines of the audit that this thread writes.
#[derive(Debug, Clone, Default)]
struct Audit(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Audit {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "audit"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.0.lock().expect("not poisoned").push(fields.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Audit {
    fn take(&self) -> Vec<BTreeMap<String, String>> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

#[tokio::test]
async fn each_issuance_and_each_refusal_is_a_line_of_the_audit() {
    let audit = Audit::default();
    let _guard = tracing::subscriber::set_default(audit.clone());
    let world = World::start().await;
    let ca = world.ca().await;
    audit.take();
    let token = world.token("default", "reviews", AUDIENCE);
    let (_publisher, svids) = runtime::svid::channel();
    let asked = "spiffe://cluster.local/ns/default/sa/other";
    let answer = ca.ask(&world, Some(&token), &svids, request(Some(asked))).await.expect("issued");
    let lines = audit.take();
    let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
    let field = |name: &str| line.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(field("message"), "a certificate was issued");
    assert_eq!((field("id"), field("proof"), field("asked")), (&*id_of(&answer), "token", asked));
    let leaf = Leaf::read(&answer.chain[0]).expect("an SVID");
    assert_eq!(field("serial"), leaf.peer.serial, "by its number a certificate is found in the log");
    assert_eq!(field("by"), "no pod", "which pod the token is bound to");
    assert!(field("peer").starts_with("127.0.0.1:"), "{line:?}");
    assert!(field("not_after").starts_with("20"), "{line:?}");
    assert!(line.values().all(|value| !value.contains(&token)), "no token is written down: {line:?}");

    refusal(ca.ask_by_token(&world, "nonsense").await);
    let lines = audit.take();
    let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
    assert_eq!(line["message"], "a request was refused");
    assert!(line["text"].contains("the API server refuses the token"), "{line:?}");
    assert!(!line["reason"].is_empty() && line["peer"].starts_with("127.0.0.1:"), "{line:?}");
}
