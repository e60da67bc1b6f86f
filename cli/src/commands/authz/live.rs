//! Callers and workloads of a running mesh: rules as the workloads' own proxies have them.

use std::net::{IpAddr, SocketAddr};

use engine::Kind;
use engine::compile::Compiler;
use engine::tables::Tables;
use engine::text::from_json;
use serde_json::Value;

use super::verdict::Target;
use super::{Caller, CheckArgs, Question, Service, identity, simple_caller, with_namespace};
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::error::Error;
use crate::mesh::{self, items, known};
use crate::resources::{name_of, namespace_of, text};

/// Finds who calls and what is called.
pub(super) async fn targets(
    app: &App,
    args: &CheckArgs,
    mut question: Question,
) -> Result<(Question, Vec<Target>), Error> {
    let cluster = app.cluster().await?;
    let namespace = app.namespace(&cluster).to_owned();
    question.caller = caller(&cluster, args, &namespace).await?;
    let service = Service::parse(&args.to)?;
    let of_service = service.namespace.clone().unwrap_or(namespace);
    let endpoints = endpoints(&cluster, &service, &of_service).await?;
    let mut targets = Vec::new();
    for (pod, address) in endpoints {
        let Some(object) = cluster.get(&known("pods")?, &of_service, &pod).await? else { continue };
        let tables = if mesh::has_proxy(&object) {
            let mut admin = mesh::proxy_admin(&cluster, &object).await?;
            Some(compiled(&admin.get("/config_dump").await?)?)
        } else {
            None
        };
        targets.push(Target { pod: format!("{of_service}/{pod}"), address, tables, places: Vec::new() });
    }
    if targets.is_empty() {
        return Err(Error::failed(format!("service {of_service}/{} has no endpoints", service.name))
            .hint(format!("see `meshctl get endpoints {} -n {of_service}`", service.name)));
    }
    Ok((question, targets))
}

async fn caller(cluster: &Cluster, args: &CheckArgs, namespace: &str) -> Result<Caller, Error> {
    let domain = mesh::trust_domain(cluster).await?;
    if let Some(caller) = simple_caller(args, namespace, &domain)? {
        return Ok(caller);
    }
    let (word, namespace) = match args.from.split_once('/') {
        Some((kind, name)) => {
            let (name, namespace) = with_namespace(name, namespace);
            (format!("{kind}/{name}"), namespace)
        }
        None => (args.from.clone(), namespace),
    };
    let pod = mesh::find_pod(cluster, namespace, &word).await?;
    let account = text(&pod, &["spec", "serviceAccountName"]).unwrap_or_default();
    let address = text(&pod, &["status", "podIP"]).and_then(|address| address.parse().ok());
    let identity = identity(&domain, namespace_of(&pod), account)?;
    Ok(Caller { identity: Some(identity).filter(|_| !args.plain), address })
}

/// The pods of a service, and the address of its port at each of them.
async fn endpoints(cluster: &Cluster, service: &Service, namespace: &str) -> Result<Vec<(String, SocketAddr)>, Error> {
    let services = known("services")?;
    let Some(object) = cluster.get(&services, namespace, &service.name).await? else {
        let list = cluster.list(&services, &Selection { namespace: Some(namespace), ..Selection::default() }).await?;
        let error = Error::failed(format!("there is no service `{}` in namespace {namespace}", service.name));
        return Err(match api::suggest::closest(&service.name, items(&list).map(name_of)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("see `meshctl get services -n {namespace}`")),
        });
    };
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |port: &Value| port.get("port").and_then(Value::as_u64);
    let wanted = ports.iter().find(|port| service.port.is_none_or(|wanted| number(port) == Some(wanted.into())));
    let Some(wanted) = wanted else {
        let all: Vec<String> = ports.iter().filter_map(number).map(|port| port.to_string()).collect();
        return Err(Error::failed(format!("service {namespace}/{} does not serve that port", service.name))
            .hint(format!("it serves {}", all.join(", "))));
    };
    let name = text(wanted, &["name"]).unwrap_or_default();
    let labels = format!("kubernetes.io/service-name={}", service.name);
    let selection = Selection { namespace: Some(namespace), labels: Some(&labels), ..Selection::default() };
    let slices = cluster.list(&known("endpointslices")?, &selection).await?;
    let mut found = Vec::new();
    for slice in items(&slices) {
        let ports = slice.get("ports").and_then(Value::as_array).into_iter().flatten();
        let port = ports
            .filter(|port| text(port, &["name"]).unwrap_or_default() == name)
            .find_map(|port| u16::try_from(port.get("port")?.as_u64()?).ok());
        let Some(port) = port else { continue };
        for endpoint in slice.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
            if let (Some(address), Some(pod)) = (address, text(endpoint, &["targetRef", "name"])) {
                found.push((pod.to_owned(), SocketAddr::new(address, port)));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a proxy decides with about who comes in, by what it shows.
fn compiled(dump: &Value) -> Result<Tables, Error> {
    let mut compiler = Compiler::new();
    for held in dump.get("listeners").and_then(Value::as_array).into_iter().flatten() {
        let name = text(held, &["name"]).unwrap_or_default();
        let unreadable =
            |why: String| Error::failed(format!("listener {name} of the proxy cannot be read")).because(why);
        let resource = from_json(Kind::Listener, held.get("resource").unwrap_or(&Value::Null), name)
            .map_err(|e| unreadable(e.to_string()))?;
        compiler.update(Kind::Listener, name, "1", &resource.body).map_err(|e| unreadable(e.to_string()))?;
    }
    Ok(compiler.tables())
}
