//! The local Kubernetes API: the objects, and the server that speaks about them.

pub mod defaults;
mod error;
mod journal;
pub mod object;
mod resources;
mod selector;
pub mod store;
mod streams;

pub use error::{ApiError, ApiResult, Reason};
pub use resources::{Resource, Resources};
pub use selector::Selection;
pub use store::{Change, DeleteOptions, Deleted, Event, List, OpenError, Part, Store, Watch};
pub use streams::{Duplex, ExecRequest, ExecSession, LogRequest, PodRef, PodStreams, TerminalSize};
