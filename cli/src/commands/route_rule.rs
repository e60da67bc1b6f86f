//! `create route-rule NAME`: a rule from flags, or from answers.

use api::names::{GROUP, VERSION};
use clap::Args;
use serde_json::{Map, Value, json};

use super::write::{self, Verb, WriteOptions};
use crate::app::App;
use crate::error::Error;
use crate::objects::{self, Source};

const EXAMPLES: &str = "\
Examples:
  # Nine of ten requests to v1, one to v3
  meshctl create route-rule reviews-canary --destination reviews \\
      --route version=v1:90 --route version=v3:10 --precedence 2
  # One user's requests to v2
  meshctl create route-rule reviews-jason --destination reviews --route version=v2 \\
      --precedence 2 --match-header 'cookie=regex:^(.*?;)?(user=jason)(;.*)?$'
  # Delay all of productpage's requests to details by 7 seconds, and fail half of them
  meshctl create route-rule details-fault --destination details --route version=v1 \\
      --source productpage --delay 7s:100 --abort 500:50
  # Try failed requests to ratings again, at most three times and each for at most half a second
  meshctl create route-rule ratings-retry --destination ratings --timeout 5s --retries 3:500ms
  # Look at the object that it makes
  meshctl create route-rule x --destination reviews --route version=v1 --dry-run -o yaml";

/// Arguments of `create route-rule`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RouteRuleArgs {
    /// Name of the rule
    #[arg(value_name = "NAME")]
    rule: Option<String>,
    /// Service that the rule is about: NAME, or NAME.NAMESPACE
    #[arg(long, value_name = "SERVICE", help_heading = "Rule")]
    destination: Option<String>,
    /// Where requests go: LABEL=VALUE[,…][:WEIGHT]; weights add up to 100; can be repeated
    #[arg(long = "route", value_name = "LABELS:WEIGHT", help_heading = "Rule", value_parser = route)]
    routes: Vec<Route>,
    /// Rules of higher precedence are asked first
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Rule")]
    precedence: Option<i32>,
    /// How long a request may take
    #[arg(long, value_name = "DURATION", help_heading = "Rule")]
    timeout: Option<String>,
    /// Try a failed request again: ATTEMPTS[:PER_TRY_TIMEOUT], as 3 or 3:500ms
    #[arg(long, value_name = "ATTEMPTS:TIMEOUT", help_heading = "Rule", value_parser = retries)]
    retries: Option<(u32, Option<String>)>,
    /// Header that a request must have: NAME=[exact:|prefix:|regex:]VALUE; can be repeated
    #[arg(long = "match-header", value_name = "NAME=MATCH", help_heading = "Match", value_parser = header)]
    headers: Vec<(String, Match)>,
    /// Path that a request must have: [exact:|prefix:|regex:]VALUE
    #[arg(long = "match-uri", value_name = "MATCH", help_heading = "Match", value_parser = matching)]
    uri: Option<Match>,
    /// Method that a request must have
    #[arg(long = "match-method", value_name = "MATCH", help_heading = "Match", value_parser = matching)]
    method: Option<Match>,
    /// Host that a request must be for
    #[arg(long = "match-authority", value_name = "MATCH", help_heading = "Match", value_parser = matching)]
    authority: Option<Match>,
    /// Service that the request must come from
    #[arg(long, value_name = "SERVICE", help_heading = "Match")]
    source: Option<String>,
    /// Label that the calling workload must have; can be repeated
    #[arg(long = "source-label", value_name = "LABEL=VALUE", help_heading = "Match", value_parser = label)]
    source_labels: Vec<(String, String)>,
    /// Delay requests: DURATION[:PERCENT]
    #[arg(long, value_name = "DURATION:PERCENT", help_heading = "Faults and changes", value_parser = share)]
    delay: Option<(String, f64)>,
    /// Answer with a status instead of calling the service: STATUS[:PERCENT]
    #[arg(long, value_name = "STATUS:PERCENT", help_heading = "Faults and changes", value_parser = share)]
    abort: Option<(String, f64)>,
    /// Redirect to this path instead of routing
    #[arg(long, value_name = "PATH", help_heading = "Faults and changes", conflicts_with = "routes")]
    redirect_uri: Option<String>,
    /// Redirect to this host instead of routing
    #[arg(long, value_name = "HOST", help_heading = "Faults and changes", conflicts_with = "routes")]
    redirect_authority: Option<String>,
    /// Replace the path, or the matched prefix of it
    #[arg(long, value_name = "PATH", help_heading = "Faults and changes")]
    rewrite_uri: Option<String>,
    /// Replace the host
    #[arg(long, value_name = "HOST", help_heading = "Faults and changes")]
    rewrite_authority: Option<String>,
    #[command(flatten)]
    options: WriteOptions,
}

/// One share of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    labels: Vec<(String, String)>,
    weight: Option<u32>,
}

/// A condition on a text: `exact`, `prefix` or `regex`, and its value.
type Match = (String, String);

