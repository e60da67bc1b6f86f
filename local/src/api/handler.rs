//! From a request to its answer: who asks, for what, may they, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::answer::{self, Answer};
use super::asked::Asked;
use super::caller::Caller;
use super::rbac::{self, Action};
use super::request::{Form, Place, Query, Target};
use super::tokens::{ISSUER, User};
use super::{Api, ApiError, ApiResult, Reason, discovery, follow, open_api, remote, reviews, scale, verbs};

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
    let asked = Asked { target, query, caller, headers: parts.headers.clone() };
    if !matches!(asked.target.subresource.as_str(), "" | "status") {
        return subresource(api, asked, &mut parts, body).await;
    }
    if asked.target.subresource == "status" && !asked.target.resource.has_status() {
        return Err(no_subresource(&asked.target));
    }
    match action.verb.as_str() {
        "get" => verbs::get(api, &asked),
        "list" => verbs::list(api, &asked),
        "watch" => follow::answer(api, asked),
        verb => {
            let sent = read(&asked.headers, body).await?;
            match verb {
                "create" => verbs::create(api, &asked, sent).await,
                "update" => verbs::update(api, &asked, sent).await,
                "patch" => verbs::patch(api, &asked, sent).await,
                "delete" => verbs::delete(api, &asked, &sent).await,
                _ => verbs::delete_collection(api, &asked, &sent).await,
            }
        }
    }
}

async fn subresource(api: &Arc<Api>, asked: Asked, parts: &mut Parts, body: Incoming) -> ApiResult<Answer> {
    let key = asked.target.resource.key();
    match (key.as_str(), asked.target.subresource.as_str()) {
        (_, "scale") => {
            let sent = match parts.method {
                Method::GET => None,
                _ => Some(read(&parts.headers, body).await?),
            };
            scale::answer(api, &asked, &parts.method, sent).await
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
        let mut message = format!("the body of the request was in an unknown format: {media}; send JSON or YAML");
        if media.ends_with("protobuf") {
            message.push_str(" (with kubectl: add `--dry-run=client -o yaml | kubectl apply -f -` to the command)");
        }
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
