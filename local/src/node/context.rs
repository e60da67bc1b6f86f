//! What everything that belongs to one running pod shares.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::json;
use tokio::sync::watch;

use super::Shared;
use super::command::{CommandError, Places, compose};
use super::env::References;
use super::launcher::{LaunchError, Process, Spec, Streams, Target};
use super::logs::ContainerLog;
use super::network::PodNetwork;
use super::state::{ContainerState, PodState};
use super::volumes::{VolumeError, Volumes};
use crate::api::{PodRef, object};

/// A pod that the node runs.
pub(crate) struct PodContext {
    /// The node's parts.
    pub(crate) shared: Arc<Shared>,
    /// Which pod.
    pub(crate) reference: PodRef,
    /// The pod as it was when the node took it.
    pub(crate) pod: Pod,
    /// Its spec.
    pub(crate) spec: PodSpec,
    /// Its namespaces and address.
    pub(crate) network: PodNetwork,
    /// Directory of its volumes and system files; in memory, gone with the mesh.
    pub(crate) directory: PathBuf,
    /// How it is doing; the publisher and those who wait for a container watch it.
    pub(crate) state: watch::Sender<PodState>,
    running: Mutex<HashMap<String, RunningContainer>>,
    logs: Mutex<HashMap<String, Arc<ContainerLog>>>,
    events: Mutex<HashMap<String, (String, u64)>>,
}

/// What a command in a running container needs to know.
#[derive(Debug, Clone)]
pub(crate) struct RunningContainer {
    /// Process ID of its init.
    pub(crate) pid: i32,
    spec: Arc<Spec>,
}

impl PodContext {
    /// Takes a pod that has its network.
    pub(crate) fn new(
        shared: Arc<Shared>,
        pod: Pod,
        reference: PodRef,
        network: PodNetwork,
        state: PodState,
    ) -> Arc<Self> {
        let directory = shared.run_dir.join("pods").join(&reference.uid);
        let spec = pod.spec.clone().unwrap_or_default();
        Arc::new(Self {
            shared,
            reference,
            pod,
            spec,
            network,
            directory,
            state: watch::Sender::new(state),
            running: Mutex::default(),
            logs: Mutex::default(),
            events: Mutex::default(),
        })
    }

    fn references(&self) -> References<'_> {
        References { store: &self.shared.store, pod: &self.pod, addresses: self.network.addresses() }
    }

    /// Makes or refreshes the pod's volumes.
    ///
    /// # Errors
    /// Says which volume, and what it lacks.
    pub(crate) fn write_volumes(&self) -> Result<(), VolumeError> {
        let volumes = Volumes {
            directory: self.directory.join("volumes"),
            references: self.references(),
            tokens: &*self.shared.tokens,
            pod: self.reference.clone(),
        };
        volumes.write(&self.spec)
    }

    /// What to execute for a container.
    ///
    /// # Errors
    /// Says what is missing.
    pub(crate) fn compose(&self, container: &Container) -> Result<Spec, CommandError> {
        let images = self.shared.images()?;
        let places = Places { pod: &self.directory, staging: &self.shared.staging_dir };
        compose(container, &self.spec, &self.references(), &images, &places)
    }

    /// Changes the state of a container.
    pub(crate) fn update(&self, container: &str, change: impl FnOnce(&mut ContainerState)) {
        self.state.send_if_modified(|state| {
            let Some(entry) = state.containers.get_mut(container) else { return false };
            let before = entry.clone();
            change(entry);
            *entry != before
        });
    }

    /// The log of a container.
    pub(crate) fn log(&self, container: &str) -> Arc<ContainerLog> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = self.shared.pod_logs(&self.reference);
        Arc::clone(logs.entry(container.to_owned()).or_insert_with(|| ContainerLog::new(directory, container)))
    }

    /// Says that no log will grow any more.
    pub(crate) fn close_logs(&self) {
        for log in self.logs.lock().unwrap_or_else(PoisonError::into_inner).values() {
            log.close();
        }
    }

    /// Notes that a container runs, or that it does not any more.
    pub(crate) fn set_running(&self, container: &str, running: Option<(i32, Arc<Spec>)>) {
        let mut known = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running {
            Some((pid, spec)) => known.insert(container.to_owned(), RunningContainer { pid, spec }),
            None => known.remove(container),
        };
    }

    /// The container of that name, if it runs.
    pub(crate) fn running(&self, container: &str) -> Option<RunningContainer> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    /// Starts a command in a running container.
    ///
    /// # Errors
    /// Says why the command does not run.
    pub(crate) async fn execute(
        &self,
        container: &RunningContainer,
        command: Vec<String>,
        terminal: bool,
        streams: Streams,
    ) -> Result<Process, LaunchError> {
        let mut command = command;
        // An image has its own program in PATH.
        if let (Some(word), Some(own)) = (command.first_mut(), container.spec.argv.first())
            && own.rsplit_once('/').is_some_and(|(_, name)| name == word)
        {
            word.clone_from(own);
        }
        let mut env = container.spec.env.clone();
        if terminal && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let spec = Spec {
            argv: command,
            env,
            directory: container.spec.directory.clone(),
            capabilities: container.spec.capabilities.clone(),
            terminal,
            target: Target::Running(container.pid),
        };
        self.shared.launcher.start(&spec, &self.network.namespaces, streams).await
    }

    /// Tells people that something has happened to the pod; the same again is counted.
    pub(crate) fn event(&self, kind: &str, reason: &str, message: &str) {
        let key = format!("{reason} {message}");
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let now = object::now();
        let namespace = &self.reference.namespace;
        let outcome = if let Some((name, count)) = events.get_mut(&key) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": now});
            self.shared.store.patch("events", namespace, name, &patch)
        } else {
            let name = format!("{}.{}", self.reference.name, object::suffix(10));
            events.insert(key, (name.clone(), 1));
            let event = json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "apiVersion": "v1", "kind": "Pod", "namespace": namespace,
                    "name": self.reference.name, "uid": self.reference.uid,
                },
                "type": kind, "reason": reason, "message": message, "count": 1,
                "firstTimestamp": now, "lastTimestamp": now,
                "source": {"component": "node", "host": super::NODE_NAME},
            });
            self.shared.store.create("events", event)
        };
        if let Err(error) = outcome {
            tracing::debug!(pod = self.reference.name, reason, %error, "an event could not be written");
        }
    }
}
