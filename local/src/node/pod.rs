//! The life of one pod: network, volumes, init containers in order, containers, and the end in reverse order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::clock;
use super::container::{Restart, Runner};
use super::context::PodContext;
use super::farewell;
use super::network::{DNS_ADDRESS, PodNetwork};
use super::state::{ContainerState, PodState, is_sidecar};
use crate::api::{DeleteOptions, Part, PodRef, object};

/// What a pod's worker is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The pod is to run.
    Run,
    /// The pod has been deleted and may take that long to end.
    Delete(Duration),
    /// The mesh is going down: the pod ends, but stays in the store.
    Leave(Duration),
}

impl Wish {
    fn grace(self) -> Option<Duration> {
        match self {
            Self::Run => None,
            Self::Delete(grace) | Self::Leave(grace) => Some(grace),
        }
    }
}

/// Pause before a pod's volumes or network are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a running pod's projected tokens, ConfigMaps and Secrets are brought up to date.
const REFRESH: Duration = Duration::from_secs(60);

/// A started container.
struct Started {
    name: String,
    sidecar: bool,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

/// Runs one pod until it has ended.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Pod,
    pub(crate) reference: PodRef,
    /// The pod's status before the node took it (again).
    pub(crate) old_status: Value,
    pub(crate) wish: watch::Receiver<Wish>,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        let publishing = CancellationToken::new();
        if let Some((context, publisher)) = self.set_up(&publishing).await {
            let mut containers = Vec::new();
            tokio::select! {
                () = live(&context, &mut containers) => {}
                () = refresh(&context) => {}
                _ = self.wish.wait_for(|wish| wish.grace().is_some()) => {}
            }
            // Who leaves with the mesh has not ended: the pod goes on when the mesh is started again, and until then
            // nobody must replace it. So its last status is the one from before its end.
            if matches!(*self.wish.borrow(), Wish::Leave(_)) {
                self.stop_publishing(&publishing, publisher).await;
                self.end(&context, containers).await;
            } else {
                self.end(&context, containers).await;
                self.stop_publishing(&publishing, publisher).await;
            }
            self.shared.forget(&self.reference);
            let _ = std::fs::remove_dir_all(&context.directory);
        }
        self.depart().await;
    }

    async fn stop_publishing(&self, publishing: &CancellationToken, publisher: JoinHandle<()>) {
        publishing.cancel();
        if let Err(error) = publisher.await {
            tracing::error!(pod = self.reference.name, %error, "the last status of a pod is not written");
        }
    }

    /// Makes the pod's network, files and volumes; `None` when the pod is deleted before that succeeds.
    async fn set_up(&mut self, publishing: &CancellationToken) -> Option<(Arc<PodContext>, JoinHandle<()>)> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let mut state = PodState::new(&spec);
        state.remember_restarts(&self.old_status);
        let host_name = spec.hostname.clone().unwrap_or_else(|| self.reference.name.clone());
        let network = loop {
            match self.shared.network.connect(&host_name).await {
                Ok(network) => break network,
                Err(error) => tracing::error!(pod = self.reference.name, %error, "no network for a pod"),
            }
            self.retry().await?;
        };
        state.addresses = network.addresses();
        let files = self.system_files(&network, &host_name);
        let context =
            PodContext::new(Arc::clone(&self.shared), self.pod.clone(), self.reference.clone(), network, state);
        self.shared.remember(&context);
        let publisher = publish(Arc::clone(&context), self.old_status.clone(), publishing.clone());
        let publisher = self.shared.tracker.spawn(publisher);
        loop {
            let written = context.write_system_files(&files).map_err(|error| error.to_string());
            match written.and_then(|()| context.write_volumes().map_err(|error| error.to_string())) {
                Ok(()) => return Some((context, publisher)),
                Err(error) => context.event("Warning", "FailedMount", &error),
            }
            if self.retry().await.is_none() {
                publishing.cancel();
                self.shared.forget(&self.reference);
                return None;
            }
        }
    }

    async fn retry(&mut self) -> Option<()> {
        tokio::select! {
            () = tokio::time::sleep(RETRY) => Some(()),
            _ = self.wish.wait_for(|wish| wish.grace().is_some()) => None,
        }
    }

    fn system_files(&self, network: &PodNetwork, host_name: &str) -> [(&'static str, String); 3] {
        let namespace = &self.reference.namespace;
        let domain = &self.shared.domain;
        let subdomain = self.pod.spec.as_ref().and_then(|spec| spec.subdomain.clone());
        let own = match subdomain {
            Some(subdomain) => format!("{host_name}.{subdomain}.{namespace}.svc.{domain} {host_name}"),
            None => host_name.to_owned(),
        };
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
        for address in network.addresses() {
            hosts.push_str(&format!("{address} {own}\n"));
        }
        let aliases = self.pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
        for alias in aliases {
            hosts.push_str(&format!(
                "{} {}\n",
                alias.ip,
                alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join(" ")
            ));
        }
        let resolver = format!(
            "search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver {DNS_ADDRESS}\noptions ndots:5\n"
        );
        [("hosts", hosts), ("hostname", format!("{host_name}\n")), ("resolv.conf", resolver)]
    }

    /// Ends everything that still runs: containers first, then sidecars, the last one first.
    async fn end(&mut self, context: &Arc<PodContext>, containers: Vec<Started>) {
        let spec_grace = context.spec.termination_grace_period_seconds.unwrap_or(30);
        let grace = self.wish.borrow().grace();
        let grace = grace.unwrap_or_else(|| Duration::from_secs(spec_grace.try_into().unwrap_or(0)));
        context.state.send_modify(|state| state.terminating = true);
        if containers.iter().any(|container| !container.task.is_finished()) && !containers.is_empty() {
            context.event("Normal", "Killing", "stopping the pod's containers");
        }
        let (sidecars, others): (Vec<_>, Vec<_>) = containers.into_iter().partition(|container| container.sidecar);
        let mut groups = vec![others];
        groups.extend(sidecars.into_iter().rev().map(|sidecar| vec![sidecar]));
        let mut deadline = Instant::now() + grace;
        let leaving = *self.wish.borrow();
        if matches!(leaving, Wish::Delete(_)) {
            let sooner = tokio::select! {
                _ = tokio::time::timeout_at(deadline, farewell::until_nobody_is_sent_here(context)) => None,
                sooner = self.wish.wait_for(|wish| *wish != leaving) => sooner.ok().and_then(|wish| wish.grace()),
            };
            deadline = sooner.map_or(deadline, |grace| deadline.min(Instant::now() + grace));
        }
        for group in groups {
            for container in &group {
                container.stop.send_replace(Some(deadline));
            }
            for mut container in group {
                loop {
                    tokio::select! {
                        outcome = &mut container.task => {
                            if let Err(error) = outcome {
                                tracing::error!(container = container.name, %error, "a container's task has failed");
                            }
                            break;
                        }
                        Ok(()) = self.wish.changed() => {
                            let sooner = self.wish.borrow_and_update().grace().map(|grace| Instant::now() + grace);
                            deadline = sooner.map_or(deadline, |sooner| sooner.min(deadline));
                            container.stop.send_replace(Some(deadline));
                        }
                    }
                }
            }
        }
        context.close_logs();
    }

    /// Takes a deleted pod out of the store; one that has ended by itself waits for its deletion.
    async fn depart(&mut self) {
        let Ok(wish) = self.wish.wait_for(|wish| *wish != Wish::Run).await.map(|wish| *wish) else { return };
        if let Wish::Delete(_) = wish {
            let options = DeleteOptions { uid: Some(self.reference.uid.clone()), ..DeleteOptions::now() };
            let PodRef { namespace, name, .. } = &self.reference;
            // Its logs first: on a full disk they make room.
            super::logs::remove(&self.shared.pod_logs(&self.reference));
            loop {
                match self.shared.store.delete("pods", namespace, name, &options) {
                    Ok(_) => break,
                    Err(error) if error.is_not_found() || error.is_conflict() => break,
                    Err(error) => {
                        tracing::error!(pod = name, %error, "an ended pod could not be removed; trying again")
                    }
                }
                if self.shared.tracker.is_closed() {
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl PodContext {
    /// Returns whether the status is in the store now, or has no place there any more.
    fn write_status(&self, status: &Value) -> bool {
        let PodRef { namespace, name, uid } = &self.reference;
        let outcome = self.shared.store.modify("pods", namespace, name, Part::Status, |pod| {
            if object::uid(pod) == uid {
                pod["status"] = status.clone();
            }
            Ok(())
        });
        match outcome {
            Ok(_) => true,
            Err(error) => {
                if error.is_not_found() {
                    return true;
                }
                tracing::error!(pod = name, %error, "a pod's status could not be written; trying again");
                false
            }
        }
    }

    fn write_system_files(&self, files: &[(&str, String)]) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        files.iter().try_for_each(|(name, text)| std::fs::write(self.directory.join(name), text))
    }
}

/// Starts the pod's containers in order and waits until all main ones have ended for good.
async fn live(context: &Arc<PodContext>, started: &mut Vec<Started>) {
    let policy = match context.spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    for container in context.spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            start(context, container, Restart::Always, started);
            wait(context, |state| state.containers.get(&container.name).is_some_and(|it| it.started)).await;
            continue;
        }
        let restart = if policy == Restart::Never { Restart::Never } else { Restart::OnFailure };
        start(context, container, restart, started);
        wait(context, |state| state.containers.get(&container.name).is_some_and(|it| it.has_ended())).await;
        let succeeded = context.state.borrow().containers.get(&container.name).is_some_and(|it| it.succeeded());
        if !succeeded {
            let message = format!("init container {} failed", container.name);
            context.state.send_modify(|state| state.failure = Some(("Error", message)));
            return;
        }
    }
    for container in &context.spec.containers {
        start(context, container, policy, started);
        // As a kubelet does: the next container is started when this one's hook has ended.
        if container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some()) {
            wait(context, |state| state.containers.get(&container.name).is_some_and(ContainerState::has_begun)).await;
        }
    }
    wait(context, |state| {
        context
            .spec
            .containers
            .iter()
            .all(|container| state.containers.get(&container.name).is_some_and(|it| it.has_ended()))
    })
    .await;
}

async fn wait(context: &PodContext, fact: impl Fn(&PodState) -> bool) {
    let _ = context.state.subscribe().wait_for(|state| fact(state)).await;
}

fn start(context: &Arc<PodContext>, container: &Container, restart: Restart, started: &mut Vec<Started>) {
    let (stop, receiver) = watch::channel(None);
    let runner = Runner { context: Arc::clone(context), container: container.clone(), restart, stop: receiver };
    started.push(Started {
        name: container.name.clone(),
        sidecar: is_sidecar(container),
        stop,
        task: context.shared.tracker.spawn(runner.run()),
    });
}

/// Keeps tokens, ConfigMaps and Secrets of a running pod up to date.
async fn refresh(context: &Arc<PodContext>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            step = clock::stepped(jiff::Timestamp::now) => {
                let message = format!("the clock was set by {step:#}; the pod's tokens are issued anew");
                context.event("Normal", "ClockStepped", &message);
            }
        }
        if let Err(error) = context.write_volumes() {
            context.event("Warning", "FailedMount", &error.to_string());
        }
    }
}

/// Writes the pod's status into the store whenever it changes, and a last time when told to end.
async fn publish(context: Arc<PodContext>, old_status: Value, end: CancellationToken) {
    let mut changes = context.state.subscribe();
    changes.mark_changed();
    let mut last = old_status;
    let mut written = true;
    loop {
        let ending = tokio::select! {
            _ = changes.changed() => false,
            // What the disk has refused is still to be told.
            () = tokio::time::sleep(RETRY), if !written => false,
            () = end.cancelled() => true,
        };
        let state = changes.borrow_and_update().clone();
        let status = state.status(&context.pod, &context.spec, &last);
        written = status == last || context.write_status(&status);
        if written {
            last = status;
        }
        if ending {
            return;
        }
    }
}
