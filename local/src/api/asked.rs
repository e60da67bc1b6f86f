//! A request for objects, understood and allowed.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::ApiResult;
use super::caller::Caller;
use super::request::{Form, Query, Target};

/// A request for objects or part of one, by someone who may make it.
pub(super) struct Asked {
    pub(super) target: Target,
    pub(super) query: Query,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
}

impl Asked {
    /// The form in which the answer is wanted.
    pub(super) fn form(&self) -> ApiResult<Form> {
        Form::of(&self.headers)
    }

    /// The type of the body.
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default()
    }
}
