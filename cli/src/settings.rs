//! What the environment says; nothing else reads it.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::error::Error;

/// The environment variables that `meshctl` heeds.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `KUBECONFIG`: files, separated as in `PATH`.
    pub kubeconfig: Option<String>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `NO_COLOR` is set to something.
    pub no_color: bool,
    /// `TERM`.
    pub term: Option<String>,
    /// Runs in a pod of Kubernetes.
    pub in_cluster: bool,
    /// `KUBE_EDITOR`, else `EDITOR`.
    pub editor: Option<String>,
}

impl Settings {
    /// Reads the environment of the process.
    #[must_use]
    pub fn of_process() -> Self {
        let set = |name| read(name).filter(|value| !value.is_empty());
        Settings {
            kubeconfig: set("KUBECONFIG"),
            home: set("HOME").map(PathBuf::from),
            state_home: set("XDG_STATE_HOME").map(PathBuf::from),
            no_color: set("NO_COLOR").is_some(),
            term: set("TERM"),
            in_cluster: set("KUBERNETES_SERVICE_HOST").is_some(),
            editor: set("KUBE_EDITOR").or_else(|| set("EDITOR")),
        }
    }

    /// The files that `KUBECONFIG` names.
    #[must_use]
    pub fn kubeconfig_files(&self) -> Vec<PathBuf> {
        self.kubeconfig
            .as_deref()
            .map(|list| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default()
    }

    /// The editor: the one that is set, else `vi`, which needs a terminal.
    ///
    /// # Errors
    /// When none is set and there is no terminal.
    pub fn editor(&self) -> Result<String, Error> {
        match &self.editor {
            Some(editor) => Ok(editor.clone()),
            None if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => Ok("vi".to_owned()),
            None => Err(Error::usage("there is no terminal to edit on, and neither KUBE_EDITOR nor EDITOR is set")
                .hint("set EDITOR to a program that changes the file it is given; or use `meshctl get -o yaml`, `meshctl replace -f`")),
        }
    }

    /// kubectl's own file.
    #[must_use]
    pub fn default_kubeconfig(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".kube/config"))
    }

    /// The directory that holds one directory of state per local mesh.
    #[must_use]
    pub fn state_root(&self) -> Option<PathBuf> {
        let base = self.state_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/state")))?;
        Some(base.join("meshctl"))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]
fn read(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
