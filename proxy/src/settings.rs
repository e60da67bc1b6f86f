//! What the proxy is told from outside: environment and flags, read once at start.

mod limits;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use api::names::{DEFAULT_DOMAIN, PILOT, PROXY_DIR, SYSTEM_NAMESPACE, pilot_port, proxy_port};
use runtime::logging::Format;
use runtime::settings::{Env, SettingError};
use runtime::svid::client::CaSettings;

pub use self::limits::Limits;
use crate::access_log::Encoding;
use crate::app_probe::AppProbes;
use crate::data::H2;
use crate::frames::FrameLimits;
use crate::identity_files::Files;
use crate::metrics::MAX_SERIES;
use crate::trace_context::Tracing;
use crate::workload_api;

/// What the proxy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Beside an application, whose connections are intercepted.
    Sidecar,
    /// At the edge of the mesh.
    Gateway,
    /// On resources from a file, without Pilot.
    Static(PathBuf),
}

impl Role {
    /// The role as node ids and `server_info` spell it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Role::Sidecar => "sidecar",
            Role::Gateway => "gateway",
            Role::Static(_) => "static",
        }
    }
}

/// Everything that the proxy is told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the proxy is for.
    pub role: Role,
    /// Whose proxy it is.
    pub workload: Workload,
    /// Where its configuration comes from, unless it is static.
    pub pilot: Pilot,
    /// Where its identity comes from, unless it is static.
    pub ca: CaSettings,
    /// Worker threads.
    pub workers: usize,
    /// How long running requests may go on after SIGTERM.
    pub drain: Duration,
    /// Where requests are logged: a path, or `off`.
    pub access_log: String,
    /// What a line of it looks like.
    pub access_log_format: AccessLogFormat,
    /// Whether a caller that is refused is told by which policy.
    pub explain_denials: bool,
    /// The proxy's own identity in files, with a static configuration.
    pub identity: Option<Files>,
    /// What the application is told of callers' certificates.
    pub client_cert: ClientCert,
    /// How traces begin and are told of.
    pub tracing: Tracing,
    /// Kinds of traffic that metrics count apart.
    pub max_series: usize,
    /// Bounds of connections of HTTP/2.
    pub h2: H2,
    /// How long a client may take nothing of an answer.
    pub stall_timeout: Duration,
    /// How the proxy's own log looks.
    pub log_format: Format,
    /// What it tells.
    pub log_filter: String,
    /// Its own ports.
    pub ports: Ports,
    /// What peers may take.
    pub limits: Limits,
    /// Probes of the application that the proxy makes.
    pub app_probes: AppProbes,
    /// Where the pod's identity is handed out.
    pub workload_api: workload_api::Settings,
}

/// What the application is told in `X-Forwarded-Client-Cert`. What a caller says in it is always taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCert {
    /// Nothing.
    #[default]
    Sanitize,
    /// Who calls by mutual TLS, and whom.
    SanitizeSet,
}

impl std::str::FromStr for ClientCert {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sanitize" => Ok(ClientCert::Sanitize),
            "sanitize-set" => Ok(ClientCert::SanitizeSet),
            _ => Err("write sanitize or sanitize-set"),
        }
    }
}

/// What a line of the access log looks like, as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLogFormat {
    /// Text or JSON.
    pub encoding: Encoding,
    /// The format; `None` is the encoding's default.
    pub source: Option<String>,
}

/// Whose proxy it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The pod.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// The pod's service account.
    pub service_account: String,
    /// The DNS domain of the cluster.
    pub domain: String,
    /// What the pod belongs to: its Deployment, as far as the pod's name tells.
    pub owner: String,
    /// The pod's label `app`; empty when it is not told.
    pub app: String,
    /// The pod's label `version`; empty when it is not told.
    pub version: String,
    /// The cluster that the pod is in, as metrics name it.
    pub cluster: String,
}

