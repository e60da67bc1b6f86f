//! The authority's own key: made once, kept, and never replaced.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_ca::authority::{Material, Policy};
use serde_json::{Value, json};

use crate::world::{AUDIENCE, REVIEWS, SetClock, World, id_of};

fn root_of(world: &World) -> Option<String> {
    Some(world.get("secrets", "mesh-system", "mesh-ca-root")?["data"]["ca-cert.pem"].as_str()?.to_owned())
}

fn secret(name: &str, kind: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> =
        data.iter().map(|(name, text)| ((*name).to_owned(), json!(STANDARD.encode(text)))).collect();
    json!({"metadata": {"namespace": "mesh-system", "name": name}, "type": kind, "data": data})
}

async fn failure(world: &World) -> String {
    match world.try_ca(SetClock::new(), |_| {}).await {
        Ok(_) => panic!("it starts"),
        Err(failure) => failure.to_string(),
    }
}

#[tokio::test]
async fn the_root_is_made_once_and_outlives_its_maker() {
    let world = World::start().await;
    let ca = world.ca().await;
    let root = root_of(&world).expect("a root was made");
    let bundle = ca.ca.authority.load().bundle().version();
    ca.stop().await;
    let again = world.ca().await;
    assert_eq!(root_of(&world), Some(root));
    assert_eq!(again.ca.authority.load().bundle().version(), bundle);
}

#[tokio::test]
async fn of_cas_that_start_at_once_one_makes_the_root() {
    let world = World::start().await;
    let cas = futures_util::future::join_all((0..4).map(|_| world.ca())).await;
    let roots: std::collections::BTreeSet<String> =
        cas.iter().map(|ca| ca.ca.authority.load().roots().to_owned()).collect();
    assert_eq!(roots.len(), 1, "all have the same root");
    let token = world.token("default", "reviews", AUDIENCE);
    for ca in &cas {
        assert_eq!(id_of(&ca.ask_by_token(&world, &token).await.expect("issued")), REVIEWS);
    }
}

#[tokio::test]
async fn cve_2020_1764_a_corrupt_secret_stops_the_ca_and_is_left_as_it_is() {
    let policy = Policy::of("cluster.local".parse().expect("a trust domain"));
    let good = Material::make_root(&policy, std::time::SystemTime::now()).expect("a root");
    let other = Material::make_root(&policy, std::time::SystemTime::now()).expect("a root");
    let half = &good.key[..good.key.len() / 2];
    for (data, expected) in [
        (vec![("ca-cert.pem", good.certificate.as_str())], "is incomplete: it lacks ca-key.pem"),
        (vec![], "is incomplete: it lacks ca-cert.pem, ca-key.pem"),
        (vec![("ca-cert.pem", &good.certificate), ("ca-key.pem", half)], "ca-key.pem cannot be read"),
        (vec![("ca-cert.pem", &good.certificate), ("ca-key.pem", &other.key)], "not the key of ca-cert.pem"),
        (vec![("ca-cert.pem", "garbage"), ("ca-key.pem", &good.key)], "ca-cert.pem cannot be read"),
    ] {
        let world = World::start().await;
        world.create("secrets", secret("mesh-ca-root", "meshctl.io/ca-root", &data));
        let before = world.get("secrets", "mesh-system", "mesh-ca-root");
        let text = failure(&world).await;
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("hint: nothing was changed; mend or restore the Secret"), "{text}");
        assert_eq!(world.get("secrets", "mesh-system", "mesh-ca-root"), before);
    }
    let world = World::start().await;
    world.create("secrets", secret("mesh-ca-root", "Opaque", &[("ca-cert.pem", "x")]));
    assert!(failure(&world).await.contains("is of type Opaque, not meshctl.io/ca-root"));
}

#[tokio::test]
async fn a_half_written_plugged_in_authority_stops_the_ca() {
    let policy = Policy::of("cluster.local".parse().expect("a trust domain"));
    let good = Material::make_root(&policy, std::time::SystemTime::now()).expect("a root");
    let world = World::start().await;
    let data = [("ca-cert.pem", good.certificate.as_str()), ("root-cert.pem", &good.certificate)];
    world.create("secrets", secret("cacerts", "Opaque", &data));
    let text = failure(&world).await;
    assert!(text.contains("mesh-system/cacerts is incomplete: it lacks ca-key.pem, cert-chain.pem"), "{text}");
    assert!(root_of(&world).is_none(), "no other root is made behind its back");
}

#[tokio::test]
async fn a_plugged_in_authority_is_used_instead_of_a_root_of_our_own() {
    let policy = Policy::of("cluster.local".parse().expect("a trust domain"));
    let good = Material::make_root(&policy, std::time::SystemTime::now()).expect("a root");
    let world = World::start().await;
    let data = [
        ("ca-cert.pem", good.certificate.as_str()),
        ("ca-key.pem", &good.key),
        ("root-cert.pem", &good.certificate),
        ("cert-chain.pem", &good.certificate),
    ];
    world.create("secrets", secret("cacerts", "Opaque", &data));
    let ca = world.ca().await;
    assert_eq!(ca.ca.authority.load().origin().name(), "plugged-in");
    let token = world.token("default", "reviews", AUDIENCE);
    let answer = ca.ask_by_token(&world, &token).await.expect("issued");
    assert_eq!(answer.roots.trim(), good.certificate.trim());
    assert!(root_of(&world).is_none());
}
