//! The interception rules of a pod as text for `nft` (nftables(8)), which the `mesh-init` container applies.
//!
//! Inbound TCP goes to the proxy's inbound port, outbound TCP to its outbound port; the proxy finds the original
//! destination with `SO_ORIGINAL_DST`. What bears the proxy's mark or UID, what stays inside the pod, and the proxy's
//! own ports are left alone. The text replaces an earlier table of the same name in one transaction, so that it may
//! be applied again.

use std::fmt::Write as _;

use api::names::{PROXY_MARK, PROXY_UID, proxy_port};
use ipnet::IpNet;

/// All there is, or only some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted<T> {
    /// All.
    All,
    /// These, which may be none.
    Only(Vec<T>),
}

/// Which traffic of a pod is intercepted. What is excluded stays so, even where it is included too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interception {
    /// Inbound ports that go through the proxy.
    pub include_inbound_ports: Wanted<u16>,
    /// Inbound ports that go to the application directly.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination ports that go through the proxy wherever they are.
    pub include_outbound_ports: Vec<u16>,
    /// Destination ports that applications reach directly.
    pub exclude_outbound_ports: Vec<u16>,
    /// Destinations that go through the proxy.
    pub include_outbound_ranges: Wanted<IpNet>,
    /// Destinations that applications reach directly.
    pub exclude_outbound_ranges: Vec<IpNet>,
    /// Interfaces whose traffic is left alone in both directions.
    pub exclude_interfaces: Vec<String>,
    /// Interfaces behind which others are (virtual machines, say), whose traffic counts as the pod's own outbound.
    pub reroute_interfaces: Vec<String>,
}

impl Default for Interception {
    fn default() -> Self {
        Interception {
            include_inbound_ports: Wanted::All,
            exclude_inbound_ports: vec![proxy_port::METRICS, proxy_port::READINESS],
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            include_outbound_ranges: Wanted::All,
            exclude_outbound_ranges: Vec::new(),
            exclude_interfaces: Vec::new(),
            reroute_interfaces: Vec::new(),
        }
    }
}

impl Interception {
    /// Renders the rules.
    ///
    /// # Examples
    ///
    /// ```
    /// let rules = install::rules::Interception::default().render();
    /// assert!(rules.contains("redirect to :15001"));
    /// ```
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from("table inet mesh\ndelete table inet mesh\ntable inet mesh {\n");
        text.push_str("  chain inbound {\n    type nat hook prerouting priority dstnat; policy accept;\n");
        interfaces(&mut text, "iifname", &self.exclude_interfaces, "return");
        let outbound = format!("redirect to :{}", proxy_port::OUTBOUND);
        let reroute = format!("meta l4proto tcp {outbound}");
        interfaces(&mut text, "iifname", &self.reroute_interfaces, &reroute);
        let mut own = self.exclude_inbound_ports.clone();
        own.extend([proxy_port::ADMIN, proxy_port::OUTBOUND, proxy_port::INBOUND]);
        ports(&mut text, &own, "return");
        let redirect = format!("redirect to :{}", proxy_port::INBOUND);
        match &self.include_inbound_ports {
            Wanted::All => everything(&mut text, &redirect),
            Wanted::Only(wanted) => ports(&mut text, wanted, &redirect),
        }
        text.push_str("  }\n  chain outbound {\n    type nat hook output priority -100; policy accept;\n");
        let _ = writeln!(text, "    meta mark {PROXY_MARK} return");
        let _ = writeln!(text, "    meta skuid {PROXY_UID} return");
        text.push_str("    fib daddr type local return\n");
        interfaces(&mut text, "oifname", &self.exclude_interfaces, "return");
        let redirect = outbound;
        ports(&mut text, &self.exclude_outbound_ports, "return");
        ranges(&mut text, &self.exclude_outbound_ranges, "return");
        match &self.include_outbound_ranges {
            Wanted::All => everything(&mut text, &redirect),
            Wanted::Only(wanted) => {
                ports(&mut text, &self.include_outbound_ports, &redirect);
                ranges(&mut text, wanted, &format!("meta l4proto tcp {redirect}"));
            }
        }
        text.push_str("  }\n}\n");
        text
    }
}

