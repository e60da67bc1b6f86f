//! What a pod's status says in numbers, as kubectl counts them.

use serde_json::Value;

use crate::resources::text;

/// `Running`, `Pending`, ….
#[must_use]
pub fn phase(pod: &Value) -> &str {
    text(pod, &["status", "phase"]).unwrap_or("Pending")
}

/// Ready containers and all containers, sidecars included.
#[must_use]
pub fn containers(pod: &Value) -> (usize, usize) {
    let list = |path: &str| pod.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let sidecars: Vec<&str> = list("/spec/initContainers")
        .filter(|container| text(container, &["restartPolicy"]) == Some("Always"))
        .filter_map(|container| text(container, &["name"]))
        .collect();
    let is_ready = |status: &&Value| status.get("ready").and_then(Value::as_bool) == Some(true);
    let is_sidecar = |status: &&Value| text(status, &["name"]).is_some_and(|name| sidecars.contains(&name));
    let ready = list("/status/containerStatuses").filter(is_ready).count()
        + list("/status/initContainerStatuses").filter(is_sidecar).filter(is_ready).count();
    (ready, list("/spec/containers").count() + sidecars.len())
}

/// How often its containers were started again.
#[must_use]
pub fn restarts(pod: &Value) -> u64 {
    ["/status/containerStatuses", "/status/initContainerStatuses"]
        .iter()
        .filter_map(|path| pod.pointer(path)?.as_array())
        .flatten()
        .filter_map(|status| status.get("restartCount")?.as_u64())
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sidecars_count_and_init_containers_do_not() {
        let pod = json!({
            "spec": { "initContainers": [ { "name": "mesh-init" }, { "name": "mesh-proxy", "restartPolicy": "Always" } ],
                      "containers": [ { "name": "app" } ] },
            "status": { "initContainerStatuses": [ { "name": "mesh-init", "ready": true, "restartCount": 0 },
                                                   { "name": "mesh-proxy", "ready": true, "restartCount": 2 } ],
                        "containerStatuses": [ { "name": "app", "ready": false, "restartCount": 1 } ] },
        });
        assert_eq!((containers(&pod), restarts(&pod), phase(&pod)), ((1, 2), 3, "Pending"));
    }
}
