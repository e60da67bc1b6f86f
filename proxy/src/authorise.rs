//! Whether a request or a connection is let in: tokens are verified, then the rules are asked.
//!
//! What the rules say is the engine's ([`engine::access`], [`engine::token`]); here are the clock, the memory of tokens
//! that were verified before, and the counters.

mod counters;
mod memory;

use std::sync::Arc;

use engine::access::{Admission, admit};
use engine::request::{Caller, Connection, Request};
use engine::tables::{Http, Provider, Rbac};
use engine::token::{self, Authenticated, Claims, Refused, TokenError, Verified};
use engine::trace::NoTrace;

pub use self::counters::{Collected, Counters};
use self::memory::Memory;
use crate::arrival::Arrival;
use crate::failure::Failure;

/// What decides with the tables whether somebody is let in.
#[derive(Debug, Default)]
pub(crate) struct Authoriser {
    memory: Memory,
    pub(crate) counters: Arc<Counters>,
    /// Whether a caller that is refused is told by which policy.
    pub(crate) explains: bool,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The failure.
    pub(crate) failure: Failure,
    /// Which rules refuse, and which of their policies, for the log.
    pub(crate) details: String,
}

/// Who sent something, as far as that is proved.
pub(crate) fn caller<'c>(arrival: &'c Arrival, tokens: &'c [Verified]) -> Caller<'c> {
    Caller {
        identity: arrival.identity.as_deref(),
        address: Some(arrival.peer.ip()),
        destination: Some(arrival.destination),
        tokens,
    }
}

impl Authoriser {
    /// Begins without a memory; `explains` says whether callers are told by which policy they are refused.
    pub(crate) fn new(explains: bool) -> Self {
        Authoriser { explains, ..Authoriser::default() }
    }

    /// Verifies the tokens that a request needs.
    ///
    /// # Errors
    ///
    /// One is missing, or no good.
    pub(crate) fn authenticate(&self, http: &Http, request: &impl Request) -> Result<Authenticated, Refusal> {
        let Some(tokens) = &http.access.tokens else { return Ok(Authenticated::default()) };
        let now = now();
        token::authenticate(tokens, request, &mut |provider, token| self.verify(provider, token, now)).map_err(
            |Refused { why, provider }| {
                self.counters.token_refused(&provider, why.word());
                Refusal { failure: Failure::Unauthenticated(why), details: format!("{provider}[{}]", why.word()) }
            },
        )
    }

    fn verify(&self, provider: &Provider, token: &str, now: u64) -> Result<Arc<Claims>, TokenError> {
        if token.len() > token::MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let key = Memory::key(provider, token);
        if let Some(claims) = self.memory.get(&key) {
            token::check_times(claims.value(), provider, now)?;
            return Ok(claims);
        }
        let claims = Arc::new(token::verify(provider, token, now)?);
        self.memory.put(key, Arc::clone(&claims));
        Ok(claims)
    }

    /// Takes down what rules say of a request; the reason if they refuse it.
    pub(crate) fn judged(&self, admission: &Admission<'_>) -> Option<Refusal> {
        if let Some(denied) = admission.would_deny {
            self.counters.would_deny(denied.by);
        }
        let denied = admission.denied?;
        self.counters.denied(denied.by);
        Some(Refusal { failure: Failure::PolicyDenied, details: denied.to_string() })
    }

    /// Whether the rules would refuse an opaque connection as it is; nothing is counted.
    pub(crate) fn would_refuse(&self, rbac: &[Rbac], arrival: &Arrival) -> bool {
        !rbac.is_empty() && admit(rbac, &Connection(caller(arrival, &[])), &mut NoTrace).denied.is_some()
    }

    /// Asks the rules about an opaque connection.
    ///
    /// # Errors
    ///
    /// They refuse it.
    pub(crate) fn admit(&self, rbac: &[Rbac], arrival: &Arrival) -> Result<(), Refusal> {
        if rbac.is_empty() {
            return Ok(());
        }
        let admission = admit(rbac, &Connection(caller(arrival, &[])), &mut NoTrace);
        self.judged(&admission).map_or(Ok(()), Err)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// What changes in a request's fields because of tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Handover<'h> {
    /// Names that the proxy alone may use: a client's own fields do not go on.
    reserved: &'h [Box<str>],
    /// Names of fields with tokens that do not go on.
    remove: &'h [Box<str>],
    /// Fields that are added.
    add: &'h [(Box<str>, String)],
}

impl<'h> Handover<'h> {
    /// What becomes of the fields of a request with these tokens.
    pub(crate) fn of(http: &'h Http, authenticated: &'h Authenticated) -> Self {
        let reserved = http.access.tokens.as_ref().map_or(&[][..], |tokens| &tokens.reserved);
        Handover { reserved, remove: &authenticated.remove, add: &authenticated.add }
    }

    /// Whether a client's field goes on. Underscores count as dashes, as many applications cannot tell them apart.
    #[must_use]
    pub fn keeps(&self, name: &[u8]) -> bool {
        let is = |wanted: &str| {
            wanted.len() == name.len()
                && wanted.bytes().zip(name).all(|(wanted, byte)| {
                    let byte = if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
                    byte == if wanted == b'_' { b'-' } else { wanted }
                })
        };
        !self.reserved.iter().chain(self.remove).any(|wanted| is(wanted))
    }

    /// Fields that are added, by lower-case name.
    pub fn added(&self) -> impl Iterator<Item = (&'h str, &'h str)> {
        self.add.iter().map(|(name, value)| (&**name, value.as_str()))
    }
}

#[cfg(test)]
mod tests;
