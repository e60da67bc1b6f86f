//! `local up`: start, install, apply, and wait until everything is ready.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use api::messages::{Proxies, SyncState};
use api::names::{INGRESS_GATEWAY, INJECT, SYSTEM_NAMESPACE};
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream;
use install::{Values, manifests};
use local::Images;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Mesh;
use super::failures::{late, stop_at_failures};
use super::progress::{Picture, PodState};
use super::start::{self, Started};
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::commands::install as installation;
use crate::commands::write::{self, Done, Planned, Verb, done_line};
use crate::context::ROOT_FILE;
use crate::error::{Error, count, io_words};
use crate::flags::{FileArgs, duration};
use crate::mesh::{self, items, known};
use crate::objects::{self, Object};
use crate::resources::{name_of, namespace_of};
use crate::wait::took;

const EXAMPLES: &str = "\
Examples:
  # With an application; the programs behind its images are named in local-images.yaml beside the file
  meshctl local up -f samples/bookinfo/bookinfo.yaml --wait
  # With a program of your own
  meshctl local up -f app.yaml --image my/app:1=./target/debug/app
  # A second mesh beside the first
  meshctl local up --name second -f app.yaml
  # Stay in the foreground until Ctrl-C
  meshctl local up -f app.yaml --foreground";

/// Objects that are applied side by side.
const AT_ONCE: usize = 8;
/// How often the pods are looked at.
const EVERY: Duration = Duration::from_millis(30);

/// Arguments of `local up`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UpArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Wait until everything is ready, which is the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as everything is applied
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// Program that stands for an image; can be repeated
    #[arg(long, value_name = "REF=COMMAND")]
    image: Vec<String>,
    /// Port of the ingress gateway on this machine; by default 8080 or the next free one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Stay until Ctrl-C, and stop the mesh then
    #[arg(long)]
    foreground: bool,
    /// If the mesh's journal is damaged, keep a copy of it and go on with everything that can be read
    #[arg(long)]
    recover: bool,
}

/// Runs `local up`.
///
/// # Errors
/// When a file is invalid (nothing is started then), the mesh cannot be started, or something does not get ready.
pub(super) fn run(app: &App, mesh: &Mesh, args: &UpArgs) -> Result<(), Error> {
    let objects = match args.files.files.is_empty() {
        true => Vec::new(),
        false => {
            let (objects, warnings) = objects::load(&args.files, "nothing was started")?;
            for warning in &warnings {
                app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
            }
            objects
        }
    };
    let images = images(args)?;
    app.block_on(async {
        let started = Instant::now();
        let mut picture = Picture::new(app.ui, started);
        let result = up(app, mesh, args, Wanted { objects, images }, &mut picture).await;
        picture.clear();
        let (child, gateway, pods) = result?;
        if let Some(count) = pods {
            app.ui.say(&app.ui.err.good(&format!(
                "local mesh `{}` is up after {}: {count} pods are ready",
                mesh.name,
                took(started.elapsed())
            )));
        } else {
            app.ui.say(&format!("local mesh `{}` starts; see `meshctl local status{}`", mesh.name, mesh.flag()));
        }
        if let Some((url, path)) = &gateway {
            app.ui.line(&format!("gateway: {url}"))?;
            next(app, mesh, url, path.as_deref());
        }
        match child {
            Some(child) if args.foreground => foreground(app, child).await,
            _ => Ok(()),
        }
    })
}

/// What the user wants to run.
struct Wanted {
    objects: Vec<Object>,
    images: Images,
}

type Up = (Option<std::process::Child>, Option<(String, Option<String>)>, Option<usize>);

async fn up(app: &App, mesh: &Mesh, args: &UpArgs, wanted: Wanted, picture: &mut Picture) -> Result<Up, Error> {
    let (record, child) = match mesh.record()? {
        Some(_) if args.foreground => {
            return Err(Error::failed(format!("local mesh `{}` runs already", mesh.name))
                .hint(format!("stop it with `meshctl local down{}`, or leave --foreground out", mesh.flag())));
        }
        Some(record) => {
            if let Some(port) = args.port.filter(|port| !record.host_ports.iter().any(|p| p.port == *port)) {
                app.ui.warn(&format!("the mesh runs already; --port {port} is for its start"));
            }
            (record, None)
        }
        None => {
            if args.recover {
                recover(app, mesh)?;
            }
            let Started { record, child } = start::supervisor(mesh, args.port, !args.foreground, picture).await?;
            (record, Some(child))
        }
    };
    keep(mesh, wanted.images)?;
    let cluster = mesh.cluster().await?;
    picture.clear();
    app.ui.say(&app.ui.err.dim(&format!("on {}", cluster.description)));
    control_plane(mesh, &cluster, picture).await?;
    let namespaces = apply(app, &cluster, wanted.objects, picture).await?;
    if child.is_none() {
        start_anew(&cluster, &namespaces).await?;
    }
    let gateway = gateway(&cluster, &record).await?;
    if args.no_wait {
        return Ok((child, gateway, None));
    }
    let count = until_ready(&cluster, mesh, &namespaces, args.timeout, picture).await?;
    Ok((child, gateway, Some(count)))
}

