//! The interception rules of a pod as text for `nft` (nftables(8)), which the `mesh-init` container applies.
//!
//! Inbound TCP goes to the proxy's inbound port, outbound TCP to its outbound port; the proxy finds the original
//! destination with `SO_ORIGINAL_DST`. What bears the proxy's mark or UID, what stays inside the pod, and the proxy's
//! own ports are left alone. The text replaces an earlier table of the same name in one transaction, so that it may
//! be applied again.

use std::fmt::Write as _;

use api::names::{PROXY_MARK, PROXY_UID, proxy_port};

/// Which traffic of a pod is intercepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interception {
    /// Inbound ports that go to the application directly.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destination ports that applications reach directly.
    pub exclude_outbound_ports: Vec<u16>,
}

impl Default for Interception {
    fn default() -> Self {
        Interception {
            exclude_inbound_ports: vec![proxy_port::METRICS, proxy_port::READINESS],
            exclude_outbound_ports: Vec::new(),
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
        let mut ports = self.exclude_inbound_ports.clone();
        ports.extend([proxy_port::ADMIN, proxy_port::OUTBOUND, proxy_port::INBOUND]);
        write_ports(&mut text, ports);
        let _ = writeln!(text, "    meta l4proto tcp redirect to :{}", proxy_port::INBOUND);
        text.push_str("  }\n  chain outbound {\n    type nat hook output priority -100; policy accept;\n");
        let _ = writeln!(text, "    meta mark {PROXY_MARK} return");
        let _ = writeln!(text, "    meta skuid {PROXY_UID} return");
        text.push_str("    fib daddr type local return\n");
        if !self.exclude_outbound_ports.is_empty() {
            write_ports(&mut text, self.exclude_outbound_ports.clone());
        }
        let _ = writeln!(text, "    meta l4proto tcp redirect to :{}", proxy_port::OUTBOUND);
        text.push_str("  }\n}\n");
        text
    }
}

fn write_ports(text: &mut String, mut ports: Vec<u16>) {
    ports.sort_unstable();
    ports.dedup();
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "    tcp dport {{ {list} }} return");
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
}
