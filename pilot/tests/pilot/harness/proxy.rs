//! A delta ADS client that does what a proxy does: subscribes, acknowledges, and asks for what it is told of.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::messages::node_metadata;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::{self, Struct, Value};
use envoy_types::pb::google::rpc;
use mesh_pilot::resource::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use super::within;

pub(crate) struct Proxy {
    id: String,
    /// How it takes part in mutual TLS, in the words of its metadata.
    pub(crate) tls: &'static str,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    outcome: Option<tokio::task::JoinHandle<Result<Streaming<DeltaDiscoveryResponse>, Status>>>,
    responses: Option<Streaming<DeltaDiscoveryResponse>>,
    /// What it has: kind, then name to version and encoded message.
    pub(crate) held: BTreeMap<Kind, BTreeMap<String, (String, Vec<u8>)>>,
}

impl Proxy {
    pub(crate) async fn connect(address: SocketAddr, root: &str, id: &str, token: &str) -> Proxy {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name(super::SERVER);
        let endpoint =
            Endpoint::from_shared(format!("https://{address}")).expect("an address").tls_config(tls).expect("TLS");
        let channel = within(endpoint.connect()).await.expect("it connects");
        let (requests, receiver) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        #[expect(clippy::disallowed_methods, reason = "the response's head comes only after the first request")]
        let outcome = tokio::spawn(async move { Ok(client.delta_aggregated_resources(request).await?.into_inner()) });
        Proxy {
            id: id.to_owned(),
            tls: node_metadata::TLS_OWN,
            requests,
            outcome: Some(outcome),
            responses: None,
            held: BTreeMap::new(),
        }
    }

    pub(crate) async fn send(&self, kind: Kind, change: impl FnOnce(&mut DeltaDiscoveryRequest)) {
        let tls = Value { kind: Some(protobuf::value::Kind::StringValue(self.tls.to_owned())) };
        let metadata = Struct { fields: [(node_metadata::TLS.to_owned(), tls)].into() };
        let node = Node {
            id: self.id.clone(),
            user_agent_name: "mesh-proxy".to_owned(),
            metadata: Some(metadata),
            ..Node::default()
        };
        let mut request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: kind.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        change(&mut request);
        let _ = self.requests.send(request).await;
    }

    pub(crate) async fn subscribe(&self, kind: Kind, names: &[&str]) {
        self.send(kind, |request| request.resource_names_subscribe = names.iter().map(ToString::to_string).collect())
            .await;
    }

    /// The next response, not acknowledged.
    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        if let Some(outcome) = self.outcome.take() {
            self.responses = Some(within(outcome).await.expect("no panic")?);
        }
        let responses = self.responses.as_mut().expect("open");
        within(responses.message()).await?.ok_or_else(|| Status::cancelled("the end"))
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let responses = self.responses.as_mut().expect("open");
        tokio::time::timeout(std::time::Duration::from_millis(300), responses.message()).await.is_err()
    }

    pub(crate) async fn ack(&mut self, response: &DeltaDiscoveryResponse) -> Kind {
        let kind = Kind::from_type_url(&response.type_url).expect("a kind");
        let held = self.held.entry(kind).or_default();
        let mut news = Vec::new();
        for resource in &response.resources {
            let body = resource.resource.clone().expect("a body").value;
            if held.insert(resource.name.clone(), (resource.version.clone(), body)).is_none() {
                news.push(resource.name.clone());
            }
        }
        for name in &response.removed_resources {
            held.remove(name);
        }
        let nonce = response.nonce.clone();
        self.send(kind, |request| request.response_nonce = nonce).await;
        // Endpoints of every new outbound cluster, as a proxy asks for them.
        let clusters: Vec<&str> =
            news.iter().map(String::as_str).filter(|name| name.starts_with("outbound|")).collect();
        if kind == Kind::Cluster && !clusters.is_empty() {
            self.subscribe(Kind::Endpoints, &clusters).await;
        }
        kind
    }

    pub(crate) async fn nack(&self, response: &DeltaDiscoveryResponse, message: &str) {
        let kind = Kind::from_type_url(&response.type_url).expect("a kind");
        let error = rpc::Status { code: 3, message: message.to_owned(), ..rpc::Status::default() };
        let nonce = response.nonce.clone();
        self.send(kind, |request| {
            request.response_nonce = nonce;
            request.error_detail = Some(error);
        })
        .await;
    }

    /// Subscribes to all of it and takes everything in until the routes of the three services are there.
    pub(crate) async fn subscribe_all(&mut self) {
        self.subscribe(Kind::Cluster, &[]).await;
        self.subscribe(Kind::Listener, &[]).await;
        self.subscribe(Kind::Route, &crate::ROUTES).await;
        while self.held.get(&Kind::Route).map_or(0, BTreeMap::len) < crate::ROUTES.len() {
            let response = self.next().await.expect("it is let in");
            self.ack(&response).await;
        }
    }

    /// Connects again, saying what it holds.
    pub(crate) async fn resubscribe(&mut self, before: &Proxy) {
        for kind in [Kind::Cluster, Kind::Listener, Kind::Endpoints, Kind::Route] {
            let held = before.held.get(&kind).cloned().unwrap_or_default();
            let names: Vec<String> = if kind.may_be_wildcard() { Vec::new() } else { held.keys().cloned().collect() };
            self.send(kind, |request| {
                request.resource_names_subscribe = names;
                request.initial_resource_versions =
                    held.iter().map(|(name, (version, _))| (name.clone(), version.clone())).collect();
            })
            .await;
        }
    }
}
