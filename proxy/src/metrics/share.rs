//! How much of the traffic between workloads is by mutual TLS, as `meshctl proxy-status` tells it.

use std::sync::atomic::Ordering;

use api::messages::TrafficStatus;

use super::Metrics;
use super::labels::Labels;

impl Metrics {
    /// Requests and opaque connections between workloads so far, by whether they were by mutual TLS.
    ///
    /// Those to destinations that the mesh does not know are no part of it. Costs a look at every series.
    #[must_use]
    pub fn traffic(&self) -> TrafficStatus {
        let mut traffic = TrafficStatus::default();
        let http = self.http.sorted();
        let http = http.iter().map(|(labels, series)| (labels, series.requests.load(Ordering::Relaxed)));
        let tcp = self.tcp.sorted();
        let tcp = tcp.iter().map(|(labels, series)| (labels, series.opened.load(Ordering::Relaxed)));
        for (labels, count) in http.chain(tcp) {
            match security(labels) {
                Some(true) => traffic.mutual_tls += count,
                Some(false) => traffic.clear_text += count,
                None => {}
            }
        }
        traffic
    }
}

/// Whether a series is of mutual TLS; `None` for one that is not between workloads, or of nobody knows what.
fn security(labels: &Labels) -> Option<bool> {
    let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
    match label("connection_security_policy")? {
        "mutual_tls" => Some(true),
        "none" => Some(false),
        "unknown" => label("destination_workload").filter(|workload| *workload != "unknown").map(|_| false),
        _ => None,
    }
}
