//! Which programs a container runs, so that one that is built anew in their place is noticed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Begins the ID of a container's image that stands for programs.
const PREFIX: &str = "local:";
/// Between a program and what tells it from others in its place.
const MARK: char = '@';
/// Between programs.
const SEPARATOR: char = '|';

/// The ID of what a command line runs: its absolute paths to files that are not the system's, each with what tells it
/// from another file in its place. Empty when there is none.
pub(crate) fn id(argv: &[String]) -> String {
    let files = argv.iter().filter(|word| word.starts_with('/') && !super::command::is_common(Path::new(word)));
    let stamped: Vec<String> =
        files.filter_map(|word| Some(format!("{word}{MARK}{}", stamp(Path::new(word))?))).collect();
    if stamped.is_empty() { String::new() } else { format!("{PREFIX}{}", stamped.join(&SEPARATOR.to_string())) }
}

/// Inode, size and time of change: a build makes another file, an editor another time.
fn stamp(path: &Path) -> Option<String> {
    let facts = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some(format!("{:x}-{:x}-{:x}.{:09}", facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))
}

/// The programs of a container, by the `imageID` of its status, that have changed on disk since it was started.
///
/// One that is not there any more has not changed: it is being built, perhaps, and could not be started anyway.
#[must_use]
pub fn changed_programs(image_id: &str) -> Vec<PathBuf> {
    let programs = image_id.strip_prefix(PREFIX).unwrap_or_default().split(SEPARATOR);
    programs
        .filter_map(|program| program.rsplit_once(MARK))
        .filter(|(path, then)| stamp(Path::new(path)).is_some_and(|now| now != *then))
        .map(|(path, _)| PathBuf::from(path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_written_anew_is_noticed_and_one_that_is_not_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["app", "script"] {
            std::fs::write(path(name), "1").expect("written");
        }
        let words = [
            path("app").display().to_string(),
            "--flag".into(),
            path("script").display().to_string(),
            "/usr/bin/env".into(),
        ];
        let id = id(&words);
        assert!(!id.contains("/usr/bin"), "{id}");
        assert_eq!(changed_programs(&id), Vec::<PathBuf>::new());
        std::fs::write(path("new"), "1").expect("written");
        std::fs::rename(path("new"), path("script")).expect("renamed");
        assert_eq!(changed_programs(&id), [path("script")]);
        std::fs::remove_file(path("app")).expect("removed");
        assert_eq!(changed_programs(&id), [path("script")]);
        assert_eq!(changed_programs("mesh/proxy:1"), Vec::<PathBuf>::new());
    }
}