/// Runs `create route-rule`.
///
/// # Errors
/// When something is missing and nobody can be asked, or the rule is invalid, there already, or refused.
pub fn run(app: &App, mut args: RouteRuleArgs) -> Result<(), Error> {
    complete(app, &mut args)?;
    let object = rule(&args, app.global.namespace.as_deref());
    create(app, &object, &args.options)
}

/// Checks and creates an object that flags mean.
pub(super) fn create(app: &App, object: &Value, options: &WriteOptions) -> Result<(), Error> {
    let source = Source { name: "the flags".to_owned(), text: object.to_string() };
    let mut parsed = objects::parse(&[source]);
    for problem in &mut parsed.problems {
        // Line and column would be those of a text that nobody wrote.
        problem.location = None;
    }
    if parsed.problems.iter().any(api::problem::Problem::is_error) {
        return Err(Error::problems("nothing was created", parsed.problems));
    }
    for warning in &parsed.problems {
        app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
    }
    for object in &mut parsed.objects {
        object.location = None;
    }
    write::write(app, Verb::Create, parsed.objects, options)
}

/// Asks for what is missing, if there is somebody to ask.
fn complete(app: &App, args: &mut RouteRuleArgs) -> Result<(), Error> {
    // A rule that changes requests or injects a fault may leave where they go as it is.
    let needs_route = !(args.redirect_uri.is_some()
        || args.redirect_authority.is_some()
        || args.rewrite_uri.is_some()
        || args.rewrite_authority.is_some()
        || args.delay.is_some()
        || args.abort.is_some()
        || args.timeout.is_some()
        || args.retries.is_some());
    let mut missing = Vec::new();
    if args.rule.is_none() {
        missing.push("NAME");
    }
    if args.destination.is_none() {
        missing.push("--destination SERVICE");
    }
    if args.routes.is_empty() && needs_route {
        missing
            .push("--route LABELS:WEIGHT (or --redirect-uri, --rewrite-uri, --delay, --abort, --timeout, --retries)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !app.ui.can_ask {
        return Err(Error::usage(format!("missing {}", missing.join(", ")))
            .hint("an example: `meshctl create route-rule reviews-canary --destination reviews --route version=v1:90 --route version=v3:10`"));
    }
    if args.destination.is_none() {
        args.destination = Some(ask(app, "Service that the rule is about", None)?);
    }
    if args.rule.is_none() {
        let proposal = args.destination.as_deref().map(|d| format!("{}-rule", d.split('.').next().unwrap_or(d)));
        args.rule = Some(ask(app, "Name of the rule", proposal.as_deref())?);
    }
    let mut left = 100;
    while needs_route && left > 0 && (args.routes.is_empty() || args.routes.iter().all(|r| r.weight.is_some())) {
        let question = format!("Where {left}% of the requests go, as version=v1 or version=v1:{}", left.min(90));
        match route(&ask(app, &question, None)?) {
            Ok(mut route) => {
                let weight = route.weight.unwrap_or(left);
                left = left.saturating_sub(weight);
                route.weight = Some(weight);
                args.routes.push(route);
            }
            Err(why) => app.ui.say(&why),
        }
    }
    Ok(())
}

fn ask(app: &App, question: &str, proposal: Option<&str>) -> Result<String, Error> {
    use std::io::Write as _;
    loop {
        let hint = proposal.map(|p| format!(" [{p}]")).unwrap_or_default();
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{}{hint}: ", app.ui.err.strong(question)).and_then(|()| stderr.flush());
        drop(stderr);
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        if !matches!(read, Ok(n) if n > 0) {
            return Err(Error::failed("no answer; nothing was created"));
        }
        match (answer.trim(), proposal) {
            ("", Some(proposal)) => return Ok(proposal.to_owned()),
            ("", None) => {}
            (answer, _) => return Ok(answer.to_owned()),
        }
    }
}

/// The object that the flags mean.
fn rule(args: &RouteRuleArgs, namespace: Option<&str>) -> Value {
    let mut metadata = json!({ "name": args.rule });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let mut spec = Map::new();
    spec.insert("destination".into(), service(args.destination.as_deref().unwrap_or_default()));
    if let Some(precedence) = args.precedence {
        spec.insert("precedence".into(), json!(precedence));
    }
    if let Some(matching) = conditions(args) {
        spec.insert("match".into(), matching);
    }
    if let Some(route) = routes(args) {
        spec.insert("route".into(), route);
    }
    let both = |uri: &Option<String>, authority: &Option<String>| {
        let fields: Map<String, Value> = [("uri", uri), ("authority", authority)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
            .collect();
        (!fields.is_empty()).then_some(Value::Object(fields))
    };
    let faults = faults(args);
    let timeout = args.timeout.as_ref().map(|t| json!({ "simpleTimeout": { "timeout": t } }));
    for (field, value) in [
        ("redirect", both(&args.redirect_uri, &args.redirect_authority)),
        ("rewrite", both(&args.rewrite_uri, &args.rewrite_authority)),
        ("httpReqTimeout", timeout),
        ("httpReqRetries", args.retries.as_ref().map(retry)),
        ("httpFault", faults),
    ] {
        if let Some(value) = value {
            spec.insert(field.to_owned(), value);
        }
    }
    json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "RouteRule", "metadata": metadata, "spec": spec })
}

