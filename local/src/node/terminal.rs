//! A pseudo-terminal for commands in containers.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::api::TerminalSize;

/// The node's side of a pseudo-terminal.
pub(crate) struct Terminal {
    /// What the program writes.
    pub(crate) reader: TerminalReader,
    /// What the program reads.
    pub(crate) writer: pipe::Sender,
    /// For its size.
    pub(crate) control: TerminalControl,
    /// The program's side.
    pub(crate) program: OwnedFd,
}

/// Changes a terminal's size.
pub(crate) struct TerminalControl(OwnedFd);

/// Reads what the program writes; the program's end is the end of the stream.
pub(crate) struct TerminalReader(pipe::Receiver);

impl Terminal {
    /// Opens one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let program = ioctl_tiocgptpeer(&master, flags)?;
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let (reader, writer) = (master.try_clone()?, master.try_clone()?);
        Ok(Self {
            reader: TerminalReader(pipe::Receiver::from_file_unchecked(reader.into())?),
            writer: pipe::Sender::from_file_unchecked(writer.into())?,
            control: TerminalControl(master),
            program,
        })
    }
}

impl TerminalControl {
    /// Sets the size.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_col: size.width, ws_row: size.height, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.0, size)?)
    }
}

impl AsyncRead for TerminalReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            // What Linux answers when the last program has closed its side.
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EIO) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}
