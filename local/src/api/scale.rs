//! The `scale` subresource.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::asked::Asked;
use super::operations::{ObjectKey, PatchTarget};
use super::patch::{self, PatchKind};
use super::resources::Scale;
use super::store::Part;
use super::{Api, ApiError, ApiResult, Reason, object};

/// Reads or changes how many replicas are wanted.
///
/// # Errors
/// `NotFound` when the resource has no scale, and what the store refuses.
pub(super) async fn answer(api: &Arc<Api>, asked: &Asked, method: &Method, sent: Option<Value>) -> ApiResult<Answer> {
    let target = &asked.target;
    let version = target.view.api_version().rsplit('/').next().unwrap_or_default();
    let known = target.resource.version(version).unwrap_or_else(|| target.resource.preferred());
    let Some(paths) = &known.scale else {
        return Err(ApiError::new(Reason::NotFound, format!("{} cannot be scaled", target.resource.key())));
    };
    let key = target.resource.key();
    let found = api.store.get(&key, &target.namespace, &target.name)?;
    let mut scale = of(&found, paths);
    let Some(sent) = sent else { return Ok(answer::json(200, &scale)) };
    if *method == Method::PATCH {
        patch::apply(PatchKind::from_content_type(asked.content_type())?, &mut scale, &sent)?;
    } else {
        scale = sent;
    }
    let Some(replicas) = scale["spec"]["replicas"].as_u64() else {
        return Err(ApiError::invalid("Scale", &target.name, "spec.replicas", "Required value: a number"));
    };
    let fields = paths.wanted.split('/').filter(|it| !it.is_empty()).rev();
    let mut change = fields.fold(json!(replicas), |inner, field| json!({field: inner}));
    let sent_version = object::text(&scale, "/metadata/resourceVersion");
    if *method == Method::PUT && !sent_version.is_empty() {
        change["metadata"] = json!({"resourceVersion": sent_version});
    }
    let what = PatchTarget {
        key: ObjectKey { resource: &key, namespace: &target.namespace, name: &target.name },
        kind: PatchKind::Merge,
        part: Part::Main,
        manager: "scale",
    };
    let (written, _) = api.patch(&what, &change, &asked.caller).await?;
    Ok(answer::json(200, &of(&written, paths)))
}

fn of(object: &Value, paths: &Scale) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let selector = paths.selector.as_deref().and_then(|pointer| object.pointer(pointer));
    let selector = match selector {
        Some(Value::String(text)) => text.clone(),
        Some(selector) => {
            let labels = selector["matchLabels"].as_object().into_iter().flatten();
            labels
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        }
        None => String::new(),
    };
    let meta = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
            "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {"replicas": number(&paths.wanted)},
        "status": {"replicas": number(&paths.existing), "selector": selector},
    })
}
