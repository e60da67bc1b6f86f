//! What peers may take of the proxy: each limit with its default, its variable and its range. docs/limits.md lists them.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use runtime::settings::{Env, SettingError};

/// What peers may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Fields of a head.
    pub headers: usize,
    /// Time for a request's head.
    pub head_timeout: Duration,
    /// Time for a caller's TLS handshake.
    pub handshake: Duration,
    /// Time without a byte of a body.
    pub body_idle: Duration,
    /// Time between requests on a connection.
    pub idle: Duration,
    /// Time without a byte on a WebSocket or tunnel.
    pub upgrade_idle: Duration,
    /// Time without a byte on an opaque connection.
    pub tcp_idle: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one source outside the pod.
    pub connections_per_source: u32,
}

const BYTES: &str = "a number of bytes";
const COUNT: &str = "a number";
const SECONDS: &str = "a number of seconds";
/// A head has to fit the largest buffer, with some of what follows.
const HEAD_BYTES: RangeInclusive<usize> = 1024..=128 * 1024;
const TIME: RangeInclusive<f64> = 0.1..=7.0 * 86_400.0;

impl Limits {
    /// Reads the limits from the environment.
    ///
    /// # Errors
    ///
    /// When one is set to something that is none.
    pub fn read(env: &Env) -> Result<Self, SettingError> {
        let seconds = |name, default: f64| Ok(Duration::from_secs_f64(within(env, name, SECONDS, &TIME, default)?));
        Ok(Limits {
            head_bytes: within(env, "MESH_MAX_HEAD_BYTES", BYTES, &HEAD_BYTES, 64 * 1024)?,
            headers: within(env, "MESH_MAX_HEADERS", COUNT, &(1..=10_000), 100)?,
            head_timeout: seconds("MESH_HEAD_TIMEOUT_SECONDS", 10.0)?,
            handshake: seconds("MESH_TLS_HANDSHAKE_SECONDS", 10.0)?,
            body_idle: seconds("MESH_BODY_IDLE_SECONDS", 300.0)?,
            idle: seconds("MESH_IDLE_SECONDS", 3600.0)?,
            upgrade_idle: seconds("MESH_UPGRADE_IDLE_SECONDS", 3600.0)?,
            tcp_idle: seconds("MESH_TCP_IDLE_SECONDS", 3600.0)?,
            connections: within(env, "MESH_MAX_CONNECTIONS", COUNT, &(1..=10_000_000), 40_000)?,
            connections_per_source: within(env, "MESH_MAX_CONNECTIONS_PER_SOURCE", COUNT, &(1..=10_000_000), 20_000)?,
        })
    }
}

fn within<T>(
    env: &Env,
    name: &str,
    what: &'static str,
    range: &RangeInclusive<T>,
    default: T,
) -> Result<T, SettingError>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let Some(value) = env.parse(name, what)? else { return Ok(default) };
    if range.contains(&value) {
        return Ok(value);
    }
    let reason = format!("it must be from {} to {}", range.start(), range.end());
    Err(SettingError::Invalid { name: name.to_owned(), value: value.to_string(), what, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/limits.md");

    #[test]
    fn what_is_set_is_in_force_and_what_makes_no_sense_is_named() {
        let env = Env::of([("MESH_MAX_HEADERS", "50"), ("MESH_HEAD_TIMEOUT_SECONDS", "2.5")]);
        let limits = Limits::read(&env).expect("both make sense");
        assert_eq!((limits.headers, limits.head_timeout), (50, Duration::from_millis(2500)));
        for (name, value, message) in [
            (
                "MESH_MAX_HEAD_BYTES",
                "100",
                "MESH_MAX_HEAD_BYTES=\"100\" is not a number of bytes: it must be from 1024 to 131072",
            ),
            (
                "MESH_BODY_IDLE_SECONDS",
                "0",
                "MESH_BODY_IDLE_SECONDS=\"0\" is not a number of seconds: it must be from 0.1 to 604800",
            ),
            (
                "MESH_MAX_CONNECTIONS",
                "many",
                "MESH_MAX_CONNECTIONS=\"many\" is not a number: invalid digit found in string",
            ),
        ] {
            assert_eq!(Limits::read(&Env::of([(name, value)])).expect_err(name).to_string(), message);
        }
    }

    #[test]
    fn the_page_about_limits_lists_each_with_its_default() {
        let limits = Limits::read(&Env::of([])).expect("defaults");
        let seconds = |time: Duration| time.as_secs().to_string();
        for (name, default) in [
            ("MESH_MAX_HEAD_BYTES", limits.head_bytes.to_string()),
            ("MESH_MAX_HEADERS", limits.headers.to_string()),
            ("MESH_HEAD_TIMEOUT_SECONDS", seconds(limits.head_timeout)),
            ("MESH_TLS_HANDSHAKE_SECONDS", seconds(limits.handshake)),
            ("MESH_BODY_IDLE_SECONDS", seconds(limits.body_idle)),
            ("MESH_IDLE_SECONDS", seconds(limits.idle)),
            ("MESH_UPGRADE_IDLE_SECONDS", seconds(limits.upgrade_idle)),
            ("MESH_TCP_IDLE_SECONDS", seconds(limits.tcp_idle)),
            ("MESH_MAX_CONNECTIONS", limits.connections.to_string()),
            ("MESH_MAX_CONNECTIONS_PER_SOURCE", limits.connections_per_source.to_string()),
        ] {
            let row = format!("| `{name}` | {default} |");
            assert!(PAGE.contains(&row), "docs/limits.md has no row `{row}`");
        }
    }
}
