//! Who calls: a service-account token, checked by the API server.
//!
//! A verdict is kept for as long as the token lives, at most a minute, so that a mass reconnect costs the API server one
//! review per pod and a deleted pod's token stops working soon.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a verdict is kept at most.
const KEPT: Duration = Duration::from_secs(60);
/// Most verdicts that are kept: above the number of proxies that one Pilot serves.
const MOST_KEPT: usize = 16_384;
/// Longest token that is looked at; those of Kubernetes have one to two kilobytes.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Reviews under way at a time; the rest wait.
const REVIEWS_AT_A_TIME: usize = 32;
/// How long a review may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys under which the API server names the pod that a token is bound to.
const POD_NAME_KEYS: [&str; 2] = ["authentication.kubernetes.io/pod-name", "kubernetes.io/pod-name"];

/// Who holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod: Option<String>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no `authorization: Bearer …`.
    #[error("no token: send `authorization: Bearer TOKEN` with a service-account token of audience {audience}")]
    NoToken {
        /// Whom it must be for.
        audience: &'static str,
    },
    /// It cannot be a token.
    #[error("the token is longer than {LONGEST_TOKEN} bytes")]
    TooLong,
    /// The API server does not vouch for it.
    #[error("the API server refuses the token: {reason}")]
    Refused {
        /// In its words.
        reason: String,
    },
    /// It belongs to somebody who is no service account.
    #[error("the token belongs to {user}, which is not a service account")]
    NotAServiceAccount {
        /// Whose it is.
        user: String,
    },
    /// Nobody could be asked. Trying again may help.
    #[error("the token cannot be checked now: {reason}")]
    Unavailable {
        /// What went wrong.
        reason: String,
    },
}

/// Checks tokens. Clones share what is known.
#[derive(Clone)]
pub struct Authenticator {
    client: Client,
    /// Whom tokens must be for: any of these. The first is the one to be named.
    audiences: Arc<[&'static str]>,
    known: Arc<Mutex<HashMap<String, Known>>>,
    reviews: Arc<Semaphore>,
}

struct Known {
    caller: Caller,
    until: Instant,
}

impl Authenticator {
    /// Asks this API server about tokens for one of `audiences`.
    #[must_use]
    pub fn new(client: Client, audiences: impl Into<Arc<[&'static str]>>) -> Self {
        let reviews = Arc::new(Semaphore::new(REVIEWS_AT_A_TIME));
        Authenticator { client, audiences: audiences.into(), known: Arc::default(), reviews }
    }

    /// Checks the value of an `authorization` header.
    ///
    /// # Errors
    ///
    /// Why the caller is not let in.
    pub async fn check(&self, authorization: Option<&str>) -> Result<Caller, Refusal> {
        let audience = self.audiences.first().copied().unwrap_or_default();
        self.check_token(authorization.and_then(bearer).ok_or(Refusal::NoToken { audience })?).await
    }

    /// Checks a token.
    ///
    /// # Errors
    ///
    /// Why its holder is not let in.
    pub async fn check_token(&self, token: &str) -> Result<Caller, Refusal> {
        if token.len() > LONGEST_TOKEN {
            return Err(Refusal::TooLong);
        }
        if let Some(caller) = self.known(token) {
            return Ok(caller);
        }
        let caller = self.review(token).await?;
        self.remember(token, &caller);
        Ok(caller)
    }

    fn known(&self, token: &str) -> Option<Caller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(token).filter(|known| known.until > Instant::now()).map(|known| known.caller.clone())
    }

    fn remember(&self, token: &str, caller: &Caller) {
        let kept = lifetime(token).map_or(KEPT, |left| left.min(KEPT));
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KEPT {
            known.retain(|_, known| known.until > now);
        }
        if known.len() < MOST_KEPT {
            known.insert(token.to_owned(), Known { caller: caller.clone(), until: now + kept });
        }
    }

