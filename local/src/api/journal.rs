//! The append-only file behind the store.
//!
//! Every line is `crc32 json\n`. The first is a header, then come as many lines as the header says with the objects
//! that were alive at the last compaction, then one line per change. A change's resource version is its logical
//! offset: the bytes of all changes ever written before it, so it only grows, over compactions and restarts too.
//!
//! A write is acknowledged when the kernel has it, so it survives the death of the process; a thread of the journal's
//! own brings it to the disk at once, in groups (all that was written while the previous `fsync` ran).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

mod salvage;

pub use salvage::{Lost, Saved};
pub(crate) use salvage::{read_only, salvage};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot open the journal {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the journal {} is in use by another process; stop it first (`meshctl local down`)", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Something in the middle is not what was written.
    #[error(
        "the journal {} is damaged at byte {offset}: {what}; nothing was changed\nhint: the same `meshctl local up` with \
         --recover keeps a copy of it and goes on with everything that can be read",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the damaged line begins.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Change {
    /// It is new.
    Added,
    /// It has changed.
    Modified,
    /// It is gone; the object is its last state.
    Deleted,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record<O = Value> {
    pub(crate) change: Change,
    pub(crate) resource: String,
    pub(crate) object: O,
}

#[derive(Serialize, Deserialize)]
struct Header {
    journal: String,
    objects: u64,
    offset: u64,
}

const MAGIC: &str = "meshctl-local-1";
/// An object larger than this is refused: everything here is held in memory, too.
const MAX_LINE: usize = 2 << 20;

/// What opening found.
pub(crate) struct Replay {
    pub(crate) journal: Journal,
    /// Objects alive at the last compaction.
    pub(crate) objects: Vec<Record>,
    /// Changes since.
    pub(crate) changes: Vec<Record>,
    /// Bytes of a torn last line that were cut off.
    pub(crate) torn: u64,
}

/// The open file.
pub(crate) struct Journal {
    path: PathBuf,
    file: Arc<File>,
    _lock: File,
    /// Position in the file where changes begin.
    changes_at: u64,
    /// Logical offset of that position.
    offset: u64,
    length: u64,
    broken: Option<String>,
    syncer: Syncer,
}

impl Journal {
    /// Opens or makes the journal, checks every line, and cuts off a torn last one.
    pub(crate) fn open(path: &Path) -> Result<Replay, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let lock = lock(path)?;
        let mut file = private().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            write_header(&mut file, 0, 2).map_err(io)?;
            sync_directory(path).map_err(io)?;
        }
        let lines = read(path, &file)?;
        if lines.torn > 0 {
            file.set_len(lines.end).map_err(io)?;
        }
        let file = Arc::new(file);
        let syncer = Syncer::start(file.clone()).map_err(io)?;
        let (changes_at, offset) = (lines.changes_at, lines.offset);
        let journal = Self {
            path: path.to_owned(),
            file,
            _lock: lock,
            changes_at,
            offset,
            length: lines.end,
            broken: None,
            syncer,
        };
        Ok(Replay { journal, objects: lines.objects, changes: lines.changes, torn: lines.torn })
    }

    /// The resource version that the next change will have.
    pub(crate) fn next_version(&self) -> u64 {
        self.offset + (self.length - self.changes_at)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends a change whose object carries [`Journal::next_version`]; returns the line's length.
    ///
    /// # Errors
    /// When the disk refuses, nothing is appended. If what was half written cannot be taken back either, every later
    /// write is refused, as it would follow a damaged line.
    pub(crate) fn append(&mut self, record: &Record<&Value>) -> std::io::Result<u64> {
        if let Some(broken) = &self.broken {
            return Err(std::io::Error::other(broken.clone()));
        }
        let line = line(record)?;
        if line.len() > MAX_LINE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        if let Err(error) = self.file.write_all_at(&line, self.length) {
            if let Err(undo) = self.file.set_len(self.length) {
                self.broken = Some(format!("the journal could not be repaired after a failed write: {undo}"));
            }
            return Err(error);
        }
        self.length += line.len() as u64;
        self.syncer.wake();
        Ok(line.len() as u64)
    }

    /// Replaces the file by one that holds only `objects`. The old file stays in force until the new one is on disk.
    pub(crate) fn compact<'a>(&mut self, objects: impl Iterator<Item = (&'a str, &'a Value)>) -> std::io::Result<()> {
        let next = self.next_version();
        let temporary = self.path.with_extension("compacting");
        let written = write_whole(&temporary, &objects.collect::<Vec<_>>(), next).and_then(|written| {
            std::fs::rename(&temporary, &self.path)?;
            Ok(written)
        });
        let (file, length) = written.inspect_err(|_| {
            // On a full disk a half-written file would take the place that is missing.
            let _ = std::fs::remove_file(&temporary);
        })?;
        sync_directory(&self.path)?;
        self.file = Arc::new(file);
        self.syncer.replace(self.file.clone());
        (self.changes_at, self.offset, self.length) = (length, next, length);
        self.broken = None;
        Ok(())
    }
}

