//! Another name of the trust domain: made known first, and given once everybody accepts it.

use api::messages::AuthorityStatus;
use std::time::Duration;

use crate::rotation::{Pilot, mesh, operator, status, until};
use crate::world::{RunningCa, SetClock, World, id_of};

/// A CA of a trust domain that is called `new.example`, and was `cluster.local`.
async fn renamed(world: &World, pilot: &Pilot) -> RunningCa {
    let started = world.try_ca(SetClock::new(), |settings| {
        settings.pilot_debug = pilot.port;
        settings.policy.domain = "new.example".parse().expect("a trust domain");
        settings.policy.aliases = vec!["cluster.local".parse().expect("a trust domain")];
    });
    started.await.unwrap_or_else(|failure| panic!("{failure}"))
}

fn ids(pilot: &Pilot) -> Vec<String> {
    let proxies = pilot.proxies.lock().expect("not poisoned");
    proxies.iter().map(|proxy| proxy.svids.id().expect("it has one").to_string()).collect()
}

#[tokio::test]
async fn a_new_name_of_the_trust_domain_is_given_once_everybody_accepts_it() {
    let world = World::start().await;
    let (ca, pilot) = mesh(&world, &[("reviews-v1", "reviews")]).await;
    let (operator, token) = (operator(&world), world.pod_token("default", "reviews", "reviews-v1"));
    pilot.stick("reviews-v1.default", true);
    ca.stop().await;
    let ca = renamed(&world, &pilot).await;
    pilot.follow(&ca);
    let lags = |seen: &AuthorityStatus| seen.waiting_for == ["reviews-v1.default"];
    let seen = until(&ca, &operator, lags).await;
    assert_eq!((seen.trust_domain.as_str(), seen.issuing.as_str()), ("new.example", "cluster.local"));
    world.pod("default", "reviews-v2", "reviews", "app");
    let other = world.pod_token("default", "reviews", "reviews-v2");
    let answer = ca.ask_by_token(&world, &other).await.expect("issued");
    assert_eq!(id_of(&answer), crate::world::REVIEWS, "who lags would refuse the other name");
    let names: Vec<&str> = answer.domains.iter().map(|domain| domain.as_str()).collect();
    assert_eq!(names, ["new.example", "cluster.local"], "who asks learns of both");

    pilot.stick("reviews-v1.default", false);
    let seen =
        until(&ca, &operator, |seen| seen.issuing == "new.example" && seen.waiting_for == ["reviews-v2.default"]);
    let seen = seen.await;
    assert_eq!(
        ids(&pilot),
        ["spiffe://new.example/ns/mesh-system/sa/mesh-pilot", "spiffe://new.example/ns/default/sa/reviews"]
    );
    // It is remembered, and whoever still has the former name is named.
    ca.stop().await;
    let ca = renamed(&world, &pilot).await;
    pilot.follow(&ca);
    assert_eq!(status(&ca, &operator).await.issuing, "new.example");
    let again = until(&ca, &operator, |seen| seen.waiting_for == ["reviews-v2.default"]).await;
    assert_eq!(again.bundle, seen.bundle);
    let answer = ca.ask_by_token(&world, &other).await.expect("issued");
    assert_eq!(id_of(&answer), "spiffe://new.example/ns/default/sa/reviews");
    until(&ca, &operator, |seen| seen.waiting == 0).await;
    assert_eq!(
        id_of(&ca.ask_by_token(&world, &token).await.expect("issued")),
        "spiffe://new.example/ns/default/sa/reviews"
    );
    pilot.tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}