    async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        let unavailable = |reason: String| Refusal::Unavailable { reason };
        let _permit = self.reviews.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(self.audiences.iter().map(|&audience| audience.to_owned()).collect()),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let asked = tokio::time::timeout(REVIEW_TIMEOUT, api.create(&params, &review)).await;
        let answer = asked.map_err(|_| unavailable(format!("no answer within {REVIEW_TIMEOUT:?}")))?;
        let answer = answer.map_err(|error| unavailable(crate::exit::chain(&error)))?;
        verdict(answer.status.unwrap_or_default(), &self.audiences)
    }
}

/// The token of `Bearer TOKEN`.
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Reads the API server's answer. A server that does not know audiences does not repeat ours: then it is refused.
fn verdict(status: TokenReviewStatus, wanted: &[&str]) -> Result<Caller, Refusal> {
    let first = wanted.first().copied().unwrap_or_default();
    if status.authenticated != Some(true) {
        let reason = status.error.filter(|error| !error.is_empty());
        return Err(Refusal::Refused { reason: reason.unwrap_or_else(|| format!("it is not valid for {first}")) });
    }
    if !status.audiences.iter().flatten().any(|audience| wanted.contains(&audience.as_str())) {
        let reason = format!("it is not for the audience {first}");
        return Err(Refusal::Refused { reason });
    }
    caller(status.user.unwrap_or_default())
}

fn caller(user: UserInfo) -> Result<Caller, Refusal> {
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let Some((namespace, service_account)) = account else {
        return Err(Refusal::NotAServiceAccount { user: name });
    };
    let extra = user.extra.unwrap_or_default();
    let pod = POD_NAME_KEYS.iter().find_map(|key| extra.get(*key)?.first()).cloned();
    Ok(Caller { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod })
}

/// How long a token still lives, by its own words. Only for a token that the API server has vouched for.
fn lifetime(token: &str) -> Option<Duration> {
    let (_, end) = validity(token)?;
    Some(end.duration_since(SystemTime::now()).unwrap_or_default())
}

/// From when until when a token holds, by its own words, if it has such words. Nothing of it is proved.
#[must_use]
pub fn validity(token: &str) -> Option<(Option<SystemTime>, SystemTime)> {
    #[derive(Deserialize)]
    struct Claims {
        iat: Option<u64>,
        exp: u64,
    }
    let claims = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let at = |seconds: u64| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    Some((claims.iat.and_then(at), at(claims.exp)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vouched(user: &str, audience: &str) -> TokenReviewStatus {
        let extra = [(POD_NAME_KEYS[0].to_owned(), vec!["reviews-v1-0".to_owned()])].into();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo { username: Some(user.to_owned()), extra: Some(extra), ..UserInfo::default() }),
            ..TokenReviewStatus::default()
        }
    }

    #[test]
    fn a_service_account_is_let_in_with_its_pod() {
        let caller = verdict(vouched("system:serviceaccount:default:reviews", "mesh-pilot"), &["mesh-pilot"])
            .expect("is let in");
        assert_eq!((caller.namespace.as_str(), caller.service_account.as_str()), ("default", "reviews"));
        assert_eq!(caller.pod.as_deref(), Some("reviews-v1-0"));
    }

    #[test]
    fn everybody_else_is_told_why_not() {
        for (status, expected) in [
            (TokenReviewStatus::default(), "it is not valid for mesh-pilot"),
            (vouched("system:serviceaccount:a:b", "kubernetes"), "it is not for the audience mesh-pilot"),
            (vouched("admin", "mesh-pilot"), "admin, which is not a service account"),
        ] {
            let refusal = verdict(status, &["mesh-pilot"]).expect_err("is refused").to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn only_bearer_tokens_are_tokens() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("", None),
        ] {
            assert_eq!(bearer(header), expected, "{header:?}");
        }
    }

    #[test]
    fn a_token_that_ends_soon_is_not_kept_longer() {
        let claims = URL_SAFE_NO_PAD.encode(br#"{"exp":1}"#);
        assert_eq!(lifetime(&format!("x.{claims}.y")), Some(Duration::ZERO));
        assert_eq!(lifetime("opaque"), None);
    }
}
