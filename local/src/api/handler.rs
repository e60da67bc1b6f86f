//! From a request to its answer: who asks, for what, may they, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::operations::{Caller, PatchTarget, place};
use super::patch::PatchKind;
use super::rbac::{self, Action};
use super::request::{Form, Place, Query, Target};
use super::store::{DeleteOptions, Deleted, Part};
use super::tokens::{ISSUER, User};
use super::{Api, ApiError, ApiResult, Reason, discovery, follow, object, open_api, remote, reviews, scale, table};

/// A body larger than this is not read (etcd's limit, with room).
const MAX_BODY: usize = 3 << 20;

/// Answers a request; refusals are answers too.
pub(super) async fn handle(api: Arc<Api>, peer: Option<User>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    match answer(&api, peer, parts, body).await {
        Ok(answer) => answer,
        Err(error) => answer::refusal(&error),
    }
}

async fn answer(api: &Arc<Api>, peer: Option<User>, mut parts: Parts, body: Incoming) -> ApiResult<Answer> {
    let resources = api.store.resources();
    let place = Place::parse(&resources, parts.uri.path());
    if matches!(place, Ok(Place::Health)) {
        return Ok(answer::typed(200, "text/plain", Bytes::from_static(b"ok")));
    }
    let user = authenticate(api, peer, &parts.headers)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let target = match place? {
        Place::Objects(target) => target,
        Place::Review(plural) => {
            // Everybody may ask about themselves.
            if !plural.starts_with("self") {
                authorize(api, &user, &review_action(&plural))?;
            }
            let asked = read(&parts.headers, body).await?;
            return reviews::answer(api, &user, &plural, &asked).map(|review| answer::json(201, &review));
        }
        Place::OpenApi(path) => return open_api::answer(&resources, &path),
        place => return discovery::answer(&resources, &place, Form::is_aggregated_discovery(&parts.headers)),
    };
    let action = action(&parts.method, &target, &query)?;
    authorize(api, &user, &action)?;
    let caller = Caller { user, dry_run: query.dry_run()? };
    if !target.subresource.is_empty() && target.subresource != "status" {
        let asked = Asked { target, query, caller };
        return subresource(api, asked, &mut parts, body).await;
    }
    if target.subresource == "status" && !target.resource.has_status() {
        return Err(no_subresource(&target));
    }
    let form = Form::of(&parts.headers)?;
    match action.verb.as_str() {
        "get" => {
            let found = api.store.get(&target.resource.key(), &target.namespace, &target.name)?;
            Ok(answer::object(200, &target, form, &found))
        }
        "list" => list(api, &target, form, &query),
        "watch" => follow::answer(api, target, form, &query),
        "create" => {
            let sent = place_of(&parts.headers, body, &target).await?;
            let made = api.create(&target.resource.key(), sent, &caller).await?;
            Ok(answer::object(201, &target, form, &made))
        }
        "update" => {
            let sent = place_of(&parts.headers, body, &target).await?;
            let written = api.update(&target.resource.key(), sent, part(&target), &caller).await?;
            Ok(answer::object(200, &target, form, &written))
        }
        "patch" => patch(api, &target, form, &query, &caller, &parts.headers, body).await,
        "delete" => delete(api, &target, form, &query, &caller, &parts.headers, body).await,
        _ => delete_collection(api, &target, &query, &caller, &parts.headers, body).await,
    }
}

/// A request for part of an object.
pub(super) struct Asked {
    pub(super) target: Target,
    pub(super) query: Query,
    pub(super) caller: Caller,
}

async fn subresource(api: &Arc<Api>, asked: Asked, parts: &mut Parts, body: Incoming) -> ApiResult<Answer> {
    let key = asked.target.resource.key();
    match (key.as_str(), asked.target.subresource.as_str()) {
        (_, "scale") => {
            let sent = match parts.method {
                Method::GET => None,
                _ => Some(read(&parts.headers, body).await?),
            };
            scale::answer(api, &asked, &parts.method, sent, &parts.headers).await
        }
        ("serviceaccounts", "token") if parts.method == Method::POST => {
            let sent = read(&parts.headers, body).await?;
            reviews::token(api, &asked.target, &sent).map(|answer| answer::json(201, &answer))
        }
        ("pods", "log") if parts.method == Method::GET => remote::log(api, &asked).await,
        ("pods", "exec") => remote::exec(api, &asked, parts).await,
        ("pods", "portforward") => remote::port_forward(api, &asked, parts).await,
        _ => Err(no_subresource(&asked.target)),
    }
}

