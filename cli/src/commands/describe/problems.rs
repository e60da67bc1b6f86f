//! What is wrong, or will surprise.

use api::messages::SyncState;
use api::model::{Action, Endpoint, Host, Protocol, Resolution, RouteRule, Service};
use api::names::{CLASSIC_NAMESPACE_INJECTION, INJECT};
use serde_json::Value;

use super::live::{Live, endpoints_with};
use super::report::Finding;
use crate::mesh;
use crate::resources::{name_of, namespace_of, text};

fn error(what: String, hint: impl Into<String>) -> Finding {
    Finding { is_error: true, what, hint: hint.into() }
}

fn warning(what: String, hint: impl Into<String>) -> Finding {
    Finding { is_error: false, what, hint: hint.into() }
}

/// Of a service: who serves it, what is spoken, and its rules.
pub(super) fn of_service(live: &Live, service: &Service, endpoints: &[Endpoint]) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_external = matches!(service.resolution, Resolution::External(_));
    if endpoints.is_empty() && !is_external {
        found.push(error(
            format!("no pod that is ready serves {}", service.host),
            "compare its selector with the labels of pods, and see whether they are ready: `meshctl get pods --show-labels`",
        ));
    }
    for port in service.ports.iter().filter(|port| port.protocol == Protocol::Auto) {
        found.push(warning(
            format!("port {} does not say what is spoken there, so its first bytes decide", port.number),
            "name it http-…, grpc-…, tcp-…, or set appProtocol: protocols in which the server speaks first need it",
        ));
    }
    let without: Vec<&str> =
        endpoints.iter().filter(|it| !it.workload.has_sidecar).map(|it| it.workload.key.name.as_str()).collect();
    if !without.is_empty() {
        found.push(warning(
            format!("without a sidecar, so outside of the mesh: {}", without.join(", ")),
            "label the namespace for injection and start these pods again",
        ));
    }
    for rule in live.rules(&service.host) {
        found.extend(of_rule(live, &rule));
    }
    found
}

/// Of a rule: whom it hides, who hides it, and whether it leads anywhere.
pub(super) fn of_rule(live: &Live, rule: &RouteRule) -> Vec<Finding> {
    let mut found = of_destination(live, &rule.destination);
    let name = format!("route-rule/{}", rule.key.name);
    let rules = live.rules(&rule.destination);
    let before = rules.iter().take_while(|other| other.key != rule.key);
    if let Some(first) = before.into_iter().find(|other| other.is_catch_all()) {
        found.push(warning(
            format!("{name} is never asked: route-rule/{} comes first and takes everything", first.key.name),
            format!("give {name} a precedence over {}", first.precedence),
        ));
    }
    if let Action::Route { to, .. } = &rule.action {
        for target in to.iter().filter(|target| target.weight > 0) {
            if !live.model().services.contains_key(&target.host) && target.host != rule.destination {
                found.push(error(format!("{name} sends requests to {}, which is no service", target.host), ""));
            } else if endpoints_with(live, &target.host, &target.labels) == 0 && !target.labels.is_empty() {
                let labels: Vec<String> = target.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                found.push(error(
                    format!(
                        "{name} sends {}% of its requests to pods of {} with {}, and there is none that is ready",
                        target.weight,
                        target.host,
                        labels.join(",")
                    ),
                    "these requests are answered with 503; see `meshctl get pods --show-labels`",
                ));
            }
        }
    }
    found
}

/// Whether the destination of a rule or policy is there.
pub(super) fn of_destination(live: &Live, host: &Host) -> Vec<Finding> {
    if live.model().services.contains_key(host) {
        return Vec::new();
    }
    let known = live.model().services.keys().map(Host::as_str);
    let hint = match api::suggest::closest(host.as_str(), known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "see `meshctl get services -A`".to_owned(),
    };
    vec![error(format!("there is no service {host}"), hint)]
}

