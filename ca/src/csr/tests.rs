use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use runtime::svid::{Key, KeyKind};

use super::*;

fn request(kind: KeyKind) -> String {
    let key = Key::generate(kind).expect("a key");
    let id = "spiffe://cluster.local/ns/default/sa/reviews".parse().expect("an identity");
    key.request(Some(&id)).expect("a request")
}

#[test]
fn requests_with_both_kinds_of_keys_are_read() {
    for (kind, name) in [(KeyKind::P256, "P-256"), (KeyKind::Ed25519, "Ed25519")] {
        let csr = Csr::from_pem(request(kind).as_bytes()).expect("a good request");
        assert_eq!(csr.key.kind(), name);
        assert_eq!(csr.asked.as_deref(), Some("spiffe://cluster.local/ns/default/sa/reviews"));
    }
}

#[test]
fn the_older_word_for_a_request_is_known() {
    let pem = request(KeyKind::P256).replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
    // Which words the PEM reader knows is its own matter; it must not be read as something else.
    if let Err(error) = Csr::from_pem(pem.as_bytes()) {
        assert!(matches!(error, CsrError::NotPem { .. }), "{error}");
    }
}

#[test]
fn garbage_is_refused_with_a_reason() {
    let good = request(KeyKind::P256);
    let key = KeyPair::generate().expect("a key").serialize_pem();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let p384 = CertificateParams::default().serialize_request(&other).expect("a request").pem().expect("PEM");
    for (pem, expected) in [
        (String::new(), "there is none"),
        ("hello".to_owned(), "there is none"),
        (good[..good.len() / 2].to_owned(), "damaged"),
        (format!("{good}{good}"), "several"),
        (format!("{good}{key}"), "private key"),
        (key, "private key"),
        (good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "something else"),
        (format!("{good}{}", "x".repeat(LARGEST)), "are the limit"),
        (p384, "neither P-256 nor Ed25519"),
    ] {
        let error = Csr::from_pem(pem.as_bytes()).expect_err("it is bad").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let pem = request(KeyKind::P256);
    let (_, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem.as_bytes()).expect("PEM");
    assert!(Csr::from_der(&der).is_ok());
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 0x01;
        assert!(Csr::from_der(&changed).is_err(), "byte {at}");
    }
    let mut longer = der.clone();
    longer.push(0);
    let error = Csr::from_der(&longer).expect_err("bytes follow");
    assert!(error.to_string().contains("bytes follow it"), "{error}");
    for length in 0..der.len() {
        assert!(Csr::from_der(&der[..length]).is_err(), "{length} bytes of it");
    }
}

#[test]
fn the_signature_must_be_by_the_requests_own_key() {
    let (one, other) = (request(KeyKind::P256), request(KeyKind::P256));
    let der = |pem: &str| <(SectionKind, Vec<u8>)>::from_pem_slice(pem.as_bytes()).expect("PEM").1;
    let (one, other) = (der(&one), der(&other));
    let (_, parsed) = X509CertificationRequest::from_der(&one).expect("a request");
    let key = parsed.certification_request_info.subject_pki.subject_public_key.data.to_vec();
    let (_, parsed) = X509CertificationRequest::from_der(&other).expect("a request");
    let foreign = parsed.certification_request_info.subject_pki.subject_public_key.data.to_vec();
    let at = one.windows(key.len()).position(|window| window == key).expect("it holds its key");
    let mut stolen = one.clone();
    stolen[at..at + key.len()].copy_from_slice(&foreign);
    assert_eq!(Csr::from_der(&stolen), Err(CsrError::Signature), "a key whose holder has not signed");
}

#[test]
fn what_it_asks_for_is_bounded_and_printable() {
    let key = Key::generate(KeyKind::P256).expect("a key");
    let with = |uris: Vec<String>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            uris.into_iter().map(|uri| rcgen::SanType::URI(uri.try_into().expect("ASCII"))).collect();
        let pem = params.serialize_request(key.pair()).expect("a request").pem().expect("PEM");
        Csr::from_pem(pem.as_bytes())
    };
    let asked = with(vec![format!("spiffe://x/\n{}", "a".repeat(1000))]).expect("it is read").asked;
    let asked = asked.expect("one URI");
    assert!(asked.len() <= LONGEST_NAME && !asked.contains('\n'), "{asked}");
    let two = with(vec!["spiffe://a/b".to_owned(), "spiffe://a/c".to_owned()]).expect("it is read");
    assert_eq!(two.asked, None);
    let many = with((0..=MOST_NAMES).map(|at| format!("spiffe://a/{at}")).collect());
    assert_eq!(many, Err(CsrError::Names));
}
