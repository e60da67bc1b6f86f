//! Connections that are not served: each is counted, and told of like those that are.

use engine::tables::Listener;

use crate::arrival::Arrival;
use crate::authorise::Refusal;
use crate::data::DataPath;
use crate::detect::Found;
use crate::failure::Failure;
use crate::headers::Edge;
use crate::report::TcpReport;

impl DataPath {
    /// Closes a connection that is not served, and tells of it.
    pub(crate) fn refuse(&self, edge: Edge, arrival: &Arrival, failure: Failure) -> Result<(), Failure> {
        self.metrics.refused.count(failure);
        let mut report = TcpReport::new(self, (edge, arrival), &self.refused);
        report.failure = Some(failure);
        Err(failure)
    }

    /// Closes a connection that none of its listener's filter chains is for, and tells of it.
    pub(crate) fn turn_away(
        &self,
        edge: Edge,
        arrival: &Arrival,
        (listener, found): (&Listener, Found),
    ) -> Result<(), Failure> {
        let failure = found.without_chain(listener);
        self.metrics.refused.count(failure);
        let mut report = TcpReport::new(self, (edge, arrival), &self.refused);
        report.server_name = found.hello.and_then(|hello| hello.server_name);
        report.failure = Some(failure);
        Err(failure)
    }

    /// Tells of a connection that rules keep out, and that nothing was done for.
    pub(crate) fn keep_out(&self, edge: Edge, arrival: &Arrival, refusal: Refusal) -> Result<(), Failure> {
        let mut report = TcpReport::new(self, (edge, arrival), &self.refused);
        report.failure = Some(refusal.failure);
        self.metrics.refused.count(refusal.failure);
        report.details = refusal.details;
        Err(refusal.failure)
    }
}