struct Lines {
    objects: Vec<Record>,
    changes: Vec<Record>,
    changes_at: u64,
    offset: u64,
    end: u64,
    torn: u64,
}

fn read(path: &Path, file: &File) -> Result<Lines, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let damaged = |offset, what: String| OpenError::Damaged { path: path.to_owned(), offset, what };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut lines = Lines { objects: vec![], changes: vec![], changes_at: 0, offset: 0, end: 0, torn: 0 };
    let mut header: Option<Header> = None;
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let read = reader.read_until(b'\n', &mut buffer).map_err(io)? as u64;
        if read == 0 {
            break;
        }
        let complete = buffer.pop_if(|last| *last == b'\n').is_some();
        let in_changes = header.as_ref().is_some_and(|header| lines.objects.len() as u64 == header.objects);
        if !complete {
            if !in_changes {
                return Err(damaged(lines.end, "the part written by the last compaction is cut short".into()));
            }
            lines.torn = read;
            return Ok(lines);
        }
        let json = checked(&buffer).map_err(|what| damaged(lines.end, what.into()))?;
        let Some(known) = &header else {
            let parsed: Header = serde_json::from_slice(json).map_err(|e| damaged(0, e.to_string()))?;
            if parsed.journal != MAGIC {
                return Err(damaged(0, format!("it is a journal of kind {}, not {MAGIC}", parsed.journal)));
            }
            lines.offset = parsed.offset;
            lines.end += read;
            lines.changes_at = lines.end;
            header = Some(parsed);
            continue;
        };
        let record: Record = serde_json::from_slice(json).map_err(|e| damaged(lines.end, e.to_string()))?;
        if (lines.objects.len() as u64) < known.objects {
            lines.objects.push(record);
            lines.changes_at = lines.end + read;
        } else {
            let expected = lines.offset + (lines.end - lines.changes_at);
            let found = super::object::version(&record.object);
            if found != expected {
                return Err(damaged(lines.end, format!("resource version {found} stands where {expected} belongs")));
            }
            lines.changes.push(record);
        }
        lines.end += read;
    }
    match header {
        Some(header) if lines.objects.len() as u64 == header.objects => Ok(lines),
        _ => Err(damaged(lines.end, "the part written by the last compaction is cut short".into())),
    }
}

/// Takes the lock that belongs to a journal.
fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let lock = private().create(true).truncate(false).write(true).open(path.with_extension("lock")).map_err(io)?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(error) => Err(io(error.into())),
    }
}

/// Writes a journal that holds only `objects`, and brings it to the disk; returns its length too.
fn write_whole(path: &Path, objects: &[(&str, &Value)], next: u64) -> std::io::Result<(File, u64)> {
    let mut file = private().read(true).write(true).create(true).truncate(true).open(path)?;
    let mut length = write_header(&mut file, objects.len() as u64, next)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    for (resource, object) in objects {
        let line = line(&Record { change: Change::Added, resource: (*resource).to_owned(), object: *object })?;
        writer.write_all(&line)?;
        length += line.len() as u64;
    }
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, length))
}

fn write_header(file: &mut File, objects: u64, offset: u64) -> std::io::Result<u64> {
    let line = line(&Header { journal: MAGIC.into(), objects, offset })?;
    file.write_all(&line)?;
    Ok(line.len() as u64)
}

fn line(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = b"00000000 ".to_vec();
    serde_json::to_writer(&mut line, value)?;
    let checksum = format!("{:08x}", crc32(&line[9..]));
    line[..8].copy_from_slice(checksum.as_bytes());
    line.push(b'\n');
    Ok(line)
}

fn checked(line: &[u8]) -> Result<&[u8], &'static str> {
    let (checksum, json) = match (line.get(..8), line.get(8), line.get(9..)) {
        (Some(checksum), Some(b' '), Some(json)) => (checksum, json),
        _ => return Err("the line has no checksum"),
    };
    if checksum != format!("{:08x}", crc32(json)).as_bytes() {
        return Err("the line is not what its checksum says");
    }
    Ok(json)
}

/// Secrets are among the objects, so nobody else may read the file.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// CRC-32 as in Ethernet and gzip.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// The thread that calls `fsync`.
struct Syncer {
    shared: Arc<(Mutex<Pending>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

struct Pending {
    file: Arc<File>,
    dirty: bool,
    closing: bool,
}

impl Syncer {
    fn start(file: Arc<File>) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Pending { file, dirty: false, closing: false }), Condvar::new()));
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("journal-sync".into()).spawn(move || Self::run(&theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn run((pending, changed): &(Mutex<Pending>, Condvar)) {
        let mut guard = pending.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while !guard.dirty && !guard.closing {
                guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            if !guard.dirty {
                return;
            }
            guard.dirty = false;
            let file = guard.file.clone();
            drop(guard);
            if let Err(error) = file.sync_data() {
                tracing::error!(%error, "the journal cannot be brought to the disk; free space or check the disk");
            }
            guard = pending.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake(&self) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).dirty = true;
        self.shared.1.notify_one();
    }

    fn replace(&self, file: Arc<File>) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).file = file;
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
