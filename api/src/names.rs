//! The names, ports, labels and annotations that every part of the mesh agrees on (`DESIGN.md` §4).

/// The API group of our own kinds.
pub const GROUP: &str = "config.meshctl.io";
/// The classic API group, whose files are accepted unchanged.
pub const CLASSIC_GROUP: &str = "config.istio.io";
/// The version of the native kinds.
pub const VERSION: &str = "v1alpha2";

/// The namespace of the control plane.
pub const SYSTEM_NAMESPACE: &str = "mesh-system";
/// The namespace of the classic control plane, whose mesh-wide objects are accepted.
pub const CLASSIC_SYSTEM_NAMESPACE: &str = "istio-system";
/// The DNS domain of a cluster unless it is told otherwise.
pub const DEFAULT_DOMAIN: &str = "cluster.local";
/// The trust domain unless it is told otherwise.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// Label of a namespace, and annotation or label of a pod: whether its pods get a sidecar (`enabled`, `disabled`; `true`, `false`).
pub const INJECT: &str = "sidecar.meshctl.io/inject";
/// The classic pod annotation with the same meaning.
pub const CLASSIC_INJECT: &str = "sidecar.istio.io/inject";
/// The classic namespace label (`enabled`, `disabled`).
pub const CLASSIC_NAMESPACE_INJECTION: &str = "istio-injection";
/// Annotation that injection leaves on a pod: JSON of what was added, so that it can be recognised and removed.
pub const STATUS: &str = "sidecar.meshctl.io/status";
/// In that JSON: whether the sidecar takes the mesh's mutual TLS.
pub const STATUS_MUTUAL_TLS: &str = "mutualTls";
/// The classic annotation of a Service, followed by the number of a port: `MUTUAL_TLS` or `NONE`.
pub const CLASSIC_AUTH: &str = "auth.istio.io/";
/// Label of the control plane's revision.
pub const REVISION: &str = "meshctl.io/rev";
/// The class of Ingress objects that the mesh's gateway serves.
pub const INGRESS_CLASS: &str = "mesh";
/// The classic annotation that names an Ingress' class.
pub const INGRESS_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Annotation of an Ingress whose TLS passes through to its services (`true`), told apart by the server's name.
pub const SSL_PASSTHROUGH: &str = "ingress.meshctl.io/ssl-passthrough";
/// The same annotation as nginx's controller reads it, so that an Ingress can change its class alone.
pub const NGINX_SSL_PASSTHROUGH: &str = "nginx.ingress.kubernetes.io/ssl-passthrough";

/// The injected init container that installs the interception rules.
pub const INIT_CONTAINER: &str = "mesh-init";
/// The injected sidecar container.
pub const PROXY_CONTAINER: &str = "mesh-proxy";

/// Name of Pilot's Service, Deployment and ServiceAccount in [`SYSTEM_NAMESPACE`].
pub const PILOT: &str = "mesh-pilot";
/// Name of the ingress gateway's Service, Deployment and ServiceAccount in [`SYSTEM_NAMESPACE`].
pub const INGRESS_GATEWAY: &str = "mesh-ingressgateway";
/// The Secret in [`SYSTEM_NAMESPACE`] with Pilot's serving certificate (`tls.crt`, `tls.key`, `ca.crt`).
pub const PILOT_CERT_SECRET: &str = "mesh-pilot-cert";
/// Name of the CA's Service, Deployment and ServiceAccount in [`SYSTEM_NAMESPACE`].
pub const CA: &str = "mesh-ca";
/// The Secret in [`SYSTEM_NAMESPACE`] with the CA's serving certificate (`tls.crt`, `tls.key`, `ca.crt`).
pub const CA_CERT_SECRET: &str = "mesh-ca-cert";
/// The Secret in [`SYSTEM_NAMESPACE`] with the root that the CA made itself (`ca-cert.pem`, `ca-key.pem`).
pub const CA_ROOT_SECRET: &str = "mesh-ca-root";
/// Type of that Secret.
pub const CA_ROOT_TYPE: &str = "meshctl.io/ca-root";
/// The Secret in [`SYSTEM_NAMESPACE`] with a plugged-in authority (`root-cert.pem`, `ca-cert.pem`, `ca-key.pem`,
/// `cert-chain.pem`), by its classic name.
pub const CA_PLUGGED_SECRET: &str = "cacerts";
/// The ConfigMap in [`SYSTEM_NAMESPACE`] with who holds certificates, which CAs write.
pub const CA_HOLDERS: &str = "mesh-ca-holders";
/// Type of the Secrets in [`SYSTEM_NAMESPACE`] that hold what a join token is good for, each for one.
pub const JOIN_TOKEN_TYPE: &str = "meshctl.io/join-token";
/// The ServiceAccount whose token the CLI uses towards Pilot's debug port.
pub const CLI_SERVICE_ACCOUNT: &str = "meshctl";

/// Audience of the service-account token that a proxy shows to Pilot (and the CLI to Pilot's debug port).
pub const TOKEN_AUDIENCE: &str = "mesh-pilot";
/// Audience of the service-account token that a proxy shows to the CA (and the CLI to the CA's debug port).
pub const CA_TOKEN_AUDIENCE: &str = "mesh-ca";
/// Name of the file with that token, in [`PROXY_DIR`].
pub const CA_TOKEN_FILE: &str = "ca-token";
/// The socket at which the proxy hands the pod's identity out, in a volume of the pod's own.
pub const WORKLOAD_SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";
/// Name of that volume.
pub const WORKLOAD_VOLUME: &str = "workload-socket";
/// Environment variable by which SPIFFE's libraries find that socket.
pub const WORKLOAD_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Where injection mounts the proxy's own files: `token`, and `ca-token` for the CA.
pub const PROXY_DIR: &str = "/var/run/secrets/mesh";

/// Socket mark of the proxy's own connections, which the interception rules skip.
pub const PROXY_MARK: u32 = 1337;
/// UID of the proxy on Kubernetes, which the interception rules skip too.
pub const PROXY_UID: u32 = 1337;

/// Ports of the proxy.
pub mod proxy_port {
    /// Where intercepted outbound connections arrive.
    pub const OUTBOUND: u16 = 15001;
    /// Where intercepted inbound connections arrive.
    pub const INBOUND: u16 = 15006;
    /// Administration, on loopback only.
    pub const ADMIN: u16 = 15000;
    /// Metrics and rewritten application probes.
    pub const METRICS: u16 = 15020;
    /// Readiness.
    pub const READINESS: u16 = 15021;
    /// HTTP of the ingress gateway, behind port 80 of its Service.
    pub const GATEWAY_HTTP: u16 = 8080;
    /// TLS of the ingress gateway, behind port 443 of its Service.
    pub const GATEWAY_TLS: u16 = 8443;
}

/// Ports of Pilot.
pub mod pilot_port {
    /// Delta ADS over TLS.
    pub const XDS: u16 = 15012;
    /// Admission webhooks over TLS.
    pub const WEBHOOKS: u16 = 15017;
    /// Metrics, readiness and (authenticated) debug, over TLS except for metrics and readiness.
    pub const DEBUG: u16 = 15014;
}

/// Ports of the CA.
pub mod ca_port {
    /// Certificate signing requests by gRPC over TLS.
    pub const CSR: u16 = 15013;
    /// Metrics, readiness and (authenticated) debug, over TLS.
    pub const DEBUG: u16 = 15014;
}
