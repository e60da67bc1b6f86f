//! xDS resources as rows. Field names are those of the proto JSON, in camelCase or as in the proto.

mod clusters;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::paint::Paint;
use crate::table::Table;

pub(super) use clusters::clusters;

/// The name of an entry of a dump.
pub(super) fn name(resource: &Value) -> &str {
    resource.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A field by its path in camelCase; each step may be spelled with underscores too.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, step| value.get(step).or_else(|| value.get(snake(step))))
}

fn snake(word: &str) -> String {
    let mut snake = String::new();
    for c in word.chars() {
        if c.is_uppercase() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    at(value, path).and_then(Value::as_array).into_iter().flatten()
}

fn number(value: &Value, path: &str) -> String {
    match at(value, path) {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(number)) => number.clone(),
        _ => String::new(),
    }
}

fn resource(entry: &Value) -> &Value {
    entry.get("resource").unwrap_or(entry)
}

/// Rows of listeners: one per filter chain.
pub(super) fn listeners(entries: &[&Value], is_wide: bool) -> Table {
    let mut headings = vec!["ADDRESS", "PORT", "MATCH", "PROTOCOL", "DESTINATION"];
    if is_wide {
        headings.push("LISTENER");
    }
    let mut table = Table::new(&headings);
    for entry in entries {
        let listener = resource(entry);
        let address = "address.socketAddress";
        let chains = list(listener, "filterChains").chain(at(listener, "defaultFilterChain"));
        for chain in chains {
            let (mut protocol, destination) = chain_destination(chain);
            if text(chain, "transportSocket.typedConfig.@type").ends_with("DownstreamTlsContext") {
                protocol.push_str(" mTLS");
            }
            let mut row = vec![
                text(listener, &format!("{address}.address")).to_owned(),
                number(listener, &format!("{address}.portValue")),
                chain_match(chain),
                protocol,
                destination,
            ];
            if is_wide {
                row.push(name(entry).to_owned());
            }
            table.row(row);
        }
    }
    table
}

fn chain_match(chain: &Value) -> String {
    let Some(matching) = at(chain, "filterChainMatch") else { return "any".to_owned() };
    let mut words = Vec::new();
    let port = number(matching, "destinationPort");
    if !port.is_empty() {
        words.push(format!("port {port}"));
    }
    let protocols: Vec<&str> = list(matching, "applicationProtocols").filter_map(Value::as_str).collect();
    if !protocols.is_empty() {
        words.push(protocols.join("|"));
    }
    let names: Vec<&str> = list(matching, "serverNames").filter_map(Value::as_str).collect();
    if let [first, rest @ ..] = names.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        words.push(format!("server name {first}{more}"));
    }
    if words.is_empty() { "any".to_owned() } else { words.join(" ") }
}

fn chain_destination(chain: &Value) -> (String, String) {
    for filter in list(chain, "filters") {
        let Some(config) = at(filter, "typedConfig") else { continue };
        let kind = text(config, "@type");
        if kind.ends_with("HttpConnectionManager") {
            let by_name = text(config, "rds.routeConfigName");
            if !by_name.is_empty() {
                return ("HTTP".to_owned(), format!("routes {by_name}"));
            }
            let mut routes: Vec<String> = list(config, "routeConfig.virtualHosts")
                .flat_map(|host| list(host, "routes"))
                .map(route_destination)
                .collect();
            routes.dedup();
            return ("HTTP".to_owned(), routes.join(" "));
        }
        if kind.ends_with("TcpProxy") {
            return ("TCP".to_owned(), short_cluster(text(config, "cluster")));
        }
    }
    (String::new(), String::new())
}

/// Rows of routes: one per route, in the order in which they are asked.
pub(super) fn routes(entries: &[&Value], is_wide: bool) -> Table {
    let mut headings = vec!["ROUTES", "DOMAINS", "MATCH", "DESTINATION", "RULE"];
    if is_wide {
        headings.extend(["TIMEOUT", "RETRIES", "FAULT"]);
    }
    let mut table = Table::new(&headings);
    for entry in entries {
        for host in list(resource(entry), "virtualHosts") {
            let domains: Vec<&str> = list(host, "domains").filter_map(Value::as_str).collect();
            for route in list(host, "routes") {
                let mut row = vec![
                    short_host(name(entry)),
                    domains.join(","),
                    route_match(route),
                    route_destination(route),
                    text(route, "name").to_owned(),
                ];
                if is_wide {
                    row.extend([text(route, "route.timeout").to_owned(), retries(route), fault(route)]);
                }
                table.row(row);
            }
        }
    }
    table
}

