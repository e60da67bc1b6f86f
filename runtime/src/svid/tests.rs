use std::io;
use std::sync::Mutex;

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authority::Root;

const HOUR: Duration = Duration::from_secs(3600);
const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";
const RATINGS: &str = "spiffe://cluster.local/ns/default/sa/ratings";

/// A clock that tests set.
#[derive(Debug)]
struct SetClock(Mutex<SystemTime>);

impl SetClock {
    fn new() -> Arc<Self> {
        Arc::new(SetClock(Mutex::new(SystemTime::now())))
    }

    fn now(&self) -> SystemTime {
        *self.0.lock().expect("not poisoned")
    }

    fn advance(&self, time: Duration) {
        *self.0.lock().expect("not poisoned") += time;
    }
}

impl Clock for SetClock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn identity(root: &Root, of: &str, clock: Arc<SetClock>) -> (Publisher, Svids) {
    let of = id(of);
    let svid = root.svid(&of, clock.now() - HOUR, HOUR * 2).expect("an SVID");
    let (publisher, svids) = channel_with_clock(clock);
    publisher.publish(svid, root.bundle(&of).expect("a bundle"));
    (publisher, svids)
}

/// A handshake in memory: what each side has to say.
async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (io::Result<()>, io::Result<SpiffeId>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = "mesh".try_into().expect("a name");
    tokio::join!(
        async {
            let mut stream = TlsConnector::from(client).connect(name, near).await?;
            // In TLS 1.3 a client learns with the first bytes from the server whether it was accepted.
            tokio::io::AsyncReadExt::read_u8(&mut stream).await.map(drop)
        },
        async {
            let mut stream = TlsAcceptor::from(server).accept(far).await?;
            let peer = peer(stream.get_ref().1.peer_certificates()).expect("it was verified");
            tokio::io::AsyncWriteExt::write_u8(&mut stream, 1).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
            Ok(peer.id)
        }
    )
}

