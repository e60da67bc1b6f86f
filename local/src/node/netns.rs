//! The namespaces that the containers of a pod share, held by descriptors alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sys;

/// Network, IPC and UTS namespace of a pod. They vanish, and with them the pod's interface, when the last process in
/// them has ended and this is dropped.
#[derive(Debug)]
pub(crate) struct PodNamespaces {
    /// Network.
    pub(crate) network: OwnedFd,
    /// System V IPC and POSIX queues.
    pub(crate) ipc: OwnedFd,
    /// Host name.
    pub(crate) host_name: OwnedFd,
}

impl PodNamespaces {
    /// Makes new namespaces and runs `inside` in them, on a thread of its own that ends afterwards.
    ///
    /// # Errors
    /// When the system refuses, or `inside` fails.
    pub(crate) async fn create(
        host_name: String,
        inside: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        on_own_thread("mesh-pod-netns", move || {
            sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)?;
            rustix::system::sethostname(host_name.as_bytes())?;
            let open = |name: &str| std::fs::File::open(format!("/proc/thread-self/ns/{name}")).map(OwnedFd::from);
            let namespaces = Self { network: open("net")?, ipc: open("ipc")?, host_name: open("uts")? };
            inside(namespaces.network.as_fd())?;
            Ok(Arc::new(namespaces))
        })
        .await
    }

    /// Runs `inside` in the pod's network namespace: sockets that it makes stay there for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `inside` fails.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        inside: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespaces = Arc::clone(self);
        on_own_thread("mesh-pod-socket", move || {
            move_into_link_name_space(namespaces.network.as_fd(), Some(LinkNameSpaceType::Network))?;
            inside()
        })
        .await
    }
}

/// Runs a closure on a thread that ends with it, so that no other work ever sees its namespaces.
async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(move || {
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("the thread of a namespace ended early"))?
}
