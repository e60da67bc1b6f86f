//! The mesh's data plane: every byte between services.

pub mod codec;
