//! What everybody should have in force, at one stage of a rotation or of a renaming.

use api::messages::{Proxies, ProxyStatus, SvidStatus, SyncState};
use api::spiffe::TrustDomain;

use crate::authority::{Authority, Policy};
use crate::holders::Record;
use crate::naming::{Naming, is_in};

/// What everybody should have in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Certificates by this key.
    issuer: String,
    /// These roots, for these names.
    bundle: String,
    /// The names of the trust domain by which Pilots configure proxies; empty if there is but one.
    pub(super) names: Vec<String>,
    /// The name in which identities are, once everybody accepts it; `None` if any will do.
    domain: Option<TrustDomain>,
}

impl Wanted {
    pub(super) fn of(authority: &Authority, naming: &Naming) -> Self {
        let policy = authority.policy();
        let has_several = !policy.aliases.is_empty();
        let names = std::iter::once(&policy.domain).chain(&policy.aliases).map(ToString::to_string);
        Wanted {
            issuer: authority.issuer_key().to_owned(),
            bundle: authority.bundle().version(),
            names: if has_several { names.collect() } else { Vec::new() },
            domain: (has_several && naming.is_known()).then(|| policy.domain.clone()),
        }
    }

    /// The same once everybody accepts today's name.
    pub(super) fn renamed(&self, policy: &Policy) -> Self {
        Wanted { domain: Some(policy.domain.clone()), ..self.clone() }
    }

    /// Whether a holder's roots and issuer are these.
    pub(super) fn trusts(&self, record: &Record) -> bool {
        record.bundle == self.bundle && record.issuer == self.issuer
    }

    /// Whether a holder has all of it.
    pub(super) fn is_had(&self, record: &Record) -> bool {
        self.trusts(record) && self.domain.as_ref().is_none_or(|domain| is_in(&record.id, domain))
    }

    fn is_told(&self, svid: &SvidStatus) -> bool {
        svid.bundle == self.bundle
            && svid.issuer == self.issuer
            && self.domain.as_ref().is_none_or(|domain| is_in(&svid.id, domain))
    }

    /// Who lacks it, of a Pilot and its proxies.
    pub(super) fn lacking(&self, all: &Proxies) -> Vec<String> {
        let has_it = |svid: &Option<SvidStatus>| svid.as_ref().is_some_and(|svid| self.is_told(svid));
        let knows_names = self.names.iter().all(|name| all.trust_domains.contains(name));
        let pilot = (!has_it(&all.svid) || !knows_names).then(|| all.pilot.clone());
        // A stock Envoy has no identity of its own; who hands it one has a record.
        let is_own = |proxy: &ProxyStatus| !proxy.version.starts_with("envoy");
        let behind =
            all.proxies.iter().filter(|proxy| (is_own(proxy) && !has_it(&proxy.svid)) || !self.is_configured(proxy));
        pilot.into_iter().chain(behind.map(|proxy| proxy.id.clone())).collect()
    }

    /// Whether a proxy has what says who may be called, and who may call, in all of the names. What is sent changes all the
    /// time in a large mesh, so this is asked only until a name is known.
    fn is_configured(&self, proxy: &ProxyStatus) -> bool {
        let is_behind = |kind: &str, state: SyncState| matches!(kind, "LDS" | "CDS") && state == SyncState::Stale;
        self.names.is_empty()
            || self.domain.is_some()
            || !proxy.types.iter().any(|of_type| is_behind(&of_type.kind, of_type.state))
    }
}

#[cfg(test)]
mod tests {
    use api::messages::TypeStatus;

    use super::*;

    fn wanted(domain: Option<&str>) -> Wanted {
        Wanted {
            issuer: "key".to_owned(),
            bundle: "roots".to_owned(),
            names: vec!["new.example".to_owned(), "old.example".to_owned()],
            domain: domain.map(|name| name.parse().expect("a trust domain")),
        }
    }

    fn svid(domain: &str, bundle: &str) -> Option<SvidStatus> {
        let id = format!("spiffe://{domain}/ns/default/sa/web");
        Some(SvidStatus { id, bundle: bundle.to_owned(), issuer: "key".to_owned(), ..SvidStatus::default() })
    }

    fn proxy(id: &str, svid: Option<SvidStatus>, clusters: SyncState) -> ProxyStatus {
        let clusters = TypeStatus {
            kind: "CDS".to_owned(),
            state: clusters,
            resources: 1,
            version: String::new(),
            rejected: Vec::new(),
        };
        ProxyStatus {
            id: id.to_owned(),
            role: "sidecar".to_owned(),
            ip: "10.0.0.1".to_owned(),
            version: "1".to_owned(),
            connected_since: String::new(),
            svid,
            traffic: None,
            types: vec![clusters],
        }
    }

    #[test]
    fn a_name_is_wanted_of_pilots_and_configurations_first_and_then_of_identities() {
        let all = Proxies {
            pilot: "pilot".to_owned(),
            svid: svid("old.example", "roots"),
            trust_domains: vec!["old.example".to_owned()],
            proxies: vec![
                proxy("behind", svid("old.example", "roots"), SyncState::Stale),
                proxy("old", svid("old.example", "roots"), SyncState::Synced),
                proxy("other-roots", svid("new.example", "others"), SyncState::Synced),
                proxy("new", svid("new.example", "roots"), SyncState::Synced),
                ProxyStatus { version: "envoy 1.38".to_owned(), ..proxy("envoy", None, SyncState::Synced) },
            ],
            ..Proxies::default()
        };
        assert_eq!(wanted(None).lacking(&all), ["pilot", "behind", "other-roots"]);
        let all = Proxies { trust_domains: wanted(None).names, ..all };
        assert_eq!(wanted(None).lacking(&all), ["behind", "other-roots"]);
        assert_eq!(wanted(Some("new.example")).lacking(&all), ["pilot", "behind", "old", "other-roots"]);
    }
}
