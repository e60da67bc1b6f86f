//! A proxy's decisions without the proxy: from the configuration that it shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use engine::Kind;
use engine::compile::Compiler;
use engine::decide::{Dice, Outcome, decide};
use engine::path::{canonical_authority, canonical_path};
use engine::request::Simple;
use engine::tables::{Filter, Http, Tables};
use engine::text::from_json;
use engine::trace::NoTrace;
use serde_json::Value;

use crate::access_log::Line;

/// A request, as the client writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// `host:port` of the URL and of the Host header.
    pub authority: String,
    /// The path with its query.
    pub path: String,
    /// Headers besides.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    /// A GET with these headers.
    #[must_use]
    pub fn get(authority: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        Asked {
            method: "GET".to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    /// The same with another method.
    #[must_use]
    pub fn by(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }
}

/// What can happen to a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decided {
    /// Name of the route, `-` for none.
    pub route: String,
    /// A wait before anything else.
    pub delay: Duration,
    /// What happens then.
    pub what: What,
}

/// What can happen to a request after its wait.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It goes to this cluster, and may take so long.
    Forward(String, Option<Duration>),
    /// It is answered with another place.
    Redirect(u16, String),
    /// It is answered with a fault's status.
    Abort(u16),
    /// These rules do not let it in.
    Denied(String),
    /// Nothing is for it.
    NoRoute,
    /// Something that no rule makes today.
    Other(String),
}

/// A proxy's configuration, compiled.
pub struct Proxy {
    tables: Tables,
    /// One word for the versions of all resources.
    pub version: String,
}

impl Proxy {
    /// Compiles what `/config_dump` shows.
    ///
    /// # Panics
    ///
    /// When it shows a resource that cannot be read back or compiled.
    #[must_use]
    pub fn of(dump: &Value) -> Self {
        let mut compiler = Compiler::new();
        for (kind, field) in [
            (Kind::Cluster, "clusters"),
            (Kind::Endpoints, "endpoints"),
            (Kind::Listener, "listeners"),
            (Kind::Route, "routes"),
        ] {
            for held in dump[field].as_array().expect("a list of resources") {
                let name = held["name"].as_str().expect("a name");
                let resource = from_json(kind, &held["resource"], name).unwrap_or_else(|e| panic!("{name}: {e}"));
                compiler.update(kind, name, "1", &resource.body).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
        assert_eq!(dump["rejected"], serde_json::json!([]), "the proxy has refused something");
        Proxy { tables: compiler.tables(), version: dump["version"].as_str().expect("a version").to_owned() }
    }

    /// How HTTP is served on a connection that `listener` accepts and that was going to `destination`.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    pub fn http(&self, listener: &str, destination: SocketAddr) -> &Http {
        let accepted = self.tables.listener(listener).expect("the listener is there");
        let listener = self.tables.hand_over(accepted, destination);
        let chain = listener.chain(destination.port(), Some("http/1.1")).expect("a filter chain");
        match &chain.filter {
            Filter::Http(http) => http,
            Filter::Tcp(_) => panic!("{} does not speak HTTP for {destination}", listener.name),
        }
    }

    /// Decides about a request once.
    ///
    /// # Panics
    ///
    /// When its path or authority cannot be read.
    #[must_use]
    pub fn decide(&self, http: &Http, asked: &Asked, dice: &mut impl Dice) -> Decided {
        let authority = canonical_authority(&asked.authority).expect("an authority");
        let path = canonical_path(&asked.path, http.path).expect("a path");
        let mut request = Simple::get(&authority, &path).with_method(&asked.method);
        for (name, value) in &asked.headers {
            request = request.with_header(name, value);
        }
        let decision = decide(&self.tables, http, &request, dice, &mut NoTrace);
        let what = match decision.outcome {
            Outcome::Forward(forwarded) => {
                What::Forward(forwarded.cluster.spec.name.as_str().to_owned(), forwarded.timeout())
            }
            Outcome::Redirect(redirected) => What::Redirect(redirected.status(), redirected.location(&request)),
            Outcome::Abort(aborted) => What::Abort(aborted.status),
            Outcome::Denied(denied) => What::Denied(denied.to_string()),
            Outcome::Unrouted(_) => What::NoRoute,
            Outcome::Direct(_) | Outcome::NoCluster { .. } => What::Other(format!("{:?}", decision.outcome)),
        };
        let route = if decision.route_name().is_empty() { "-" } else { decision.route_name() };
        let delay = decision.delay.map_or(Duration::ZERO, |delay| delay.wait);
        Decided { route: route.to_owned(), delay, what }
    }

    /// All that can happen to a request, as far as 300 throws of the dice show it.
    #[must_use]
    pub fn possible(&self, http: &Http, asked: &Asked) -> BTreeSet<Decided> {
        let mut dice = dice(7);
        (0..300).map(|_| self.decide(http, asked, &mut dice)).collect()
    }
}

impl Decided {
    /// Whether this is what happened to a request, by the proxy's log and the `location` of its answer.
    #[must_use]
    pub fn is_what_happened(&self, line: &Line, location: &str) -> bool {
        let waited = line.duration >= self.delay && (line.flag != "DI" || !self.delay.is_zero());
        let happened = match &self.what {
            What::Forward(cluster, timeout) => {
                let in_time = line.code != "timeout" || timeout.is_some_and(|timeout| line.duration >= timeout);
                *cluster == line.cluster && in_time
            }
            What::Redirect(status, to) => line.cluster == "-" && line.status == *status && location == to,
            What::Abort(status) => line.code == "fault_abort" && line.status == *status,
            What::Denied(_) => line.code == "policy_denied" && line.status == 403,
            What::NoRoute => line.code == "no_route" && line.status == 404,
            What::Other(_) => false,
        };
        self.route == line.route && waited && happened
    }
}

/// Dice that fall the same way each time (splitmix64).
pub fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
