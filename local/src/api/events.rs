//! Event objects: what happened to an object, for people who ask why.

use serde_json::{Value, json};

use super::{ApiResult, Reason, Store, object};

/// Tells that something happened to an object; the same thing again only raises a count.
///
/// `kind` is `Normal` or `Warning`, `component` is who tells it. A failure to write it is logged and nothing more.
pub fn record(store: &Store, component: &str, about: &Value, (kind, reason): (&str, &str), message: &str) {
    if let Err(error) = write(store, component, about, (kind, reason), message) {
        tracing::debug!(%error, reason, message, "an event could not be written");
    }
}

fn write(store: &Store, component: &str, about: &Value, (kind, reason): (&str, &str), message: &str) -> ApiResult<()> {
    let namespace = match object::namespace(about) {
        "" => "default",
        namespace => namespace,
    };
    let now = object::now();
    let words = format!("{}{reason}{message}{component}", object::uid(about));
    let hash = words
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let name: String = object::name(about).chars().take(200).collect();
    let name = format!("{name}.{hash:016x}");
    let event = json!({
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": object::namespace(about),
            "name": object::name(about), "uid": object::uid(about),
            "resourceVersion": about["metadata"]["resourceVersion"],
        },
        "type": kind, "reason": reason, "message": message, "source": {"component": component},
        "reportingComponent": component, "reportingInstance": "", "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    });
    match store.create("events", event) {
        Err(error) if error.reason == Reason::AlreadyExists => {
            let count = store.get("events", namespace, &name)?["count"].as_u64().unwrap_or(1) + 1;
            store.patch("events", namespace, &name, &json!({"count": count, "lastTimestamp": now})).map(|_| ())
        }
        done => done.map(|_| ()),
    }
}
