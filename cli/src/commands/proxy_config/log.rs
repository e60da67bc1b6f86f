//! `proxy-config POD log`: what a proxy, or Pilot, writes into its own log; asked and changed while it runs.

use std::collections::BTreeMap;

use api::names::{PILOT, SYSTEM_NAMESPACE};
use http::Method;
use serde_json::{Value, json};

use super::ConfigArgs;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::mesh::{self, Connection};
use crate::output::Format;
use crate::resources::{name_of, namespace_of, text};
use crate::table::Table;

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

pub(super) async fn run(app: &App, cluster: &Cluster, pod: &Value, args: &ConfigArgs) -> Result<(), Error> {
    let mut daemon = daemon(cluster, pod).await?;
    let current = daemon.says(Method::GET, "/logging").await?;
    let filter = match &args.level {
        _ if args.reset => daemon.says(Method::POST, "/logging?reset=true").await?,
        Some(level) => {
            let wanted = Levels::of(&current).changed(level)?.filter();
            daemon.says(Method::POST, &format!("/logging?level={}", encoded(&wanted))).await?
        }
        None => current,
    };
    let levels = Levels::of(&filter);
    match &args.output {
        Format::Json => app.ui.json(&levels.to_json()),
        Format::Yaml => app.ui.yaml(&levels.to_json()),
        Format::JsonPath(template) => app.ui.print(&template.render(&levels.to_json())),
        _ => {
            let mut table = Table::new(&["TARGET", "LEVEL"]);
            table.row(vec!["(all)".to_owned(), levels.default.clone()]);
            for (target, level) in &levels.targets {
                table.row(vec![target.clone(), level.clone()]);
            }
            app.ui.print(&table.to_text(true))
        }
    }
}

/// The port of the pod's daemon at which its log is changed: Pilot's debug port, or a proxy's admin port.
async fn daemon(cluster: &Cluster, pod: &Value) -> Result<Connection, Error> {
    let is_pilot = namespace_of(pod) == SYSTEM_NAMESPACE && text(pod, &["metadata", "labels", "app"]) == Some(PILOT);
    if !is_pilot {
        return mesh::proxy_admin(cluster, pod).await;
    }
    let pilots = mesh::pilots(cluster).await?;
    let pilot = pilots.into_iter().find(|pilot| pilot.pod == name_of(pod));
    pilot.map(|pilot| pilot.connection).ok_or_else(|| {
        Error::unreachable(format!("Pilot (pod {}) is not ready", name_of(pod)))
            .hint(format!("see `meshctl get pods -n {SYSTEM_NAMESPACE}`"))
    })
}

/// A filter of logs in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Levels {
    default: String,
    targets: BTreeMap<String, String>,
}

impl Levels {
    /// Reads a filter as a daemon tells it: `mesh_proxy=debug,info`.
    fn of(filter: &str) -> Self {
        let mut levels = Levels { default: "off".to_owned(), targets: BTreeMap::new() };
        for directive in filter.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match directive.rsplit_once('=') {
                Some((target, level)) => drop(levels.targets.insert(target.to_owned(), level.to_owned())),
                None if LEVELS.contains(&directive.to_ascii_lowercase().as_str()) => {
                    directive.clone_into(&mut levels.default);
                }
                // A target alone means all of its levels.
                None => drop(levels.targets.insert(directive.to_owned(), "trace".to_owned())),
            }
        }
        levels
    }

    /// With a level for everything, which takes back those of targets, or with other levels for some targets.
    fn changed(mut self, wanted: &str) -> Result<Self, Error> {
        for word in wanted.split(',').map(str::trim) {
            let (target, level) = match word.rsplit_once([':', '=']) {
                Some((target, level)) => (Some(target.trim_end_matches(':')), level),
                None => (None, word),
            };
            let level = level.to_ascii_lowercase();
            let level = if level == "warning" { "warn".to_owned() } else { level };
            if !LEVELS.contains(&level.as_str()) {
                let error = Error::usage(format!("`{level}` in `--level {wanted}` is not a level"));
                return Err(error.hint(format!("write one of {}, or TARGET:LEVEL", LEVELS.join(", "))));
            }
            match target {
                Some("") => return Err(Error::usage(format!("`{word}` in `--level {wanted}` names no target"))),
                Some(target) => drop(self.targets.insert(target.to_owned(), level)),
                None => {
                    self.default = level;
                    self.targets.clear();
                }
            }
        }
        Ok(self)
    }

    fn filter(&self) -> String {
        let mut filter = self.default.clone();
        for (target, level) in &self.targets {
            filter.push_str(&format!(",{target}={level}"));
        }
        filter
    }

    fn to_json(&self) -> Value {
        json!({ "level": self.default, "targets": self.targets })
    }
}

/// A value of a query. Filters hold letters, digits and few signs.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_changes_everything_or_one_target() {
        for (before, wanted, after) in [
            ("info", "debug", "debug"),
            ("mesh_proxy=debug,info", "warn", "warn"),
            ("info", "mesh_proxy:debug", "info,mesh_proxy=debug"),
            (
                "mesh_proxy=debug,info",
                "mesh_proxy::xds=trace,h2:off",
                "info,h2=off,mesh_proxy=debug,mesh_proxy::xds=trace",
            ),
            ("info", "Warning,h2:INFO", "warn,h2=info"),
        ] {
            assert_eq!(Levels::of(before).changed(wanted).expect("levels").filter(), after, "{before} {wanted}");
        }
        for bad in ["loud", "mesh_proxy:loud", ":info", ""] {
            assert!(Levels::of("info").changed(bad).is_err(), "{bad}");
        }
        assert_eq!(encoded("info,a::b=off"), "info,a::b%3Doff");
    }
}
