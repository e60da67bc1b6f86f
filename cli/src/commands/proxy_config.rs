//! `proxy-config`: what a proxy has been told, as it says itself.

mod bootstrap;
mod tables;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::App;
use crate::error::{Error, count};
use crate::mesh;
use crate::output::Format;
use crate::resources::{name_of, namespace_of};

const EXAMPLES: &str = "\
Examples:
  # How requests of a workload are routed
  meshctl proxy-config deploy/productpage routes
  # One route configuration, whole
  meshctl proxy-config deploy/productpage routes reviews.default.svc.cluster.local:9080 -o yaml
  # Where requests can end up, and which of these places is healthy
  meshctl proxy-config deploy/productpage endpoints reviews
  # Let a stock Envoy stand in for a pod's proxy
  meshctl proxy-config deploy/productpage bootstrap --envoy --files /tmp/envoy > envoy.yaml";

/// Arguments of `proxy-config`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    /// POD, POD.NAMESPACE, or deploy/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// What to show
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
    /// Only resources whose name contains this
    #[arg(value_name = "RESOURCE")]
    resource: Option<String>,
    /// Only resources that are about this port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// With `bootstrap`: for a stock Envoy
    #[arg(long)]
    envoy: bool,
    /// With `bootstrap --envoy`: write the root certificate and a fresh token of the pod, which is a secret, to this
    /// directory; by default the files of the pod's own proxy are meant
    #[arg(long, value_name = "DIR", requires = "envoy")]
    files: Option<PathBuf>,
    /// With `bootstrap --envoy`: where Pilot is, as seen by that Envoy
    #[arg(long, value_name = "HOST:PORT", requires = "envoy")]
    pilot_address: Option<String>,
    /// Format of the answer: table|wide|json|yaml|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// What a proxy can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Where it listens
    #[value(alias = "listener", alias = "lds", alias = "l")]
    Listeners,
    /// How requests are routed
    #[value(alias = "route", alias = "rds", alias = "r")]
    Routes,
    /// Which destinations it knows
    #[value(alias = "cluster", alias = "cds", alias = "c")]
    Clusters,
    /// Where destinations are served
    #[value(alias = "endpoint", alias = "eds", alias = "ep")]
    Endpoints,
    /// What it was started with
    Bootstrap,
    /// Everything, as it comes
    All,
}

/// Runs `proxy-config`.
///
/// # Errors
/// When the pod has no proxy, or it cannot be asked.
pub fn run(app: &App, args: &ConfigArgs) -> Result<(), Error> {
    if args.envoy && args.what != What::Bootstrap {
        return Err(Error::usage("--envoy goes with `bootstrap`"));
    }
    app.block_on(async {
        let cluster = app.cluster().await?;
        let pod = mesh::find_pod(&cluster, app.namespace(&cluster), &args.pod).await?;
        if args.what == What::Bootstrap {
            return bootstrap::run(app, &cluster, &pod, args).await;
        }
        let mut admin = mesh::proxy_admin(&cluster, &pod).await?;
        let dump: Value = admin.get("/config_dump").await?;
        if args.what == What::All {
            return show_whole(app, &args.output, &dump);
        }
        let live: Value = match args.what {
            What::Endpoints => admin.get("/clusters").await?,
            _ => Value::Null,
        };
        let place = format!("{}.{}", name_of(&pod), namespace_of(&pod));
        app.ui.say(&app.ui.err.dim(&format!("proxy of {place}")));
        show(app, args, &dump, &live)
    })
}

fn show_whole(app: &App, format: &Format, dump: &Value) -> Result<(), Error> {
    match format {
        Format::Yaml => app.ui.yaml(dump),
        Format::JsonPath(template) => app.ui.print(&template.render(dump)),
        _ => app.ui.json(dump),
    }
}

fn show(app: &App, args: &ConfigArgs, dump: &Value, live: &Value) -> Result<(), Error> {
    let field = match args.what {
        What::Listeners => "listeners",
        What::Routes => "routes",
        What::Clusters => "clusters",
        _ => "endpoints",
    };
    let all = dump.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let resources: Vec<&Value> = all.iter().filter(|resource| is_wanted(resource, args)).collect();
    if resources.is_empty() && !all.is_empty() {
        let names: Vec<&str> = all.iter().map(tables::name).collect();
        let error = Error::failed(format!("none of the {} matches", count(all.len(), field.trim_end_matches('s'))));
        let near = args.resource.as_deref().and_then(|wanted| api::suggest::closest(wanted, names.iter().copied()));
        return Err(match near {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("see all with `meshctl proxy-config {} {field}`", args.pod)),
        });
    }
    match &args.output {
        Format::Json => app.ui.json(&json!(resources)),
        Format::Yaml => app.ui.yaml(&json!(resources)),
        Format::JsonPath(template) => app.ui.print(&template.render(&json!({ "items": resources }))),
        Format::Name => resources.iter().try_for_each(|resource| app.ui.line(tables::name(resource))),
        Format::Table | Format::Wide => {
            let is_wide = args.output == Format::Wide;
            let table = match args.what {
                What::Listeners => tables::listeners(&resources, is_wide),
                What::Routes => tables::routes(&resources, is_wide),
                What::Clusters => tables::clusters(&resources, is_wide),
                _ => tables::endpoints(&resources, live, app.ui.out),
            };
            if table.is_empty() {
                app.ui.say(&format!("it has no {field}"));
                return Ok(());
            }
            app.ui.print(&table.to_text(true))?;
            refused(app, dump);
            Ok(())
        }
    }
}

fn is_wanted(resource: &Value, args: &ConfigArgs) -> bool {
    let name = tables::name(resource);
    let by_name = args.resource.as_deref().is_none_or(|wanted| name.contains(wanted));
    let by_port = args.port.is_none_or(|port| {
        let port = port.to_string();
        name.split(|c: char| !c.is_ascii_digit()).any(|number| number == port)
    });
    by_name && by_port
}

fn refused(app: &App, dump: &Value) {
    for rejected in dump.get("rejected").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| rejected.get(field).and_then(Value::as_str).unwrap_or_default();
        app.ui.warn(&format!("the proxy refuses {} {}: {}", text("type"), text("name"), text("error")));
    }
}
