//! Members of a mesh for tests: data paths with certificates of their own, and TLS between them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use api::spiffe::SpiffeId;
use engine::proto::{Kind, cluster, core, endpoint, extension, listener, matcher, protobuf, raw_buffer, tls};
use engine::proto::{http_inspector, tls_inspector};
use engine::tables::alpn;
use mesh_proxy::{Edge, Settings};
use runtime::authority::Root;
use runtime::svid::{self, Publisher, Svids};

use super::{Mesh, any, chain, cluster as cluster_of, lb_endpoint, listener_filter, manager, metadata, proxy, seconds};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/productpage";
pub const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// A trust domain with one root.
pub struct Domain {
    pub root: Root,
}

/// What an identity is known by, and who publishes it.
pub struct Member {
    pub id: SpiffeId,
    pub publisher: Publisher,
    pub svids: Svids,
}

impl Domain {
    pub fn new() -> Self {
        Domain { root: Root::new("mesh root").expect("a root") }
    }

    /// A member with a certificate that holds.
    pub fn join(&self, id: &str) -> Member {
        let (publisher, svids) = svid::channel();
        let member = Member { id: id.parse().expect("an identity"), publisher, svids };
        self.renew(&member);
        member
    }

    /// Gives a member another certificate.
    pub fn renew(&self, member: &Member) {
        let svid = self.root.svid(&member.id, SystemTime::now() - HOUR, 2 * HOUR).expect("an SVID");
        member.publisher.publish(svid, self.root.bundle(&member.id).expect("a bundle"));
    }
}

/// What an inbound listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// TLS of the mesh alone.
    Strict,
    /// Clear text and an application's own TLS as well.
    Permissive,
}

impl Member {
    /// A data path with this identity.
    pub fn mesh(&self) -> Mesh {
        self.mesh_with(Settings::default())
    }

    /// A data path with this identity that is different in some way.
    pub fn mesh_with(&self, settings: Settings) -> Mesh {
        let mesh = Mesh::with(Settings { svids: self.svids.clone(), ..settings });
        let following = std::sync::Arc::clone(&mesh.path).follow_identity();
        mesh.tasks.spawn_until_cancelled("identity", following);
        mesh
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), ..Default::default() }
}

fn common(servers: &[&str], words: &[&str]) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let matchers = servers.iter().map(|server| tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact((*server).to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    });
    let context =
        tls::CertificateValidationContext { match_typed_subject_alt_names: matchers.collect(), ..Default::default() };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..Default::default()
    };
    tls::CommonTlsContext {
        alpn_protocols: words.iter().map(|word| (*word).to_owned()).collect(),
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..Default::default()
    }
}

fn socket((name, url): (&str, &str), message: &impl prost::Message) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(url, message))),
    }
}

fn text(fields: &[(&str, &str)]) -> protobuf::Struct {
    metadata(fields).filter_metadata.remove("mesh").expect("it was put there")
}

/// A chain that ends TLS, for connections that offer one of these words.
fn ends_tls(words: &[&str], filters: Vec<listener::Filter>) -> listener::FilterChain {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common(&[], words)),
        require_client_certificate: Some(protobuf::BoolValue { value: true }),
        ..Default::default()
    };
    let mut chain = chain(words.iter().map(|word| (*word).to_owned()).collect(), filters);
    chain.filter_chain_match.get_or_insert_default().transport_protocol = "tls".to_owned();
    chain.transport_socket = Some(socket(extension::DOWNSTREAM_TLS, &context));
    chain
}

impl Mesh {
    /// An inbound listener: HTTP goes by the routes under a name, bytes to a cluster.
    pub async fn inbound(&self, name: &str, mode: Mode, routes: &str, cluster: &str) -> SocketAddr {
        self.listen(Edge::Inbound, inbound(name, mode, routes, cluster)).await
    }

    /// Changes what an inbound listener takes.
    pub fn set_mode(&self, (name, address): (&str, SocketAddr), mode: Mode, routes: &str, cluster: &str) {
        let mut message = inbound(name, mode, routes, cluster);
        message.address = Some(super::socket_address(address));
        self.put(Kind::Listener, name, &message);
    }

    /// A cluster of one endpoint that is connected to by TLS, and must be one of `servers`; with `has_proxy` it takes HTTP/2.
    pub fn by_tls(&self, name: &str, address: SocketAddr, servers: &[&str], has_proxy: bool) {
        self.by_tls_with((name, address), servers, has_proxy, |_| {});
    }

    /// The same, different in some way.
    pub fn by_tls_with(
        &self,
        (name, address): (&str, SocketAddr),
        servers: &[&str],
        has_proxy: bool,
        change: impl FnOnce(&mut cluster::Cluster),
    ) {
        let mut words = metadata(if has_proxy { &[("proxy", "h2")] } else { &[] });
        words.filter_metadata.insert("envoy.transport_socket_match".to_owned(), text(&[("tlsMode", "mesh")]));
        let endpoint = endpoint::LbEndpoint { metadata: Some(words), ..lb_endpoint(address) };
        let context = tls::UpstreamTlsContext {
            common_tls_context: Some(common(servers, &alpn::ALL)),
            sni: format!("outbound_.9080_._.{name}.shop.svc.cluster.local"),
            ..Default::default()
        };
        let matches = |name: &str, fields: &[(&str, &str)], socket| cluster::cluster::TransportSocketMatch {
            name: name.to_owned(),
            r#match: Some(text(fields)),
            transport_socket: Some(socket),
        };
        let mut message = cluster::Cluster {
            transport_socket_matches: vec![
                matches("mesh-tls", &[("tlsMode", "mesh")], socket(extension::UPSTREAM_TLS, &context)),
                matches("plain", &[], socket(extension::RAW_BUFFER, &raw_buffer::RawBuffer::default())),
            ],
            connect_timeout: Some(seconds(5.0)),
            ..cluster_of(name, vec![endpoint])
        };
        change(&mut message);
        self.put(Kind::Cluster, name, &message);
    }
}

fn inbound(name: &str, mode: Mode, routes: &str, cluster: &str) -> listener::Listener {
    let mut chains = vec![
        ends_tls(&[alpn::HTTP2, alpn::HTTP1], vec![manager(routes)]),
        ends_tls(&[alpn::OPAQUE], vec![proxy(cluster)]),
    ];
    if mode == Mode::Permissive {
        let words = ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec();
        let mut http = chain(words, vec![manager(routes)]);
        http.filter_chain_match.get_or_insert_default().transport_protocol = "raw_buffer".to_owned();
        chains.push(http);
        chains.push(chain(vec![], vec![proxy(cluster)]));
    }
    let filters = vec![
        listener_filter(extension::TLS_INSPECTOR, &tls_inspector::TlsInspector::default()),
        listener_filter(extension::HTTP_INSPECTOR, &http_inspector::HttpInspector::default()),
    ];
    listener::Listener {
        name: name.to_owned(),
        filter_chains: chains,
        listener_filters: filters,
        listener_filters_timeout: Some(seconds(0.2)),
        continue_on_listener_filters_timeout: true,
        ..Default::default()
    }
}
