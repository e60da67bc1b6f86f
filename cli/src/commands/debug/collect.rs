//! What is collected, and from whom.

use api::messages::Proxies;
use api::names::{PROXY_CONTAINER, SYSTEM_NAMESPACE};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::scrub;
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::commands::local::streams::{containers, log_path, read_log};
use crate::error::Error;
use crate::mesh::{self, items, known};
use crate::output::Ui;
use crate::resources::{name_of, namespace_of, text};

/// Proxies that are asked at a time.
const AT_A_TIME: usize = 8;

/// Files, and what could not be had.
pub(super) struct Bundle {
    ui: Ui,
    tail: u64,
    /// What the manifest says of the whole.
    pub(super) about: Value,
    files: Vec<(String, Vec<u8>)>,
    /// What could not be collected, and why.
    pub(super) missing: Vec<(String, String)>,
}

impl Bundle {
    pub(super) fn new(app: &App, tail: u64) -> Self {
        Bundle { ui: app.ui, tail, about: Value::Null, files: Vec::new(), missing: Vec::new() }
    }

    /// An empty one, to be filled beside this one and added.
    fn part(&self) -> Self {
        Bundle { about: Value::Null, files: Vec::new(), missing: Vec::new(), ..*self }
    }

    fn add(&mut self, part: Bundle) {
        self.files.extend(part.files);
        self.missing.extend(part.missing);
    }

    fn json(&mut self, path: &str, value: Result<Value, Error>) {
        match value {
            Ok(mut value) => {
                scrub::json(&mut value);
                self.files.push((path.to_owned(), format!("{value:#}\n").into_bytes()));
            }
            Err(error) => self.miss(path, &error),
        }
    }

    fn text(&mut self, path: &str, text: Result<String, Error>) {
        match text {
            Ok(text) => self.files.push((path.to_owned(), scrub::text(&text).into_bytes())),
            Err(error) => self.miss(path, &error),
        }
    }

    fn miss(&mut self, path: &str, error: &Error) {
        self.missing.push((path.to_owned(), error.message().to_owned()));
    }

    /// All files, with the manifest first.
    pub(super) fn finish(&mut self) -> Vec<(String, Vec<u8>)> {
        self.ui.progress("");
        let mut files = std::mem::take(&mut self.files);
        files.sort();
        let listed: Vec<Value> =
            files.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes.len() })).collect();
        let missing: Vec<Value> =
            self.missing.iter().map(|(name, why)| json!({ "name": name, "reason": why })).collect();
        let mut manifest = self.about.clone();
        manifest["files"] = json!(listed);
        manifest["missing"] = json!(missing);
        files.insert(0, ("manifest.json".to_owned(), format!("{manifest:#}\n").into_bytes()));
        files
    }
}

/// Collects what concerns one pod.
pub(super) async fn pod(bundle: &mut Bundle, cluster: &Cluster, pod: &Value) -> Result<(), Error> {
    one_pod(bundle, cluster, pod, "pod").await;
    let namespace = namespace_of(pod);
    lists(
        bundle,
        cluster,
        Some(namespace),
        &["route-rules", "destination-policies", "services", "endpointslices", "ingresses"],
    )
    .await;
    let id = format!("{}.{namespace}", name_of(pod));
    pilots(bundle, cluster, Some(&id)).await;
    Ok(())
}

/// Collects what concerns the mesh as a whole.
pub(super) async fn mesh(bundle: &mut Bundle, cluster: &Cluster, most: usize) -> Result<(), Error> {
    let pods = cluster.list(&known("pods")?, &Selection::default()).await?;
    let concerned: Vec<&Value> =
        items(&pods).filter(|pod| namespace_of(pod) == SYSTEM_NAMESPACE || mesh::has_proxy(pod)).collect();
    let (all, shown) = (concerned.len(), concerned.len().min(most));
    let part = bundle.part();
    let ui = bundle.ui;
    let mut parts = stream::iter(concerned.into_iter().take(most))
        .map(|pod| {
            let mut part = part.part();
            async move {
                let folder = format!("pods/{}/{}", namespace_of(pod), name_of(pod));
                one_pod(&mut part, cluster, pod, &folder).await;
                part
            }
        })
        .buffer_unordered(AT_A_TIME);
    let mut done = 0;
    while let Some(part) = parts.next().await {
        bundle.add(part);
        done += 1;
        ui.progress(&format!("collecting: {done} of {shown} pods"));
    }
    if shown < all {
        bundle.missing.push(("pods".to_owned(), format!("{} pods more than --proxies {most}", all - shown)));
    }
    let kinds = [
        "route-rules",
        "destination-policies",
        "services",
        "endpointslices",
        "ingresses",
        "pods",
        "deployments",
        "events",
        "namespaces",
        "nodes",
        "customresourcedefinitions",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ];
    lists(bundle, cluster, None, &kinds).await;
    bundle.json("versions/kubernetes.json", cluster.ping().await);
    pilots(bundle, cluster, None).await;
    Ok(())
}

