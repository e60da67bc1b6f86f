//! Messages between node and launcher: JSON in sequenced packets, with descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::Exit;

/// Asks for a process. The descriptors are, in order: the spec (a file with JSON), standard input, output and error,
/// the pipe for what goes wrong, and the pod's network, IPC and UTS namespaces.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The node's number for this process.
    pub id: u64,
    /// Process ID of the container's init when a running container is entered.
    pub target_pid: Option<i32>,
}

/// What the launcher says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The process exists; whether it could be set up is said on its pipe.
    Started { id: u64, pid: i32 },
    /// There is no process.
    Refused { id: u64, error: String },
    /// The process has ended.
    Exited { id: u64, exit: Exit },
}

/// Number of descriptors that come with a [`Request`].
pub(crate) const DESCRIPTORS: usize = 8;
const LARGEST_MESSAGE: usize = 4096;

pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message with descriptors.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0u8; LARGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let message = bytes.get(..received.bytes).ok_or_else(|| io::Error::other("message longer than its buffer"))?;
    Ok(Some((serde_json::from_slice(message)?, fds)))
}
