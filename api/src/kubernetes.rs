//! Kubernetes' own objects, as far as the mesh needs to understand them.

pub mod basic;
