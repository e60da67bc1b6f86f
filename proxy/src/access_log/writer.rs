//! The thread that writes lines, and what waits for it. Whatever the output does, nobody waits who hands over a line.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines wait this long for others, so that they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// Heaps of lines, so that threads that hand over lines do not wait for each other.
const HEAPS: usize = 4;
/// Lines that wait in one heap beyond so many bytes are dropped, and counted.
const MAX_WAITING: usize = 2 * 1024 * 1024;
/// Memory kept for lines between two writes.
const GATHERED: usize = 64 * 1024;
/// How long the end waits for an output that takes nothing.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    heaps: [Mutex<Vec<u8>>; HEAPS],
    /// Whether the thread knows already that there are lines.
    is_called: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    is_called: bool,
    is_closing: bool,
    is_done: bool,
}

thread_local! {
    /// The heap of a thread.
    static HEAP: Cell<usize> = const { Cell::new(usize::MAX) };
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

fn heap() -> usize {
    HEAP.with(|heap| {
        if heap.get() == usize::MAX {
            heap.set(THREADS.fetch_add(1, Ordering::Relaxed) % HEAPS);
        }
        heap.get()
    })
}

impl Writer {
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || seen.write_all(out))?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    pub(super) fn line(&self, line: &[u8]) {
        let shared = &*self.shared;
        {
            let mut heap = lock(shared.heaps.get(heap()).unwrap_or(&shared.heaps[0]));
            if heap.len() + line.len() > MAX_WAITING {
                drop(heap);
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            heap.extend_from_slice(line);
        }
        // The thread takes its call back before it looks into the heaps: a line that it does not find calls again.
        if !shared.is_called.load(Ordering::Acquire) && !shared.is_called.swap(true, Ordering::AcqRel) {
            lock(&shared.state).is_called = true;
            shared.changed.notify_all();
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn write_all(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        let mut is_failing = false;
        loop {
            let mut state = lock(&self.state);
            while !state.is_called && !state.is_closing {
                state = wait(&self.changed, state);
            }
            if !state.is_closing {
                // Nothing notifies now but the end.
                state = self.changed.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner).0;
            }
            state.is_called = false;
            let is_closing = state.is_closing;
            drop(state);
            self.is_called.store(false, Ordering::Release);
            for heap in &self.heaps {
                std::mem::swap(&mut *lock(heap), &mut lines);
                self.write(&mut out, &lines, &mut is_failing);
                lines.clear();
                lines.shrink_to(GATHERED);
            }
            if is_closing {
                lock(&self.state).is_done = true;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Writes lines. What cannot be written is gone, as newer lines are worth more; it is said once, not for each.
    fn write(&self, out: &mut impl Write, lines: &[u8], is_failing: &mut bool) {
        if lines.is_empty() {
            return;
        }
        match out.write_all(lines).and_then(|()| out.flush()) {
            Ok(()) if *is_failing => {
                *is_failing = false;
                tracing::info!("the access log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let lost = memchr::memchr_iter(b'\n', lines).count();
                self.dropped.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
                if !*is_failing {
                    *is_failing = true;
                    tracing::warn!(%error, "the access log cannot be written; its lines are dropped until it can");
                }
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.is_closing = true;
        self.shared.changed.notify_all();
        let waiting = self.shared.changed.wait_timeout_while(state, FAREWELL, |state| !state.is_done);
        let is_done = waiting.unwrap_or_else(PoisonError::into_inner).0.is_done;
        if let Some(thread) = self.thread.take()
            && (is_done || thread.is_finished())
        {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}

fn wait<'s>(changed: &Condvar, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
    changed.wait(state).unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// An output that answers as it is told, one answer for each write; it waits for the next one.
    struct Told(Receiver<io::Result<()>>, Arc<Mutex<Vec<u8>>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().unwrap_or(Ok(()))?;
            lock(&self.1).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_before_the_log_is_gone() {
        let (answers, told) = channel();
        drop(answers);
        let written = Arc::default();
        let writer = Writer::start(Told(told, Arc::clone(&written))).expect("starts");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let writer = &writer;
                scope.spawn(move || (0..1000).for_each(|at| writer.line(format!("{thread} {at}\n").as_bytes())));
            }
        });
        drop(writer);
        assert_eq!(lock(&written).split(|byte| *byte == b'\n').count(), 8001);
    }

    #[test]
    fn an_output_that_takes_nothing_holds_nobody_up() {
        let (answers, told) = channel();
        let written = Arc::default();
        let writer = Writer::start(Told(told, Arc::clone(&written))).expect("starts");
        let line = [b'x'; 1024];
        // The first heap may have been taken already when the output gets stuck.
        let most = 2 * (MAX_WAITING / line.len()) as u64;
        for _ in 0..most + 10 {
            writer.line(&line);
        }
        assert!(writer.dropped() >= 10, "{} were dropped", writer.dropped());
        // The end does not wait for ever either.
        drop(writer);
        drop(answers);
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_counted() {
        let (answers, told) = channel();
        let written = Arc::default();
        let writer = Writer::start(Told(told, Arc::clone(&written))).expect("starts");
        writer.line(b"lost\n");
        answers.send(Err(io::ErrorKind::StorageFull.into())).expect("it is waited for");
        while writer.failures() == 0 {
            std::thread::yield_now();
        }
        while writer.dropped() == 0 {
            std::thread::yield_now();
        }
        assert_eq!((writer.failures(), writer.dropped()), (1, 1));
        drop(answers);
        writer.line(b"kept\n");
        drop(writer);
        assert_eq!(*lock(&written), b"kept\n");
    }
}
