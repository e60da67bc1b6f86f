//! What rules say of a request: who lets it in, or keeps it out.

use std::fmt;

/// What the rules say of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admission<'t> {
    /// Who refuses it; `None` lets it in.
    pub denied: Option<Denied<'t>>,
    /// The policy that lets it in; `None` where no rules are in force.
    pub allowed_by: Option<&'t str>,
    /// Who would refuse it if its rules were not on trial.
    pub would_deny: Option<Denied<'t>>,
}

/// Who refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied<'t> {
    /// The rules, by name.
    pub by: &'t str,
    /// The policy of them that keeps it out; `None` where it is refused because none lets it in.
    pub policy: Option<&'t str>,
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.by, self.policy.unwrap_or("none"))
    }
}

/// The half of a policy that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// What it allows is something else.
    Permissions,
    /// Those whom it is about are others.
    Principals,
}
