//! What keeps the objects as their authors want them: deployments become pods, services get endpoints, namespaces are
//! furnished and emptied, and what has lost its owner goes.
//!
//! Each controller is told which objects changed, and looks at the whole of each: it can miss what happened in between,
//! be restarted, or be told twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use runtime::Tasks;
use serde_json::Value;

use crate::api::{Api, ApiError, ApiResult, Change, Event, Reason, Selection, Store, Watch, object};

mod definitions;
mod deployments;
mod endpoints;
mod garbage;
mod namespaces;
mod replicasets;
mod services;

/// Starts all controllers. They end when the tasks are told to stop.
pub fn start(api: &Arc<Api>, tasks: &Tasks) {
    spawn(tasks, "namespaces", api, namespaces::Namespaces::new(api));
    spawn(tasks, "services", api, services::Services::new(api));
    spawn(tasks, "endpoints", api, endpoints::Endpoints::new(api));
    spawn(tasks, "definitions", api, definitions::Definitions::new(api));
    spawn(tasks, "deployments", api, deployments::Deployments::new(api));
    spawn(tasks, "replicasets", api, replicasets::ReplicaSets::new(api));
    spawn(tasks, "garbage", api, garbage::Garbage::new(api));
}

/// Namespace and name of an object to look at.
type Key = (String, String);

trait Controller: Send + Sync + 'static {
    /// Resources whose changes matter; none means all.
    const WATCHED: &'static [&'static str];

    /// All objects that there are to look at.
    fn all(&self) -> Vec<Key>;

    /// The objects to look at after a change.
    fn affected(&self, event: &Event) -> Vec<Key>;

    /// Looks at one object and does what is to be done. A refusal means: again, a little later.
    fn reconcile(&self, key: &Key) -> impl Future<Output = ApiResult<()>> + Send;
}

/// Time until an object is looked at again that could not be brought into order.
const RETRY: Duration = Duration::from_millis(500);

/// Objects that are looked at side by side.
const AT_ONCE: usize = 8;

fn spawn<C: Controller>(tasks: &Tasks, name: &'static str, api: &Arc<Api>, controller: C) {
    let (store, token) = (api.store().clone(), tasks.token().clone());
    tasks.spawn(name, async move {
        token.run_until_cancelled(run(name, &store, &controller)).await;
    });
}

async fn run<C: Controller>(name: &'static str, store: &Arc<Store>, controller: &C) {
    let mut due: BTreeSet<Key> = BTreeSet::new();
    loop {
        let version = store.version();
        due.extend(controller.all());
        let Ok(watch) = store.watch_many(C::WATCHED, version) else { continue };
        let error = follow(name, controller, watch, &mut due).await;
        if error.reason != Reason::Expired {
            return;
        }
    }
}

/// Follows a watch until it breaks.
async fn follow<C: Controller>(
    name: &'static str,
    controller: &C,
    mut watch: Watch,
    due: &mut BTreeSet<Key>,
) -> ApiError {
    loop {
        // Side by side, as one may wait for a webhook that does not answer.
        let looked_at: Vec<_> = stream::iter(std::mem::take(due))
            .map(|key| async move {
                let outcome = controller.reconcile(&key).await;
                (key, outcome)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut again = BTreeSet::new();
        for (key, outcome) in looked_at {
            let Err(error) = outcome else { continue };
            if error.is_not_found() {
                continue;
            }
            if !error.is_conflict() {
                tracing::warn!(controller = name, namespace = key.0, name = key.1, %error, "not in order yet; trying again");
            }
            again.insert(key);
        }
        let event = if again.is_empty() {
            watch.next().await
        } else {
            match tokio::time::timeout(RETRY, watch.next()).await {
                Ok(event) => event,
                Err(_) => {
                    due.extend(again);
                    continue;
                }
            }
        };
        due.extend(again);
        match event {
            Ok(event) => due.extend(controller.affected(&event)),
            Err(error) => return error,
        }
        loop {
            match watch.try_next() {
                Ok(Some(event)) => due.extend(controller.affected(&event)),
                Ok(None) => break,
                Err(error) => return error,
            }
        }
    }
}

fn key(object: &Value) -> Key {
    (object::namespace(object).to_owned(), object::name(object).to_owned())
}

fn keys(store: &Store, resource: &str) -> Vec<Key> {
    store.list(resource, &Selection::all()).items.iter().map(|object| key(object)).collect()
}

/// The controlling owner's key, if it is of that kind.
fn owner(object: &Value, kind: &str) -> Option<Key> {
    let owner = object::controller(object)?;
    (owner["kind"] == kind).then(|| (object::namespace(object).to_owned(), object::text(owner, "/name").to_owned()))
}

/// Whether a pod has changed in a way that others than its node can see: most changes of its status are steps of its
/// containers.
fn concerns_others(event: &Event) -> bool {
    let Some(before) = &event.previous else { return true };
    let after = &event.object;
    let condition = |pod: &Value| object::has_condition(pod, "Ready");
    event.change == Change::Deleted
        || condition(before) != condition(after)
        || object::is_deleting(before) != object::is_deleting(after)
        || before["metadata"]["labels"] != after["metadata"]["labels"]
        || before["metadata"]["ownerReferences"] != after["metadata"]["ownerReferences"]
        || ["/status/phase", "/status/podIP", "/spec/nodeName"]
            .iter()
            .any(|field| object::text(before, field) != object::text(after, field))
}

fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    object::controller(object).is_some_and(|it| it["uid"] == object::uid(owner))
}

/// Writes a status if it differs from what is there.
fn write_status(store: &Store, resource: &str, old: &Value, new: Value) -> ApiResult<()> {
    if old.get("status") == new.get("status") {
        return Ok(());
    }
    store.update_status(resource, new).map(|_| ())
}