/// Saves what can be read of a damaged journal, and says what is lost.
fn recover(app: &App, mesh: &Mesh) -> Result<(), Error> {
    if !mesh.dir.join("journal").exists() {
        return Ok(());
    }
    let saved = local::api::Store::recover(&mesh.dir).map_err(|e| super::journal_error(&e))?;
    let Some(copy) = saved.copy else {
        app.ui.say("the journal is sound; there is nothing to recover");
        return Ok(());
    };
    app.ui.say(&format!(
        "recovered {}; the damaged journal is kept as {}",
        count(saved.objects, "object"),
        copy.display()
    ));
    for lost in saved.lost {
        app.ui.warn(&format!("lost: {} bytes at byte {}: {}", lost.length, lost.offset, lost.what));
    }
    Ok(())
}

/// The programs behind images: those beside the files, and those of the command line.
fn images(args: &UpArgs) -> Result<Images, Error> {
    let wrong = |e: &local::ImagesError| {
        let words = e.to_string();
        let (what, hint) = words.split_once("\nhint: ").map_or((words.as_str(), None), |(w, h)| (w, Some(h)));
        let error = Error::failed(what);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    };
    let mut images = Images::default();
    let mut seen = BTreeSet::new();
    for file in args.files.files.iter().filter(|file| file.as_os_str() != "-") {
        let dir = if file.is_dir() { file.clone() } else { file.parent().map(PathBuf::from).unwrap_or_default() };
        let dir =
            std::path::absolute(if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir }).unwrap_or_default();
        let path = dir.join("local-images.yaml");
        if seen.insert(path.clone()) && path.is_file() {
            images.merge(Images::read(&path).map_err(|e| wrong(&e))?);
        }
    }
    let here = std::env::current_dir().unwrap_or_default();
    for argument in &args.image {
        images.merge(Images::parse_argument(argument, &here).map_err(|e| wrong(&e))?);
    }
    beside_meshctl(&mut images);
    Ok(images)
}

/// A program named without a slash is one beside `meshctl`, if there is one; else the node looks for it in `PATH`.
fn beside_meshctl(images: &mut Images) {
    let Some(dir) = std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)) else { return };
    for command in images.images.values_mut() {
        if let Some(program) = command.first_mut().filter(|program| !program.contains('/'))
            && dir.join(&program).is_file()
        {
            *program = dir.join(&program).display().to_string();
        }
    }
}

/// Tells the node the programs behind images, beside those that it knows from earlier.
fn keep(mesh: &Mesh, images: Images) -> Result<(), Error> {
    let mut all = Images::load(&mesh.dir).map_err(|e| Error::failed(e.to_string()))?;
    all.merge(images);
    all.save(&mesh.dir).map_err(|e| Error::failed(format!("cannot write to {}: {}", mesh.dir.display(), io_words(&e))))
}

/// Installs the control plane and waits until Pilot is ready: only then can pods be injected.
async fn control_plane(mesh: &Mesh, cluster: &Cluster, picture: &mut Picture) -> Result<(), Error> {
    picture.step("installing the control plane");
    let certificates = installation::certificates(cluster, api::names::DEFAULT_DOMAIN).await?;
    std::fs::write(mesh.dir.join(ROOT_FILE), &certificates.roots)
        .map_err(|e| Error::failed(format!("cannot write to {}: {}", mesh.dir.display(), io_words(&e))))?;
    let values = Values::new(crate::VERSION, certificates);
    installation::apply(cluster, manifests::render(&values), false, |_| Ok(())).await?;
    let label = json!({ "metadata": { "labels": { INJECT: "enabled" } } });
    cluster.merge(&known("namespaces")?, "", "default", &label).await?;
    let started = Instant::now();
    let labels = format!("app={}", api::names::PILOT);
    let pilot = Selection { namespace: Some(SYSTEM_NAMESPACE), labels: Some(&labels), ..Selection::default() };
    loop {
        let list = cluster.list(&known("pods")?, &pilot).await?;
        let pods: Vec<Value> = items(&list).cloned().collect();
        if pods.iter().any(mesh::is_ready) {
            return Ok(());
        }
        stop_at_failures(cluster, mesh, &pods, picture).await?;
        if started.elapsed() > Duration::from_secs(30) {
            return Err(late(cluster, mesh, &pods, started.elapsed()).await?);
        }
        picture.step("waiting for Pilot");
        sleep(EVERY).await;
    }
}

