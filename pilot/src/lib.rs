//! The mesh's control plane: source → registry → snapshot → xDS.

pub mod daemon;
pub mod debug;
pub mod hash;
pub mod keys;
pub mod metrics;
pub mod objects;
pub mod registry;
pub mod resource;
pub mod settings;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod webhook;
pub mod xds;
