//! What the CA can be told, by flags and by the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use api::names::ca_port;
use api::spiffe::TrustDomain;
use clap::Parser;
use runtime::logging::Format;
use runtime::settings::{Env, SettingError};

use crate::authority::Policy;

/// Where the installation mounts the CA's certificate.
const CERTIFICATES: &str = "/etc/mesh/ca";
/// The longest lifetime that a policy may allow.
const LONGEST_DAYS: u32 = 90;

/// Flags of `mesh-ca`.
#[derive(Debug, Clone, Parser)]
#[command(name = "mesh-ca", version = runtime::version::long(), about = "The certificate authority of the mesh")]
pub struct Flags {
    /// A kubeconfig file, instead of the pod's own service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen: IpAddr,
}

/// Everything that the CA can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A kubeconfig file, instead of the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// The CA's pod.
    pub pod: String,
    /// What certificates may be.
    pub policy: Policy,
    /// Directory with `tls.crt`, `tls.key` and `ca.crt`.
    pub certificates: PathBuf,
    /// Where to serve.
    pub listen: Listen,
    /// What callers may take.
    pub bounds: Bounds,
    /// Pilot's debug port, where a rotation of the root asks who has acknowledged.
    pub pilot_debug: u16,
    /// Log filter.
    pub log: String,
    /// How log lines look.
    pub log_format: Format,
    /// How long running work may take after a signal.
    pub drain: Duration,
}

/// What callers may take of the CA. docs/limits.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Requests at once, from when they have been read.
    pub requests: usize,
}

impl Bounds {
    fn read(env: &Env) -> Result<Self, SettingError> {
        let number = |name, default| {
            let number: Option<NonZeroU32> = env.parse(name, "a number above 0")?;
            Ok::<_, SettingError>(number.map_or(default, |number| usize::try_from(number.get()).unwrap_or(default)))
        };
        Ok(Bounds {
            connections: number("MESH_CA_MAX_CONNECTIONS", 4096)?,
            requests: number("MESH_CA_MAX_REQUESTS", 512)?,
        })
    }
}

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    /// Signing requests.
    pub csr: SocketAddr,
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
        let at = |port| SocketAddr::new(flags.listen, port);
        Ok(Settings {
            kubeconfig: flags.kubeconfig,
            pod: env.text_or("POD_NAME", api::names::CA)?,
            policy: policy(env)?,
            certificates: env.text_or("MESH_CA_CERTS", CERTIFICATES)?.into(),
            bounds: Bounds::read(env)?,
            pilot_debug: api::names::pilot_port::DEBUG,
            listen: Listen { csr: at(ca_port::CSR), debug: at(ca_port::DEBUG) },
            log: env.text_or("MESH_LOG", "info")?,
            log_format: env.parse("MESH_LOG_FORMAT", "text or json")?.unwrap_or_default(),
            drain: env.seconds_or("MESH_DRAIN_SECONDS", Duration::from_secs(5))?,
        })
    }
}

fn policy(env: &Env) -> Result<Policy, SettingError> {
    let domain = env.parse("MESH_TRUST_DOMAIN", "a trust domain")?;
    let mut policy = match domain {
        Some(domain) => Policy::of(domain),
        None => Policy::of(env.parse_text(api::names::DEFAULT_TRUST_DOMAIN, "MESH_TRUST_DOMAIN", "a trust domain")?),
    };
    let name = "MESH_TRUST_DOMAIN_ALIASES";
    for alias in env.text_or(name, "")?.split(',').map(str::trim).filter(|alias| !alias.is_empty()) {
        let alias: TrustDomain = env.parse_text(alias, name, "trust domains between commas")?;
        if alias != policy.domain && !policy.aliases.contains(&alias) {
            policy.aliases.push(alias);
        }
    }
    policy.longest = hours(env, "MESH_CA_MAX_LIFETIME_HOURS", policy.longest)?;
    policy.lifetime = hours(env, "MESH_CA_LIFETIME_HOURS", policy.lifetime.min(policy.longest))?.min(policy.longest);
    policy.skew = env.seconds_or("MESH_CA_SKEW_SECONDS", policy.skew)?;
    Ok(policy)
}

/// A time in hours, with or without a fraction.
fn hours(env: &Env, name: &str, default: Duration) -> Result<Duration, SettingError> {
    const WHAT: &str = "a number of hours";
    let Some(hours) = env.parse::<f64>(name, WHAT)? else { return Ok(default) };
    let longest = f64::from(LONGEST_DAYS) * 24.0;
    if hours * 3600.0 >= 60.0 && hours <= longest {
        return Ok(Duration::from_secs_f64(hours * 3600.0));
    }
    Err(SettingError::Invalid {
        name: name.to_owned(),
        value: hours.to_string(),
        what: WHAT,
        reason: format!("it must be from a minute to {LONGEST_DAYS} days"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(variables: [(&str, &str); N]) -> Result<Settings, SettingError> {
        Settings::read(Flags::parse_from(["mesh-ca", "--listen", "127.0.0.1"]), &Env::of(variables))
    }

    #[test]
    fn the_environment_says_what_is_different_from_the_defaults() {
        let settings = read([]).expect("defaults");
        assert_eq!(settings.policy, Policy::of("cluster.local".parse().expect("a trust domain")));
        assert_eq!(settings.listen.csr, "127.0.0.1:15013".parse().expect("an address"));
        let settings = read([
            ("MESH_TRUST_DOMAIN", "new.example"),
            ("MESH_TRUST_DOMAIN_ALIASES", "cluster.local, new.example"),
            ("MESH_CA_LIFETIME_HOURS", "0.5"),
        ]);
        let policy = settings.expect("makes sense").policy;
        assert_eq!(policy.domain.as_str(), "new.example");
        assert_eq!(policy.aliases, ["cluster.local".parse().expect("a trust domain")]);
        assert_eq!(policy.lifetime, Duration::from_secs(1800));
    }

    #[test]
    fn the_page_about_limits_lists_each_with_its_default() {
        let page = include_str!("../../docs/limits.md");
        let bounds = read([]).expect("defaults").bounds;
        for (name, default) in
            [("MESH_CA_MAX_CONNECTIONS", bounds.connections), ("MESH_CA_MAX_REQUESTS", bounds.requests)]
        {
            assert!(page.contains(&format!("| `{name}` | {default} |")), "{name}");
        }
        let set = read([("MESH_CA_MAX_CONNECTIONS", "7"), ("MESH_CA_MAX_REQUESTS", "8")]).expect("both make sense");
        assert_eq!(set.bounds, Bounds { connections: 7, requests: 8 });
        assert!(read([("MESH_CA_MAX_REQUESTS", "0")]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (name, value, expected) in [
            ("MESH_TRUST_DOMAIN", "Cluster", "MESH_TRUST_DOMAIN=\"Cluster\" is not a trust domain"),
            ("MESH_TRUST_DOMAIN_ALIASES", "a,B", "MESH_TRUST_DOMAIN_ALIASES=\"B\" is not trust domains between commas"),
            ("MESH_CA_LIFETIME_HOURS", "0", "it must be from a minute to 90 days"),
        ] {
            let error = read([(name, value)]).expect_err("makes no sense").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
