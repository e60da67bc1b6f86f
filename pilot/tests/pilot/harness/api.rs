//! A Kubernetes API in memory: list, watch, discovery, token reviews and status patches, as far as Pilot asks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The API. Clones share it.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<World>>,
    version: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct World {
    version: u64,
    /// By path of the collection over all namespaces, then `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Version, collection, event.
    log: Vec<(u64, String, Value)>,
    /// Watches from before this version are told 410.
    oldest: u64,
    /// Every request is answered 503.
    away: bool,
    /// Whether the classic group is served.
    classic: bool,
}

impl Api {
    pub(crate) fn new() -> Self {
        Api { state: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }

    /// A client of it, without a network between.
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(Router::new().fallback(answer).with_state(self.clone()), "default")
    }

    /// Creates or replaces an object, and gives its resource version.
    pub(crate) fn put(&self, mut object: Value) -> String {
        let collection = collection(&object);
        let mut world = self.state.lock().expect("not poisoned");
        world.version += 1;
        let version = world.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let before = world.objects.entry(collection.clone()).or_default().insert(key(&object), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        world.log.push((version, collection, json!({"type": kind, "object": object})));
        drop(world);
        self.version.send_replace(version);
        version.to_string()
    }

    pub(crate) fn put_yaml(&self, yaml: &str) -> String {
        let (objects, problems) = api::yaml::parse("test.yaml", yaml);
        assert!(problems.is_empty(), "{problems:?}");
        let versions: Vec<String> = objects.iter().map(|object| self.put(object.to_json())).collect();
        versions.into_iter().next_back().expect("an object")
    }

    pub(crate) fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        let object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": name}});
        let collection = collection(&object);
        let mut world = self.state.lock().expect("not poisoned");
        let removed = world.objects.get_mut(&collection).and_then(|objects| objects.remove(&key(&object)));
        world.version += 1;
        let version = world.version;
        let mut removed = removed.expect("it was there");
        removed["metadata"]["resourceVersion"] = json!(version.to_string());
        world.log.push((version, collection, json!({"type": "DELETED", "object": removed})));
        drop(world);
        self.version.send_replace(version);
    }

    pub(crate) fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": name}});
        self.state.lock().expect("not poisoned").objects.get(&collection(&object))?.get(&key(&object)).cloned()
    }

    /// Forgets the past: running watches end, and those that continue are told 410.
    pub(crate) fn compact(&self) {
        let mut world = self.state.lock().expect("not poisoned");
        world.version += 1;
        world.oldest = world.version;
        world.log.clear();
        let version = world.version;
        drop(world);
        self.version.send_replace(version);
    }

    /// Goes away, or comes back. Running watches end.
    pub(crate) fn be_away(&self, away: bool) {
        let mut world = self.state.lock().expect("not poisoned");
        world.away = away;
        world.version += 1;
        let version = world.version;
        drop(world);
        self.version.send_replace(version);
    }

    pub(crate) fn serve_classic(&self) {
        self.state.lock().expect("not poisoned").classic = true;
    }
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let path = parts.uri.path().to_owned();
    if api.state.lock().expect("not poisoned").away {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "away");
    }
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a small body");
    match (&parts.method, path.as_str()) {
        (&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews") => review(&body),
        (&Method::PATCH, path) if path.ends_with("/status") => api.patch_status(path, &body),
        (&Method::GET, "/apis/config.istio.io/v1alpha2") => api.discover(),
        (&Method::GET, path) if query.get("watch").is_some_and(|watch| watch == "true") => {
            api.watch(path, query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0))
        }
        (&Method::GET, path) => api.list(path),
        _ => failure(StatusCode::METHOD_NOT_ALLOWED, "not in this API"),
    }
}

