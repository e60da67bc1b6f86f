//! Who may do what: the rules of Roles and ClusterRoles, bound by RoleBindings and ClusterRoleBindings.

use serde_json::Value;

use super::object::{array, namespace, text};
use super::tokens::User;
use super::{Selection, Store};

/// What a caller wants to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Action {
    /// `get`, `list`, `watch`, `create`, …
    pub(super) verb: String,
    /// API group; empty for the core group.
    pub(super) group: String,
    /// Plural of the resource.
    pub(super) resource: String,
    /// Subresource, or nothing.
    pub(super) subresource: String,
    /// Namespace; nothing for the whole cluster.
    pub(super) namespace: String,
    /// Name of the object; nothing for all.
    pub(super) name: String,
    /// Path of a URL that is no resource; then only the verb counts beside it.
    pub(super) path: Option<String>,
}

/// The group that may do everything.
pub(super) const MASTERS: &str = "system:masters";

/// Whether a user may do something.
pub(super) fn allows(store: &Store, user: &User, action: &Action) -> bool {
    if user.groups.iter().any(|group| group == MASTERS) {
        return true;
    }
    let bound = |resource: &str, selection: &Selection| {
        store.list(resource, selection).items.into_iter().filter(|binding| binds(binding, user)).collect::<Vec<_>>()
    };
    let cluster = bound("clusterrolebindings.rbac.authorization.k8s.io", &Selection::all());
    if cluster.iter().any(|binding| role_allows(store, binding, action)) {
        return true;
    }
    if action.namespace.is_empty() || action.path.is_some() {
        return false;
    }
    let local = bound("rolebindings.rbac.authorization.k8s.io", &Selection::namespace(&action.namespace));
    local.iter().any(|binding| role_allows(store, binding, action))
}

fn binds(binding: &Value, user: &User) -> bool {
    array(binding, "/subjects").iter().any(|subject| {
        let name = text(subject, "/name");
        match text(subject, "/kind") {
            "User" => name == user.name,
            "Group" => user.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                let at = match text(subject, "/namespace") {
                    "" => namespace(binding),
                    given => given,
                };
                user.name == format!("system:serviceaccount:{at}:{name}")
            }
            _ => false,
        }
    })
}

fn role_allows(store: &Store, binding: &Value, action: &Action) -> bool {
    let name = text(binding, "/roleRef/name");
    let role = match text(binding, "/roleRef/kind") {
        "ClusterRole" => store.get("clusterroles.rbac.authorization.k8s.io", "", name),
        "Role" => store.get("roles.rbac.authorization.k8s.io", namespace(binding), name),
        _ => return false,
    };
    role.is_ok_and(|role| array(&role, "/rules").iter().any(|rule| rule_allows(rule, action)))
}

fn rule_allows(rule: &Value, action: &Action) -> bool {
    let has = |field: &str, wanted: &str| array(rule, field).iter().any(|it| it == wanted || it == "*");
    if !has("/verbs", &action.verb) {
        return false;
    }
    if let Some(path) = &action.path {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        };
        return array(rule, "/nonResourceURLs").iter().filter_map(Value::as_str).any(matches);
    }
    let names = array(rule, "/resourceNames");
    has("/apiGroups", &action.group)
        && resource_matches(rule, action)
        && (names.is_empty() || (!action.name.is_empty() && names.iter().any(|it| *it == action.name)))
}

fn resource_matches(rule: &Value, action: &Action) -> bool {
    let full = match action.subresource.as_str() {
        "" => action.resource.clone(),
        subresource => format!("{}/{subresource}", action.resource),
    };
    array(rule, "/resources").iter().filter_map(Value::as_str).any(|pattern| {
        pattern == "*"
            || pattern == full
            || pattern
                .strip_prefix("*/")
                .is_some_and(|subresource| subresource == action.subresource && !subresource.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action(verb: &str, group: &str, resource: &str, at: &str, name: &str) -> Action {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let owned = str::to_owned;
        Action {
            verb: owned(verb),
            group: owned(group),
            resource: owned(resource),
            subresource: owned(subresource),
            namespace: owned(at),
            name: owned(name),
            path: None,
        }
    }

    #[test]
    fn rules_allow_what_they_say_and_nothing_else() {
        for (rule, wanted, expected) in [
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                action("get", "", "pods", "a", "p"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                action("list", "", "pods", "a", ""),
                false,
            ),
            (
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                action("delete", "apps", "deployments", "a", "d"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                action("get", "apps", "pods", "a", "p"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
                action("get", "", "pods/log", "a", "p"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
                action("get", "", "pods/log", "a", "p"),
                true,
            ),
            (
                json!({"verbs": ["update"], "apiGroups": ["x"], "resources": ["*/status"]}),
                action("update", "x", "y/status", "a", "p"),
                true,
            ),
            (
                json!({"verbs": ["update"], "apiGroups": ["x"], "resources": ["*/status"]}),
                action("update", "x", "y", "a", "p"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}),
                action("get", "", "secrets", "a", "s"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}),
                action("get", "", "secrets", "a", "t"),
                false,
            ),
            (
                json!({"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}),
                action("list", "", "secrets", "a", ""),
                false,
            ),
        ] {
            assert_eq!(rule_allows(&rule, &wanted), expected, "{rule} for {wanted:?}");
        }
    }

    #[test]
    fn bindings_reach_as_far_as_they_say() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("a store");
        let rbac = |resource: &str| format!("{resource}.rbac.authorization.k8s.io");
        store.create("namespaces", json!({"metadata": {"name": "a"}})).expect("created");
        store
            .create(&rbac("clusterroles"), json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}))
            .expect("created");
        let subject = json!([{"kind": "ServiceAccount", "name": "sa", "namespace": "a"}]);
        let reference = json!({"kind": "ClusterRole", "name": "reader"});
        store
            .create(
                &rbac("rolebindings"),
                json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": reference, "subjects": subject}),
            )
            .expect("created");
        let user = User { name: "system:serviceaccount:a:sa".into(), ..User::default() };
        assert!(allows(&store, &user, &action("get", "", "pods", "a", "p")));
        assert!(!allows(&store, &user, &action("get", "", "pods", "default", "p")));
        store
            .create(
                &rbac("clusterrolebindings"),
                json!({"metadata": {"name": "b"}, "roleRef": reference, "subjects": subject}),
            )
            .expect("created");
        assert!(allows(&store, &user, &action("get", "", "pods", "default", "p")));
        assert!(!allows(&store, &User::default(), &action("get", "", "pods", "a", "p")));
        let master = User { groups: vec![MASTERS.into()], ..User::default() };
        assert!(allows(&store, &master, &action("delete", "", "nodes", "", "n")));
    }
}
