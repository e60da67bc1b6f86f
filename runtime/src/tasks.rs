//! Tasks that belong to someone: named, cancelled by a token, joined on exit, and never lost in silence.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with one owner. Clones are handles on the same set.
///
/// A task should watch [`Tasks::token`] where it waits; whoever owns the set cancels and joins it.
/// A panic in a task is logged with the task's name and counted, and ends that task alone.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    tracker: TaskTracker,
    token: CancellationToken,
    panics: AtomicU64,
    failure: Mutex<Option<TaskFailure>>,
    running: Mutex<BTreeMap<&'static str, usize>>,
}

/// Why the daemon cannot go on: a task that it cannot do without has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task {task} has ended: {reason}")]
pub struct TaskFailure {
    /// The task's name.
    pub task: &'static str,
    /// What it said, or the panic's message.
    pub reason: String,
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks::new()
    }
}

impl Tasks {
    /// An empty set with a token of its own.
    #[must_use]
    pub fn new() -> Self {
        Tasks::under(&CancellationToken::new())
    }

    /// An empty set that is cancelled when `parent` is.
    #[must_use]
    pub fn under(parent: &CancellationToken) -> Self {
        Tasks {
            shared: Arc::new(Shared {
                tracker: TaskTracker::new(),
                token: parent.child_token(),
                panics: AtomicU64::new(0),
                failure: Mutex::new(None),
                running: Mutex::new(BTreeMap::new()),
            }),
        }
    }

    /// Cancelled when the set's tasks should end.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.shared.token
    }

    /// Starts a task that may end at any time.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = self.enter(name);
        self.shared.tracker.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                running.tasks.report_panic(name, panic.as_ref());
            }
        });
    }

    /// Starts a task that is dropped where it waits when the set is cancelled: for one that would never end by itself.
    pub fn spawn_until_cancelled<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.shared.token.clone();
        self.spawn(name, async move {
            let _ = token.run_until_cancelled(future).await;
        });
    }

    /// Starts a task without which the daemon cannot go on: when it fails or panics, the set is cancelled and
    /// [`Tasks::failure`] says why.
    pub fn spawn_vital<F, E>(&self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let running = self.enter(name);
        self.shared.tracker.spawn(async move {
            let reason = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => running.tasks.report_panic(name, panic.as_ref()),
            };
            running.tasks.fail(TaskFailure { task: name, reason });
        });
    }

    /// The first failure of a vital task.
    #[must_use]
    pub fn failure(&self) -> Option<TaskFailure> {
        lock(&self.shared.failure).clone()
    }

    /// Number of tasks that have panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Names of the tasks that run, each with how many there are.
    #[must_use]
    pub fn running(&self) -> Vec<(&'static str, usize)> {
        lock(&self.shared.running).iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// Waits until every task has ended, whether cancelled or not. Tasks that are started meanwhile are waited for too.
    pub async fn join(&self) {
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    /// Cancels the set and waits for its tasks for at most `grace`; names those that have not ended.
    ///
    /// # Errors
    ///
    /// The names of the tasks that still run.
    pub async fn stop(&self, grace: Duration) -> Result<(), Vec<(&'static str, usize)>> {
        self.shared.token.cancel();
        tokio::time::timeout(grace, self.join()).await.map_err(|_| self.running())
    }

    fn enter(&self, name: &'static str) -> Running {
        *lock(&self.shared.running).entry(name).or_default() += 1;
        Running { tasks: self.clone(), name }
    }

    fn report_panic(&self, name: &'static str, panic: &(dyn Any + Send)) -> String {
        self.shared.panics.fetch_add(1, Ordering::Relaxed);
        let reason = panic_message(panic);
        tracing::error!(task = name, reason, "a task has panicked");
        format!("it panicked: {reason}")
    }

    fn fail(&self, failure: TaskFailure) {
        lock(&self.shared.failure).get_or_insert(failure);
        self.shared.token.cancel();
    }
}

/// Counts a task as running while it lives, so that it is uncounted even when its future is dropped.
struct Running {
    tasks: Tasks,
    name: &'static str,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.tasks.shared.running);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_its_task_alone() {
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") });
        tasks.spawn("good", async {});
        tasks.join().await;
        assert_eq!(tasks.panics(), 1);
        assert_eq!(tasks.failure(), None);
        assert!(!tasks.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_vital_task_cancels_the_others_and_says_why() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("waits", async move { token.cancelled().await });
        tasks.spawn_vital("listener", async { Err("the port is gone") });
        tasks.join().await;
        let failure = tasks.failure().expect("a vital task has failed");
        assert_eq!(failure.to_string(), "the task listener has ended: the port is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_named() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        let left = tasks.stop(Duration::from_secs(1)).await.expect_err("it never ends");
        assert_eq!(left, vec![("stubborn", 1)]);
    }
}
