//! `wait`: until proxies have applied objects, or objects are as they should be.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt as _;

use super::target::{Target, TargetArgs};
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::error::Error;
use crate::flags::duration;
use crate::jsonpath::Template;
use crate::mesh::{self, items};
use crate::resources::{text, version_of};
use crate::wait::{Change, took, until_applied};

const EXAMPLES: &str = "\
Examples:
  # Until every proxy concerned has applied a rule as it is now
  meshctl wait route-rule/reviews-canary
  meshctl wait -f route-rules.yaml --timeout 60s
  # Until pods are ready, or a Deployment has rolled out
  meshctl wait pods -l app=reviews --for=condition=Ready
  meshctl wait deploy/reviews-v3 --for=condition=Available
  # Until something is there, or gone, or says something
  meshctl wait pod/curl --for=create
  meshctl wait pod/curl --for=delete
  meshctl wait pod/curl --for=jsonpath='{.status.phase}'=Running";

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WaitForArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// What to wait for: applied|create|delete|condition=TYPE[=STATUS]|jsonpath=PATH[=VALUE]; for the mesh's own kinds
    /// `applied` if it is not said
    #[arg(long = "for", value_name = "WHAT")]
    until: Option<For>,
    /// How long to wait for all of them together
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// Format of the answer: table|json
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["table", "json"], default_value = "table", hide_default_value = true)]
    output: String,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum For {
    /// All proxies have it.
    Applied,
    /// It is there.
    Create,
    /// It is gone.
    Delete,
    /// A condition of its status has this value.
    Condition(String, String),
    /// A path has this value, or any.
    Path(Template, String, Option<String>),
}

impl FromStr for For {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("applied", "") => Ok(For::Applied),
            ("create", "") => Ok(For::Create),
            ("delete", "") => Ok(For::Delete),
            ("condition", condition) if !condition.is_empty() => {
                let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
                Ok(For::Condition(kind.to_owned(), status.to_owned()))
            }
            ("jsonpath", rest) if !rest.is_empty() => {
                let (path, value) = match rest.rfind('}') {
                    Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
                    None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
                };
                let template = Template::parse(path).map_err(|error| error.to_string())?;
                Ok(For::Path(template, path.to_owned(), value.map(str::to_owned)))
            }
            _ => Err("it can be applied, create, delete, condition=TYPE[=STATUS] or jsonpath=PATH[=VALUE]".to_owned()),
        }
    }
}

impl For {
    /// Whether an object (`None` when there is none) is as it is waited for; else how it is.
    fn judge(&self, object: Option<&Value>) -> Result<(), String> {
        let is_there = |object: Option<&Value>| match object {
            Some(_) => "it is there".to_owned(),
            None => "it is not there".to_owned(),
        };
        match (self, object) {
            (For::Create, Some(_)) | (For::Delete, None) | (For::Applied, _) => Ok(()),
            (For::Create | For::Delete, object) => Err(is_there(object)),
            (For::Condition(kind, status), Some(object)) => condition(object, kind, status),
            (For::Path(template, path, value), Some(object)) => {
                let found = template.render(object);
                match value {
                    Some(value) if found == *value => Ok(()),
                    None if !found.is_empty() => Ok(()),
                    _ if found.is_empty() => Err(format!("{path} is empty")),
                    _ => Err(format!("{path} is {found}")),
                }
            }
            (_, None) => Err(is_there(None)),
        }
    }

    fn words(&self) -> String {
        match self {
            For::Applied => "applied".to_owned(),
            For::Create => "created".to_owned(),
            For::Delete => "deleted".to_owned(),
            For::Condition(..) | For::Path(..) => "condition met".to_owned(),
        }
    }
}

