//! Admission webhooks: who is asked about a write, in which order, and what their answers mean.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::caller::Caller;
use super::object::{array, name, namespace, text};
use super::resources::Resource;
use super::webhook::{self, CallError};
use super::{Api, ApiError, ApiResult, Reason, Selection, Store, defaults, object};

/// What is being done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A write that is about to happen.
pub(super) struct Review<'a> {
    pub(super) operation: Operation,
    pub(super) resource: &'a Arc<Resource>,
    pub(super) subresource: &'a str,
    pub(super) old: Option<&'a Value>,
    pub(super) caller: &'a Caller,
}

impl Api {
    /// Asks the mutating webhooks in order, then the validating ones; returns the object as they leave it.
    ///
    /// # Errors
    /// What a webhook refuses, or that one with failure policy `Fail` could not be asked.
    pub(super) async fn admit(&self, review: &Review<'_>, mut object: Value) -> ApiResult<Value> {
        // Webhooks are not asked about webhooks, or one could lock everybody out.
        if review.resource.group == "admissionregistration.k8s.io" {
            return Ok(object);
        }
        for (configuration, webhook) in webhooks(&self.store, "mutatingwebhookconfigurations") {
            if !concerns(&self.store, &webhook, review, &object) {
                continue;
            }
            let Some(answer) = self.ask(&configuration, &webhook, review, &object).await? else { continue };
            if let Some(patch) = answer["patch"].as_str() {
                let broken = |why: String| {
                    ApiError::internal(format!(
                        "webhook \"{}\" answered with a broken patch: {why}",
                        text(&webhook, "/name")
                    ))
                };
                let bytes = STANDARD.decode(patch).map_err(|error| broken(error.to_string()))?;
                let patch: json_patch::Patch =
                    serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
                json_patch::patch(&mut object, &patch).map_err(|error| broken(error.to_string()))?;
                defaults::fill_in(&review.resource.key(), &mut object);
            }
        }
        for (configuration, webhook) in webhooks(&self.store, "validatingwebhookconfigurations") {
            if concerns(&self.store, &webhook, review, &object) {
                self.ask(&configuration, &webhook, review, &object).await?;
            }
        }
        Ok(object)
    }

    /// Asks one webhook. `None` when it could not be asked and that does not matter.
    async fn ask(
        &self,
        configuration: &str,
        webhook: &Value,
        review: &Review<'_>,
        object: &Value,
    ) -> ApiResult<Option<Value>> {
        let uid = object::new_uid();
        let request = request(&uid, review, object);
        let call = webhook::call(&self.store, webhook, &request);
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(seconds), call).await;
        let hook = text(webhook, "/name");
        let answer = outcome.unwrap_or(Err(CallError::Timeout { seconds })).and_then(|answer| response(&answer, &uid));
        match answer {
            Ok(response) if response["allowed"] == true => Ok(Some(response)),
            Ok(response) => Err(denial(hook, &response)),
            Err(error) if text(webhook, "/failurePolicy") == "Ignore" => {
                tracing::warn!(%configuration, %hook, error = %chain(&error), "a webhook could not be asked; its failure policy is Ignore");
                Ok(None)
            }
            Err(error) => Err(ApiError::internal(format!(
                "Internal error occurred: failed calling webhook \"{hook}\": {}",
                chain(&error)
            ))),
        }
    }
}

