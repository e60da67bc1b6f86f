//! Whether a request, or an opaque connection, is let in. Pure, and strict where something could be read in two ways.
//!
//! A fact that is unclear never helps a caller. A header that comes several times with different values lets nobody in
//! unless all of its values do, and keeps out if one of them does; a connection has neither path nor headers, so rules
//! about them let no connection in, and keep every connection out.

use serde_json::Value;

pub use crate::admission::{Admission, Denied, Half};
use crate::path::without_query;
use crate::request::Request;
use crate::tables::{AccessPolicy, Check, ClaimTest, HeaderMatch, Rbac, Rules, Subject};
use crate::trace::Trace;

/// Asks all rules; the first that refuse a request end it.
pub fn admit<'t, T: Trace>(rbac: &'t [Rbac], request: &impl Request, trace: &mut T) -> Admission<'t> {
    let mut admission = Admission::default();
    for rbac in rbac {
        if let Some(shadow) = &rbac.shadow
            && admission.would_deny.is_none()
        {
            let verdict = judge(rbac, shadow, request, trace, true);
            admission.would_deny = verdict.err();
        }
        if let Some(rules) = &rbac.rules {
            match judge(rbac, rules, request, trace, false) {
                Ok(policy) => admission.allowed_by = policy.or(admission.allowed_by),
                Err(denied) => {
                    admission.denied = Some(denied);
                    return admission;
                }
            }
        }
    }
    admission
}

/// The policy that lets a request in, or who refuses it.
fn judge<'t, T: Trace>(
    rbac: &'t Rbac,
    rules: &'t Rules,
    request: &impl Request,
    trace: &mut T,
    is_trial: bool,
) -> Result<Option<&'t str>, Denied<'t>> {
    let lenient = !rules.allows;
    let found = rules.policies.iter().find(|policy| {
        let missed = policy.missed(request, lenient);
        if T::ON {
            trace.policy(rbac, policy, missed, is_trial);
        }
        missed.is_none()
    });
    let policy = found.map(|policy| &*policy.name);
    let verdict = match (policy, rules.allows) {
        (Some(_), true) | (None, false) => Ok(policy),
        (None, true) | (Some(_), false) => Err(Denied { by: &rbac.name, policy }),
    };
    if T::ON {
        trace.admission(rbac, verdict, is_trial);
    }
    verdict
}

impl AccessPolicy {
    /// What of it does not hold for a request; `None` when it is about this request.
    fn missed(&self, request: &impl Request, lenient: bool) -> Option<Half> {
        if !self.permissions.iter().any(|check| check.holds(request, lenient)) {
            return Some(Half::Permissions);
        }
        if !self.principals.iter().any(|check| check.holds(request, lenient)) {
            return Some(Half::Principals);
        }
        None
    }
}

impl Check {
    /// Whether it holds; what is unclear holds if `lenient`.
    #[must_use]
    pub fn holds(&self, request: &impl Request, lenient: bool) -> bool {
        match self {
            Check::All(checks) => checks.iter().all(|check| check.holds(request, lenient)),
            Check::Any(checks) => checks.iter().any(|check| check.holds(request, lenient)),
            Check::Always(holds) => *holds,
            Check::Not(check) => !check.holds(request, !lenient),
            Check::Header(_) | Check::Path(_) if !request.is_http() => lenient,
            Check::Header(header) => header_holds(header, request, lenient),
            Check::Path(text) => text.matches(without_query(request.path()).as_bytes()),
            Check::Identity(wanted) => request.caller().identity.is_some_and(|identity| {
                wanted.as_ref().is_none_or(|wanted| wanted.matches(identity.as_str().as_bytes()))
            }),
            Check::Source(network) => {
                request.caller().address.is_some_and(|address| network.contains(&address.to_canonical()))
            }
            Check::Destination(network) => {
                request.caller().destination.is_some_and(|address| network.contains(&address.ip().to_canonical()))
            }
            Check::DestinationPort(ports) => {
                request.caller().destination.is_some_and(|address| ports.contains(&u32::from(address.port())))
            }
            Check::Claim { key, path, test } => {
                let mut of_key = request.caller().tokens.iter().filter(|token| token.key == *key).peekable();
                let holds = |claims: &Value| at(claims, path).is_some_and(|claim| test.holds(claim));
                match (of_key.peek().is_some(), lenient) {
                    (false, _) => false,
                    (true, false) => of_key.all(|token| holds(token.claims.value())),
                    (true, true) => of_key.any(|token| holds(token.claims.value())),
                }
            }
        }
    }
}

fn at<'v>(claims: &'v Value, path: &[Box<str>]) -> Option<&'v Value> {
    path.iter().try_fold(claims, |value, name| value.get(&**name))
}

impl ClaimTest {
    fn holds(&self, claim: &Value) -> bool {
        match self {
            ClaimTest::Present => true,
            ClaimTest::Text(text) => claim.as_str().is_some_and(|claim| text.matches(claim.as_bytes())),
            ClaimTest::OneOf(test) => claim.as_array().is_some_and(|list| list.iter().any(|item| test.holds(item))),
            ClaimTest::Or(tests) => tests.iter().any(|test| test.holds(claim)),
        }
    }
}

/// As [`HeaderMatch::matches`], where values of a repeated header that differ make it unclear.
fn header_holds(header: &HeaderMatch, request: &impl Request, lenient: bool) -> bool {
    let Subject::Header(name) = &header.subject else { return header.matches(request) };
    let mut values = request.header(name);
    if values.next().is_none() || values.next().is_none() {
        return header.matches(request);
    }
    let mut each = request.header(name).map(|value| header.matches_value(value));
    if lenient { each.any(|holds| holds) } else { each.all(|holds| holds) }
}
