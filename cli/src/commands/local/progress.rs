//! How pods come up: their state in few words, and a picture of it that moves on a terminal.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::Value;
use tokio::time::Instant;

use crate::mesh::is_ready;
use crate::output::Ui;
use crate::resources::{name_of, namespace_of, text};
use crate::wait::took;

/// Words that kubelets use for containers that cannot start, and that time alone does not heal.
const FATAL: [&str; 7] = [
    "ImageNotResolved",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// A container that has ended this often by itself is not going to work.
const RESTARTS: u64 = 3;

/// How far a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PodState {
    /// It is ready, or has done its work.
    Ready,
    /// It is on its way.
    Starting(String),
    /// It does not work.
    Failing(Failure),
}

/// Why a pod does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The container.
    pub(super) container: String,
    /// One word, as `CrashLoopBackOff`.
    pub(super) reason: String,
    /// What the node says about it.
    pub(super) message: String,
    /// How often the container was started again.
    pub(super) restarts: u64,
    /// Whether it is not even tried again.
    is_hopeless: bool,
}

impl PodState {
    /// The state of a pod, from its status.
    pub(super) fn of(pod: &Value) -> Self {
        if is_ready(pod) || text(pod, &["status", "phase"]) == Some("Succeeded") {
            return PodState::Ready;
        }
        let mut starting = None;
        for status in statuses(pod) {
            if let Some(failure) = failure(status) {
                return PodState::Failing(failure);
            }
            let name = text(status, &["name"]).unwrap_or_default();
            if starting.is_none()
                && status.get("ready").and_then(Value::as_bool) != Some(true)
                && !has_completed(status)
            {
                let what = match status.pointer("/state/running") {
                    Some(_) => "not ready yet",
                    None => text(status, &["state", "waiting", "reason"]).unwrap_or("waiting"),
                };
                starting = Some(format!("{name}: {what}"));
            }
        }
        if text(pod, &["status", "phase"]) == Some("Failed") {
            let text = |field: &str| text(pod, &["status", field]).unwrap_or_default().to_owned();
            let (reason, message) = (text("reason"), text("message"));
            return PodState::Failing(Failure {
                container: String::new(),
                reason,
                message,
                restarts: 0,
                is_hopeless: true,
            });
        }
        PodState::Starting(starting.unwrap_or_else(|| "waiting for the node".to_owned()))
    }
}

impl Failure {
    /// Whether waiting longer is of no use.
    pub(super) fn is_final(&self) -> bool {
        self.is_hopeless || self.restarts >= RESTARTS
    }
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|field| pod.pointer(&format!("/status/{field}"))?.as_array())
        .flatten()
}

fn has_completed(status: &Value) -> bool {
    status.pointer("/state/terminated/exitCode").and_then(Value::as_i64) == Some(0)
}

fn failure(status: &Value) -> Option<Failure> {
    let restarts = status.get("restartCount").and_then(Value::as_u64).unwrap_or(0);
    let container = text(status, &["name"]).unwrap_or_default().to_owned();
    let waiting = status.pointer("/state/waiting");
    if let Some(waiting) = waiting {
        let reason = text(waiting, &["reason"]).unwrap_or_default();
        let is_crash = reason == "CrashLoopBackOff";
        if is_crash || FATAL.contains(&reason) {
            let before = status.pointer("/lastState/terminated");
            let why = before.and_then(|before| text(before, &["message"])).filter(|why| !why.is_empty());
            let message = why.or(text(waiting, &["message"])).unwrap_or_default().to_owned();
            return Some(Failure { container, reason: reason.to_owned(), message, restarts, is_hopeless: !is_crash });
        }
    }
    let terminated = status.pointer("/state/terminated")?;
    let code = terminated.get("exitCode").and_then(Value::as_i64).filter(|code| *code != 0)?;
    let reason = text(terminated, &["reason"]).unwrap_or("Error").to_owned();
    let message = match text(terminated, &["message"]) {
        Some(message) if !message.is_empty() => message.to_owned(),
        _ => format!("it ended with exit code {code}"),
    };
    Some(Failure { container, reason, message, restarts, is_hopeless: false })
}

