//! The ingress gateway: a proxy by itself at the edge.

use api::names::{INGRESS_GATEWAY, PILOT, PROXY_CONTAINER, PROXY_DIR, SYSTEM_NAMESPACE, pilot_port, proxy_port};
use serde_json::{Value, json};

use super::{labels, metadata, service_account};
use crate::Values;
use crate::inject::{proxy_env, proxy_security, proxy_volume, ready_probe};

pub(super) fn render(values: &Values) -> Vec<Value> {
    vec![service_account(INGRESS_GATEWAY, values), service(values), deployment(values)]
}

fn service(values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(INGRESS_GATEWAY, values),
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": INGRESS_GATEWAY},
            "ports": [
                {"name": "http", "port": 80, "targetPort": proxy_port::GATEWAY_HTTP},
                {"name": "https", "port": 443, "targetPort": proxy_port::GATEWAY_TLS},
            ],
        },
    })
}

fn deployment(values: &Values) -> Value {
    let pilot = format!("{PILOT}.{SYSTEM_NAMESPACE}.svc:{}", pilot_port::XDS);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(INGRESS_GATEWAY, values),
        "spec": {
            "replicas": values.gateway_replicas,
            "selector": {"matchLabels": {"app": INGRESS_GATEWAY}},
            "template": {
                "metadata": {"labels": labels(INGRESS_GATEWAY, values)},
                "spec": {
                    "serviceAccountName": INGRESS_GATEWAY,
                    "automountServiceAccountToken": false,
                    "containers": [{
                        "name": PROXY_CONTAINER,
                        "image": values.images.proxy,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["gateway"],
                        "env": proxy_env(&pilot, &values.certificates.roots),
                        "ports": [
                            {"name": "http", "containerPort": proxy_port::GATEWAY_HTTP},
                            {"name": "https", "containerPort": proxy_port::GATEWAY_TLS},
                            {"name": "mesh-metrics", "containerPort": proxy_port::METRICS},
                        ],
                        "startupProbe": ready_probe(1, 600),
                        "readinessProbe": ready_probe(5, 3),
                        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
                        "securityContext": proxy_security(),
                        "volumeMounts": [{"name": PROXY_CONTAINER, "mountPath": PROXY_DIR, "readOnly": true}],
                    }],
                    "volumes": [proxy_volume()],
                },
            },
        },
    })
}
