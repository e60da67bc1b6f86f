//! Which program stands for an image: on one machine there are no images, but programs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Programs by image, as `local-images.yaml` and `--image` name them.
///
/// A key is an image reference or a glob (`*` matches anything); an exact reference goes before a glob, and a longer
/// glob before a shorter one. A tag may be left out on either side.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Images {
    /// Command by image.
    #[serde(default)]
    pub images: BTreeMap<String, Vec<String>>,
}

/// Why a list of images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not a list of images.
    #[error("{path}: {message}\nhint: write it as\n  images:\n    my/image: [./program, argument]")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// `--image` was not `REF=COMMAND`.
    #[error("`{argument}` is not REF=COMMAND, as in `--image my/app:1=./target/debug/app`")]
    Argument {
        /// What was given.
        argument: String,
    },
}

const FILE: &str = "local-images.json";

impl Images {
    /// Reads a `local-images.yaml`; relative programs are those beside the file.
    ///
    /// # Errors
    /// When it cannot be read or is not a list of images.
    pub fn read(path: &Path) -> Result<Self, ImagesError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ImagesError::Unreadable { path: path.display().to_string(), source })?;
        let mut images: Self = serde_yaml::from_str(&text)
            .map_err(|error| ImagesError::Malformed { path: path.display().to_string(), message: error.to_string() })?;
        let directory = path.parent().unwrap_or(Path::new("."));
        for command in images.images.values_mut() {
            make_absolute(command, directory);
        }
        Ok(images)
    }

    /// Reads one `REF=COMMAND`; the command is split at blanks, and a relative program is one of `directory`.
    ///
    /// # Errors
    /// When there is no `=`, or nothing on one of its sides.
    pub fn parse_argument(argument: &str, directory: &Path) -> Result<Self, ImagesError> {
        let wrong = || ImagesError::Argument { argument: argument.to_owned() };
        let (image, command) = argument.split_once('=').ok_or_else(wrong)?;
        let mut command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if image.is_empty() || command.is_empty() {
            return Err(wrong());
        }
        make_absolute(&mut command, directory);
        Ok(Self { images: BTreeMap::from([(image.to_owned(), command)]) })
    }

    /// Adds the other's images; where both have one, the other's wins.
    pub fn merge(&mut self, other: Self) {
        self.images.extend(other.images);
    }

    /// The images that a mesh knows; an empty list when it has been told none.
    ///
    /// # Errors
    /// When the file of the state directory cannot be read.
    pub fn load(state_dir: &Path) -> Result<Self, ImagesError> {
        let path = state_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| ImagesError::Malformed {
                path: path.display().to_string(),
                message: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ImagesError::Unreadable { path: path.display().to_string(), source }),
        }
    }

    /// Keeps the images in a state directory; a running node reads them when it starts a container.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let temporary = state_dir.join(format!("{FILE}.new"));
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(temporary, state_dir.join(FILE))
    }

    /// Takes programs without a slash from a directory, where it has them.
    pub(crate) fn look_in(&mut self, directory: &Path) {
        for program in self.images.values_mut().filter_map(|command| command.first_mut()) {
            let candidate = directory.join(&*program);
            if !program.contains('/') && candidate.is_file() {
                *program = candidate.display().to_string();
            }
        }
    }

    /// The command that stands for an image.
    #[must_use]
    pub fn resolve(&self, image: &str) -> Option<&[String]> {
        if let Some(command) = self.images.get(image) {
            return Some(command);
        }
        let matching = |name: &str| {
            self.images
                .iter()
                .filter(|(pattern, _)| glob(pattern, name))
                .max_by_key(|(pattern, _)| (!pattern.contains('*'), pattern.len()))
                .map(|(_, command)| command.as_slice())
        };
        matching(image).or_else(|| matching(without_tag(image)))
    }
}

/// The images that every mesh knows: the mesh's own.
pub(crate) fn built_in(programs: &Path) -> Images {
    let program = |name: &str| vec![programs.join(name).display().to_string()];
    Images {
        images: BTreeMap::from([
            ("mesh/proxy*".to_owned(), program("mesh-proxy")),
            ("mesh/pilot*".to_owned(), program("mesh-pilot")),
            ("mesh/ca*".to_owned(), program("mesh-ca")),
            // Its containers bring their own command.
            ("mesh/init*".to_owned(), Vec::new()),
        ]),
    }
}

fn make_absolute(command: &mut [String], directory: &Path) {
    if let Some(program) = command.first_mut()
        && program.contains('/')
        && !program.starts_with('/')
    {
        let path: PathBuf = directory.join(&*program);
        *program = std::path::absolute(&path).unwrap_or(path).display().to_string();
    }
}

fn without_tag(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| glob(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_precise_image_wins() {
        let images: Images = serde_yaml::from_str(
            "images:\n  bookinfo/*: [any]\n  bookinfo/reviews*: [reviews]\n  bookinfo/reviews:2: [second]\n  app: [app]\n",
        )
        .expect("it is a list of images");
        for (image, expected) in [
            ("bookinfo/reviews:2", Some("second")),
            ("bookinfo/reviews:1", Some("reviews")),
            ("bookinfo/ratings:1", Some("any")),
            ("app:latest", Some("app")),
            ("app@sha256:abc", Some("app")),
            ("other", None),
        ] {
            assert_eq!(images.resolve(image).map(|command| command[0].as_str()), expected, "{image}");
        }
    }

    #[test]
    fn an_argument_names_an_image_and_a_program() {
        let images = Images::parse_argument("my/app:1=./app --port 80", Path::new("/src")).expect("it is well formed");
        assert_eq!(images.resolve("my/app:1").map(<[String]>::len), Some(3));
        assert!(images.images["my/app:1"][0].starts_with("/src/"));
        for wrong in ["my/app", "=x", "my/app="] {
            assert!(Images::parse_argument(wrong, Path::new("/")).is_err(), "{wrong}");
        }
    }
}