/// `namespace/name`.
pub(super) fn key(pod: &Value) -> String {
    format!("{}/{}", namespace_of(pod), name_of(pod))
}

/// A picture of pods coming up: redrawn on a terminal, line by line elsewhere.
pub(super) struct Picture {
    ui: Ui,
    drawn: usize,
    started: Instant,
    said: BTreeMap<String, String>,
}

impl Picture {
    pub(super) fn new(ui: Ui, started: Instant) -> Self {
        Picture { ui, drawn: 0, started, said: BTreeMap::new() }
    }

    /// Shows one line about something that is under way.
    pub(super) fn step(&mut self, words: &str) {
        if self.ui.is_live {
            let line = format!("{} {words}  {}", self.ui.err.dim("…"), self.ui.err.dim(&took(self.started.elapsed())));
            self.redraw(&[line]);
        } else if self.said.insert(String::new(), words.to_owned()).as_deref() != Some(words) {
            self.ui.say(words);
        }
    }

    /// Shows how far all pods are.
    pub(super) fn pods(&mut self, pods: &[Value]) {
        let states: Vec<(String, PodState)> = pods.iter().map(|pod| (key(pod), PodState::of(pod))).collect();
        if !self.ui.is_live {
            for (key, state) in &states {
                self.say_once(key, state);
            }
            return;
        }
        let ready = states.iter().filter(|(_, state)| *state == PodState::Ready).count();
        let took = self.ui.err.dim(&took(self.started.elapsed()));
        let mut lines = vec![format!("{ready} of {} pods ready  {took}", states.len())];
        for (key, state) in states.iter().filter(|(_, state)| *state != PodState::Ready).take(12) {
            lines.push(match state {
                PodState::Failing(why) => {
                    format!("  {} {key}  {}: {}", self.ui.err.error("✗"), why.container, why.reason)
                }
                PodState::Starting(what) => format!("  {} {key}  {}", self.ui.err.dim("…"), self.ui.err.dim(what)),
                PodState::Ready => continue,
            });
        }
        self.redraw(&lines);
    }

    fn say_once(&mut self, key: &str, state: &PodState) {
        let words = match state {
            PodState::Ready => format!("ready    {key}"),
            PodState::Failing(why) => format!("failing  {key}: {}: {}", why.container, why.reason),
            PodState::Starting(_) => return,
        };
        if self.said.get(key) != Some(&words) {
            self.ui.say(&words);
            self.said.insert(key.to_owned(), words);
        }
    }

    /// Takes the picture away.
    pub(super) fn clear(&mut self) {
        self.redraw(&[]);
    }

    fn redraw(&mut self, lines: &[String]) {
        if !self.ui.is_live {
            return;
        }
        let width = usize::from(console::Term::stderr().size().1).max(20) - 1;
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
        }
        for line in lines {
            text.push_str(&console::truncate_str(line, width, "…"));
            text.push('\n');
        }
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        self.drawn = lines.len();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(state: &Value, restarts: u64) -> Value {
        json!({ "status": { "phase": "Running", "containerStatuses": [ { "name": "app", "ready": false, "restartCount": restarts, "state": state } ] } })
    }

    #[test]
    fn a_pod_that_cannot_start_is_told_from_one_that_needs_time() {
        let crash = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
        let image = json!({ "waiting": { "reason": "ImageNotResolved", "message": "no program for x" } });
        let is_final = |pod: &Value| match PodState::of(pod) {
            PodState::Failing(failure) => Some(failure.is_final()),
            _ => None,
        };
        assert_eq!(is_final(&pod(&crash, 1)), Some(false));
        assert_eq!(is_final(&pod(&crash, 3)), Some(true));
        assert_eq!(is_final(&pod(&image, 0)), Some(true));
        assert_eq!(is_final(&pod(&json!({ "running": {} }), 0)), None);
        assert_eq!(
            PodState::of(&pod(&json!({ "running": {} }), 0)),
            PodState::Starting("app: not ready yet".to_owned())
        );
        assert_eq!(PodState::of(&json!({ "status": { "phase": "Succeeded" } })), PodState::Ready);
    }
}
