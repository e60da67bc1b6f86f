//! Discovery: what is served.

use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::classic::OLD;
use super::request::{Place, REVIEWS};
use super::resources::{Resource, Resources};
use super::{ApiError, ApiResult, Reason};

/// The version of Kubernetes whose API this is a part of.
const KUBERNETES: (&str, &str) = ("1", "33");
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Answers a request for discovery.
///
/// # Errors
/// `NotFound` for groups and versions that are not served.
pub(super) fn answer(resources: &Resources, place: &Place, aggregated: bool) -> ApiResult<Answer> {
    let groups = Groups::of(resources);
    match place {
        Place::Version => Ok(answer::json(200, &version())),
        Place::Core if aggregated => Ok(self::aggregated(&groups, true)),
        Place::Groups if aggregated => Ok(self::aggregated(&groups, false)),
        Place::Core => {
            Ok(answer::json(200, &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})))
        }
        Place::Groups => {
            let list: Vec<Value> = groups
                .0
                .iter()
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, versions)| group(name, versions))
                .collect();
            Ok(answer::json(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})))
        }
        Place::Group(name) => match groups.get(name) {
            Some(versions) => Ok(answer::json(200, &with_kind(group(name, versions), "APIGroup"))),
            None => Err(unknown(name)),
        },
        Place::GroupVersion(name, version) => {
            let found = groups.get(name).and_then(|versions| versions.iter().find(|(found, _)| found == version));
            let (_, entries) = found.ok_or_else(|| unknown(&format!("{name}/{version}")))?;
            let list: Vec<Value> = entries.iter().flat_map(Entry::flat).collect();
            let group_version = if name.is_empty() { version.clone() } else { format!("{name}/{version}") };
            Ok(answer::json(
                200,
                &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}),
            ))
        }
        _ => Err(unknown("that")),
    }
}

pub(super) fn unknown(what: &str) -> ApiError {
    ApiError::new(
        Reason::NotFound,
        format!("the server could not find the requested resource: {what} is not served here"),
    )
}