fn chain(error: &CallError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// All webhooks of a kind, in the order of their configurations' names.
fn webhooks(store: &Store, plural: &str) -> Vec<(String, Value)> {
    let configurations = store.list(&format!("{plural}.admissionregistration.k8s.io"), &Selection::all()).items;
    let of = |configuration: &Arc<Value>| {
        let owner = name(configuration).to_owned();
        array(configuration, "/webhooks")
            .iter()
            .map(move |webhook| (owner.clone(), webhook.clone()))
            .collect::<Vec<_>>()
    };
    configurations.iter().flat_map(of).collect()
}

fn concerns(store: &Store, webhook: &Value, review: &Review<'_>, object: &Value) -> bool {
    if !array(webhook, "/rules").iter().any(|rule| rule_matches(rule, review)) {
        return false;
    }
    let subject = if object.is_null() { review.old.unwrap_or(object) } else { object };
    let selects = |selector: &Value, labels: &Value| {
        Selection::all().with_label_selector(selector).is_ok_and(|selection| selection.matches(labels))
    };
    let by_object = selects(&webhook["objectSelector"], subject)
        || review.old.is_some_and(|old| selects(&webhook["objectSelector"], old));
    let by_namespace = if review.resource.key() == "namespaces" {
        selects(&webhook["namespaceSelector"], subject)
    } else if review.resource.namespaced {
        store
            .get("namespaces", "", namespace(subject))
            .is_ok_and(|found| selects(&webhook["namespaceSelector"], &found))
    } else {
        true
    };
    by_object && by_namespace
}

fn rule_matches(rule: &Value, review: &Review<'_>) -> bool {
    let has = |field: &str, wanted: &str| array(rule, field).iter().any(|it| it == wanted || it == "*");
    let scope = match text(rule, "/scope") {
        "Namespaced" => review.resource.namespaced,
        "Cluster" => !review.resource.namespaced,
        _ => true,
    };
    let plural = &review.resource.plural;
    let resource = array(rule, "/resources").iter().filter_map(Value::as_str).any(|pattern| {
        let (wanted, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        (wanted == "*" || wanted == plural)
            && (subresource == review.subresource || (subresource == "*" && pattern != "*"))
    });
    // The match policy Equivalent: a rule for any served version means them all.
    let version = review.resource.versions.iter().any(|version| has("/apiVersions", &version.name));
    scope
        && resource
        && version
        && has("/operations", review.operation.word())
        && has("/apiGroups", &review.resource.group)
}

fn request(uid: &str, review: &Review<'_>, object: &Value) -> Value {
    let resource = review.resource;
    let version = &resource.preferred().name;
    let kind = json!({"group": resource.group, "version": version, "kind": resource.kind});
    let plural = json!({"group": resource.group, "version": version, "resource": resource.plural});
    let subject = if object.is_null() { review.old.unwrap_or(object) } else { object };
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": plural, "requestKind": kind, "requestResource": plural,
        "name": name(subject), "namespace": namespace(subject), "operation": review.operation.word(),
        "userInfo": review.caller.user.to_json(), "object": object, "oldObject": review.old,
        "dryRun": review.caller.dry_run, "options": {"apiVersion": "meta.k8s.io/v1", "kind": options_kind(review.operation)},
    });
    if !review.subresource.is_empty()
        && let Some(map) = request.as_object_mut()
    {
        map.insert("subResource".into(), review.subresource.into());
        map.insert("requestSubResource".into(), review.subresource.into());
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

fn options_kind(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    }
}

fn response(answer: &Value, uid: &str) -> Result<Value, CallError> {
    let response = &answer["response"];
    if !response["allowed"].is_boolean() {
        return Err(CallError::Answer { why: "it has no response.allowed".into() });
    }
    if response["uid"] != uid {
        return Err(CallError::Answer { why: "its response.uid is not that of the request".into() });
    }
    Ok(response.clone())
}

fn denial(hook: &str, response: &Value) -> ApiError {
    let why = match (text(response, "/status/message"), text(response, "/status/reason")) {
        ("", "") => "without explanation".to_owned(),
        ("", reason) => reason.to_owned(),
        (message, _) => message.to_owned(),
    };
    let separator = if why == "without explanation" { " " } else { ": " };
    let mut error =
        ApiError::new(Reason::Forbidden, format!("admission webhook \"{hook}\" denied the request{separator}{why}"));
    let code = response["status"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
    error.code = (400..600).contains(&code).then_some(code);
    if response["status"]["details"].is_object() {
        error.details = Some(response["status"]["details"].clone());
    }
    error
}
