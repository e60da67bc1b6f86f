//! The objects of an installation, in the order in which they are applied.

mod crds;
mod gateway;
mod pilot;
mod webhooks;

use api::names::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use crate::Values;

/// Renders every object of an installation, in the order in which they are applied.
#[must_use]
pub fn render(values: &Values) -> Vec<Value> {
    let mut objects = vec![namespace()];
    objects.extend(crds::render());
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

fn service_account(name: &str, values: &Values) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, values)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PilotCertificate;

    fn values() -> Values {
        let certificate =
            PilotCertificate { ca: "CA".to_owned(), certificate: "CERT".to_owned(), key: "KEY".to_owned() };
        Values::new("1", certificate)
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
    fn the_private_key_stands_in_one_secret_only() {
        let encoded = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode("KEY")
        };
        let holders: Vec<_> = render(&values()).into_iter().filter(|o| o.to_string().contains(&encoded)).collect();
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0]["kind"], "Secret");
    }
}