/// Of a pod: whether it is in the mesh as it should be, and works.
pub(super) fn of_pod(live: &Live, pod: &Value, namespace: Option<&Value>, hosts: &[Host]) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = format!("{}.{}", name_of(pod), namespace_of(pod));
    let key = api::model::Key { namespace: namespace_of(pod).to_owned(), name: name_of(pod).to_owned() };
    if !mesh::has_proxy(pod) {
        found.push(not_injected(pod, namespace));
    } else if live.no_pilot().is_none() {
        match live.proxy(&key) {
            None => found.push(error(
                "its proxy is not connected to Pilot".to_owned(),
                format!("see its log: `meshctl local logs {name} -c mesh-proxy`, or kubectl logs"),
            )),
            Some(proxy) => {
                for rejected in proxy.types.iter().flat_map(|it| &it.rejected) {
                    found.push(error(format!("its proxy refuses {}: {}", rejected.resource, rejected.error), ""));
                }
                let stale: Vec<&str> =
                    proxy.types.iter().filter(|it| it.state == SyncState::Stale).map(|it| it.kind.as_str()).collect();
                if !stale.is_empty() {
                    let hint = format!("see `meshctl proxy-status {name}`");
                    found.push(warning(format!("its proxy has not acknowledged all of {}", stale.join(", ")), hint));
                }
            }
        }
    }
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let statuses = lists.iter().filter_map(|path| pod.pointer(path)?.as_array()).flatten();
    for status in statuses {
        let container = text(status, &["name"]).unwrap_or_default();
        for state in ["waiting", "terminated"] {
            let Some(state) = status.pointer(&format!("/state/{state}")) else { continue };
            let (reason, message) = (text(state, &["reason"]), text(state, &["message"]).unwrap_or_default());
            let Some(reason) = reason.filter(|it| !["Completed", "PodInitializing", "ContainerCreating"].contains(it))
            else {
                continue;
            };
            let message = if message.is_empty() { String::new() } else { format!(": {}", message.replace('\n', " ")) };
            found.push(error(
                format!("container {container} is not running: {reason}{message}"),
                format!("see `meshctl local logs {name} -c {container} --previous`, or kubectl logs"),
            ));
        }
    }
    if hosts.is_empty()
        && mesh::has_proxy(pod)
        && text(pod, &["metadata", "namespace"]) != Some(api::names::SYSTEM_NAMESPACE)
    {
        found.push(warning(
            "no service selects it, so nobody finds it by name and no rule is about requests to it".to_owned(),
            "make a Service whose selector its labels match",
        ));
    }
    for host in hosts {
        for rule in live.rules(host) {
            found.extend(of_rule(live, &rule));
        }
    }
    if text(pod, &["metadata", "labels", "app"]).is_none()
        && text(pod, &["metadata", "labels", "app.kubernetes.io/name"]).is_none()
    {
        found.push(warning("it has no label `app`, by which telemetry names it".to_owned(), "add `app` and `version`"));
    }
    found
}

/// Why a pod has no sidecar, as far as can be seen from here.
fn not_injected(pod: &Value, namespace: Option<&Value>) -> Finding {
    let label = |object: &Value, key: &str| text(object, &["metadata", "labels", key]).map(str::to_owned);
    let asked = ["annotations", "labels"].iter().find_map(|place| text(pod, &["metadata", place, INJECT]));
    let is_off = |value: &str| ["false", "disabled", "no", "off"].contains(&value);
    let of_namespace = namespace.and_then(|it| label(it, INJECT).or_else(|| label(it, CLASSIC_NAMESPACE_INJECTION)));
    let what = "it has no sidecar, so it is outside of the mesh";
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return warning(
            format!("{what}: it uses the host's network, where interception would catch the whole node"),
            "",
        );
    }
    if let Some(value) = asked.filter(|value| is_off(value)) {
        return warning(format!("{what}: its own {INJECT} is `{value}`"), "take that out and start it again");
    }
    match of_namespace {
        Some(value) if !is_off(&value) => error(
            format!("{what}, although its namespace asks for injection"),
            "it is older than the label, or the webhook could not be asked: start it again",
        ),
        _ => warning(
            format!("{what}: its namespace does not ask for injection"),
            format!("`kubectl label namespace {} {INJECT}=enabled`, and start it again", namespace_of(pod)),
        ),
    }
}
