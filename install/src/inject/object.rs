//! Objects that hold a pod template, of any kind.

use serde_json::Value;

use super::{Additions, Injection, Outcome, Refusal, Skip, apply, is_in_system_namespace, plan};

/// Injects the pod template of any object that has one (Deployment, CronJob, Pod, …); also each item of a List.
///
/// # Errors
///
/// [`Refusal`] when the object asks for a sidecar that it cannot be given.
pub fn inject_object(object: &Value, injection: &Injection) -> Result<Outcome, Refusal> {
    if kind(object) == "List" {
        return inject_list(object, injection);
    }
    match plan_object(object, injection)? {
        Ok(additions) => extend_object(object.clone(), additions).map(Outcome::Injected),
        Err(skip) => Ok(Outcome::Skipped(skip)),
    }
}

/// The object with the additions.
pub(crate) fn extend_object(mut object: Value, additions: Additions) -> Result<Value, Refusal> {
    if let Some(place) = pod_path(kind(&object)).iter().try_fold(&mut object, |value, key| value.get_mut(key)) {
        *place = apply(place.take(), additions)?;
    }
    Ok(object)
}

/// Where an object of a kind has its pod or pod template.
#[must_use]
pub fn pod_path(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &[],
        "PodTemplate" => &["template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    }
}

/// What an object's pods would be given. A List is not looked into.
pub(crate) fn plan_object(object: &Value, injection: &Injection) -> Result<Result<Additions, Skip>, Refusal> {
    let kind = kind(object);
    let pod = pod_path(kind).iter().try_fold(object, |value, key| value.get(key));
    let Some(pod) = pod.filter(|pod| pod.get("spec").and_then(|spec| spec.get("containers")).is_some()) else {
        return Ok(Err(if is_known(object) { Skip::NoPods } else { Skip::UnknownKind }));
    };
    if is_in_system_namespace(object) {
        return Ok(Err(Skip::SystemNamespace));
    }
    // A pod's own name says what it belongs to as well as its file does: the proxy reads it off there.
    let owner = object.pointer("/metadata/name").and_then(Value::as_str).filter(|_| kind != "Pod");
    plan(pod, injection, owner)
}

fn inject_list(list: &Value, injection: &Injection) -> Result<Outcome, Refusal> {
    let mut list = list.clone();
    let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) else {
        return Ok(Outcome::Skipped(Skip::NoPods));
    };
    let mut any = false;
    for item in items {
        if let Outcome::Injected(injected) = inject_object(item, injection)? {
            *item = injected;
            any = true;
        }
    }
    Ok(if any { Outcome::Injected(list) } else { Outcome::Skipped(Skip::NoPods) })
}

fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Whether the kind is one of Kubernetes' or ours, of which it is known that it runs no pods. Errs towards unknown.
fn is_known(object: &Value) -> bool {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    // A list of one kind, whose items do not say what they are.
    if kind(object).ends_with("List") {
        return false;
    }
    match group {
        "" | "apps" | "batch" | "autoscaling" | "policy" | "extensions" => true,
        _ => [".k8s.io", ".istio.io", "meshctl.io"].iter().any(|known| group.ends_with(known)),
    }
}
