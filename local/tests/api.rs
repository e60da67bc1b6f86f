//! The local API, spoken to by the clients that people use: `kube` and `kubectl`.

#[path = "api/access.rs"]
mod access;
#[path = "api/admission.rs"]
mod admission;
#[path = "api/kubectl.rs"]
mod kubectl;
#[path = "api/objects.rs"]
mod objects;
#[path = "api/remote.rs"]
mod remote;
#[path = "api/server.rs"]
mod server;
