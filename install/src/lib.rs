//! What the mesh puts into a cluster, as pure functions: typed [`Values`] in, Kubernetes objects out; a pod in, the
//! same pod with a sidecar out. No IO: the CLI and Pilot's webhook call the same code, so both give the same.

pub mod inject;
pub mod manifests;
pub mod rules;
pub mod text;
mod values;

pub use inject::{Injection, Outcome, Refusal, Skip, inject_object, inject_pod};
pub use values::{AuthPolicy, Certificates, Images, ServingCertificate, Values};
