//! What the cluster's names mean, as Kubernetes' DNS specification has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr as _;

use hickory_proto::ProtoError;
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::node::services::{Service, Services};

/// Seconds that an answer may be kept.
const TTL: u32 = 5;

/// The names of one cluster.
pub(super) struct Zone {
    domain: Name,
    authority: Record,
}

/// What a question comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// These records.
    Records(Vec<Record>),
    /// The name exists, but has no record of that type.
    NoData,
    /// There is no such name.
    NoName,
    /// The name is none of the cluster's.
    Outside,
}

/// What a name of the cluster stands for.
enum Target<'a> {
    /// A Service.
    Service(&'a Service),
    /// A host behind a headless Service, or a pod.
    Host(IpAddr),
    /// A named port of a Service, whose name is the last part.
    Port { service: &'a Service, port: &'a str, protocol: &'a str, target: Name },
    /// A name that only has others below it.
    Above,
    /// Nothing.
    Nothing,
}

impl Zone {
    /// The names below `domain`.
    ///
    /// # Errors
    /// When it is not a domain.
    pub(super) fn new(domain: &str) -> Result<Self, ProtoError> {
        let domain = Name::from_ascii(format!("{}.", domain.trim_end_matches('.')))?.to_lowercase();
        let server = Name::from_ascii("ns.dns")?.append_domain(&domain)?;
        let mailbox = Name::from_ascii("hostmaster")?.append_domain(&domain)?;
        let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86_400, TTL);
        let authority = Record::from_rdata(domain.clone(), TTL, RData::SOA(soa));
        Ok(Self { domain, authority })
    }

    /// The record that comes with negative answers.
    pub(super) fn authority(&self) -> Record {
        self.authority.clone()
    }

    /// Answers one question.
    pub(super) fn answer(&self, services: &Services, query: &Query) -> Outcome {
        let name = query.name().to_lowercase();
        if let Some(address) = reverse(&name) {
            return self.names_of(services, query, address);
        }
        if !self.domain.zone_of(&name) {
            return Outcome::Outside;
        }
        let own = usize::from(name.num_labels()) - usize::from(self.domain.num_labels());
        let labels: Vec<String> =
            name.iter().take(own).map(|label| String::from_utf8_lossy(label).into_owned()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match self.find(services, &labels) {
            Target::Nothing => Outcome::NoName,
            Target::Above if labels.is_empty() && query.query_type() == RecordType::SOA => {
                Outcome::Records(vec![self.authority()])
            }
            Target::Above => Outcome::NoData,
            Target::Host(address) => addresses(query, [address]),
            Target::Service(service) => of_service(query, service),
            Target::Port { service, port, protocol, target } => {
                let found = service.ports.iter().find(|it| it.name == port && it.protocol == protocol);
                match found {
                    None => Outcome::NoName,
                    Some(_) if !matches!(query.query_type(), RecordType::SRV | RecordType::ANY) => Outcome::NoData,
                    Some(found) => records(vec![record(query, RData::SRV(SRV::new(0, 100, found.port, target)))]),
                }
            }
        }
    }

    fn find<'a>(&self, services: &'a Services, labels: &[&'a str]) -> Target<'a> {
        let service = |namespace: &str, name: &str| services.services.get(&(namespace.to_owned(), name.to_owned()));
        match *labels {
            [] | ["svc" | "pod"] => Target::Above,
            [namespace, "svc" | "pod"] if services.services.keys().any(|(known, _)| known == namespace) => {
                Target::Above
            }
            [address, _namespace, "pod"] => dashed(address).map_or(Target::Nothing, Target::Host),
            [name, namespace, "svc"] => service(namespace, name).map_or(Target::Nothing, Target::Service),
            [host, name, namespace, "svc"] => {
                let Some(service) = service(namespace, name) else { return Target::Nothing };
                let wanted = dashed(host);
                let found = service.hosts.iter().find(|(address, name)| match name {
                    Some(name) => name == host,
                    None => Some(*address) == wanted,
                });
                found.map_or(Target::Nothing, |(address, _)| Target::Host(*address))
            }
            [port, protocol, name, namespace, "svc"] => {
                let parts = port.strip_prefix('_').zip(protocol.strip_prefix('_'));
                let target = self.service_name(namespace, name);
                match (parts, service(namespace, name), target) {
                    (Some((port, protocol)), Some(service), Ok(target)) => {
                        Target::Port { service, port, protocol, target }
                    }
                    _ => Target::Nothing,
                }
            }
            _ => Target::Nothing,
        }
    }

    fn service_name(&self, namespace: &str, name: &str) -> Result<Name, ProtoError> {
        Name::from_ascii(format!("{name}.{namespace}.svc"))?.append_domain(&self.domain)
    }

    /// The names of an address.
    fn names_of(&self, services: &Services, query: &Query, address: IpAddr) -> Outcome {
        let mut names = Vec::new();
        for ((namespace, name), service) in &services.services {
            let host = service.hosts.iter().find(|(host, _)| *host == address);
            let host = match (service.address, host) {
                (Some(own), _) if own == address => None,
                (None, Some((address, host))) => {
                    Some(host.clone().unwrap_or_else(|| address.to_string().replace(['.', ':'], "-")))
                }
                _ => continue,
            };
            let full = self.service_name(namespace, name).and_then(|service| match host {
                None => Ok(service),
                Some(host) => Name::from_ascii(host)?.append_domain(&service),
            });
            names.extend(full.ok().map(|full| record(query, RData::PTR(PTR(full)))));
        }
        match names {
            // Addresses of others may have names that the host's resolver knows.
            names if names.is_empty() && is_ours(address) => Outcome::NoName,
            names if names.is_empty() => Outcome::Outside,
            names if matches!(query.query_type(), RecordType::PTR | RecordType::ANY) => Outcome::Records(names),
            _ => Outcome::NoData,
        }
    }
}

fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [10, 96 | 244, ..]),
        IpAddr::V6(address) => matches!(address.segments(), [0xfd10, 0x96 | 0x244, ..]),
    }
}

