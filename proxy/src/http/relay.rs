//! A connection that is no HTTP any more: its bytes pass both ways until both sides have ended.

use super::connection::Up;
use super::{Next, Session};
use crate::failure::{Failure, Fault};
use crate::metrics::limits::Limit;
use crate::relay::Relay;
use crate::report::Report;
use crate::side::Side;
use crate::upstream::InFlight;

impl Session<'_> {
    /// Passes bytes after an answer that switched the protocol or opened a tunnel, and which is still to be written.
    pub(super) async fn relay(
        &mut self,
        down: &mut Side<'_>,
        up: &mut Up,
        flight: &InFlight,
        report: &mut Report,
    ) -> Next {
        // Streams are not switched.
        let (Side::Text(down), Up::Text(up)) = (down, up) else { return Next::Close };
        let _open = self.path.metrics.upgrades.open(self.switch.as_ref());
        let mut relay = Relay::new(self.path.upgrade_idle_timeout);
        let ended = relay.run(down, up, |_, _| {}).await;
        let (sent, received) = relay.moved();
        report.request_bytes += sent;
        report.response_bytes += received;
        match ended {
            Ok(()) => Next::Close,
            Err(failure) => {
                if failure.fault() == Fault::Upstream && failure != Failure::Timeout {
                    flight.failed();
                }
                if failure == Failure::Timeout {
                    self.path.metrics.limits.hit(Limit::IdleUpgrade);
                }
                report.failure = Some(failure);
                Next::Reset(failure)
            }
        }
    }
}
