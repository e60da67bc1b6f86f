//! Objects that decide who may call what.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::put::put_in;
use super::{MixerKind, Registry, Resource, mixer};
use crate::config::Meant;
use crate::model::{Access, AuthenticationPolicy, Key, KeySource, Shared};
use crate::problem::Problem;

/// Puts what an object means into the model, or takes it out; says whether that changed anything.
pub(super) fn put(access: &mut Shared<Access>, resource: Resource, key: &Key, meant: Option<Meant>) -> bool {
    match (resource, meant) {
        (Resource::ServiceRole { .. }, Some(Meant::ServiceRole(role))) => {
            put_in(access, |a| &a.roles, |a| &mut a.roles, key, Some(role))
        }
        (Resource::ServiceRole { .. }, _) => put_in(access, |a| &a.roles, |a| &mut a.roles, key, None),
        (Resource::ServiceRoleBinding { .. }, Some(Meant::ServiceRoleBinding(binding))) => {
            put_in(access, |a| &a.bindings, |a| &mut a.bindings, key, Some(binding))
        }
        (Resource::ServiceRoleBinding { .. }, _) => put_in(access, |a| &a.bindings, |a| &mut a.bindings, key, None),
        (Resource::RbacConfig { .. }, Some(Meant::RbacConfig(config))) => {
            put_in(access, |a| &a.configs, |a| &mut a.configs, key, Some(config))
        }
        (Resource::RbacConfig { .. }, _) => put_in(access, |a| &a.configs, |a| &mut a.configs, key, None),
        (Resource::AuthenticationPolicy { .. }, Some(Meant::AuthenticationPolicy(policy))) => {
            put_in(access, |a| &a.authentication, |a| &mut a.authentication, key, Some(policy))
        }
        (Resource::AuthenticationPolicy { .. }, _) => {
            put_in(access, |a| &a.authentication, |a| &mut a.authentication, key, None)
        }
        (Resource::Mixer { kind, .. }, meant) => mixer::put(access, kind, key, meant),
        _ => false,
    }
}

/// Whether what is in force stays so when a new version of the object is wrong.
///
/// Elsewhere a wrong object is out of force until it is right. To drop what restricts callers would let them in.
pub(super) fn stays(access: &Access, resource: Resource, key: &Key) -> bool {
    match resource {
        Resource::RbacConfig { .. } => access.configs.contains_key(key),
        Resource::AuthenticationPolicy { .. } => access.authentication.contains_key(key),
        Resource::Mixer { kind: MixerKind::Rule, .. } => access.mixer.rules.contains_key(key),
        _ => false,
    }
}

/// What the warning about keys that cannot be fetched begins with.
const NO_KEYS: &str = "the keys of ";

impl Registry {
    /// Where the keys of issuers are, as policies in force name it.
    #[must_use]
    pub fn key_set_uris(&self) -> BTreeSet<String> {
        let policies = self.model.access.authentication.values();
        policies.flat_map(|policy| uris_of(policy)).map(str::to_owned).collect()
    }

    /// Takes in a key set that was fetched, or why it could not be. The last good one stays in force.
    pub fn take_key_set(&mut self, uri: &str, fetched: Result<Arc<str>, String>) {
        let wanted = self.key_set_uris();
        let access = &self.model.access;
        let is_old = |known: &String| !wanted.contains(known);
        let is_same = fetched.as_ref().is_ok_and(|text| access.key_sets.get(uri) == Some(text));
        let changes = wanted.contains(uri) && fetched.is_ok() && !is_same;
        if changes || access.key_sets.keys().any(is_old) {
            let key_sets = &mut self.model.access.key_sets;
            key_sets.retain(|known, _| wanted.contains(known));
            if let (true, Ok(text)) = (changes, &fetched) {
                key_sets.insert(uri.to_owned(), Arc::clone(text));
            }
            self.generation += 1;
        }
        let has_keys = self.model.access.key_sets.contains_key(uri);
        let problem = fetched.err().map(|error| {
            let hint = if has_keys { "the last good ones stay in force" } else { "without them no token is good" };
            Problem::warning(format!("{NO_KEYS}{uri} cannot be fetched: {error}")).with_hint(hint)
        });
        let prefix = format!("{NO_KEYS}{uri} ");
        for (id, config) in &mut self.configs {
            let Some(Meant::AuthenticationPolicy(policy)) = &config.meant else { continue };
            if !uris_of(policy).any(|of_policy| of_policy == uri) {
                continue;
            }
            config.problems.retain(|problem| !problem.message.starts_with(&prefix));
            let object = format!("{} {}", id.resource.kind(), id.key);
            config.problems.extend(problem.clone().map(|problem| problem.in_object(object)));
        }
    }
}

