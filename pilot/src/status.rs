//! Says on each object of ours what became of it: the condition `Accepted`, in its status.
//!
//! Off the path of configuration: a snapshot does not wait for it, and when the API server is away it is written later.
//! Every replica writes the same, and only what does not stand there already, so no leader is needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::registry::{Id, Resource};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use runtime::CancellationToken;
use serde_json::{Value as Json, json};

use crate::objects::ObjectState;
use crate::snapshot::Snapshots;

/// The condition's type.
const ACCEPTED: &str = "Accepted";
/// Pause before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest message: the API server's own limit on the message of a condition.
const LONGEST_MESSAGE: usize = 32 * 1024;

/// Follows the snapshots and writes what their objects amount to.
pub struct Writer {
    client: Client,
    snapshots: Snapshots,
    /// What has been dealt with, to look at what is new alone.
    done: BTreeMap<Id, Arc<ObjectState>>,
}

impl Writer {
    /// Writes to this API server.
    #[must_use]
    pub fn new(client: Client, snapshots: Snapshots) -> Self {
        Writer { client, snapshots, done: BTreeMap::new() }
    }

    /// Writes until cancelled.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let _ = cancelled
            .run_until_cancelled(async {
                let mut changes = self.snapshots.changes();
                loop {
                    changes.mark_unchanged();
                    let all_written = self.write_all().await;
                    if all_written {
                        if changes.changed().await.is_err() {
                            return;
                        }
                    } else {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            })
            .await;
    }

    /// Writes what is not written yet; whether that went well.
    async fn write_all(&mut self) -> bool {
        let objects = self.snapshots.current().objects.clone();
        self.done.retain(|id, _| objects.get(id).is_some());
        let mut all_written = true;
        for (id, state) in objects.all() {
            if self.done.get(id).is_some_and(|done| Arc::ptr_eq(done, state)) {
                continue;
            }
            if let Some(conditions) =
                conditions(state, &jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
                && !self.write(id, &conditions).await
            {
                all_written = false;
                continue;
            }
            self.done.insert(id.clone(), state.clone());
        }
        all_written
    }

    async fn write(&self, id: &Id, conditions: &Json) -> bool {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &id.key.namespace, &described(id.resource));
        let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
        match api.patch_status(&id.key.name, &PatchParams::default(), &patch).await {
            Ok(_) => true,
            // It is gone: the next snapshot is without it.
            Err(kube::Error::Api(status)) if status.code == 404 => true,
            Err(error) => {
                let error = runtime::exit::chain(&error);
                tracing::debug!(object = %id.key, kind = id.resource.kind(), error, "its status cannot be written yet");
                false
            }
        }
    }
}

fn described(resource: Resource) -> ApiResource {
    ApiResource {
        group: resource.group().to_owned(),
        version: resource.version().to_owned(),
        api_version: resource.api_version(),
        kind: resource.kind().to_owned(),
        plural: resource.plural().to_owned(),
    }
}

/// The conditions as they should be; `None` if they are. Conditions of others are kept.
fn conditions(state: &ObjectState, now: &str) -> Option<Json> {
    let status = if state.is_accepted { "True" } else { "False" };
    let reason = match (state.is_accepted, state.problems.is_empty()) {
        (true, true) => "Valid",
        (true, false) => "ValidWithWarnings",
        (false, _) => "Invalid",
    };
    let problems: Vec<String> = state.problems.iter().map(ToString::to_string).collect();
    let mut message = problems.join("; ");
    while message.len() > LONGEST_MESSAGE {
        message.pop();
    }
    let mut wanted = json!({
        "type": ACCEPTED, "status": status, "reason": reason, "message": message, "observedGeneration": state.generation,
    });
    if state.generation.is_none()
        && let Some(fields) = wanted.as_object_mut()
    {
        fields.remove("observedGeneration");
    }
    let known = state.conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    let (own, others): (Vec<&Json>, Vec<&Json>) = known.iter().partition(|condition| condition["type"] == ACCEPTED);
    let before = own.first();
    let is_written = before.is_some_and(|before| {
        let fields = ["status", "reason", "message", "observedGeneration"];
        own.len() == 1 && fields.iter().all(|field| before.get(field) == wanted.get(field))
    });
    if is_written {
        return None;
    }
    let same_status = before.filter(|before| before["status"] == status);
    let since = same_status.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(now);
    wanted["lastTransitionTime"] = json!(since);
    Some(Json::Array(others.into_iter().cloned().chain([wanted]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(is_accepted: bool, conditions: Json) -> ObjectState {
        ObjectState { is_accepted, generation: Some(2), conditions, ..ObjectState::default() }
    }

    #[test]
    fn conditions_are_written_when_they_differ_and_only_then() {
        let written = conditions(&state(true, Json::Null), "t1").expect("there are none yet");
        assert_eq!(
            written,
            json!([{
                "type": "Accepted", "status": "True", "reason": "Valid", "message": "",
                "observedGeneration": 2, "lastTransitionTime": "t1",
            }])
        );
        assert_eq!(conditions(&state(true, written.clone()), "t2"), None);
        let refused = conditions(&state(false, written), "t2").expect("they differ");
        assert_eq!((&refused[0]["status"], &refused[0]["lastTransitionTime"]), (&json!("False"), &json!("t2")));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let other = json!({"type": "Reviewed", "status": "True"});
        let written = conditions(&state(true, json!([other])), "t1").expect("ours is missing");
        assert_eq!((written[0].clone(), written[1]["type"].clone()), (other, json!("Accepted")));
    }
}
