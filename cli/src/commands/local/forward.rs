//! `local port-forward`: ports of this machine that lead into a pod.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::Mesh;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{Error, io_words};
use crate::mesh::{self, known};
use crate::output::Ui;
use crate::resources::{self, name_of, namespace_of, text};

const EXAMPLES: &str = "\
Examples:
  # Port 9080 of a pod, on the same port of 127.0.0.1 and ::1
  meshctl local port-forward deploy/reviews-v1 9080
  # A service's port 9080, on port 8000 here; and any free port
  meshctl local port-forward svc/productpage 8000:9080
  meshctl local port-forward svc/productpage :9080
  # Several ports, by number or name
  meshctl local port-forward productpage 9080:http 15000";

/// Arguments of `local port-forward`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ForwardArgs {
    /// POD, POD.NAMESPACE, deploy/NAME or svc/NAME
    #[arg(value_name = "TARGET")]
    pod: String,
    /// Port of this machine, and port of the target by number or name; without the first the same one, `:PORT` for a free one
    #[arg(value_name = "[LOCAL:]REMOTE", required = true, num_args = 1..=32)]
    ports: Vec<String>,
    /// Address to listen on; can be repeated. By default 127.0.0.1 and ::1
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<IpAddr>,
}

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;

/// One port as it was typed: where it is here (0: anywhere), and what it is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Typed {
    here: Option<u16>,
    there: String,
}

impl Typed {
    fn parse(word: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::usage(format!("`{word}` is not [LOCAL:]REMOTE"))
                .hint("write `9080`, `8000:9080`, `:9080` or `8000:http`")
        };
        let (here, there) = match word.split_once(':') {
            None => (None, word),
            Some(("", there)) => (Some(0), there),
            Some((here, there)) => (Some(here.parse().map_err(|_| wrong())?), there),
        };
        if there.is_empty() || there.contains(':') || there.parse::<u64>().is_ok_and(|it| it == 0 || it > 65_535) {
            return Err(wrong());
        }
        Ok(Typed { here, there: there.to_owned() })
    }
}

/// Runs `local port-forward` until Ctrl-C.
///
/// # Errors
/// When there is no such target or port, a port of this machine is taken, or the pod is gone for good.
pub(super) fn run(app: &App, mesh: &Mesh, args: &ForwardArgs) -> Result<(), Error> {
    let typed = args.ports.iter().map(|word| Typed::parse(word)).collect::<Result<Vec<_>, _>>()?;
    app.block_on(async {
        let cluster = mesh.cluster().await?;
        let namespace = app.namespace(&cluster).to_owned();
        let target = Target { cluster, namespace, word: args.pod.clone(), ui: app.ui };
        let pod = target.pod().await?;
        let service = target.service().await?;
        let mut ports = Vec::new();
        for typed in &typed {
            let there = resolve(&pod, service.as_ref(), &typed.there)?;
            let shown = typed.there.parse().unwrap_or(there);
            ports.push((open(&args.address, typed.here.unwrap_or(shown)).await?, there));
        }
        for (listeners, there) in &ports {
            for listener in listeners {
                let here = listener.local_addr().map_err(|e| Error::failed(io_words(&e)))?;
                app.ui.line(&format!("Forwarding from {here} -> {there}"))?;
            }
        }
        serve(target, pod, ports).await
    })
}

