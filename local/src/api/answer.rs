//! Answers.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::request::{Form, Target};
use super::{ApiError, table};

/// What every handler returns.
pub(super) type Answer = Response<Body>;

/// An answer of JSON.
pub(super) fn json(code: u16, value: &Value) -> Answer {
    typed(code, "application/json", value.to_string().into())
}

/// An answer of some type.
pub(super) fn typed(code: u16, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A refusal.
pub(super) fn refusal(error: &ApiError) -> Answer {
    json(error.status_code(), &error.to_status())
}

/// One object in the form that the caller wants.
pub(super) fn object(code: u16, target: &Target, form: Form, stored: &Value) -> Answer {
    json(code, &in_form(target, form, stored))
}

/// One object in the form that the caller wants.
pub(super) fn in_form(target: &Target, form: Form, stored: &Value) -> Value {
    match form {
        Form::Whole => target.view.show(stored),
        Form::Table => table::of(target, std::iter::once(stored), None),
        Form::Metadata => json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": stored["metadata"],
        }),
    }
}

/// That something was done to an object which no longer is.
pub(super) fn success(target: &Target, uid: &str) -> Answer {
    json(
        200,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": target.name, "group": target.resource.group, "kind": target.resource.plural, "uid": uid},
        }),
    )
}