/// How Pilot is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pilot {
    /// `host:port`.
    pub address: String,
    /// The name that its certificate must have.
    pub server_name: String,
    /// The root that it is trusted by.
    pub root: Root,
    /// The file with the token that the proxy shows.
    pub token_file: PathBuf,
}

/// Where the root certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A file, read at each connect.
    File(PathBuf),
    /// The PEM itself.
    Pem(String),
}

/// The proxy's own ports; 0 takes any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Administration, on loopback.
    pub admin: u16,
    /// Metrics.
    pub metrics: u16,
    /// Readiness.
    pub readiness: u16,
}

/// Ports given as flags, which win over the environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct PortFlags {
    /// `--admin-port`.
    pub admin: Option<u16>,
    /// `--metrics-port`.
    pub metrics: Option<u16>,
    /// `--readiness-port`.
    pub readiness: Option<u16>,
}

const PORT: &str = "a port";

impl Ports {
    /// Reads the ports: flag, else environment, else the mesh's convention.
    ///
    /// # Errors
    ///
    /// When a variable is set to something that is no port.
    pub fn read(env: &Env, flags: PortFlags) -> Result<Self, SettingError> {
        let port = |flag: Option<u16>, name: &str, default: u16| match flag {
            Some(port) => Ok(port),
            None => Ok(env.parse(name, PORT)?.unwrap_or(default)),
        };
        Ok(Ports {
            admin: port(flags.admin, "MESH_ADMIN_PORT", proxy_port::ADMIN)?,
            metrics: port(flags.metrics, "MESH_METRICS_PORT", proxy_port::METRICS)?,
            readiness: port(flags.readiness, "MESH_READINESS_PORT", proxy_port::READINESS)?,
        })
    }
}

impl Settings {
    /// Reads all settings for a role.
    ///
    /// # Errors
    ///
    /// When one is missing or makes no sense: the first of them, by name.
    pub fn read(role: Role, env: &Env, flags: PortFlags) -> Result<Self, SettingError> {
        let workers = env.parse("MESH_CONCURRENCY", "a number of worker threads")?;
        Ok(Settings {
            workload: Workload::read(&role, env)?,
            pilot: Pilot::read(env)?,
            ca: CaSettings::read(env)?,
            workers: workers.map_or(1, |workers: std::num::NonZeroU16| usize::from(workers.get())),
            drain: env.seconds_or("MESH_DRAIN_SECONDS", Duration::from_secs(5))?,
            access_log: env.text_or("MESH_ACCESS_LOG", "/dev/stdout")?,
            access_log_format: AccessLogFormat::read(env)?,
            explain_denials: env.parse("MESH_EXPLAIN_DENIALS", "true or false")?.unwrap_or_default(),
            identity: identity_files(&role, env)?,
            client_cert: env
                .parse("MESH_FORWARDED_CLIENT_CERT", "what applications are told of certificates")?
                .unwrap_or_default(),
            tracing: Tracing {
                rate: env.parse("MESH_TRACE_SAMPLING", "a share of requests")?.unwrap_or_default(),
                formats: env.parse("MESH_TRACE_FORMATS", "a list of formats of trace headers")?.unwrap_or_default(),
            },
            max_series: env.parse("MESH_METRICS_MAX_SERIES", "a number of series")?.map_or(MAX_SERIES, non_zero),
            h2: h2(env)?,
            stall_timeout: env.seconds_or("MESH_STALL_SECONDS", Duration::from_secs(300))?,
            log_format: env.parse("MESH_LOG_FORMAT", "a log format")?.unwrap_or_default(),
            log_filter: env.text_or("MESH_LOG", "info")?,
            ports: Ports::read(env, flags)?,
            limits: Limits::read(env)?,
            app_probes: env.parse("MESH_APP_PROBES", "the application's probes in JSON")?.unwrap_or_default(),
            workload_api: workload_api::Settings::read(env)?,
            role,
        })
    }
}

