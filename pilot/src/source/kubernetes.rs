//! The Kubernetes API as a source: one watch per kind, kept alive for as long as Pilot runs.
//!
//! `kube`'s watcher lists in pages, watches from there, and lists again when the server has forgotten its version (410).
//! When the server is away nothing is said, so that the registry keeps what it has.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use runtime::{CancellationToken, Tasks};
use serde_json::Value as Json;
use tokio::sync::mpsc;

use api::registry::Resource;

use super::{Change, is_optional};

/// Changes that wait for the registry. At the bound the watches wait, and the API server's stream with them.
pub const QUEUE: usize = 4096;
/// First and longest pause after a watch has failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often it is looked whether a kind that was missing has appeared.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Starts a watch for every kind. What they say goes to `changes`.
pub fn watch(client: &Client, tasks: &Tasks, changes: &mpsc::Sender<Change>) {
    for watched in Resource::ALL {
        let watch = Watch {
            watched,
            client: client.clone(),
            changes: changes.clone(),
            cancelled: tasks.token().clone(),
            pause: PAUSE.0,
        };
        tasks.spawn_vital("watch", async move {
            watch.run().await;
            Ok::<(), Infallible>(())
        });
    }
}

/// One kind's watch.
struct Watch {
    watched: Resource,
    client: Client,
    changes: mpsc::Sender<Change>,
    cancelled: CancellationToken,
    pause: Duration,
}

/// The registry does not listen any more: Pilot ends.
struct Closed;

impl Watch {
    async fn run(mut self) {
        let cancelled = self.cancelled.clone();
        let _ = cancelled
            .run_until_cancelled(async {
                while self.is_served().await {
                    if self.follow().await.is_err() {
                        return;
                    }
                }
            })
            .await;
    }

    /// Waits until the API server has the kind. Says that there are no objects while it is missing.
    async fn is_served(&mut self) -> bool {
        if !is_optional(self.watched) {
            return true;
        }
        let plural = self.watched.plural();
        let mut said = false;
        loop {
            match self.client.list_api_group_resources(&self.watched.api_version()).await {
                Ok(list) if list.resources.iter().any(|resource| resource.name == plural) => return true,
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    self.back_off(&error).await;
                    continue;
                }
            }
            self.pause = PAUSE.0;
            if !said && self.changes.send(Change::All(self.watched, Vec::new())).await.is_err() {
                return false;
            }
            said = true;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Passes on what the watch says, until the kind is gone or nobody listens.
    async fn follow(&mut self) -> Result<(), Closed> {
        let resource = ApiResource {
            group: self.watched.group().to_owned(),
            version: self.watched.version().to_owned(),
            api_version: self.watched.api_version(),
            kind: self.watched.kind().to_owned(),
            plural: self.watched.plural().to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut listed = Vec::new();
        loop {
            let change = match events.try_next().await {
                Ok(None) => return Ok(()),
                Ok(Some(event)) => self.read(event, &mut listed),
                Err(error) if is_optional(self.watched) && is_gone(&error) => return Ok(()),
                Err(error) => {
                    self.back_off(&error).await;
                    continue;
                }
            };
            self.pause = PAUSE.0;
            if let Some(change) = change {
                self.changes.send(change).await.map_err(|_| Closed)?;
            }
        }
    }

    /// What an event means; the objects of a list are collected first.
    fn read(&self, event: Event<DynamicObject>, listed: &mut Vec<Json>) -> Option<Change> {
        match event {
            Event::Init => {
                listed.clear();
                None
            }
            Event::InitApply(object) => {
                listed.extend(self.json(object));
                None
            }
            Event::InitDone => {
                let objects = std::mem::take(listed);
                tracing::info!(kind = self.watched.kind(), objects = objects.len(), "listed");
                Some(Change::All(self.watched, objects))
            }
            Event::Apply(object) => Some(Change::Set(self.watched, self.json(object)?)),
            Event::Delete(object) => Some(Change::Gone(self.watched, self.json(object)?)),
        }
    }

    /// The object as JSON. Lists do not repeat kind and version in every object, so they are set; managed fields are
    /// dropped, as they can be larger than the rest.
    fn json(&self, mut object: DynamicObject) -> Option<Json> {
        object.metadata.managed_fields = None;
        object.types = Some(kube::core::TypeMeta {
            api_version: self.watched.api_version(),
            kind: self.watched.kind().to_owned(),
        });
        let name = object.metadata.name.clone();
        match serde_json::to_value(object) {
            Ok(json) => Some(json),
            Err(error) => {
                tracing::error!(%error, name, kind = self.watched.kind(), "an object cannot be read; it is left out");
                None
            }
        }
    }

    async fn back_off(&mut self, error: &(dyn std::error::Error + Send + Sync)) {
        let error = runtime::exit::chain(error);
        let (kind, pause) = (self.watched.kind(), self.pause);
        // The first failure may be no more than the end of a connection.
        if pause > PAUSE.0 * 8 {
            tracing::warn!(kind, error, ?pause, "the API server cannot be watched; what is known stays in force");
        } else {
            tracing::debug!(kind, error, ?pause, "a watch has failed");
        }
        tokio::time::sleep(pause).await;
        self.pause = (pause * 2).min(PAUSE.1);
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => is_not_found(error),
        _ => false,
    }
}