/// Applies the user's objects; gives the namespaces that they are in.
async fn apply(
    app: &App,
    cluster: &Cluster,
    objects: Vec<Object>,
    picture: &mut Picture,
) -> Result<BTreeSet<String>, Error> {
    let mut namespaces = BTreeSet::from([SYSTEM_NAMESPACE.to_owned()]);
    if objects.is_empty() {
        namespaces.insert("default".to_owned());
        return Ok(namespaces);
    }
    picture.step("applying the files");
    let mut planned = write::plan(app, cluster, Verb::Apply, objects).await?;
    planned.sort_by_key(|planned| turn(&planned.resource.kind));
    let mut changed = 0;
    for side_by_side in planned.chunk_by(|one, next| turn(&one.resource.kind) == turn(&next.resource.kind)) {
        let sent = side_by_side.iter().map(|planned| async move { (planned, send(cluster, planned).await) });
        let mut sent = stream::iter(sent).buffered(AT_ONCE);
        while let Some((planned, outcome)) = sent.next().await {
            let (answer, done) = outcome?;
            namespaces.insert(planned.namespace.clone());
            if done != Done::Unchanged {
                changed += 1;
                if !app.ui.is_live {
                    app.ui.say(&done_line(&planned.resource, &answer, done, false));
                }
            }
        }
    }
    if changed == 0 {
        picture.clear();
        app.ui.say("nothing in the files has changed");
    }
    Ok(namespaces)
}

/// Objects of one turn are applied side by side; what others need has an earlier turn.
fn turn(kind: &str) -> u8 {
    match kind {
        "Namespace" | "CustomResourceDefinition" => 0,
        "ServiceAccount" | "ConfigMap" | "Secret" | "Service" => 1,
        _ => 2,
    }
}

async fn send(cluster: &Cluster, planned: &Planned) -> Result<(Value, Done), Error> {
    write::send(cluster, Verb::Apply, planned, false).await.map_err(|e| {
        let at = planned.object.location.as_ref().map(|l| format!(" ({l})")).unwrap_or_default();
        let label = write::label(&planned.resource, &planned.namespace, name_of(&planned.object.value));
        e.because(format!("at {label}{at}"))
    })
}

/// Deletes pods that failed before: what they lacked may be there now, and their back-off is long by then.
async fn start_anew(cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<(), Error> {
    let resource = known("pods")?;
    let list = cluster.list(&resource, &Selection::default()).await?;
    for pod in items(&list).filter(|pod| namespaces.contains(namespace_of(pod))) {
        let is_owned = pod.pointer("/metadata/ownerReferences/0").is_some();
        if is_owned && matches!(PodState::of(pod), PodState::Failing(failure) if failure.is_final()) {
            let _ = cluster.delete(&resource, namespace_of(pod), name_of(pod), false).await?;
        }
    }
    Ok(())
}

/// The gateway's address on this machine, and a path that an Ingress leads somewhere.
async fn gateway(
    cluster: &Cluster,
    record: &local::supervisor::Record,
) -> Result<Option<(String, Option<String>)>, Error> {
    let Some(port) = record.host_ports.first() else { return Ok(None) };
    if cluster.get(&known("services")?, SYSTEM_NAMESPACE, INGRESS_GATEWAY).await?.is_none() {
        return Ok(None);
    }
    let list = cluster.list(&known("ingresses")?, &Selection::default()).await?;
    let path = items(&list).find_map(|ingress| {
        let path = ingress.pointer("/spec/rules/0/http/paths/0/path")?.as_str()?;
        Some(path.trim_end_matches(".*").to_owned())
    });
    Ok(Some((format!("http://127.0.0.1:{}", port.port), path)))
}

/// Waits until all pods are ready and all their proxies follow; gives the number of pods.
async fn until_ready(
    cluster: &Cluster,
    mesh: &Mesh,
    namespaces: &BTreeSet<String>,
    limit: Duration,
    picture: &mut Picture,
) -> Result<usize, Error> {
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        let (pods, are_complete) = pods(cluster, namespaces).await?;
        let is_done = are_complete && pods.iter().all(|pod| PodState::of(pod) == PodState::Ready);
        if is_done {
            picture.step("waiting for the proxies");
            let rest = limit.saturating_sub(started.elapsed());
            until_synced(cluster, &pods, rest).await?;
            return Ok(pods.len());
        }
        picture.pods(&pods);
        stop_at_failures(cluster, mesh, &pods, picture).await?;
        if started.elapsed() > limit {
            picture.clear();
            return Err(late(cluster, mesh, &pods, limit).await?);
        }
        // Many pods cost much to look at, and what is looked at needs the time too.
        sleep(EVERY.max(asked.elapsed() * 4)).await;
    }
}

