//! Join tokens: how a machine outside of the cluster proves itself the first time, and only then.
//!
//! `mesh-join-ID-SECRET`: the ID names a Secret in the control plane's namespace, which holds the hash of the rest and
//! what the token is good for. The Secret is deleted when the token is used, so that it works once.

use aws_lc_rs::digest::{SHA256, digest};

use super::wire::JOIN_TOKEN;

/// Bytes of an ID and of a secret.
const LENGTHS: (usize, usize) = (6, 24);

/// Keys of a join token's Secret.
pub mod field {
    /// SHA-256 of the token's secret part, in hexadecimal.
    pub const HASH: &str = "hash";
    /// Namespace of the service account.
    pub const NAMESPACE: &str = "namespace";
    /// The service account.
    pub const SERVICE_ACCOUNT: &str = "service-account";
    /// Until when it can be used, RFC 3339.
    pub const EXPIRES: &str = "expires";
}

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
}

impl JoinToken {
    /// Makes a new one.
    #[must_use]
    pub fn generate() -> Self {
        JoinToken { id: random(LENGTHS.0), secret: random(LENGTHS.1) }
    }

    /// Reads one.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtime::svid::join::JoinToken;
    ///
    /// let token = JoinToken::generate();
    /// assert_eq!(JoinToken::parse(&token.text()), Some(token));
    /// assert_eq!(JoinToken::parse("mesh-join-../x"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(JOIN_TOKEN)?.split_once('-')?;
        let is_hex = |text: &str, bytes: usize| {
            text.len() == bytes * 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_good = is_hex(id, LENGTHS.0) && is_hex(secret, LENGTHS.1);
        is_good.then(|| JoinToken { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The whole token, which is shown once.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{JOIN_TOKEN}{}-{}", self.id, self.secret)
    }

    /// Name of its Secret.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{JOIN_TOKEN}{}", self.id)
    }

    /// Hash of its secret part, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        digest(&SHA256, self.secret.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a hash is the one of its secret part, in a time that tells nothing.
    #[must_use]
    pub fn has_hash(&self, hash: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.hash().as_bytes(), hash).is_ok()
    }
}

fn random(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}
