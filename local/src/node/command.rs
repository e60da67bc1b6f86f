//! What exactly is executed for a container: its program, environment and file system.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::env::{self, ReferenceError, References};
use super::images::{Images, ImagesError};
use super::launcher::{Mount, MountKind, Spec, Target};

/// Why a container cannot be started as it is written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Nothing is known to run for its image.
    #[error(
        "no program is known for image {image}: name one in local-images.yaml beside the YAML \
         (images: {{\"{image}\": [./program]}}) or with --image {image}=PROGRAM"
    )]
    ImageNotResolved {
        /// The image.
        image: String,
    },
    /// The image is known, but neither it nor the container names a program.
    #[error("image {image} has no program of its own, and the container has no command")]
    NoProgram {
        /// The image.
        image: String,
    },
    /// The list of images is broken.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Its environment refers to something that does not exist.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It mounts a volume that the pod does not have.
    #[error("there is no volume \"{volume}\" in the pod")]
    NoVolume {
        /// The volume.
        volume: String,
    },
}

impl CommandError {
    /// The word for a container that waits because of this.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::ImageNotResolved { .. } | Self::NoProgram { .. } | Self::Images(_) => "ImageNotResolved",
            Self::Reference(_) | Self::NoVolume { .. } => "CreateContainerConfigError",
        }
    }
}

/// Where the parts of a container come from on the node.
pub(crate) struct Places<'a> {
    /// Directory of the pod: `volumes/`, and its `hosts`, `hostname` and `resolv.conf`.
    pub(crate) pod: &'a Path,
    /// An empty directory on which container roots are mounted.
    pub(crate) staging: &'a Path,
}

/// Works out what to execute for a container.
///
/// # Errors
/// Says what is missing, with a remedy.
pub(crate) fn compose(
    container: &Container,
    spec: &PodSpec,
    references: &References<'_>,
    images: &Images,
    places: &Places<'_>,
) -> Result<Spec, CommandError> {
    let env = references.environment(container)?;
    let image = container.image.clone().unwrap_or_default();
    let resolved = images.resolve(&image);
    let expand =
        |words: &Option<Vec<String>>| words.iter().flatten().map(|word| env::expand(word, &env)).collect::<Vec<_>>();
    let mut argv = expand(&container.command);
    let own_files = resolved.unwrap_or_default();
    if argv.is_empty() {
        argv = resolved.ok_or(CommandError::ImageNotResolved { image: image.clone() })?.to_vec();
    }
    argv.extend(expand(&container.args));
    if argv.is_empty() {
        return Err(CommandError::NoProgram { image });
    }
    let mut mounts = own_directories(own_files.iter().chain(argv.first()));
    mounts.extend(system_files(places.pod));
    mounts.extend(volume_mounts(container, spec, places.pod)?);
    Ok(Spec {
        argv,
        env,
        directory: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()).into(),
        capabilities: capabilities(container),
        terminal: false,
        target: Target::Container {
            mounts,
            staging: places.staging.to_path_buf(),
            read_only: has_read_only_root(container),
        },
    })
}

fn has_read_only_root(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|security| security.read_only_root_filesystem) == Some(true)
}

/// The capabilities a container keeps: those it adds, and for one that would run as the proxy's user CAP_NET_RAW, with
/// which the proxy marks its connections where there is only one user.
fn capabilities(container: &Container) -> Vec<String> {
    let Some(security) = &container.security_context else { return Vec::new() };
    let added = security.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    let mut names: Vec<String> = added.cloned().collect();
    let net_raw = "NET_RAW".to_owned();
    if security.run_as_user == Some(i64::from(::api::names::PROXY_UID)) && !names.contains(&net_raw) {
        names.push(net_raw);
    }
    names
}

/// Directories that every container has anyway, or must not get as a whole.
const COMMON: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc", "/dev", "/proc"];

/// Whether a path is one of the system's.
pub(crate) fn is_common(path: &Path) -> bool {
    COMMON.iter().any(|common| path.starts_with(common))
}

/// The directories of an image's program and of files that its command names, read-only and where the host has them.
fn own_directories<'a>(words: impl Iterator<Item = &'a String>) -> Vec<Mount> {
    let mut sources: Vec<PathBuf> = Vec::new();
    for word in words.filter(|word| word.starts_with('/')) {
        let path = Path::new(word);
        let real = path.canonicalize().ok();
        for path in [Some(path.to_path_buf()), real].into_iter().flatten() {
            if is_common(&path) || !path.exists() {
                continue;
            }
            let source = if path.is_dir() { path } else { directory_of(path) };
            if source.components().count() > 1 && !sources.iter().any(|known| source.starts_with(known)) {
                sources.push(source);
            }
        }
    }
    sources
        .into_iter()
        .map(|path| Mount { kind: MountKind::Bind(path.clone()), target: path, read_only: true })
        .collect()
}

/// The directory of a program, with the files beside it; the program alone where that would be too much.
fn directory_of(program: PathBuf) -> PathBuf {
    match program.parent() {
        Some(parent) if parent.components().count() > 2 && parent != Path::new("/var/tmp") => parent.to_path_buf(),
        _ => program,
    }
}

fn system_files(pod: &Path) -> Vec<Mount> {
    let bind = |name: &str| Mount {
        kind: MountKind::Bind(pod.join(name)),
        target: Path::new("/etc").join(name),
        read_only: true,
    };
    ["hosts", "hostname", "resolv.conf"].map(bind).into()
}

fn volume_mounts(container: &Container, spec: &PodSpec, pod: &Path) -> Result<Vec<Mount>, CommandError> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| CommandError::NoVolume { volume: mount.name.clone() })?;
        let source = match &volume.host_path {
            Some(host) => PathBuf::from(&host.path),
            None => pod.join("volumes").join(&volume.name),
        };
        let source = mount.sub_path.as_ref().map_or(source.clone(), |path| source.join(path));
        let writable = volume.empty_dir.is_some() || volume.host_path.is_some();
        mounts.push(Mount {
            kind: MountKind::Bind(source),
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || !writable,
        });
    }
    // A mount below another comes after it.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}
