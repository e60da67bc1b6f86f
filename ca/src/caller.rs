//! Who asks: what a caller shows, and whose identity that proves.
//!
//! One proof is enough: a service account's token, the SVID that the caller has, or a join token. Whoever shows two of
//! different identities is refused, as one of them is not its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use api::names::CA_TOKEN_AUDIENCE;
use api::spiffe::{InvalidId, SpiffeId};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use runtime::svid::wire::JOIN_TOKEN;
use runtime::svid::{PeerVerifier, Peers, Refusal as PeerRefusal, Svids};
use runtime::token::{self, Authenticator};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::authority::Authority;
use crate::holders::Holder;
use crate::join::{Good, JoinError, JoinTokens};
use crate::naming::Naming;

/// The audience of the tokens that Istio's agents, and cert-manager's `istio-csr`, show.
const ISTIO_AUDIENCE: &str = "istio-ca";
/// How long it is remembered that a service account exists.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Most service accounts that are remembered.
const MOST_REMEMBERED: usize = 16_384;
/// How far the API server's clock and ours may differ.
const CLOCKS: Duration = Duration::from_secs(600);

/// Somebody whose identity is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub id: SpiffeId,
    /// What proves it.
    pub proof: Proof,
    /// Serial number of the SVID that it showed, whatever proves it.
    pub shown: Option<String>,
}

impl Caller {
    /// Who will hold what it asks for: its pod, or, if it is none, the certificate with this serial number itself.
    #[must_use]
    pub fn holder(&self, serial: &str) -> Holder {
        match (&self.proof, self.id.account()) {
            (Proof::Token { pod: Some(pod) }, Some((namespace, _))) => Holder::Pod(format!("{namespace}/{pod}")),
            _ => Holder::leaf(serial),
        }
    }
}

/// What proves an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A service account's token, bound to that pod.
    Token {
        /// The pod, if the token is bound to one.
        pod: Option<String>,
    },
    /// The caller's own SVID.
    Svid {
        /// Its serial number.
        serial: String,
    },
    /// A join token, to be used up.
    Join(Good),
}

impl Proof {
    /// One word for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Proof::Token { .. } => "token",
            Proof::Svid { .. } => "svid",
            Proof::Join(_) => "join",
        }
    }

    /// Which one it is, for the record: nothing of it is secret.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Proof::Token { pod } => pod.as_deref().unwrap_or("no pod"),
            Proof::Svid { serial } => serial,
            Proof::Join(good) => &good.name,
        }
    }
}

