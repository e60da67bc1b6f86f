//! The access log: one line per request or connection, in a format that can be changed, written by a thread of its own.

mod compile;
mod defaults;
mod format;
mod json;
mod names;
mod operator;
mod read;
mod render;
mod text;
mod writer;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use self::format::{Encoding, Format, FormatError, Wanted};
pub(crate) use self::render::Entry;
use self::writer::Writer;

/// Takes lines off the data path.
pub struct AccessLog {
    format: ArcSwap<Format>,
    writer: Writer,
}

impl AccessLog {
    /// A log that appends to a file or a device.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(path: &Path, format: Format) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        AccessLog::to(file, format)
    }

    /// A log into anything.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn to(out: impl Write + Send + 'static, format: Format) -> io::Result<Self> {
        Ok(AccessLog { format: ArcSwap::from_pointee(format), writer: Writer::start(out)? })
    }

    /// Hands over a line; it is dropped, and counted, if too many wait.
    pub fn line(&self, line: &[u8]) {
        self.writer.line(line);
    }

    /// The format of new requests' lines.
    #[must_use]
    pub fn format(&self) -> Arc<Format> {
        self.format.load_full()
    }

    /// Changes the format; requests that run keep theirs.
    pub fn set_format(&self, format: Format) {
        self.format.store(Arc::new(format));
    }

    /// Takes over the format in force if it is not in hand already.
    pub(crate) fn refresh(&self, held: &mut Option<Arc<Format>>) {
        let current = self.format.load();
        if held.as_ref().is_none_or(|held| !Arc::ptr_eq(held, &current)) {
            *held = Some(Arc::clone(&current));
        }
    }

    /// Lines that were dropped because nobody took them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.writer.dropped()
    }

    /// Writes that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.writer.failures()
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}