/// Whether a condition of an object has a value; else what it has. One that is about an older generation does not count.
fn condition(object: &Value, kind: &str, status: &str) -> Result<(), String> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut of_kind = conditions.filter(|it| text(it, &["type"]).is_some_and(|word| word.eq_ignore_ascii_case(kind)));
    let Some(found) = of_kind.next() else { return Err(format!("it has no condition {kind}")) };
    let number = |value: Option<&Value>| value.and_then(Value::as_i64);
    let (seen, now) = (number(found.get("observedGeneration")), number(object.pointer("/metadata/generation")));
    if seen.zip(now).is_some_and(|(seen, now)| seen < now) {
        return Err(format!("condition {kind} is about an older generation of it"));
    }
    let has = text(found, &["status"]).unwrap_or_default();
    if has.eq_ignore_ascii_case(status) {
        return Ok(());
    }
    let why: Vec<&str> = ["reason", "message"].iter().filter_map(|field| text(found, &[field])).collect();
    let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(": ")) };
    Err(format!("condition {kind} is {has}{why}"))
}

/// Runs `wait`.
///
/// # Errors
/// When the time is over, with how things are then; when an object is not there; when a proxy refuses it.
pub fn run(app: &App, args: &WaitForArgs) -> Result<(), Error> {
    if args.targets.is_empty() {
        return Err(Error::usage("what to wait for is missing")
            .hint("name it, as `meshctl wait route-rule/NAME` or `meshctl wait pod/NAME --for=condition=Ready`"));
    }
    app.block_on(async {
        let cluster = app.cluster().await?;
        let targets = args.targets.find(app, &cluster).await?;
        if targets.is_empty() {
            return Err(Error::failed("there is nothing to wait for").hint("no object has these labels"));
        }
        let what = wanted(args, &targets)?;
        match what {
            For::Applied => applied(app, &cluster, args, &targets).await,
            what => reached(app, &cluster, args, (&targets, &what)).await,
        }
    })
}

/// What is said, else `applied` for kinds that proxies apply.
fn wanted(args: &WaitForArgs, targets: &[Target]) -> Result<For, Error> {
    let others = targets.iter().find(|target| !target.resource.is_mesh());
    match (&args.until, others) {
        (Some(For::Applied), Some(other)) => Err(Error::usage(format!("proxies do not apply {}", other.label()))
            .hint("wait for a condition of it, as `--for=condition=Ready`")),
        (Some(what), _) => Ok(what.clone()),
        (None, None) => Ok(For::Applied),
        (None, Some(other)) => Err(Error::usage(format!("what to wait for of {} is missing", other.label()))
            .hint("say it, as `--for=condition=Ready`, `--for=delete` or `--for=jsonpath='{.status.phase}'=Running`")),
    }
}

/// Waits until all proxies have applied all objects.
async fn applied(app: &App, cluster: &Cluster, args: &WaitForArgs, targets: &[Target]) -> Result<(), Error> {
    let started = Instant::now();
    let mut changes = Vec::new();
    for target in targets {
        match cluster.get(&target.resource, &target.namespace, &target.name).await? {
            Some(object) => changes.push(Change::made(&target.resource, &object)),
            None => return Err(target.not_there(cluster).await?),
        }
    }
    let proxies = until_applied(app, mesh::pilots(cluster), &changes, args.timeout).await?;
    if args.output == "json" {
        let objects: Vec<Value> = targets.iter().map(|target| told(target, "applied")).collect();
        return app.ui.json(&json!({
            "objects": objects, "proxies": proxies, "seconds": started.elapsed().as_secs_f64(),
        }));
    }
    targets.iter().try_for_each(|target| app.ui.line(&format!("{} applied", target.word())))
}

/// Waits until each object is as it should be.
async fn reached(
    app: &App,
    cluster: &Cluster,
    args: &WaitForArgs,
    (targets, what): (&[Target], &For),
) -> Result<(), Error> {
    let (started, deadline) = (Instant::now(), Instant::now() + args.timeout);
    let mut met = Vec::new();
    for target in targets {
        let mut last = String::new();
        let is_late = match timeout_at(deadline, follow(cluster, target, what, &mut last)).await {
            Ok(reached) => reached.map(|()| false)?,
            Err(_) => true,
        };
        if is_late {
            // However short the time was, what there is now is looked at.
            if last.is_empty() {
                let now = cluster.get(&target.resource, &target.namespace, &target.name).await?;
                last = what.judge(now.as_ref()).err().unwrap_or_default();
            }
            if !last.is_empty() {
                let left = targets.len() - met.len() - 1;
                let more = if left > 0 { format!("; {left} more were not looked at") } else { String::new() };
                return Err(Error::timeout(format!("{} after {}: {last}{more}", target.label(), took(args.timeout)))
                    .hint(format!("see `meshctl describe {}`, or give more time with --timeout", target.word())));
            }
        }
        if args.output != "json" {
            app.ui.line(&format!("{} {}", target.word(), what.words()))?;
        }
        met.push(told(target, &what.words()));
    }
    if args.output == "json" {
        app.ui.json(&json!({ "objects": met, "seconds": started.elapsed().as_secs_f64() }))?;
    }
    Ok(())
}

