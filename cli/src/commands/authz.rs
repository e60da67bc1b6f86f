//! `authz check`: may this caller send this request? Decided as the proxy decides, by the same code.

mod live;
mod offline;
mod verdict;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::error::{Error, Exit, io_words};
use crate::flags::FileArgs;
use crate::output::Format;

use self::verdict::{Verdict, judge};

const EXAMPLES: &str = "\
Examples:
  # May the product page read ratings? Which policy and rule say so
  meshctl authz check --from deploy/productpage --to ratings:9080 GET /ratings/0
  # May an end user, by the token in a file
  meshctl authz check --from deploy/mesh-ingressgateway.mesh-system --to productpage GET /productpage --jwt token.jwt
  # Before anything is applied: by files alone
  meshctl authz check -f samples/bookinfo -f roles.yaml --from deploy/reviews-v1 --to ratings GET /ratings/0
  # For a program
  meshctl authz check --from sa/bookinfo-reviews --to ratings GET /ratings/0 -o json";

/// Arguments of `authz`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AuthzArgs {
    #[command(subcommand)]
    command: AuthzCommand,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
enum AuthzCommand {
    /// Says whether a request would be let in, and which policy and rule say so
    Check(CheckArgs),
}

/// Arguments of `authz check`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Who calls: POD, deploy/NAME, sa/NAME (each also with .NAMESPACE), spiffe://…, or `nobody`
    #[arg(long, value_name = "CALLER")]
    from: String,
    /// What is called: SERVICE[.NAMESPACE][:PORT]
    #[arg(long, value_name = "SERVICE")]
    to: String,
    /// Method of the request
    #[arg(value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Path of the request, with its query
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
    /// A header of the request, as `name: value`; can be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// File with the token of the end user, sent as `Authorization: Bearer`
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// The caller proves nothing: plain text instead of mutual TLS
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    files: FileArgs,
    /// Format of the answer: table|json|yaml
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs `authz`.
///
/// # Errors
/// When the request would not be let in, or it cannot be found out.
pub fn run(app: &App, args: &AuthzArgs) -> Result<(), Error> {
    let AuthzCommand::Check(args) = &args.command;
    let question = Question::read(args)?;
    let (question, targets) = if args.files.files.is_empty() {
        app.block_on(live::targets(app, args, question))?
    } else {
        offline::targets(app, args, question)?
    };
    let verdicts: Vec<Verdict> = targets.iter().map(|target| judge(target, &question)).collect();
    verdict::show(app, &args.output, &question, &verdicts)?;
    let is_allowed = verdicts.iter().all(|verdict| verdict.allowed);
    if is_allowed { Ok(()) } else { Err(Error::said(Exit::Failed)) }
}

/// A request and who sends it.
#[derive(Debug, Clone)]
struct Question {
    method: String,
    path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// Host of the service, and its port if one was given.
    authority: String,
    caller: Caller,
}

/// Who sends a request.
#[derive(Debug, Clone, Default)]
struct Caller {
    identity: Option<api::spiffe::SpiffeId>,
    address: Option<std::net::IpAddr>,
}

/// A service by name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    name: String,
    namespace: Option<String>,
    port: Option<u16>,
}

impl Question {
    fn read(args: &CheckArgs) -> Result<Self, Error> {
        let mut headers = Vec::new();
        for header in &args.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                Error::usage(format!("`{header}` is no header")).hint("write it like `-H 'x-role: admin'`")
            })?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if let Some(file) = &args.jwt {
            let text = std::fs::read_to_string(file)
                .map_err(|e| Error::failed(format!("cannot read {}", file.display())).because(io_words(&e)))?;
            headers.push(("authorization".to_owned(), format!("Bearer {}", text.trim())));
        }
        if !args.path.starts_with('/') {
            return Err(Error::usage(format!("`{}` is no path", args.path)).hint("a path begins with `/`"));
        }
        let to = Service::parse(&args.to)?;
        let port = to.port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Question {
            method: args.method.clone(),
            path: args.path.clone(),
            headers,
            authority: format!("{}{port}", to.name),
            caller: Caller::default(),
        })
    }
}

impl Service {
    fn parse(text: &str) -> Result<Self, Error> {
        let usage =
            || Error::usage(format!("`{text}` is no service")).hint("write SERVICE, SERVICE.NAMESPACE or SERVICE:PORT");
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| usage())?)),
            None => (text, None),
        };
        let mut parts = host.split('.');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(usage)?.to_owned();
        let namespace = parts.next().map(str::to_owned);
        Ok(Service { name, namespace, port })
    }
}

/// A name and its namespace, where it is written as `NAME.NAMESPACE`.
fn with_namespace<'n>(name: &'n str, default: &'n str) -> (&'n str, &'n str) {
    name.split_once('.').unwrap_or((name, default))
}

/// The identity of a service account.
fn identity(domain: &str, namespace: &str, account: &str) -> Result<api::spiffe::SpiffeId, Error> {
    let account = if account.is_empty() { "default" } else { account };
    let domain = domain.parse().map_err(|e: api::spiffe::InvalidId| Error::failed(e.to_string()))?;
    api::spiffe::SpiffeId::of_account(&domain, namespace, account).map_err(|e| Error::usage(e.to_string()))
}

/// Callers that need no look-up: nobody, an identity, a service account of the trust domain.
fn simple_caller(args: &CheckArgs, namespace: &str, domain: &str) -> Result<Option<Caller>, Error> {
    let of = |identity| Caller { identity: Some(identity), address: None };
    let caller = match args.from.as_str() {
        "nobody" => Some(Caller::default()),
        id if id.starts_with("spiffe://") => Some(of(id.parse().map_err(|e: api::spiffe::InvalidId| {
            Error::usage(format!("`{id}` is no identity")).because(e.to_string())
        })?)),
        from => match from.strip_prefix("sa/") {
            Some(account) => {
                let (account, namespace) = with_namespace(account, namespace);
                Some(of(identity(domain, namespace, account)?))
            }
            None => None,
        },
    };
    Ok(caller.map(|caller| if args.plain { Caller { identity: None, ..caller } } else { caller }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_as_in_urls() {
        let service = |name: &str, namespace: Option<&str>, port| Service {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            port,
        };
        for (text, expected) in [
            ("ratings", Some(service("ratings", None, None))),
            ("ratings:9080", Some(service("ratings", None, Some(9080)))),
            ("ratings.prod:9080", Some(service("ratings", Some("prod"), Some(9080)))),
            ("ratings.prod.svc.cluster.local", Some(service("ratings", Some("prod"), None))),
            ("", None),
            ("ratings:http", None),
            (":9080", None),
        ] {
            assert_eq!(Service::parse(text).ok(), expected, "{text}");
        }
    }
}
