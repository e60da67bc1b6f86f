//! The mesh's certificate authority: who asks → CSR → authority → SVID.
//!
//! A caller proves who it is ([`caller`]) and sends a signing request ([`csr`]) of which only the public key counts; the
//! [`authority`] signs a certificate for the identity that was proved. [`store`] keeps or finds the authority's own
//! key in the cluster's Secrets. [`holders`] writes down who has a certificate, and [`rotation`] replaces the root; [`naming`] lets the trust domain
//! be renamed.

pub mod authority;
pub mod caller;
pub mod csr;
pub mod daemon;
pub mod debug;
pub mod holders;
pub mod join;
pub mod metrics;
pub mod naming;
pub mod rotation;
pub mod service;
pub mod settings;
pub mod store;
