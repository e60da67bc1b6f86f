//! Rows of clusters: how they are balanced, and what bounds them.

use serde_json::Value;

use super::{Parts, at, list, name, number, resource, text};
use crate::table::Table;

/// Rows of clusters.
pub(in crate::commands::proxy_config) fn clusters(entries: &[&Value], is_wide: bool) -> Table {
    let mut headings = vec!["HOST", "PORT", "LABELS", "TYPE", "BALANCING"];
    if is_wide {
        headings.extend(["CONNECT TIMEOUT", "LIMITS", "EJECTION", "CLUSTER"]);
    }
    let mut table = Table::new(&headings);
    for entry in entries {
        let cluster = resource(entry);
        let parts = Parts::of(name(entry));
        let kind = match text(cluster, "type") {
            "" => "STATIC",
            kind => kind,
        };
        let balancing = match (kind, text(cluster, "lbPolicy")) {
            ("ORIGINAL_DST", _) => "",
            (_, "") => "ROUND_ROBIN",
            (_, policy) => policy,
        };
        let mut row = vec![
            parts.host.to_owned(),
            parts.port.to_owned(),
            parts.labels.to_owned(),
            kind.to_owned(),
            balancing.to_owned(),
        ];
        if is_wide {
            let timeout = text(cluster, "connectTimeout").to_owned();
            row.extend([timeout, limits(cluster), ejection(cluster), name(entry).to_owned()]);
        }
        table.row(row);
    }
    table
}

/// The bounds of a circuit breaker that are any: `connections 1, pending 1`.
fn limits(cluster: &Value) -> String {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = at(cluster, "typedExtensionProtocolOptions").and_then(|all| all.get(options)).unwrap_or(&Value::Null);
    let per_connection = number(options, "commonHttpProtocolOptions.maxRequestsPerConnection");
    let thresholds = list(cluster, "circuitBreakers.thresholds").next().unwrap_or(&Value::Null);
    let fields = [
        ("connections", "maxConnections"),
        ("pending", "maxPendingRequests"),
        ("requests", "maxRequests"),
        ("retries", "maxRetries"),
    ];
    let bounds = fields.map(|(word, field)| (word, number(thresholds, field)));
    let bounds = bounds.into_iter().chain([("requests per connection", per_connection)]);
    let bounds = bounds.filter(|(_, bound)| !bound.is_empty() && *bound != u32::MAX.to_string());
    bounds.map(|(word, bound)| format!("{word} {bound}")).collect::<Vec<_>>().join(", ")
}

/// `5 errors, 30s, 10%`: after how many errors, for how long at first, and how many at most.
fn ejection(cluster: &Value) -> String {
    let Some(outlier) = at(cluster, "outlierDetection") else { return String::new() };
    let (errors, percent) = (number(outlier, "consecutive5xx"), number(outlier, "maxEjectionPercent"));
    format!("{errors} errors, {}, {percent}%", text(outlier, "baseEjectionTime"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_and_ejection_are_shown_as_far_as_there_are_any() {
        let cluster = json!({
            "circuitBreakers": { "thresholds": [{
                "maxConnections": 1, "maxPendingRequests": 2, "maxRequests": u32::MAX, "retryBudget": {} }] },
            "typedExtensionProtocolOptions": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "commonHttpProtocolOptions": { "maxRequestsPerConnection": 5 } } },
            "outlierDetection": { "consecutive5xx": 5, "baseEjectionTime": "30s", "maxEjectionPercent": 10 },
        });
        assert_eq!(limits(&cluster), "connections 1, pending 2, requests per connection 5");
        assert_eq!(ejection(&cluster), "5 errors, 30s, 10%");
        assert_eq!((limits(&json!({})), ejection(&json!({}))), (String::new(), String::new()));
    }
}
