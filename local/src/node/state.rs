//! How the containers of a pod are doing, and the pod's status made of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::{Value, json};

use super::launcher::Exit;
use super::network::NODE_ADDRESS;

/// What a container is doing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Activity {
    /// It is not running yet, or not again.
    Waiting {
        /// One word, as `CrashLoopBackOff`.
        reason: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// Its program runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// Process ID of the container's init, as the node sees it.
        pid: i32,
    },
    /// It has ended and will not be started again.
    Ended(Ended),
}

/// One finished run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) exit: Exit,
    /// One word, as `Error`.
    pub(crate) reason: &'static str,
    /// A sentence for people.
    pub(crate) message: String,
    /// When the program was started.
    pub(crate) started: Timestamp,
    /// When it ended.
    pub(crate) finished: Timestamp,
}

/// The state of one container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerState {
    /// What it is doing.
    pub(crate) activity: Activity,
    /// Its last finished run, when it was started again.
    pub(crate) last: Option<Ended>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Whether its readiness probe says so (without a probe: whether it runs).
    pub(crate) ready: bool,
    /// Whether its startup probe has passed (without a probe: whether it runs).
    pub(crate) started: bool,
    /// Identifier of the current run.
    pub(crate) id: String,
    /// What tells the program of the current run from one that is built anew in its place.
    pub(crate) program: String,
}

impl ContainerState {
    fn new(reason: &'static str) -> Self {
        Self {
            activity: Activity::Waiting { reason, message: String::new() },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            id: String::new(),
            program: String::new(),
        }
    }

    /// Whether it has ended for good, and well.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(&self.activity, Activity::Ended(ended) if ended.exit.status() == 0)
    }

    /// Whether its program has been started, and its postStart hook has ended.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.activity, Activity::Waiting { .. }) || self.last.is_some()
    }

    /// Whether it has ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.activity, Activity::Ended(_))
    }
}

/// The state of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodState {
    /// All containers, by name.
    pub(crate) containers: BTreeMap<String, ContainerState>,
    /// The pod's addresses, when it has them; the first is the one that it is known by.
    pub(crate) addresses: Vec<IpAddr>,
    /// When the node began with it.
    pub(crate) started: Timestamp,
    /// Why the pod as a whole has failed, if it has.
    pub(crate) failure: Option<(&'static str, String)>,
    /// Whether the pod is being ended.
    pub(crate) terminating: bool,
}

