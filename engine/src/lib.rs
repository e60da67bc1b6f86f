//! What a request meets in the mesh, decided by one pure, deterministic library.
//!
//! [`generate`] makes xDS resources of the model, [`compile`] makes tables of them, [`decide`](mod@decide)
//! makes a decision of tables and a request. No IO, no clock, no random source: dice are an argument.

pub mod access;
pub mod admission;
pub mod balance;
pub mod compile;
pub mod decide;
pub mod generate;
pub mod matcher;
pub mod node;
pub mod path;
pub mod proto;
pub mod request;
pub mod tables;
pub mod text;
pub mod token;
pub mod trace;

pub use proto::Kind;