impl Api {
    fn discover(&self) -> Response {
        if !self.state.lock().expect("not poisoned").classic {
            return failure(StatusCode::NOT_FOUND, "no such group");
        }
        let resource = |name: &str, kind: &str| json!({"name": name, "kind": kind, "singularName": "", "namespaced": true, "verbs": ["list", "watch"]});
        let resources = [resource("routerules", "RouteRule"), resource("destinationpolicies", "DestinationPolicy")];
        ok(
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "config.istio.io/v1alpha2", "resources": resources}),
        )
    }

    fn list(&self, path: &str) -> Response {
        let world = self.state.lock().expect("not poisoned");
        // As the real one, without kind and version in every object.
        let items: Vec<Value> = world
            .objects
            .get(path)
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|object| {
                let mut object = object.clone();
                let fields = object.as_object_mut().expect("an object");
                fields.remove("apiVersion");
                fields.remove("kind");
                object
            })
            .collect();
        ok(
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": world.version.to_string()}, "items": items}),
        )
    }

    fn watch(&self, path: &str, from: u64) -> Response {
        let (api, path) = (self.clone(), path.to_owned());
        let changes = self.version.subscribe();
        let events = futures_util::stream::unfold(Some((changes, from)), move |at| {
            let (api, path) = (api.clone(), path.clone());
            async move {
                let (mut changes, from) = at?;
                loop {
                    changes.mark_unchanged();
                    let (lines, now, ends) = api.events(&path, from);
                    if !lines.is_empty() {
                        return Some((lines, (!ends).then_some((changes, now))));
                    }
                    if ends || changes.changed().await.is_err() {
                        return None;
                    }
                }
            }
        });
        Body::from_stream(events.map(|lines| Ok::<_, Infallible>(Bytes::from(lines)))).into_response()
    }

    /// Events of a collection after a version, and whether the watch ends with them.
    fn events(&self, path: &str, from: u64) -> (String, u64, bool) {
        let world = self.state.lock().expect("not poisoned");
        if world.away {
            return (String::new(), from, true);
        }
        if from < world.oldest {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410});
            return (format!("{}\n", json!({"type": "ERROR", "object": status})), from, true);
        }
        let of_path = world.log.iter().filter(|(version, of, _)| *version > from && of == path);
        (of_path.map(|(_, _, event)| format!("{event}\n")).collect(), world.version, false)
    }

    /// Sets the status as a merge patch or an apply patch says.
    fn patch_status(&self, path: &str, body: &[u8]) -> Response {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let ["apis", group, version, "namespaces", namespace, plural, name, "status"] = parts[..] else {
            return failure(StatusCode::NOT_FOUND, "not a status");
        };
        let patch: Value = serde_json::from_slice(body).expect("JSON");
        let collection = format!("/apis/{group}/{version}/{plural}");
        let object =
            self.state.lock().expect("not poisoned").objects[&collection].get(&format!("{namespace}/{name}")).cloned();
        let Some(mut object) = object else { return failure(StatusCode::NOT_FOUND, "no such object") };
        object["status"] = patch["status"].clone();
        self.put(object.clone());
        ok(&object)
    }
}

/// Tokens say whose they are: `namespace/account/pod`.
fn review(body: &[u8]) -> Response {
    let review: Value = serde_json::from_slice(body).expect("JSON");
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let status = match token.split('/').collect::<Vec<_>>()[..] {
        [namespace, account, pod] => json!({
            "authenticated": true,
            "audiences": review["spec"]["audiences"],
            "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "extra": {"authentication.kubernetes.io/pod-name": [pod]},
            },
        }),
        _ => json!({"authenticated": false, "error": "invalid bearer token"}),
    };
    ok(
        &json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": review["spec"], "status": status}),
    )
}

fn ok(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn failure(code: StatusCode, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": message, "code": code.as_u16()});
    (code, [("content-type", "application/json")], status.to_string()).into_response()
}

fn collection(object: &Value) -> String {
    let (version, kind) = (object["apiVersion"].as_str().expect("apiVersion"), object["kind"].as_str().expect("kind"));
    let resource = api::registry::Resource::of(version, kind).unwrap_or_else(|| panic!("{version} {kind}"));
    let prefix = if version.contains('/') { "apis" } else { "api" };
    format!("/{prefix}/{version}/{}", resource.plural())
}

fn key(object: &Value) -> String {
    format!(
        "{}/{}",
        object["metadata"]["namespace"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().expect("name")
    )
}
