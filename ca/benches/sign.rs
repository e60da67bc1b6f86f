//! Signing requests: reading alone, signing alone, and both as one request is served.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use mesh_ca::authority::{Authority, Material, Policy};
use mesh_ca::csr::Csr;
use runtime::svid::{Key, KeyKind};

fn main() {
    divan::main();
}

fn authority() -> Authority {
    let policy = Policy::of("cluster.local".parse().expect("a trust domain"));
    let material = Material::make_root(&policy, std::time::SystemTime::now()).expect("a root");
    material.authority(policy, Arc::new(rustls::time_provider::DefaultTimeProvider)).expect("an authority")
}

fn request() -> String {
    let id = "spiffe://cluster.local/ns/default/sa/reviews".parse().expect("an identity");
    Key::generate(KeyKind::P256).expect("a key").request(Some(&id)).expect("a request")
}

/// PEM, DER, and the request's own signature.
#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    let pem = request();
    bencher.counter(ItemsCount::new(1usize)).bench(|| Csr::from_pem(pem.as_bytes()).expect("a good request"));
}

/// Everything that one request costs between the token and the wire.
#[divan::bench]
fn read_and_sign(bencher: Bencher<'_, '_>) {
    let (authority, pem) = (authority(), request());
    let id = "spiffe://cluster.local/ns/default/sa/reviews".parse().expect("an identity");
    bencher.counter(ItemsCount::new(1usize)).bench(|| {
        let csr = Csr::from_pem(pem.as_bytes()).expect("a good request");
        authority.issue(&id, &csr.key, None).expect("issued")
    });
}
