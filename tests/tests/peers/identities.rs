//! Identities of a root in memory.

use std::time::{Duration, SystemTime};

use api::spiffe::SpiffeId;
use runtime::authority::Root;
use runtime::svid::{Bundle, Publisher};

pub(crate) const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";
pub(crate) const RATINGS: &str = "spiffe://cluster.local/ns/default/sa/ratings";

/// Puts a new certificate of `root` in force, trusting `trusted` (PEM); gives its serial number.
pub(crate) fn issue(publisher: &Publisher, id: &str, root: &Root, trusted: &str) -> String {
    let id: SpiffeId = id.parse().expect("an identity");
    let now = SystemTime::now();
    let svid = root.svid(&id, now - Duration::from_secs(60), Duration::from_secs(3600)).expect("an SVID");
    let serial = svid.serial.clone();
    let bundle = Bundle::from_pem(&id.trust_domain(), &[], trusted.as_bytes()).expect("roots");
    publisher.publish(svid, bundle);
    serial
}