/// Whether an init container is a native sidecar.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl PodState {
    /// The state in which a pod begins.
    pub(crate) fn new(spec: &PodSpec) -> Self {
        let has_init = spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty());
        let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        Self {
            containers: all.map(|container| (container.name.clone(), ContainerState::new(reason))).collect(),
            addresses: Vec::new(),
            started: Timestamp::now(),
            failure: None,
            terminating: false,
        }
    }

    /// Whether all init containers have done their part.
    pub(crate) fn is_initialized(&self, spec: &PodSpec) -> bool {
        spec.init_containers.iter().flatten().all(|container| {
            self.containers.get(&container.name).is_some_and(|state| {
                if is_sidecar(container) { state.started || state.restarts > 0 } else { state.succeeded() }
            })
        })
    }

    fn all_ready(&self, spec: &PodSpec) -> bool {
        let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
        sidecars
            .chain(&spec.containers)
            .all(|container| self.containers.get(&container.name).is_some_and(|it| it.ready))
    }

    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub(crate) fn phase(&self, spec: &PodSpec) -> &'static str {
        if self.failure.is_some() {
            return "Failed";
        }
        let main = || spec.containers.iter().filter_map(|container| self.containers.get(&container.name));
        if main().all(ContainerState::has_ended) {
            return if main().all(ContainerState::succeeded) { "Succeeded" } else { "Failed" };
        }
        if self.is_initialized(spec) && main().any(ContainerState::has_begun) { "Running" } else { "Pending" }
    }

    /// The pod's `status`.
    pub(crate) fn status(&self, pod: &Pod, spec: &PodSpec, old: &Value) -> Value {
        let mut status = json!({
            "phase": self.phase(spec),
            "hostIP": NODE_ADDRESS,
            "hostIPs": [{"ip": NODE_ADDRESS}],
            "qosClass": "BestEffort",
            "startTime": crate::api::object::stamp(self.started),
            "conditions": self.conditions(pod, spec, &old["conditions"]),
            "containerStatuses": self.statuses(&spec.containers),
        });
        if let Some(init) = spec.init_containers.as_ref().filter(|init| !init.is_empty()) {
            status["initContainerStatuses"] = self.statuses(init);
        }
        if let Some(address) = self.addresses.first() {
            status["podIP"] = json!(address);
            status["podIPs"] = self.addresses.iter().map(|address| json!({"ip": address})).collect();
        }
        if let Some((reason, message)) = &self.failure {
            status["reason"] = json!(reason);
            status["message"] = json!(message);
        }
        status
    }

    fn conditions(&self, pod: &Pod, spec: &PodSpec, old: &Value) -> Value {
        let initialized = self.is_initialized(spec);
        let finished = matches!(self.phase(spec), "Succeeded" | "Failed");
        let ready = initialized && !finished && self.all_ready(spec);
        let not_ready = match self.phase(spec) {
            "Succeeded" => "PodCompleted",
            "Failed" => "PodFailed",
            _ => "ContainersNotReady",
        };
        let mut object = json!({"status": {"conditions": old}});
        let deleting = pod.metadata.deletion_timestamp.is_some() || self.terminating;
        for (kind, holds, reason) in [
            ("PodReadyToStartContainers", !self.addresses.is_empty(), "PodSandboxNotReady"),
            ("Initialized", initialized, "ContainersNotInitialized"),
            ("Ready", ready && !deleting, not_ready),
            ("ContainersReady", ready, not_ready),
            ("PodScheduled", true, ""),
        ] {
            let message = if holds || reason != "ContainersNotReady" { String::new() } else { self.unready(spec) };
            let value = if holds { "True" } else { "False" };
            crate::api::object::set_condition(&mut object, kind, value, if holds { "" } else { reason }, &message);
        }
        object["status"]["conditions"].take()
    }

    fn unready(&self, spec: &PodSpec) -> String {
        let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
        let names: Vec<_> = sidecars
            .chain(&spec.containers)
            .filter(|container| self.containers.get(&container.name).is_none_or(|state| !state.ready))
            .map(|container| container.name.as_str())
            .collect();
        format!("containers with unready status: [{}]", names.join(" "))
    }

    fn statuses(&self, containers: &[Container]) -> Value {
        containers
            .iter()
            .filter_map(|container| self.containers.get(&container.name).map(|state| (container, state)))
            .map(|(container, state)| {
                let image = container.image.clone().unwrap_or_default();
                let image_id = if state.program.is_empty() { &image } else { &state.program };
                json!({
                    "name": container.name,
                    "image": image,
                    "imageID": image_id,
                    "containerID": state.id,
                    "ready": state.ready,
                    "started": state.started,
                    "restartCount": state.restarts,
                    "state": activity(&state.activity, &state.id),
                    "lastState": state.last.as_ref().map_or(json!({}), |last| ended(last, "")),
                })
            })
            .collect()
    }
}

fn activity(activity: &Activity, id: &str) -> Value {
    match activity {
        Activity::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
        Activity::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        Activity::Running { since, .. } => json!({"running": {"startedAt": crate::api::object::stamp(*since)}}),
        Activity::Ended(run) => ended(run, id),
    }
}

fn ended(run: &Ended, id: &str) -> Value {
    let mut state = json!({
        "exitCode": run.exit.status(),
        "reason": run.reason,
        "startedAt": crate::api::object::stamp(run.started),
        "finishedAt": crate::api::object::stamp(run.finished),
    });
    for (field, text) in [("message", run.message.as_str()), ("containerID", id)] {
        if !text.is_empty() {
            state[field] = json!(text);
        }
    }
    json!({"terminated": state})
}

impl PodState {
    /// Counts on from the restarts of a status that an earlier node wrote: what ran then has ended with its mesh.
    pub(crate) fn remember_restarts(&mut self, status: &Value) {
        for field in ["initContainerStatuses", "containerStatuses"] {
            for old in crate::api::object::array(status, &format!("/{field}")) {
                let ran = !crate::api::object::text(old, "/containerID").is_empty();
                let entry = self.containers.get_mut(crate::api::object::text(old, "/name"));
                if let Some(state) = entry.filter(|_| ran) {
                    let restarts =
                        old["restartCount"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
                    state.restarts = restarts.saturating_add(1);
                }
            }
        }
    }
}