/// `reviews`, `reviews.prod`, or a whole host name.
fn service(word: &str) -> Value {
    match word.split_once('.') {
        None => json!({ "name": word }),
        Some((name, namespace)) if !namespace.contains('.') => json!({ "name": name, "namespace": namespace }),
        Some(_) => match word.split_once(".svc") {
            Some((short, _)) => service(short),
            None => json!({ "service": word }),
        },
    }
}

fn conditions(args: &RouteRuleArgs) -> Option<Value> {
    let mut headers = Map::new();
    let fixed = [("uri", &args.uri), ("method", &args.method), ("authority", &args.authority)];
    let fixed = fixed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    for (name, (how, value)) in fixed.chain(args.headers.iter().cloned()) {
        headers.insert(name, json!({ how: value }));
    }
    let mut matching = Map::new();
    if args.source.is_some() || !args.source_labels.is_empty() {
        let mut source = args.source.as_deref().map_or_else(|| json!({}), service);
        if !args.source_labels.is_empty() {
            source["labels"] = object(&args.source_labels);
        }
        matching.insert("source".into(), source);
    }
    if !headers.is_empty() {
        matching.insert("request".into(), json!({ "headers": headers }));
    }
    (!matching.is_empty()).then_some(Value::Object(matching))
}

fn routes(args: &RouteRuleArgs) -> Option<Value> {
    let list: Vec<Value> = args
        .routes
        .iter()
        .map(|route| {
            let mut entry = json!({ "labels": object(&route.labels) });
            if let Some(weight) = route.weight {
                entry["weight"] = json!(weight);
            }
            entry
        })
        .collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

fn faults(args: &RouteRuleArgs) -> Option<Value> {
    let mut fault = Map::new();
    let number = |percent: f64| if percent.fract() == 0.0 { json!(percent as i64) } else { json!(percent) };
    if let Some((delay, percent)) = &args.delay {
        fault.insert("delay".into(), json!({ "percent": number(*percent), "fixedDelay": delay }));
    }
    if let Some((status, percent)) = &args.abort {
        let status = status.parse::<u32>().map_or_else(|_| json!(status), |code| json!(code));
        fault.insert("abort".into(), json!({ "percent": number(*percent), "httpStatus": status }));
    }
    (!fault.is_empty()).then_some(Value::Object(fault))
}

fn retry((attempts, per_try_timeout): &(u32, Option<String>)) -> Value {
    let mut retry = json!({ "attempts": attempts });
    if let Some(timeout) = per_try_timeout {
        retry["perTryTimeout"] = json!(timeout);
    }
    json!({ "simpleRetry": retry })
}

fn object(labels: &[(String, String)]) -> Value {
    Value::Object(labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}

fn route(text: &str) -> Result<Route, String> {
    let (labels, weight) = match text.rsplit_once(':') {
        Some((labels, weight)) => {
            let weight = weight
                .trim_end_matches('%')
                .parse()
                .map_err(|_| format!("`{weight}` is not a weight from 0 to 100"))?;
            (labels, Some(weight))
        }
        None => (text, None),
    };
    let labels = labels.split(',').map(label).collect::<Result<_, _>>()?;
    Ok(Route { labels, weight })
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not LABEL=VALUE, as in `version=v1`")),
    }
}

fn header(text: &str) -> Result<(String, Match), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=MATCH"))?;
    Ok((name.to_lowercase(), matching(value)?))
}

#[expect(clippy::unnecessary_wraps, reason = "clap asks for a result")]
fn matching(text: &str) -> Result<Match, String> {
    Ok(match text.split_once(':') {
        Some((how @ ("exact" | "prefix" | "regex"), value)) => (how.to_owned(), value.to_owned()),
        _ => ("exact".to_owned(), text.to_owned()),
    })
}

fn retries(text: &str) -> Result<(u32, Option<String>), String> {
    let (attempts, timeout) =
        text.split_once(':').map_or((text, None), |(attempts, timeout)| (attempts, Some(timeout)));
    let attempts =
        attempts.parse().map_err(|_| format!("`{attempts}` is not a number of attempts, as in `3:500ms`"))?;
    Ok((attempts, timeout.map(str::to_owned)))
}

fn share(text: &str) -> Result<(String, f64), String> {
    match text.rsplit_once(':') {
        None => Ok((text.to_owned(), 100.0)),
        Some((what, percent)) => {
            let percent =
                percent.trim_end_matches('%').parse().map_err(|_| format!("`{percent}` is not a percentage"))?;
            Ok((what.to_owned(), percent))
        }
    }
}