fn version() -> Value {
    let (major, minor) = KUBERNETES;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+meshctl-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn with_kind(mut group: Value, kind: &str) -> Value {
    group["kind"] = kind.into();
    group["apiVersion"] = "v1".into();
    group
}

fn group(name: &str, versions: &[(String, Vec<Entry>)]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

/// A resource as discovery tells of it.
pub(super) struct Entry {
    pub(super) plural: String,
    singular: String,
    pub(super) kind: String,
    pub(super) namespaced: bool,
    verbs: Vec<&'static str>,
    short_names: Vec<String>,
    categories: Vec<String>,
    subresources: Vec<(&'static str, &'static str, &'static str, Vec<&'static str>)>,
}

impl Entry {
    fn of(resource: &Resource, version: &str) -> Self {
        let known = resource.version(version);
        let mut subresources = vec![];
        if known.is_some_and(|it| it.status) {
            subresources.push(("status", "", "", vec!["get", "patch", "update"]));
        }
        if known.is_some_and(|it| it.scale.is_some()) {
            subresources.push(("scale", "autoscaling/v1", "Scale", vec!["get", "patch", "update"]));
        }
        match resource.key().as_str() {
            "pods" => {
                subresources.push(("log", "", "Pod", vec!["get"]));
                subresources.push(("exec", "", "PodExecOptions", vec!["create", "get"]));
                subresources.push(("portforward", "", "PodPortForwardOptions", vec!["create", "get"]));
            }
            "serviceaccounts" => {
                subresources.push(("token", "authentication.k8s.io/v1", "TokenRequest", vec!["create"]))
            }
            _ => {}
        }
        Self {
            plural: resource.plural.clone(),
            singular: resource.singular.clone(),
            kind: resource.kind.clone(),
            namespaced: resource.namespaced,
            verbs: VERBS.to_vec(),
            short_names: resource.short_names.clone(),
            categories: resource.categories.clone(),
            subresources,
        }
    }

    fn review(plural: &str, kind: &str) -> Self {
        let owned = str::to_owned;
        Self {
            plural: owned(plural),
            singular: kind.to_lowercase(),
            kind: owned(kind),
            namespaced: false,
            verbs: vec!["create"],
            short_names: vec![],
            categories: vec![],
            subresources: vec![],
        }
    }

    /// The resource and its subresources, as `APIResourceList` has them.
    fn flat(&self) -> Vec<Value> {
        let mut main = json!({
            "name": self.plural, "singularName": self.singular, "namespaced": self.namespaced, "kind": self.kind, "verbs": self.verbs,
        });
        if !self.short_names.is_empty() {
            main["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            main["categories"] = json!(self.categories);
        }
        let mut list = vec![main];
        for (name, group_version, kind, verbs) in &self.subresources {
            let mut entry = json!({
                "name": format!("{}/{name}", self.plural), "singularName": "", "namespaced": self.namespaced,
                "kind": if kind.is_empty() { self.kind.as_str() } else { kind }, "verbs": verbs,
            });
            if let Some((group, version)) = group_version.split_once('/') {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
        list
    }

    /// As the aggregated document has it.
    fn aggregated(&self, group: &str, version: &str) -> Value {
        let subresources: Vec<Value> = self
            .subresources
            .iter()
            .map(|(name, group_version, kind, verbs)| {
                let (group, version) = group_version.split_once('/').unwrap_or((group, version));
                let kind = if kind.is_empty() { self.kind.as_str() } else { kind };
                json!({"subresource": name, "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": verbs})
            })
            .collect();
        json!({
            "resource": self.plural, "responseKind": {"group": group, "version": version, "kind": self.kind},
            "scope": if self.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": self.singular,
            "verbs": self.verbs, "shortNames": self.short_names, "categories": self.categories, "subresources": subresources,
        })
    }
}

/// Groups in the order in which clients prefer them, each with its versions.
pub(super) struct Groups(Vec<(String, Versions)>);

/// Versions with what they serve.
type Versions = Vec<(String, Vec<Entry>)>;

impl Groups {
    pub(super) fn of(resources: &Resources) -> Self {
        let mut groups: Vec<(String, Versions)> = vec![];
        let mut add = |group: &str, version: &str, entry: Entry| {
            let at = groups.iter().position(|(name, _)| name == group).unwrap_or_else(|| {
                groups.push((group.to_owned(), vec![]));
                groups.len() - 1
            });
            let versions = &mut groups[at].1;
            let at = versions.iter().position(|(name, _)| name == version).unwrap_or_else(|| {
                versions.push((version.to_owned(), vec![]));
                versions.len() - 1
            });
            versions[at].1.push(entry);
        };
        for resource in resources.iter() {
            for version in &resource.versions {
                add(&resource.group, &version.name, Entry::of(resource, &version.name));
            }
        }
        for (group, plural, kind) in REVIEWS {
            add(group, "v1", Entry::review(plural, kind));
        }
        for (group, version, plural, home) in OLD {
            if let Some(resource) = resources.by_path(home, "v1", plural) {
                let mut entry = Entry::of(resource, "v1");
                entry.categories.clear();
                // `kubectl get deploy` means the current group, without a warning that there is another.
                entry.short_names.clear();
                add(group, version, entry);
            }
        }
        Self(groups)
    }

    /// Every version of every group.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&str, &str, &[Entry])> {
        self.0.iter().flat_map(|(group, versions)| {
            versions.iter().map(move |(version, entries)| (group.as_str(), version.as_str(), entries.as_slice()))
        })
    }

    fn get(&self, name: &str) -> Option<&Vec<(String, Vec<Entry>)>> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, versions)| versions)
    }
}

fn aggregated(groups: &Groups, core: bool) -> Answer {
    let items: Vec<Value> = groups
        .0
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, entries)| {
                    let resources: Vec<Value> = entries.iter().map(|entry| entry.aggregated(name, version)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    answer::typed(200, content_type, document.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_groups_come_after_the_current_ones() {
        let resources = Resources::built_in();
        let groups = Groups::of(&resources);
        let at = |name: &str| groups.0.iter().position(|(found, _)| found == name).expect(name);
        assert!(at("apps") < at("extensions") && at("networking.k8s.io") < at("extensions"));
        assert_eq!(groups.get("apps").expect("served")[0].0, "v1");
    }
}
