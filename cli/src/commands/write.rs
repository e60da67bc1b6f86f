//! `create -f`, `replace -f`, `apply -f`: everything is checked before anything is changed.

use std::time::Duration;

use api::problem::Problem;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::app::App;
use crate::cluster::Cluster;
use crate::discovery;
use crate::error::{Error, count};
use crate::flags::{FileArgs, Trial, WaitArgs, duration};
use crate::mesh;
use crate::objects::{self, Object};
use crate::output::Format;
use crate::resources::{Resource, name_of, namespace_of, version_of};
use crate::wait::{self, Change};

const REPLACE_EXAMPLES: &str = "\
Examples:
  # Change rules that are there
  meshctl replace -f route-rules.yaml
  # Take a rule, change it, give it back
  meshctl get route-rule reviews -o yaml | sed s/v1/v2/ | meshctl replace -f -
  # Wait until every proxy has applied the change
  meshctl replace -f route-rules.yaml --wait";

const APPLY_EXAMPLES: &str = "\
Examples:
  # Bring the mesh to what the files say
  meshctl apply -f config/
  # See what the server would say to it
  meshctl apply -f config/ --dry-run=server
  # Wait until every proxy has applied the change
  meshctl apply -f route-rules.yaml --wait=60s";

/// Arguments of `replace`.
#[derive(Debug, Args)]
#[command(after_help = REPLACE_EXAMPLES)]
pub struct ReplaceArgs {
    #[command(flatten)]
    write: WriteArgs,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
#[command(after_help = APPLY_EXAMPLES)]
pub struct ApplyArgs {
    #[command(flatten)]
    write: WriteArgs,
}

/// What `create`, `replace` and `apply` have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct WriteArgs {
    /// Files to read.
    #[command(flatten)]
    pub files: FileArgs,
    /// How the change is made.
    #[command(flatten)]
    pub options: WriteOptions,
    /// How long `--wait` waits
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// How a change is made and shown.
#[derive(Debug, Clone, Default, Args)]
pub struct WriteOptions {
    /// Change nothing: only check here, or let the server check, or say whom an authentication policy would cut off
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true, value_name = "client|server|traffic")]
    pub dry_run: Option<Trial>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Format of the answer: table|yaml|json|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    pub output: Format,
}

/// What happens to an object that is there, or not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
    /// Either.
    Apply,
}

/// An object with everything that is needed to write it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its kind.
    pub resource: Resource,
    /// Where it goes; empty for kinds without namespaces.
    pub namespace: String,
    /// What it is to be.
    pub object: Object,
    /// What is there now.
    pub current: Option<Value>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was not there before.
    Created,
    /// It is different now.
    Updated,
    /// It was like this already.
    Unchanged,
}

/// Runs `replace`.
///
/// # Errors
/// When anything is invalid, missing, or refused.
pub fn replace(app: &App, args: &ReplaceArgs) -> Result<(), Error> {
    files(app, Verb::Replace, &args.write)
}

/// Runs `apply`.
///
/// # Errors
/// When anything is invalid or refused.
pub fn apply(app: &App, args: &ApplyArgs) -> Result<(), Error> {
    files(app, Verb::Apply, &args.write)
}

/// Writes the objects of files.
///
/// # Errors
/// When anything is invalid, conflicts with what is there, or is refused.
pub fn files(app: &App, verb: Verb, args: &WriteArgs) -> Result<(), Error> {
    let mut options = args.options.clone();
    if let Some(timeout) = args.timeout {
        if options.wait.wait.is_none() {
            return Err(Error::usage("--timeout says how long --wait waits").hint("add --wait"));
        }
        options.wait.wait = Some(timeout);
    }
    let (objects, warnings) = objects::load(&args.files, "nothing was changed")?;
    for warning in &warnings {
        app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
    }
    write(app, verb, objects, &options)
}

/// Writes objects that have been checked.
///
/// # Errors
/// When anything conflicts with what is there, or is refused.
pub fn write(app: &App, verb: Verb, objects: Vec<Object>, options: &WriteOptions) -> Result<(), Error> {
    match options.dry_run {
        Some(Trial::Client) => return show_unsent(app, &objects, options),
        Some(Trial::Traffic) => return super::traffic::run(app, &objects, &options.output),
        Some(Trial::Server) | None => {}
    }
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let is_dry = options.dry_run == Some(Trial::Server);
        let Some(limit) = options.wait.wait.filter(|_| !is_dry) else {
            return send_all(app, &cluster, verb, objects, options).await.map(drop);
        };
        // While the change is made, the connections are made that it is waited for on.
        let pilots = async { Ok(mesh::pilots(&cluster).await) };
        let (changes, pilots) = tokio::try_join!(send_all(app, &cluster, verb, objects, options), pilots)?;
        wait::until_applied(app, std::future::ready(pilots), &changes, limit).await.map(drop)
    })
}

