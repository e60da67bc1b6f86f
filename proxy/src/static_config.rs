//! Configuration from a file instead of Pilot: the same resources, the same compiler.

use std::io;
use std::path::{Path, PathBuf};

use engine::Kind;
use engine::text::{TextError, read_static};

use crate::snapshot::{Incoming, Snapshots, Update};

/// Why a file cannot be the configuration.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    /// It cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It holds no resources.
    #[error("{path}")]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TextError,
    },
    /// Resources in it are not understood.
    #[error("{path}: {}", .problems.join("; "))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Each resource with what is wrong with it.
        problems: Vec<String>,
    },
    /// Resources in it name others that are not in it.
    #[error("{path}: {} named but not in the file", are(.missing))]
    Missing {
        /// The file.
        path: PathBuf,
        /// Those that are missing.
        missing: Vec<String>,
    },
}

/// Puts the resources of a file in force.
///
/// # Errors
///
/// When the file cannot be read or a resource in it is not understood (all such resources are named), or one names
/// another that is not there.
pub fn load(path: &Path, snapshots: &Snapshots) -> Result<(), StaticError> {
    let owned = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| StaticError::Read { path: owned(), source })?;
    let resources = read_static(&text).map_err(|source| StaticError::Text { path: owned(), source })?;
    let mut problems = Vec::new();
    for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route] {
        let mut update = Update::default();
        for resource in resources.iter().filter(|resource| resource.kind == kind) {
            let name = resource.name.to_string();
            if update.resources.iter().any(|other| other.name == name) {
                problems.push(format!("{} `{name}`: it is in the file twice", word(kind)));
                continue;
            }
            let version = resource.version.to_string();
            update.resources.push(Incoming { name, version, body: resource.body.clone() });
        }
        let applied = snapshots.apply(kind, &update);
        problems.extend(applied.refused.iter().map(|(name, why)| format!("{} `{name}`: {why}", word(kind))));
    }
    if !problems.is_empty() {
        return Err(StaticError::Refused { path: owned(), problems });
    }
    let missing = snapshots.missing();
    if missing.is_empty() { Ok(()) } else { Err(StaticError::Missing { path: owned(), missing }) }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => "listener",
        Kind::Route => "route configuration",
        Kind::Cluster => "cluster",
        Kind::Endpoints => "endpoints of",
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}
