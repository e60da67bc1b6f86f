//! What users write and what the mesh's components say to each other. No IO, no clock, no lock.
//!
//! Three shapes, one conversion between each: text is parsed by [`yaml`] and read into [`config`] (as typed,
//! believes nothing), [`config`] becomes [`model`] (as meant, cannot hold nonsense), and everything later reads only the model.

pub mod config;
pub mod kinds;
pub mod kubernetes;
pub mod messages;
pub mod model;
pub mod names;
pub mod object;
pub mod problem;
pub mod read;
pub mod registry;
pub mod spiffe;
pub mod suggest;
pub mod yaml;
