//! Gives services of type LoadBalancer their address, and keeps the service of the API itself.

use std::sync::Arc;

use serde_json::json;

use super::{Controller, Key, key, keys, write_status};
use crate::api::object::child;
use crate::api::{Api, ApiResult, Event, Reason, object};

/// Where the API is reached from inside the mesh.
pub(super) const API_ADDRESS: &str = "10.96.0.1";

pub(super) struct Services {
    api: Arc<Api>,
}

impl Services {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }

    /// The service `kubernetes`, by which pods find the API.
    fn make_own(&self) -> ApiResult<()> {
        let store = self.api.store();
        let metadata = json!({"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}});
        let spec = json!({"clusterIP": API_ADDRESS, "ports": [{"name": "https", "port": 443, "targetPort": 443}]});
        let slice = json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
            "endpoints": [{"addresses": [API_ADDRESS], "conditions": {"ready": true, "serving": true, "terminating": false}}],
        });
        for (resource, wanted) in
            [("services", json!({"metadata": metadata, "spec": spec})), ("endpointslices.discovery.k8s.io", slice)]
        {
            match store.create(resource, wanted) {
                Err(error) if error.reason != Reason::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Controller for Services {
    const WATCHED: &'static [&'static str] = &["services"];

    fn all(&self) -> Vec<Key> {
        let mut all = keys(self.api.store(), "services");
        all.push(("default".into(), "kubernetes".into()));
        all
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        vec![key(&event.object)]
    }

    async fn reconcile(&self, (namespace, name): &Key) -> ApiResult<()> {
        if (namespace.as_str(), name.as_str()) == ("default", "kubernetes") {
            self.make_own()?;
        }
        let old = self.api.store().get("services", namespace, name)?;
        let mut new = (*old).clone();
        let balancer = match object::text(&old, "/spec/type") {
            "LoadBalancer" => json!({"ingress": [{"ip": "127.0.0.1"}]}),
            _ => json!({}),
        };
        child(&mut new, "status").insert("loadBalancer".into(), balancer);
        write_status(self.api.store(), "services", &old, new)
    }
}