fn route_match(route: &Value) -> String {
    let Some(matching) = at(route, "match") else { return "any".to_owned() };
    let mut words = Vec::new();
    if at(matching, "connectMatcher").is_some() {
        words.push("method=CONNECT".to_owned());
    }
    let (prefix, path) = (text(matching, "prefix"), text(matching, "path"));
    if !path.is_empty() {
        words.push(format!("path={path}"));
    } else if !prefix.is_empty() && prefix != "/" {
        words.push(format!("path^={prefix}"));
    }
    for (field, sign) in [("safeRegex.regex", "~"), ("pathSeparatedPrefix", "^=")] {
        let value = text(matching, field);
        if !value.is_empty() {
            words.push(format!("path{sign}{value}"));
        }
    }
    for header in list(matching, "headers") {
        words.push(header_match(header));
    }
    if words.is_empty() { "any".to_owned() } else { words.join(" & ") }
}

fn header_match(header: &Value) -> String {
    let name = text(header, "name");
    for (field, sign) in [("exact", "="), ("prefix", "^="), ("safeRegex.regex", "~"), ("contains", "*=")] {
        let value = text(header, &format!("stringMatch.{field}"));
        if !value.is_empty() {
            return format!("{name}{sign}{value}");
        }
    }
    name.to_owned()
}

fn route_destination(route: &Value) -> String {
    if let Some(redirect) = at(route, "redirect") {
        return format!("redirect {}{}", text(redirect, "hostRedirect"), text(redirect, "pathRedirect"));
    }
    if let Some(direct) = at(route, "directResponse") {
        return format!("answer {}", number(direct, "status"));
    }
    let cluster = text(route, "route.cluster");
    if !cluster.is_empty() {
        return short_cluster(cluster);
    }
    let weighted: Vec<String> = list(route, "route.weightedClusters.clusters")
        .map(|share| format!("{}:{}%", short_cluster(text(share, "name")), number(share, "weight")))
        .collect();
    weighted.join(" ")
}

/// `3 x 0.5s`: how often, and for how long each.
fn retries(route: &Value) -> String {
    let Some(policy) = at(route, "route.retryPolicy") else { return String::new() };
    let attempts = number(policy, "numRetries");
    let attempts = if attempts.is_empty() { "1" } else { &attempts };
    match text(policy, "perTryTimeout") {
        "" => attempts.to_owned(),
        timeout => format!("{attempts} x {timeout}"),
    }
}

fn fault(route: &Value) -> String {
    let Some(fault) = at(route, "typedPerFilterConfig").and_then(|c| c.get("envoy.filters.http.fault")) else {
        return String::new();
    };
    let percent = |of: &Value| {
        let share = number(of, "percentage.numerator").parse::<f64>().unwrap_or_default();
        match text(of, "percentage.denominator") {
            "MILLION" => share / 10_000.0,
            "TEN_THOUSAND" => share / 100.0,
            _ => share,
        }
    };
    let mut words = Vec::new();
    if let Some(delay) = at(fault, "delay") {
        words.push(format!("delay {} {}%", text(delay, "fixedDelay"), percent(delay)));
    }
    if let Some(abort) = at(fault, "abort") {
        words.push(format!("abort {} {}%", number(abort, "httpStatus"), percent(abort)));
    }
    words.join(", ")
}

/// Rows of endpoints, with what the proxy knows of their state.
pub(super) fn endpoints(entries: &[&Value], live: &Value, paint: Paint) -> Table {
    let states = states(live);
    let mut table = Table::new(&[
        "ENDPOINT",
        "HEALTH",
        "IN FLIGHT",
        "REQUESTS",
        "FAILED",
        "WORKLOAD",
        "HOST",
        "PORT",
        "LABELS",
        "TLS",
    ]);
    for entry in entries {
        let parts = Parts::of(name(entry));
        for endpoint in list(resource(entry), "endpoints").flat_map(|locality| list(locality, "lbEndpoints")) {
            let socket = "endpoint.address.socketAddress";
            let address = format!(
                "{}:{}",
                text(endpoint, &format!("{socket}.address")),
                number(endpoint, &format!("{socket}.portValue"))
            );
            let state = states.get(&(name(entry), address.clone())).copied();
            let health = match state.map(|s| text(s, "health")).filter(|h| !h.is_empty()) {
                Some(health) => health.to_owned(),
                None if text(endpoint, "healthStatus").is_empty() => "HEALTHY".to_owned(),
                None => text(endpoint, "healthStatus").to_owned(),
            };
            let health = health.to_uppercase();
            let shown =
                if health == "HEALTHY" || health == "READY" { paint.good(&health) } else { paint.warning(&health) };
            let words = at(endpoint, "metadata.filterMetadata").and_then(|all| all.get("envoy.transport_socket_match"));
            let has_tls = words.is_some_and(|words| text(words, "tlsMode") == "mesh");
            let workload =
                at(endpoint, "metadata.filterMetadata.mesh").map(|m| text(m, "workload")).unwrap_or_default();
            table.row(vec![
                address,
                shown,
                state.map(|s| number(s, "inFlight")).unwrap_or_default(),
                state.map(|s| number(s, "total")).unwrap_or_default(),
                state.map(|s| number(s, "failed")).unwrap_or_default(),
                workload.to_owned(),
                parts.host.to_owned(),
                parts.port.to_owned(),
                parts.labels.to_owned(),
                if has_tls { "mutual".to_owned() } else { String::new() },
            ]);
        }
    }
    table
}

