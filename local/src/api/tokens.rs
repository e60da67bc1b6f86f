//! Service-account tokens: issuing them, and finding out whom a token speaks for.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pki::Pki;
use super::{ApiError, ApiResult, Reason, Store, object};

/// Issuer of the tokens, and the audience of those that are for the API itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Whom a caller speaks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct User {
    /// As in `system:serviceaccount:default:reviews`.
    pub name: String,
    /// The service account's uid; empty for others.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else is known, as the pod that a token is bound to.
    pub extra: Vec<(String, Vec<String>)>,
}

/// What a token is to say.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// Audiences; the API's own if empty.
    pub audiences: Vec<String>,
    /// Life time in seconds; an hour if `None`.
    pub seconds: Option<u64>,
    /// Name of the pod that the token is bound to: it ends with the pod.
    pub pod: Option<String>,
}

/// A token and when it ends.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires: jiff::Timestamp,
}

/// Issues and checks tokens.
pub struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    sub: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
}

#[derive(Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

const DEFAULT_SECONDS: u64 = 3600;
const MIN_SECONDS: u64 = 600;
const MAX_SECONDS: u64 = 365 * 86_400;

impl Tokens {
    /// # Errors
    /// When the key is not one for ES256.
    pub fn new(pki: &Pki) -> Result<Self, jsonwebtoken::errors::Error> {
        Ok(Self {
            signing: EncodingKey::from_ec_pem(pki.token_key.as_bytes())?,
            checking: DecodingKey::from_ec_pem(pki.token_public.as_bytes())?,
        })
    }

    /// Issues a token.
    ///
    /// # Errors
    /// `NotFound` when there is no such service account or pod; `Invalid` when the pod runs as another one, or the
    /// life time is shorter than ten minutes.
    pub fn issue(&self, store: &Store, request: &TokenRequest) -> ApiResult<Token> {
        let account = store.get("serviceaccounts", &request.namespace, &request.service_account)?;
        let seconds = request.seconds.unwrap_or(DEFAULT_SECONDS).min(MAX_SECONDS);
        let invalid = |field: &str, why: &str| Err(ApiError::invalid("TokenRequest", "", field, why));
        if seconds < MIN_SECONDS {
            return invalid("spec.expirationSeconds", "Invalid value: may not specify a duration less than 10 minutes");
        }
        let pod = match &request.pod {
            None => None,
            Some(name) => {
                let pod = store.get("pods", &request.namespace, name)?;
                if object::text(&pod, "/spec/serviceAccountName") != request.service_account {
                    return invalid(
                        "spec.boundObjectRef",
                        "Invalid value: the pod does not run as this service account",
                    );
                }
                Some(Reference { name: name.clone(), uid: object::uid(&pod).to_owned() })
            }
        };
        let now = jiff::Timestamp::now().as_second();
        let exp = now + seconds.cast_signed();
        let claims = Claims {
            aud: if request.audiences.is_empty() { vec![ISSUER.to_owned()] } else { request.audiences.clone() },
            exp,
            iat: now,
            nbf: now,
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", request.namespace, request.service_account),
            jti: object::new_uid(),
            kubernetes: Kubernetes {
                namespace: request.namespace.clone(),
                serviceaccount: Reference {
                    name: request.service_account.clone(),
                    uid: object::uid(&account).to_owned(),
                },
                pod,
            },
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)
            .map_err(|error| ApiError::internal(format!("the token cannot be signed: {error}")))?;
        let expires = jiff::Timestamp::from_second(exp).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Token { token, expires })
    }

    /// Finds out whom a token speaks for, and to which of `audiences`.
    ///
    /// # Errors
    /// `Unauthorized` when the token is not ours, has ended, is for others, or its account or pod is gone.
    pub fn review(&self, store: &Store, token: &str, audiences: &[String]) -> ApiResult<(User, Vec<String>)> {
        let refused = |why: String| ApiError::new(Reason::Unauthorized, why);
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        // A token of our own is never made for later: one from the future was made before the clock was set back, and a client
        // that read it goes on with it for as long as its own clock says.
        validation.validate_nbf = false;
        validation.set_audience(audiences);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &validation)
            .map_err(|error| refused(format!("the token is not valid: {error}")))?
            .claims;
        let Kubernetes { namespace, serviceaccount, pod } = claims.kubernetes;
        let is_there = |resource: &str, reference: &Reference| {
            store.get(resource, &namespace, &reference.name).is_ok_and(|found| object::uid(&found) == reference.uid)
        };
        if !is_there("serviceaccounts", &serviceaccount) {
            return Err(refused(format!("service account {namespace}/{} has been deleted", serviceaccount.name)));
        }
        let mut extra =
            vec![("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={}", claims.jti)])];
        if let Some(pod) = pod {
            if !is_there("pods", &pod) {
                return Err(refused(format!("pod {namespace}/{} has been deleted", pod.name)));
            }
            extra.push(("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.name]));
            extra.push(("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod.uid]));
        }
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let audiences = audiences.iter().filter(|it| claims.aud.contains(it)).cloned().collect();
        Ok((User { name: claims.sub, uid: serviceaccount.uid, groups, extra }, audiences))
    }
}

impl User {
    /// As `status.user` of a TokenReview, or `userInfo` of an AdmissionReview.
    pub fn to_json(&self) -> Value {
        let extra: serde_json::Map<_, _> =
            self.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
        json!({"username": self.name, "uid": self.uid, "groups": self.groups, "extra": extra})
    }
}
