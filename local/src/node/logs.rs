//! Logs of containers: files with one line per line of output, in the format of the container runtimes.
//!
//! ```text
//! 2026-01-02T03:04:05.678901234Z stdout F the line
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;

/// Size at which a log is rotated; one rotated file is kept.
const LARGEST_FILE: u64 = 10 << 20;
/// Longer lines are cut into parts, of which all but the last are marked `P`.
const LONGEST_LINE: usize = 16 << 10;

/// The log of one container, over its restarts.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    directory: PathBuf,
    container: String,
    file: Mutex<Option<Open>>,
    /// Counts writes, so that followers wake; false when the container has ended for good.
    changed: watch::Sender<(u64, bool)>,
}

#[derive(Debug)]
struct Open {
    file: std::fs::File,
    size: u64,
    /// Lines that could not be written since the last one that could.
    lost: u64,
}

impl ContainerLog {
    /// The log in `<logs>/<namespace>/<pod>/<container>.log`.
    pub(crate) fn new(directory: PathBuf, container: &str) -> Arc<Self> {
        let (changed, _) = watch::channel((0, true));
        Arc::new(Self { directory, container: container.to_owned(), file: Mutex::new(None), changed })
    }

    /// The file of the current run, or of the one before.
    pub(crate) fn path(&self, previous: bool) -> PathBuf {
        let suffix = if previous { ".previous.log" } else { ".log" };
        self.directory.join(format!("{}{suffix}", self.container))
    }

    /// The older part of the current run's log, when it has been rotated.
    pub(crate) fn rotated_path(&self) -> PathBuf {
        self.directory.join(format!("{}.log.1", self.container))
    }

    /// Begins the log of a new run; the last run's becomes the previous one. If that fails, each line tries again.
    pub(crate) fn begin(&self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.path(false);
        *file = None;
        if current.exists() {
            std::fs::rename(&current, self.path(true))?;
        }
        let _ = std::fs::remove_file(self.rotated_path());
        *file = Some(self.create()?);
        drop(file);
        self.changed.send_modify(|(count, open)| (*count, *open) = (*count + 1, true));
        Ok(())
    }

    fn create(&self) -> io::Result<Open> {
        std::fs::create_dir_all(&self.directory)?;
        Ok(Open { file: std::fs::File::create(self.path(false))?, size: 0, lost: 0 })
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.changed.send_modify(|(_, open)| *open = false);
    }

    /// Wakes when something was written, or the container ended for good.
    pub(crate) fn subscribe(&self) -> watch::Receiver<(u64, bool)> {
        self.changed.subscribe()
    }

    fn write(&self, stream: &str, mark: char, line: &[u8]) -> io::Result<()> {
        use std::io::{Seek as _, Write as _};
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *guard {
            Some(open) => open,
            // The file could not be made when the run began.
            none => none.insert(self.create()?),
        };
        let now = jiff::Timestamp::now();
        let mut record = Vec::with_capacity(line.len() + 64);
        if open.lost > 0 {
            let _ =
                writeln!(record, "{now:.9} stderr F [{} lines are missing here: they could not be written]", open.lost);
        }
        let _ = write!(record, "{now:.9} {stream} {mark} ");
        record.extend_from_slice(line);
        record.push(b'\n');
        if open.size + record.len() as u64 > LARGEST_FILE {
            std::fs::rename(self.path(false), self.rotated_path())?;
            *open = Open { lost: open.lost, ..self.create()? };
        }
        if let Err(error) = open.file.write_all(&record) {
            // Half a record would spoil the next one; without it that one begins where this one did.
            let begun = open.size;
            let _ = open.file.set_len(begun).and_then(|()| open.file.seek(io::SeekFrom::Start(begun)));
            open.lost += 1;
            return if open.lost == 1 { Err(error) } else { Ok(()) };
        }
        open.size += record.len() as u64;
        open.lost = 0;
        drop(guard);
        self.changed.send_modify(|(count, _)| *count += 1);
        Ok(())
    }

    /// Copies a stream of a container into the log until it ends.
    pub(crate) async fn copy(self: Arc<Self>, stream: &'static str, output: impl AsyncRead + Unpin) {
        let mut reader = BufReader::with_capacity(LONGEST_LINE, output);
        loop {
            let (mark, used, line) = match reader.fill_buf().await {
                Ok([]) | Err(_) => return,
                Ok(buffer) => match buffer.iter().position(|byte| *byte == b'\n') {
                    Some(end) => ('F', end + 1, buffer[..end].to_vec()),
                    None => ('P', buffer.len(), buffer.to_vec()),
                },
            };
            reader.consume(used);
            if let Err(error) = self.write(stream, mark, &line) {
                tracing::warn!(container = self.container, %error, "lines of a log cannot be written");
            }
        }
    }
}

/// Removes the logs of a pod.
pub(crate) fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "the logs of a deleted pod could not be removed");
    }
}

/// One record of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// When it was written, RFC 3339.
    pub(crate) time: &'a str,
    /// Whether the line ends here.
    pub(crate) whole: bool,
    /// What the container wrote, without a line end.
    pub(crate) text: &'a str,
}

/// Reads one record; `None` for what is not one.
pub(crate) fn parse(record: &str) -> Option<Line<'_>> {
    let (time, rest) = record.split_once(' ')?;
    let (_stream, rest) = rest.split_once(' ')?;
    let (mark, text) = rest.split_once(' ')?;
    Some(Line { time, whole: mark == "F", text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_becomes_records_and_a_new_run_keeps_the_last_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = ContainerLog::new(directory.path().join("pod"), "app");
        log.begin().expect("the first run");
        Arc::clone(&log).copy("stdout", &b"one\ntwo"[..]).await;
        let text = std::fs::read_to_string(log.path(false)).expect("the log");
        let lines: Vec<_> = text.lines().filter_map(parse).map(|line| (line.whole, line.text)).collect();
        assert_eq!(lines, [(true, "one"), (false, "two")]);
        log.begin().expect("the second run");
        assert_eq!(std::fs::read_to_string(log.path(true)).expect("the previous log"), text);
        assert_eq!(std::fs::read_to_string(log.path(false)).expect("the new log"), "");
    }
}
