//! The local Kubernetes API: the objects, and the server that speaks about them.
//!
//! [`Store`] holds the objects. [`Api`] adds what a Kubernetes API server puts in front of them: defaults, admission,
//! tokens, and (by [`serve`]) HTTP over TLS. Controllers write through [`Api`], the node reports through [`Store`].

mod admission;
mod answer;
mod apply;
mod asked;
mod caller;
mod classic;
pub mod defaults;
mod discovery;
mod error;
pub mod events;
pub mod export;
mod follow;
mod handler;
mod journal;
pub mod kubeconfig;
pub mod object;
mod open_api;
mod operations;
mod patch;
mod pki;
pub mod pods;
mod rbac;
mod remote;
mod request;
mod resources;
mod reviews;
mod scale;
mod selector;
mod server;
pub mod store;
mod streams;
mod table;
mod tokens;
mod verbs;
mod webhook;
mod whole;

pub use caller::Caller;
pub use error::{ApiError, ApiResult, Reason};
pub use operations::{ObjectKey, PatchTarget};
pub use patch::PatchKind;
pub use pki::{Pki, PkiError};
pub use request::fuzz as fuzz_request;
pub use resources::{Resource, Resources, Scale, Version};
pub use selector::Selection;
pub use server::serve;
pub use store::{Change, DeleteOptions, Deleted, Event, List, Lost, OpenError, Part, Saved, Store, Watch};
pub use streams::{Duplex, ExecRequest, ExecSession, LogRequest, PodRef, PodStreams, TerminalSize};
pub use tokens::{ISSUER, Token, TokenRequest, Tokens, User};
pub use whole::{Api, ApiConfig, StartError};
