//! A whole CA in this process: the local Kubernetes API behind it, real TLS and gRPC in front.

mod callers;
mod checks;
mod hostile;
mod keys;
mod killed;
mod renaming;
mod renewal;
mod rotation;
mod world;
