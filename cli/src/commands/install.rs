//! `install` and `uninstall`: the control plane in a Kubernetes cluster.

use std::time::Duration;

use api::names::{CA_CERT_SECRET, PILOT_CERT_SECRET, SYSTEM_NAMESPACE};
use base64::Engine as _;
use clap::Args;
use install::{Certificates, ServingCertificate, Values, manifests};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::write::{self, Done, Planned, Verb, done_line};
use crate::app::App;
use crate::certificate;
use crate::cluster::Cluster;
use crate::discovery::Kinds;
use crate::error::{Error, Exit};
use crate::flags::{DryRun, duration};
use crate::mesh::{is_ready, items, known};
use crate::objects::Object;
use crate::output::Format;
use crate::resources::{name_of, namespace_of, text};

const INSTALL_EXAMPLES: &str = "\
Examples:
  # Into the cluster of the current context
  meshctl install --wait
  # Look at what would be installed, or give it to something else
  meshctl install --dry-run -o yaml > mesh.yaml
  # Two Pilots, images from a registry
  meshctl install --hub registry.example.com/mesh --tag 0.1.0 --pilot-replicas 2";

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  # Remove the control plane; rules stay
  meshctl uninstall --yes
  # Remove everything, rules included
  meshctl uninstall --purge --yes";

/// Arguments of `install`.
#[derive(Debug, Args)]
#[command(after_help = INSTALL_EXAMPLES)]
pub struct InstallArgs {
    #[command(flatten)]
    values: ValueArgs,
    /// Change nothing: print the manifests, or let the server check them
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true, value_name = "client|server")]
    dry_run: Option<DryRun>,
    /// Wait until the control plane is ready
    #[arg(long)]
    wait: bool,
    /// How long `--wait` waits
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration)]
    timeout: Duration,
    /// Format of the manifests that --dry-run prints: yaml|json|name
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "yaml", hide_default_value = true)]
    output: Format,
}

/// What an installation can be told.
#[derive(Debug, Clone, Args)]
pub struct ValueArgs {
    /// Where the images are
    #[arg(long, value_name = "REGISTRY", default_value = "mesh", help_heading = "Values")]
    hub: String,
    /// Tag of the images
    #[arg(long, value_name = "TAG", default_value = crate::VERSION, help_heading = "Values")]
    tag: String,
    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = api::names::DEFAULT_DOMAIN, help_heading = "Values")]
    domain: String,
    /// Trust domain of identities
    #[arg(long, value_name = "DOMAIN", default_value = api::names::DEFAULT_TRUST_DOMAIN, help_heading = "Values")]
    trust_domain: String,
    /// Another name of the trust domain, as while it is renamed; can be repeated
    #[arg(long = "trust-domain-alias", value_name = "DOMAIN", help_heading = "Values")]
    trust_domain_aliases: Vec<String>,
    /// Whether workloads must prove who they are where no policy says anything of it, by the classic words; they may unless
    /// this is said
    #[arg(long, value_enum, value_name = "MUTUAL_TLS|NONE", hide_possible_values = true, help_heading = "Values")]
    auth_policy: Option<AuthPolicy>,
    /// Number of Pilots
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Values")]
    pilot_replicas: u32,
    /// Number of CAs
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Values")]
    ca_replicas: u32,
    /// Number of ingress gateways; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Values")]
    gateway_replicas: u32,
}

/// The classic `authPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AuthPolicy {
    #[value(name = "MUTUAL_TLS")]
    MutualTls,
    #[value(name = "NONE")]
    None,
}

impl ValueArgs {
    fn values(&self, certificates: Certificates) -> Values {
        Values {
            images: super::inject::images(&self.hub, &self.tag),
            domain: self.domain.clone(),
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: self.trust_domain_aliases.clone(),
            auth_policy: self.auth_policy.map(|policy| match policy {
                AuthPolicy::MutualTls => install::AuthPolicy::MutualTls,
                AuthPolicy::None => install::AuthPolicy::None,
            }),
            pilot_replicas: self.pilot_replicas,
            gateway_replicas: self.gateway_replicas,
            ca_replicas: self.ca_replicas,
            ..Values::new(crate::VERSION, certificates)
        }
    }
}

/// Arguments of `uninstall`.
#[derive(Debug, Args)]
#[command(after_help = UNINSTALL_EXAMPLES)]
pub struct UninstallArgs {
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// Delete the kinds of the mesh too, and with them every rule
    #[arg(long)]
    purge: bool,
}

/// Runs `install`.
///
/// # Errors
/// When an object is refused or the control plane does not get ready in time.
pub fn run(app: &App, args: &InstallArgs) -> Result<(), Error> {
    if args.dry_run == Some(DryRun::Client) {
        let objects = manifests::render(&args.values.values(certificate::make(&args.values.domain)?));
        return print(app, &objects, &args.output);
    }
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let certificates = certificates(&cluster, &args.values.domain).await?;
        let objects = manifests::render(&args.values.values(certificates));
        let is_dry = args.dry_run.is_some();
        apply(&cluster, objects, is_dry, |line| app.ui.line(line)).await?;
        if !args.wait || is_dry {
            return Ok(());
        }
        until_ready(app, &cluster, args.timeout).await
    })
}

fn print(app: &App, objects: &[Value], format: &Format) -> Result<(), Error> {
    match format {
        Format::Json => app.ui.json(&serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects })),
        Format::Name => objects.iter().try_for_each(|object| app.ui.line(&write::name_line(object))),
        Format::JsonPath(template) => app.ui.print(&template.render(&serde_json::json!({ "items": objects }))),
        Format::Yaml | Format::Table | Format::Wide => {
            let documents: Vec<String> = objects.iter().map(api::yaml::render).collect();
            app.ui.print(&documents.join("---\n"))
        }
    }
}

