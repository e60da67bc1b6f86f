//! What `decide` tells about its way: nothing, or everything.

use serde::Serialize;

use crate::admission::{Denied, Half};
use crate::request::Request;
use crate::tables::{
    AccessPolicy, Domain, Fault, FaultShare, HeaderMatch, Name, PathMatch, Rbac, Route, Subject, VirtualHost,
};

/// Takes down what `decide` does. A type parameter: [`NoTrace`] costs nothing.
pub trait Trace {
    /// Whether anything is taken down; if not, routes that cannot match are not even asked.
    const ON: bool;

    /// A policy was asked whether it is about the request; `missed` says what of it is not.
    fn policy(&mut self, _rbac: &Rbac, _policy: &AccessPolicy, _missed: Option<Half>, _is_trial: bool) {}
    /// Rules let the request in, by this policy, or refuse it.
    fn admission(&mut self, _rbac: &Rbac, _verdict: Result<Option<&str>, Denied<'_>>, _is_trial: bool) {}
    /// The virtual host was chosen, by this domain.
    fn virtual_host(&mut self, _table: &Name, _host: &VirtualHost, _domain: &Domain) {}
    /// A route was asked and does not match.
    fn lost(&mut self, _route: &Route, _why: &Lost<'_>, _request: &impl Request) {}
    /// A route was asked and is taken.
    fn won(&mut self, _route: &Route) {}
    /// A fault was drawn for.
    fn fault(&mut self, _fault: &Fault, _delayed: bool, _aborted: bool) {}
    /// A cluster was picked, with this share of this total.
    fn cluster(&mut self, _name: &str, _weight: u32, _total: u32) {}
}

/// Why a route does not match.
#[derive(Debug, Clone, Copy)]
pub enum Lost<'t> {
    /// The path is another.
    Path(&'t PathMatch),
    /// This condition does not hold.
    Header(&'t HeaderMatch),
    /// The draw went against it.
    Fraction(FaultShare),
}

/// Takes nothing down.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    const ON: bool = false;
}

/// Takes everything down, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recording {
    /// What happened, in order.
    pub steps: Vec<Step>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "step")]
pub enum Step {
    /// A policy was asked.
    Policy {
        /// The rules that it is one of.
        rules: String,
        /// The policy.
        policy: String,
        /// What the request does not fulfil; nothing if the policy is about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        wants: Option<String>,
        /// Whether it is on trial.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        trial: bool,
    },
    /// Rules were asked as a whole.
    Admission {
        /// The rules.
        rules: String,
        /// Whether they let the request in.
        allowed: bool,
        /// The policy that decided it, if one did.
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
        /// Whether they are on trial.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        trial: bool,
    },
    /// The virtual host was chosen.
    VirtualHost {
        /// The route configuration.
        table: String,
        /// The virtual host.
        name: String,
        /// The domain of it that matched.
        domain: String,
    },
    /// A route does not match.
    Lost {
        /// The route.
        route: String,
        /// `file:line` of the rule behind it, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
        /// What it wants.
        wants: String,
        /// What the request has.
        has: String,
    },
    /// A route is taken.
    Won {
        /// The route.
        route: String,
        /// `file:line` of the rule behind it, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
    },
    /// A fault was drawn for.
    Fault {
        /// Whether the request waits.
        delayed: bool,
        /// Whether it is answered with an error.
        aborted: bool,
    },
    /// A cluster was picked.
    Cluster {
        /// The cluster.
        name: String,
        /// Its weight.
        weight: u32,
        /// Sum of all weights.
        total: u32,
    },
}

impl Trace for Recording {
    const ON: bool = true;

    fn policy(&mut self, rbac: &Rbac, policy: &AccessPolicy, missed: Option<Half>, is_trial: bool) {
        let shown =
            |checks: &[crate::tables::Check]| checks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or ");
        let wants = missed.map(|half| match half {
            Half::Permissions => shown(&policy.permissions),
            Half::Principals => shown(&policy.principals),
        });
        let (rules, policy) = (rbac.name.to_string(), policy.name.to_string());
        self.steps.push(Step::Policy { rules, policy, wants, trial: is_trial });
    }

    fn admission(&mut self, rbac: &Rbac, verdict: Result<Option<&str>, Denied<'_>>, is_trial: bool) {
        let policy = verdict.unwrap_or_else(|denied| denied.policy).map(str::to_owned);
        let rules = rbac.name.to_string();
        self.steps.push(Step::Admission { rules, allowed: verdict.is_ok(), policy, trial: is_trial });
    }

    fn virtual_host(&mut self, table: &Name, host: &VirtualHost, domain: &Domain) {
        self.steps.push(Step::VirtualHost {
            table: table.to_string(),
            name: host.name.to_string(),
            domain: domain.to_string(),
        });
    }

    fn lost(&mut self, route: &Route, why: &Lost<'_>, request: &impl Request) {
        let (wants, has) = match why {
            Lost::Path(path) => (format!("path {path}"), crate::path::without_query(request.path()).to_owned()),
            Lost::Header(header) => (header.to_string(), shown(&header.subject, request)),
            Lost::Fraction(share) => {
                (format!("{} of {} requests", share.numerator, share.denominator), "was not among them".to_owned())
            }
        };
        self.steps.push(Step::Lost { route: route.name.to_string(), origin: origin(route), wants, has });
    }

    fn won(&mut self, route: &Route) {
        self.steps.push(Step::Won { route: route.name.to_string(), origin: origin(route) });
    }

    fn fault(&mut self, _fault: &Fault, delayed: bool, aborted: bool) {
        self.steps.push(Step::Fault { delayed, aborted });
    }

    fn cluster(&mut self, name: &str, weight: u32, total: u32) {
        self.steps.push(Step::Cluster { name: name.to_owned(), weight, total });
    }
}

fn origin(route: &Route) -> Option<String> {
    route.origin.as_ref().map(|origin| format!("{}:{}", origin.file, origin.line))
}

/// What a request has where a condition looks.
fn shown(subject: &Subject, request: &impl Request) -> String {
    match subject {
        Subject::Path => request.path().to_owned(),
        Subject::Method => request.method().to_owned(),
        Subject::Authority => request.authority().to_owned(),
        Subject::Scheme => request.scheme().to_owned(),
        Subject::Header(name) => {
            let values: Vec<_> = request.header(name).map(String::from_utf8_lossy).collect();
            if values.is_empty() { "no such header".to_owned() } else { values.join(",") }
        }
    }
}
