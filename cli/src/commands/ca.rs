//! `ca`: the authority behind the mesh's identities.

mod rotate;

use std::time::Duration;

use api::messages::{AuthorityStatus, Rotation};
use api::names::{JOIN_TOKEN_TYPE, SYSTEM_NAMESPACE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use runtime::svid::join::{JoinToken, field};
use serde_json::{Value, json};

use super::proxy_config::secrets;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::flags::duration;
use crate::mesh::{self, known};
use crate::output::Format;
use crate::resources::{name_of, namespace_of};
use crate::table::Table;

const EXAMPLES: &str = "\
Examples:
  # Who signs, whom everybody trusts, and how long that holds
  meshctl ca status
  # One workload's certificate
  meshctl ca inspect deploy/reviews-v1
  # Another root, without an interruption; the CA goes on by itself if this is interrupted
  meshctl ca rotate root --wait
  # Let a machine outside of the cluster join as a service account
  meshctl ca issue --service-account default/batch > token";

const STATUS_EXAMPLES: &str = "\
Examples:
  # Every CA: what it signs with, until when, and how many certificates it has issued
  meshctl ca status
  # The roots with their fingerprints
  meshctl ca status -o wide
  # When the roots expire, for a program
  meshctl ca status -o json";

const INSPECT_EXAMPLES: &str = "\
Examples:
  # Whose certificate a workload has, until when, and whom it trusts
  meshctl ca inspect deploy/reviews-v1
  # A pod of another namespace, for a program
  meshctl ca inspect reviews-v1-7c9f4.shop -o json";

const ISSUE_EXAMPLES: &str = "\
Examples:
  # A token for a machine that may be default/batch; the machine has an hour to use it
  meshctl ca issue --service-account default/batch > token
  # The same with what the machine must know, for a program
  meshctl ca issue --service-account default/batch --ttl 10m -o json";

/// Arguments of `ca`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows every CA: its key's certificate, the roots, and what it has issued
    Status(StatusArgs),
    /// Shows a workload's certificate and whom it trusts
    Inspect(InspectArgs),
    /// Replaces the root, in stages that every proxy acknowledges; nothing is interrupted
    Rotate(rotate::RotateArgs),
    /// Makes a join token, by which a machine outside gets its first certificate: it works once
    Issue(IssueArgs),
}

