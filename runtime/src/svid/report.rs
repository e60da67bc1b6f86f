//! What a person may see of a process's identity: never a key.

use std::time::SystemTime;

use api::messages::{CertificateFacts, SvidStatus};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Svids;
use super::bundle::fingerprint;
use super::renew::Status;

/// Answer of an admin port's `GET /certs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The identity, once the CA has vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether the certificate holds now.
    pub is_valid: bool,
    /// The certificate and those between it and the root, in the order in which they are presented.
    pub chain: Vec<CertificateFacts>,
    /// Seconds until it expires.
    pub expires_in_seconds: u64,
    /// Roots by trust domain.
    pub bundles: Vec<BundleReport>,
    /// Short hash of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_version: Option<String>,
    /// Certificates received.
    pub renewals: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_renewal: Option<String>,
}

/// The roots of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleReport {
    /// Whose they are.
    pub trust_domain: String,
    /// The roots.
    pub roots: Vec<CertificateFacts>,
}

impl Report {
    /// What is in force now.
    #[must_use]
    pub fn of(svids: &Svids, status: Option<&Status>) -> Self {
        let progress = status.map(Status::progress).unwrap_or_default();
        let (svid, bundle) = (svids.latest(), svids.bundle());
        let bundles = bundle.iter().flat_map(|bundle| {
            bundle.domains().map(|domain| BundleReport {
                trust_domain: domain.to_string(),
                roots: bundle.roots(domain).iter().map(facts).collect(),
            })
        });
        Report {
            id: svid.as_ref().map(|svid| svid.id.to_string()),
            is_valid: svids.current().is_some(),
            chain: svid.iter().flat_map(|svid| &svid.chain).map(facts).collect(),
            expires_in_seconds: svid.as_ref().map_or(0, |svid| svid.left(svids.now()).as_secs()),
            bundles: bundles.collect(),
            bundle_version: bundle.as_ref().map(|bundle| bundle.version()),
            renewals: progress.renewals,
            failures: progress.failures,
            error: progress.error,
            next_renewal: progress.next.map(stamp),
        }
    }
}

/// Who a process is, as it tells others.
#[must_use]
pub fn status(svids: &Svids) -> Option<SvidStatus> {
    let svid = svids.current()?;
    Some(SvidStatus {
        id: svid.id.to_string(),
        serial: svid.serial.clone(),
        since: stamp(svid.since),
        not_after: stamp(svid.not_after),
        bundle: svids.bundle().map(|bundle| bundle.version()).unwrap_or_default(),
        issuer: svid.issuer.clone(),
        is_shown: true,
    })
}

/// What people want to know of a certificate; little, if it cannot be read.
#[must_use]
pub fn facts(der: &CertificateDer<'static>) -> CertificateFacts {
    let mut facts = CertificateFacts { fingerprint: fingerprint(der), ..CertificateFacts::default() };
    if let Ok((_, seen)) = X509Certificate::from_der(der) {
        let at = |time: i64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(time).unwrap_or(0));
        facts.subject = seen.subject().to_string();
        facts.serial = seen.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        facts.not_before = stamp(at(seen.validity().not_before.timestamp()));
        facts.not_after = stamp(at(seen.validity().not_after.timestamp()));
    }
    facts
}

/// A time as people and JSON read it.
#[must_use]
pub fn stamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "?".to_owned(), |time| time.strftime("%FT%TZ").to_string())
}