/// Why a caller's identity is not proved.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// Nothing was shown.
    #[error(
        "nothing proves who asks: send a service-account token of audience {CA_TOKEN_AUDIENCE} or a join token as \
         `authorization: Bearer TOKEN`, or connect with a current SVID"
    )]
    NoProof,
    /// The token proves nothing.
    #[error("the token proves nothing")]
    Token(#[from] token::Refusal),
    /// The join token proves nothing.
    #[error("the join token proves nothing")]
    Join(#[from] JoinError),
    /// The SVID proves nothing. It was good when the connection began.
    #[error("the SVID proves nothing")]
    Svid(#[source] PeerRefusal),
    /// The account cannot be an identity.
    #[error("the service account cannot have an identity")]
    Account(#[source] InvalidId),
    /// The identity is none of a service account.
    #[error("{id} is not the identity of a service account")]
    NoAccount {
        /// Whose SVID it is.
        id: SpiffeId,
    },
    /// The service account was deleted.
    #[error("service account {namespace}/{name} does not exist (any more)")]
    Deleted {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Nobody could be asked whether it exists.
    #[error("whether service account {namespace}/{name} exists cannot be found out now")]
    Unavailable {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The token is of one identity and the SVID of another.
    #[error("the token is of {token}, but the SVID of {svid}")]
    TwoIdentities {
        /// Whose the token is.
        token: SpiffeId,
        /// Whose the SVID is.
        svid: SpiffeId,
    },
    /// The API server finds a token good that by our clock is not.
    #[error("the CA's clock differs from the API server's by {off:?} or more: nothing is signed until they agree")]
    Clock {
        /// By how much at least.
        off: Duration,
    },
}

impl CallerError {
    /// Whether it may be different later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            CallerError::Token(token::Refusal::Unavailable { .. })
                | CallerError::Join(JoinError::Unavailable(_))
                | CallerError::Unavailable { .. }
                | CallerError::Clock { .. }
        )
    }

    /// One word for metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            CallerError::NoProof => "no_proof",
            CallerError::Token(_) => "token",
            CallerError::Join(_) => "join_token",
            CallerError::Svid(_) => "svid",
            CallerError::Account(_) | CallerError::NoAccount { .. } | CallerError::Deleted { .. } => "account",
            CallerError::Unavailable { .. } => "unavailable",
            CallerError::TwoIdentities { .. } => "two_identities",
            CallerError::Clock { .. } => "clock",
        }
    }
}

/// Finds out who asks. Clones share what is known.
#[derive(Clone)]
pub struct Callers {
    client: Client,
    tokens: Authenticator,
    joins: JoinTokens,
    /// Holds SVIDs against the roots in force; what a handshake has just verified is known to be good.
    members: Arc<PeerVerifier>,
    naming: Naming,
    accounts: Arc<Mutex<HashMap<(String, String), Instant>>>,
}

impl Callers {
    /// Asks this API server, and holds SVIDs against the roots that `svids` has; identities are given in the name that
    /// `naming` says.
    #[must_use]
    pub fn new(client: Client, svids: Svids, naming: Naming) -> Self {
        Callers {
            members: Arc::new(PeerVerifier::new(svids, Peers::Members)),
            tokens: Authenticator::new(client.clone(), [CA_TOKEN_AUDIENCE, ISTIO_AUDIENCE]),
            joins: JoinTokens::new(client.clone()),
            accounts: Arc::default(),
            naming,
            client,
        }
    }

    /// The join tokens.
    #[must_use]
    pub fn joins(&self) -> &JoinTokens {
        &self.joins
    }

    /// Finds out who shows this token and these certificates, whose chain was verified in the handshake.
    ///
    /// # Errors
    ///
    /// Why that proves nothing.
    pub async fn identify(
        &self,
        authority: &Authority,
        token: Option<&str>,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<Caller, CallerError> {
        let by_svid = match certificates {
            Some(chain) if !chain.is_empty() => Some(self.by_svid(authority, chain)?),
            _ => None,
        };
        let by_token = match token {
            Some(text) if text.starts_with(JOIN_TOKEN) => match self.by_join_token(authority, text).await {
                // A machine still has the token by which it joined; what counts from then on is its SVID.
                Err(CallerError::Join(JoinError::Unknown | JoinError::Expired { .. })) if by_svid.is_some() => None,
                caller => Some(caller?),
            },
            Some(text) => Some(self.by_token(authority, text).await?),
            None => None,
        };
        match (by_token, by_svid) {
            (Some(token), Some(svid)) if token.id != svid.id => {
                Err(CallerError::TwoIdentities { token: token.id, svid: svid.id })
            }
            // A token proves more: that the pod is still there.
            (Some(caller), svid) => Ok(Caller { shown: svid.and_then(|svid| svid.shown), ..caller }),
            (None, Some(caller)) => {
                let account = caller.id.account();
                let (namespace, name) = account.ok_or_else(|| CallerError::NoAccount { id: caller.id.clone() })?;
                self.must_exist(namespace, name).await?;
                Ok(caller)
            }
            (None, None) => Err(CallerError::NoProof),
        }
    }

    /// Verifies an SVID once more: the connection may be older than its end, or than the roots in force. The identity is
    /// given in the name of the trust domain in which is issued now.
    fn by_svid(&self, authority: &Authority, chain: &[CertificateDer<'_>]) -> Result<Caller, CallerError> {
        let now = authority.clock().current_time().unwrap_or_else(rustls_pki_types::UnixTime::now);
        let peer = self.members.verify(chain, now, false).map_err(CallerError::Svid)?;
        let (namespace, name) = peer.id.account().ok_or_else(|| CallerError::NoAccount { id: peer.id.clone() })?;
        let id = SpiffeId::of_account(self.naming.domain(authority.policy()), namespace, name)
            .map_err(CallerError::Account)?;
        Ok(Caller { id, shown: Some(peer.serial.clone()), proof: Proof::Svid { serial: peer.serial } })
    }

    async fn by_token(&self, authority: &Authority, text: &str) -> Result<Caller, CallerError> {
        let holder = self.tokens.check_token(text).await?;
        if let Some((from, to)) = token::validity(text) {
            agree(from, to, authority.now().unwrap_or_else(SystemTime::now))?;
        }
        let id =
            SpiffeId::of_account(self.naming.domain(authority.policy()), &holder.namespace, &holder.service_account);
        Ok(Caller { id: id.map_err(CallerError::Account)?, proof: Proof::Token { pod: holder.pod }, shown: None })
    }

    async fn by_join_token(&self, authority: &Authority, text: &str) -> Result<Caller, CallerError> {
        let good = self.joins.find(text, authority.now().unwrap_or_else(SystemTime::now)).await?;
        self.must_exist(&good.namespace, &good.service_account).await?;
        let id = SpiffeId::of_account(self.naming.domain(authority.policy()), &good.namespace, &good.service_account);
        Ok(Caller { id: id.map_err(CallerError::Account)?, proof: Proof::Join(good), shown: None })
    }

    /// Whoever renews by what it has must not outlive its account.
    async fn must_exist(&self, namespace: &str, name: &str) -> Result<(), CallerError> {
        let key = (namespace.to_owned(), name.to_owned());
        let now = Instant::now();
        let lock = || self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().get(&key).is_some_and(|until| *until > now) {
            return Ok(());
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        match accounts.get_metadata_opt(name).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(CallerError::Deleted { namespace: key.0, name: key.1 }),
            Err(error) => {
                let source = Box::new(error);
                return Err(CallerError::Unavailable { namespace: key.0, name: key.1, source });
            }
        }
        let mut known = lock();
        if known.len() >= MOST_REMEMBERED {
            known.retain(|_, until| *until > now);
        }
        if known.len() < MOST_REMEMBERED {
            known.insert(key, now + REMEMBERED);
        }
        Ok(())
    }
}

/// Holds our clock against a token that the API server has just found good.
fn agree(from: Option<SystemTime>, to: SystemTime, now: SystemTime) -> Result<(), CallerError> {
    let behind = from.and_then(|from| from.duration_since(now).ok());
    let ahead = now.duration_since(to).ok();
    match behind.or(ahead).filter(|off| *off > CLOCKS) {
        Some(off) => Err(CallerError::Clock { off }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_a_day_off_is_noticed_by_the_tokens_that_others_find_good() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let minute = Duration::from_secs(60);
        assert!(agree(Some(now - minute), now + hour, now).is_ok());
        assert!(agree(Some(now + minute), now + hour, now).is_ok(), "clocks differ by a little everywhere");
        for off_now in [now + hour * 25, now - hour * 25] {
            let error = agree(Some(now - minute), now + hour, off_now).expect_err("a day is too much");
            assert!(matches!(error, CallerError::Clock { .. }), "{error}");
        }
    }
}
