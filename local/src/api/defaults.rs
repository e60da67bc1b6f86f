//! What an object gets that its author left out, as in Kubernetes. Idempotent, without a clock or a random source.

use serde_json::{Map, Value, json};

use super::object::{self, child, metadata};

/// Fills in the defaults of a resource's object. Objects of custom resources are left as they are.
pub fn fill_in(resource: &str, target: &mut Value) {
    match resource {
        "pods" => {
            pod_spec(child(target, "spec"));
            child(target, "status").entry("phase").or_insert_with(|| "Pending".into());
        }
        "deployments.apps" | "replicasets.apps" => workload(resource, target),
        "services" => service(child(target, "spec")),
        "namespaces" => namespace(target),
        "secrets" => {
            string_data(target);
            absent(target, "type", json!("Opaque"));
        }
        "serviceaccounts" => {}
        "ingresses.networking.k8s.io" => ingress(target),
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(target),
        _ => {}
    }
}

fn absent(target: &mut Value, field: &str, value: Value) {
    if let Some(map) = target.as_object_mut() {
        set(map, field, value);
    }
}

fn set(map: &mut Map<String, Value>, field: &str, value: Value) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value);
    }
}

fn each<'a>(map: &'a mut Map<String, Value>, field: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn namespace(target: &mut Value) {
    let name = object::name(target).to_owned();
    let labels = metadata(target).entry("labels").or_insert_with(|| json!({}));
    if let (Some(labels), false) = (labels.as_object_mut(), name.is_empty()) {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
    child(target, "spec").entry("finalizers").or_insert_with(|| json!(["kubernetes"]));
    child(target, "status").entry("phase").or_insert_with(|| "Active".into());
}

fn workload(resource: &str, target: &mut Value) {
    let labels = target.pointer("/spec/template/metadata/labels").cloned();
    let spec = child(target, "spec");
    set(spec, "replicas", json!(1));
    if let Some(labels) = labels {
        set(spec, "selector", json!({"matchLabels": labels}));
    }
    if resource == "deployments.apps" {
        set(
            spec,
            "strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
        );
        set(spec, "revisionHistoryLimit", json!(10));
        set(spec, "progressDeadlineSeconds", json!(600));
    }
    if let Some(template) = spec.get_mut("template") {
        metadata(template).entry("creationTimestamp").or_insert(Value::Null);
        pod_spec(child(template, "spec"));
    }
}

/// The defaults of a pod's `spec`.
pub fn pod_spec(spec: &mut Map<String, Value>) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            set(container, "resources", json!({}));
            set(container, "terminationMessagePath", json!("/dev/termination-log"));
            set(container, "terminationMessagePolicy", json!("File"));
            set(container, "imagePullPolicy", json!("IfNotPresent"));
            for port in each(container, "ports") {
                set(port, "protocol", json!("TCP"));
            }
            for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
                if let Some(probe) = container.get_mut(kind).and_then(Value::as_object_mut) {
                    self::probe(probe);
                }
            }
        }
    }
    for volume in each(spec, "volumes") {
        for (kind, field) in [
            ("configMap", "defaultMode"),
            ("secret", "defaultMode"),
            ("projected", "defaultMode"),
            ("downwardAPI", "defaultMode"),
        ] {
            if let Some(source) = volume.get_mut(kind).and_then(Value::as_object_mut) {
                set(source, field, json!(0o644));
            }
        }
    }
}

fn probe(probe: &mut Map<String, Value>) {
    set(probe, "timeoutSeconds", json!(1));
    set(probe, "periodSeconds", json!(10));
    set(probe, "successThreshold", json!(1));
    set(probe, "failureThreshold", json!(3));
    if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
        set(get, "path", json!("/"));
        set(get, "scheme", json!("HTTP"));
    }
}

fn service(spec: &mut Map<String, Value>) {
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    let external = spec.get("type") == Some(&json!("ExternalName"));
    if !external {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    for port in each(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        if let Some(number) = port.get("port").cloned() {
            set(port, "targetPort", number);
        }
    }
}

fn string_data(target: &mut Value) {
    use base64::Engine;
    let Some(texts) = target.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    let data = child(target, "data");
    for (key, text) in texts.as_object().into_iter().flatten() {
        if let Some(text) = text.as_str() {
            data.insert(key.clone(), base64::engine::general_purpose::STANDARD.encode(text).into());
        }
    }
}

fn ingress(target: &mut Value) {
    for rule in each(child(target, "spec"), "rules") {
        let Some(http) = rule.get_mut("http").and_then(Value::as_object_mut) else { continue };
        for path in each(http, "paths") {
            set(path, "pathType", json!("ImplementationSpecific"));
        }
    }
}

fn webhooks(target: &mut Value) {
    let Some(map) = target.as_object_mut() else { return };
    for webhook in each(map, "webhooks") {
        set(webhook, "failurePolicy", json!("Fail"));
        set(webhook, "matchPolicy", json!("Equivalent"));
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", json!(10));
        for rule in each(webhook, "rules") {
            set(rule, "scope", json!("*"));
        }
        if let Some(service) =
            webhook.get_mut("clientConfig").and_then(|it| it.get_mut("service")).and_then(Value::as_object_mut)
        {
            set(service, "port", json!(443));
        }
    }
}
