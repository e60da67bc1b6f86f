//! The signals that ask a daemon to leave.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, taken over from their default of ending the process at once.
#[derive(Debug)]
pub struct Shutdown {
    term: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Takes the signals over. Call it before anything takes long, so that none is lost.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a handler, which it does not for these two.
    pub fn listen() -> io::Result<Self> {
        Ok(Shutdown { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and names it. A second one may be taken as impatience.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