/// Writes objects, shows what became of them, and says which of them proxies are to follow.
async fn send_all(
    app: &App,
    cluster: &Cluster,
    verb: Verb,
    objects: Vec<Object>,
    options: &WriteOptions,
) -> Result<Vec<Change>, Error> {
    let planned = plan(app, cluster, verb, objects).await?;
    let mut answers = Vec::new();
    let mut changes = Vec::new();
    let dry_run = options.dry_run == Some(Trial::Server);
    for (i, planned) in planned.iter().enumerate() {
        let (answer, done) = send(cluster, verb, planned, dry_run).await.map_err(|error| partly(error, planned, i))?;
        if options.output == Format::Table {
            app.ui.line(&done_line(&planned.resource, &answer, done, dry_run))?;
        }
        if planned.resource.is_mesh() && done != Done::Unchanged {
            changes.push(Change::made(&planned.resource, &answer));
        }
        answers.push(answer);
    }
    show(app, &answers, &options.output)?;
    Ok(changes)
}

/// Finds out where every object goes and whether it may; reports all conflicts at once.
///
/// # Errors
/// When an object's kind is not served, its namespace is not the one asked for, or it conflicts with what is there.
pub async fn plan(app: &App, cluster: &Cluster, verb: Verb, objects: Vec<Object>) -> Result<Vec<Planned>, Error> {
    let files = objects
        .iter()
        .filter_map(|o| o.location.as_ref().map(|l| l.file.clone()))
        .collect::<std::collections::BTreeSet<_>>();
    let kinds = discovery::Kinds::default();
    let mut planned = Vec::new();
    let mut problems = Vec::new();
    for object in objects {
        match place(app, cluster, &kinds, object).await? {
            Ok(place) => planned.push(place),
            Err(problem) => problems.push(problem),
        }
    }
    let current =
        try_join_all(planned.iter().map(|p| cluster.get(&p.resource, &p.namespace, name_of(&p.object.value)))).await?;
    for (planned, current) in planned.iter_mut().zip(current) {
        planned.current = current;
        problems.extend(conflict(verb, planned));
    }
    if problems.is_empty() {
        return Ok(planned);
    }
    Err(objects::invalid(problems, files.len().max(1), "nothing was changed"))
}

async fn place(
    app: &App,
    cluster: &Cluster,
    kinds: &discovery::Kinds,
    object: Object,
) -> Result<Result<Planned, Problem>, Error> {
    let text = |field: &str| object.value.get(field).and_then(Value::as_str).unwrap_or_default();
    let Some(resource) = kinds.of_object(cluster, text("apiVersion"), text("kind")).await? else {
        let (kind, group) = (text("kind"), text("apiVersion"));
        let problem = object
            .problem(format!("{} does not serve kind {kind} of {group}", cluster.description))
            .with_hint("mend `kind` or `apiVersion`, or first apply the CustomResourceDefinition that defines it");
        return Ok(Err(problem));
    };
    let own = namespace_of(&object.value).to_owned();
    let asked = app.global.namespace.as_deref();
    if !resource.is_namespaced {
        return Ok(Ok(Planned { resource, namespace: String::new(), object, current: None }));
    }
    if let Some(asked) = asked
        && !own.is_empty()
        && own != asked
    {
        let word = resource.word();
        let problem = object
            .problem(format!("{word} {own}/{} is not of namespace {asked}, which -n asks for", name_of(&object.value)))
            .with_hint(format!("leave -n out, or give `-n {own}`"));
        return Ok(Err(problem));
    }
    let namespace = if own.is_empty() { app.namespace(cluster).to_owned() } else { own };
    let mut object = object;
    if let Some(metadata) = object.value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    Ok(Ok(Planned { resource, namespace, object, current: None }))
}

fn conflict(verb: Verb, planned: &Planned) -> Option<Problem> {
    let what = label(&planned.resource, &planned.namespace, name_of(&planned.object.value));
    match (verb, &planned.current) {
        (Verb::Create, Some(_)) => Some(
            planned
                .object
                .problem(format!("{what} is there already"))
                .with_hint("use `meshctl apply` or `meshctl replace`"),
        ),
        (Verb::Replace, None) => Some(
            planned.object.problem(format!("{what} is not there")).with_hint("use `meshctl apply` or `meshctl create`"),
        ),
        _ => None,
    }
}

