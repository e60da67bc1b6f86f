//! Asks the CA, every so often, which roots and which issuer are in force, and has the certificate renewed when ours are
//! others: for a process that is not connected to Pilot, which tells its proxies of that.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Svids;
use super::client::{Authority, RequestError};
use super::renew::Status;
use super::wire::TrustResponse;

/// Follows what is in force at a CA.
pub struct Following {
    /// Whom to ask.
    pub authority: Authority,
    /// What we have.
    pub svids: Svids,
    /// What renews it.
    pub status: Status,
    /// How often, about: it varies by half, so that processes that started together do not ask together.
    pub every: Duration,
}

impl Following {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let wait = self.every.mul_f64(0.75 + 0.5 * rand::random::<f64>());
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            let Some(answer) = stop.run_until_cancelled(self.authority.trust(&self.svids)).await else { return };
            match answer {
                Ok(trust) if self.is_behind(&trust) => {
                    tracing::info!(
                        bundle = trust.bundle,
                        "the CA has other roots, another issuer or another name; renewing"
                    );
                    self.status.renew_now();
                }
                Ok(_) => {}
                Err(RequestError::Refused { code: Code::Unimplemented, .. }) => {
                    tracing::info!("the CA does not tell of its roots: they are learnt with the next certificate");
                    return;
                }
                // Renewal says loudly when the CA stays away.
                Err(error) => tracing::debug!(error = crate::exit::chain(&error), "the CA cannot be asked now"),
            }
        }
    }

    /// Whether a certificate in force is not by the issuer or in the name, or its roots are not those, of the CA. Before there is one, and
    /// when it has expired, renewal is at work anyway.
    fn is_behind(&self, trust: &TrustResponse) -> bool {
        let (svid, bundle) = (self.svids.current(), self.svids.bundle());
        let is_renamed = |own: &str| !trust.domain.is_empty() && own != trust.domain;
        svid.zip(bundle).is_some_and(|(svid, bundle)| {
            svid.issuer != trust.issuer
                || bundle.version() != trust.bundle
                || is_renamed(svid.id.trust_domain().as_str())
        })
    }
}
