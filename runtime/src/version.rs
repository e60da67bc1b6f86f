//! Which build this is.

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The source revision, when whoever built the binary named one in `MESH_REVISION`.
#[must_use]
pub const fn revision() -> Option<&'static str> {
    match option_env!("MESH_REVISION") {
        Some(revision) if !revision.is_empty() => Some(revision),
        _ => None,
    }
}

/// Version and revision as a person reads them: `0.1.0` or `0.1.0 (1a2b3c4)`.
#[must_use]
pub fn long() -> String {
    match revision() {
        Some(revision) => format!("{VERSION} ({revision})"),
        None => VERSION.to_owned(),
    }
}
