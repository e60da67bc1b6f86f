//! The one-machine platform: a small Kubernetes API, and a node that runs pods as processes.

pub mod api;
pub mod controllers;
pub mod fuzz;
mod node;
pub mod platform;
pub mod supervisor;
mod sys;

pub use node::{Images, ImagesError, changed_programs};
pub use supervisor::{Options, SuperviseError, supervise};
