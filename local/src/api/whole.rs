//! The API as a whole.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::pki::{Pki, PkiError};
use super::tokens::Tokens;
use super::{PodStreams, Store};

/// The local API: its objects, its keys, and what it asks the node.
pub struct Api {
    pub(super) store: Arc<Store>,
    pub(super) tokens: Tokens,
    pub(super) pki: Pki,
    pub(super) streams: Arc<dyn PodStreams>,
    pub(super) stop: CancellationToken,
}

/// What the API needs to know.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The directory for keys and certificates (`pki/` of the state directory).
    pub pki: PathBuf,
}

/// Why the API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its keys and certificates.
    #[error("cannot prepare the keys of the local API")]
    Pki(#[from] PkiError),
    /// Its token key.
    #[error("the key that signs service-account tokens is not usable")]
    Tokens(#[from] jsonwebtoken::errors::Error),
}

impl Api {
    /// Prepares the API: reads or makes its keys.
    ///
    /// # Errors
    /// When keys or certificates cannot be used.
    pub fn open(store: Arc<Store>, config: &ApiConfig, streams: Arc<dyn PodStreams>) -> Result<Arc<Self>, StartError> {
        let pki = Pki::open(&config.pki)?;
        let tokens = Tokens::new(&pki)?;
        Ok(Arc::new(Self { store, tokens, pki, streams, stop: CancellationToken::new() }))
    }

    /// The objects.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Issues service-account tokens, for the volumes of pods.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Keys and certificates, for the kubeconfig and for `kube-root-ca.crt`.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }
}
