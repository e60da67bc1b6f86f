//! The node: turns pods into processes.

mod clock;
mod command;
mod container;
mod context;
mod env;
mod farewell;
mod follow;
mod images;
mod launcher;
mod logs;
mod netlink;
mod netns;
mod network;
mod pod;
mod probe;
mod probe_grpc;
mod probe_tls;
mod programs;
mod services;
mod state;
mod streams;
mod terminal;
mod volumes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{ApiError, Change, DeleteOptions, Part, PodRef, Selection, Store, object};
use context::PodContext;
pub use images::{Images, ImagesError};
pub(crate) use launcher::{Launcher, fork_launcher, wire};
pub(crate) use network::{API_ADDRESS, Network, set_up_root};
use pod::{Wish, Worker};
pub(crate) use probe_grpc::fuzz as fuzz_health;
pub(crate) use probe_tls::ProbeTls;
pub use programs::changed_programs;
pub(crate) use services::{FromHost, HostSockets, OpenPort, ServicesError, fuzz_dns, start as start_services};
pub(crate) use streams::NodeStreams;
pub(crate) use volumes::Tokens;

/// Name of the one node.
pub(crate) const NODE_NAME: &str = "local";

/// What everything on the node shares.
pub(crate) struct Shared {
    /// The objects.
    pub(crate) store: Arc<Store>,
    /// Starts processes.
    pub(crate) launcher: Arc<Launcher>,
    /// Connects pods.
    pub(crate) network: Arc<Network>,
    /// Issues service-account tokens.
    pub(crate) tokens: Arc<dyn Tokens>,
    /// The cluster's DNS domain.
    pub(crate) domain: String,
    /// State directory, for logs and the list of images.
    pub(crate) state_dir: PathBuf,
    /// Directory in memory for volumes.
    pub(crate) run_dir: PathBuf,
    /// Empty directory on which container roots are mounted.
    pub(crate) staging_dir: PathBuf,
    /// Directory of the mesh's own programs.
    pub(crate) programs: PathBuf,
    /// TLS of HTTPS probes.
    pub(crate) probe_tls: ProbeTls,
    /// Every task of the node.
    pub(crate) tracker: TaskTracker,
    /// Pods that run, by uid.
    pub(crate) pods: Mutex<HashMap<String, Arc<PodContext>>>,
}

impl Shared {
    /// The images known now: the mesh's own, and those of the state directory. A program without a slash is looked for
    /// beside the mesh's own programs first.
    pub(crate) fn images(&self) -> Result<Images, ImagesError> {
        let mut images = images::built_in(&self.programs);
        images.merge(Images::load(&self.state_dir)?);
        images.look_in(&self.programs);
        Ok(images)
    }

    /// Directory of a pod's logs.
    pub(crate) fn pod_logs(&self, pod: &PodRef) -> PathBuf {
        self.state_dir.join("logs").join(&pod.namespace).join(&pod.name)
    }

    pub(crate) fn remember(&self, context: &Arc<PodContext>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert(context.reference.uid.clone(), Arc::clone(context));
    }

    pub(crate) fn forget(&self, pod: &PodRef) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod.uid);
    }

    /// A pod that runs.
    pub(crate) fn pod(&self, pod: &PodRef) -> Option<Arc<PodContext>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(&pod.uid).cloned()
    }
}

/// Longest time that pods get when the mesh goes down.
const LONGEST_FAREWELL: Duration = Duration::from_secs(30);

/// Runs the pods of the store until cancelled, then ends them all.
///
/// # Errors
/// When the store's watch fails for good.
pub(crate) async fn run(shared: Arc<Shared>, token: CancellationToken) -> Result<(), ApiError> {
    register(&shared.store)?;
    let mut workers = HashMap::new();
    let outcome = tokio::select! {
        outcome = follow(&shared, &mut workers) => outcome,
        () = token.cancelled() => Ok(()),
    };
    for (wish, _) in workers.values() {
        let wish: &watch::Sender<Wish> = wish;
        wish.send_if_modified(|wish| {
            let running = *wish == Wish::Run;
            if running {
                *wish = Wish::Leave(LONGEST_FAREWELL);
            }
            running
        });
    }
    // Says that the node ends: nobody tries again what the disk refuses.
    shared.tracker.close();
    drop(shared);
    for (_, (wish, task)) in workers {
        let task: tokio::task::JoinHandle<()> = task;
        if let Err(error) = task.await {
            tracing::error!(%error, "a pod's task has failed");
        }
        drop(wish);
    }
    outcome
}

type Workers = HashMap<String, (watch::Sender<Wish>, tokio::task::JoinHandle<()>)>;

async fn follow(shared: &Arc<Shared>, workers: &mut Workers) -> Result<(), ApiError> {
    loop {
        let list = shared.store.list("pods", &Selection::all());
        for pod in &list.items {
            consider(shared, workers, pod);
        }
        let mut watch = shared.store.watch("pods", list.version)?;
        loop {
            match watch.next().await {
                Ok(event) if event.change == Change::Deleted => {
                    if let Some((wish, _)) = workers.remove(object::uid(&event.object)) {
                        wish.send_replace(Wish::Delete(Duration::ZERO));
                    }
                }
                Ok(event) => consider(shared, workers, &event.object),
                Err(error) => {
                    tracing::warn!(%error, "the node lists its pods again");
                    break;
                }
            }
        }
    }
}