/// An identity in files: all three, or none.
fn identity_files(role: &Role, env: &Env) -> Result<Option<Files>, SettingError> {
    let Role::Static(_) = role else { return Ok(None) };
    let Some(certificate) = env.text("MESH_SVID_CERTIFICATE")? else { return Ok(None) };
    let key = env.required("MESH_SVID_KEY", "the key of MESH_SVID_CERTIFICATE (PKCS#8 in PEM)")?;
    let roots = env.required("MESH_SVID_ROOTS", "the roots that are trusted (PEM)")?;
    Ok(Some(Files { certificate: certificate.into(), key: key.into(), roots: roots.into() }))
}

/// Bounds of connections of HTTP/2.
fn h2(env: &Env) -> Result<H2, SettingError> {
    let number = |name, default| {
        let number: Option<NonZeroU32> = env.parse(name, "a number above 0")?;
        Ok::<_, SettingError>(number.map_or(default, NonZeroU32::get))
    };
    let H2 { streams, gateway_streams, frames } = H2::default();
    Ok(H2 {
        streams: number("MESH_H2_MAX_STREAMS", streams)?,
        gateway_streams: number("MESH_H2_MAX_GATEWAY_STREAMS", gateway_streams)?,
        frames: FrameLimits {
            resets: number("MESH_H2_MAX_RESETS", frames.resets)?,
            pings: number("MESH_H2_MAX_PINGS", frames.pings)?,
            settings: number("MESH_H2_MAX_SETTINGS", frames.settings)?,
            priorities: number("MESH_H2_MAX_PRIORITIES", frames.priorities)?,
            empty: number("MESH_H2_MAX_EMPTY_FRAMES", frames.empty)?,
            window_updates: number("MESH_H2_MAX_WINDOW_UPDATES", frames.window_updates)?,
        },
    })
}

fn non_zero(number: NonZeroU32) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}

impl AccessLogFormat {
    fn read(env: &Env) -> Result<Self, SettingError> {
        let encoding = env.parse("MESH_ACCESS_LOG_ENCODING", "an encoding of the access log")?.unwrap_or_default();
        Ok(AccessLogFormat { encoding, source: env.text("MESH_ACCESS_LOG_FORMAT")? })
    }
}

impl Workload {
    fn read(role: &Role, env: &Env) -> Result<Self, SettingError> {
        let domain = env.text_or("MESH_DOMAIN", DEFAULT_DOMAIN)?;
        let ip = env.parse("POD_IP", "the pod's IP address")?;
        let service_account = env.text_or("SERVICE_ACCOUNT", "default")?;
        let (pod, namespace) = match role {
            Role::Static(_) => (env.text_or("POD_NAME", "static")?, env.text_or("POD_NAMESPACE", "default")?),
            Role::Sidecar | Role::Gateway => (
                env.required("POD_NAME", "the name of the pod that the proxy is in")?,
                env.required("POD_NAMESPACE", "the namespace of the pod that the proxy is in")?,
            ),
        };
        if ip.is_none() && !matches!(role, Role::Static(_)) {
            env.required("POD_IP", "the IP address of the pod that the proxy is in")?;
        }
        let owner = match env.text("MESH_OWNER")? {
            Some(owner) => owner,
            None => owner_of(&pod).to_owned(),
        };
        let (app, version) = (env.text_or("MESH_APP", "")?, env.text_or("MESH_VERSION", "")?);
        let cluster = env.text_or("MESH_CLUSTER", "Kubernetes")?;
        Ok(Workload { pod, namespace, ip, service_account, domain, owner, app, version, cluster })
    }

    /// The node id by which Pilot knows the proxy: `sidecar~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`.
    #[must_use]
    pub fn node_id(&self, role: &Role) -> String {
        let Workload { pod, namespace, domain, .. } = self;
        let ip = self.ip.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{}~{ip}~{pod}.{namespace}~{namespace}.svc.{domain}", role.word())
    }
}

