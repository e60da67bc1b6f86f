//! `supervisor.json`: what a running supervisor tells about itself.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A running supervisor; the file exists while its API answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Process ID of the supervisor on the host.
    pub pid: u32,
    /// When that process started, in the kernel's ticks since boot: tells it from a later process of the same number.
    pub start_ticks: u64,
    /// When the mesh was up, RFC 3339.
    pub started: String,
    /// Version of `meshctl` that runs it.
    pub version: String,
    /// Where its API listens on the host.
    pub api: SocketAddr,
    /// Its ports on the host for Services of type LoadBalancer.
    pub host_ports: Vec<PortRecord>,
}

/// One port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRecord {
    /// The port.
    pub port: u16,
    /// The addresses on which it is open.
    pub addresses: Vec<SocketAddr>,
}

const FILE: &str = "supervisor.json";
const API_PORT_FILE: &str = "api-port";

/// Reads the record of the supervisor that runs on a state directory.
///
/// Returns `None` when none runs: no file, or a file whose process has ended.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn read_record(state_dir: &Path) -> io::Result<Option<Record>> {
    let text = match std::fs::read_to_string(state_dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let record: Record = serde_json::from_str(&text)?;
    Ok(Some(record).filter(Record::is_alive))
}

impl Record {
    /// Whether the process that wrote this still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Writes the record in one step, and remembers the API's port for the next start.
    pub(super) fn write(&self, state_dir: &Path) -> io::Result<()> {
        std::fs::write(state_dir.join(API_PORT_FILE), self.api.port().to_string())?;
        let temporary = state_dir.join(format!("{FILE}.new"));
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(temporary, state_dir.join(FILE))
    }
}

pub(super) fn remove(state_dir: &Path) {
    let _ = std::fs::remove_file(state_dir.join(FILE));
}

pub(super) fn remembered_api_port(state_dir: &Path) -> Option<u16> {
    std::fs::read_to_string(state_dir.join(API_PORT_FILE)).ok()?.trim().parse().ok()
}

/// When a process started, in ticks since boot; `None` when there is no such process (or it is a zombie).
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may contain anything; fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_process_with_the_same_number_is_not_alive() {
        let own = std::process::id();
        let ticks = start_ticks(own).expect("this process runs");
        let record = |start_ticks| Record {
            pid: own,
            start_ticks,
            started: String::new(),
            version: String::new(),
            api: loopback(),
            host_ports: Vec::new(),
        };
        assert!(record(ticks).is_alive());
        assert!(!record(ticks + 1).is_alive());
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }
}
