//! `proxy-status`: whether every proxy follows the control plane.

mod compare;

use api::messages::{Proxies, ProxyStatus, SyncState};
use api::spiffe::SpiffeId;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::compare::Comparison;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{Error, Exit};
use crate::mesh;
use crate::output::Format;
use crate::paint::Paint;
use crate::resources::{name_of, namespace_of};
use crate::table::{Table, age};

const EXAMPLES: &str = "\
Examples:
  # All proxies, and how far each is per type of resource
  meshctl proxy-status
  # One of them, and each resource that it does not have as Pilot has sent it
  meshctl proxy-status reviews-v1-7d9c8b6c5d-x2x8w.default
  meshctl proxy-status deploy/reviews-v1
  # For a program
  meshctl proxy-status -o json";

/// Arguments of `proxy-status`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// Only proxies whose name begins with this; or POD, POD.NAMESPACE, deploy/NAME. For a single one it is compared what
    /// Pilot has sent, what the proxy has acknowledged, and what is in force there
    #[arg(value_name = "PROXY")]
    proxy: Option<String>,
    /// Format of the answer: table|wide|json|yaml|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs `proxy-status`.
///
/// # Errors
/// When Pilot cannot be asked, or a proxy refuses what it was sent.
pub fn run(app: &App, args: &StatusArgs) -> Result<(), Error> {
    let (answers, wanted, comparison) = app.block_on(async {
        let cluster = app.cluster().await?;
        let mut pilots = mesh::pilots(&cluster).await?;
        let mut answers: Vec<Proxies> = Vec::new();
        for pilot in &mut pilots {
            answers.push(pilot.connection.get("/v1/proxies").await?);
        }
        let wanted = wanted(app, &cluster, args, &answers).await?;
        let ids = || answers.iter().flat_map(|answer| &answer.proxies).map(|proxy| proxy.id.as_str());
        let mut chosen = ids().filter(|id| wanted.as_deref().is_some_and(|wanted| id.starts_with(wanted)));
        let comparison = match (chosen.next(), chosen.next()) {
            (Some(one), None) => Some(compare::proxy(&cluster, &mut pilots, one).await?),
            _ => None,
        };
        Ok((answers, wanted, comparison))
    })?;
    let mut proxies: Vec<(&ProxyStatus, &str)> =
        answers.iter().flat_map(|a| a.proxies.iter().map(|proxy| (proxy, a.pilot.as_str()))).collect();
    proxies.sort_by_key(|(proxy, _)| order(proxy));
    if let Some(wanted) = &wanted {
        proxies.retain(|(proxy, _)| proxy.id.starts_with(wanted.as_str()));
    }
    show(app, &args.output, (&answers, &proxies), comparison.as_ref())?;
    let refused = proxies.iter().flat_map(|(proxy, _)| &proxy.types).any(|t| t.state == SyncState::Rejected);
    if refused { Err(Error::said(Exit::Failed)) } else { Ok(()) }
}

/// What the names of the proxies begin with that are asked for.
async fn wanted(app: &App, cluster: &Cluster, args: &StatusArgs, answers: &[Proxies]) -> Result<Option<String>, Error> {
    let Some(wanted) = &args.proxy else { return Ok(None) };
    let ids: Vec<&str> = answers.iter().flat_map(|answer| &answer.proxies).map(|proxy| proxy.id.as_str()).collect();
    if ids.iter().any(|id| id.starts_with(wanted.as_str())) {
        return Ok(Some(wanted.clone()));
    }
    if let Ok(pod) = mesh::find_pod(cluster, app.namespace(cluster), wanted).await {
        let id = format!("{}.{}", name_of(&pod), namespace_of(&pod));
        if ids.contains(&id.as_str()) {
            return Ok(Some(id));
        }
        return Err(Error::failed(format!("the proxy of pod {id} is not connected")).hint(
            match mesh::has_proxy(&pod) {
                true => format!("see why with `meshctl describe pod/{} -n {}`", name_of(&pod), namespace_of(&pod)),
                false => "the pod has no proxy: see `meshctl describe` of it".to_owned(),
            },
        ));
    }
    let error = Error::failed(format!("no proxy `{wanted}` is connected"));
    Err(match api::suggest::closest(wanted, ids) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("see `meshctl proxy-status` for all"),
    })
}

/// By namespace, then by name.
fn order(proxy: &ProxyStatus) -> (String, String) {
    let (name, namespace) = proxy.id.rsplit_once('.').unwrap_or((&proxy.id, ""));
    (namespace.to_owned(), name.to_owned())
}

