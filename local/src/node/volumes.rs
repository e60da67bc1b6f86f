//! A pod's volumes: directories of the node that are mounted into its containers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
};

use super::env::{ReferenceError, References};
use crate::api::ApiError;

/// Why a volume cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// What it is made of does not exist.
    #[error("volume \"{volume}\": {source}")]
    Reference {
        /// The volume.
        volume: String,
        /// What is missing.
        source: Box<ReferenceError>,
    },
    /// A token could not be had.
    #[error("volume \"{volume}\": no token for service account {account}: {source}")]
    Token {
        /// The volume.
        volume: String,
        /// The service account.
        account: String,
        /// What the API says.
        source: Box<ApiError>,
    },
    /// Its kind does not exist on one machine.
    #[error(
        "volume \"{volume}\": only emptyDir, configMap, secret, projected, downwardAPI and hostPath volumes exist on one machine"
    )]
    Kind {
        /// The volume.
        volume: String,
    },
    /// A path inside it leads out of it.
    #[error("volume \"{volume}\": path {path:?} must be relative and must not contain \"..\"")]
    Path {
        /// The volume.
        volume: String,
        /// The path.
        path: String,
    },
    /// The system refused.
    #[error("volume \"{volume}\": {source}")]
    System {
        /// The volume.
        volume: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Issues tokens of service accounts, bound to a pod.
pub(crate) trait Tokens: Send + Sync + 'static {
    /// A token of `account` in the pod's namespace for the audiences, or for the API itself when there are none.
    fn issue(
        &self,
        pod: &crate::api::PodRef,
        account: &str,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String, ApiError>;
}

/// Lifetime of a token that does not say otherwise.
const TOKEN_SECONDS: i64 = 3600;

/// Makes volumes of one pod below a directory.
pub(crate) struct Volumes<'a> {
    /// Where: `<run>/<uid>/volumes`.
    pub(crate) directory: PathBuf,
    /// What references are resolved against.
    pub(crate) references: References<'a>,
    /// Who issues tokens.
    pub(crate) tokens: &'a dyn Tokens,
    /// The pod.
    pub(crate) pod: crate::api::PodRef,
}

impl Volumes<'_> {
    /// Makes or refreshes all volumes; files are replaced in one step, so that a reader sees an old or a new one.
    ///
    /// # Errors
    /// Says which volume, and what it lacks.
    pub(crate) fn write(&self, spec: &PodSpec) -> Result<(), VolumeError> {
        for volume in spec.volumes.iter().flatten() {
            if volume.host_path.is_some() {
                continue;
            }
            self.make_directory(&volume.name)?;
            if volume.empty_dir.is_none() {
                let files = self.files(volume)?;
                self.place(&volume.name, files)?;
            }
        }
        Ok(())
    }

    fn make_directory(&self, volume: &str) -> Result<(), VolumeError> {
        std::fs::create_dir_all(self.directory.join(volume)).map_err(|source| system(volume, source))
    }

    fn files(&self, volume: &Volume) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let name = &volume.name;
        if let Some(map) = &volume.config_map {
            return self.keys(name, ("configmap", &map.name), map.items.as_deref(), map.optional);
        }
        if let Some(secret) = &volume.secret {
            let secret_name = secret.secret_name.as_deref().unwrap_or_default();
            return self.keys(name, ("secret", secret_name), secret.items.as_deref(), secret.optional);
        }
        if let Some(projected) = &volume.projected {
            return self.projected(name, projected);
        }
        if let Some(downward) = &volume.downward_api {
            return self.downward(name, downward.items.as_deref().unwrap_or_default());
        }
        Err(VolumeError::Kind { volume: name.clone() })
    }

    fn projected(
        &self,
        volume: &str,
        projected: &ProjectedVolumeSource,
    ) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let mut files = BTreeMap::new();
        for source in projected.sources.iter().flatten() {
            if let Some(token) = &source.service_account_token {
                files.insert(token.path.clone(), self.token(volume, token)?.into_bytes());
            }
            if let Some(map) = &source.config_map {
                files.extend(self.keys(volume, ("configmap", &map.name), map.items.as_deref(), map.optional)?);
            }
            if let Some(secret) = &source.secret {
                files.extend(self.keys(volume, ("secret", &secret.name), secret.items.as_deref(), secret.optional)?);
            }
            if let Some(downward) = &source.downward_api {
                files.extend(self.downward(volume, downward.items.as_deref().unwrap_or_default())?);
            }
        }
        Ok(files)
    }

    fn token(&self, volume: &str, token: &ServiceAccountTokenProjection) -> Result<String, VolumeError> {
        let spec = self.references.pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let seconds = token.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        self.tokens.issue(&self.pod, account, token.audience.as_deref(), seconds).map_err(|source| VolumeError::Token {
            volume: volume.to_owned(),
            account: account.to_owned(),
            source: Box::new(source),
        })
    }

    fn keys(
        &self,
        volume: &str,
        (kind, name): (&'static str, &str),
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        let failed = |source| VolumeError::Reference { volume: volume.to_owned(), source: Box::new(source) };
        let Some(data) = self.references.data(kind, name) else {
            return match optional {
                Some(true) => Ok(BTreeMap::new()),
                _ => Err(failed(self.references.no_object(kind, name))),
            };
        };
        let Some(items) = items else { return Ok(data) };
        let mut files = BTreeMap::new();
        for item in items {
            match data.get(&item.key) {
                Some(value) => {
                    files.insert(item.path.clone(), value.clone());
                }
                None if optional == Some(true) => {}
                None => return Err(failed(self.references.no_key(kind, name, &item.key))),
            }
        }
        Ok(files)
    }

    fn downward(
        &self,
        volume: &str,
        items: &[DownwardAPIVolumeFile],
    ) -> Result<BTreeMap<String, Vec<u8>>, VolumeError> {
        items
            .iter()
            .map(|item| {
                let path = item.field_ref.as_ref().map_or("", |field| field.field_path.as_str());
                let value = self.references.field(path);
                value
                    .map(|value| (item.path.clone(), value.into_bytes()))
                    .map_err(|source| VolumeError::Reference { volume: volume.to_owned(), source: Box::new(source) })
            })
            .collect()
    }

    fn place(&self, volume: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), VolumeError> {
        let directory = self.directory.join(volume);
        for (path, content) in files {
            let relative = Path::new(&path);
            if relative.components().any(|part| !matches!(part, Component::Normal(_))) || path.is_empty() {
                return Err(VolumeError::Path { volume: volume.to_owned(), path });
            }
            replace(&directory.join(relative), &content).map_err(|source| system(volume, source))?;
        }
        Ok(())
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(parent)?;
    let temporary = parent.join(".new");
    std::fs::write(&temporary, content)?;
    std::fs::rename(temporary, path)
}

fn system(volume: &str, source: io::Error) -> VolumeError {
    VolumeError::System { volume: volume.to_owned(), source }
}