/// Arguments of `ca status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
struct StatusArgs {
    /// Format of the answer: table|wide|json|yaml|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Arguments of `ca inspect`.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
struct InspectArgs {
    /// POD, POD.NAMESPACE, or deploy/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// Format of the answer: table|wide|json|yaml|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Arguments of `ca issue`.
#[derive(Debug, Args)]
#[command(after_help = ISSUE_EXAMPLES)]
struct IssueArgs {
    /// Whose identity the machine gets: NAME, or NAMESPACE/NAME
    #[arg(long, value_name = "ACCOUNT")]
    service_account: String,
    /// For how long the token can be used
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// Format of the answer: table|json|yaml|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs `ca`.
///
/// # Errors
/// When the CA or the cluster cannot be asked.
pub fn run(app: &App, args: &CaArgs) -> Result<(), Error> {
    match &args.command {
        Command::Status(args) => status(app, &args.output),
        Command::Inspect(args) => inspect(app, args),
        Command::Rotate(args) => rotate::run(app, args),
        Command::Issue(args) => issue(app, args),
    }
}

fn status(app: &App, format: &Format) -> Result<(), Error> {
    let answers = app.block_on(async {
        let cluster = app.cluster().await?;
        let mut answers: Vec<AuthorityStatus> = Vec::new();
        for ca in &mut mesh::cas(&cluster).await? {
            answers.push(ca.connection.get("/v1/authority").await?);
        }
        Ok(answers)
    })?;
    let value = || json!({ "authorities": answers });
    match format {
        Format::Json => app.ui.json(&value())?,
        Format::Yaml => app.ui.yaml(&value())?,
        Format::JsonPath(template) => app.ui.print(&template.render(&value()))?,
        Format::Name => answers.iter().try_for_each(|answer| app.ui.line(&answer.ca))?,
        Format::Table | Format::Wide => table(app, &answers, *format == Format::Wide)?,
    }
    if let Some(rotating) = answers.iter().find(|answer| answer.is_rotating || answer.rotation != Rotation::None) {
        app.ui.say(&under_way(rotating));
    } else if let Some(lagging) = answers.iter().find(|answer| answer.waiting > 0 || is_renaming(answer)) {
        app.ui.say(&made_known(lagging));
    }
    let mut bundles: Vec<&str> = answers.iter().map(|answer| answer.bundle.as_str()).collect();
    bundles.dedup();
    if bundles.len() > 1 {
        return Err(Error::failed("the CAs do not have the same roots").hint(
            "each follows its Secret within seconds; if this stays, see `kubectl logs -n mesh-system -l app=mesh-ca`",
        ));
    }
    Ok(())
}

/// What a person is told of a rotation.
fn under_way(status: &AuthorityStatus) -> String {
    let stage = match status.rotation {
        Rotation::None => "the old root is gone".to_owned(),
        stage => format!("stage: {}", rotate::stage_word(stage)),
    };
    if !status.is_rotating {
        return format!("a rotation of the root was left in the middle ({stage}): `meshctl ca rotate root` goes on");
    }
    match status.waiting {
        0 => format!("the root is being rotated ({stage})"),
        _ => format!("the root is being rotated ({stage}); waiting for {}", rotate::who(status)),
    }
}

/// Whether certificates are still issued in a former name.
fn is_renaming(status: &AuthorityStatus) -> bool {
    !status.issuing.is_empty() && status.issuing != status.trust_domain
}

/// What a person is told while roots, or names of the trust domain, are made known.
fn made_known(status: &AuthorityStatus) -> String {
    let (name, who) = (&status.trust_domain, rotate::who(status));
    let waiting = if who.is_empty() { String::new() } else { format!("; waiting for {who}") };
    if is_renaming(status) {
        return format!(
            "the trust domain becomes {name} as soon as everybody accepts that name; until then certificates are issued in \
             {}{waiting}",
            status.issuing
        );
    }
    if status.aliases.is_empty() {
        return format!("the roots and the names in force are made known{waiting}");
    }
    format!("everybody accepts the name {name}, and is asked to take it{waiting}")
}

/// What the first CA says.
async fn first_status(cluster: &Cluster) -> Result<AuthorityStatus, Error> {
    match mesh::cas(cluster).await?.first_mut() {
        Some(ca) => ca.connection.get("/v1/authority").await,
        None => Err(Error::unreachable("there is no CA")),
    }
}

fn table(app: &App, answers: &[AuthorityStatus], is_wide: bool) -> Result<(), Error> {
    let now = Timestamp::now();
    let mut table = Table::new(&["CA", "ORIGIN", "TRUST DOMAIN", "LIFETIME", "EXPIRES", "BUNDLE", "ISSUED", "VERSION"]);
    for answer in answers {
        let names = std::iter::once(&answer.trust_domain).chain(&answer.aliases);
        let issued: u64 = answer.issued.values().sum();
        table.row(vec![
            answer.ca.clone(),
            answer.origin.clone(),
            names.cloned().collect::<Vec<_>>().join(","),
            crate::table::duration(answer.lifetime_seconds),
            secrets::left(&answer.issuer, now),
            answer.bundle.clone(),
            issued.to_string(),
            answer.version.clone(),
        ]);
    }
    app.ui.print(&table.to_text(true))?;
    let mut headings = vec!["ROOT", "EXPIRES", "SERIAL"];
    if is_wide {
        headings.push("SHA256");
    }
    let mut table = Table::new(&headings);
    for root in answers.first().iter().flat_map(|answer| &answer.roots) {
        let mut row = vec![root.subject.clone(), secrets::left(root, now), root.serial.clone()];
        if is_wide {
            row.push(root.fingerprint.clone());
        }
        table.row(row);
    }
    app.ui.line("")?;
    app.ui.print(&table.to_text(true))
}

fn inspect(app: &App, args: &InspectArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = app.cluster().await?;
        let pod = mesh::find_pod(&cluster, app.namespace(&cluster), &args.pod).await?;
        let mut admin = mesh::proxy_admin(&cluster, &pod).await?;
        let report = admin.get("/certs").await?;
        app.ui.say(&app.ui.err.dim(&format!("proxy of {}.{}", name_of(&pod), namespace_of(&pod))));
        secrets::show(app, &args.output, &report)
    })
}

fn issue(app: &App, args: &IssueArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let (namespace, name) = match args.service_account.split_once('/') {
            Some(both) => both,
            None => (app.namespace(&cluster), args.service_account.as_str()),
        };
        if cluster.get(&known("serviceaccounts")?, namespace, name).await?.is_none() {
            return Err(Error::failed(format!("there is no service account `{name}` in namespace {namespace}"))
                .hint("a machine outside has the identity of an account that you make for it; nothing was made"));
        }
        let token = JoinToken::generate();
        let expires = Timestamp::now().saturating_add(jiff::SignedDuration::try_from(args.ttl).unwrap_or_default());
        let expires = expires.map_err(|e| Error::usage("--ttl is too long").because(e.to_string()))?;
        keep(&cluster, &token, (namespace, name), expires).await?;
        show_issued(app, &args.output, &token, (namespace, name), expires)
    })
}

/// Where a machine asks the CA.
fn ca_address() -> String {
    format!("{}.{SYSTEM_NAMESPACE}.svc:{}", api::names::CA, api::names::ca_port::CSR)
}

fn show_issued(
    app: &App,
    format: &Format,
    token: &JoinToken,
    (namespace, name): (&str, &str),
    expires: Timestamp,
) -> Result<(), Error> {
    let (until, ca) = (expires.strftime("%FT%TZ").to_string(), ca_address());
    let value = || {
        let account = json!({"namespace": namespace, "name": name});
        json!({"token": token.text(), "serviceAccount": account, "expires": until, "ca": ca})
    };
    match format {
        Format::Json => return app.ui.json(&value()),
        Format::Yaml => return app.ui.yaml(&value()),
        Format::JsonPath(template) => return app.ui.print(&template.render(&value())),
        Format::Table | Format::Wide | Format::Name => app.ui.line(&token.text())?,
    }
    app.ui.say(&format!("it proves to be {namespace}/{name}, once, until {until}"));
    app.ui.say(&format!("the machine shows it at {ca}: see \"Machines outside\" in docs/security.md"));
    Ok(())
}

/// Keeps what a token is good for, with a hash in place of the token.
async fn keep(
    cluster: &Cluster,
    token: &JoinToken,
    (namespace, name): (&str, &str),
    expires: Timestamp,
) -> Result<(), Error> {
    let data = [
        (field::HASH, token.hash()),
        (field::NAMESPACE, namespace.to_owned()),
        (field::SERVICE_ACCOUNT, name.to_owned()),
        (field::EXPIRES, expires.to_string()),
    ];
    let data: serde_json::Map<String, Value> =
        data.into_iter().map(|(key, text)| (key.to_owned(), json!(STANDARD.encode(text)))).collect();
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": JOIN_TOKEN_TYPE,
        "metadata": {
            "name": token.name(),
            "namespace": SYSTEM_NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "mesh"},
        },
        "data": data,
    });
    cluster.create(&known("secrets")?, SYSTEM_NAMESPACE, &secret, false).await.map(drop)
}
