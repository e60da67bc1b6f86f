use std::sync::Mutex;

use rcgen::{BasicConstraints, CertifiedIssuer, DnType, GeneralSubtree, NameConstraints};
use runtime::svid::{Key, KeyKind, Leaf, PeerVerifier, Peers};
use rustls_pki_types::UnixTime;

use super::*;
use crate::csr::Csr;

const HOUR: Duration = Duration::from_secs(3600);

/// A clock that tests set.
#[derive(Debug)]
struct SetClock(Mutex<SystemTime>);

impl SetClock {
    fn new() -> Arc<Self> {
        Arc::new(SetClock(Mutex::new(SystemTime::now())))
    }

    fn set(&self, now: SystemTime) {
        *self.0.lock().expect("not poisoned") = now;
    }
}

impl Clock for SetClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = *self.0.lock().expect("not poisoned");
        now.duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

fn policy() -> Policy {
    Policy::of("cluster.local".parse().expect("a trust domain"))
}

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/default/sa/reviews".parse().expect("an identity")
}

fn csr(kind: KeyKind) -> Csr {
    let key = Key::generate(kind).expect("a key");
    Csr::from_pem(key.request(None).expect("a request").as_bytes()).expect("a good request")
}

fn self_made(clock: &Arc<SetClock>) -> Authority {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let material = Material::make_root(&policy(), SystemTime::now()).expect("a root");
    material.authority(policy(), clock).expect("it fits together")
}

/// A plugged-in intermediate below a root, each shaped by `change` before it is signed.
fn plugged(change: impl Fn(&mut CertificateParams, &mut CertificateParams)) -> Material {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let (mut root, mut intermediate) = (params("the company's root"), params("the mesh's intermediate"));
    change(&mut root, &mut intermediate);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
    let key = KeyPair::generate().expect("a key");
    let certificate = intermediate.signed_by(&key, &root).expect("an intermediate").pem();
    Material {
        chain: certificate.clone(),
        certificate,
        key: key.serialize_pem(),
        roots: root.pem(),
        origin: Origin::PluggedIn,
        rotation: Rotation::None,
        plan: Plan::Idle,
    }
}

fn refusal(material: &Material) -> String {
    let error = material.authority(policy(), SetClock::new()).expect_err("it does not fit together");
    runtime::exit::chain(&error)
}

#[test]
fn what_is_issued_is_an_svid_that_peers_accept() {
    let clock = SetClock::new();
    for authority in
        [self_made(&clock), plugged(|_, _| {}).authority(policy(), Arc::clone(&clock) as _).expect("it fits together")]
    {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let issued = authority.issue(&id(), &csr(kind).key, None).expect("issued");
            let chain: String = std::iter::once(&issued.leaf).chain(authority.intermediates()).cloned().collect();
            let chain = runtime::tls::certificates(chain.as_bytes()).expect("PEM");
            let (publisher, svids) = runtime::svid::channel();
            publisher.publish_bundle(authority.bundle().clone());
            let verifier = PeerVerifier::new(svids, Peers::these([id()]));
            for as_server in [true, false] {
                let peer = verifier.verify(&chain, UnixTime::now(), as_server).expect("peers accept it");
                assert_eq!(peer.serial.trim_start_matches("00"), issued.serial.trim_start_matches("00"));
            }
            let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).expect("a certificate");
            let usage = leaf.key_usage().expect("read").expect("it is there").value;
            assert!(usage.digital_signature() && !usage.key_cert_sign());
            let names = leaf.subject_alternative_name().expect("read").expect("it is there");
            assert!(names.critical, "a certificate without a subject has critical names");
            assert!(leaf.subject().iter().next().is_none());
        }
    }
}

#[test]
fn serials_are_random_and_lifetimes_bounded_by_the_policy() {
    let clock = SetClock::new();
    let authority = self_made(&clock);
    let csr = csr(KeyKind::P256);
    let serials: std::collections::BTreeSet<_> =
        (0..64).map(|_| authority.issue(&id(), &csr.key, None).expect("issued").serial).collect();
    assert_eq!(serials.len(), 64);
    assert!(serials.iter().all(|serial| serial.len() == 32), "128 bits");
    let error = authority.issue(&id(), &csr.key, Some(HOUR * 25)).expect_err("it is too long");
    assert_eq!(error.to_string(), "a lifetime of 90000s is over the limit of 86400s");
    let now = authority.now().expect("the clock works");
    let issued = authority.issue(&id(), &csr.key, Some(HOUR)).expect("issued");
    let leaf = Leaf::read(&runtime::tls::certificates(issued.leaf.as_bytes()).expect("PEM")[0]).expect("an SVID");
    assert_eq!(leaf.not_before, now - policy().skew, "clocks that are behind are allowed for");
    assert_eq!(leaf.peer.not_after, now + HOUR);
}

