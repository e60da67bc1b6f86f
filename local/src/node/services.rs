//! The Services of the mesh as its nftables, its DNS server and its host ports see them.

mod balancer;
mod dns;
mod rules;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::object::{array, label, name, namespace, text};
use crate::api::{ApiError, Reason, Selection, Store};
use crate::node::Shared;

use balancer::Balancer;
pub(crate) use balancer::{HostSockets, OpenPort};
pub(crate) use dns::fuzz as fuzz_dns;
use dns::{DnsServer, Upstream};
use rules::Rules;
pub(crate) use rules::RulesError;

/// Namespace and name of a Service.
pub(crate) type ServiceKey = (String, String);

/// All Services at one time; never changed, only replaced.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Services {
    /// By namespace and name.
    pub(crate) services: BTreeMap<ServiceKey, Service>,
}

/// One Service with its endpoints.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Service {
    /// Its address; none for a headless one.
    pub(crate) address: Option<IpAddr>,
    /// The name that it stands for, when its type is ExternalName.
    pub(crate) external_name: Option<String>,
    /// Whether it gets ports on the host.
    pub(crate) is_balanced: bool,
    /// Its ports.
    pub(crate) ports: Vec<ServicePort>,
    /// Addresses of its ready endpoints, with the host name of those that have one.
    pub(crate) hosts: Vec<(IpAddr, Option<String>)>,
}

/// One port of a Service.
#[derive(Debug, PartialEq)]
pub(crate) struct ServicePort {
    /// Its name; empty for the only one.
    pub(crate) name: String,
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// Port at the Service's address.
    pub(crate) port: u16,
    /// Ready endpoints: address and port.
    pub(crate) endpoints: Vec<(IpAddr, u16)>,
}

const SLICES: &str = "endpointslices.discovery.k8s.io";
/// Changes that come together are handled together.
const PAUSE: Duration = Duration::from_millis(2);

impl Services {
    /// Reads all Services and EndpointSlices.
    fn read(store: &Store) -> (u64, Self) {
        let services = store.list("services", &Selection::all());
        let slices = store.list(SLICES, &Selection::all());
        let mut by_service: BTreeMap<ServiceKey, Vec<Arc<Value>>> = BTreeMap::new();
        for slice in slices.items {
            if let Some(service) = label(&slice, "kubernetes.io/service-name") {
                by_service.entry((namespace(&slice).to_owned(), service.to_owned())).or_default().push(slice);
            }
        }
        let services_by_key = services.items.iter().map(|service| {
            let key = (namespace(service).to_owned(), name(service).to_owned());
            let slices = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
            (key, Service::read(service, slices))
        });
        (services.version, Self { services: services_by_key.collect() })
    }
}

impl Service {
    fn read(service: &Value, slices: &[Arc<Value>]) -> Self {
        let mut hosts = Vec::new();
        for endpoint in slices.iter().flat_map(|slice| array(slice, "/endpoints")).filter(|it| is_ready(it)) {
            let host = endpoint["hostname"].as_str().map(str::to_owned);
            hosts.extend(addresses(endpoint).map(|address| (address, host.clone())));
        }
        hosts.sort();
        hosts.dedup();
        Self {
            address: text(service, "/spec/clusterIP").parse().ok(),
            external_name: (text(service, "/spec/type") == "ExternalName")
                .then(|| text(service, "/spec/externalName").trim_end_matches('.').to_owned()),
            is_balanced: text(service, "/spec/type") == "LoadBalancer",
            ports: array(service, "/spec/ports").iter().filter_map(|port| ServicePort::read(port, slices)).collect(),
            hosts,
        }
    }
}

impl ServicePort {
    fn read(port: &Value, slices: &[Arc<Value>]) -> Option<Self> {
        let name = text(port, "/name").to_owned();
        let number = u16::try_from(port["port"].as_u64()?).ok()?;
        let mut endpoints = Vec::new();
        for slice in slices {
            let target = array(slice, "/ports").iter().find(|target| text(target, "/name") == name);
            let Some(target) = target.and_then(|it| it["port"].as_u64()).and_then(|it| u16::try_from(it).ok()) else {
                continue;
            };
            let ready = array(slice, "/endpoints").iter().filter(|endpoint| is_ready(endpoint));
            endpoints.extend(ready.flat_map(addresses).map(|address| (address, target)));
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        let protocol = match text(port, "/protocol") {
            "" | "TCP" => "tcp",
            "UDP" => "udp",
            _ => return None,
        };
        Some(Self { name, protocol, port: number, endpoints })
    }
}

fn is_ready(endpoint: &Value) -> bool {
    endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
}

fn addresses(endpoint: &Value) -> impl Iterator<Item = IpAddr> {
    array(endpoint, "/addresses").iter().filter_map(Value::as_str).filter_map(|address| address.parse().ok())
}

/// What the host gives to the Services of a mesh.
pub(crate) struct FromHost {
    /// The port of the ingress gateway.
    pub(crate) gateway: Option<HostSockets>,
    /// Opens others.
    pub(crate) more: Arc<dyn OpenPort>,
    /// A socket connected to the host's resolver.
    pub(crate) resolver: Option<std::net::UdpSocket>,
}

/// Why Services cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServicesError {
    /// Their addresses.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Their names.
    #[error("cannot serve DNS: {0}")]
    Dns(#[from] io::Error),
}

/// Serves addresses, names and host ports of all Services until cancelled.
///
/// # Errors
/// When one of them cannot be served at all.
pub(crate) async fn start(shared: &Shared, host: FromHost, token: &CancellationToken) -> Result<(), ServicesError> {
    let tracker = &shared.tracker;
    let rules = Rules::install().await?;
    let (sender, services) = watch::channel(Arc::default());
    let (store, until) = (Arc::clone(&shared.store), token.clone());
    tracker.spawn(async move {
        if let Some(Err(error)) = until.run_until_cancelled(follow(store, sender)).await {
            tracing::error!(%error, "services are not followed any more");
        }
    });
    let (of_rules, until) = (services.clone(), token.clone());
    tracker.spawn(async move { until.run_until_cancelled(rules.follow(of_rules)).await });
    let upstream = host.resolver.map(Upstream::new).transpose()?;
    if let Some(upstream) = &upstream {
        let (upstream, until) = (Arc::clone(upstream), token.clone());
        tracker.spawn(async move { until.run_until_cancelled(upstream.run()).await });
    }
    DnsServer::start(&shared.domain, services.clone(), upstream, tracker.clone(), token.clone()).await?;
    let balancer = Balancer::new(Arc::clone(&shared.store), services, tracker.clone(), token.clone());
    let (gateway, more, until) = (host.gateway, host.more, token.clone());
    tracker.spawn(async move { until.run_until_cancelled(balancer.follow(gateway, more)).await });
    Ok(())
}

/// Keeps the current Services in `services`.
async fn follow(store: Arc<Store>, services: watch::Sender<Arc<Services>>) -> Result<(), ApiError> {
    loop {
        let (version, current) = Services::read(&store);
        services.send_if_modified(|known| {
            let changed = **known != current;
            if changed {
                *known = Arc::new(current);
            }
            changed
        });
        let (mut of_services, mut of_slices) = (store.watch("services", version)?, store.watch(SLICES, version)?);
        let outcome = tokio::select! {
            outcome = of_services.next() => outcome,
            outcome = of_slices.next() => outcome,
        };
        match outcome {
            Ok(_) => {}
            Err(error) if error.reason == Reason::Expired => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
