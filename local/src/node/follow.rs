//! Reading logs: from the end, since a time, and on while they grow.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::Shared;
use super::logs::{ContainerLog, parse};
use crate::api::{ApiError, ApiResult, LogRequest};

/// Where a log is, and whether it may grow.
pub(crate) struct Source {
    files: Vec<PathBuf>,
    growing: Option<watch::Receiver<(u64, bool)>>,
}

impl Source {
    /// Finds the log that a request means.
    ///
    /// # Errors
    /// When the container has no log, or had no previous run.
    pub(crate) fn find(shared: &Shared, request: &LogRequest) -> ApiResult<Self> {
        let context = shared.pod(&request.pod);
        let log = match &context {
            Some(context) => context.log(&request.container),
            None => ContainerLog::new(shared.pod_logs(&request.pod), &request.container),
        };
        if request.previous {
            let path = log.path(true);
            if !path.exists() {
                let message = format!(
                    "previous terminated container \"{}\" in pod \"{}\" not found",
                    request.container, request.pod.name
                );
                return Err(ApiError::bad_request(message));
            }
            return Ok(Self { files: vec![path], growing: None });
        }
        let path = log.path(false);
        if !path.exists() {
            let waiting = context.as_ref().map(|context| {
                let state = context.state.borrow();
                match state.containers.get(&request.container).map(|state| state.activity.clone()) {
                    Some(super::state::Activity::Waiting { reason, .. }) => reason,
                    _ => "ContainerCreating",
                }
            });
            let message = format!(
                "container \"{}\" in pod \"{}\" is waiting to start: {}",
                request.container,
                request.pod.name,
                waiting.unwrap_or("PodInitializing")
            );
            return Err(ApiError::bad_request(message));
        }
        let files = [log.rotated_path(), path].into_iter().filter(|path| path.exists()).collect();
        let growing = context.filter(|_| request.follow).map(|_| log.subscribe());
        Ok(Self { files, growing })
    }
}

/// Sends what the request asks for, until its end or until nobody reads it.
pub(crate) async fn send(source: Source, request: LogRequest, sender: mpsc::Sender<io::Result<Bytes>>) {
    let outcome = Reader::new(request).run(source, &sender).await;
    if let Err(error) = outcome {
        let _ = sender.send(Err(error)).await;
    }
}

struct Reader {
    request: LogRequest,
    left: Option<u64>,
    /// Whether the next record goes on with a line.
    inside: bool,
}

/// What a chunk may hold before it is sent.
const CHUNK: usize = 32 << 10;

impl Reader {
    fn new(request: LogRequest) -> Self {
        Self { left: request.limit_bytes, request, inside: false }
    }

    async fn run(&mut self, source: Source, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let since = self.request.since_seconds.and_then(|seconds| i64::try_from(seconds).ok()).map(|seconds| {
            Timestamp::from_second(Timestamp::now().as_second() - seconds).unwrap_or(Timestamp::UNIX_EPOCH)
        });
        let tail = self.request.tail_lines.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let mut files = source.files;
        let Some(last) = files.pop() else { return Ok(()) };
        let (records, mut position) = read_all(&files, &last, tail, since)?;
        if !self.deliver(records, sender).await {
            return Ok(());
        }
        let Some(mut growing) = source.growing else { return Ok(()) };
        loop {
            let open = growing.borrow_and_update().1;
            let length = std::fs::metadata(&last).map(|facts| facts.len()).unwrap_or(0);
            if length < position {
                // Rotated, or a new run.
                position = 0;
            }
            let (records, end) = read_from(&last, position)?;
            position = end;
            if !self.deliver(records, sender).await || !open {
                return Ok(());
            }
            tokio::select! {
                changed = growing.changed() => if changed.is_err() { return Ok(()) },
                () = sender.closed() => return Ok(()),
            }
        }
    }

    /// Returns false when nobody reads any more, or the limit is reached.
    async fn deliver(
        &mut self,
        records: impl IntoIterator<Item = String>,
        sender: &mpsc::Sender<io::Result<Bytes>>,
    ) -> bool {
        let mut chunk = Vec::new();
        for record in records {
            self.append(&record, &mut chunk);
            let full = self.left.is_some_and(|left| chunk.len() as u64 >= left);
            if (full || chunk.len() >= CHUNK) && !self.flush(&mut chunk, sender).await {
                return false;
            }
        }
        self.flush(&mut chunk, sender).await
    }

    fn append(&mut self, record: &str, chunk: &mut Vec<u8>) {
        let Some(line) = parse(record) else { return };
        if self.request.timestamps && !self.inside {
            chunk.extend_from_slice(line.time.as_bytes());
            chunk.push(b' ');
        }
        chunk.extend_from_slice(line.text.as_bytes());
        if line.whole {
            chunk.push(b'\n');
        }
        self.inside = !line.whole;
    }

    async fn flush(&mut self, chunk: &mut Vec<u8>, sender: &mpsc::Sender<io::Result<Bytes>>) -> bool {
        let mut bytes = std::mem::take(chunk);
        if let Some(left) = &mut self.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        let more = self.left != Some(0);
        (bytes.is_empty() || sender.send(Ok(bytes.into())).await.is_ok()) && more
    }
}

/// The records asked for, and the position behind the last one in the last file.
fn read_all(
    older: &[PathBuf],
    last: &PathBuf,
    tail: Option<usize>,
    since: Option<Timestamp>,
) -> io::Result<(VecDeque<String>, u64)> {
    let mut kept = VecDeque::new();
    let mut position = 0;
    for file in older.iter().chain([last]) {
        let (records, end) = read_from(file, 0)?;
        position = end;
        for record in records {
            let young = since.is_none_or(|since| {
                record
                    .split_once(' ')
                    .and_then(|(time, _)| time.parse::<Timestamp>().ok())
                    .is_some_and(|at| at >= since)
            });
            if young {
                kept.push_back(record);
            }
            if tail.is_some_and(|tail| kept.len() > tail) {
                kept.pop_front();
            }
        }
    }
    Ok((kept, position))
}

/// Whole records from a position on.
fn read_from(file: &PathBuf, position: u64) -> io::Result<(Vec<String>, u64)> {
    let mut reader = BufReader::new(std::fs::File::open(file)?);
    reader.seek(io::SeekFrom::Start(position))?;
    let mut records = Vec::new();
    let mut end = position;
    loop {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((records, end));
        }
        line.pop();
        end += read as u64;
        records.push(String::from_utf8_lossy(&line).into_owned());
    }
}