fn record(query: &Query, data: RData) -> Record {
    Record::from_rdata(query.name().clone(), TTL, data)
}

fn records(records: Vec<Record>) -> Outcome {
    if records.is_empty() { Outcome::NoData } else { Outcome::Records(records) }
}

fn addresses(query: &Query, addresses: impl IntoIterator<Item = IpAddr>) -> Outcome {
    let kind = query.query_type();
    let data = |address| match address {
        IpAddr::V4(address) if matches!(kind, RecordType::A | RecordType::ANY) => Some(RData::A(A(address))),
        IpAddr::V6(address) if matches!(kind, RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(address))),
        _ => None,
    };
    records(addresses.into_iter().filter_map(data).map(|data| record(query, data)).collect())
}

fn of_service(query: &Query, service: &Service) -> Outcome {
    if let Some(external) = &service.external_name {
        let target = Name::from_str(external).map(|mut name| {
            name.set_fqdn(true);
            name
        });
        return match target {
            Ok(target) => Outcome::Records(vec![record(query, RData::CNAME(CNAME(target)))]),
            Err(_) => Outcome::NoData,
        };
    }
    match service.address {
        Some(address) => addresses(query, [address]),
        None => addresses(query, service.hosts.iter().map(|(address, _)| *address)),
    }
}

