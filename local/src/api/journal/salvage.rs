//! Reading a journal without opening it: for export, and to save what can be read of a damaged one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Change, Header, OpenError, Record, checked, lock, read, sync_directory, write_whole};
use crate::api::object;

/// What was saved of a damaged journal.
#[derive(Debug, Default)]
pub struct Saved {
    /// Objects that are there now.
    pub objects: usize,
    /// The parts that could not be read, in order.
    pub lost: Vec<Lost>,
    /// Where the damaged file is kept; `None` when it was sound and was left as it is.
    pub copy: Option<PathBuf>,
}

/// A part of a journal that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Resource, namespace and name.
type Key = (String, String, String);

/// The objects that a journal comes to.
#[derive(Default)]
struct Objects(BTreeMap<Key, Value>);

impl Objects {
    fn take(&mut self, record: Record) {
        let Record { change, resource, object } = record;
        let key = (resource, object::namespace(&object).to_owned(), object::name(&object).to_owned());
        match change {
            Change::Deleted => self.0.remove(&key),
            Change::Added | Change::Modified => self.0.insert(key, object),
        };
    }
}

/// The objects of a journal that may be in use, each with its resource; nothing is written.
///
/// # Errors
/// When it cannot be read or is damaged.
pub(crate) fn read_only(path: &Path) -> Result<Vec<(String, Value)>, OpenError> {
    let file = File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let lines = read(path, &file)?;
    let mut objects = Objects::default();
    lines.objects.into_iter().chain(lines.changes).for_each(|record| objects.take(record));
    Ok(objects.0.into_iter().map(|((resource, ..), object)| (resource, object)).collect())
}

/// Puts in the place of a damaged journal one that holds what can be read of it, and keeps the damaged one beside it.
///
/// # Errors
/// When it is in use or cannot be read, or the disk refuses; the journal is as it was then.
pub(crate) fn salvage(path: &Path) -> Result<Saved, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let _lock = lock(path)?;
    let file = File::open(path).map_err(io)?;
    match read(path, &file) {
        Ok(_) => return Ok(Saved::default()),
        Err(OpenError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    let found = readable(&file).map_err(io)?;
    let copy = keep(path).map_err(io)?;
    let objects: Vec<_> = found.objects.0.iter().map(|((resource, ..), object)| (resource.as_str(), object)).collect();
    let temporary = path.with_extension("recovering");
    write_whole(&temporary, &objects, found.next)
        .and_then(|_| std::fs::rename(&temporary, path))
        .and_then(|()| sync_directory(path))
        .map_err(io)?;
    Ok(Saved { objects: objects.len(), lost: found.lost, copy: Some(copy) })
}

/// Everything in a file that is what was written.
struct Found {
    objects: Objects,
    lost: Vec<Lost>,
    /// A version that no change in the file can have had.
    next: u64,
}

fn readable(file: &File) -> std::io::Result<Found> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    std::io::Seek::rewind(&mut reader)?;
    let mut found = Found { objects: Objects::default(), lost: Vec::new(), next: 0 };
    let (mut at, mut buffer, mut first_version) = (0, Vec::new(), 0);
    loop {
        buffer.clear();
        let length = reader.read_until(b'\n', &mut buffer)? as u64;
        if length == 0 {
            break;
        }
        let complete = buffer.pop_if(|last| *last == b'\n').is_some();
        match understood(&buffer, complete) {
            Ok(Line::Header(header)) => first_version = header.offset,
            Ok(Line::Record(record)) => {
                found.next = found.next.max(object::version(&record.object) + length);
                found.objects.take(record);
            }
            Err(what) => found.lose(Lost { offset: at, length, what }),
        }
        at += length;
    }
    found.next = found.next.max(first_version + at);
    Ok(found)
}

impl Found {
    /// Notes a part that is lost; neighbours become one.
    fn lose(&mut self, part: Lost) {
        match self.lost.last_mut() {
            Some(last) if last.offset + last.length == part.offset => last.length += part.length,
            _ => self.lost.push(part),
        }
    }
}

enum Line {
    Header(Header),
    Record(Record),
}

fn understood(line: &[u8], complete: bool) -> Result<Line, String> {
    if !complete {
        return Err("the last line is cut short".to_owned());
    }
    let json = checked(line)?;
    match serde_json::from_slice::<Header>(json) {
        Ok(header) => Ok(Line::Header(header)),
        Err(_) => serde_json::from_slice(json).map(Line::Record).map_err(|error| error.to_string()),
    }
}

/// Keeps the file under another name, without a byte of the disk if the file system can.
fn keep(path: &Path) -> std::io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for attempt in 0.. {
        let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        let copy = path.with_extension(format!("damaged-{stamp}{suffix}"));
        match std::fs::hard_link(path, &copy) {
            Ok(()) => return Ok(copy),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(_) => return std::fs::copy(path, &copy).map(|_| copy),
        }
    }
    unreachable!("the loop ends by returning")
}
