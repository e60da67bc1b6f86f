//! What a caller can do to objects: the store's operations with defaults and admission in front of them.
//!
//! HTTP requests and the controllers come through here; the node, which only reports what is, uses the store itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::{Operation, Review};
use super::caller::Caller;
use super::object::metadata;
use super::patch::{self, PatchKind};
use super::resources::Resource;
use super::store::{DeleteOptions, Deleted, Part};
use super::{Api, ApiError, ApiResult, Reason, Selection, apply, classic, defaults, object, pods};

/// How often a patch is tried again when the object changes in between.
const ATTEMPTS: usize = 16;

impl Api {
    /// Creates an object: defaults, then mutating and validating webhooks, then the store.
    ///
    /// # Errors
    /// What the store or a webhook refuses.
    pub async fn create(&self, resource: &str, mut object: Value, caller: &Caller) -> ApiResult<Arc<Value>> {
        let known = self.known(resource)?;
        identify(&known, &mut object);
        if object::name(&object).is_empty() && !object::text(&object, "/metadata/generateName").is_empty() {
            // Webhooks and owners see the name that the object will have.
            let prefix: String = object::text(&object, "/metadata/generateName").chars().take(58).collect();
            metadata(&mut object).insert("name".into(), format!("{prefix}{}", object::suffix(5)).into());
        }
        defaults::fill_in(resource, &mut object);
        if resource == "pods" {
            pods::admit(&self.store, &mut object)?;
        }
        let review = Review { operation: Operation::Create, resource: &known, subresource: "", old: None, caller };
        let object = self.admit(&review, object).await?;
        check(&known, &object)?;
        if caller.dry_run {
            return self.store.create_dry(resource, object).map(Arc::new);
        }
        self.store.create(resource, object)
    }

    /// Replaces an object or its status.
    ///
    /// # Errors
    /// What the store or a webhook refuses.
    pub async fn update(&self, resource: &str, object: Value, part: Part, caller: &Caller) -> ApiResult<Arc<Value>> {
        let known = self.known(resource)?;
        let old = self.store.get(resource, object::namespace(&object), object::name(&object))?;
        self.write(Write { known: &known, old: &old, part }, object, caller).await
    }

