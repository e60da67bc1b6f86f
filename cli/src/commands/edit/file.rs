//! The file that an editor is given.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, io_words};

/// A draft: a file that only its owner may read, in the directory for temporary files.
pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Makes a file that was not there before.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(super) fn new(name: &str) -> Result<Self, Error> {
        let dir = std::env::temp_dir();
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
        for number in 0..10_000_u32 {
            let path = dir.join(format!("meshctl-edit-{name}-{}-{number}.yaml", std::process::id()));
            match std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(_) => return Ok(Draft { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("make", &path, &error)),
            }
        }
        Err(Error::failed(format!("too many drafts are left in {}", dir.display())).hint("delete them"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, text: &str) -> Result<(), Error> {
        let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&self.path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failed("write", &self.path, &error))
    }

    pub(super) fn read(&self) -> Result<String, Error> {
        std::fs::read_to_string(&self.path).map_err(|error| failed("read", &self.path, &error))
    }

    /// Runs the editor on the file, and waits until it has ended. The editor may have arguments, as a shell reads them.
    pub(super) fn edit(&self, editor: &str) -> Result<(), Error> {
        let run =
            Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("meshctl-edit").arg(&self.path).status();
        let hint = "choose another with $KUBE_EDITOR or $EDITOR";
        match run {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let how = status.code().map_or_else(|| "was killed".to_owned(), |code| format!("ended with {code}"));
                Err(Error::failed(format!("the editor `{editor}` {how}; nothing was changed")).hint(hint))
            }
            Err(error) => {
                Err(Error::failed(format!("the editor `{editor}` cannot be run: {}", io_words(&error))).hint(hint))
            }
        }
    }

    pub(super) fn discard(&self) {
        // A draft that stays is untidy, not wrong.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("cannot {verb} {}: {}", path.display(), io_words(error)))
}
