//! Kinds that only the server knows.

use api::suggest::closest;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::resources::{self, Resource};

/// The kinds of a server, asked for at most once and only if needed.
#[derive(Debug, Default)]
pub struct Kinds {
    served: OnceCell<Vec<Resource>>,
}

impl Kinds {
    /// The kind of an object, if the server has it.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn of_object(&self, cluster: &Cluster, api_version: &str, kind: &str) -> Result<Option<Resource>, Error> {
        if let Some(known) = resources::by_kind(api_version, kind) {
            return Ok(Some(known));
        }
        let served = self.served(cluster).await?;
        Ok(served.iter().find(|r| r.api_version() == api_version && r.kind == kind).cloned())
    }

    /// The kind that a word means.
    ///
    /// # Errors
    /// When there is none of that name, with the one that was probably meant; or when the server cannot be asked.
    pub async fn of_word(&self, cluster: &Cluster, word: &str) -> Result<Resource, Error> {
        if let Some(known) = resources::by_word(word) {
            return Ok(known);
        }
        let served = self.served(cluster).await?;
        if let Some(found) = served.iter().find(|resource| resource.is_called(word)) {
            return Ok(found.clone());
        }
        let known = resources::words();
        let candidates = known.iter().map(String::as_str).chain(served.iter().map(|r| r.plural.as_str()));
        let error = Error::failed(format!("there is no kind `{word}` in {}", cluster.description));
        Err(match closest(word, candidates) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("kinds of the mesh are route-rules and destination-policies; Kubernetes' own work too, as pods, services, deployments"),
        })
    }

    async fn served(&self, cluster: &Cluster) -> Result<&Vec<Resource>, Error> {
        self.served.get_or_try_init(|| discover(cluster)).await
    }
}

async fn discover(cluster: &Cluster) -> Result<Vec<Resource>, Error> {
    let mut versions = vec![(String::new(), "v1".to_owned())];
    if let Some(groups) = cluster.get_path("/apis").await? {
        for group in groups.get("groups").and_then(Value::as_array).into_iter().flatten() {
            let text = |path: &[&str]| resources::text(group, path).unwrap_or_default().to_owned();
            versions.push((text(&["name"]), text(&["preferredVersion", "version"])));
        }
    }
    let lists = futures_util::future::join_all(versions.iter().map(|(group, version)| async move {
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        // A group whose server is away does not hide the others.
        cluster.get_path(&path).await.ok().flatten()
    }))
    .await;
    let mut served = Vec::new();
    for ((group, version), list) in versions.iter().zip(lists) {
        for entry in list.iter().flat_map(|list| list.get("resources").and_then(Value::as_array)).flatten() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            if text("name").contains('/') {
                continue;
            }
            let short = entry.get("shortNames").and_then(Value::as_array).into_iter().flatten();
            served.push(Resource {
                group: group.clone(),
                version: version.clone(),
                kind: text("kind"),
                plural: text("name"),
                short: short.filter_map(Value::as_str).map(str::to_owned).collect(),
                is_namespaced: entry.get("namespaced").and_then(Value::as_bool).unwrap_or(true),
            });
        }
    }
    Ok(served)
}