/// Looks at a pod that is new or has changed.
fn consider(shared: &Arc<Shared>, workers: &mut Workers, pod: &Arc<Value>) {
    let grace = object::is_deleting(pod)
        .then(|| Duration::from_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0)));
    if let Some((wish, _)) = workers.get(object::uid(pod)) {
        if let Some(grace) = grace {
            wish.send_replace(Wish::Delete(grace));
        }
        return;
    }
    let reference = PodRef {
        namespace: object::namespace(pod).to_owned(),
        name: object::name(pod).to_owned(),
        uid: object::uid(pod).to_owned(),
    };
    let ended = matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
    if grace.is_some() {
        let options = DeleteOptions { uid: Some(reference.uid.clone()), ..DeleteOptions::now() };
        if let Err(error) = shared.store.delete("pods", &reference.namespace, &reference.name, &options) {
            tracing::debug!(pod = reference.name, %error, "a pod that never ran could not be removed");
        }
        return;
    }
    if ended {
        return;
    }
    let bound = match object::text(pod, "/spec/nodeName") {
        "" => bind(&shared.store, &reference),
        NODE_NAME => Ok(()),
        _ => return,
    };
    let typed = bound.map_err(|error| error.to_string()).and_then(|()| {
        let mut pod: Value = (**pod).clone();
        pod.as_object_mut().map(|pod| pod.remove("status"));
        serde_json::from_value::<Pod>(pod).map_err(|error| error.to_string())
    });
    match typed {
        Ok(typed) => {
            let (wish, receiver) = watch::channel(Wish::Run);
            let old_status = pod["status"].clone();
            let uid = reference.uid.clone();
            let worker = Worker { shared: Arc::clone(shared), pod: typed, reference, old_status, wish: receiver };
            workers.insert(uid, (wish, shared.tracker.spawn(worker.run())));
        }
        Err(error) => tracing::error!(pod = reference.name, error, "a pod cannot be run"),
    }
}

/// There is no scheduler, as there is no choice.
fn bind(store: &Store, pod: &PodRef) -> Result<(), ApiError> {
    let patch = json!({"metadata": {"uid": pod.uid}, "spec": {"nodeName": NODE_NAME}});
    store.patch("pods", &pod.namespace, &pod.name, &patch).map(drop)
}

/// Says of all pods that have not ended that they do not run: what ran has ended with the mesh in which it ran.
///
/// Must be done before anybody can ask, so that nobody is sent to an address of yesterday.
///
/// # Errors
/// When the store cannot be written.
pub(crate) fn forget_earlier_runs(store: &Store) -> Result<(), ApiError> {
    for pod in store.list("pods", &Selection::all()).items {
        let ended = matches!(object::text(&pod, "/status/phase"), "Succeeded" | "Failed");
        if ended || object::text(&pod, "/status/podIP").is_empty() {
            continue;
        }
        let edit = |pod: &mut Value| {
            for kind in ["Ready", "ContainersReady", "Initialized", "PodReadyToStartContainers"] {
                object::set_condition(pod, kind, "False", "NodeRestarted", "the mesh was started again");
            }
            let status = object::child(pod, "status");
            status.insert("phase".to_owned(), json!("Pending"));
            status.remove("podIP");
            status.remove("podIPs");
            for list in ["initContainerStatuses", "containerStatuses"] {
                for container in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    let last = container["state"].take();
                    if last.get("terminated").is_some() {
                        container["lastState"] = last;
                    }
                    container["state"] = json!({"waiting": {"reason": "ContainerCreating"}});
                    (container["ready"], container["started"]) = (json!(false), json!(false));
                }
            }
            Ok(())
        };
        store.modify("pods", object::namespace(&pod), object::name(&pod), Part::Status, edit)?;
    }
    Ok(())
}

/// Makes the Node object.
fn register(store: &Store) -> Result<(), ApiError> {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"}},
        "spec": {},
    });
    match store.create("nodes", node) {
        Err(error) if error.status_code() != 409 => return Err(error),
        _ => {}
    }
    let mut addresses = vec![json!({"type": "InternalIP", "address": network::NODE_ADDRESS})];
    if network::has_ipv6() {
        addresses.push(json!({"type": "InternalIP", "address": network::NODE_ADDRESS_6}));
    }
    addresses.push(json!({"type": "Hostname", "address": NODE_NAME}));
    let status = json!({"status": {
        "addresses": addresses,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "NodeReady", "message": "the node runs pods",
            "lastHeartbeatTime": object::now(), "lastTransitionTime": object::now(),
        }],
        "nodeInfo": {
            "kubeletVersion": format!("meshctl-{}", env!("CARGO_PKG_VERSION")), "operatingSystem": "linux",
            "architecture": std::env::consts::ARCH, "containerRuntimeVersion": "processes://1",
        },
    }});
    store.patch_status("nodes", "", NODE_NAME, &status).map(drop)
}