impl Pilot {
    fn read(env: &Env) -> Result<Self, SettingError> {
        let default = format!("{PILOT}.{SYSTEM_NAMESPACE}.svc:{}", pilot_port::XDS);
        let address = env.text_or("MESH_PILOT_ADDRESS", &default)?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let server_name = env.text_or("MESH_PILOT_SERVER_NAME", host.trim_matches(['[', ']']))?;
        let root = match env.text("MESH_PILOT_ROOT_PEM")? {
            Some(pem) => Root::Pem(pem),
            None => Root::File(env.text_or("MESH_PILOT_ROOT", &format!("{PROXY_DIR}/root-cert.pem"))?.into()),
        };
        let token_file = env.text_or("MESH_TOKEN_FILE", &format!("{PROXY_DIR}/token"))?.into();
        Ok(Pilot { address, server_name, root, token_file })
    }
}

/// What a pod belongs to, by its name: a Deployment's pods are `<name>-<hash>-<random>`, those of other controllers
/// `<name>-<random>`. Errs towards the pod's own name.
fn owner_of(pod: &str) -> &str {
    let Some((rest, random)) = pod.rsplit_once('-') else { return pod };
    if random.len() != 5 || !is_generated(random) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((deployment, hash)) if (6..=10).contains(&hash.len()) && is_generated(hash) => deployment,
        _ => rest,
    }
}

/// Whether Kubernetes could have made up this part of a name: it uses neither vowels nor digits that look like them.
fn is_generated(text: &str) -> bool {
    text.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_off_the_pods_name() {
        for (pod, owner) in [
            ("reviews-v1-5d8f7c6b9d-x2k4z", "reviews-v1"),
            ("node-agent-x2k4z", "node-agent"),
            ("database-0", "database-0"),
            ("curl", "curl"),
            ("my-toolbox", "my-toolbox"),
        ] {
            assert_eq!(owner_of(pod), owner, "{pod}");
        }
    }

    #[test]
    fn a_sidecar_needs_to_know_whose_it_is() {
        let error = Settings::read(Role::Sidecar, &Env::of([]), PortFlags::default()).expect_err("nothing is set");
        assert_eq!(error.to_string(), "POD_NAME is not set; it must hold the name of the pod that the proxy is in");
        let env = Env::of([
            ("POD_NAME", "reviews-v1-5d8f7c6b9d-x2k4z"),
            ("POD_NAMESPACE", "default"),
            ("POD_IP", "10.244.0.7"),
        ]);
        let settings = Settings::read(Role::Sidecar, &env, PortFlags::default()).expect("all is set");
        assert_eq!(
            settings.workload.node_id(&settings.role),
            "sidecar~10.244.0.7~reviews-v1-5d8f7c6b9d-x2k4z.default~default.svc.cluster.local"
        );
        assert_eq!(settings.pilot.address, "mesh-pilot.mesh-system.svc:15012");
        assert_eq!(settings.pilot.server_name, "mesh-pilot.mesh-system.svc");
        assert_eq!(settings.ports, Ports { admin: 15000, metrics: 15020, readiness: 15021 });
    }

    #[test]
    fn bounds_of_http2_have_defaults_and_settings() {
        let defaults = h2(&Env::of([])).expect("nothing is wrong");
        assert_eq!((defaults.streams, defaults.gateway_streams, defaults.frames.pings), (1000, 100, 1000));
        let set = h2(&Env::of([("MESH_H2_MAX_STREAMS", "7"), ("MESH_H2_MAX_PINGS", "8")])).expect("both make sense");
        assert_eq!((set.streams, set.frames.pings, set.frames.resets), (7, 8, defaults.frames.resets));
        assert!(h2(&Env::of([("MESH_H2_MAX_STREAMS", "0")])).is_err());
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let env = Env::of([("MESH_ADMIN_PORT", "1"), ("MESH_METRICS_PORT", "2")]);
        let ports = Ports::read(&env, PortFlags { admin: Some(0), ..PortFlags::default() }).expect("both make sense");
        assert_eq!(ports, Ports { admin: 0, metrics: 2, readiness: 15021 });
    }
}