fn uris_of(policy: &AuthenticationPolicy) -> impl Iterator<Item = &str> {
    policy.origins.iter().flatten().filter_map(|jwt| match &jwt.keys {
        KeySource::Uri(uri) => Some(uri.as_str()),
        KeySource::Inline(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Mesh;

    const POLICY: Resource = Resource::AuthenticationPolicy { classic: false };
    const CONFIG: Resource = Resource::RbacConfig { classic: false };

    fn key(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn the_last_good_keys_stay_when_a_fetch_fails_and_the_status_says_so() {
        let mut registry = Registry::new(Mesh::default());
        let jwt = json!({ "issuer": "i", "jwksUri": "https://i/keys" });
        let object = json!({ "metadata": { "name": "a" }, "spec": { "origins": [{ "jwt": jwt }] } });
        assert_eq!(registry.apply(POLICY, &object), []);
        assert_eq!(registry.key_set_uris(), BTreeSet::from(["https://i/keys".to_owned()]));
        let id = super::super::Id { resource: POLICY, key: key("default", "a") };
        let problems = |registry: &Registry| registry.status(&id).expect("it is known").problems;
        registry.take_key_set("https://i/keys", Err("down".to_owned()));
        let said = problems(&registry);
        assert_eq!(said[0].message, "the keys of https://i/keys cannot be fetched: down");
        assert!(!said[0].is_error() && registry.model().access.key_sets.is_empty());
        registry.take_key_set("https://i/keys", Ok("one".into()));
        assert_eq!(problems(&registry), []);
        let generation = registry.generation();
        registry.take_key_set("https://i/keys", Err("down again".to_owned()));
        assert_eq!(registry.model().access.key_sets["https://i/keys"], Arc::<str>::from("one"));
        assert_eq!((problems(&registry).len(), registry.generation()), (1, generation));
        // What nobody names any more is forgotten, and what nobody asked for is not taken.
        registry.remove(POLICY, &id.key);
        registry.take_key_set("https://evil/keys", Ok("x".into()));
        assert!(registry.model().access.key_sets.is_empty());
    }

    #[test]
    fn cve_2026_33726_what_restricts_callers_stays_in_force_when_its_new_version_is_wrong() {
        let mut registry = Registry::new(Mesh::default());
        let config = |mode: &str| json!({ "metadata": { "name": "default", "namespace": "mesh-system" }, "spec": { "mode": mode } });
        let policy =
            |mode: &str| json!({ "metadata": { "name": "a" }, "spec": { "peers": [{ "mtls": { "mode": mode } }] } });
        assert_eq!(registry.apply(CONFIG, &config("ON")), []);
        assert_eq!(registry.apply(POLICY, &policy("STRICT")), []);
        assert!(!registry.apply(CONFIG, &config("OM")).is_empty());
        assert!(!registry.apply(POLICY, &policy("STRIC")).is_empty());
        let access = &registry.model().access;
        assert!(access.config().is_some_and(|config| config.covers("default", None)));
        assert_eq!(access.authentication.len(), 1);
        registry.remove(CONFIG, &key("mesh-system", "default"));
        assert!(registry.model().access.config().is_none());
    }
}
