//! The environment of a container: literal values, references, and `$(NAME)`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use serde_json::Value;

use super::network::{API_ADDRESS, NODE_ADDRESS};
use crate::api::Store;

/// Why a container's environment (or a volume) cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReferenceError {
    /// An object that is referred to does not exist.
    #[error("{kind} \"{name}\" not found in namespace {namespace}")]
    MissingObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// The key.
        key: String,
    },
    /// A field that the node does not know.
    #[error("field {path} of the pod cannot be referred to")]
    UnknownField {
        /// As the pod names it.
        path: String,
    },
}

/// What references of a pod are resolved against.
pub(crate) struct References<'a> {
    /// Objects of the API.
    pub(crate) store: &'a Store,
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// The pod's addresses, the one that it is known by first.
    pub(crate) addresses: Vec<IpAddr>,
}

impl References<'_> {
    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// The data of a ConfigMap or Secret, decoded; `None` when it does not exist.
    pub(crate) fn data(&self, kind: &'static str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.store.get(if kind == "secret" { "secrets" } else { "configmaps" }, self.namespace(), name);
        object.ok().map(|object| decode(kind, &object))
    }

    fn key(&self, kind: &'static str, name: &str, key: &str) -> Result<String, ReferenceError> {
        let data = self.data(kind, name).ok_or_else(|| self.no_object(kind, name))?;
        let value = data.get(key).ok_or_else(|| self.no_key(kind, name, key))?;
        Ok(String::from_utf8_lossy(value).into_owned())
    }

    pub(crate) fn no_object(&self, kind: &'static str, name: &str) -> ReferenceError {
        ReferenceError::MissingObject { kind, name: name.to_owned(), namespace: self.namespace().to_owned() }
    }

    pub(crate) fn no_key(&self, kind: &'static str, name: &str, key: &str) -> ReferenceError {
        let (name, namespace, key) = (name.to_owned(), self.namespace().to_owned(), key.to_owned());
        ReferenceError::MissingKey { kind, name, namespace, key }
    }

    /// A field of the pod, as `fieldRef` names it.
    pub(crate) fn field(&self, path: &str) -> Result<String, ReferenceError> {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let map = |map: &Option<BTreeMap<String, String>>| {
            map.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
        };
        Ok(match path {
            "metadata.name" => meta.name.clone().unwrap_or_default(),
            "metadata.namespace" => self.namespace().to_owned(),
            "metadata.uid" => meta.uid.clone().unwrap_or_default(),
            "metadata.labels" => map(&meta.labels),
            "metadata.annotations" => map(&meta.annotations),
            "spec.nodeName" => super::NODE_NAME.to_owned(),
            "spec.serviceAccountName" => {
                spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
            }
            "status.podIP" => self.addresses.first().map(IpAddr::to_string).unwrap_or_default(),
            "status.podIPs" => self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","),
            "status.hostIP" | "status.hostIPs" => NODE_ADDRESS.to_string(),
            _ => {
                let entry = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
                if let Some(key) = entry("metadata.labels['") {
                    meta.labels
                        .iter()
                        .flatten()
                        .find(|(name, _)| *name == key)
                        .map(|(_, it)| it.clone())
                        .unwrap_or_default()
                } else if let Some(key) = entry("metadata.annotations['") {
                    let found = meta.annotations.iter().flatten().find(|(name, _)| *name == key);
                    found.map(|(_, it)| it.clone()).unwrap_or_default()
                } else {
                    return Err(ReferenceError::UnknownField { path: path.to_owned() });
                }
            }
        })
    }

    /// The whole environment of a container, in order.
    ///
    /// # Errors
    /// When something that is referred to does not exist and is not optional.
    pub(crate) fn environment(&self, container: &Container) -> Result<Vec<(String, String)>, ReferenceError> {
        let mut env = Environment::new(self.pod);
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
                (Some(map), _) => ("configmap", &map.name, map.optional),
                (None, Some(secret)) => ("secret", &secret.name, secret.optional),
                (None, None) => continue,
            };
            match self.data(kind, name) {
                Some(data) => {
                    for (key, value) in data {
                        env.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
                    }
                }
                None if optional == Some(true) => {}
                None => return Err(self.no_object(kind, name)),
            }
        }
        for variable in container.env.iter().flatten() {
            if let Some(value) = self.value(variable, &env)? {
                env.set(variable.name.clone(), value);
            }
        }
        Ok(env.variables)
    }

    fn value(&self, variable: &EnvVar, env: &Environment) -> Result<Option<String>, ReferenceError> {
        match &variable.value_from {
            None => Ok(Some(env.expand(variable.value.as_deref().unwrap_or_default()))),
            Some(source) => self.referenced(source),
        }
    }

    fn referenced(&self, source: &EnvVarSource) -> Result<Option<String>, ReferenceError> {
        let optional = |result: Result<String, ReferenceError>, optional: Option<bool>| match result {
            Err(_) if optional == Some(true) => Ok(None),
            other => other.map(Some),
        };
        if let Some(field) = &source.field_ref {
            return self.field(&field.field_path).map(Some);
        }
        if let Some(map) = &source.config_map_key_ref {
            return optional(self.key("configmap", &map.name, &map.key), map.optional);
        }
        if let Some(secret) = &source.secret_key_ref {
            return optional(self.key("secret", &secret.name, &secret.key), secret.optional);
        }
        if let Some(resource) = &source.resource_field_ref {
            // Resources are not limited here; what a program would be told without limits is the machine.
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            return Ok(Some(if resource.resource.ends_with("cpu") { cpus.to_string() } else { "0".to_owned() }));
        }
        Ok(Some(String::new()))
    }
}

/// Variables in order, later ones replacing earlier ones of the same name.
pub(crate) struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    fn new(pod: &Pod) -> Self {
        let mut env = Self { variables: Vec::new() };
        let host = pod.metadata.name.clone().unwrap_or_default();
        for (name, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", "/root".to_owned()),
            ("HOSTNAME", host),
            ("KUBERNETES_SERVICE_HOST", API_ADDRESS.to_string()),
            ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
        ] {
            env.set(name.to_owned(), value);
        }
        env
    }

    fn set(&mut self, name: String, value: String) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name, value)),
        }
    }

    fn expand(&self, text: &str) -> String {
        expand(text, &self.variables)
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign, and an unknown name stays as it is.
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

fn decode(kind: &str, object: &Value) -> BTreeMap<String, Vec<u8>> {
    use base64::Engine as _;
    let entries = |field: &str| {
        object[field].as_object().into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?)))
    };
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let plain = |(key, text): (String, &str)| (key, text.as_bytes().to_vec());
    if kind == "secret" {
        let encoded = entries("data").map(|(key, text)| (key, base64(text)));
        return encoded.chain(entries("stringData").map(plain)).collect();
    }
    let binary = entries("binaryData").map(|(key, text)| (key, base64(text)));
    binary.chain(entries("data").map(plain)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two".to_owned())];
        for (text, expected) in [
            ("$(A)-$(B)", "1-two"),
            ("$$(A)", "$(A)"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("cost: 5$", "cost: 5$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
