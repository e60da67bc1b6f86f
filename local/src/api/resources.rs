//! The resources that are served: those built in, and those that CustomResourceDefinitions add.

use std::sync::Arc;

use serde_json::Value;

use super::object::{self, array, text};

/// A resource: how it is called, where it is served, and what it can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Versions under which it is served, the preferred one first.
    pub versions: Vec<Version>,
    /// Plural, as in URLs.
    pub plural: String,
    /// Singular, as `kubectl` accepts it.
    pub singular: String,
    /// The objects' `kind`.
    pub kind: String,
    /// The lists' `kind`.
    pub list_kind: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, as `all`.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether it comes from a CustomResourceDefinition.
    pub custom: bool,
}

/// One served version of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// As in `v1`.
    pub name: String,
    /// Whether `status` is written apart.
    pub status: bool,
    /// Paths of the `scale` subresource, if it has one.
    pub scale: Option<Scale>,
    /// `additionalPrinterColumns` of a custom resource.
    pub columns: Vec<Value>,
}

/// Where the `scale` subresource finds its numbers (JSON pointers).
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Wanted replicas.
    pub wanted: String,
    /// Existing replicas.
    pub existing: String,
    /// The selector, as text or as a label selector.
    pub selector: Option<String>,
}

impl Resource {
    /// Its name in the store and in messages: `pods`, `deployments.apps`.
    pub fn key(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The `apiVersion` of its objects in a version.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// The version that objects are stored under.
    pub fn preferred(&self) -> &Version {
        self.versions.first().expect("a resource is made with at least one version")
    }

    /// A served version by name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// Whether `status` is written apart from the rest.
    pub fn has_status(&self) -> bool {
        self.preferred().status
    }

    /// The resource that a CustomResourceDefinition describes; `None` when no version of it is served.
    pub fn from_definition(definition: &Value) -> Option<Self> {
        let names = &definition["spec"]["names"];
        let strings = |pointer| array(names, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let kind = text(names, "/kind").to_owned();
        let mut served: Vec<&Value> =
            array(definition, "/spec/versions").iter().filter(|it| it["served"] == true).collect();
        served.sort_by_key(|version| version["storage"] != true);
        let versions: Vec<Version> = served
            .into_iter()
            .map(|version| Version {
                name: text(version, "/name").to_owned(),
                status: version.pointer("/subresources/status").is_some_and(Value::is_object),
                scale: version.pointer("/subresources/scale").filter(|it| it.is_object()).map(|scale| Scale {
                    wanted: dotted(text(scale, "/specReplicasPath")),
                    existing: dotted(text(scale, "/statusReplicasPath")),
                    selector: scale["labelSelectorPath"].as_str().map(dotted),
                }),
                columns: array(version, "/additionalPrinterColumns").to_vec(),
            })
            .collect();
        if versions.is_empty() {
            return None;
        }
        let or = |pointer, default: String| match text(names, pointer) {
            "" => default,
            found => found.to_owned(),
        };
        Some(Self {
            group: text(definition, "/spec/group").to_owned(),
            versions,
            plural: text(names, "/plural").to_owned(),
            singular: or("/singular", kind.to_lowercase()),
            list_kind: or("/listKind", format!("{kind}List")),
            short_names: strings("/shortNames"),
            categories: strings("/categories"),
            namespaced: text(definition, "/spec/scope") == "Namespaced",
            custom: true,
            kind,
        })
    }
}

fn dotted(path: &str) -> String {
    path.replace('.', "/")
}

/// Where the definitions of custom resources are stored.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// All resources that are served at some moment.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    all: Vec<Arc<Resource>>,
}

impl Resources {
    /// Those that are always there.
    pub(crate) fn built_in() -> Self {
        Self { all: BUILT_IN.iter().map(|row| Arc::new(built_in(row))).collect() }
    }

    /// Those built in and those of the definitions given.
    pub(crate) fn with_definitions<'a>(definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut resources = Self::built_in();
        let custom = definitions.filter(|it| !object::is_deleting(it)).filter_map(Resource::from_definition);
        resources.all.extend(custom.map(Arc::new));
        resources
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.all.iter()
    }

    /// By its name in the store: `pods`, `deployments.apps`.
    pub fn by_key(&self, key: &str) -> Option<&Arc<Resource>> {
        let (plural, group) = key.split_once('.').unwrap_or((key, ""));
        self.all.iter().find(|it| it.plural == plural && it.group == group)
    }

    /// By its place in a URL.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.all.iter().find(|it| it.plural == plural && it.group == group && it.version(version).is_some())
    }

    /// By what an object says it is.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.all.iter().find(|it| it.kind == kind && it.group == group && it.version(version).is_some())
    }

    /// By group and kind, whatever the version.
    pub fn by_group_kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.all.iter().find(|it| it.kind == kind && it.group == group)
    }
}

struct Row {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    all: bool,
}

const fn row(group: &'static str, plural: &'static str, kind: &'static str, short: &'static [&'static str]) -> Row {
    Row { group, plural, kind, short, namespaced: true, status: false, all: false }
}

impl Row {
    const fn of_cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn with_status(self) -> Self {
        Self { status: true, ..self }
    }

    const fn in_all(self) -> Self {
        Self { all: true, ..self }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

const BUILT_IN: &[Row] = &[
    row("", "configmaps", "ConfigMap", &["cm"]),
    row("", "endpoints", "Endpoints", &["ep"]),
    row("", "events", "Event", &["ev"]),
    row("", "namespaces", "Namespace", &["ns"]).of_cluster().with_status(),
    row("", "nodes", "Node", &["no"]).of_cluster().with_status(),
    row("", "pods", "Pod", &["po"]).with_status().in_all(),
    row("", "secrets", "Secret", &[]),
    row("", "serviceaccounts", "ServiceAccount", &["sa"]),
    row("", "services", "Service", &["svc"]).with_status().in_all(),
    row("apps", "deployments", "Deployment", &["deploy"]).with_status().in_all(),
    row("apps", "replicasets", "ReplicaSet", &["rs"]).with_status().in_all(),
    row("networking.k8s.io", "ingresses", "Ingress", &["ing"]).with_status(),
    row("networking.k8s.io", "ingressclasses", "IngressClass", &[]).of_cluster(),
    row("discovery.k8s.io", "endpointslices", "EndpointSlice", &[]),
    row("coordination.k8s.io", "leases", "Lease", &[]),
    row(RBAC, "clusterroles", "ClusterRole", &[]).of_cluster(),
    row(RBAC, "clusterrolebindings", "ClusterRoleBinding", &[]).of_cluster(),
    row(RBAC, "roles", "Role", &[]),
    row(RBAC, "rolebindings", "RoleBinding", &[]),
    row(ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", &[]).of_cluster(),
    row(ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", &[]).of_cluster(),
    row("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition", &["crd", "crds"])
        .of_cluster()
        .with_status(),
];

fn built_in(row: &Row) -> Resource {
    let scale = (row.group == "apps").then(|| Scale {
        wanted: "/spec/replicas".into(),
        existing: "/status/replicas".into(),
        selector: Some("/spec/selector".into()),
    });
    Resource {
        group: row.group.into(),
        versions: vec![Version { name: "v1".into(), status: row.status, scale, columns: vec![] }],
        plural: row.plural.into(),
        singular: row.kind.to_lowercase(),
        kind: row.kind.into(),
        list_kind: format!("{}List", row.kind),
        short_names: row.short.iter().map(|it| (*it).to_owned()).collect(),
        categories: if row.all { vec!["all".into()] } else { vec![] },
        namespaced: row.namespaced,
        custom: false,
    }
}
