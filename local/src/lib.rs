//! The one-machine platform: a small Kubernetes API, and a node that runs pods as processes.

pub mod api;