/// `10-244-0-5` or `fd10-244--1-2` as an address.
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` asks about.
fn reverse(name: &Name) -> Option<IpAddr> {
    let text = name.to_ascii();
    let text = text.trim_end_matches('.');
    if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
        let reversed: Vec<&str> = digits.rsplit('.').collect();
        return reversed.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let digits: Vec<&str> = text.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    if digits.len() != 32 || digits.iter().any(|digit| digit.len() != 1) {
        return None;
    }
    u128::from_str_radix(&digits.concat(), 16).ok().map(|bits| IpAddr::V6(bits.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::services::ServicePort;

    fn services() -> Services {
        let port = || ServicePort { name: "http".to_owned(), protocol: "tcp", port: 9080, endpoints: Vec::new() };
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        let hosts = vec![(at("10.244.1.1"), Some("db-0".to_owned())), (at("10.244.1.2"), None)];
        let reviews = Service { address: Some(at("10.96.3.4")), ports: vec![port()], ..Service::default() };
        let six = Service { address: Some(at("fd10:96::3:4")), ports: vec![port()], ..Service::default() };
        let hosts_6 = vec![(at("fd10:244::1:1"), None)];
        let external = Service { external_name: Some("example.com".to_owned()), ..Service::default() };
        Services {
            services: BTreeMap::from([
                (key("reviews"), reviews),
                (key("db"), Service { hosts, ports: vec![port()], ..Service::default() }),
                (key("six"), six),
                (key("db6"), Service { hosts: hosts_6, ports: vec![port()], ..Service::default() }),
                (key("out"), external),
                (key("empty"), Service::default()),
            ]),
        }
    }

    fn ask(name: &str, kind: RecordType) -> String {
        let zone = Zone::new("cluster.local").expect("a domain");
        let query = Query::query(Name::from_ascii(name).expect("a name"), kind);
        match zone.answer(&services(), &query) {
            Outcome::Records(records) => {
                records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_mean_what_kubernetes_says() {
        for (name, kind, expected) in [
            ("reviews.default.svc.cluster.local.", RecordType::A, "10.96.3.4"),
            ("Reviews.Default.SVC.cluster.local.", RecordType::A, "10.96.3.4"),
            ("reviews.default.svc.cluster.local.", RecordType::AAAA, "NoData"),
            ("nobody.default.svc.cluster.local.", RecordType::A, "NoName"),
            ("reviews.other.svc.cluster.local.", RecordType::A, "NoName"),
            ("default.svc.cluster.local.", RecordType::A, "NoData"),
            ("other.svc.cluster.local.", RecordType::A, "NoName"),
            ("cluster.local.", RecordType::A, "NoData"),
            ("db.default.svc.cluster.local.", RecordType::A, "10.244.1.1 10.244.1.2"),
            ("empty.default.svc.cluster.local.", RecordType::A, "NoData"),
            ("db-0.db.default.svc.cluster.local.", RecordType::A, "10.244.1.1"),
            ("10-244-1-2.db.default.svc.cluster.local.", RecordType::A, "10.244.1.2"),
            ("db-9.db.default.svc.cluster.local.", RecordType::A, "NoName"),
            ("10-244-1-9.default.pod.cluster.local.", RecordType::A, "10.244.1.9"),
            (
                "_http._tcp.reviews.default.svc.cluster.local.",
                RecordType::SRV,
                "0 100 9080 reviews.default.svc.cluster.local.",
            ),
            ("_http._udp.reviews.default.svc.cluster.local.", RecordType::SRV, "NoName"),
            ("out.default.svc.cluster.local.", RecordType::A, "example.com."),
            ("4.3.96.10.in-addr.arpa.", RecordType::PTR, "reviews.default.svc.cluster.local."),
            ("1.1.244.10.in-addr.arpa.", RecordType::PTR, "db-0.db.default.svc.cluster.local."),
            ("9.9.96.10.in-addr.arpa.", RecordType::PTR, "NoName"),
            ("1.1.168.192.in-addr.arpa.", RecordType::PTR, "Outside"),
            ("six.default.svc.cluster.local.", RecordType::AAAA, "fd10:96::3:4"),
            ("six.default.svc.cluster.local.", RecordType::A, "NoData"),
            ("db6.default.svc.cluster.local.", RecordType::AAAA, "fd10:244::1:1"),
            ("fd10-244--1-1.db6.default.svc.cluster.local.", RecordType::AAAA, "fd10:244::1:1"),
            (
                "4.0.0.0.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.d.f.ip6.arpa.",
                RecordType::PTR,
                "six.default.svc.cluster.local.",
            ),
            ("9.0.0.0.9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.d.f.ip6.arpa.", RecordType::PTR, "NoName"),
            ("1.ip6.arpa.", RecordType::PTR, "Outside"),
            ("example.com.", RecordType::A, "Outside"),
        ] {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }
}