fn no_subresource(target: &Target) -> ApiError {
    let what = format!("{}/{}", target.resource.key(), target.subresource);
    ApiError::new(
        Reason::NotFound,
        format!("the server could not find the requested resource: {what} is not served here"),
    )
}

fn part(target: &Target) -> Part {
    if target.subresource == "status" { Part::Status } else { Part::Main }
}

/// Finds out who asks: a client certificate, else a token.
fn authenticate(api: &Api, peer: Option<User>, headers: &HeaderMap) -> ApiResult<User> {
    let unauthorized = || ApiError::new(Reason::Unauthorized, "Unauthorized");
    if let Some(header) = headers.get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|it| it.strip_prefix("Bearer ")).ok_or_else(unauthorized)?;
        let reviewed = api.tokens.review(&api.store, token.trim(), &[ISSUER.to_owned()]);
        return reviewed.map(|(user, _)| user).map_err(|error| {
            tracing::debug!(%error, "a token was refused");
            unauthorized()
        });
    }
    peer.ok_or_else(unauthorized)
}

/// Refuses what the user may not do.
///
/// # Errors
/// `Forbidden`.
pub(super) fn authorize(api: &Api, user: &User, action: &Action) -> ApiResult<()> {
    if rbac::allows(&api.store, user, action) {
        return Ok(());
    }
    let resource = match action.subresource.as_str() {
        "" => action.resource.clone(),
        subresource => format!("{}/{subresource}", action.resource),
    };
    let full = if action.group.is_empty() { resource.clone() } else { format!("{}.{}", action.resource, action.group) };
    let subject = if action.name.is_empty() { full } else { format!("{full} \"{}\"", action.name) };
    let at = match action.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    Err(ApiError::new(
        Reason::Forbidden,
        format!(
            "{subject} is forbidden: User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {at}",
            user.name, action.verb, action.group
        ),
    ))
}

fn review_action(plural: &str) -> Action {
    let group = if plural == "tokenreviews" || plural == "selfsubjectreviews" {
        "authentication.k8s.io"
    } else {
        "authorization.k8s.io"
    };
    Action { verb: "create".into(), group: group.into(), resource: plural.into(), ..Action::default() }
}

fn action(method: &Method, target: &Target, query: &Query) -> ApiResult<Action> {
    let collection = target.name.is_empty();
    let verb = match (method, collection) {
        (&Method::GET | &Method::HEAD, true) if query.flag("watch") => "watch",
        (&Method::GET | &Method::HEAD, true) => "list",
        // WebSocket upgrades are GETs, and mean what a POST means.
        (&Method::GET, false) if matches!(target.subresource.as_str(), "exec" | "portforward") => "create",
        (&Method::GET | &Method::HEAD, false) => "get",
        (&Method::POST, true) => "create",
        (&Method::POST, false) if !target.subresource.is_empty() && target.subresource != "status" => "create",
        (&Method::PUT, false) => "update",
        (&Method::PATCH, false) => "patch",
        (&Method::DELETE, false) => "delete",
        (&Method::DELETE, true) => "deletecollection",
        _ => {
            let message =
                format!("{method} is not supported on {}", if collection { "collections" } else { "single objects" });
            return Err(ApiError::new(Reason::MethodNotAllowed, message));
        }
    };
    Ok(Action {
        verb: verb.into(),
        group: target.group.clone(),
        resource: target.resource.plural.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        path: None,
    })
}

/// Reads a body as JSON or, where it is not JSON, as YAML.
pub(super) async fn read(headers: &HeaderMap, body: Incoming) -> ApiResult<Value> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("application/json");
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if !(media.ends_with("json") || media.ends_with("yaml") || media.is_empty()) {
        let message = format!("the body of the request was in an unknown format: {media}; send JSON or YAML");
        return Err(ApiError::new(Reason::UnsupportedMediaType, message));
    }
    let bytes = match Limited::new(body, MAX_BODY).collect().await {
        Ok(bytes) => bytes.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
        }
        Err(error) => return Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
    };
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(value),
        Err(_) if media.ends_with("yaml") => {
            let text = std::str::from_utf8(&bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
            serde_yaml::from_str(text).map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("error decoding JSON: {error}"))),
    }
}