fn show(
    app: &App,
    format: &Format,
    (answers, proxies): (&[Proxies], &[(&ProxyStatus, &str)]),
    comparison: Option<&Comparison>,
) -> Result<(), Error> {
    let value = || {
        let list: Vec<Value> = proxies
            .iter()
            .map(|(proxy, pilot)| {
                let mut value = json!(proxy);
                value["pilot"] = json!(pilot);
                if let Some(comparison) = comparison {
                    value["differences"] = comparison.to_json();
                }
                value
            })
            .collect();
        let pilots: Vec<Value> = answers.iter().map(|a| json!({ "name": a.pilot, "version": a.version })).collect();
        json!({ "pilots": pilots, "proxies": list })
    };
    match format {
        Format::Json => app.ui.json(&value()),
        Format::Yaml => app.ui.yaml(&value()),
        Format::JsonPath(template) => app.ui.print(&template.render(&value())),
        Format::Name => proxies.iter().try_for_each(|(proxy, _)| app.ui.line(&proxy.id)),
        Format::Table | Format::Wide => {
            table(app, proxies, *format == Format::Wide)?;
            comparison.map_or(Ok(()), |comparison| comparison.show(app))
        }
    }
}

fn table(app: &App, proxies: &[(&ProxyStatus, &str)], is_wide: bool) -> Result<(), Error> {
    if proxies.is_empty() {
        app.ui.say("no proxy is connected");
        return Ok(());
    }
    let mut headings =
        vec!["PROXY", "ROLE", "LDS", "RDS", "CDS", "EDS", "IDENTITY", "CERT", "TLS", "VERSION", "CONNECTED"];
    if is_wide {
        headings.extend(["IP", "PILOT"]);
    }
    let mut table = Table::new(&headings);
    let now = Timestamp::now();
    for (proxy, pilot) in proxies {
        let mut row = vec![proxy.id.clone(), proxy.role.clone()];
        row.extend(["LDS", "RDS", "CDS", "EDS"].map(|kind| state(proxy, kind, is_wide, app.ui.out)));
        row.extend(identity(proxy, is_wide, now));
        row.push(share(proxy, is_wide));
        row.extend([proxy.version.clone(), age(&proxy.connected_since, now)]);
        if is_wide {
            row.extend([proxy.ip.clone(), (*pilot).to_owned()]);
        }
        table.row(row);
    }
    app.ui.print(&table.to_text(true))?;
    for (proxy, _) in proxies {
        for rejected in proxy.types.iter().flat_map(|t| &t.rejected) {
            app.ui.warn(&format!("{} refuses {}: {}", proxy.id, rejected.resource, rejected.error));
        }
    }
    Ok(())
}

/// Who a proxy is, and how old its certificate is.
fn identity(proxy: &ProxyStatus, is_wide: bool, now: Timestamp) -> [String; 2] {
    let Some(svid) = &proxy.svid else { return ["none".to_owned(), String::new()] };
    let account = svid.id.parse::<SpiffeId>().ok().and_then(|id| {
        let (namespace, name) = id.account()?;
        Some(format!("{namespace}/{name}"))
    });
    let has_expired = svid.not_after.parse::<Timestamp>().is_ok_and(|end| end <= now);
    let age = if has_expired { "expired".to_owned() } else { age(&svid.since, now) };
    [account.filter(|_| !is_wide).unwrap_or_else(|| svid.id.clone()), age]
}

/// How much of its traffic is by mutual TLS.
fn share(proxy: &ProxyStatus, is_wide: bool) -> String {
    let Some(traffic) = proxy.traffic else { return String::new() };
    let Some(percent) = traffic.percent() else { return String::new() };
    let all = traffic.mutual_tls.saturating_add(traffic.clear_text);
    if is_wide { format!("{percent}% ({} of {all})", traffic.mutual_tls) } else { format!("{percent}%") }
}

fn state(proxy: &ProxyStatus, kind: &str, is_wide: bool, paint: Paint) -> String {
    let Some(status) = proxy.types.iter().find(|t| t.kind == kind) else { return String::new() };
    let word = match status.state {
        SyncState::Synced => paint.good("SYNCED"),
        SyncState::Stale => paint.warning("STALE"),
        SyncState::Rejected => paint.error("REJECTED"),
        SyncState::NotSent => paint.dim("NOT SENT"),
    };
    if is_wide { format!("{word} ({})", status.resources) } else { word }
}
