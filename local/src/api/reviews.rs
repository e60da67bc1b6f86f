//! Questions that are answered and not kept: whose token is this, may that user do that; and the request for a token.

use serde_json::{Value, json};

use super::object::{array, text};
use super::rbac::{self, Action};
use super::request::Target;
use super::tokens::{ISSUER, TokenRequest, User};
use super::{Api, ApiError, ApiResult, object};

/// Answers a review.
///
/// # Errors
/// `BadRequest` when nothing is asked.
pub(super) fn answer(api: &Api, user: &User, plural: &str, asked: &Value) -> ApiResult<Value> {
    let mut review = if asked.is_object() { asked.clone() } else { json!({}) };
    review["status"] = match plural {
        "tokenreviews" => token_review(api, asked)?,
        "selfsubjectreviews" => json!({"userInfo": user.to_json()}),
        "selfsubjectaccessreviews" => access(api, user, &asked["spec"])?,
        _ => {
            let spec = &asked["spec"];
            let strings = |list: &[Value]| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let subject = User {
                name: text(spec, "/user").to_owned(),
                uid: text(spec, "/uid").to_owned(),
                groups: strings(array(spec, "/groups")),
                extra: vec![],
            };
            access(api, &subject, spec)?
        }
    };
    Ok(review)
}

fn token_review(api: &Api, asked: &Value) -> ApiResult<Value> {
    let token = text(asked, "/spec/token");
    if token.is_empty() {
        return Err(ApiError::bad_request("spec.token: Required value: a token is needed to review it"));
    }
    let mut audiences: Vec<String> =
        array(asked, "/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    Ok(match api.tokens.review(&api.store, token, &audiences) {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user.to_json(), "audiences": audiences}),
        Err(error) => json!({"authenticated": false, "error": error.message}),
    })
}

fn access(api: &Api, user: &User, spec: &Value) -> ApiResult<Value> {
    let action = if let Some(attributes) = spec.get("resourceAttributes").filter(|it| it.is_object()) {
        let field = |field: &str| attributes[field].as_str().unwrap_or_default().to_owned();
        Action {
            verb: field("verb"),
            group: field("group"),
            resource: field("resource"),
            subresource: field("subresource"),
            namespace: field("namespace"),
            name: field("name"),
            path: None,
        }
    } else if let Some(attributes) = spec.get("nonResourceAttributes").filter(|it| it.is_object()) {
        let path = Some(text(attributes, "/path").to_owned());
        Action { verb: text(attributes, "/verb").to_owned(), path, ..Action::default() }
    } else {
        return Err(ApiError::bad_request(
            "spec: exactly one of resourceAttributes and nonResourceAttributes is needed",
        ));
    };
    Ok(json!({"allowed": rbac::allows(&api.store, user, &action)}))
}

/// Answers a TokenRequest for a service account.
///
/// # Errors
/// What issuing refuses.
pub(super) fn token(api: &Api, target: &Target, asked: &Value) -> ApiResult<Value> {
    let spec = &asked["spec"];
    let bound = &spec["boundObjectRef"];
    let pod = match text(bound, "/kind") {
        "" => None,
        "Pod" => Some(text(bound, "/name").to_owned()),
        other => {
            let why = format!("Unsupported value: \"{other}\": supported values: \"Pod\"");
            return Err(ApiError::invalid("TokenRequest", "", "spec.boundObjectRef.kind", &why));
        }
    };
    if let Some(pod) = &pod {
        let found = api.store.get("pods", &target.namespace, pod)?;
        let uid = text(bound, "/uid");
        if !uid.is_empty() && uid != object::uid(&found) {
            return Err(ApiError::conflict(
                "pods",
                pod,
                "the UID in the bound object reference does not match the UID of the pod",
            ));
        }
    }
    let request = TokenRequest {
        namespace: target.namespace.clone(),
        service_account: target.name.clone(),
        audiences: array(spec, "/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        seconds: spec["expirationSeconds"].as_u64(),
        pod,
    };
    let issued = api.tokens.issue(&api.store, &request)?;
    let mut answer = if asked.is_object() { asked.clone() } else { json!({}) };
    answer["apiVersion"] = "authentication.k8s.io/v1".into();
    answer["kind"] = "TokenRequest".into();
    answer["status"] = json!({"token": issued.token, "expirationTimestamp": object::stamp(issued.expires)});
    Ok(answer)
}