/// `route-rule default/reviews`.
#[must_use]
pub fn label(resource: &Resource, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("{} {name}", resource.word())
    } else {
        format!("{} {namespace}/{name}", resource.word())
    }
}

/// Sends one object.
///
/// # Errors
/// When it is refused.
pub async fn send(cluster: &Cluster, verb: Verb, planned: &Planned, dry_run: bool) -> Result<(Value, Done), Error> {
    let Planned { resource, namespace, object, current } = planned;
    let answer = match verb {
        Verb::Create => cluster.create(resource, namespace, &object.value, dry_run).await?,
        Verb::Apply => cluster.apply(resource, namespace, &object.value, dry_run).await?,
        Verb::Replace => {
            let mut value = object.value.clone();
            if version_of(&value).is_empty()
                && let (Some(current), Some(metadata)) =
                    (current, value.get_mut("metadata").and_then(Value::as_object_mut))
            {
                metadata.insert("resourceVersion".to_owned(), json!(version_of(current)));
            }
            cluster.replace(resource, namespace, &value, dry_run).await?
        }
    };
    let done = match current {
        None => Done::Created,
        Some(current) if written(current) == written(&answer) => Done::Unchanged,
        Some(_) => Done::Updated,
    };
    Ok((answer, done))
}

/// The part of an object that users write; controllers change the rest meanwhile.
#[must_use]
pub fn written(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["resourceVersion", "managedFields", "generation"] {
            metadata.remove(field);
        }
    }
    object
}

fn partly(error: Error, planned: &Planned, done: usize) -> Error {
    let what = label(&planned.resource, &planned.namespace, name_of(&planned.object.value));
    let at = planned.object.location.as_ref().map(|l| format!(" ({l})")).unwrap_or_default();
    let error = error.because(format!("at {what}{at}"));
    match done {
        0 => error.because("nothing was changed"),
        _ => error.because(format!("{} before it: written", count(done, "object"))),
    }
}

/// The line that says what was done: the classic one for the mesh's kinds, kubectl's for others.
#[must_use]
pub fn done_line(resource: &Resource, answer: &Value, done: Done, dry_run: bool) -> String {
    let suffix = if dry_run { " (server dry run)" } else { "" };
    let name = name_of(answer);
    if resource.is_mesh() {
        let key = format!("{}/{}/{name}", resource.word(), namespace_of(answer));
        let (verb, preposition) = match done {
            Done::Created => ("Created", "at"),
            Done::Updated => ("Updated", "to"),
            Done::Unchanged => ("Unchanged", "at"),
        };
        return format!("{verb} config {key} {preposition} revision {}{suffix}", version_of(answer));
    }
    let verb = match done {
        Done::Created => "created",
        Done::Updated => "configured",
        Done::Unchanged => "unchanged",
    };
    format!("{}/{name} {verb}{suffix}", resource.qualified_word())
}

/// Shows objects in a format that is no table.
///
/// # Errors
/// When standard output cannot be written.
pub fn show(app: &App, answers: &[Value], format: &Format) -> Result<(), Error> {
    let one = || match answers {
        [one] => one.clone(),
        many => json!({ "apiVersion": "v1", "kind": "List", "items": many }),
    };
    match format {
        Format::Table | Format::Wide => Ok(()),
        Format::Json => app.ui.json(&one()),
        Format::Yaml => app.ui.yaml(&one()),
        Format::JsonPath(template) => app.ui.print(&template.render(&one())),
        Format::Name => answers.iter().try_for_each(|answer| app.ui.line(&name_line(answer))),
    }
}

/// `route-rule/reviews`.
#[must_use]
pub fn name_line(object: &Value) -> String {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    match crate::resources::by_kind(text("apiVersion"), text("kind")) {
        Some(resource) => format!("{}/{}", resource.qualified_word(), name_of(object)),
        None => format!("{}/{}", text("kind").to_lowercase(), name_of(object)),
    }
}

fn show_unsent(app: &App, objects: &[Object], options: &WriteOptions) -> Result<(), Error> {
    if options.output == Format::Table {
        return objects.iter().try_for_each(|object| {
            app.ui.line(&format!("{} is valid (client dry run, nothing was sent)", name_line(&object.value)))
        });
    }
    let values: Vec<Value> = objects.iter().map(|object| object.value.clone()).collect();
    show(app, &values, &options.output)
}
