//! What Pilot can be told, by flags and by the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use api::model::{Mesh, MtlsMode};
use api::names::pilot_port;
use clap::Parser;
use install::Images;
use runtime::logging::Format;
use runtime::settings::{Env, SettingError};
use runtime::svid::client::CaSettings;

/// Where the installation mounts Pilot's certificate.
const CERTIFICATES: &str = "/etc/mesh/pilot";

/// Flags of `mesh-pilot`.
#[derive(Debug, Clone, Parser)]
#[command(name = "mesh-pilot", version = runtime::version::long(), about = "The control plane of the mesh")]
pub struct Flags {
    /// A kubeconfig file, instead of the pod's own service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen: IpAddr,
}

/// Everything that Pilot can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A kubeconfig file, instead of the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// Pilot's pod.
    pub pod: String,
    /// Settings of the mesh.
    pub mesh: Mesh,
    /// Images of injected containers.
    pub images: Images,
    /// Directory with `tls.crt`, `tls.key` and `ca.crt`.
    pub certificates: PathBuf,
    /// Where Pilot's own identity comes from.
    pub ca: CaSettings,
    /// Pilot's namespace and service account.
    pub account: (String, String),
    /// Where to serve ADS, the webhooks and the debug port.
    pub listen: Listen,
    /// Whether keys of issuers may be fetched from this machine and its own link.
    pub allows_local_keys: bool,
    /// Log filter.
    pub log: String,
    /// How log lines look.
    pub log_format: Format,
    /// How long running work may take after a signal.
    pub drain: Duration,
}

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    /// Delta ADS.
    pub xds: SocketAddr,
    /// Admission webhooks.
    pub webhooks: SocketAddr,
    /// Metrics, readiness, debug.
    pub debug: SocketAddr,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// When a variable does not make sense.
    pub fn read(flags: Flags, env: &Env) -> Result<Self, SettingError> {
        let version = runtime::version::VERSION;
        let images = Images::of_version(version);
        let at = |port| SocketAddr::new(flags.listen, port);
        Ok(Settings {
            kubeconfig: flags.kubeconfig,
            pod: env.text_or("POD_NAME", api::names::PILOT)?,
            mesh: Mesh {
                domain: env.text_or("MESH_DOMAIN", api::names::DEFAULT_DOMAIN)?,
                trust_domain: env.text_or("MESH_TRUST_DOMAIN", api::names::DEFAULT_TRUST_DOMAIN)?,
                trust_domain_aliases: aliases(&env.text_or("MESH_TRUST_DOMAIN_ALIASES", "")?),
                mtls: env
                    .parse("MESH_AUTH_POLICY", "MUTUAL_TLS or NONE")?
                    .map_or(Mesh::default().mtls, |Classic(mode)| mode),
                ..Mesh::default()
            },
            images: Images {
                proxy: env.text_or("MESH_PROXY_IMAGE", &images.proxy)?,
                init: env.text_or("MESH_INIT_IMAGE", &images.init)?,
                pilot: images.pilot,
                ca: images.ca,
            },
            certificates: env.text_or("MESH_PILOT_CERTS", CERTIFICATES)?.into(),
            ca: CaSettings::read(env)?,
            account: (
                env.text_or("POD_NAMESPACE", api::names::SYSTEM_NAMESPACE)?,
                env.text_or("SERVICE_ACCOUNT", api::names::PILOT)?,
            ),
            listen: Listen {
                xds: at(pilot_port::XDS),
                webhooks: at(pilot_port::WEBHOOKS),
                debug: at(pilot_port::DEBUG),
            },
            allows_local_keys: env.parse("MESH_JWKS_ALLOW_LOCAL", "true or false")?.unwrap_or_default(),
            log: env.text_or("MESH_LOG", "info")?,
            log_format: env.parse("MESH_LOG_FORMAT", "text or json")?.unwrap_or_default(),
            drain: env.seconds_or("MESH_DRAIN_SECONDS", Duration::from_secs(5))?,
        })
    }
}

/// Names between commas.
fn aliases(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A mode by its classic word.
struct Classic(MtlsMode);

impl std::str::FromStr for Classic {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        MtlsMode::of_classic(text).map(Classic).ok_or("there are these two")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_what_is_different_from_the_defaults() {
        let flags = Flags::parse_from(["mesh-pilot", "--listen", "127.0.0.1"]);
        let env = Env::of([
            ("MESH_DOMAIN", "example.internal"),
            ("MESH_PROXY_IMAGE", "r/p:1"),
            ("MESH_TRUST_DOMAIN_ALIASES", "old.local, older.local"),
            ("MESH_AUTH_POLICY", "MUTUAL_TLS"),
        ]);
        let settings = Settings::read(flags, &env).expect("makes sense");
        assert_eq!(settings.mesh.domain, "example.internal");
        assert_eq!(settings.mesh.trust_domain, "cluster.local");
        assert_eq!(settings.mesh.trust_domains().collect::<Vec<_>>(), ["cluster.local", "old.local", "older.local"]);
        assert_eq!(settings.mesh.mtls, MtlsMode::Strict);
        assert_eq!(settings.images.proxy, "r/p:1");
        assert_eq!(settings.listen.xds, "127.0.0.1:15012".parse().expect("an address"));
        assert_eq!(settings.certificates, PathBuf::from("/etc/mesh/pilot"));
    }
}
