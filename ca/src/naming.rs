//! In which name of the trust domain certificates are issued: in the former one, until everybody accepts today's.
//!
//! Whoever has not heard of a name refuses those who bear it. So a CA that is told of a new name makes it known beside the
//! former one first, and gives it to nobody before every holder of a certificate, and every Pilot, knows both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::spiffe::{SpiffeId, TrustDomain};

use crate::authority::Policy;
use crate::holders::{Holder, Ledger};

/// Whether everybody accepts today's name. Clones share it.
#[derive(Debug, Clone)]
pub struct Naming(Arc<AtomicBool>);

impl Naming {
    /// A trust domain with one name is known by it.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Naming(Arc::new(AtomicBool::new(policy.aliases.is_empty())))
    }

    /// The name in which certificates are issued now: today's, or the first of the others.
    #[must_use]
    pub fn domain<'p>(&self, policy: &'p Policy) -> &'p TrustDomain {
        match policy.aliases.first() {
            Some(former) if !self.is_known() => former,
            _ => &policy.domain,
        }
    }

    /// Whether everybody accepts today's name.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets certificates be issued in today's name.
    pub fn everybody_knows(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes over what a CA before this one found out, as long as what is to be trusted is the same.
    pub fn remember(&self, ledger: &Ledger, policy: &Policy, bundle: &str) {
        let knew = |holder: &Holder, bundle_then: &str, id: &str| {
            matches!(holder, Holder::Ca(_)) && bundle_then == bundle && id == policy.domain.as_str()
        };
        if ledger.iter().any(|(holder, record)| knew(holder, &record.bundle, &record.id)) {
            self.everybody_knows();
        }
    }
}

/// Whether what a record says of an identity (all of it, its trust domain, or `-` for nothing) is in that name.
pub(crate) fn is_in(id: &str, domain: &TrustDomain) -> bool {
    id == "-" || id == domain.as_str() || id.parse::<SpiffeId>().is_ok_and(|id| id.is_member_of(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holders::Record;

    fn domain(name: &str) -> TrustDomain {
        name.parse().expect("a trust domain")
    }

    #[test]
    fn the_former_name_is_given_until_everybody_knows_todays() {
        let policy = Policy { aliases: vec![domain("old.example")], ..Policy::of(domain("new.example")) };
        let naming = Naming::of(&policy);
        assert_eq!(naming.domain(&policy).as_str(), "old.example");
        naming.everybody_knows();
        assert_eq!(naming.domain(&policy).as_str(), "new.example");
        let alone = Policy::of(domain("new.example"));
        assert_eq!(Naming::of(&alone).domain(&alone).as_str(), "new.example");
    }

    #[test]
    fn a_ca_takes_over_what_one_before_it_found_out_for_the_same_names() {
        let policy = Policy { aliases: vec![domain("old.example")], ..Policy::of(domain("new.example")) };
        let record = |bundle: &str, id: &str| Record {
            issuer: "aa".to_owned(),
            bundle: bundle.to_owned(),
            ends: u64::MAX,
            id: id.to_owned(),
        };
        let ca = || Holder::Ca("mesh-ca-0".to_owned());
        for (holder, record, is_known) in [
            (ca(), record("b1", "new.example"), true),
            (ca(), record("b2", "new.example"), false),
            (ca(), record("b1", "-"), false),
            (Holder::Pod("default/web".to_owned()), record("b1", "new.example"), false),
        ] {
            let mut ledger = Ledger::default();
            ledger.put(holder.clone(), Some(record.clone()));
            let naming = Naming::of(&policy);
            naming.remember(&ledger, &policy, "b1");
            assert_eq!(naming.is_known(), is_known, "{holder} {record:?}");
        }
    }

    #[test]
    fn records_tell_the_name_in_which_an_identity_is() {
        for (id, expected) in [
            ("-", true),
            ("new.example", true),
            ("spiffe://new.example/ns/default/sa/web", true),
            ("old.example", false),
            ("spiffe://old.example/ns/default/sa/web", false),
        ] {
            assert_eq!(is_in(id, &domain("new.example")), expected, "{id}");
        }
    }
}
