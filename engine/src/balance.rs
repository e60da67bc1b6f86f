//! Which endpoint of a cluster gets the next request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::decide::Dice;
use crate::tables::{Endpoint, Endpoints, Lb};

/// Picks an endpoint by the counters that the tables carry.
///
/// Draining and ill endpoints are skipped while others exist. Returns `None` when there are none at all.
pub fn pick<'t>(endpoints: &'t Endpoints, lb: Lb, dice: &mut impl Dice) -> Option<&'t Arc<Endpoint>> {
    let turn = match lb {
        Lb::RoundRobin => endpoints.turn.fetch_add(1, Ordering::Relaxed),
        Lb::Random | Lb::LeastRequest => 0,
    };
    pick_from(endpoints.candidates(), lb, turn, |endpoint| endpoint.load.in_flight(), dice)
}

/// Picks an endpoint that is not among `tried` and not ejected, if there is one.
///
/// Ejected endpoints are skipped unless more than half are ejected: then all count, as a guess beats a refusal. The time
/// is asked for only while somebody may be ejected.
pub fn pick_other<'t>(
    endpoints: &'t Endpoints,
    lb: Lb,
    tried: &[SocketAddr],
    now: impl FnOnce() -> u64,
    dice: &mut impl Dice,
) -> Option<&'t Arc<Endpoint>> {
    let may_be_ejected = endpoints.ejections.may_be();
    if tried.is_empty() && !may_be_ejected {
        return pick(endpoints, lb, dice);
    }
    let candidates = endpoints.candidates();
    let now = if may_be_ejected { now() } else { 0 };
    endpoints.ejections.settle(now);
    let is_ejected = |endpoint: &Endpoint| may_be_ejected && endpoint.load.health.ejected_until(now).is_some();
    let ejected = candidates.iter().filter(|endpoint| is_ejected(endpoint)).count();
    let skips = ejected * 2 <= candidates.len();
    let is_left_out = |tried: &[SocketAddr], endpoint: &Endpoint| {
        tried.contains(&endpoint.address) || (skips && is_ejected(endpoint))
    };
    let count_of = |tried: &[SocketAddr]| candidates.iter().filter(|endpoint| !is_left_out(tried, endpoint)).count();
    let (tried, count) = match count_of(tried) {
        0 => (&[][..], count_of(&[])),
        count => (tried, count),
    };
    let others = || candidates.iter().filter(|endpoint| !is_left_out(tried, endpoint));
    let turn = if lb == Lb::RoundRobin { endpoints.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
    choose(count, |nth| others().nth(nth), (lb, turn), |endpoint| endpoint.load.in_flight(), dice)
}

/// Picks one of `candidates` at a turn of the round robin and by a view on the requests in flight.
///
/// Least request draws two different ones at random and keeps the one with fewer in flight, so it is O(1).
pub fn pick_from<'t>(
    candidates: &'t [Arc<Endpoint>],
    lb: Lb,
    turn: usize,
    in_flight: impl Fn(&Endpoint) -> u32,
    dice: &mut impl Dice,
) -> Option<&'t Arc<Endpoint>> {
    choose(candidates.len(), |nth| candidates.get(nth), (lb, turn), in_flight, dice)
}

fn choose<'t>(
    count: usize,
    at: impl Fn(usize) -> Option<&'t Arc<Endpoint>>,
    (lb, turn): (Lb, usize),
    in_flight: impl Fn(&Endpoint) -> u32,
    dice: &mut impl Dice,
) -> Option<&'t Arc<Endpoint>> {
    let sides = u32::try_from(count).unwrap_or(u32::MAX);
    match (count, lb) {
        (0, _) => None,
        (1, _) => at(0),
        (_, Lb::RoundRobin) => at(turn % count),
        (_, Lb::Random) => at(dice.below(sides) as usize),
        (_, Lb::LeastRequest) => {
            let first = dice.below(sides);
            let other = dice.below(sides - 1);
            let second = if other < first { other } else { other + 1 };
            let (first, second) = (at(first as usize)?, at(second as usize)?);
            Some(if in_flight(second) < in_flight(first) { second } else { first })
        }
    }
}