    /// Patches an object or its status. An apply patch creates the object if it is not there; then `true` comes back
    /// with it.
    ///
    /// # Errors
    /// What the store or a webhook refuses; `Conflict` when the object goes on changing in between.
    pub async fn patch(
        &self,
        target: &PatchTarget<'_>,
        patch: &Value,
        caller: &Caller,
    ) -> ApiResult<(Arc<Value>, bool)> {
        let known = self.known(target.key.resource)?;
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let old = match self.store.get(target.key.resource, target.key.namespace, target.key.name) {
                Err(error) if error.is_not_found() && target.kind == PatchKind::Apply && target.part == Part::Main => {
                    match self.create(target.key.resource, target.new_object(patch), caller).await {
                        Err(error) if error.reason == Reason::AlreadyExists => continue,
                        made => return made.map(|object| (object, true)),
                    }
                }
                found => found?,
            };
            let mut new = (*old).clone();
            match target.kind {
                PatchKind::Apply => apply::apply(&mut new, patch, target.manager),
                kind => patch::apply(kind, &mut new, patch)?,
            }
            for field in ["name", "namespace"] {
                if new["metadata"][field] != old["metadata"][field] {
                    let why = format!(
                        "Invalid value: field is immutable: it is \"{}\"",
                        object::text(&old, &format!("/metadata/{field}"))
                    );
                    return Err(ApiError::invalid(&known.kind, target.key.name, &format!("metadata.{field}"), &why));
                }
            }
            match self.write(Write { known: &known, old: &old, part: target.part }, new, caller).await {
                Err(error) if error.is_conflict() && patch["metadata"]["resourceVersion"].is_null() => {
                    conflict = Some(error)
                }
                done => return done.map(|object| (object, false)),
            }
        }
        Err(conflict
            .unwrap_or_else(|| ApiError::conflict(target.key.resource, target.key.name, "the object goes on changing")))
    }

    /// Deletes an object or begins to.
    ///
    /// # Errors
    /// What the store or a webhook refuses.
    pub async fn delete(&self, key: ObjectKey<'_>, options: &DeleteOptions, caller: &Caller) -> ApiResult<Deleted> {
        let ObjectKey { resource, namespace, name } = key;
        let known = self.known(resource)?;
        let old = self.store.get(resource, namespace, name)?;
        if resource == "namespaces" && matches!(name, "default" | "kube-system") {
            return Err(ApiError::new(
                Reason::Forbidden,
                format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"),
            ));
        }
        let review =
            Review { operation: Operation::Delete, resource: &known, subresource: "", old: Some(&old), caller };
        self.admit(&review, Value::Null).await?;
        if caller.dry_run {
            return Ok(Deleted::Gone(old));
        }
        self.store.delete(resource, namespace, name, options)
    }

    /// Deletes all objects that a selection leaves over; returns them.
    ///
    /// # Errors
    /// The first refusal; what was deleted before it stays deleted.
    pub async fn delete_collection(
        &self,
        resource: &str,
        selection: &Selection,
        options: &DeleteOptions,
        caller: &Caller,
    ) -> ApiResult<Vec<Arc<Value>>> {
        let mut deleted = vec![];
        for object in self.store.list(resource, selection).items {
            let key = ObjectKey { resource, namespace: object::namespace(&object), name: object::name(&object) };
            match self.delete(key, options, caller).await {
                Ok(Deleted::Gone(object) | Deleted::Pending(object)) => deleted.push(object),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    async fn write(&self, write: Write<'_>, mut new: Value, caller: &Caller) -> ApiResult<Arc<Value>> {
        let Write { known, old, part } = write;
        let resource = known.key();
        identify(known, &mut new);
        // Whoever names no version means the one that was read here, or webhooks would decide about another object.
        if object::text(&new, "/metadata/resourceVersion").is_empty() {
            let version = old["metadata"]["resourceVersion"].clone();
            metadata(&mut new).insert("resourceVersion".into(), version);
        }
        if part == Part::Main {
            defaults::fill_in(&resource, &mut new);
        }
        let subresource = if part == Part::Status { "status" } else { "" };
        let review = Review { operation: Operation::Update, resource: known, subresource, old: Some(old), caller };
        let new = self.admit(&review, new).await?;
        if part == Part::Main {
            check(known, &new)?;
            check_kept(known, old, &new)?;
        }
        match (caller.dry_run, part) {
            (true, part) => self.store.update_dry(&resource, new, part).map(Arc::new),
            (false, Part::Main) => self.store.update(&resource, new),
            (false, Part::Status) => self.store.update_status(&resource, new),
        }
    }

    pub(super) fn known(&self, resource: &str) -> ApiResult<Arc<Resource>> {
        let unknown =
            || ApiError::new(Reason::NotFound, format!("the server could not find the requested resource: {resource}"));
        self.store.resources().by_key(resource).cloned().ok_or_else(unknown)
    }
}

struct Write<'a> {
    known: &'a Arc<Resource>,
    old: &'a Arc<Value>,
    part: Part,
}

/// Which object.
#[derive(Debug, Clone, Copy)]
pub struct ObjectKey<'a> {
    /// Resource, as in [`Resource::key`].
    pub resource: &'a str,
    /// Namespace; empty for the cluster.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// What is patched, and how.
#[derive(Debug, Clone, Copy)]
pub struct PatchTarget<'a> {
    /// Which object.
    pub key: ObjectKey<'a>,
    /// How the patch is written.
    pub kind: PatchKind,
    /// What it concerns.
    pub part: Part,
    /// Who applies; what a manager applied before and applies no longer goes away.
    pub manager: &'a str,
}

impl PatchTarget<'_> {
    fn new_object(&self, patch: &Value) -> Value {
        let mut object = patch.clone();
        let meta = metadata(&mut object);
        meta.insert("name".into(), self.key.name.into());
        if !self.key.namespace.is_empty() {
            meta.insert("namespace".into(), self.key.namespace.into());
        }
        apply::note_all(&mut object, self.manager);
        object
    }
}

fn identify(resource: &Resource, object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), resource.api_version(&resource.preferred().name).into());
        map.insert("kind".into(), resource.kind.clone().into());
    }
}

/// Checks that an object sent to a path is of that path, and puts in what the path says.
pub(super) fn place(target: &super::request::Target, mut sent: Value) -> ApiResult<Value> {
    if !sent.is_object() {
        return Err(ApiError::bad_request("the body is not an object"));
    }
    if !classic::belongs(&target.view, &target.resource.kind, &sent) {
        return Err(ApiError::bad_request(format!(
            "the object provided is a {} of {}, and was sent to where {} of {} are expected",
            object::text(&sent, "/kind"),
            object::text(&sent, "/apiVersion"),
            target.resource.plural,
            target.view.api_version(),
        )));
    }
    for (field, wanted) in [("name", &target.name), ("namespace", &target.namespace)] {
        if wanted.is_empty() {
            continue;
        }
        match object::text(&sent, &format!("/metadata/{field}")) {
            "" => {
                metadata(&mut sent).insert(field.to_owned(), wanted.clone().into());
            }
            found if found == wanted => {}
            found => {
                return Err(ApiError::bad_request(format!(
                    "the {field} of the object ({found}) does not match the {field} on the URL ({wanted})"
                )));
            }
        }
    }
    Ok(target.view.read(sent))
}

