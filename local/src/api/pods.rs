//! What every new pod gets: its service account with a token, and its node.

use serde_json::{Value, json};

use super::object::{self, array, child, text};
use super::{ApiResult, Reason, Selection, Store};

/// The only node.
pub const NODE: &str = "local";
/// Where pods find the token of their service account.
pub const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Does what the admission plugin for service accounts does in Kubernetes, and what its scheduler does.
///
/// # Errors
/// `Forbidden` when the pod names a service account that is not there.
pub fn admit(store: &Store, pod: &mut Value) -> ApiResult<()> {
    let namespace = object::namespace(pod).to_owned();
    let spec = child(pod, "spec");
    let old_name = spec.get("serviceAccount").and_then(Value::as_str).map(str::to_owned);
    let account = spec.get("serviceAccountName").and_then(Value::as_str).filter(|it| !it.is_empty()).map(str::to_owned);
    let account = account.or(old_name).unwrap_or_else(|| "default".into());
    spec.insert("serviceAccountName".into(), account.clone().into());
    spec.insert("serviceAccount".into(), account.clone().into());
    spec.entry("nodeName").or_insert_with(|| NODE.into());
    let found = match store.get("serviceaccounts", &namespace, &account) {
        Ok(found) => found,
        // The controller that makes it may be a moment behind the namespace.
        Err(_) if account == "default" && store.get("namespaces", "", &namespace).is_ok() => {
            make_default(store, &namespace)?;
            store.get("serviceaccounts", &namespace, &account)?
        }
        Err(mut error) => {
            error.reason = Reason::Forbidden;
            error.message = format!(
                "pods \"{}\" is forbidden: error looking up service account {namespace}/{account}: {}",
                object::name(pod),
                error.message
            );
            return Err(error);
        }
    };
    let wants_token = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| found["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wants_token {
        mount_token(pod);
    }
    Ok(())
}

/// Makes a namespace's `default` service account if it is not there.
///
/// # Errors
/// When it cannot be written.
pub fn make_default(store: &Store, namespace: &str) -> ApiResult<()> {
    match store.create("serviceaccounts", json!({"metadata": {"name": "default", "namespace": namespace}})) {
        Err(error) if error.reason != Reason::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn mount_token(pod: &mut Value) {
    let mounted =
        |container: &Value| array(container, "/volumeMounts").iter().any(|it| text(it, "/mountPath") == TOKEN_DIR);
    let all = || array(pod, "/spec/containers").iter().chain(array(pod, "/spec/initContainers"));
    if all().all(mounted) {
        return;
    }
    let volume = format!("kube-api-access-{}", object::suffix(5));
    let spec = child(pod, "spec");
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if mounted(container) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_DIR});
            push(container, "volumeMounts", mount);
        }
    }
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]);
    let volume = json!({"name": volume, "projected": {"defaultMode": 0o644, "sources": sources}});
    if let Some(spec) = pod.get_mut("spec") {
        push(spec, "volumes", volume);
    }
}

fn push(object: &mut Value, field: &str, entry: Value) {
    let Some(map) = object.as_object_mut() else { return };
    let list = map.entry(field).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(entry);
    }
}

/// The pods of a namespace that a label selector means.
///
/// # Errors
/// When the selector has an operator that is not known.
pub fn selected(store: &Store, namespace: &str, selector: &Value) -> ApiResult<Vec<std::sync::Arc<Value>>> {
    Ok(store.list("pods", &Selection::namespace(namespace).with_label_selector(selector)?).items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("a store");
        (directory, store)
    }

    #[test]
    fn a_pod_gets_its_account_and_token_unless_it_declines() {
        let (_directory, store) = store();
        let bare = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let mut pod = bare.clone();
        admit(&store, &mut pod).expect("admitted");
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], TOKEN_DIR);
        assert_eq!(pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["path"], "token");
        let once = pod.clone();
        admit(&store, &mut pod).expect("admitted");
        assert_eq!(pod, once, "admission is idempotent");
        let mut pod = bare.clone();
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        admit(&store, &mut pod).expect("admitted");
        assert!(pod["spec"].get("volumes").is_none());
        let mut pod = bare;
        pod["spec"]["serviceAccountName"] = json!("nobody");
        assert_eq!(admit(&store, &mut pod).expect_err("no such account").reason, Reason::Forbidden);
    }
}
