//! Indexes over virtual hosts and routes, so that large tables do not cost linear time.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::tables::{Domain, PathMatch, Route, VirtualHost};

/// Below this number of routes they are simply asked in order.
const WORTH_IT: usize = 12;

/// Where each authority's virtual host is.
#[derive(Debug, Default)]
pub(crate) struct DomainIndex {
    /// Exact names in lower case.
    exact: HashMap<Box<str>, (u32, u32), FixedState>,
    /// `.example.com`, the longest first.
    suffixes: Vec<(Box<str>, (u32, u32))>,
    /// `example.`, the longest first.
    prefixes: Vec<(Box<str>, (u32, u32))>,
    any: Option<(u32, u32)>,
}

/// Two virtual hosts claim one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clash {
    /// The authority.
    pub(crate) domain: String,
}

impl DomainIndex {
    /// Indexes virtual hosts.
    pub(crate) fn new<'d>(hosts: impl Iterator<Item = &'d [Domain]>) -> Result<Self, Clash> {
        let mut index = DomainIndex::default();
        for (at, domains) in hosts.enumerate() {
            for (nth, domain) in domains.iter().enumerate() {
                let place = (at as u32, nth as u32);
                let taken = match domain {
                    Domain::Any => index.any.replace(place).is_some(),
                    Domain::Exact(host) => index.exact.insert(host.to_ascii_lowercase().into(), place).is_some(),
                    Domain::Suffix(end) => claim(&mut index.suffixes, end, place),
                    Domain::Prefix(start) => claim(&mut index.prefixes, start, place),
                };
                if taken {
                    return Err(Clash { domain: domain.to_string() });
                }
            }
        }
        index.suffixes.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        index.prefixes.sort_by_key(|(start, _)| std::cmp::Reverse(start.len()));
        Ok(index)
    }

    /// Position of the virtual host for an authority, and the domain that says so.
    pub(crate) fn find<'t>(&self, authority: &str, hosts: &'t [VirtualHost]) -> Option<(usize, Option<&'t Domain>)> {
        let (at, nth) = self.place(authority)?;
        Some((at as usize, hosts.get(at as usize).and_then(|host| host.domains.get(nth as usize))))
    }

    fn place(&self, authority: &str) -> Option<(u32, u32)> {
        let is_catch_all = self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty();
        if is_catch_all {
            return self.any;
        }
        // The authority is in lower case already: it is canonical.
        if let Some(place) = self.exact.get(authority) {
            return Some(*place);
        }
        let longer = |part: &str| authority.len() > part.len();
        let suffix = self.suffixes.iter().find(|(end, _)| longer(end) && authority.ends_with(&**end));
        let found =
            suffix.or_else(|| self.prefixes.iter().find(|(start, _)| longer(start) && authority.starts_with(&**start)));
        found.map(|(_, place)| *place).or(self.any)
    }
}

fn claim(list: &mut Vec<(Box<str>, (u32, u32))>, part: &str, place: (u32, u32)) -> bool {
    let part: Box<str> = part.to_ascii_lowercase().into();
    let taken = list.iter().any(|(other, _)| *other == part);
    list.push((part, place));
    taken
}

/// Which routes can match a path at all, in order.
#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    worth_it: bool,
    /// Positions of the routes with this exact path.
    exact: HashMap<Box<str>, Vec<u32>, FixedState>,
    /// Positions of the routes with this prefix (of either kind).
    prefixes: HashMap<Box<str>, Vec<u32>, FixedState>,
    /// Lengths of those prefixes, each once.
    lengths: Vec<usize>,
    /// Positions of the routes for CONNECT.
    connects: Vec<u32>,
    /// Positions of all other routes.
    others: Vec<u32>,
}

impl RouteIndex {
    /// Indexes routes.
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut index = RouteIndex { worth_it: routes.len() >= WORTH_IT, ..RouteIndex::default() };
        if !index.worth_it {
            return index;
        }
        for (at, route) in routes.iter().enumerate() {
            let at = at as u32;
            match &route.path {
                PathMatch::Exact(path) => index.exact.entry(path.clone()).or_default().push(at),
                PathMatch::Prefix(prefix) | PathMatch::Elements(prefix) => {
                    index.prefixes.entry(prefix.clone()).or_default().push(at);
                    if !index.lengths.contains(&prefix.len()) {
                        index.lengths.push(prefix.len());
                    }
                }
                PathMatch::Connect => index.connects.push(at),
                PathMatch::Regex(_) | PathMatch::IgnoreCase(_) => index.others.push(at),
            }
        }
        index.lengths.sort_unstable();
        index
    }

    /// Whether there are enough routes for the index to be faster than asking each.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.worth_it
    }

    /// Asks the routes that can match the path, in order, until one is taken.
    pub(crate) fn candidates<T>(&self, path: &str, mut ask: impl FnMut(usize) -> Option<T>) -> Option<T> {
        let mut lists: SmallVec<[&[u32]; 16]> = SmallVec::new();
        lists.extend(self.exact.get(path).map(Vec::as_slice));
        for &length in self.lengths.iter().take_while(|&&length| length <= path.len()) {
            lists.extend(path.get(..length).and_then(|head| self.prefixes.get(head)).map(Vec::as_slice));
        }
        match path {
            "" => lists.push(&self.connects),
            _ if self.others.is_empty() => {}
            _ => lists.push(&self.others),
        }
        loop {
            let next = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
            let at = next[0] as usize;
            *next = &next[1..];
            if let Some(taken) = ask(at) {
                return Some(taken);
            }
        }
    }
}