/// What controllers and the node rely on, so that they need not stumble over it.
fn check(resource: &Resource, object: &Value) -> ApiResult<()> {
    let name = object::name(object);
    let required =
        |field: &str, why: &str| Err(ApiError::invalid(&resource.kind, name, field, &format!("Required value: {why}")));
    match resource.key().as_str() {
        "pods" => containers(resource, name, object, "spec"),
        "deployments.apps" | "replicasets.apps" => {
            containers(resource, name, &object["spec"]["template"], "spec.template.spec")?;
            let selection = Selection::all().with_label_selector(&object["spec"]["selector"])?;
            if object.pointer("/spec/selector/matchLabels").is_none()
                && object.pointer("/spec/selector/matchExpressions").is_none()
            {
                return required("spec.selector", "empty selector is invalid");
            }
            if !selection.matches(&object["spec"]["template"]) {
                let why = "Invalid value: `selector` does not match template `labels`";
                return Err(ApiError::invalid(&resource.kind, name, "spec.template.metadata.labels", why));
            }
            match &object["spec"]["replicas"] {
                Value::Number(replicas) if replicas.as_u64().is_some_and(|it| it <= 1000) => Ok(()),
                _ => Err(ApiError::invalid(
                    &resource.kind,
                    name,
                    "spec.replicas",
                    "Invalid value: must be a number from 0 to 1000",
                )),
            }
        }
        "services" => {
            let kind = object::text(object, "/spec/type");
            if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
                let why = "Unsupported value: supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"";
                return Err(ApiError::invalid(&resource.kind, name, "spec.type", why));
            }
            let headless = object::text(object, "/spec/clusterIP") == "None";
            if object::array(object, "/spec/ports").is_empty() && kind != "ExternalName" && !headless {
                return required("spec.ports", "a service needs at least one port");
            }
            let port = |port: &Value| port["port"].as_u64().is_some_and(|it| (1..=65535).contains(&it));
            if !object::array(object, "/spec/ports").iter().all(port) {
                return Err(ApiError::invalid(
                    &resource.kind,
                    name,
                    "spec.ports.port",
                    "Invalid value: must be between 1 and 65535, inclusive",
                ));
            }
            Ok(())
        }
        "customresourcedefinitions.apiextensions.k8s.io" => {
            let (plural, group) = (object::text(object, "/spec/names/plural"), object::text(object, "/spec/group"));
            if object::text(object, "/spec/names/kind").is_empty() {
                return required("spec.names.kind", "a definition needs a kind");
            }
            if name != format!("{plural}.{group}") || group.is_empty() {
                let why = "Invalid value: must be spec.names.plural+\".\"+spec.group";
                return Err(ApiError::invalid(&resource.kind, name, "metadata.name", why));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn containers(resource: &Resource, name: &str, pod: &Value, at: &str) -> ApiResult<()> {
    let list = object::array(pod, "/spec/containers");
    if list.is_empty() {
        return Err(ApiError::invalid(
            &resource.kind,
            name,
            &format!("{at}.containers"),
            "Required value: a pod needs a container",
        ));
    }
    let mut names = vec![];
    for container in list.iter().chain(object::array(pod, "/spec/initContainers")) {
        let found = object::text(container, "/name");
        let why = if found.is_empty() {
            "Required value: a container needs a name".to_owned()
        } else if names.contains(&found) {
            format!("Duplicate value: \"{found}\"")
        } else if object::text(container, "/image").is_empty() {
            format!("Required value: container \"{found}\" needs an image")
        } else {
            names.push(found);
            continue;
        };
        return Err(ApiError::invalid(&resource.kind, name, &format!("{at}.containers"), &why));
    }
    Ok(())
}

/// What cannot be changed once it is there.
fn check_kept(resource: &Resource, old: &Value, new: &Value) -> ApiResult<()> {
    let immutable = |field: &str| {
        Err(ApiError::invalid(&resource.kind, object::name(old), field, "Invalid value: field is immutable"))
    };
    match resource.key().as_str() {
        "deployments.apps" | "replicasets.apps" if old["spec"]["selector"] != new["spec"]["selector"] => {
            immutable("spec.selector")
        }
        "pods" if containers_of(old) != containers_of(new) => Err(ApiError::invalid(
            &resource.kind,
            object::name(old),
            "spec",
            "Forbidden: the containers of a pod cannot be changed; delete it and create it anew",
        )),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io"
            if old["roleRef"] != new["roleRef"] =>
        {
            immutable("roleRef")
        }
        _ => Ok(()),
    }
}

fn containers_of(pod: &Value) -> Value {
    json!([pod["spec"]["containers"], pod["spec"]["initContainers"], pod["spec"]["volumes"]])
}