/// The pods of namespaces, and whether every Deployment has all of its pods.
async fn pods(cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<(Vec<Value>, bool), Error> {
    let (pods, deployments) = (known("pods")?, known("deployments")?);
    let all = Selection::default();
    let lists = try_join_all([cluster.list(&pods, &all), cluster.list(&deployments, &all)]).await?;
    let in_scope = |object: &&Value| namespaces.contains(namespace_of(object));
    let alive: Vec<Value> = items(&lists[0])
        .filter(in_scope)
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
        .cloned()
        .collect();
    let number = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_u64);
    let are_complete = items(&lists[1]).filter(in_scope).all(|deployment| {
        let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
        number(deployment, "/status/updatedReplicas").unwrap_or(0) >= wanted
            && number(deployment, "/status/readyReplicas").unwrap_or(0) >= wanted
    });
    Ok((alive, are_complete))
}

/// Waits until Pilot knows the proxy of every pod that has one, and all of them have what Pilot sent.
async fn until_synced(cluster: &Cluster, pods: &[Value], limit: Duration) -> Result<(), Error> {
    let started = Instant::now();
    let wanted: Vec<String> = pods
        .iter()
        .filter(|pod| mesh::has_proxy(pod))
        .map(|pod| format!("{}.{}", name_of(pod), namespace_of(pod)))
        .collect();
    let mut pilots = mesh::pilots(cluster).await?;
    loop {
        let mut synced = BTreeSet::new();
        for pilot in &mut pilots {
            let answer: Proxies = pilot.connection.get("/v1/proxies").await?;
            let is_synced = |state: SyncState| matches!(state, SyncState::Synced | SyncState::NotSent);
            synced.extend(
                answer.proxies.into_iter().filter(|p| p.types.iter().all(|t| is_synced(t.state))).map(|p| p.id),
            );
        }
        let lagging: Vec<&str> = wanted.iter().filter(|id| !synced.contains(*id)).map(String::as_str).collect();
        if lagging.is_empty() {
            return Ok(());
        }
        if started.elapsed() > limit {
            return Err(Error::timeout("not every proxy follows the control plane")
                .because(format!("lagging: {}", lagging.join(", ")))
                .hint("see `meshctl proxy-status`"));
        }
        sleep(EVERY).await;
    }
}

fn next(app: &App, mesh: &Mesh, url: &str, path: Option<&str>) {
    let flag = mesh.flag();
    app.ui.say("next:");
    if let Some(path) = path {
        app.ui.say(&format!("  curl {url}{path}"));
    }
    for command in ["get pods", "proxy-status", "local status", "local down"] {
        app.ui.say(&format!("  meshctl {command}{flag}"));
    }
}

/// Stays until the supervisor ends, or Ctrl-C, which ends it.
async fn foreground(app: &App, mut child: std::process::Child) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    app.ui.say("stop it with Ctrl-C");
    let unwatched = |e: std::io::Error| Error::failed("cannot watch signals").because(io_words(&e));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unwatched)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unwatched)?;
    let mut is_told = false;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return if is_told || status.success() {
                Ok(())
            } else {
                Err(Error::failed(format!("the mesh ended ({status})")))
            };
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = sleep(Duration::from_millis(100)) => continue,
        }
        if !is_told {
            app.ui.say("stopping");
            is_told = true;
            super::down::terminate(child.id());
        }
    }
}
