//! The access log: one line per request or connection, written by a thread of its own.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines wait this long for others, so that they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// Lines that wait beyond so many bytes are dropped, and counted.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// Takes lines off the data path.
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    is_closing: bool,
}

impl AccessLog {
    /// A log that appends to a file or a device.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        AccessLog::to(file)
    }

    /// A log into anything.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || seen.write_all(out))?;
        Ok(AccessLog { shared, writer: Some(writer) })
    }

    /// Hands over a line; `false` if it was dropped because too many wait.
    pub fn line(&self, line: &[u8]) -> bool {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() + line.len() > MAX_WAITING {
            return false;
        }
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if is_first {
            self.shared.came.notify_one();
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.is_closing {
                waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if !waiting.is_closing {
                // Nothing notifies now but the end.
                waiting = self.came.wait_timeout(waiting, GATHER).unwrap_or_else(PoisonError::into_inner).0;
            }
            let is_closing = waiting.is_closing;
            std::mem::swap(&mut waiting.lines, &mut lines);
            drop(waiting);
            if let Err(error) = out.write_all(&lines).and_then(|()| out.flush()) {
                tracing::warn!(%error, "the access log cannot be written");
            }
            lines.clear();
            lines.shrink_to(GATHERED);
            if is_closing {
                return;
            }
        }
    }
}

/// Memory kept for lines between two writes.
const GATHERED: usize = 64 * 1024;

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.came.notify_one();
        if let Some(writer) = self.writer.take() {
            // It ends after what waits; a panic in it has been printed.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

/// Appends text in quotes, with what could end the quotes or the line escaped, and no more than 1024 bytes of it.
pub fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// As [`quoted`], without the quotes.
pub(crate) fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..MAX_QUOTED).unwrap_or(text);
    if text.is_empty() {
        out.push(b'-');
    }
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\');
    // Nearly all text is plain: it is looked at as a whole, and copied as a whole.
    if text.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(text);
        return;
    }
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            byte if is_plain(byte) => out.push(byte),
            // Writing to a vector does not fail.
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

/// Longer text is cut.
const MAX_QUOTED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_written_before_the_log_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let log = AccessLog::open(&path).expect("opens");
        for at in 0..1000 {
            assert!(log.line(format!("line {at}\n").as_bytes()));
        }
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).expect("text").lines().count(), 1000);
    }

    #[test]
    fn text_from_the_network_cannot_end_its_quotes_or_its_line() {
        let mut out = Vec::new();
        quoted(&mut out, b"a\" b\n\xff\\");
        assert_eq!(out, br#""a\" b\x0a\xff\\""#);
    }
}