/// Objects of these kinds, of one namespace or of all.
async fn lists(bundle: &mut Bundle, cluster: &Cluster, namespace: Option<&str>, kinds: &[&str]) {
    for kind in kinds {
        bundle.ui.progress(&format!("collecting: {kind}"));
        let list = match known(kind) {
            Ok(resource) => {
                let namespace = namespace.filter(|_| resource.is_namespaced);
                cluster.list(&resource, &Selection { namespace, ..Selection::default() }).await
            }
            Err(error) => Err(error),
        };
        bundle.json(&format!("objects/{kind}.json"), list);
    }
}

/// What Pilots know: of one proxy, or of all.
async fn pilots(bundle: &mut Bundle, cluster: &Cluster, proxy: Option<&str>) {
    bundle.ui.progress("collecting: Pilot");
    let pilots = match mesh::pilots(cluster).await {
        Ok(pilots) => pilots,
        Err(error) => return bundle.miss("pilot", &error),
    };
    let mut versions = json!({ "meshctl": crate::VERSION, "pilots": [], "proxies": {} });
    for mut pilot in pilots {
        let folder = format!("pilot/{}", pilot.pod);
        let proxies: Result<Proxies, Error> = pilot.connection.get("/v1/proxies").await;
        if let Ok(proxies) = &proxies {
            if let Some(list) = versions["pilots"].as_array_mut() {
                list.push(json!({ "pod": proxies.pilot, "version": proxies.version }));
            }
            for one in proxies.proxies.iter().filter(|one| proxy.is_none_or(|id| id == one.id)) {
                versions["proxies"][&one.id] = json!(one.version);
            }
        }
        let shown = proxies.map(|mut proxies| {
            proxies.proxies.retain(|one| proxy.is_none_or(|id| id == one.id));
            json!(proxies)
        });
        bundle.json(&format!("{folder}/proxies.json"), shown);
        if let Some(id) = proxy {
            let resources = pilot.connection.get(&format!("/v1/resources?proxy={id}")).await;
            bundle.json(&format!("{folder}/resources.json"), resources);
        } else {
            bundle.text(&format!("{folder}/metrics.txt"), pilot.connection.text("/metrics").await);
        }
        bundle.json(&format!("{folder}/snapshot.json"), pilot.connection.get("/v1/snapshot").await);
    }
    bundle.json("versions/mesh.json", Ok(versions));
}

/// A pod with its events and logs, and what its proxy says.
async fn one_pod(bundle: &mut Bundle, cluster: &Cluster, pod: &Value, folder: &str) {
    let (namespace, name) = (namespace_of(pod), name_of(pod));
    bundle.ui.progress(&format!("collecting: {name}"));
    bundle.json(&format!("{folder}/pod.json"), Ok(pod.clone()));
    let field = format!("involvedObject.name={name}");
    let selection = Selection { namespace: Some(namespace), fields: Some(&field), ..Selection::default() };
    let events = match known("events") {
        Ok(events) => cluster.list(&events, &selection).await,
        Err(error) => Err(error),
    };
    bundle.json(&format!("{folder}/events.json"), events);
    for container in containers(pod) {
        let path = |what: &str| format!("{folder}/logs/{container}{what}.log");
        let tail = format!("&tailLines={}", bundle.tail);
        bundle.text(&path(""), read_log(cluster, &log_path(pod, container, &tail)).await);
        if restarts(pod, container) > 0 {
            let previous = format!("{tail}&previous=true");
            bundle.text(&path(".previous"), read_log(cluster, &log_path(pod, container, &previous)).await);
        }
    }
    if !mesh::has_proxy(pod) || text(pod, &["status", "phase"]) != Some("Running") {
        return;
    }
    match mesh::proxy_admin(cluster, pod).await {
        Ok(mut admin) => {
            for (file, path) in [
                ("config_dump.json", "/config_dump"),
                ("clusters.json", "/clusters"),
                ("listeners.json", "/listeners"),
                ("server_info.json", "/server_info"),
            ] {
                bundle.json(&format!("{folder}/proxy/{file}"), admin.get(path).await);
            }
            bundle.text(&format!("{folder}/proxy/stats.txt"), admin.text("/stats").await);
        }
        Err(error) => bundle.miss(&format!("{folder}/proxy ({PROXY_CONTAINER})"), &error),
    }
}

fn restarts(pod: &Value, container: &str) -> u64 {
    let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let mut all = statuses.iter().filter_map(|path| pod.pointer(path)?.as_array()).flatten();
    let status = all.find(|status| text(status, &["name"]) == Some(container));
    status.and_then(|status| status.get("restartCount")?.as_u64()).unwrap_or(0)
}
