//! Join tokens in the cluster's Secrets: looked up, and used up.

use std::collections::BTreeMap;
use std::time::SystemTime;

use api::names::{JOIN_TOKEN_TYPE, SYSTEM_NAMESPACE};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use runtime::svid::join::{JoinToken, field};

/// Why a join token does not let its holder in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is not one.
    #[error("this is no join token; make one with `meshctl ca issue`")]
    Malformed,
    /// It is unknown, was used, or was withdrawn.
    #[error("the join token is not known, or was used before: each works once")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired at {at}")]
    Expired {
        /// When.
        at: String,
    },
    /// Its Secret is damaged.
    #[error("the Secret {name} of the join token is damaged: {reason}")]
    Damaged {
        /// Which.
        name: String,
        /// In what.
        reason: &'static str,
    },
    /// Nobody could be asked.
    #[error("the join token cannot be checked now")]
    Unavailable(#[source] kube::Error),
}

/// A join token that is good, and not used up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// Namespace of the service account that it is good for.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// Name of its Secret.
    pub name: String,
    uid: String,
}

/// The join tokens of a mesh.
#[derive(Clone)]
pub struct JoinTokens {
    secrets: Api<Secret>,
}

impl JoinTokens {
    /// Those in this cluster.
    #[must_use]
    pub fn new(client: Client) -> Self {
        JoinTokens { secrets: Api::namespaced(client, SYSTEM_NAMESPACE) }
    }

    /// Looks a token up.
    ///
    /// # Errors
    ///
    /// Why it does not let its holder in.
    pub async fn find(&self, text: &str, now: SystemTime) -> Result<Good, JoinError> {
        let token = JoinToken::parse(text).ok_or(JoinError::Malformed)?;
        let secret = self.secrets.get_opt(&token.name()).await.map_err(JoinError::Unavailable)?;
        let secret = secret.filter(|secret| secret.type_.as_deref() == Some(JOIN_TOKEN_TYPE));
        let secret = secret.ok_or(JoinError::Unknown)?;
        let data = secret.data.unwrap_or_default();
        let damaged = |reason| JoinError::Damaged { name: token.name(), reason };
        let hash = data.get(field::HASH).ok_or_else(|| damaged("it has no hash"))?;
        if !token.has_hash(&hash.0) {
            return Err(JoinError::Unknown);
        }
        let expires: jiff::Timestamp = text_of(&data, field::EXPIRES)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("it does not say when it expires"))?;
        if SystemTime::from(expires) <= now {
            return Err(JoinError::Expired { at: expires.to_string() });
        }
        let account = text_of(&data, field::NAMESPACE).zip(text_of(&data, field::SERVICE_ACCOUNT));
        let (namespace, service_account) = account.ok_or_else(|| damaged("it names no service account"))?;
        Ok(Good { namespace, service_account, name: token.name(), uid: secret.metadata.uid.unwrap_or_default() })
    }

    /// Uses a token up. Of all who try, at all CAs, one succeeds.
    ///
    /// # Errors
    ///
    /// When somebody else was first, or nobody can be asked; then nothing may be handed out.
    pub async fn use_up(&self, good: &Good) -> Result<(), JoinError> {
        let uid = Some(good.uid.clone());
        let params =
            DeleteParams { preconditions: Some(Preconditions { uid, resource_version: None }), ..Default::default() };
        match self.secrets.delete(&good.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(JoinError::Unknown),
            Err(error) => Err(JoinError::Unavailable(error)),
        }
    }
}

fn text_of(data: &BTreeMap<String, ByteString>, field: &str) -> Option<String> {
    String::from_utf8(data.get(field)?.0.clone()).ok()
}
