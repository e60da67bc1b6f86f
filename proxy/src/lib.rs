//! The mesh's data plane: every byte between services.

pub mod access_log;
mod buffer;
pub mod codec;
mod conn;
mod connect;
pub mod data;
mod detect;
mod exchange;
pub mod failure;
pub mod headers;
mod http;
mod inbound;
mod leave;
pub mod metrics;
mod origdst;
mod outbound;
mod pool;
mod pump;
mod reply;
mod report;
mod tcp;
mod timer;
mod upstream;

pub use data::{DataPath, Settings};
pub use headers::Edge;
