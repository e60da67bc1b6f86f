//! `proxy-config`: what a proxy has been told, as it says itself.

mod bootstrap;
mod filter;
mod log;
pub(super) mod secrets;
mod tables;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::app::App;
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
  # One subset of one service
  meshctl proxy-config deploy/productpage clusters --fqdn reviews.default.svc.cluster.local --subset version=v1
  # All tables, one after the other
  meshctl proxy-config deploy/productpage all
  # See what the proxy does with connections, then be quiet again
  meshctl proxy-config deploy/productpage log --level mesh_proxy:debug
  meshctl proxy-config deploy/productpage log --reset
  # Its certificate, and whom it trusts
  meshctl proxy-config deploy/productpage secrets
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
    /// Only clusters, endpoints and routes of this host, in full or its first parts
    #[arg(long, value_name = "HOST")]
    fqdn: Option<String>,
    /// Only clusters and endpoints with these labels, or any labels that hold this value
    #[arg(long, value_name = "LABELS")]
    subset: Option<String>,
    /// Only what is about this direction
    #[arg(long, value_enum, value_name = "DIRECTION")]
    direction: Option<Direction>,
    /// With `log`: the level of everything, or TARGET:LEVEL with commas between several
    #[arg(long, value_name = "LEVEL", conflicts_with = "reset")]
    level: Option<String>,
    /// With `log`: what the daemon was started with
    #[arg(long)]
    reset: bool,
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
    /// With `bootstrap --envoy`: the Unix socket where that Envoy has its certificates by SDS, and so mutual TLS
    #[arg(long, value_name = "PATH", requires = "envoy")]
    sds_socket: Option<String>,
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
    /// Certificates and roots in use, never a key
    #[value(alias = "secret", alias = "sds", alias = "s")]
    Secrets,
    /// What it was started with
    Bootstrap,
    /// What it writes into its own log, and how to change that; also for Pilot's pods
    Log,
    /// Everything: all tables, or with -o json or yaml all as it comes
    All,
}

/// Where traffic goes, as seen from the application beside the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// Towards it
    Inbound,
    /// Away from it
    Outbound,
}

impl What {
    /// The tables that it stands for, and the fields of the dump that they are made of.
    fn tables(self) -> &'static [(What, &'static str)] {
        match self {
            What::Listeners => &[(What::Listeners, "listeners")],
            What::Routes => &[(What::Routes, "routes")],
            What::Clusters => &[(What::Clusters, "clusters")],
            What::Endpoints => &[(What::Endpoints, "endpoints")],
            What::All => &[
                (What::Listeners, "listeners"),
                (What::Routes, "routes"),
                (What::Clusters, "clusters"),
                (What::Endpoints, "endpoints"),
            ],
            What::Bootstrap | What::Log | What::Secrets => &[],
        }
    }
}

/// Runs `proxy-config`.
///
/// # Errors
/// When the pod has no proxy, or it cannot be asked.
pub fn run(app: &App, args: &ConfigArgs) -> Result<(), Error> {
    if args.envoy && args.what != What::Bootstrap {
        return Err(Error::usage("--envoy goes with `bootstrap`"));
    }
    if (args.level.is_some() || args.reset) && args.what != What::Log {
        return Err(Error::usage("--level and --reset go with `log`"));
    }
    app.block_on(async {
        let cluster =
            if args.level.is_some() || args.reset { app.cluster_to_change().await? } else { app.cluster().await? };
        let pod = mesh::find_pod(&cluster, app.namespace(&cluster), &args.pod).await?;
        if args.what == What::Bootstrap {
            return bootstrap::run(app, &cluster, &pod, args).await;
        }
        if args.what == What::Log {
            return log::run(app, &cluster, &pod, args).await;
        }
        let mut admin = mesh::proxy_admin(&cluster, &pod).await?;
        if args.what == What::Secrets {
            return secrets::show(app, &args.output, &admin.get("/certs").await?);
        }
        let dump: Value = admin.get("/config_dump").await?;
        let is_table = matches!(args.output, Format::Table | Format::Wide);
        if args.what == What::All && !is_table {
            return show_whole(app, &args.output, &dump);
        }
        let live: Value = match args.what {
            What::Endpoints | What::All => admin.get("/clusters").await?,
            _ => Value::Null,
        };
        let place = format!("{}.{}", name_of(&pod), namespace_of(&pod));
        app.ui.say(&app.ui.err.dim(&format!("proxy of {place}")));
        let tables = args.what.tables();
        for (at, table) in tables.iter().enumerate() {
            if at > 0 {
                app.ui.line("")?;
            }
            show(app, args, *table, (&dump, &live), tables.len() == 1)?;
        }
        if is_table {
            refused(app, &dump);
        }
        Ok(())
    })
}

fn show_whole(app: &App, format: &Format, dump: &Value) -> Result<(), Error> {
    match format {
        Format::Yaml => app.ui.yaml(dump),
        Format::JsonPath(template) => app.ui.print(&template.render(dump)),
        _ => app.ui.json(dump),
    }
}

fn show(
    app: &App,
    args: &ConfigArgs,
    (what, field): (What, &str),
    (dump, live): (&Value, &Value),
    is_alone: bool,
) -> Result<(), Error> {
    let all = dump.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let resources: Vec<&Value> = all.iter().filter(|resource| filter::is_wanted(resource, what, args)).collect();
    if resources.is_empty() && !all.is_empty() && is_alone {
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
            let table = match what {
                What::Listeners => tables::listeners(&resources, is_wide),
                What::Routes => tables::routes(&resources, is_wide),
                What::Clusters => tables::clusters(&resources, is_wide),
                _ => tables::endpoints(&resources, live, app.ui.out),
            };
            if table.is_empty() {
                app.ui.say(&format!("no {field}"));
                return Ok(());
            }
            app.ui.print(&table.to_text(true))
        }
    }
}

fn refused(app: &App, dump: &Value) {
    for rejected in dump.get("rejected").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| rejected.get(field).and_then(Value::as_str).unwrap_or_default();
        app.ui.warn(&format!("the proxy refuses {} {}: {}", text("type"), text("name"), text("error")));
    }
}
