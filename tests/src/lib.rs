//! What the tests across crates share: real programs, started as a user would start them.
//!
//! The programs are those beside the test's own executable (`target/<profile>`); `make test` builds them first.

pub mod access_log;
pub mod http;
pub mod http2;
pub mod mesh;
pub mod namespace;
pub mod offline;
pub mod programs;
pub mod runner;