#[tokio::test]
async fn two_members_know_each_other_and_use_the_post_quantum_group() {
    let root = Root::new("root").expect("a root");
    let clock = SetClock::new();
    let (_p, reviews) = identity(&root, REVIEWS, Arc::clone(&clock));
    let (_q, ratings) = identity(&root, RATINGS, clock);
    let server = ratings.server_config(Peers::Members, &[b"x"]).expect("a configuration");
    let client = reviews.client_config(Peers::these([id(RATINGS)]), &[b"x"]).expect("a configuration");
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = "mesh".try_into().expect("a name");
    let (near, far) =
        tokio::join!(TlsConnector::from(client).connect(name, near), TlsAcceptor::from(server).accept(far));
    let (near, far) = (near.expect("the server is accepted"), far.expect("the client is accepted"));
    assert_eq!(peer(near.get_ref().1.peer_certificates()).expect("verified").id, id(RATINGS));
    assert_eq!(peer(far.get_ref().1.peer_certificates()).expect("verified").id, id(REVIEWS));
    let group = far.get_ref().1.negotiated_key_exchange_group().expect("TLS 1.3 has one").name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(far.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

/// How a member would call if it offered this group alone.
fn offering(svids: &Svids, group: &'static dyn rustls::crypto::SupportedKxGroup) -> Arc<ClientConfig> {
    let provider =
        rustls::crypto::CryptoProvider { kx_groups: vec![group], ..rustls::crypto::aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(svids.clone(), Peers::Members)))
        .with_client_cert_resolver(svids.resolver());
    config.enable_sni = false;
    config.alpn_protocols = vec![b"x".to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn who_has_no_post_quantum_group_is_taken_with_a_classical_one() {
    use rustls::crypto::aws_lc_rs::kx_group::{MLKEM768, SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let root = Root::new("root").expect("a root");
    let clock = SetClock::new();
    let (_p, reviews) = identity(&root, REVIEWS, Arc::clone(&clock));
    let (_q, ratings) = identity(&root, RATINGS, clock);
    let server = ratings.server_config(Peers::Members, &[b"x"]).expect("a configuration");
    for group in [X25519MLKEM768, X25519, SECP256R1, SECP384R1] {
        let (near, far) = shake(offering(&reviews, group), Arc::clone(&server)).await;
        assert_eq!(far.expect("the server takes it"), id(REVIEWS), "{:?}", group.name());
        near.expect("the client takes it");
    }
    // The post-quantum one without a classical one beside it is not.
    let (near, far) = shake(offering(&reviews, MLKEM768), server).await;
    assert!(near.is_err());
    assert!(far.expect_err("no group in common").to_string().contains("NoKxGroupsInCommon"));
}

/// Certificates with one fault each, and the word that each is refused with.
fn faults(now: SystemTime) -> Vec<(&'static str, CertificateParams)> {
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = Root::params(REVIEWS, now - HOUR, HOUR * 2).expect("good");
        change(&mut params);
        params
    };
    let uri = |text: &str| SanType::URI(text.try_into().expect("ASCII"));
    // GeneralNames with one URI: rcgen itself would write such a name too, but this shows the bytes.
    let nul = b"spiffe://cluster.local/ns/default/sa/reviews\0.evil";
    let mut general_names = vec![0x30, nul.len() as u8 + 2, 0x86, nul.len() as u8];
    general_names.extend_from_slice(nul);
    vec![
        ("several_uris", with(&|p| p.subject_alt_names.push(uri(RATINGS)))),
        ("no_uri", with(&|p| p.subject_alt_names = vec![SanType::DnsName("reviews".try_into().expect("ASCII"))])),
        (
            "nul_in_name",
            with(&|p| {
                p.subject_alt_names.clear();
                let oid = &[2, 5, 29, 17];
                p.custom_extensions = vec![CustomExtension::from_oid_content(oid, general_names.clone())];
            }),
        ),
        (
            "nul_in_name",
            with(&|p| p.subject_alt_names.push(SanType::DnsName("a\0.example".try_into().expect("ASCII")))),
        ),
        ("not_spiffe", with(&|p| p.subject_alt_names = vec![uri("https://cluster.local/ns/default/sa/reviews")])),
        ("not_spiffe", with(&|p| p.subject_alt_names = vec![uri("spiffe://cluster.local/ns/default/sa/../x")])),
        ("not_spiffe", with(&|p| p.subject_alt_names = vec![uri("spiffe://cluster.local")])),
        ("trust_domain", with(&|p| p.subject_alt_names = vec![uri("spiffe://other.example/ns/default/sa/reviews")])),
        ("trust_domain", with(&|p| p.subject_alt_names = vec![uri("spiffe://cluster.local.evil/ns/a/sa/reviews")])),
        ("expired", with(&|p| p.not_after = (now - Duration::from_secs(1)).into())),
        ("not_yet_valid", with(&|p| p.not_before = (now + HOUR).into())),
        ("wrong_purpose", with(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])),
        ("authority", with(&|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained))),
        ("authority", with(&|p| p.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign))),
    ]
}

/// What a verifier of `peers` with `root` says to a leaf that `signer` signed.
fn verdict(root: &Root, signer: &Root, params: &CertificateParams, peers: Peers, as_server: bool) -> String {
    let key = Key::generate(KeyKind::P256).expect("a key");
    let leaf = signer.sign(params, &key).expect("a certificate");
    let (publisher, svids) = channel();
    publisher.publish_bundle(root.bundle(&id(REVIEWS)).expect("a bundle"));
    match PeerVerifier::new(svids, peers).verify(&[leaf], UnixTime::now(), as_server) {
        Ok(peer) => peer.id.to_string(),
        Err(refusal) => refusal.code().to_owned(),
    }
}

#[test]
fn cve_2022_21656_2025_66220_each_fault_of_a_certificate_is_refused_with_its_own_word() {
    let root = Root::new("root").expect("a root");
    let now = SystemTime::now();
    for as_server in [true, false] {
        let good = Root::params(REVIEWS, now - HOUR, HOUR * 2).expect("good");
        assert_eq!(verdict(&root, &root, &good, Peers::Members, as_server), REVIEWS);
        for (at, (word, params)) in faults(now).into_iter().enumerate() {
            assert_eq!(verdict(&root, &root, &params, Peers::Members, as_server), word, "fault {at}");
        }
        let other = Root::new("root").expect("another root of the same name");
        assert_eq!(verdict(&root, &other, &good, Peers::Members, as_server), "unknown_root");
        let expected = Peers::these([id(RATINGS)]);
        assert_eq!(verdict(&root, &root, &good, expected, as_server), "not_expected");
        assert_eq!(verdict(&root, &root, &good, Peers::these([]), as_server), "not_expected");
    }
}