/// The serving certificates of the control plane: those of an installation that is there, as installing again does not
/// change whom proxies trust; what is missing is made.
///
/// # Errors
/// When the server cannot be asked, or a certificate cannot be made.
pub async fn certificates(cluster: &Cluster, domain: &str) -> Result<Certificates, Error> {
    let made = certificate::make(domain)?;
    let Some((roots, pilot)) = kept(cluster, PILOT_CERT_SECRET).await? else { return Ok(made) };
    Ok(match kept(cluster, CA_CERT_SECRET).await? {
        Some((_, ca)) => Certificates { roots, pilot, ca },
        // An installation from before the CA: pods that know the old root only have no business with the CA either.
        None => Certificates { roots: format!("{roots}{}", made.roots), pilot, ca: made.ca },
    })
}

/// A serving certificate with its roots, if it is there as a whole.
async fn kept(cluster: &Cluster, name: &str) -> Result<Option<(String, ServingCertificate)>, Error> {
    let Some(secret) = cluster.get(&known("secrets")?, SYSTEM_NAMESPACE, name).await? else {
        return Ok(None);
    };
    let field = |name: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text(&secret, &["data", name])?).ok()?;
        String::from_utf8(bytes).ok()
    };
    Ok(field("ca.crt")
        .zip(field("tls.crt"))
        .zip(field("tls.key"))
        .map(|((roots, certificate), key)| (roots, ServingCertificate { certificate, key })))
}

/// Applies the objects of an installation, in their order.
///
/// # Errors
/// When one is refused.
pub async fn apply(
    cluster: &Cluster,
    objects: Vec<Value>,
    is_dry: bool,
    mut done: impl FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let kinds = Kinds::default();
    for value in objects {
        let kind = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let Some(resource) = kinds.of_object(cluster, kind("apiVersion"), kind("kind")).await? else {
            return Err(Error::failed(format!(
                "{} does not serve {} of {}",
                cluster.description,
                kind("kind"),
                kind("apiVersion")
            )));
        };
        let (namespace, name) = (namespace_of(&value).to_owned(), name_of(&value).to_owned());
        let current = cluster.get(&resource, &namespace, &name).await?;
        let planned = Planned { resource, namespace, object: Object { value, location: None }, current };
        let (answer, did) = write::send(cluster, Verb::Apply, &planned, is_dry)
            .await
            .map_err(|e| e.because(format!("at {}", write::label(&planned.resource, &planned.namespace, &name))))?;
        if did != Done::Unchanged {
            done(&done_line(&planned.resource, &answer, did, is_dry))?;
        }
    }
    Ok(())
}

/// Waits until every pod of the control plane is ready.
async fn until_ready(app: &App, cluster: &Cluster, limit: Duration) -> Result<(), Error> {
    let started = Instant::now();
    let deployments = known("deployments")?;
    let pods = known("pods")?;
    loop {
        let selection = crate::cluster::Selection { namespace: Some(SYSTEM_NAMESPACE), ..Default::default() };
        let list = cluster.list(&deployments, &selection).await?;
        let count = |d: &Value, path: &str| d.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        if items(&list).all(|d| count(d, "/status/readyReplicas") >= count(d, "/spec/replicas")) {
            app.ui.say(
                &app.ui.err.good(&format!("the control plane is ready after {}", crate::wait::took(started.elapsed()))),
            );
            return Ok(());
        }
        if started.elapsed() > limit {
            let list = cluster.list(&pods, &selection).await?;
            let lagging: Vec<&str> = items(&list).filter(|pod| !is_ready(pod)).map(name_of).collect();
            return Err(Error::timeout(format!("the control plane is not ready after {}", crate::wait::took(limit)))
                .because(format!("not ready: {}", lagging.join(", ")))
                .hint(format!("see `meshctl get pods -n {SYSTEM_NAMESPACE}`")));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// Runs `uninstall`.
///
/// # Errors
/// When nobody agrees, or something cannot be deleted.
pub fn uninstall(app: &App, args: &UninstallArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        agree(app, args, &cluster)?;
        let serving = ServingCertificate::default;
        let none = Certificates { roots: String::new(), pilot: serving(), ca: serving() };
        let kinds = Kinds::default();
        let mut deleted = 0;
        for object in manifests::render(&Values::new(crate::VERSION, none)).iter().rev() {
            let kind = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
            if kind("kind") == "CustomResourceDefinition" && !args.purge {
                continue;
            }
            let Some(resource) = kinds.of_object(&cluster, kind("apiVersion"), kind("kind")).await? else { continue };
            if cluster.delete(&resource, namespace_of(object), name_of(object), false).await? {
                app.ui.line(&format!("{}/{} deleted", resource.qualified_word(), name_of(object)))?;
                deleted += 1;
            }
        }
        if deleted == 0 {
            app.ui.say("there was nothing to remove");
        } else {
            app.ui.say("sidecars stay in pods that have one until the pods are made anew");
        }
        Ok(())
    })
}

fn agree(app: &App, args: &UninstallArgs, cluster: &Cluster) -> Result<(), Error> {
    if args.yes {
        return Ok(());
    }
    if !app.ui.can_ask {
        return Err(Error::usage("removing the control plane needs a yes").hint("give `--yes`"));
    }
    let what = if args.purge { "the control plane and every rule" } else { "the control plane" };
    app.ui.say(&format!("This removes {what} from {}. Go on? [y/N]", cluster.description));
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::said(Exit::Failed)),
    }
}
