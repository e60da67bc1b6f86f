//! Any other object: what it says, and what has happened to it.

use serde_json::Value;

use super::live::events;
use super::report::Report;
use crate::cluster::Cluster;
use crate::columns;
use crate::commands::target::Target;
use crate::error::Error;
use crate::resources::text;
use crate::table::age;

pub(super) async fn describe(cluster: &Cluster, target: &Target, object: &Value) -> Result<Report, Error> {
    let mut report = Report::new(target.label());
    let since = text(object, &["metadata", "creationTimestamp"]).unwrap_or_default();
    let labels = |path: &str| object.pointer(path).map(columns::labels).unwrap_or_default();
    report.fields(
        "Object",
        vec![
            ("Kind", format!("{} ({})", target.resource.kind, target.resource.api_version())),
            ("Labels", labels("/metadata/labels")),
            ("Age", age(since, jiff::Timestamp::now())),
        ],
    );
    // What a Secret holds is nobody's to print.
    if target.resource.kind != "Secret" {
        for (name, field) in [("Spec", "spec"), ("Data", "data"), ("Status", "status")] {
            let Some(value) = object.get(field).filter(|value| !value.is_null()) else { continue };
            report.lines(name, api::yaml::render(value).lines().map(str::to_owned).collect());
        }
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    for condition in conditions {
        let word = |field: &str| text(condition, &[field]).unwrap_or_default();
        let is_bad = matches!(word("type"), "Available" | "Ready" | "Accepted" | "Progressing" | "Established");
        if is_bad && word("status") == "False" {
            report.error(format!("condition {} is False ({}): {}", word("type"), word("reason"), word("message")), "");
        }
    }
    report.rows(
        "Events",
        &["AGE", "TYPE", "REASON", "MESSAGE"],
        events(cluster, &target.namespace, &target.name).await?,
    );
    Ok(report)
}