async fn place_of(headers: &HeaderMap, body: Incoming, target: &Target) -> ApiResult<Value> {
    place(target, read(headers, body).await?)
}

fn list(api: &Api, target: &Target, form: Form, query: &Query) -> ApiResult<Answer> {
    let found = api.store.list(&target.resource.key(), &query.selection(target)?);
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

async fn patch(
    api: &Api,
    target: &Target,
    form: Form,
    query: &Query,
    caller: &Caller,
    headers: &HeaderMap,
    body: Incoming,
) -> ApiResult<Answer> {
    let kind =
        PatchKind::from_content_type(headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default())?;
    let sent = read(headers, body).await?;
    // A JSON patch is a list of steps; the others are the object, or part of it.
    let sent = if kind == PatchKind::Apply { place(target, sent)? } else { sent };
    let key = target.resource.key();
    let manager = query.get("fieldManager").unwrap_or("unknown");
    let what = PatchTarget {
        resource: &key,
        namespace: &target.namespace,
        name: &target.name,
        kind,
        part: part(target),
        manager,
    };
    let (object, created) = api.patch(&what, &sent, caller).await?;
    Ok(answer::object(if created { 201 } else { 200 }, target, form, &object))
}

async fn delete_options(query: &Query, headers: &HeaderMap, body: Incoming) -> ApiResult<(DeleteOptions, bool)> {
    let sent = read(headers, body).await?;
    let text = |pointer: &str| sent.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let policy = text("/propagationPolicy").or_else(|| query.get("propagationPolicy").map(str::to_owned));
    let orphan = match policy.as_deref() {
        None | Some("Background" | "Foreground") => sent["orphanDependents"] == true,
        Some("Orphan") => true,
        Some(other) => return Err(ApiError::bad_request(format!("propagationPolicy: Unsupported value: \"{other}\""))),
    };
    let grace_seconds = match sent["gracePeriodSeconds"].as_u64() {
        Some(seconds) => Some(seconds),
        None => query.number("gracePeriodSeconds")?,
    };
    let dry_run = object::array(&sent, "/dryRun").iter().any(|it| it == "All");
    let options = DeleteOptions {
        grace_seconds,
        uid: text("/preconditions/uid"),
        version: text("/preconditions/resourceVersion"),
        orphan,
    };
    Ok((options, dry_run))
}

async fn delete(
    api: &Api,
    target: &Target,
    form: Form,
    query: &Query,
    caller: &Caller,
    headers: &HeaderMap,
    body: Incoming,
) -> ApiResult<Answer> {
    let (options, dry_run) = delete_options(query, headers, body).await?;
    let caller = Caller { dry_run: caller.dry_run || dry_run, ..caller.clone() };
    match api.delete(&target.resource.key(), &target.namespace, &target.name, &options, &caller).await? {
        Deleted::Gone(object) => Ok(answer::success(target, object::uid(&object))),
        Deleted::Pending(object) => Ok(answer::object(200, target, form, &object)),
    }
}

async fn delete_collection(
    api: &Api,
    target: &Target,
    query: &Query,
    caller: &Caller,
    headers: &HeaderMap,
    body: Incoming,
) -> ApiResult<Answer> {
    let (options, dry_run) = delete_options(query, headers, body).await?;
    let caller = Caller { dry_run: caller.dry_run || dry_run, ..caller.clone() };
    let key = target.resource.key();
    let deleted = api.delete_collection(&key, &query.selection(target)?, &options, &caller).await?;
    let items: Vec<Value> = deleted.iter().map(|it| target.view.show(it)).collect();
    let metadata = json!({"resourceVersion": api.store.version().to_string()});
    let list = json!({"kind": target.resource.list_kind, "apiVersion": target.view.api_version(), "metadata": metadata, "items": items});
    Ok(answer::json(200, &list))
}
