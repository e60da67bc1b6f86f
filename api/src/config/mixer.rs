//! Mixer's kinds, as far as the proxy itself answers them: rules, the handlers `rbac` and `denier`, their instances.
//!
//! What else Mixer knows is refused with those words, never ignored: a rule that is only half followed would let in
//! whom it keeps out.

mod authorization;
mod handlers;
mod rule;
mod selection;

pub use authorization::Authorization;
pub use handlers::{CheckNothing, Denier, Rbac};
pub use rule::Rule;
