//! Which filter chain a connection gets, by what is seen of it before a byte is used up.

use std::fmt;

use super::{Chain, ChainMatch, Listener};

/// What is seen of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// The port that it was going to.
    pub port: u16,
    /// The server name of its TLS ClientHello, in lower case.
    pub server_name: Option<&'a str>,
    /// Whether it begins with TLS.
    pub is_tls: bool,
    /// What it speaks, or offers to: `http/1.0`, `http/1.1`, `h2c`, or the ALPN names of its ClientHello in their order.
    pub protocols: &'a [&'a str],
}

/// A server name that a filter chain is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// Equal.
    Exact(Box<str>),
    /// `*.example.com`, kept as `.example.com`: at least one label stands for the star.
    Below(Box<str>),
}

impl ServerName {
    /// Reads a name as configuration writes it; `None` if it has a star anywhere but as its first label, or is empty.
    ///
    /// # Examples
    /// ```
    /// use engine::tables::ServerName;
    /// assert_eq!(ServerName::parse("*.Example.com"), Some(ServerName::Below(".example.com".into())));
    /// assert_eq!(ServerName::parse("www.*.com"), None);
    /// assert_eq!(ServerName::parse("*"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let name = match lower.strip_prefix('*') {
            Some(below) if below.len() > 1 && below.starts_with('.') => ServerName::Below(below.into()),
            Some(_) => return None,
            None => ServerName::Exact(lower.as_str().into()),
        };
        let (ServerName::Exact(text) | ServerName::Below(text)) = &name;
        (!text.is_empty() && !text.contains('*')).then_some(name)
    }

    /// How well it fits: the longer the name the better, and an exact one best; `None` not at all.
    fn fit(&self, name: &str) -> Option<usize> {
        match self {
            ServerName::Exact(wanted) => (**wanted == *name).then_some(usize::MAX),
            ServerName::Below(end) => (name.len() > end.len() && name.ends_with(&**end)).then_some(end.len()),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Exact(name) => f.write_str(name),
            ServerName::Below(end) => write!(f, "*{end}"),
        }
    }
}

impl Listener {
    /// The filter chain for a connection. `None` means that it is closed (`no_route`).
    ///
    /// As in Envoy the criteria are looked at one after the other, and what fits one of them best shuts out the rest
    /// before the next is looked at: port, server name, transport, protocol. A chain that says nothing of a criterion
    /// fits it least.
    #[must_use]
    pub fn chain_for(&self, seen: &Seen<'_>) -> Option<&Chain> {
        let all = || self.chains.iter().map(|chain| (chain, &chain.matches));
        let best = |fit: &dyn Fn(&ChainMatch) -> Option<usize>| all().filter_map(|(_, matches)| fit(matches)).max();
        let port = best(&|matches| matches.fit_port(seen));
        let by_port = |matches: &ChainMatch| matches.fit_port(seen).filter(|_| matches.fit_port(seen) == port);
        let name = best(&|matches| by_port(matches).and_then(|_| matches.fit_server_name(seen)));
        let by_name = |matches: &ChainMatch| {
            by_port(matches).and_then(|_| matches.fit_server_name(seen)).filter(|fit| Some(*fit) == name)
        };
        let transport = best(&|matches| by_name(matches).and_then(|_| matches.fit_transport(seen)));
        let by_transport = |matches: &ChainMatch| {
            by_name(matches).and_then(|_| matches.fit_transport(seen)).filter(|fit| Some(*fit) == transport)
        };
        let fitting = |matches: &ChainMatch| by_transport(matches).and_then(|_| matches.fit_protocol(seen));
        let protocol = best(&fitting);
        let chosen = all().find(|(_, matches)| protocol.is_some() && fitting(matches) == protocol);
        chosen.map(|(chain, _)| chain).or(self.default_chain.as_ref())
    }
}

impl ChainMatch {
    fn fit_port(&self, seen: &Seen<'_>) -> Option<usize> {
        match self.destination_port {
            None => Some(0),
            Some(port) => (port == seen.port).then_some(1),
        }
    }

    fn fit_server_name(&self, seen: &Seen<'_>) -> Option<usize> {
        if self.server_names.is_empty() {
            return Some(0);
        }
        let name = seen.server_name?;
        self.server_names.iter().filter_map(|wanted| wanted.fit(name)).max()
    }

    fn fit_transport(&self, seen: &Seen<'_>) -> Option<usize> {
        match self.is_tls {
            None => Some(0),
            Some(is_tls) => (is_tls == seen.is_tls).then_some(1),
        }
    }

    fn fit_protocol(&self, seen: &Seen<'_>) -> Option<usize> {
        if self.application_protocols.is_empty() {
            return Some(0);
        }
        let count = seen.protocols.len();
        let place = seen
            .protocols
            .iter()
            .position(|protocol| self.application_protocols.iter().any(|wanted| **wanted == **protocol))?;
        Some(count - place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_fit_of_a_server_name_is_the_longest() {
        for (wanted, name, fits) in [
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "b.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "badexample.com", false),
        ] {
            assert_eq!(ServerName::parse(wanted).expect("a name").fit(name).is_some(), fits, "{wanted} {name}");
        }
        let fit = |wanted: &str| ServerName::parse(wanted).expect("a name").fit("a.b.example.com");
        assert!(fit("a.b.example.com") > fit("*.b.example.com"));
        assert!(fit("*.b.example.com") > fit("*.example.com"));
    }
}
