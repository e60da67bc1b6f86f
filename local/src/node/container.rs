//! One container over its restarts: started, probed, stopped, and started again after a pause.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::context::PodContext;
use super::launcher::{Exit, LaunchError, Process, Spec, Streams};
use super::probe;
use super::state::{Activity, Ended};

/// When a container is started again after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Always.
    Always,
    /// Unless it has ended well.
    OnFailure,
    /// Never.
    Never,
}

/// By when a container that is to stop will be killed; `None` while it is to run.
pub(crate) type Stop = watch::Receiver<Option<Instant>>;

/// First pause before a restart; it doubles with each until [`LONGEST_PAUSE`]. The very first restart has none. Those of a
/// kubelet with its shorter back-off: who works on a program does not wait five minutes for it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that has run for this long starts with short pauses again.
const STABLE: Duration = LONGEST_PAUSE;
/// How long to wait before looking again whether something that was missing is there.
const MISSING_PAUSE: Duration = Duration::from_secs(5);
/// How long an ended container's log is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of the log that are shown as the message of a run that has failed.
const LAST_LINES: usize = 5;

/// Pauses between restarts.
#[derive(Debug, Default)]
struct BackOff {
    failures: u32,
}

impl BackOff {
    fn next(&mut self, ran: Duration) -> Duration {
        if ran >= STABLE {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            // Six doublings reach the longest pause.
            failures => (FIRST_PAUSE * (1 << (failures - 1).min(6))).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// A container to run.
pub(crate) struct Runner {
    /// Its pod.
    pub(crate) context: Arc<PodContext>,
    /// The container.
    pub(crate) container: Container,
    /// When it is started again.
    pub(crate) restart: Restart,
    /// Tells it to stop.
    pub(crate) stop: Stop,
}

impl Runner {
    /// Runs the container until it has ended for good.
    pub(crate) async fn run(mut self) {
        let mut back_off = BackOff::default();
        loop {
            let begun = Instant::now();
            let Some(ended) = self.run_once().await else {
                // It could not be started; what is missing may come.
                if self.pause(MISSING_PAUSE).await {
                    continue;
                }
                return self.finish(never_started());
            };
            let again = match self.restart {
                Restart::Always => true,
                Restart::OnFailure => ended.exit.status() != 0,
                Restart::Never => false,
            };
            if !again || self.is_stopping() {
                return self.finish(ended);
            }
            let pause = back_off.next(begun.elapsed());
            self.announce_restart(ended, pause);
            if !pause.is_zero() && !self.pause(pause).await {
                let last =
                    self.context.state.borrow().containers.get(&self.container.name).and_then(|it| it.last.clone());
                return self.finish(last.unwrap_or_else(never_started));
            }
        }
    }

    fn name(&self) -> &str {
        &self.container.name
    }

    fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Waits; returns false when the container is to stop.
    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stop.wait_for(Option::is_some)).await.is_err()
    }

    fn finish(&self, ended: Ended) {
        self.context.log(self.name()).close();
        self.context.update(self.name(), |state| {
            state.ready = false;
            state.started = false;
            state.activity = Activity::Ended(ended);
        });
    }

    fn announce_restart(&self, ended: Ended, pause: Duration) {
        let message = format!(
            "back-off {} s restarting container {} of pod {}, which ended with {}",
            pause.as_secs(),
            self.name(),
            self.context.reference.name,
            ended.exit
        );
        if !pause.is_zero() {
            self.context.event("Warning", "BackOff", &message);
        }
        self.context.update(self.name(), |state| {
            state.ready = false;
            state.started = false;
            state.restarts += 1;
            state.last = Some(ended);
            if !pause.is_zero() {
                state.activity = Activity::Waiting { reason: "CrashLoopBackOff", message };
            }
        });
    }

    /// Starts the container and waits until it has ended; `None` when it cannot be started as it is written.
    async fn run_once(&mut self) -> Option<Ended> {
        let started = Timestamp::now();
        let spec = match self.context.compose(&self.container) {
            Ok(spec) => Arc::new(spec),
            Err(error) => {
                self.wait_with(error.reason(), &error.to_string());
                return None;
            }
        };
        // Before the start: what is written while the program starts is noticed as a change.
        let program = super::programs::id(&spec.argv);
        let (mut process, copies) = match self.start(&spec).await {
            Ok(started) => started,
            Err(error) => {
                self.context.event("Warning", "Failed", &format!("container {}: {error}", self.name()));
                let exit = Exit { code: Some(128), signal: None };
                let (message, finished) = (error.to_string(), Timestamp::now());
                return Some(Ended { exit, reason: "StartError", message, started, finished });
            }
        };
        self.context.set_running(self.name(), Some((process.pid, Arc::clone(&spec))));
        let pid = process.pid;
        let exit = match self.greet(&mut process).await {
            Some(exit) => exit,
            None => {
                self.context.update(self.name(), |state| {
                    state.id = format!("local://{:016x}", rand::random::<u64>());
                    state.program = program;
                    state.activity = Activity::Running { since: started, pid };
                    state.started = self.container.startup_probe.is_none();
                    state.ready = state.started && self.container.readiness_probe.is_none();
                });
                self.accompany(process).await
            }
        };
        // What it wrote last is still on its way into the log.
        let _ = tokio::time::timeout(LAST_WORDS, futures_util::future::join_all(copies)).await;
        self.context.set_running(self.name(), None);
        let status = exit.status();
        let message = if status == 0 { String::new() } else { self.last_lines() };
        let reason = if status == 0 { "Completed" } else { "Error" };
        Some(Ended { exit, reason, message, started, finished: Timestamp::now() })
    }

    fn wait_with(&self, reason: &'static str, message: &str) {
        self.context.event("Warning", "Failed", &format!("container {}: {message}", self.name()));
        self.context.update(self.name(), |state| {
            state.activity = Activity::Waiting { reason, message: message.to_owned() };
        });
    }

    /// Starts the program; the tasks copy its output into the log.
    async fn start(&self, spec: &Spec) -> Result<(Process, [JoinHandle<()>; 2]), LaunchError> {
        let log = self.context.log(self.name());
        if let Err(error) = log.begin() {
            // What it says is less than that it runs.
            self.context.event("Warning", "NoLog", &format!("container {} has no log: {error}", self.name()));
        }
        let (stdout_sender, stdout) = pipe::pipe()?;
        let (stderr_sender, stderr) = pipe::pipe()?;
        let streams = Streams {
            stdin: std::fs::File::open("/dev/null")?.into(),
            stdout: stdout_sender.into_blocking_fd()?,
            stderr: stderr_sender.into_blocking_fd()?,
        };
        let tracker = &self.context.shared.tracker;
        let copies =
            [tracker.spawn(Arc::clone(&log).copy("stdout", stdout)), tracker.spawn(log.copy("stderr", stderr))];
        let process = self.context.shared.launcher.start(spec, &self.context.network.namespaces, streams).await?;
        Ok((process, copies))
    }

    /// Runs the postStart hook, before whose end the container does not count as running. Says how the container has
    /// ended if it did so meanwhile, or because the hook has failed.
    async fn greet(&mut self, process: &mut Process) -> Option<Exit> {
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone())?;
        let mut stop = self.stop.clone();
        let outcome = tokio::select! {
            exit = process.wait() => return Some(exit),
            () = async { drop(stop.wait_for(Option::is_some).await) } => return None,
            outcome = self.run_hook(&hook) => outcome,
        };
        let Err(error) = outcome else { return None };
        self.context.event("Warning", "FailedPostStartHook", &format!("container {}: {error}", self.name()));
        process.signal(Signal::KILL);
        Some(process.wait().await)
    }

