//! The data path on loopback: real sockets, tables compiled from real resources, an upstream that each test plays itself.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![allow(missing_docs, reason = "the harness is read with the tests")]

#[path = "data/access.rs"]
mod access;
#[path = "data/bodies.rs"]
mod bodies;
#[path = "data/breakers.rs"]
mod breakers;
#[path = "data/connections.rs"]
mod connections;
#[path = "data/detection.rs"]
mod detection;
#[path = "data/floods.rs"]
mod floods;
#[path = "data/frames.rs"]
mod frames;
#[path = "data/hostile.rs"]
mod hostile;
#[path = "data/http2.rs"]
mod http2;
#[path = "data/http2_budget.rs"]
mod http2_budget;
#[path = "data/http2_flow.rs"]
mod http2_flow;
#[path = "data/leaving.rs"]
mod leaving;
#[path = "data/limits.rs"]
mod limits;
#[path = "data/mesh.rs"]
mod mesh;
#[path = "data/opaque.rs"]
mod opaque;
#[path = "data/peers.rs"]
mod peers;
#[path = "data/refusals.rs"]
mod refusals;
#[path = "data/retries.rs"]
mod retries;
#[path = "data/routing.rs"]
mod routing;
#[path = "data/strictness.rs"]
mod strictness;
#[path = "data/telemetry.rs"]
mod telemetry;
#[path = "data/tls.rs"]
mod tls;
#[path = "data/tls_refusals.rs"]
mod tls_refusals;
#[path = "data/upgrades.rs"]
mod upgrades;
