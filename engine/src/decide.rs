//! What happens to a request: whether it is let in, virtual host, route, fault, cluster. Pure: dice and time are the caller's.

pub(crate) mod index;
mod matching;
mod outcome;

use std::sync::Arc;

use crate::access::admit;
use crate::request::Request;
use crate::tables::{
    Action, Cluster, Fault, FaultShare, Forward, Http, Route, RouteTable, Tables, Tcp, VirtualHost, WeightedCluster,
};
use crate::trace::{Lost, Trace};

pub use outcome::{Aborted, Decision, Delayed, Forwarded, Outcome, Redirected, Unrouted};

/// Randomness, given by the caller.
pub trait Dice {
    /// The next 64 uniformly distributed bits.
    fn roll(&mut self) -> u64;

    /// A number from 0 to before `sides`, uniformly distributed; 0 when there are no sides.
    fn below(&mut self, sides: u32) -> u32 {
        ((u128::from(self.roll()) * u128::from(sides)) >> 64) as u32
    }
}

impl<F: FnMut() -> u64> Dice for F {
    fn roll(&mut self) -> u64 {
        self()
    }
}

/// Decides what happens to a request on an HTTP filter chain.
///
/// Path and authority must be canonical already (see [`crate::path`]). With [`crate::trace::NoTrace`] nothing is
/// allocated.
pub fn decide<'t, R: Request, T: Trace>(
    tables: &'t Tables,
    http: &'t Http,
    request: &R,
    dice: &mut impl Dice,
    trace: &mut T,
) -> Decision<'t> {
    // Who may not come in learns nothing of routes.
    let admission = admit(&http.access.rbac, request, trace);
    if let Some(denied) = admission.denied {
        return Decision { admission, ..Decision::of(Outcome::Denied(denied)) };
    }
    let unrouted = |why| Decision { admission, ..Decision::of(Outcome::Unrouted(why)) };
    let Some(table) = http.route_table(tables) else {
        return unrouted(Unrouted::NoTable);
    };
    let Some(host) = virtual_host(table, request, trace) else {
        return unrouted(Unrouted::NoVirtualHost);
    };
    let Some(route) = select(host, request, dice, trace) else {
        return Decision { virtual_host: Some(host), ..unrouted(Unrouted::NoRoute) };
    };
    let fault =
        if http.faults { route.fault.as_ref().or(host.fault.as_ref()).or(http.default_fault.as_ref()) } else { None };
    let (delay, abort) = draw(fault, dice, trace);
    let outcome = match (&route.action, abort) {
        (_, Some(aborted)) => Outcome::Abort(aborted),
        (Action::Forward(forward), None) => forwarded(tables, route, forward, dice, trace),
        (Action::Redirect(redirect), None) => Outcome::Redirect(Redirected { redirect, path: &route.path }),
        (Action::Direct(direct), None) => Outcome::Direct(direct),
    };
    Decision { admission, virtual_host: Some(host), route: Some(route), delay, outcome }
}

/// Decides where the bytes of an opaque connection go; `None` if the cluster does not exist.
pub fn decide_tcp<'t, T: Trace>(
    tables: &'t Tables,
    tcp: &'t Tcp,
    dice: &mut impl Dice,
    trace: &mut T,
) -> Option<&'t Arc<Cluster>> {
    let total = tcp.clusters.iter().fold(0u32, |sum, cluster| sum.saturating_add(cluster.weight));
    let picked = pick(&tcp.clusters, total, dice)?;
    trace.cluster(picked.name.as_str(), picked.weight, total);
    tables.cluster(&picked.name)
}

/// The virtual host for an authority: exact, else the longest `*.x`, else the longest `x.*`, else `*`.
fn virtual_host<'t, T: Trace>(table: &'t RouteTable, request: &impl Request, trace: &mut T) -> Option<&'t VirtualHost> {
    let authority = request.authority();
    let looked_up = if table.ignore_port { crate::path::without_port(authority) } else { authority };
    let (at, domain) = table.domains.find(looked_up, &table.virtual_hosts)?;
    let host = table.virtual_hosts.get(at)?;
    if let Some(domain) = domain {
        trace.virtual_host(&table.name, host, domain);
    }
    Some(host)
}

/// The first route that matches. Without a trace, routes that cannot match by their path are not asked at all.
fn select<'t, T: Trace>(
    host: &'t VirtualHost,
    request: &impl Request,
    dice: &mut impl Dice,
    trace: &mut T,
) -> Option<&'t Route> {
    let path = request.path();
    let bare = crate::path::without_query(path);
    if T::ON {
        return host.routes.iter().find(|route| match asked(route, bare, request, dice) {
            Ok(()) => {
                trace.won(route);
                true
            }
            Err(lost) => {
                trace.lost(route, &lost, request);
                false
            }
        });
    }
    if !host.index.is_worth_it() {
        return host.routes.iter().find(|route| asked(route, bare, request, dice).is_ok());
    }
    host.index.candidates(bare, |at| host.routes.get(at).filter(|route| asked(route, bare, request, dice).is_ok()))
}

/// Whether a route takes a request, else why not.
fn asked<'t>(route: &'t Route, bare_path: &str, request: &impl Request, dice: &mut impl Dice) -> Result<(), Lost<'t>> {
    if !route.path.matches(bare_path) {
        return Err(Lost::Path(&route.path));
    }
    if let Some(header) = route.headers.iter().find(|header| !header.matches(request)) {
        return Err(Lost::Header(header));
    }
    match route.fraction {
        Some(share) if !hits(share, dice) => Err(Lost::Fraction(share)),
        _ => Ok(()),
    }
}

/// Draws the wait, then the answer.
fn draw<T: Trace>(fault: Option<&Fault>, dice: &mut impl Dice, trace: &mut T) -> (Option<Delayed>, Option<Aborted>) {
    let Some(fault) = fault else { return (None, None) };
    let delay = fault.delay.filter(|(share, _)| hits(*share, dice)).map(|(_, wait)| Delayed { wait });
    let abort = fault.abort.filter(|(share, _)| hits(*share, dice)).map(|(_, status)| Aborted { status });
    trace.fault(fault, delay.is_some(), abort.is_some());
    (delay, abort)
}

fn hits(share: FaultShare, dice: &mut impl Dice) -> bool {
    match share.numerator {
        0 => false,
        numerator if numerator >= share.denominator => true,
        numerator => dice.below(share.denominator) < numerator,
    }
}

fn forwarded<'t, T: Trace>(
    tables: &'t Tables,
    route: &'t Route,
    forward: &'t Forward,
    dice: &mut impl Dice,
    trace: &mut T,
) -> Outcome<'t> {
    let Some(picked) = pick(&forward.clusters, forward.total_weight, dice) else {
        return Outcome::NoCluster { name: "", status: forward.cluster_not_found };
    };
    trace.cluster(picked.name.as_str(), picked.weight, forward.total_weight);
    match tables.cluster(&picked.name) {
        Some(cluster) => Outcome::Forward(Forwarded { cluster, forward, path: &route.path }),
        None => Outcome::NoCluster { name: picked.name.as_str(), status: forward.cluster_not_found },
    }
}

/// Picks by weight. A single cluster costs no roll.
fn pick<'t>(clusters: &'t [WeightedCluster], total: u32, dice: &mut impl Dice) -> Option<&'t WeightedCluster> {
    if let [only] = clusters {
        return Some(only);
    }
    let mut left = dice.below(total);
    clusters.iter().find(|cluster| {
        let hit = left < cluster.weight;
        left = left.wrapping_sub(cluster.weight);
        hit
    })
}