/// State of endpoints by cluster and address, from the proxy's `/clusters`.
fn states(live: &Value) -> BTreeMap<(&str, String), &Value> {
    let clusters = live.get("clusters").unwrap_or(live).as_array().into_iter().flatten();
    clusters
        .flat_map(|cluster| {
            list(cluster, "endpoints")
                .map(move |endpoint| ((name(cluster), text(endpoint, "address").to_owned()), endpoint))
        })
        .collect()
}

/// The parts of a cluster's name: `outbound|9080|version=v1|reviews.default.svc.cluster.local`.
pub(super) struct Parts<'a> {
    pub(super) host: &'a str,
    port: &'a str,
    pub(super) labels: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        let parts: Vec<&str> = name.split('|').collect();
        match parts.as_slice() {
            ["outbound", port, labels, host] => Parts { host, port, labels },
            ["inbound", port] => Parts { host: "inbound", port, labels: "" },
            _ => Parts { host: name, port: "", labels: "" },
        }
    }
}

/// A cluster in few words: `reviews.default[version=v1]`, `inbound 9080`, `passthrough`.
fn short_cluster(cluster: &str) -> String {
    let parts = Parts::of(cluster);
    if parts.host == "inbound" {
        return format!("inbound {}", parts.port);
    }
    let host = short_host(parts.host);
    if parts.labels.is_empty() { host } else { format!("{host}[{}]", parts.labels) }
}

/// A host without what every host of the cluster ends in, its port kept.
fn short_host(host: &str) -> String {
    match host.split_once(".svc.") {
        Some((short, rest)) => match rest.rsplit_once(':') {
            Some((_, port)) => format!("{short}:{port}"),
            None => short.to_owned(),
        },
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(table: &Table) -> String {
        table
            .to_text(false)
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn routes_are_rows_in_the_order_in_which_they_are_asked() {
        let entry = json!({ "name": "reviews.default.svc.cluster.local:9080", "resource": { "virtualHosts": [ {
            "domains": ["*"],
            "routes": [
                { "name": "route-rule/default/canary",
                  "match": { "prefix": "/", "headers": [ { "name": "cookie", "stringMatch": { "safeRegex": { "regex": "jason" } } } ] },
                  "route": { "weightedClusters": { "clusters": [
                      { "name": "outbound|9080|version=v1|reviews.default.svc.cluster.local", "weight": 90 },
                      { "name": "outbound|9080|version=v3|reviews.default.svc.cluster.local", "weight": 10 } ] } } },
                { "name": "default", "match": { "prefix": "/" },
                  "route": { "cluster": "outbound|9080||reviews.default.svc.cluster.local" } } ] } ] } });
        assert_eq!(
            words(&routes(&[&entry], false)),
            "reviews.default:9080 * cookie~jason reviews.default[version=v1]:90% reviews.default[version=v3]:10% \
             route-rule/default/canary\nreviews.default:9080 * any reviews.default default"
        );
    }

    #[test]
    fn endpoints_show_the_state_that_the_proxy_knows() {
        let name = "outbound|9080||reviews.default.svc.cluster.local";
        let entry = json!({ "name": name, "resource": { "endpoints": [ { "lb_endpoints": [ {
            "endpoint": { "address": { "socket_address": { "address": "10.244.0.7", "port_value": 9080 } } },
            "metadata": { "filter_metadata": {
                "mesh": { "workload": "reviews-v1" }, "envoy.transport_socket_match": { "tlsMode": "mesh" } } } } ] } ] } });
        let live = json!([ { "name": name, "endpoints": [ { "address": "10.244.0.7:9080", "health": "HEALTHY", "inFlight": 2, "total": 7, "failed": 1 } ] } ]);
        assert_eq!(
            words(&endpoints(&[&entry], &live, Paint::PLAIN)),
            "10.244.0.7:9080 HEALTHY 2 7 1 reviews-v1 reviews.default.svc.cluster.local 9080 - mutual"
        );
    }
}
