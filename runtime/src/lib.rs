//! What every daemon of the mesh needs to run: settings, owned tasks, drain, signals, logs, metrics, an admin server,
//! TLS, its own identity, and a last word when it fails.

pub mod admin;
#[cfg(feature = "authority")]
pub mod authority;
pub mod certificate;
pub mod counted;
pub mod daemon;
pub mod drain;
pub mod exit;
pub mod logging;
pub mod metrics;
pub mod probe_tls;
pub mod settings;
pub mod signals;
pub mod svid;
pub mod tasks;
pub mod tls;
#[cfg(feature = "kubernetes")]
pub mod token;
pub mod version;

pub use drain::Drain;
pub use tasks::Tasks;
pub use tokio_util::sync::CancellationToken;