async fn serve(target: Target, pod: Value, ports: Vec<(Vec<TcpListener>, u16)>) -> Result<(), Error> {
    let unwatched = |e: std::io::Error| Error::failed("cannot watch signals").because(io_words(&e));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unwatched)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unwatched)?;
    let target = Arc::new((target, Mutex::new(pod)));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    for (listeners, there) in ports {
        for listener in listeners {
            tasks.spawn(accept(listener, there, Arc::clone(&target), Arc::clone(&places)));
        }
    }
    tokio::select! {
        // Acceptors end only with the pod.
        Some(Ok(error)) = tasks.join_next() => Err(error),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

type Shared = Arc<(Target, Mutex<Value>)>;

/// Serves one listener until there is nobody to forward to any more.
async fn accept(listener: TcpListener, there: u16, target: Shared, places: Arc<Semaphore>) -> Error {
    let mut connections: JoinSet<Option<Error>> = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Error::failed("no more connections can be made");
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let target = Arc::clone(&target);
                    connections.spawn(async move {
                        let outcome = connection(stream, there, &target).await;
                        drop(place);
                        outcome
                    });
                }
                Err(error) => {
                    target.0.ui.warn(&format!("a connection could not be accepted: {}", io_words(&error)));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Some(error)) = ended {
                    return error;
                }
            }
        }
    }
}

/// Forwards one connection; an error comes back only when no other could be forwarded either.
async fn connection(mut client: TcpStream, there: u16, target: &Shared) -> Option<Error> {
    let _ = client.set_nodelay(true);
    let (target, pod) = (&target.0, &target.1);
    let mut known = pod.lock().await.clone();
    let mut forwarded = target.forward(&known, there).await;
    if forwarded.is_err() {
        // The pod may have been replaced meanwhile; who was named by Deployment or Service is found again.
        match target.pod().await {
            Ok(found) if found["metadata"]["uid"] != known["metadata"]["uid"] => {
                target.ui.say(&format!("going on with pod {}/{}", namespace_of(&found), name_of(&found)));
                pod.lock().await.clone_from(&found);
                known = found;
                forwarded = target.forward(&known, there).await;
            }
            Ok(_) => {}
            Err(gone) => {
                reset(&client);
                return Some(gone);
            }
        }
    }
    let mut forwarder = match forwarded {
        Ok(forwarder) => forwarder,
        Err(error) => {
            target.ui.warn(error.message());
            reset(&client);
            return None;
        }
    };
    let refusal = forwarder.take_error(there);
    let mut stream = forwarder.take_stream(there)?;
    let refused = async {
        match refusal {
            Some(refusal) => match refusal.await {
                Some(why) => why,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        why = refused => {
            target.ui.warn(&why);
            reset(&client);
        }
        // How a connection ends is between its two ends.
        _ = copy_bidirectional(&mut client, &mut stream) => {}
    }
    None
}

/// Lets the client see a reset instead of an empty answer.
fn reset(client: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

/// What the command line names.
struct Target {
    cluster: Cluster,
    namespace: String,
    word: String,
    ui: Ui,
}

impl Target {
    async fn pod(&self) -> Result<Value, Error> {
        mesh::find_pod(&self.cluster, &self.namespace, &self.word).await
    }

    /// The Service, if it is one that is named.
    async fn service(&self) -> Result<Option<Value>, Error> {
        match self.word.split_once('/') {
            Some((kind, name)) if resources::by_word(kind).is_some_and(|it| it.kind == "Service") => {
                self.cluster.get(&known("services")?, &self.namespace, name).await
            }
            _ => Ok(None),
        }
    }

    async fn forward(&self, pod: &Value, port: u16) -> Result<kube::api::Portforwarder, Error> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), namespace_of(pod));
        pods.portforward(name_of(pod), &[port]).await.map_err(|e| {
            let words = match e {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            Error::unreachable(format!("cannot forward to pod {}/{}: {words}", namespace_of(pod), name_of(pod)))
        })
    }
}

/// The number of a pod's port: as a Service's port, by the pod's own name for it, or as it is.
fn resolve(pod: &Value, service: Option<&Value>, word: &str) -> Result<u16, Error> {
    let number = |value: &Value| value.as_u64().and_then(|it| u16::try_from(it).ok());
    let list = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let containers = || ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|path| list(pod, path));
    let of_pod = |name: &str| {
        let ports = containers().flat_map(|container| list(&container, "/ports"));
        ports.into_iter().find(|port| port["name"] == *name).and_then(|port| number(&port["containerPort"]))
    };
    let unknown = |what: &str, object: &Value, known: BTreeSet<String>| {
        let error = Error::failed(format!("{what} {}/{} has no port `{word}`", namespace_of(object), name_of(object)));
        match known.is_empty() {
            true => error.hint("name it by its number"),
            false => error.hint(format!("its ports: {}", known.into_iter().collect::<Vec<_>>().join(", "))),
        }
    };
    let described = |ports: &[Value], field: &str| -> BTreeSet<String> {
        let word = |port: &Value| match text(port, &["name"]) {
            Some(name) => format!("{} ({name})", port[field]),
            None => port[field].to_string(),
        };
        ports.iter().map(word).collect()
    };
    if let Some(service) = service {
        let ports = list(service, "/spec/ports");
        let found = ports.iter().find(|port| port["name"] == *word || port["port"].as_u64() == word.parse().ok());
        let Some(found) = found else { return Err(unknown("service", service, described(&ports, "port"))) };
        let target = match &found["targetPort"] {
            Value::String(name) => name.parse().ok().or_else(|| of_pod(name)),
            Value::Null => number(&found["port"]),
            other => number(other),
        };
        return target.ok_or_else(|| {
            Error::failed(format!("pod {} has no port {} that the service means", name_of(pod), found["targetPort"]))
        });
    }
    let all: Vec<Value> = containers().flat_map(|container| list(&container, "/ports")).collect();
    word.parse().ok().or_else(|| of_pod(word)).ok_or_else(|| unknown("pod", pod, described(&all, "containerPort")))
}

