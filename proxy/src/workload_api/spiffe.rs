//! The SPIFFE Workload API: certificate, key and roots in DER.

use std::collections::HashMap;

use api::spiffe::TrustDomain;
use runtime::svid::{Bundle, Svid};

use super::following::{Answers, Following, Given};
use super::wire::{X509BundlesResponse, X509Svid, X509SvidResponse};

/// The SVID with its key, and the roots of every trust domain that is known.
pub(super) fn svids(following: Following) -> Answers<X509SvidResponse> {
    following.push(|following| {
        let (svid, bundle) = following.svid()?;
        let version = format!("{} {}", svid.serial, bundle.version());
        let answer = svid_response(&svid, &bundle);
        Some(Given { version, answer, key_of: Some(svid) })
    })
}

/// The roots of every trust domain that is known.
pub(super) fn bundles(following: Following) -> Answers<X509BundlesResponse> {
    following.push(|following| {
        let bundle = following.bundle()?;
        let bundles = bundle.domains().map(|domain| (id_of(domain), roots(&bundle, domain))).collect();
        let answer = X509BundlesResponse { crl: Vec::new(), bundles };
        Some(Given { version: bundle.version(), answer, key_of: None })
    })
}

fn svid_response(svid: &Svid, bundle: &Bundle) -> X509SvidResponse {
    let own = svid.id.trust_domain();
    let others = bundle.domains().filter(|domain| **domain != own);
    let federated_bundles: HashMap<_, _> = others.map(|domain| (id_of(domain), roots(bundle, domain))).collect();
    let first = X509Svid {
        spiffe_id: svid.id.to_string(),
        x509_svid: svid.chain.iter().flat_map(|certificate| certificate.iter().copied()).collect(),
        x509_svid_key: svid.key().pkcs8().secret_pkcs8_der().to_vec(),
        bundle: roots(bundle, &own),
        hint: String::new(),
    };
    X509SvidResponse { svids: vec![first], crl: Vec::new(), federated_bundles }
}

fn id_of(domain: &TrustDomain) -> String {
    format!("spiffe://{domain}")
}

fn roots(bundle: &Bundle, domain: &TrustDomain) -> Vec<u8> {
    bundle.roots(domain).iter().flat_map(|root| root.iter().copied()).collect()
}
