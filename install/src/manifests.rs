//! The objects of an installation, in the order in which they are applied.

mod ca;
mod crds;
mod gateway;
mod pilot;
mod webhooks;

use api::names::SYSTEM_NAMESPACE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{ServingCertificate, Values};

/// Renders every object of an installation, in the order in which they are applied.
#[must_use]
pub fn render(values: &Values) -> Vec<Value> {
    let mut objects = vec![namespace()];
    objects.extend(crds::render());
    objects.extend(ca::render(values));
    objects.extend(pilot::render(values));
    if values.gateway_replicas > 0 {
        objects.extend(gateway::render(values));
    }
    objects.extend(webhooks::render(values));
    objects
}

fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": SYSTEM_NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "mesh", api::names::INJECT: "disabled"},
        },
    })
}

/// Metadata of an object of the control plane.
fn metadata(name: &str, values: &Values) -> Value {
    json!({"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels(name, values)})
}

/// Metadata of an object without a namespace.
fn cluster_metadata(name: &str, values: &Values) -> Value {
    json!({"name": name, "labels": labels(name, values)})
}

fn labels(name: &str, values: &Values) -> Value {
    json!({
        "app": name,
        "app.kubernetes.io/part-of": "mesh",
        "app.kubernetes.io/version": values.version,
    })
}

/// The Secret with a serving certificate.
fn serving_certificate(name: &str, certificate: &ServingCertificate, values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": metadata(name, values),
        "data": {
            "ca.crt": STANDARD.encode(&values.certificates.roots),
            "tls.crt": STANDARD.encode(&certificate.certificate),
            "tls.key": STANDARD.encode(&certificate.key),
        },
    })
}

/// The securityContext of a control-plane container.
fn unprivileged() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "runAsUser": 65532,
    })
}

/// A daemon of the control plane: what its Deployment says beyond what all say.
struct Daemon<'v> {
    /// Its name, and that of its service account.
    name: &'static str,
    /// Its container's name.
    container: &'static str,
    image: &'v str,
    replicas: u32,
    /// Port of `/readyz`.
    ready_port: u16,
    env: Value,
    ports: Value,
    requests: Value,
    volume_mounts: Value,
    volumes: Value,
}

impl Daemon<'_> {
    fn deployment(self, values: &Values) -> Value {
        let probe = |period: u32, failures: u32| {
            json!({
                "httpGet": {"path": "/readyz", "port": self.ready_port, "scheme": "HTTPS"},
                "periodSeconds": period,
                "failureThreshold": failures,
            })
        };
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(self.name, values),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": labels(self.name, values)},
                    "spec": {
                        "serviceAccountName": self.name,
                        "containers": [{
                            "name": self.container,
                            "image": self.image,
                            "imagePullPolicy": "IfNotPresent",
                            "env": self.env,
                            "ports": self.ports,
                            "startupProbe": probe(1, 120),
                            "readinessProbe": probe(5, 3),
                            "resources": {"requests": self.requests},
                            "securityContext": unprivileged(),
                            "volumeMounts": self.volume_mounts,
                        }],
                        "volumes": self.volumes,
                    },
                },
            },
        })
    }
}

/// A variable by downward API.
fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// The Service of a daemon.
fn service(name: &str, ports: &Value, values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, values),
        "spec": {"selector": {"app": name}, "ports": ports},
    })
}

/// Binds the role of that kind and name to the service account of that name.
fn binding(kind: &str, name: &str, values: &Values) -> Value {
    let metadata = if kind == "Role" { metadata(name, values) } else { cluster_metadata(name, values) };
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": format!("{kind}Binding"),
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM_NAMESPACE}],
    })
}

/// The variable with the other names of the trust domain, if there are any.
fn aliases(values: &Values) -> Option<Value> {
    let aliases = &values.trust_domain_aliases;
    (!aliases.is_empty()).then(|| json!({"name": "MESH_TRUST_DOMAIN_ALIASES", "value": aliases.join(",")}))
}

fn service_account(name: &str, values: &Values) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, values)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Certificates;

    fn values() -> Values {
        let serving = |key: &str| ServingCertificate { certificate: "CERT".to_owned(), key: key.to_owned() };
        let roots = "CA".to_owned();
        Values::new("1", Certificates { roots, pilot: serving("PILOT'S KEY"), ca: serving("CA'S KEY") })
    }

    #[test]
    fn every_object_has_a_kind_and_a_name_and_no_two_are_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for object in render(&values()) {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
            let id = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
            assert!(id.0.is_some() && id.2.is_some() && text("/apiVersion").is_some(), "{object}");
            assert!(seen.insert(id), "{object}");
        }
    }

    #[test]
    fn the_gateway_can_be_left_out() {
        let without = Values { gateway_replicas: 0, ..values() };
        assert!(!render(&without).iter().any(|o| o["metadata"]["name"] == api::names::INGRESS_GATEWAY));
    }

    #[test]
    fn what_identities_are_checked_by_is_told_to_those_who_check() {
        let other = Values {
            trust_domain_aliases: vec!["old.local".to_owned(), "older.local".to_owned()],
            auth_policy: Some(crate::AuthPolicy::MutualTls),
            ..values()
        };
        let variable = |values: &Values, of: &str, name: &str| {
            let objects = render(values);
            let found = objects.iter().find(|o| o["kind"] == "Deployment" && o["metadata"]["name"] == of)?;
            let env = found.pointer("/spec/template/spec/containers/0/env")?.as_array()?;
            Some(env.iter().find(|variable| variable["name"] == name)?["value"].as_str()?.to_owned())
        };
        for of in [api::names::PILOT, api::names::CA] {
            assert_eq!(variable(&other, of, "MESH_TRUST_DOMAIN_ALIASES").as_deref(), Some("old.local,older.local"));
            assert_eq!(variable(&values(), of, "MESH_TRUST_DOMAIN_ALIASES"), None);
        }
        assert_eq!(variable(&other, api::names::PILOT, "MESH_AUTH_POLICY").as_deref(), Some("MUTUAL_TLS"));
        assert_eq!(variable(&values(), api::names::PILOT, "MESH_AUTH_POLICY"), None);
    }

    #[test]
    fn each_private_key_stands_in_one_secret_only() {
        for key in ["PILOT'S KEY", "CA'S KEY"] {
            let encoded = STANDARD.encode(key);
            let holders: Vec<_> = render(&values()).into_iter().filter(|o| o.to_string().contains(&encoded)).collect();
            assert_eq!(holders.len(), 1);
            assert_eq!(holders[0]["kind"], "Secret");
        }
    }
}
