//! The API's own errors: what becomes a `Status` object on the wire.

use serde_json::{Value, json};

/// Why a request was refused, in the words of the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The caller did not say who it is, or not in a way that holds.
    Unauthorized,
    /// The caller may not do that.
    Forbidden,
    /// There is no such object or resource.
    NotFound,
    /// An object of that name is there already.
    AlreadyExists,
    /// The object has changed since the caller read it.
    Conflict,
    /// The object does not make sense.
    Invalid,
    /// The request does not make sense.
    BadRequest,
    /// The resource does not know that verb.
    MethodNotAllowed,
    /// No representation that the caller accepts.
    NotAcceptable,
    /// The body's type is not one that is read here.
    UnsupportedMediaType,
    /// The resource version is too old for what history remains.
    Expired,
    /// The body is larger than what is read here.
    RequestEntityTooLarge,
    /// A peer did not answer in time.
    Timeout,
    /// A fault of the server.
    InternalError,
    /// Not now.
    ServiceUnavailable,
    /// The disk is full.
    InsufficientStorage,
}

impl Reason {
    /// The HTTP status code that goes with it.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
            Self::InsufficientStorage => 507,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::Timeout => "Timeout",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::InsufficientStorage => "InsufficientStorage",
        }
    }
}

/// A refusal, as the caller sees it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of refusal.
    pub reason: Reason,
    /// What, where, what next.
    pub message: String,
    /// The status code, if not the reason's own (webhooks choose theirs).
    pub code: Option<u16>,
    /// The `details` of the Status object.
    pub details: Option<Value>,
}

/// What every operation of the API returns.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// A refusal with a message and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), code: None, details: None }
    }

    /// `pods "x" not found`.
    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::about(Reason::NotFound, resource, name, format!("{resource} \"{name}\" not found"))
    }

    /// `pods "x" already exists`.
    pub fn already_exists(resource: &str, name: &str) -> Self {
        Self::about(Reason::AlreadyExists, resource, name, format!("{resource} \"{name}\" already exists"))
    }

    /// The object has changed since the caller read it.
    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::about(Reason::Conflict, resource, name, message)
    }

    /// One field of the object does not make sense.
    pub fn invalid(kind: &str, name: &str, field: &str, why: &str) -> Self {
        let mut error =
            Self::about(Reason::Invalid, kind, name, format!("{kind} \"{name}\" is invalid: {field}: {why}"));
        error.details = Some(json!({
            "name": name, "kind": kind,
            "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}],
        }));
        error
    }

    /// The request does not make sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// A fault of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::InternalError, message)
    }

    /// Whether the refusal says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether the refusal says that the object has changed, so that reading it again and retrying may help.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// The HTTP status code.
    pub fn status_code(&self) -> u16 {
        self.code.unwrap_or_else(|| self.reason.code())
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.word(), "code": self.status_code(),
        });
        if let (Some(details), Some(map)) = (&self.details, status.as_object_mut()) {
            map.insert("details".into(), details.clone());
        }
        status
    }

    fn about(reason: Reason, resource: &str, name: &str, message: String) -> Self {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let mut details = json!({"name": name, "kind": plural});
        if let (false, Some(map)) = (group.is_empty(), details.as_object_mut()) {
            map.insert("group".into(), group.into());
        }
        Self { reason, message, code: None, details: Some(details) }
    }
}
