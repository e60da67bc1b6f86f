//! On whose behalf something is done.

use super::tokens::User;

/// On whose behalf something is done, and whether really.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// On whose behalf.
    pub user: User,
    /// Everything is checked and nothing changed.
    pub dry_run: bool,
}

impl Caller {
    /// A part of the system itself.
    pub fn system(component: &str) -> Self {
        let user = User {
            name: format!("system:{component}"),
            groups: vec![super::rbac::MASTERS.to_owned(), "system:authenticated".to_owned()],
            ..User::default()
        };
        Self { user, dry_run: false }
    }
}
