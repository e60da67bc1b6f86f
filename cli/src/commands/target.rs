//! Which objects a command is about: those named on the command line, all of a kind, or those of files.

use clap::Args;

use super::write::{Verb, label, plan};
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::discovery::Kinds;
use crate::error::Error;
use crate::flags::FileArgs;
use crate::mesh::items;
use crate::objects;
use crate::resources::{Resource, name_of, namespace_of};

/// How objects are chosen.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Kind, and names; or KIND/NAME
    #[arg(value_name = "KIND NAME", num_args = 0.., conflicts_with = "files")]
    pub what: Vec<String>,
    /// Files that hold the objects.
    #[command(flatten)]
    pub files: FileArgs,
    /// All of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "all")]
    pub selector: Option<String>,
}

/// An object by its place.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its kind.
    pub resource: Resource,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// `route-rule default/reviews`.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.resource, &self.namespace, &self.name)
    }

    /// `route-rule/reviews`.
    #[must_use]
    pub fn word(&self) -> String {
        format!("{}/{}", self.resource.qualified_word(), self.name)
    }

    /// The error for an object that is not there, with the one that was probably meant.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn not_there(&self, cluster: &Cluster) -> Result<Error, Error> {
        let error = Error::failed(format!("{} is not there", self.label()));
        Ok(match self.neighbour(cluster).await? {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("see `meshctl get {}`", self.resource.plural)),
        })
    }

    /// The name of an object of the same kind and nearly the same name.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn neighbour(&self, cluster: &Cluster) -> Result<Option<String>, Error> {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let list = cluster.list(&self.resource, &Selection { namespace, ..Selection::default() }).await?;
        Ok(api::suggest::closest(&self.name, items(&list).map(name_of)).map(str::to_owned))
    }
}

impl TargetArgs {
    /// Whether nothing at all is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.what.is_empty() && self.files.files.is_empty()
    }

    /// The objects that are chosen, whether or not those that are named are there.
    ///
    /// # Errors
    /// When the choice makes no sense, a file cannot be read, or the server cannot be asked.
    pub async fn find(&self, app: &App, cluster: &Cluster) -> Result<Vec<Target>, Error> {
        if !self.files.files.is_empty() {
            let objects = objects::parse_loosely(&objects::sources(&self.files)?)?;
            let planned = plan(app, cluster, Verb::Apply, objects).await?;
            let target = |planned: super::write::Planned| Target {
                name: name_of(&planned.object.value).to_owned(),
                resource: planned.resource,
                namespace: planned.namespace,
            };
            return Ok(planned.into_iter().map(target).collect());
        }
        let kinds = Kinds::default();
        let mut wanted: Vec<(Resource, String)> = Vec::new();
        if self.what.iter().all(|word| word.contains('/')) {
            for word in &self.what {
                let (kind, name) = word.split_once('/').unwrap_or((word, ""));
                wanted.push((kinds.of_word(cluster, kind).await?, name.to_owned()));
            }
        } else {
            let resource = kinds.of_word(cluster, &self.what[0]).await?;
            let names = &self.what[1..];
            if names.is_empty() {
                return self.selected(app, cluster, &resource).await;
            }
            if self.all || self.selector.is_some() {
                return Err(Error::usage("names cannot be given together with --all or --selector"));
            }
            wanted.extend(names.iter().map(|name| (resource.clone(), name.clone())));
        }
        let target = |(resource, name): (Resource, String)| {
            let namespace = if resource.is_namespaced { app.namespace(cluster).to_owned() } else { String::new() };
            Target { resource, namespace, name }
        };
        Ok(wanted.into_iter().map(target).collect())
    }

    async fn selected(&self, app: &App, cluster: &Cluster, resource: &Resource) -> Result<Vec<Target>, Error> {
        if !self.all && self.selector.is_none() {
            return Err(Error::usage(format!("which {} is missing", resource.plural))
                .hint("give names, or `--all`, or labels with `-l`"));
        }
        let selection = Selection {
            namespace: Some(app.namespace(cluster)),
            labels: self.selector.as_deref(),
            ..Selection::default()
        };
        let list = cluster.list(resource, &selection).await?;
        let target = |object: &serde_json::Value| {
            let (namespace, name) = (namespace_of(object).to_owned(), name_of(object).to_owned());
            Target { resource: resource.clone(), namespace, name }
        };
        Ok(items(&list).map(target).collect())
    }
}
