//! Builds a container's file system in the mount namespace of the calling process.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::pivot_root;

use super::spec::{Mount, MountKind};
use crate::sys;

/// Parts of the host that every container sees, read-only. What does not exist on this machine is left out.
const SHARED: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];
/// Files and directories below `/etc` that programs need and that tell nothing about the user.
const SHARED_ETC: [&str; 14] = [
    "passwd",
    "group",
    "ssl",
    "pki",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "localtime",
    "alternatives",
    "protocols",
    "services",
    "mime.types",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Mounts a new root at `staging`, fills it, and makes it the root of this mount namespace.
///
/// With `read_only` nothing can be written but what `mounts` bring, and `/dev/shm`: `/tmp` too must be a volume then, as on
/// a cluster.
pub(super) fn build(staging: &Path, mounts: &[Mount], read_only: bool) -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(at("/"))?;
    memory(staging, c"mode=0755,size=64m")?;
    for path in SHARED {
        share(staging, Path::new(path))?;
    }
    for name in SHARED_ETC {
        share(staging, &Path::new("/etc").join(name))?;
    }
    for directory in ["tmp", "proc", "dev", "var/tmp", "run", "root", "sys"] {
        fs::create_dir_all(staging.join(directory)).map_err(at(directory))?;
    }
    std::os::unix::fs::symlink("/run", staging.join("var/run")).map_err(at("/var/run"))?;
    if !read_only {
        memory(&staging.join("tmp"), c"mode=1777")?;
    }
    devices(staging)?;
    mount("proc", staging.join("proc"), "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(at("/proc"))?;
    for mount in mounts {
        place(staging, mount)?;
    }
    if read_only {
        sys::make_only_this_read_only(staging).map_err(at("/"))?;
    }
    enter(staging)
}

/// Makes the file system at `staging` the root and lets go of the old one.
fn enter(staging: &Path) -> io::Result<()> {
    std::env::set_current_dir(staging)?;
    pivot_root(".", ".").map_err(at("/"))?;
    unmount(".", UnmountFlags::DETACH).map_err(at("/"))?;
    std::env::set_current_dir("/")
}

/// Says which mount an error is about.
fn at<E: Into<io::Error>>(path: impl AsRef<Path>) -> impl FnOnce(E) -> io::Error {
    let path = path.as_ref().to_path_buf();
    move |error| {
        let error: io::Error = error.into();
        io::Error::new(error.kind(), format!("cannot mount {} of the container: {error}", path.display()))
    }
}

fn memory(target: &Path, options: &std::ffi::CStr) -> io::Result<()> {
    mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options)).map_err(at(target))
}

/// Shows a path of the host at the same place, read-only; symbolic links are kept as they are.
fn share(staging: &Path, path: &Path) -> io::Result<()> {
    let Ok(facts) = fs::symlink_metadata(path) else { return Ok(()) };
    let target = inside(staging, path);
    if facts.is_symlink() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        return std::os::unix::fs::symlink(fs::read_link(path)?, target);
    }
    bind(path, &target, true)
}

fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    let facts = fs::metadata(source)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", source.display())))?;
    if facts.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if !target.exists() {
            fs::write(target, b"")?;
        }
    }
    mount_bind_recursive(source, target).map_err(at(target))?;
    if read_only { sys::make_read_only(target).map_err(at(target)) } else { Ok(()) }
}

fn devices(staging: &Path) -> io::Result<()> {
    let dev = staging.join("dev");
    memory(&dev, c"mode=0755,size=64k")?;
    for name in DEVICES {
        bind(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    fs::create_dir(dev.join("pts"))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", dev.join("pts"), "devpts", flags, Some(c"newinstance,ptmxmode=0666,mode=0620"))
        .map_err(at("/dev/pts"))?;
    fs::create_dir(dev.join("shm"))?;
    memory(&dev.join("shm"), c"mode=1777")?;
    for (name, destination) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(destination, dev.join(name))?;
    }
    Ok(())
}

fn place(staging: &Path, mount: &Mount) -> io::Result<()> {
    let target = inside(staging, &mount.target);
    match &mount.kind {
        MountKind::Bind(source) => bind(source, &target, mount.read_only),
        MountKind::Memory => {
            fs::create_dir_all(&target)?;
            memory(&target, c"mode=1777")
        }
        MountKind::Directory => fs::create_dir_all(&target),
        MountKind::Link(destination) => {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            std::os::unix::fs::symlink(destination, target)
        }
    }
}

/// The place of a container's path below `staging`: `..` never leads out of it, and symbolic links that the
/// container's file system itself has (`/var/run`) are followed inside it.
fn inside(staging: &Path, path: &Path) -> PathBuf {
    let mut place = staging.to_path_buf();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                place.push(name);
                if let Ok(destination) = fs::read_link(&place)
                    && let Ok(below) = destination.strip_prefix("/")
                {
                    place = staging.join(below);
                }
            }
            Component::ParentDir => {
                if place != staging {
                    place.pop();
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    place
}