#[test]
fn nothing_outlives_its_issuer() {
    let clock = SetClock::new();
    let now = SystemTime::now();
    let short = plugged(|_, intermediate| {
        intermediate.not_before = (now - HOUR).into();
        intermediate.not_after = (now + HOUR * 2).into();
    });
    let authority = short.authority(policy(), Arc::clone(&clock) as _).expect("it fits together");
    let issued = authority.issue(&id(), &csr(KeyKind::P256).key, None).expect("issued");
    assert!(issued.not_after <= now + HOUR * 2);
    for off in [now + HOUR * 25, now - HOUR * 25] {
        clock.set(off);
        let error = authority.issue(&id(), &csr(KeyKind::P256).key, None).expect_err("the issuer does not hold then");
        assert!(matches!(error, Refusal::IssuerNotValid { .. }), "{error}");
    }
}

#[test]
fn a_plugged_in_authority_that_does_not_fit_is_refused_with_the_reason() {
    let good = plugged(|_, _| {});
    let other = plugged(|_, _| {});
    let now = SystemTime::now();
    for (material, expected) in [
        (Material { key: other.key.clone(), ..good.clone() }, "ca-key.pem is not the key of ca-cert.pem"),
        (Material { key: "half a k".to_owned(), ..good.clone() }, "ca-key.pem cannot be read"),
        (Material { certificate: "half a c".to_owned(), ..good.clone() }, "ca-cert.pem cannot be read"),
        (Material { roots: good.key.clone(), ..good.clone() }, "root-cert.pem cannot be read"),
        (Material { roots: other.roots, ..good }, "no known root vouches"),
        (plugged(|_, p| p.is_ca = IsCa::ExplicitNoCa), "not the certificate of an authority"),
        (plugged(|_, p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]), "not the certificate of an authority"),
        (plugged(|_, p| p.not_after = (now - HOUR).into()), "and not now"),
        (plugged(|_, p| p.not_before = (now + HOUR).into()), "and not now"),
        (plugged(|p, _| p.not_after = (now - HOUR).into()), "root-cert.pem holds from"),
        (plugged(|p, _| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))), "pathLenConstraint"),
        (
            plugged(|_, p| {
                p.name_constraints = Some(NameConstraints {
                    permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
                    excluded_subtrees: Vec::new(),
                });
            }),
            "accepted",
        ),
    ] {
        if expected == "accepted" {
            // Constraints on names of other kinds say nothing about SPIFFE IDs.
            material.authority(policy(), SetClock::new()).expect("it fits together");
            continue;
        }
        let text = refusal(&material);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_chain_with_a_gap_is_refused_and_one_that_is_whole_is_presented() {
    // Root → middle → intermediate: without the middle nobody finds the way to the root.
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let root = CertifiedIssuer::self_signed(params("root"), KeyPair::generate().expect("a key")).expect("a root");
    let middle = KeyPair::generate().expect("a key");
    let middle = CertifiedIssuer::signed_by(params("middle"), middle, &root).expect("a middle");
    let key = KeyPair::generate().expect("a key");
    let certificate = params("intermediate").signed_by(&key, &middle).expect("an intermediate").pem();
    let material = |chain: String| Material {
        certificate: certificate.clone(),
        key: key.serialize_pem(),
        chain,
        roots: root.pem(),
        origin: Origin::PluggedIn,
        rotation: Rotation::None,
        plan: Plan::Idle,
    };
    assert!(refusal(&material(certificate.clone())).contains("no known root vouches"));
    let whole = material(format!("{certificate}{}{}", middle.pem(), root.pem()));
    let authority = whole.authority(policy(), SetClock::new()).expect("it fits together");
    assert_eq!(authority.intermediates().len(), 2, "the root itself is not presented");
}

#[test]
fn uri_constraints_that_peers_cannot_check_are_refused_when_they_are_plugged_in() {
    let constrained = plugged(|_, p| {
        // permittedSubtrees with one URI: `cluster.local`.
        let host = b"cluster.local";
        let mut content = vec![0x30, 17 + 2, 0xa0, 17, 0x30, 15, 0x86, 13];
        content.extend_from_slice(host);
        let mut extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    });
    let text = refusal(&constrained);
    assert!(text.contains("an issuer in the chain may not sign this certificate"), "{text}");
}