/// Listens on a port of all addresses; without any named, on both loopback addresses, as far as the machine has them.
async fn open(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, Error> {
    let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let wanted = if addresses.is_empty() { &both[..] } else { addresses };
    let mut port = port;
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in wanted {
        match TcpListener::bind(SocketAddr::new(*address, port)).await {
            Ok(listener) => {
                port = listener.local_addr().map_err(|e| Error::failed(io_words(&e)))?.port();
                listeners.push(listener);
            }
            // No IPv6 on this machine.
            Err(error)
                if addresses.is_empty() && !listeners.is_empty() && error.kind() != std::io::ErrorKind::AddrInUse => {}
            Err(error) => {
                let place = SocketAddr::new(*address, port);
                return Err(Error::failed(format!("cannot listen on {place}: {}", io_words(&error)))
                    .hint("choose another port, as `8000:REMOTE`, or any free one with `:REMOTE`"));
            }
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        let read = |word: &str| Typed::parse(word).ok().map(|it| (it.here, it.there));
        for (word, expected) in [
            ("9080", Some((None, "9080"))),
            ("8000:9080", Some((Some(8000), "9080"))),
            (":9080", Some((Some(0), "9080"))),
            ("8000:http", Some((Some(8000), "http"))),
            ("http", Some((None, "http"))),
            ("", None),
            ("8000:", None),
            ("x:9080", None),
            ("70000:1", None),
            ("1:70000", None),
            ("1:2:3", None),
        ] {
            assert_eq!(read(word), expected.map(|(here, there)| (here, there.to_owned())), "{word}");
        }
    }

    #[test]
    fn a_services_port_leads_to_the_pods() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"name": "raw", "port": 90, "targetPort": 9090},
        ]}});
        let port = |service: Option<&Value>, word: &str| resolve(&pod, service, word).ok();
        assert_eq!(port(Some(&service), "80"), Some(8080));
        assert_eq!(port(Some(&service), "http"), Some(8080));
        assert_eq!(port(Some(&service), "raw"), Some(9090));
        assert_eq!(port(Some(&service), "9090"), None);
        assert_eq!(port(None, "web"), Some(8080));
        assert_eq!(port(None, "15000"), Some(15000));
        let error = resolve(&pod, None, "wbe").expect_err("there is none");
        assert!(error.to_text(crate::paint::Paint::PLAIN).contains("its ports: 8080 (web)"));
    }
}
