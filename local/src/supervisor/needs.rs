//! What the machine must have, checked before anything is started.

use std::io;

/// Something that a mesh needs and this machine lacks, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// A program.
    #[error("`{program}` is not installed; a mesh on this machine needs it\nhint: {hint}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// How to install it.
        hint: &'static str,
    },
    /// User namespaces for ordinary users.
    #[error("this machine does not allow user namespaces ({error})\nhint: {hint}")]
    UserNamespaces {
        /// What the system said.
        error: io::Error,
        /// Which setting forbids it and how to change it.
        hint: String,
    },
}

/// Directories that are searched for system programs, beside `PATH`: ordinary users often lack `sbin` in theirs.
const SYSTEM_PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin";

/// Finds a system program.
pub(crate) fn find_program(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(std::env::split_paths(SYSTEM_PATH))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Checks that the programs a mesh needs are installed.
pub(crate) fn check_programs() -> Result<(), Missing> {
    if find_program("nft").is_none() {
        return Err(Missing::Program { program: "nft", hint: "sudo apt-get install nftables" });
    }
    Ok(())
}

/// Explains why namespaces could not be made.
pub(crate) fn explain(error: io::Error) -> Missing {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let mut hints = Vec::new();
    for (file, setting, bad, good) in [
        ("user/max_user_namespaces", "user.max_user_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        if read(file).trim() == bad {
            hints.push(format!("{setting} is {bad}; allow them with `sudo sysctl -w {setting}={good}`"));
        }
    }
    if hints.is_empty() {
        hints.push(
            "no setting known to forbid them is set (user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns); inside a container, its seccomp or AppArmor profile \
             usually does"
                .to_owned(),
        );
    }
    Missing::UserNamespaces { error, hint: hints.join("\nhint: ") }
}
