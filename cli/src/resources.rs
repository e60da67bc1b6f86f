//! The kinds that commands can name: spellings, plurals, paths in the API.

use api::names::{CLASSIC_GROUP, GROUP, VERSION};
use serde_json::Value;

/// A kind of the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// `RouteRule`.
    pub kind: String,
    /// `routerules`.
    pub plural: String,
    /// Abbreviations, as `rr`.
    pub short: Vec<String>,
    /// Whether its objects live in a namespace.
    pub is_namespaced: bool,
}

/// Kinds that are known without asking a server: group, version, kind, plural, short name, whether it is namespaced.
const KNOWN: &[(&str, &str, &str, &str, &str, bool)] = &[
    (GROUP, VERSION, "RouteRule", "routerules", "rr", true),
    (GROUP, VERSION, "DestinationPolicy", "destinationpolicies", "dp", true),
    (GROUP, VERSION, "ServiceRole", "serviceroles", "sr", true),
    (GROUP, VERSION, "ServiceRoleBinding", "servicerolebindings", "srb", true),
    (GROUP, VERSION, "RbacConfig", "rbacconfigs", "rbc", true),
    (GROUP, VERSION, "AuthenticationPolicy", "authenticationpolicies", "ap", true),
    (GROUP, VERSION, "Rule", "rules", "", true),
    (GROUP, VERSION, "Rbac", "rbacs", "", true),
    (GROUP, VERSION, "Authorization", "authorizations", "", true),
    (GROUP, VERSION, "Denier", "deniers", "", true),
    (GROUP, VERSION, "CheckNothing", "checknothings", "", true),
    ("", "v1", "Pod", "pods", "po", true),
    ("", "v1", "Service", "services", "svc", true),
    ("", "v1", "Namespace", "namespaces", "ns", false),
    ("", "v1", "ConfigMap", "configmaps", "cm", true),
    ("", "v1", "Secret", "secrets", "", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", true),
    ("", "v1", "Event", "events", "ev", true),
    ("", "v1", "Node", "nodes", "no", false),
    ("", "v1", "Endpoints", "endpoints", "ep", true),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", true),
    ("apps", "v1", "Deployment", "deployments", "deploy", true),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", true),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", true),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", true),
    ("batch", "v1", "Job", "jobs", "", true),
    ("batch", "v1", "CronJob", "cronjobs", "cj", true),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", true),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", false),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", true),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", true),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", true),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", true),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", true),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", false),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", false),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd", false),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", false),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "",
        false,
    ),
];

impl Resource {
    fn known(row: &(&str, &str, &str, &str, &str, bool)) -> Self {
        let (group, version, kind, plural, short, is_namespaced) = *row;
        Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            short: if short.is_empty() { Vec::new() } else { vec![short.to_owned()] },
            is_namespaced,
        }
    }

    /// `config.meshctl.io/v1alpha2`, or `v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it is one of the mesh's own kinds.
    #[must_use]
    pub fn is_mesh(&self) -> bool {
        self.group == GROUP
    }

    /// `route-rule`: the word for one object of the kind.
    #[must_use]
    pub fn word(&self) -> String {
        if self.is_mesh() { hyphenated(&self.kind) } else { self.kind.to_lowercase() }
    }

    /// `route-rule`, `deployment.apps`: as in `kind/name`.
    #[must_use]
    pub fn qualified_word(&self) -> String {
        if self.is_mesh() || self.group.is_empty() { self.word() } else { format!("{}.{}", self.word(), self.group) }
    }

    /// The path of the collection, or of one object in it.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}", self.api_version())
        };
        if let Some(namespace) = namespace.filter(|_| self.is_namespaced) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Whether `word` means this kind: `route-rule`, `RouteRules`, `rr`, `routerules.config.meshctl.io`.
    #[must_use]
    pub fn is_called(&self, word: &str) -> bool {
        let lower = word.to_lowercase();
        let (bare, group) = match lower.split_once('.') {
            Some((bare, group)) => (bare.to_owned(), Some(group.to_owned())),
            None => (lower, None),
        };
        if let Some(group) = group {
            let ours = self.group.to_lowercase();
            let classic = self.is_mesh() && group == CLASSIC_GROUP;
            if group != ours && group != format!("{}.{ours}", self.version) && !classic {
                return false;
            }
        }
        let joined: String = bare.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        joined == self.plural || joined == self.kind.to_lowercase() || self.short.contains(&bare)
    }
}

