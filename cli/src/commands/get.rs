//! `get`: objects as tables, YAML, JSON, or whatever is asked for; once or as they change.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::write::name_line;
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::columns;
use crate::discovery::Kinds;
use crate::error::Error;
use crate::mesh::items;
use crate::output::Format;
use crate::resources::{Resource, name_of, version_of};

const EXAMPLES: &str = "\
Examples:
  # All route rules of the namespace, and of all namespaces
  meshctl get route-rules
  meshctl get rr -A
  # One of them, as it can be given back to replace
  meshctl get route-rule reviews-default -o yaml
  # Follow changes
  meshctl get route-rules -w
  # Names and weights
  meshctl get rr -o jsonpath='{range .items[*]}{.metadata.name}: {.spec.route[*].weight} {end}'
  # Kubernetes' own kinds
  meshctl get pods,services -n mesh-system";

/// Arguments of `get`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    /// Kinds, separated by commas, and names; or KIND/NAME
    #[arg(value_name = "KIND", required = true)]
    kind: String,
    /// Names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those with these labels: `app=reviews,version!=v1`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Go on and show changes as they happen
    #[arg(short = 'w', long)]
    watch: bool,
    /// Leave the headings out
    #[arg(long)]
    no_headers: bool,
    /// Do not fail over names that are not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Format of the answer: table|wide|yaml|json|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// What was got of one kind.
struct Got {
    resource: Resource,
    objects: Vec<Value>,
    /// The server's own table, for kinds whose columns it knows better.
    table: Option<Value>,
    version: String,
}

/// Runs `get`.
///
/// # Errors
/// When a kind or name is not there, or the server cannot be asked.
pub fn run(app: &App, args: &GetArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = app.cluster().await?;
        let wanted = wanted(&cluster, args).await?;
        if args.watch && wanted.len() > 1 {
            return Err(Error::usage("only one kind can be watched at a time"));
        }
        let mut got = Vec::new();
        for (resource, names) in &wanted {
            got.push(fetch(app, &cluster, args, resource, names).await?);
        }
        let mut widths = Vec::new();
        show(app, args, &cluster, &got, &mut widths)?;
        match got.pop() {
            Some(got) if args.watch => watch(app, args, &cluster, &wanted[0].1, (got, widths)).await,
            _ => Ok(()),
        }
    })
}

/// Kinds with the names that are asked for; no names is all of them.
async fn wanted(cluster: &Cluster, args: &GetArgs) -> Result<Vec<(Resource, Vec<String>)>, Error> {
    let kinds = Kinds::default();
    if args.kind.contains('/') {
        let mut wanted: Vec<(Resource, Vec<String>)> = Vec::new();
        for word in std::iter::once(&args.kind).chain(&args.names) {
            let Some((kind, name)) = word.split_once('/') else {
                return Err(Error::usage(format!("`{word}` is not KIND/NAME, as the others are")));
            };
            let resource = kinds.of_word(cluster, kind).await?;
            match wanted.iter_mut().find(|(known, _)| *known == resource) {
                Some((_, names)) => names.push(name.to_owned()),
                None => wanted.push((resource, vec![name.to_owned()])),
            }
        }
        return Ok(wanted);
    }
    let mut wanted = Vec::new();
    for word in args.kind.split(',').filter(|word| !word.is_empty()) {
        wanted.push((kinds.of_word(cluster, word).await?, args.names.clone()));
    }
    Ok(wanted)
}

fn selection<'a>(app: &'a App, cluster: &'a Cluster, args: &'a GetArgs, resource: &Resource) -> Selection<'a> {
    let namespace = (!args.all_namespaces && resource.is_namespaced).then(|| app.namespace(cluster));
    Selection { namespace, labels: args.selector.as_deref(), ..Selection::default() }
}