#[test]
fn cve_2022_21657_a_certificate_for_clients_only_is_none_for_a_server() {
    let root = Root::new("root").expect("a root");
    let mut params = Root::params(REVIEWS, SystemTime::now() - HOUR, HOUR * 2).expect("good");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_eq!(verdict(&root, &root, &params, Peers::Members, true), "wrong_purpose");
    assert_eq!(verdict(&root, &root, &params, Peers::Members, false), REVIEWS);
}

#[test]
fn a_renamed_trust_domain_is_known_by_both_names_and_a_federated_one_where_it_is_wanted() {
    let (root, other) = (Root::new("root").expect("a root"), Root::new("other").expect("a root"));
    let domain = |text: &str| text.parse().expect("a trust domain");
    let pem = root.pem();
    let mut bundle = Bundle::from_pem(&domain("new.example"), &[domain("cluster.local")], pem.as_bytes());
    let bundle = bundle.as_mut().expect("a bundle");
    bundle.federate(&domain("friends.example"), other.pem().as_bytes()).expect("a root");
    let (publisher, svids) = channel();
    publisher.publish_bundle(bundle.clone());
    let check = |signer: &Root, of: &str, peers: Peers| {
        let key = Key::generate(KeyKind::Ed25519).expect("a key");
        let params = Root::params(of, SystemTime::now() - HOUR, HOUR * 2).expect("good");
        let leaf = signer.sign(&params, &key).expect("a certificate");
        let verified = PeerVerifier::new(svids.clone(), peers).verify(&[leaf], UnixTime::now(), true);
        verified.map_or_else(|refusal| refusal.code(), |_| "ok")
    };
    let old_name = REVIEWS;
    let new_name = "spiffe://new.example/ns/default/sa/reviews";
    let friend = "spiffe://friends.example/ns/default/sa/reviews";
    assert_eq!(check(&root, old_name, Peers::these([id(new_name)])), "ok");
    assert_eq!(check(&root, new_name, Peers::these([id(old_name)])), "ok");
    assert_eq!(check(&other, friend, Peers::Members), "trust_domain");
    assert_eq!(check(&other, friend, Peers::Federated), "ok");
    assert_eq!(check(&other, friend, Peers::these([id(new_name)])), "not_expected");
    assert_eq!(check(&other, old_name, Peers::Federated), "unknown_root", "each domain has its own roots");
    assert_eq!(check(&root, friend, Peers::Federated), "unknown_root");
}

#[tokio::test]
async fn a_refused_server_is_known_from_the_handshakes_error() {
    let (root, other) = (Root::new("root").expect("a root"), Root::new("other").expect("a root"));
    let clock = SetClock::new();
    let (_p, reviews) = identity(&root, REVIEWS, Arc::clone(&clock));
    let (_q, foreign) = identity(&other, RATINGS, clock);
    let server = foreign.server_config(Peers::Members, &[]).expect("a configuration");
    let client = reviews.client_config(Peers::Members, &[]).expect("a configuration");
    let (client, _) = shake(client, server).await;
    let error = client.expect_err("the root is not known");
    assert_eq!(Refusal::of(&error).expect("it is a refusal").code(), "unknown_root");
}

#[tokio::test]
async fn a_renewal_is_presented_to_new_handshakes_and_keeps_old_connections() {
    let root = Root::new("root").expect("a root");
    let clock = SetClock::new();
    let (_p, reviews) = identity(&root, REVIEWS, Arc::clone(&clock));
    let (publisher, ratings) = identity(&root, RATINGS, Arc::clone(&clock));
    let server = ratings.server_config(Peers::Members, &[]).expect("a configuration");
    let client = reviews.client_config(Peers::these([id(RATINGS)]), &[]).expect("a configuration");
    let connect = async || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = "mesh".try_into().expect("a name");
        let (near, far) = tokio::join!(
            TlsConnector::from(Arc::clone(&client)).connect(name, near),
            TlsAcceptor::from(Arc::clone(&server)).accept(far)
        );
        (near.expect("it is accepted"), far.expect("it is accepted"))
    };
    let (mut near, mut far) = connect().await;
    let before = peer(near.get_ref().1.peer_certificates()).expect("verified").serial;
    let renewed = root.svid(&id(RATINGS), clock.now() - HOUR, HOUR * 2).expect("an SVID");
    publisher.publish(renewed, root.bundle(&id(RATINGS)).expect("a bundle"));
    let (later, _far) = connect().await;
    assert_ne!(peer(later.get_ref().1.peer_certificates()).expect("verified").serial, before);
    tokio::io::AsyncWriteExt::write_u8(&mut far, 7).await.expect("the old connection lives");
    assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut near).await.expect("the old connection lives"), 7);
}