fn told(target: &Target, what: &str) -> Value {
    json!({ "kind": target.resource.kind, "namespace": target.namespace, "name": target.name, "reached": what })
}

/// Follows one object until it is as it should be; `last` says how it was the last time.
async fn follow(cluster: &Cluster, target: &Target, what: &For, last: &mut String) -> Result<(), Error> {
    let field = format!("metadata.name={}", target.name);
    let namespace = Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let selection = Selection { namespace, labels: None, fields: Some(&field) };
    let mut judge = |object: Option<&Value>| match what.judge(object) {
        Ok(()) => true,
        Err(how) => {
            *last = how;
            false
        }
    };
    let may_come = matches!(what, For::Create | For::Delete);
    loop {
        let list = cluster.list(&target.resource, &selection).await?;
        let object = items(&list).next();
        if object.is_none() && !may_come {
            return Err(target.not_there(cluster).await?);
        }
        if judge(object) {
            return Ok(());
        }
        let stream = cluster.watch(&target.resource, &selection, version_of(&list)).await?;
        let lines = futures_util::AsyncBufReadExt::lines(stream);
        tokio::pin!(lines);
        while let Some(Ok(line)) = lines.next().await {
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let is_reached = match (text(&event, &["type"]), event.get("object")) {
                (Some("ADDED" | "MODIFIED"), Some(object)) => judge(Some(object)),
                (Some("DELETED"), _) if may_come => judge(None),
                (Some("DELETED"), _) => {
                    return Err(Error::failed(format!("{} was deleted meanwhile", target.label())));
                }
                // The version is too old to go on from.
                (Some("ERROR"), _) => break,
                _ => false,
            };
            if is_reached {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_wait_for_is_read_as_kubectl_reads_it() {
        let read = |text: &str| text.parse::<For>().expect(text);
        assert_eq!(read("condition=Ready"), For::Condition("Ready".into(), "True".into()));
        assert_eq!(read("condition=Ready=False"), For::Condition("Ready".into(), "False".into()));
        for text in ["jsonpath={.status.phase}=Running", "jsonpath=.status.phase=Running"] {
            assert!(matches!(read(text), For::Path(_, _, Some(value)) if value == "Running"), "{text}");
        }
        assert!(matches!(read("jsonpath={.items[?(@.a==\"b=c\")].d}"), For::Path(_, _, None)));
        for text in ["", "ready", "condition=", "jsonpath=", "jsonpath={.a", "applied=1"] {
            assert!(text.parse::<For>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_object_is_judged_by_what_it_says_now() {
        let pod = json!({
            "metadata": {"generation": 2},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "app"},
                {"type": "Old", "status": "True", "observedGeneration": 1},
            ]},
        });
        for (what, expected) in [
            ("condition=ready", Err("condition ready is False (ContainersNotReady: app)")),
            ("condition=Ready=false", Ok(())),
            ("condition=Old", Err("condition Old is about an older generation of it")),
            ("condition=New", Err("it has no condition New")),
            ("jsonpath={.status.phase}=Running", Ok(())),
            ("jsonpath={.status.phase}=Failed", Err("{.status.phase} is Running")),
            ("jsonpath={.status.podIP}", Err("{.status.podIP} is empty")),
            ("create", Ok(())),
            ("delete", Err("it is there")),
        ] {
            let judged = what.parse::<For>().expect(what).judge(Some(&pod));
            assert_eq!(judged, expected.map_err(str::to_owned), "{what}");
        }
        assert_eq!(For::Delete.judge(None), Ok(()));
        assert_eq!(For::Create.judge(None), Err("it is not there".to_owned()));
    }
}