    /// Waits for the end of a running container: its own, or because it is to stop, or because a probe says so.
    async fn accompany(&mut self, mut process: Process) -> Exit {
        let (context, container) = (Arc::clone(&self.context), self.container.clone());
        let mut stop = self.stop.clone();
        let reason = tokio::select! {
            exit = process.wait() => return exit,
            () = async { drop(stop.wait_for(Option::is_some).await) } => None,
            unhealthy = probe::watch(&context, &container) => Some(unhealthy),
        };
        let grace = Duration::from_secs(
            self.context.spec.termination_grace_period_seconds.unwrap_or(30).try_into().unwrap_or(0),
        );
        let deadline = if let Some(unhealthy) = reason {
            let message = format!("container {} {unhealthy}, will be restarted", self.name());
            self.context.event("Warning", "Killing", &message);
            Instant::now() + grace
        } else {
            (*self.stop.borrow()).unwrap_or_else(|| Instant::now() + grace)
        };
        self.context.update(self.name(), |state| state.ready = false);
        self.end(&mut process, deadline).await
    }

    /// Ends a running container: its preStop hook, SIGTERM, and SIGKILL at the deadline.
    async fn end(&mut self, process: &mut Process, mut deadline: Instant) -> Exit {
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
        if let Some(hook) = hook {
            tokio::select! {
                exit = process.wait() => return exit,
                () = tokio::time::sleep_until(deadline) => {}
                outcome = self.run_hook(&hook) => if let Err(error) = outcome {
                    self.context.event("Warning", "FailedPreStopHook", &format!("container {}: {error}", self.name()));
                }
            }
        }
        if Instant::now() < deadline {
            process.signal(Signal::TERM);
        }
        loop {
            tokio::select! {
                exit = process.wait() => return exit,
                () = tokio::time::sleep_until(deadline) => break,
                // A second deletion may bring the end nearer.
                Ok(()) = self.stop.changed() => {
                    deadline = self.stop.borrow_and_update().map_or(deadline, |sooner| sooner.min(deadline));
                }
            }
        }
        process.signal(Signal::KILL);
        process.wait().await
    }

    async fn run_hook(&self, hook: &LifecycleHandler) -> Result<(), probe::ProbeError> {
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.try_into().unwrap_or(0))).await;
        } else if let Some(exec) = &hook.exec {
            probe::exec(&self.context, self.name(), exec).await?;
        } else if let Some(get) = &hook.http_get {
            probe::http_get(&self.context, &self.container, get).await?;
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read(self.context.log(self.name()).path(false)).unwrap_or_default();
        let tail = text.get(text.len().saturating_sub(4096)..).unwrap_or_default();
        let text = String::from_utf8_lossy(tail);
        let lines: Vec<_> = text.lines().filter_map(super::logs::parse).map(|line| line.text).collect();
        lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
    }
}

fn never_started() -> Ended {
    let now = Timestamp::now();
    let exit = Exit { code: Some(137), signal: None };
    let message = "the container was never started".to_owned();
    Ended { exit, reason: "ContainerStatusUnknown", message, started: now, finished: now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer_and_longer() {
        let mut back_off = BackOff::default();
        let pauses: Vec<_> = (0..8).map(|_| back_off.next(Duration::ZERO).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60]);
        assert_eq!(back_off.next(STABLE), Duration::ZERO);
    }
}
