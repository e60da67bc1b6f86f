//! `GET /v1/applied`: how far a change of one object has got, over all proxies of this Pilot.
//!
//! With `timeout=SECONDS` the answer comes as soon as all proxies concerned have acknowledged or refused the change, or
//! when the time is over, whatever is first.

use std::time::Duration;

use api::kinds;
use api::messages::Applied;
use api::model::Key;
use api::registry::{Id, Resource};
use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::Debug;
use crate::xds::proxies::Progress;

/// Longest wait that one may ask for.
const LONGEST_WAIT: f64 = 300.0;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Question {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
    resource_version: Option<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    timeout: f64,
}

pub(super) async fn applied(State(debug): State<Debug>, Query(question): Query<Question>) -> Response {
    if !(0.0..=LONGEST_WAIT).contains(&question.timeout) {
        let text = format!("timeout={} is not from 0 to {LONGEST_WAIT} seconds\n", question.timeout);
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let Some(resource) = resource(&question.kind) else {
        let kinds: Vec<_> = kinds::KINDS.iter().filter(|kind| kind.in_force).map(|kind| kind.kind).collect();
        let (kind, kinds) = (question.kind, kinds.join(", "));
        let text = format!("kind={kind} is not a kind whose objects proxies apply: {kinds}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    if question.deleted == question.resource_version.is_some() {
        return (StatusCode::BAD_REQUEST, "ask for a resourceVersion, or for deleted=true\n").into_response();
    }
    let key = Key { namespace: question.namespace.clone(), name: question.name.clone() };
    let object = Id { resource, key };
    let until = Instant::now() + Duration::from_secs_f64(question.timeout);
    let (mut snapshots, mut progress) = (debug.snapshots.changes(), debug.proxies.progress());
    loop {
        snapshots.mark_unchanged();
        progress.mark_unchanged();
        let answer = answer(&debug, &object, question.resource_version.as_deref());
        if is_final(&answer) || Instant::now() >= until {
            return Json(answer).into_response();
        }
        tokio::select! {
            _ = snapshots.changed() => {}
            _ = progress.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// The resource of a kind in any of its spellings. Of objects of the same name in both groups, ours is meant.
fn resource(kind: &str) -> Option<Resource> {
    let kind = kinds::named(kind).ok()?;
    Resource::of(&kinds::api_version(), kind.kind)
}

fn is_final(answer: &Applied) -> bool {
    answer.known && answer.waiting.is_empty()
}

fn answer(debug: &Debug, object: &Id, resource_version: Option<&str>) -> Applied {
    let snapshot = debug.snapshots.current();
    let unknown = Applied {
        known: false,
        accepted: false,
        problems: Vec::new(),
        proxies: 0,
        applied: 0,
        waiting: Vec::new(),
        rejected: Vec::new(),
    };
    let (serial, state) = match (resource_version, snapshot.objects.get(object)) {
        (Some(version), Some(state)) if state.has_reached(version) => (state.serial, Some(state)),
        (None, None) => match snapshot.objects.deleted_at(object) {
            Some(serial) => (serial, None),
            // It was never there, or is gone for long.
            None => return Applied { known: true, accepted: true, ..unknown },
        },
        _ => return unknown,
    };
    let mut answer = Applied {
        known: true,
        accepted: state.is_none_or(|state| state.is_accepted),
        problems: state.map(|state| state.problems.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        ..unknown
    };
    // A change that is not remembered any more was long ago: those who lag behind it are waited for.
    let Some(changes) = snapshot.log.of(serial) else {
        for proxy in debug.proxies.all() {
            answer.proxies += 1;
            if proxy.state().settled() >= serial {
                answer.applied += 1;
            } else {
                answer.waiting.push(proxy.identity.id());
            }
        }
        return answer;
    };
    for proxy in debug.proxies.all() {
        match proxy.progress(changes) {
            Progress::Unconcerned => continue,
            Progress::Waiting => answer.waiting.push(proxy.identity.id()),
            Progress::Applied => answer.applied += 1,
            Progress::Refused(reason) => answer.rejected.push(proxy.refused(reason)),
        }
        answer.proxies += 1;
    }
    answer
}