/// `RouteRule` → `route-rule`.
#[must_use]
pub fn hyphenated(kind: &str) -> String {
    let mut word = String::new();
    for (i, c) in kind.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            word.push('-');
        }
        word.extend(c.to_lowercase());
    }
    word
}

/// The kind that `word` means, if it is known without asking a server.
#[must_use]
pub fn by_word(word: &str) -> Option<Resource> {
    KNOWN.iter().map(Resource::known).find(|resource| resource.is_called(word))
}

/// The kind of an object, if it is known without asking a server. The classic group stands for ours.
#[must_use]
pub fn by_kind(api_version: &str, kind: &str) -> Option<Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let group = if group == CLASSIC_GROUP { GROUP } else { group };
    let kind = match api::kinds::meaning(api_version, kind) {
        api::kinds::Meaning::Ours(ours) => ours.kind,
        _ => kind,
    };
    KNOWN.iter().find(|row| row.0 == group && row.1 == version && row.2 == kind).map(Resource::known)
}

/// Words that a slip can be compared with.
#[must_use]
pub fn words() -> Vec<String> {
    KNOWN
        .iter()
        .map(Resource::known)
        .flat_map(|r| {
            let plural = if r.is_mesh() { plural_word(&r.kind) } else { r.plural.clone() };
            [plural, r.word()]
        })
        .collect()
}

/// `RouteRule` → `route-rules`.
fn plural_word(kind: &str) -> String {
    let word = hyphenated(kind);
    match word.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{word}s"),
    }
}

/// A text field of an object by its path, as `metadata.name`.
#[must_use]
pub fn text<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(object, |at, field| at.get(field))?.as_str()
}

/// The name of an object, empty if it has none.
#[must_use]
pub fn name_of(object: &Value) -> &str {
    text(object, &["metadata", "name"]).unwrap_or_default()
}

/// The namespace of an object, empty if it has none.
#[must_use]
pub fn namespace_of(object: &Value) -> &str {
    text(object, &["metadata", "namespace"]).unwrap_or_default()
}

/// The version of an object, empty if it has none.
#[must_use]
pub fn version_of(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_kind_is_understood() {
        for word in [
            "route-rule",
            "route-rules",
            "routerule",
            "routerules",
            "RouteRule",
            "route_rule",
            "rr",
            "RR",
            "routerules.config.meshctl.io",
            "routerules.config.istio.io",
            "routerules.v1alpha2.config.meshctl.io",
        ] {
            assert_eq!(by_word(word).map(|r| r.kind), Some("RouteRule".to_owned()), "{word}");
        }
        for (word, kind) in [
            ("dp", "DestinationPolicy"),
            ("destination-policies", "DestinationPolicy"),
            ("po", "Pod"),
            ("deploy", "Deployment"),
            ("deployments.apps", "Deployment"),
            ("svc", "Service"),
            ("ing", "Ingress"),
        ] {
            assert_eq!(by_word(word).map(|r| r.kind).as_deref(), Some(kind), "{word}");
        }
        assert_eq!(by_word("routerules.apps"), None);
        assert_eq!(by_word("virtual-services"), None);
    }

    #[test]
    fn paths_are_those_of_the_kubernetes_api() {
        let path = |word: &str, ns, name| by_word(word).map(|r| r.path(ns, name)).unwrap_or_default();
        assert_eq!(path("po", Some("a"), Some("x")), "/api/v1/namespaces/a/pods/x");
        assert_eq!(path("ns", Some("a"), None), "/api/v1/namespaces");
        assert_eq!(path("rr", None, None), "/apis/config.meshctl.io/v1alpha2/routerules");
    }
}
