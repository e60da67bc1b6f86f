//! Who may ask, and for what.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::svid::join::{JoinToken, field};
use runtime::svid::wire::{CertificateRequest, Metadata};
use runtime::svid::{Bundle, Key, KeyKind, Publisher, Svid, Svids};
use serde_json::json;
use tonic::Code;

use crate::world::{AUDIENCE, REVIEWS, RunningCa, SetClock, World, id_of, refusal, request};

#[tokio::test]
async fn cve_2022_39388_a_token_gives_the_identity_of_its_account_whatever_is_asked_for() {
    let world = World::start().await;
    let ca = world.ca().await;
    let token = world.token("default", "reviews", AUDIENCE);
    let (_publisher, svids) = runtime::svid::channel();
    for asked in [None, Some(REVIEWS), Some("spiffe://cluster.local/ns/mesh-system/sa/mesh-pilot")] {
        let answer = ca.ask(&world, Some(&token), &svids, request(asked)).await.expect("issued");
        assert_eq!(id_of(&answer), REVIEWS, "asked for {asked:?}");
        assert_eq!(answer.domains, ["cluster.local".parse().expect("a trust domain")]);
    }
    let istio = world.token("default", "reviews", "istio-ca");
    assert_eq!(id_of(&ca.ask_by_token(&world, &istio).await.expect("issued")), REVIEWS, "Istio's agents may ask too");
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_refused() {
    let world = World::start().await;
    let ca = world.ca().await;
    world.account("default", "gone");
    let of_deleted = world.token("default", "gone", AUDIENCE);
    world.delete("serviceaccounts", "default", "gone");
    let good = world.token("default", "reviews", AUDIENCE);
    let mut forged = good.clone();
    forged.replace_range(good.len() - 4.., if good.ends_with("AAAA") { "BBBB" } else { "AAAA" });
    for (token, expected) in [
        (world.token("default", "reviews", "mesh-pilot"), "the API server refuses the token"),
        (world.expired_token("default", "reviews"), "the API server refuses the token"),
        (of_deleted, "has been deleted"),
        (forged, "the API server refuses the token"),
        ("nonsense".to_owned(), "the API server refuses the token"),
        ("x".repeat(20_000), "longer than"),
    ] {
        let (code, text) = refusal(ca.ask_by_token(&world, &token).await);
        assert_eq!(code, Code::Unauthenticated, "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let (_publisher, nobody) = runtime::svid::channel();
    let (code, text) = refusal(ca.ask(&world, None, &nobody, request(Some(REVIEWS))).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(text.starts_with("nothing proves who asks: send a service-account token"), "{text}");
}

#[tokio::test]
async fn an_account_of_the_same_name_elsewhere_is_somebody_else() {
    let world = World::start().await;
    let ca = world.ca().await;
    world.account("mesh-system", "reviews");
    let token = world.token("mesh-system", "reviews", AUDIENCE);
    let answer = ca.ask_by_token(&world, &token).await.expect("issued");
    assert_eq!(id_of(&answer), "spiffe://cluster.local/ns/mesh-system/sa/reviews");
}

/// What the CA issued, in force.
pub(crate) async fn identity(world: &World, ca: &RunningCa, token: &str) -> (Publisher, Svids) {
    issued(world, ca, Some(token), &runtime::svid::channel().1).await
}

/// What the CA issued to who shows `old`, in force.
pub(crate) async fn renewed(world: &World, ca: &RunningCa, old: &Svids) -> (Publisher, Svids) {
    issued(world, ca, None, old).await
}

async fn issued(world: &World, ca: &RunningCa, token: Option<&str>, shown: &Svids) -> (Publisher, Svids) {
    let key = Key::generate(KeyKind::Ed25519).expect("a key");
    let csr = key.request(None).expect("a request");
    let (publisher, svids) = runtime::svid::channel();
    let request = CertificateRequest { csr, validity_duration: 3600, metadata: None };
    let answer = ca.ask(world, token, shown, request).await.expect("issued");
    let bundle = Bundle::from_pem(&answer.domains[0], &answer.domains[1..], answer.roots.as_bytes()).expect("roots");
    publisher.publish(Svid::new(answer.chain, key).expect("an SVID"), bundle);
    (publisher, svids)
}

#[tokio::test]
async fn an_svid_renews_itself_and_ends_with_its_account() {
    let world = World::start().await;
    world.account("default", "machine");
    let ca = world.ca().await;
    let token = world.token("default", "machine", AUDIENCE);
    let (_publisher, svids) = identity(&world, &ca, &token).await;
    let answer = ca.ask(&world, None, &svids, request(Some(REVIEWS))).await.expect("issued");
    assert_eq!(id_of(&answer), "spiffe://cluster.local/ns/default/sa/machine");
    // Another CA of the same mesh, which does not remember the account.
    let other = world.ca().await;
    world.delete("serviceaccounts", "default", "machine");
    let (code, text) = refusal(other.ask(&world, None, &svids, request(None)).await);
    assert_eq!(
        (code, text.as_str()),
        (Code::Unauthenticated, "service account default/machine does not exist (any more)")
    );
}

#[tokio::test]
async fn whoever_shows_two_identities_is_refused() {
    let world = World::start().await;
    world.account("default", "ratings");
    let ca = world.ca().await;
    let (_publisher, svids) = identity(&world, &ca, &world.token("default", "ratings", AUDIENCE)).await;
    let token = world.token("default", "reviews", AUDIENCE);
    let (code, text) = refusal(ca.ask(&world, Some(&token), &svids, request(None)).await);
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(
        text,
        format!("the token is of {REVIEWS}, but the SVID of spiffe://cluster.local/ns/default/sa/ratings")
    );
}

#[tokio::test]
async fn an_svid_of_another_mesh_does_not_even_connect() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let (ca, other) = (world.ca().await, elsewhere.ca().await);
    let (_publisher, svids) = identity(&elsewhere, &other, &elsewhere.token("default", "reviews", AUDIENCE)).await;
    let error = ca.ask(&world, None, &svids, request(None)).await.expect_err("its root is not known here");
    assert!(!matches!(&error, runtime::svid::client::RequestError::Nonsense { .. }), "{error}");
}

/// A join token as `meshctl ca issue` makes it.
pub(crate) fn join_token(world: &World, account: &str, lives: i64) -> String {
    let token = JoinToken::generate();
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(lives);
    let data = [
        (field::HASH, token.hash()),
        (field::NAMESPACE, "default".to_owned()),
        (field::SERVICE_ACCOUNT, account.to_owned()),
        (field::EXPIRES, expires.to_string()),
    ];
    let data: serde_json::Map<_, _> =
        data.into_iter().map(|(name, text)| (name.to_owned(), json!(STANDARD.encode(text)))).collect();
    world.create(
        "secrets",
        json!({
            "metadata": {"namespace": "mesh-system", "name": token.name()},
            "type": "meshctl.io/join-token",
            "data": data,
        }),
    );
    token.text()
}

#[tokio::test]
async fn a_join_token_works_once_and_in_its_time() {
    let world = World::start().await;
    let (ca, other) = (world.ca().await, world.ca().await);
    let token = join_token(&world, "reviews", 60);
    assert_eq!(id_of(&ca.ask_by_token(&world, &token).await.expect("issued")), REVIEWS);
    for replay in [&ca, &other] {
        let (code, text) = refusal(replay.ask_by_token(&world, &token).await);
        assert_eq!(code, Code::Unauthenticated);
        assert!(text.contains("is not known, or was used before"), "{text}");
    }
    let late = join_token(&world, "reviews", -60);
    assert!(refusal(ca.ask_by_token(&world, &late).await).1.contains("has expired at"));
    let orphan = join_token(&world, "nobody", 60);
    assert!(refusal(ca.ask_by_token(&world, &orphan).await).1.contains("default/nobody does not exist"));
    let guessed = join_token(&world, "reviews", 60);
    let wrong = format!("{}{}", &guessed[..guessed.len() - 4], if guessed.ends_with("0000") { "1111" } else { "0000" });
    assert!(refusal(ca.ask_by_token(&world, &wrong).await).1.contains("is not known"), "a wrong secret");
    ca.ask_by_token(&world, &guessed).await.expect("a wrong guess uses nothing up");
}

/// A machine shows the token by which it joined for as long as the file is there.
#[tokio::test]
async fn a_machine_renews_by_its_certificate_and_a_used_join_token_does_not_keep_it_from_that() {
    let world = World::start().await;
    let ca = world.ca().await;
    let token = join_token(&world, "reviews", 60);
    let (_publisher, svids) = identity(&world, &ca, &token).await;
    let answer = ca.ask(&world, Some(&token), &svids, request(None)).await.expect("issued");
    assert_eq!(id_of(&answer), REVIEWS);
    world.account("default", "ratings");
    let other = join_token(&world, "ratings", 60);
    let (code, text) = refusal(ca.ask(&world, Some(&other), &svids, request(None)).await);
    assert_eq!(code, Code::PermissionDenied, "{text}");
}

#[tokio::test]
async fn of_many_who_use_a_join_token_at_once_one_gets_a_certificate() {
    let world = World::start().await;
    let (ca, other) = (world.ca().await, world.ca().await);
    let token = join_token(&world, "reviews", 60);
    let asking = (0..8).map(|at| if at % 2 == 0 { &ca } else { &other }).map(|ca| ca.ask_by_token(&world, &token));
    let answers = futures_util::future::join_all(asking).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn nobody_gets_a_certificate_for_somebody_else() {
    let world = World::start().await;
    let ca = world.ca().await;
    let token = world.token("default", "reviews", AUDIENCE);
    let (_publisher, svids) = runtime::svid::channel();
    let mut asked = request(None);
    asked.metadata = Some(Metadata { fields: [("ImpersonatedIdentity".to_owned(), vec![0x1a, 1, b'x'])].into() });
    let (code, _) = refusal(ca.ask(&world, Some(&token), &svids, asked).await);
    assert_eq!(code, Code::PermissionDenied);
}

#[tokio::test]
async fn nothing_is_signed_while_the_clock_is_a_day_off() {
    let world = World::start().await;
    let clock = SetClock::new();
    let ca = world.try_ca(clock.clone(), |_| {}).await.unwrap_or_else(|failure| panic!("{failure}"));
    let token = world.token("default", "reviews", AUDIENCE);
    let day = Duration::from_secs(25 * 3600);
    for off in [SystemTime::now() + day, SystemTime::now() - day] {
        clock.set(off);
        let (code, text) = refusal(ca.ask_by_token(&world, &token).await);
        assert_eq!(code, Code::Unavailable, "{text}");
    }
    clock.set(SystemTime::now());
    ca.ask_by_token(&world, &token).await.expect("the clock is right again");
}