#[tokio::test]
async fn an_expired_certificate_is_never_presented() {
    let root = Root::new("root").expect("a root");
    let clock = SetClock::new();
    let (_p, reviews) = identity(&root, REVIEWS, Arc::clone(&clock));
    let (_q, ratings) = identity(&root, RATINGS, Arc::clone(&clock));
    let server = ratings.server_config(Peers::Members, &[]).expect("a configuration");
    let client = reviews.client_config(Peers::Members, &[]).expect("a configuration");
    let (_, accepted) = shake(Arc::clone(&client), Arc::clone(&server)).await;
    assert_eq!(accepted.expect("both are valid"), id(REVIEWS));
    clock.advance(Duration::from_secs(25 * 3600));
    assert!(ratings.current().is_none());
    assert!(ratings.latest().is_some(), "what it was can still be shown");
    let (_, accepted) = shake(client, server).await;
    let error = accepted.expect_err("there is nothing to present");
    assert!(error.to_string().contains("no server certificate chain resolved"), "{error}");
}

#[tokio::test]
async fn a_client_may_come_without_a_certificate_only_where_that_is_said() {
    let root = Root::new("root").expect("a root");
    let clock = SetClock::new();
    let (_q, ratings) = identity(&root, RATINGS, Arc::clone(&clock));
    let (publisher, nobody) = channel_with_clock(clock);
    publisher.publish_bundle(root.bundle(&id(RATINGS)).expect("a bundle"));
    let server = ratings.server_config(Peers::Members, &[]).expect("a configuration");
    let client = nobody.client_config(Peers::Members, &[]).expect("a configuration");
    let (_, accepted) = shake(client, server).await;
    assert!(accepted.is_err(), "a client without a certificate is refused");
}

#[test]
fn a_certificate_of_another_key_or_another_shape_is_no_svid() {
    let root = Root::new("root").expect("a root");
    let (key, other) = (Key::generate(KeyKind::P256).expect("a key"), Key::generate(KeyKind::P256).expect("a key"));
    let params = Root::params(REVIEWS, SystemTime::now(), HOUR).expect("good");
    let leaf = root.sign(&params, &key).expect("a certificate");
    assert!(matches!(Svid::new(vec![leaf], other), Err(SvidError::Key(_))));
    assert!(matches!(Svid::new(Vec::new(), key), Err(SvidError::Empty)));
}

#[test]
fn a_chain_that_was_good_a_moment_ago_is_refused_when_anything_has_changed_since() {
    let (root, other) = (Root::new("root").expect("a root"), Root::new("root").expect("a root"));
    let now = SystemTime::now();
    let mut params = Root::params(REVIEWS, now - HOUR, HOUR + Duration::from_secs(30)).expect("good");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = Key::generate(KeyKind::P256).expect("a key");
    let chain = [root.sign(&params, &key).expect("a certificate")];
    let (publisher, svids) = channel();
    publisher.publish_bundle(root.bundle(&id(REVIEWS)).expect("a bundle"));
    let check = |peers: Peers, seconds: i64, as_server: bool| {
        let at = UnixTime::now().as_secs().saturating_add_signed(seconds);
        let verifier = PeerVerifier::new(svids.clone(), peers);
        let verified = verifier.verify(&chain, UnixTime::since_unix_epoch(Duration::from_secs(at)), as_server);
        verified.map_or_else(|refusal| refusal.code(), |_| "ok")
    };
    for _ in 0..2 {
        assert_eq!(check(Peers::Members, 0, false), "ok");
    }
    assert_eq!(check(Peers::these([id(RATINGS)]), 0, false), "not_expected", "another is wanted");
    assert_eq!(check(Peers::Members, 0, true), "wrong_purpose", "it is shown for another use");
    assert_eq!(check(Peers::Members, 40, false), "expired");
    assert_eq!(check(Peers::Members, -7200, false), "not_yet_valid", "the clock goes back");
    publisher.publish_bundle(other.bundle(&id(REVIEWS)).expect("a bundle"));
    assert_eq!(check(Peers::Members, 0, false), "unknown_root", "its root is gone");
    publisher.publish_bundle(root.bundle(&id(REVIEWS)).expect("a bundle"));
    assert_eq!(check(Peers::Members, 0, false), "ok");
}
