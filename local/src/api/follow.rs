//! Watches over HTTP: one JSON object per line, for as long as the caller listens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::asked::Asked;
use super::request::{Form, Target};
use super::store::{Change, Event, Watch};
use super::{Api, ApiError, ApiResult, Selection};

/// Time between bookmarks, for those who want them.
const BOOKMARKS: Duration = Duration::from_secs(30);
/// A watch ends after this time if its caller names none, as Kubernetes' do after 30 to 60 minutes.
const LONGEST: Duration = Duration::from_secs(3600);

struct Follower {
    api: Arc<Api>,
    watch: Watch,
    target: Target,
    form: Form,
    selection: Selection,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    first: VecDeque<Bytes>,
    done: bool,
}

/// Starts a watch.
///
/// # Errors
/// `Expired`, and what the selectors refuse.
pub(super) fn answer(api: &Arc<Api>, asked: Asked) -> ApiResult<Answer> {
    let form = asked.form()?;
    let Asked { target, query, .. } = asked;
    let selection = query.selection(&target)?;
    let key = target.resource.key();
    let initial = query.flag("sendInitialEvents");
    let bookmarks = query.flag("allowWatchBookmarks");
    let asked = query.get("resourceVersion").unwrap_or("0");
    let from: u64 =
        asked.parse().map_err(|_| ApiError::bad_request(format!("resourceVersion: \"{asked}\" is not one")))?;
    let now = Instant::now();
    let ends = now + query.number("timeoutSeconds")?.map_or(LONGEST, Duration::from_secs).min(LONGEST);
    let mut first = VecDeque::new();
    let from = if initial || from == 0 {
        let list = api.store.list(&key, &selection);
        first.extend(list.items.iter().map(|object| line("ADDED", &answer::in_form(&target, form, object))));
        if initial && bookmarks {
            first.push_back(bookmark(&target, form, list.version, true));
        }
        list.version
    } else {
        from
    };
    let watch = api.store.watch(&key, from)?;
    let follower = Follower {
        api: api.clone(),
        watch,
        target,
        form,
        selection,
        bookmarks,
        next_bookmark: now + BOOKMARKS,
        ends,
        first,
        done: false,
    };
    let lines = stream::unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Some((Ok::<_, Infallible>(line), follower))
    });
    let mut answer = answer::typed(200, "application/json", Bytes::new());
    *answer.body_mut() = Body::from_stream(lines);
    Ok(answer)
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.first.pop_front() {
            return Some(line);
        }
        while !self.done {
            tokio::select! {
                event = self.watch.next() => match event {
                    Ok(event) => {
                        if let Some(line) = self.line(&event) {
                            return Some(line);
                        }
                    }
                    Err(error) => {
                        self.done = true;
                        return Some(line("ERROR", &error.to_status()));
                    }
                },
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARKS;
                    return Some(bookmark(&self.target, self.form, self.watch.version(), false));
                }
                () = tokio::time::sleep_until(self.ends) => self.done = true,
                () = self.api.stop.cancelled() => self.done = true,
            }
        }
        None
    }

    /// What the event is to someone who sees only the selected objects.
    fn line(&self, event: &Event) -> Option<Bytes> {
        let is = self.selection.matches(&event.object);
        let was = event.previous.as_ref().is_some_and(|previous| self.selection.matches(previous));
        let kind = match (event.change, was, is) {
            (Change::Deleted, true, _) | (Change::Modified, true, false) => "DELETED",
            (Change::Added, _, true) | (Change::Modified, false, true) => "ADDED",
            (Change::Modified, true, true) => "MODIFIED",
            _ => return None,
        };
        Some(line(kind, &answer::in_form(&self.target, self.form, &event.object)))
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}

fn bookmark(target: &Target, form: Form, version: u64, initial: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = match form {
        Form::Whole => {
            json!({"kind": target.resource.kind, "apiVersion": target.view.api_version(), "metadata": metadata})
        }
        Form::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        Form::Table => json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version.to_string()},
            "columnDefinitions": [], "rows": [],
        }),
    };
    line("BOOKMARK", &object)
}
