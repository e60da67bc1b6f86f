//! The admission webhooks: pods get their sidecars, and objects of ours are judged before they are stored.
//!
//! Both are the CLI's code behind a request: [`install::inject`] and [`api::object::validate_object`].

use std::sync::Arc;

use api::problem::{Problem, Severity};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use install::inject::{Injection, Outcome, inject_pod};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::Value;

/// Largest review that is read: the API server's own limit on objects, twice (an update brings the old one too).
const LARGEST_REVIEW: usize = 8 << 20;

/// What injection depends on, asked for anew for each pod, as the root certificate may change.
pub type InjectionSource = Arc<dyn Fn() -> Injection + Send + Sync>;

/// The webhooks' routes: `POST /inject` and `POST /validate`.
pub fn router(injection: InjectionSource) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/validate", post(validate))
        .layer(DefaultBodyLimit::max(LARGEST_REVIEW))
        .with_state(injection)
}

async fn inject(State(injection): State<InjectionSource>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&headers, &body, |request| injected(request, &injection()))
}

async fn validate(headers: HeaderMap, body: Bytes) -> Response {
    answer(&headers, &body, validated)
}

/// Reads a review, lets `judge` answer it, and writes the answer.
fn answer(
    headers: &HeaderMap,
    body: &[u8],
    judge: impl FnOnce(&AdmissionRequest<DynamicObject>) -> AdmissionResponse,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let text = format!("the content type is {content_type:?}; send an AdmissionReview as application/json\n");
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    }
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, "the body is empty; send an AdmissionReview\n").into_response();
    }
    let review: AdmissionReview<DynamicObject> = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => {
            let text = format!("the body is not an AdmissionReview: {error}\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(_) => return (StatusCode::BAD_REQUEST, "the AdmissionReview has no request\n").into_response(),
    };
    let mut response = judge(&request);
    // Bytes are base64 in the Kubernetes API; the type would write them as a list of numbers.
    let patch = response.patch.take().map(|patch| STANDARD.encode(patch));
    match serde_json::to_value(response.into_review()) {
        Ok(mut review) => {
            if let Some(patch) = patch {
                review["response"]["patch"] = Value::String(patch);
            }
            Json(review).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written: {error}\n")).into_response()
        }
    }
}

/// The pod with a sidecar, as a patch.
fn injected(request: &AdmissionRequest<DynamicObject>, injection: &Injection) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    let Some(pod) = &request.object else {
        return response.deny("there is no pod in the request");
    };
    let pod = match serde_json::to_value(pod) {
        Ok(pod) => pod,
        Err(error) => return response.deny(format!("the pod cannot be read: {error}")),
    };
    let name = name_of(&pod);
    match inject_pod(&pod, injection) {
        Ok(Outcome::Skipped(why)) => {
            tracing::debug!(namespace = request.namespace, pod = name, %why, "no sidecar is injected");
            response
        }
        Ok(Outcome::Injected(with_sidecar)) => {
            let patch = json_patch::diff(&pod, &with_sidecar);
            tracing::info!(namespace = request.namespace, pod = name, "a sidecar is injected");
            response.with_patch(patch).unwrap_or_else(|error| {
                AdmissionResponse::from(request).deny(format!("the patch cannot be written: {error}"))
            })
        }
        Err(refusal) => response.deny(format!("the sidecar cannot be injected: {refusal}")),
    }
}

/// For the fuzzer: a review from any bytes. What is injected has its sidecar, and is not injected again.
pub fn fuzz(bytes: &[u8]) {
    let injection = Injection::new(install::Images::of_version("1"), "a root");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    let answered = answer(&headers, bytes, |request| {
        if let Some(Ok(pod)) = request.object.as_ref().map(serde_json::to_value)
            && let Ok(Outcome::Injected(with_sidecar)) = inject_pod(&pod, &injection)
        {
            let again = inject_pod(&with_sidecar, &injection);
            assert!(matches!(again, Ok(Outcome::Skipped(_))), "{again:?}");
        }
        let _ = validated(request);
        injected(request, &injection)
    });
    assert!(!answered.status().is_server_error(), "an answer can be written");
}

/// A pod has no name yet when a controller leaves that to the API server.
fn name_of(pod: &Value) -> &str {
    let metadata = pod.get("metadata").unwrap_or(&Value::Null);
    let name = metadata.get("name").or_else(|| metadata.get("generateName"));
    name.and_then(Value::as_str).unwrap_or_default()
}

/// All problems of an object in one message; warnings let it pass.
fn validated(request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let Some(object) = &request.object else { return response };
    let object = match serde_json::to_value(object) {
        Ok(object) => object,
        Err(error) => return response.deny(format!("the object cannot be read: {error}")),
    };
    let (errors, warnings): (Vec<Problem>, Vec<Problem>) =
        api::object::validate_object(&object).into_iter().partition(|problem| problem.severity == Severity::Error);
    if !warnings.is_empty() {
        response.warnings = Some(warnings.iter().map(one_line).collect());
    }
    if errors.is_empty() {
        return response;
    }
    let lines: Vec<String> = errors.iter().map(one_line).collect();
    response.deny(lines.join("\n"))
}

/// A problem with its hint.
fn one_line(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{problem} ({hint})"),
        None => problem.to_string(),
    }
}
