//! The mesh's data plane: every byte between services.

pub mod access_log;
pub mod admin;
mod buffer;
pub mod codec;
mod conn;
mod connect;
pub mod daemon;
pub mod data;
mod detect;
mod exchange;
pub mod failure;
pub mod headers;
mod http;
mod inbound;
pub mod interception;
mod leave;
pub mod metrics;
mod origdst;
mod outbound;
mod pool;
mod pump;
pub mod readiness;
mod reply;
mod report;
mod retry;
pub mod settings;
pub mod snapshot;
pub mod sockets;
pub mod static_config;
mod tcp;
mod text;
mod timer;
mod upstream;
pub mod xds;

pub use data::{DataPath, Settings};
pub use headers::Edge;