async fn fetch(
    app: &App,
    cluster: &Cluster,
    args: &GetArgs,
    resource: &Resource,
    names: &[String],
) -> Result<Got, Error> {
    let selection = selection(app, cluster, args, resource);
    let mut got = Got { resource: resource.clone(), objects: Vec::new(), table: None, version: String::new() };
    if names.is_empty() {
        if is_server_table(args, resource) {
            let answer = cluster.table(resource, &selection, None).await?;
            got.version = version_of(&answer).to_owned();
            if answer.get("kind").and_then(Value::as_str) == Some("Table") {
                got.table = Some(answer);
                return Ok(got);
            }
            got.objects = typed(resource, &answer);
            return Ok(got);
        }
        let list = cluster.list(resource, &selection).await?;
        got.version = version_of(&list).to_owned();
        got.objects = typed(resource, &list);
        return Ok(got);
    }
    if args.all_namespaces && resource.is_namespaced {
        return Err(
            Error::usage("a name cannot be looked for in all namespaces").hint("give `-n NAMESPACE` instead of -A")
        );
    }
    let mut missing = Vec::new();
    for name in names {
        match cluster.get(resource, app.namespace(cluster), name).await? {
            Some(object) => {
                version_of(&object).clone_into(&mut got.version);
                got.objects.push(object);
            }
            None => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() || args.ignore_not_found {
        return Ok(got);
    }
    Err(not_there(cluster, resource, &selection, &missing).await?)
}

async fn not_there(
    cluster: &Cluster,
    resource: &Resource,
    selection: &Selection<'_>,
    missing: &[&str],
) -> Result<Error, Error> {
    let place = selection.namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    let error = Error::failed(format!("there is no {} `{}`{place}", resource.word(), missing.join("`, `")));
    let list = cluster.list(resource, &Selection { namespace: selection.namespace, ..Selection::default() }).await?;
    Ok(match api::suggest::closest(missing[0], items(&list).map(name_of)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("see `meshctl get {}`", resource.plural)),
    })
}

/// Items of a list, each with the kind that lists leave out.
fn typed(resource: &Resource, list: &Value) -> Vec<Value> {
    items(list)
        .map(|item| {
            let mut object = json!({ "apiVersion": resource.api_version(), "kind": resource.kind });
            if let (Some(object), Some(item)) = (object.as_object_mut(), item.as_object()) {
                object.extend(item.clone());
            }
            object
        })
        .collect()
}

/// Whether the server knows the columns better than we do.
fn is_server_table(args: &GetArgs, resource: &Resource) -> bool {
    matches!(args.output, Format::Table | Format::Wide) && !resource.is_mesh() && !args.watch
}

fn show(app: &App, args: &GetArgs, cluster: &Cluster, got: &[Got], widths: &mut Vec<usize>) -> Result<(), Error> {
    let objects = || got.iter().flat_map(|got| got.objects.iter());
    let value = || {
        let by_name = got.iter().all(|g| g.objects.len() == 1) && got.len() == 1 && names_given(args);
        match objects().next() {
            Some(one) if by_name => one.clone(),
            _ => json!({ "apiVersion": "v1", "kind": "List", "items": objects().collect::<Vec<_>>() }),
        }
    };
    match &args.output {
        Format::Json => app.ui.json(&value()),
        Format::Yaml => app.ui.yaml(&columns::without_noise(value())),
        Format::JsonPath(template) => app.ui.print(&template.render(&value())),
        Format::Name => objects().try_for_each(|object| app.ui.line(&name_line(object))),
        Format::Table | Format::Wide => tables(app, args, cluster, got, widths),
    }
}

fn names_given(args: &GetArgs) -> bool {
    !args.names.is_empty() || args.kind.contains('/')
}

fn tables(app: &App, args: &GetArgs, cluster: &Cluster, got: &[Got], widths: &mut Vec<usize>) -> Result<(), Error> {
    let mut shown = 0;
    for got in got {
        let options = columns::Options {
            is_wide: args.output == Format::Wide,
            with_namespace: args.all_namespaces && got.resource.is_namespaced,
            now: Timestamp::now(),
            paint: app.ui.out,
        };
        let table = match &got.table {
            Some(table) => columns::of_server(table, &options),
            None => columns::of_objects(&got.resource, &got.objects, &options),
        };
        if table.is_empty() {
            continue;
        }
        if shown > 0 {
            app.ui.line("")?;
        }
        widths.clear();
        app.ui.print(&table.to_text_in(widths, !args.no_headers))?;
        shown += 1;
    }
    if shown == 0 && !args.watch {
        let kinds: Vec<&str> = got.iter().map(|got| got.resource.plural.as_str()).collect();
        let place = match args.all_namespaces || got.iter().all(|g| !g.resource.is_namespaced) {
            true => String::new(),
            false => format!(" in namespace {}", app.namespace(cluster)),
        };
        app.ui.say(&format!("no {} found{place}", kinds.join(", ")));
    }
    Ok(())
}

/// Shows changes until it is interrupted; connects again when the server ends the stream.
async fn watch(
    app: &App,
    args: &GetArgs,
    cluster: &Cluster,
    names: &[String],
    (got, mut widths): (Got, Vec<usize>),
) -> Result<(), Error> {
    let Got { resource, mut version, .. } = got;
    let field = names.first().map(|name| format!("metadata.name={name}"));
    let selection = Selection { fields: field.as_deref(), ..selection(app, cluster, args, &resource) };
    loop {
        let stream = cluster.watch(&resource, &selection, &version).await?;
        let lines = futures_util::AsyncBufReadExt::lines(stream);
        tokio::pin!(lines);
        while let Some(Ok(line)) = lines.next().await {
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let (Some(kind), Some(object)) = (event.get("type").and_then(Value::as_str), event.get("object")) else {
                continue;
            };
            if kind == "ERROR" {
                // The version is too old to go on from: begin with what is there now.
                let list = cluster.list(&resource, &selection).await?;
                version_of(&list).clone_into(&mut version);
                break;
            }
            version_of(object).clone_into(&mut version);
            if kind != "BOOKMARK" {
                event_line(app, args, &resource, (kind, object), &mut widths)?;
            }
        }
    }
}

/// One change: what happened, and the object after it.
fn event_line(
    app: &App,
    args: &GetArgs,
    resource: &Resource,
    (kind, object): (&str, &Value),
    widths: &mut Vec<usize>,
) -> Result<(), Error> {
    match &args.output {
        Format::Json => app.ui.line(&object.to_string()),
        Format::Yaml => app.ui.print(&format!("---\n{}", api::yaml::render(object))),
        Format::JsonPath(template) => app.ui.print(&template.render(object)),
        Format::Name => app.ui.line(&name_line(object)),
        Format::Table | Format::Wide => {
            let options = columns::Options {
                is_wide: args.output == Format::Wide,
                with_namespace: args.all_namespaces && resource.is_namespaced,
                now: Timestamp::now(),
                paint: app.ui.out,
            };
            let with_headings = widths.is_empty() && !args.no_headers;
            let text =
                columns::of_objects(resource, std::slice::from_ref(object), &options).to_text_in(widths, with_headings);
            let text = if kind == "DELETED" { format!("{}   (deleted)\n", text.trim_end()) } else { text };
            app.ui.print(&text)
        }
    }
}
