//! The containers and the volume that a sidecar consists of.

use api::names::{
    CA_TOKEN_AUDIENCE, CA_TOKEN_FILE, INIT_CONTAINER, PROXY_CONTAINER, PROXY_DIR, PROXY_UID, TOKEN_AUDIENCE, proxy_port,
};
use serde_json::{Map, Value, json};

use super::options::Options;
use super::{Injection, meta, probes, socket};

pub(super) fn init(injection: &Injection, options: &Options) -> Value {
    json!({
        "name": INIT_CONTAINER,
        "image": injection.images.init,
        "imagePullPolicy": "IfNotPresent",
        "command": ["nft"],
        "args": [options.interception.render()],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    })
}

/// The proxy of a pod; `owner` is what the pod belongs to, where that is known better than from the pod, and `probes`
/// are those that the proxy makes in the node's place.
pub(super) fn proxy(
    injection: &Injection,
    options: &Options,
    pod: &Value,
    (owner, probes): (Option<&str>, Map<String, Value>),
) -> Value {
    let mut env = proxy_env(&injection.pilot_address, &injection.pilot_root);
    if let Some(env) = env.as_array_mut() {
        env.push(field("MESH_APP", &label(pod, "app", "app.kubernetes.io/name")));
        env.push(field("MESH_VERSION", &label(pod, "version", "app.kubernetes.io/version")));
        if let Some(owner) = owner.map(str::to_owned).or_else(|| owner_of(pod)) {
            env.push(json!({"name": "MESH_OWNER", "value": owner}));
        }
        if options.status_port != proxy_port::READINESS {
            env.push(json!({"name": "MESH_READINESS_PORT", "value": options.status_port.to_string()}));
        }
        env.extend(options.telemetry.iter().map(|(name, value)| json!({"name": name, "value": value})));
        if let Some(level) = &options.log_level {
            env.push(json!({"name": "MESH_LOG", "value": level}));
        }
        if let Some(users) = &options.workload_users {
            env.push(json!({"name": "MESH_WORKLOAD_SOCKET_USERS", "value": users}));
        }
        if !probes.is_empty() {
            env.push(json!({"name": probes::VARIABLE, "value": Value::Object(probes).to_string()}));
        }
    }
    let mut proxy = json!({
        "name": PROXY_CONTAINER,
        "image": options.image.as_ref().unwrap_or(&injection.images.proxy),
        "imagePullPolicy": "IfNotPresent",
        "args": ["sidecar"],
        "restartPolicy": "Always",
        "env": env,
        "ports": [{"name": "mesh-metrics", "containerPort": proxy_port::METRICS, "protocol": "TCP"}],
        "startupProbe": probe(options.status_port, 1, 600),
        "readinessProbe": probe(options.status_port, 10, 3),
        "resources": options.resources.to_json(),
        "securityContext": proxy_security(),
        "volumeMounts": [
            {"name": PROXY_CONTAINER, "mountPath": PROXY_DIR, "readOnly": true},
            socket::proxy_mount(),
        ],
    });
    if let Some(fields) = proxy.as_object_mut().filter(|_| !options.is_native) {
        fields.shift_remove("restartPolicy");
        if options.holds_application {
            // Containers are started in order, and the next one only when this hook has ended.
            let wait = json!({"exec": {"command": ["mesh-proxy", "wait"]}});
            fields.insert("lifecycle".to_owned(), json!({"postStart": wait}));
        }
    }
    proxy
}

/// The proxy runs as a user of its own without any capability: the rules know its connections by that user.
pub(crate) fn proxy_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsGroup": PROXY_UID,
        "runAsNonRoot": true,
        "runAsUser": PROXY_UID,
    })
}

/// The environment of a proxy, sidecar or gateway.
pub(crate) fn proxy_env(pilot_address: &str, pilot_root: &str) -> Value {
    json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        {"name": "MESH_PILOT_ADDRESS", "value": pilot_address},
        {"name": "MESH_PILOT_ROOT_PEM", "value": pilot_root},
    ])
}

pub(crate) fn ready_probe(period: u32, failures: u32) -> Value {
    probe(proxy_port::READINESS, period, failures)
}

fn probe(port: u16, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": "/healthz/ready", "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    })
}

/// The volume with the tokens by which the proxy proves itself to Pilot and to the CA.
pub(crate) fn proxy_volume() -> Value {
    json!({
        "name": PROXY_CONTAINER,
        "projected": {"sources": [
            {"serviceAccountToken": {"audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
            ca_token_source(),
        ]},
    })
}

/// The token for the CA is another one: whoever gets Pilot's cannot ask for a certificate with it.
pub(crate) fn ca_token_source() -> Value {
    json!({"serviceAccountToken": {"audience": CA_TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": CA_TOKEN_FILE}})
}

/// A variable by downward API: it follows the pod that is made from the template.
fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// The path of a label, by its short name unless the pod has only Kubernetes' recommended one.
fn label(pod: &Value, short: &str, recommended: &str) -> String {
    let has = |name| meta(pod, "labels", name).is_some();
    let name = if !has(short) && has(recommended) { recommended } else { short };
    format!("metadata.labels['{name}']")
}

/// What a pod belongs to, by the controller that made it: its Deployment, or its CronJob, rather than what is between.
fn owner_of(pod: &Value) -> Option<String> {
    let owners = pod.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    let name = owner.get("name")?.as_str()?;
    let above = match owner.get("kind")?.as_str()? {
        "ReplicaSet" => {
            meta(pod, "labels", "pod-template-hash").and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
        }
        // The number is the scheduled time in minutes.
        "Job" => name.rsplit_once('-').and_then(|(above, number)| {
            (number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(above)
        }),
        _ => None,
    };
    Some(above.unwrap_or(name).to_owned())
}
