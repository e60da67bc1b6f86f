//! The few system calls that need `unsafe`; everything else goes through `rustix`.

#![expect(unsafe_code, reason = "fork, signal masks and mount_setattr have no safe wrapper among our dependencies")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a [`fork`] this is.
pub(crate) enum Fork {
    /// The parent, with the child's process ID.
    Parent(Pid),
    /// The child.
    Child,
}

/// Forks this process, which must have one thread only.
///
/// The launcher and the supervisor call this before any thread exists; with more threads the child could only call
/// async-signal-safe functions, so a process with threads is refused.
pub(crate) fn fork() -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::other("fork was asked of a process with more than one thread"));
    }
    // SAFETY: the process has one thread, so the child's memory is consistent and it may go on as an ordinary program.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(Pid::from_raw(child).ok_or_else(|| io::Error::other("fork gave no process ID"))?)),
    }
}

fn thread_count() -> io::Result<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        // A namespace whose /proc is not mounted yet cannot be asked; its callers have just been forked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
    }
}

/// Ends the process at once, without running destructors that belong to the parent of a fork.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Moves the calling thread into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES), "a shared descriptor table would be cut in two");
    // SAFETY: the descriptor table is not unshared, which is the one hazard of this call.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// A set of signals that is blocked and waited for.
pub(crate) struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the given signals, so that [`Signals::wait`] receives them, even as PID 1 of a namespace.
    pub(crate) fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = empty_set();
        for signal in signals {
            // SAFETY: `set` is initialised, and an invalid number is answered with an error.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { set })
    }

    /// Waits for the next signal of the set and returns its number.
    pub(crate) fn wait(&self) -> io::Result<i32> {
        loop {
            // SAFETY: the set is initialised; no details are asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.set, std::ptr::null_mut()) };
            if signal > 0 {
                return Ok(signal);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// A descriptor that becomes readable when a signal of the set is pending.
    pub(crate) fn descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        use std::os::fd::FromRawFd;
        // SAFETY: the set is initialised and a new descriptor is asked for.
        let fd = unsafe { libc::signalfd(-1, &raw const self.set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor and nobody else holds it.
        Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
    }
}

/// Lets every signal through again; a program inherits its parent's mask.
pub(crate) fn unblock_signals() -> io::Result<()> {
    let set = empty_set();
    // SAFETY: `set` is initialised.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set and cannot fail for a valid pointer.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Closes every descriptor of this process except those given.
///
/// Only a forked child may call this, and it must not use any object of its parent's that owned a descriptor.
pub(crate) fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 0u32;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing descriptors does not touch memory; the caller promises that no owner of them is used again.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `from` available as descriptor `to` (0, 1 or 2), inherited by programs.
pub(crate) fn install_descriptor(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 replaces a standard stream, which no Rust object owns.
    match unsafe { libc::dup2(from.as_raw_fd(), to) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes a mount and everything mounted below it read-only (and without set-user-ID programs).
pub(crate) fn make_read_only(path: &Path) -> io::Result<()> {
    restrict(path, libc::AT_RECURSIVE)
}

/// Makes a mount read-only, but none that is mounted below it.
pub(crate) fn make_only_this_read_only(path: &Path) -> io::Result<()> {
    restrict(path, 0)
}

fn restrict(path: &Path, flags: libc::c_int) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `path` is a C string and `attributes` has the size that is passed with it; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
