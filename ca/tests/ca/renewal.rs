//! The CA and a daemon's renewal together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::Tasks;
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{KeyKind, Peers, Publisher, Svids, channel_with_clock};

use crate::world::{AUDIENCE, REVIEWS, RunningCa, SetClock, World};

const DAY: Duration = Duration::from_secs(86_400);

/// Everything waits for facts; this is for how long at most.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes about")
}

fn renewal(world: &World, ca: &RunningCa, publisher: Publisher, status: Status) -> Renewal {
    let token = world.token_file(&world.token("default", "reviews", AUDIENCE));
    Renewal {
        authority: ca.authority(Some(token)),
        account: ("default".to_owned(), "reviews".to_owned()),
        key: KeyKind::P256,
        lifetime: None,
        publisher,
        status,
    }
}

async fn next_serial(svids: &Svids, before: &str) -> String {
    let mut changes = svids.changes();
    loop {
        changes.borrow_and_update();
        if let Some(svid) = svids.current().filter(|svid| svid.serial != before) {
            return svid.serial.clone();
        }
        changes.changed().await.expect("somebody publishes");
    }
}

#[tokio::test]
async fn a_daemon_gets_its_svid_and_renews_it_when_told() {
    let world = World::start().await;
    let ca = world.ca().await;
    let (publisher, svids) = runtime::svid::channel();
    let (status, tasks) = (Status::default(), Tasks::new());
    tasks.spawn("svid", renewal(&world, &ca, publisher, status.clone()).run(tasks.token().clone()));
    let first = within(svids.ready()).await;
    assert_eq!(first.id.to_string(), REVIEWS);
    let due = status.progress().next.expect("the next is planned");
    let wait = due.duration_since(svids.now()).expect("it is in the future");
    assert!(wait > DAY.mul_f64(0.4) && wait < DAY.mul_f64(0.6), "half of a day, about: {wait:?}");
    status.renew_now();
    within(next_serial(&svids, &first.serial)).await;
    assert_eq!(status.progress().renewals, 2);
    tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn a_daemon_waits_for_a_ca_that_is_away_and_says_so() {
    let world = World::start().await;
    let ca = world.ca().await;
    let (publisher, svids) = runtime::svid::channel();
    let (status, tasks) = (Status::default(), Tasks::new());
    let mut waiting = renewal(&world, &ca, publisher, status.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let right = Arc::new(std::sync::Mutex::new(address));
    let dial = runtime::svid::client::plain_dial();
    waiting.authority.dial = Arc::new({
        let right = Arc::clone(&right);
        move |_| dial(right.lock().expect("not poisoned").clone())
    });
    tasks.spawn("svid", waiting.run(tasks.token().clone()));
    within(async {
        while status.progress().failures == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(svids.current().is_none());
    let error = status.progress().error.expect("it says why");
    assert!(error.contains("cannot connect to the CA"), "{error}");
    *right.lock().expect("not poisoned") = ca.ca.addresses.csr.to_string();
    assert_eq!(within(svids.ready()).await.id.to_string(), REVIEWS);
    assert_eq!(status.progress().error, None);
    tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn a_daemon_whose_clock_is_off_keeps_what_it_has_and_says_why() {
    let world = World::start().await;
    let ca = world.ca().await;
    let clock = SetClock::new();
    let (publisher, svids) = channel_with_clock(clock.clone());
    let (status, tasks) = (Status::default(), Tasks::new());
    tasks.spawn("svid", renewal(&world, &ca, publisher, status.clone()).run(tasks.token().clone()));
    let first = within(svids.ready()).await.serial.clone();
    clock.set(clock.now() - DAY - Duration::from_secs(3600));
    status.renew_now();
    within(async {
        while status.progress().failures == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = status.progress().error.expect("it says why");
    assert!(error.contains("not valid yet"), "{error}");
    assert_eq!(svids.current().expect("what it has stays in force").serial, first);
    clock.set(std::time::SystemTime::now() + DAY + Duration::from_secs(3600));
    assert!(svids.current().is_none(), "a day later by its clock it presents nothing");
    clock.set(std::time::SystemTime::now());
    status.renew_now();
    within(next_serial(&svids, &first)).await;
    tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

#[tokio::test]
async fn a_ca_that_is_killed_and_comes_back_goes_on_with_the_same_root() {
    let world = World::start().await;
    let ca = world.ca().await;
    let (publisher, svids) = runtime::svid::channel();
    let (status, tasks) = (Status::default(), Tasks::new());
    let mut daemon = renewal(&world, &ca, publisher, status.clone());
    let again = world.ca().await;
    let addresses = [ca.ca.addresses.csr, again.ca.addresses.csr].map(|address| address.to_string());
    let dial = runtime::svid::client::plain_dial();
    // The Service leads to the first that is there.
    daemon.authority.dial = Arc::new(move |_| {
        let (first, second) = (dial(addresses[0].clone()), dial(addresses[1].clone()));
        Box::pin(async move {
            match first.await {
                Ok(stream) => Ok(stream),
                Err(_) => second.await,
            }
        })
    });
    daemon.authority.roots = runtime::svid::client::Pem::Text(format!("{}{}", ca.root, again.root));
    tasks.spawn("svid", daemon.run(tasks.token().clone()));
    let first = within(svids.ready()).await;
    let bundle = svids.bundle().expect("roots").version();
    ca.stop().await;
    status.renew_now();
    within(next_serial(&svids, &first.serial)).await;
    assert_eq!(svids.bundle().expect("roots").version(), bundle);
    tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}

/// A handshake with a server that has this identity: whether it presents anything.
async fn is_presented(svids: &Svids) -> bool {
    let config = svids.server_config(Peers::Members, &[]).expect("a configuration");
    let client = svids.client_config(Peers::Members, &[]).expect("a configuration");
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = "mesh".try_into().expect("a name");
    let (client, server) = tokio::join!(
        tokio_rustls::TlsConnector::from(client).connect(name, near),
        tokio_rustls::TlsAcceptor::from(config).accept(far),
    );
    client.is_ok() && server.is_ok()
}

#[tokio::test]
async fn while_the_ca_is_away_the_svid_holds_until_it_expires_and_is_then_presented_to_nobody() {
    let world = World::start().await;
    let clock = SetClock::new();
    let ca = world.try_ca(clock.clone(), |_| {}).await.unwrap_or_else(|failure| panic!("{failure}"));
    let (publisher, svids) = channel_with_clock(clock.clone());
    let (status, tasks) = (Status::default(), Tasks::new());
    let mut daemon = renewal(&world, &ca, publisher, status.clone());
    // Short enough for the token, which the API server's own clock ends, to hold on.
    let life = Duration::from_secs(600);
    daemon.lifetime = Some(life);
    let is_away = Arc::new(AtomicBool::new(false));
    let dial = runtime::svid::client::plain_dial();
    daemon.authority.dial = Arc::new({
        let is_away = Arc::clone(&is_away);
        move |address| match is_away.load(Ordering::Relaxed) {
            true => Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) }),
            false => dial(address),
        }
    });
    tasks.spawn("svid", daemon.run(tasks.token().clone()));
    let first = within(svids.ready()).await;
    is_away.store(true, Ordering::Relaxed);
    let failed = async |status: &Status| {
        let before = status.progress().failures;
        status.renew_now();
        within(async {
            while status.progress().failures == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };

    // Past the middle of its life it is to be renewed and cannot be; nobody notices.
    let begun = clock.now();
    clock.set(begun + life.mul_f64(0.9));
    failed(&status).await;
    assert_eq!(svids.current().expect("it holds on").serial, first.serial);
    assert!(is_presented(&svids).await);
    clock.set(begun + life + Duration::from_secs(1));
    failed(&status).await;
    assert!(svids.current().is_none() && svids.latest().is_some());
    assert!(!is_presented(&svids).await, "an expired certificate is presented to nobody");
    let error = status.progress().error.expect("it says why");
    assert!(error.contains("cannot connect to the CA"), "{error}");

    is_away.store(false, Ordering::Relaxed);
    status.renew_now();
    within(next_serial(&svids, &first.serial)).await;
    assert!(is_presented(&svids).await);
    tasks.stop(Duration::from_secs(5)).await.expect("it ends");
}
