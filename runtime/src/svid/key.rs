//! A key pair made in this process: it signs requests and handshakes, and is written nowhere.

use std::fmt;
use std::sync::Arc;

use api::spiffe::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Which kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// NIST P-256, which every TLS library knows.
    #[default]
    P256,
    /// Ed25519.
    Ed25519,
}

/// A key pair.
pub struct Key {
    pair: KeyPair,
}

impl Key {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn generate(kind: KeyKind) -> Result<Self, rcgen::Error> {
        let algorithm = match kind {
            KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyKind::Ed25519 => &PKCS_ED25519,
        };
        Ok(Key { pair: KeyPair::generate_for(algorithm)? })
    }

    /// Reads one (PKCS#8 in PEM), for who has no CA to make a certificate for a key of its own.
    ///
    /// # Errors
    ///
    /// When it is none of the kinds that there are.
    pub fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        Ok(Key { pair: KeyPair::from_pem(pem)? })
    }

    /// A certificate signing request (PEM) that asks for `id`.
    ///
    /// # Errors
    ///
    /// When the cryptographic library refuses.
    pub fn request(&self, id: Option<&SpiffeId>) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        }
        params.serialize_request(&self.pair)?.pem()
    }

    /// The private key as PKCS#8 DER.
    #[must_use]
    pub fn pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        self.pair.serialize_der().into()
    }

    /// The pair itself, to sign with.
    #[must_use]
    pub fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(super) fn signer(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        crate::tls::provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(self.pkcs8()))
    }
}

impl From<KeyPair> for Key {
    fn from(pair: KeyPair) -> Self {
        Key { pair }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
