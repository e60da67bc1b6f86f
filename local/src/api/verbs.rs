//! The verbs: from what a caller asks to what comes of it.

use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::asked::Asked;
use super::caller::Caller;
use super::object;
use super::operations::{ObjectKey, PatchTarget, place};
use super::patch::PatchKind;
use super::request::Form;
use super::store::{DeleteOptions, Deleted, Part};
use super::{Api, ApiError, ApiResult, table};

/// Reads one object.
pub(super) fn get(api: &Api, asked: &Asked) -> ApiResult<Answer> {
    let target = &asked.target;
    let found = api.store.get(&target.resource.key(), &target.namespace, &target.name)?;
    Ok(answer::object(200, target, asked.form()?, &found))
}

/// Reads many.
pub(super) fn list(api: &Api, asked: &Asked) -> ApiResult<Answer> {
    let (target, form) = (&asked.target, asked.form()?);
    let found = api.store.list(&target.resource.key(), &asked.query.selection(target)?);
    if form == Form::Table {
        let rows = found.items.iter().map(|it| &**it);
        return Ok(answer::json(200, &table::of(target, rows, Some(found.version))));
    }
    let items: Vec<Value> = found.items.iter().map(|it| answer::in_form(target, form, it)).collect();
    let (kind, api_version) = match form {
        Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        _ => (target.resource.list_kind.as_str(), target.view.api_version()),
    };
    let metadata = json!({"resourceVersion": found.version.to_string()});
    Ok(answer::json(200, &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})))
}

/// Creates an object.
pub(super) async fn create(api: &Api, asked: &Asked, sent: Value) -> ApiResult<Answer> {
    let (target, form) = (&asked.target, asked.form()?);
    let made = api.create(&target.resource.key(), place(target, sent)?, &asked.caller).await?;
    Ok(answer::object(201, target, form, &made))
}

/// Replaces an object or its status.
pub(super) async fn update(api: &Api, asked: &Asked, sent: Value) -> ApiResult<Answer> {
    let (target, form) = (&asked.target, asked.form()?);
    let written = api.update(&target.resource.key(), place(target, sent)?, part(asked), &asked.caller).await?;
    Ok(answer::object(200, target, form, &written))
}

/// Patches an object or its status.
pub(super) async fn patch(api: &Api, asked: &Asked, sent: Value) -> ApiResult<Answer> {
    let (target, form) = (&asked.target, asked.form()?);
    let kind = PatchKind::from_content_type(asked.content_type())?;
    // A JSON patch is a list of steps; the others are the object, or part of it.
    let sent = if kind == PatchKind::Apply { place(target, sent)? } else { sent };
    let resource = target.resource.key();
    let what = PatchTarget {
        key: ObjectKey { resource: &resource, namespace: &target.namespace, name: &target.name },
        kind,
        part: part(asked),
        manager: asked.query.get("fieldManager").unwrap_or("unknown"),
    };
    let (object, created) = api.patch(&what, &sent, &asked.caller).await?;
    Ok(answer::object(if created { 201 } else { 200 }, target, form, &object))
}

/// Deletes an object or begins to.
pub(super) async fn delete(api: &Api, asked: &Asked, sent: &Value) -> ApiResult<Answer> {
    let (target, form) = (&asked.target, asked.form()?);
    let (options, caller) = delete_options(asked, sent)?;
    let resource = target.resource.key();
    let key = ObjectKey { resource: &resource, namespace: &target.namespace, name: &target.name };
    match api.delete(key, &options, &caller).await? {
        Deleted::Gone(object) => Ok(answer::success(target, object::uid(&object))),
        Deleted::Pending(object) => Ok(answer::object(200, target, form, &object)),
    }
}

/// Deletes all objects that the selectors leave over.
pub(super) async fn delete_collection(api: &Api, asked: &Asked, sent: &Value) -> ApiResult<Answer> {
    let target = &asked.target;
    let (options, caller) = delete_options(asked, sent)?;
    let resource = target.resource.key();
    let deleted = api.delete_collection(&resource, &asked.query.selection(target)?, &options, &caller).await?;
    let items: Vec<Value> = deleted.iter().map(|it| target.view.show(it)).collect();
    let metadata = json!({"resourceVersion": api.store.version().to_string()});
    let (kind, api_version) = (&target.resource.list_kind, target.view.api_version());
    Ok(answer::json(200, &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})))
}

fn part(asked: &Asked) -> Part {
    if asked.target.subresource == "status" { Part::Status } else { Part::Main }
}

fn delete_options(asked: &Asked, sent: &Value) -> ApiResult<(DeleteOptions, Caller)> {
    let text = |pointer: &str| sent.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let policy = text("/propagationPolicy").or_else(|| asked.query.get("propagationPolicy").map(str::to_owned));
    let orphan = match policy.as_deref() {
        None | Some("Background" | "Foreground") => sent["orphanDependents"] == true,
        Some("Orphan") => true,
        Some(other) => return Err(ApiError::bad_request(format!("propagationPolicy: Unsupported value: \"{other}\""))),
    };
    let grace_seconds = match sent["gracePeriodSeconds"].as_u64() {
        Some(seconds) => Some(seconds),
        None => asked.query.number("gracePeriodSeconds")?,
    };
    let options = DeleteOptions {
        grace_seconds,
        uid: text("/preconditions/uid"),
        version: text("/preconditions/resourceVersion"),
        orphan,
    };
    let dry_run = asked.caller.dry_run || object::array(sent, "/dryRun").iter().any(|it| it == "All");
    Ok((options, Caller { dry_run, ..asked.caller.clone() }))
}