fn interfaces(text: &mut String, what: &str, names: &[String], verdict: &str) {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    rule(text, what, &quoted, verdict);
}

fn everything(text: &mut String, verdict: &str) {
    let _ = writeln!(text, "    meta l4proto tcp {verdict}");
}

fn ports(text: &mut String, ports: &[u16], verdict: &str) {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    rule(text, "tcp dport", &ports, verdict);
}

/// One rule for each family; ranges within others are left out, as `nft` refuses sets whose parts overlap.
fn ranges(text: &mut String, ranges: &[IpNet], verdict: &str) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for range in IpNet::aggregate(&ranges.to_vec()) {
        match range {
            IpNet::V4(range) => v4.push(range),
            IpNet::V6(range) => v6.push(range),
        }
    }
    rule(text, "ip daddr", &v4, verdict);
    rule(text, "ip6 daddr", &v6, verdict);
}

fn rule<T: ToString>(text: &mut String, what: &str, items: &[T], verdict: &str) {
    if !items.is_empty() {
        let list = items.iter().map(T::to_string).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "    {what} {{ {list} }} {verdict}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_these() {
        let expected = "\
table inet mesh
delete table inet mesh
table inet mesh {
  chain inbound {
    type nat hook prerouting priority dstnat; policy accept;
    tcp dport { 15000, 15001, 15006, 15020, 15021 } return
    meta l4proto tcp redirect to :15006
  }
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta mark 1337 return
    meta skuid 1337 return
    fib daddr type local return
    meta l4proto tcp redirect to :15001
  }
}
";
        assert_eq!(Interception::default().render(), expected);
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().expect("a range")).collect()
    }

    fn narrow() -> Interception {
        Interception {
            include_inbound_ports: Wanted::Only(vec![9080, 80]),
            exclude_inbound_ports: vec![22],
            include_outbound_ports: vec![9000],
            exclude_outbound_ports: vec![3306],
            include_outbound_ranges: Wanted::Only(nets(&["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"])),
            exclude_outbound_ranges: nets(&["10.2.0.0/16"]),
            exclude_interfaces: vec!["net1".to_owned()],
            reroute_interfaces: vec!["virbr0".to_owned(), "virbr1".to_owned()],
        }
    }

    #[test]
    fn exclusions_come_first_then_what_is_included() {
        let rules = narrow().render();
        let lines: Vec<&str> = rules.lines().map(str::trim).filter(|line| line.contains('{')).skip(1).collect();
        assert_eq!(
            lines,
            [
                "chain inbound {",
                "iifname { \"net1\" } return",
                "iifname { \"virbr0\", \"virbr1\" } meta l4proto tcp redirect to :15001",
                "tcp dport { 22, 15000, 15001, 15006 } return",
                "tcp dport { 80, 9080 } redirect to :15006",
                "chain outbound {",
                "oifname { \"net1\" } return",
                "tcp dport { 3306 } return",
                "ip daddr { 10.2.0.0/16 } return",
                "tcp dport { 9000 } redirect to :15001",
                "ip daddr { 10.0.0.0/8 } meta l4proto tcp redirect to :15001",
                "ip6 daddr { fd00::/8 } meta l4proto tcp redirect to :15001",
            ]
        );
    }

    #[test]
    fn including_nothing_redirects_nothing() {
        let nothing = Interception {
            include_inbound_ports: Wanted::Only(Vec::new()),
            include_outbound_ranges: Wanted::Only(Vec::new()),
            ..Interception::default()
        };
        assert!(!nothing.render().contains("redirect"), "{}", nothing.render());
    }
}
