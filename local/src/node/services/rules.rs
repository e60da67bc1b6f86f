//! Service addresses as nftables rules of the mesh's root namespace.
//!
//! A map leads from address, protocol and port to one chain per Service port, which picks an endpoint at random. Only
//! the chains of ports that have changed are written anew, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::watch;

use super::Services;
use crate::node::network::{API_ADDRESS, DNS_ADDRESS, SERVICE_NETWORK, SERVICE_NETWORK_6, has_ipv6};
use crate::supervisor::find_program;

/// Why the rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    /// `nft` cannot be run.
    #[error("cannot run nft: {0}")]
    Run(#[from] io::Error),
    /// `nft` refuses.
    #[error("nft refused the rules of services: {0}")]
    Refused(String),
}

/// The rules in force.
pub(crate) struct Rules {
    nft: std::path::PathBuf,
    chains: BTreeMap<Vip, Vec<(IpAddr, u16)>>,
    hairpins: BTreeSet<IpAddr>,
}

type Vip = (IpAddr, &'static str, u16);

impl Rules {
    /// Writes the table without any Service.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub(crate) async fn install() -> Result<Self, RulesError> {
        let nft = find_program("nft").ok_or_else(|| io::Error::other("nft is not installed"))?;
        let rules = Self { nft, chains: BTreeMap::new(), hairpins: BTreeSet::new() };
        rules.apply(&table(&Family::V4)).await?;
        if has_ipv6() {
            rules.apply(&table(&Family::V6)).await?;
        }
        Ok(rules)
    }

    /// Follows the Services until cancelled; a change that `nft` refuses is logged and tried again with the next.
    pub(crate) async fn follow(mut self, mut services: watch::Receiver<Arc<Services>>) {
        services.mark_changed();
        while services.changed().await.is_ok() {
            let current = Arc::clone(&services.borrow_and_update());
            if let Err(error) = self.update(&current).await {
                tracing::error!(%error, "service addresses are out of date");
            }
        }
    }

    async fn update(&mut self, services: &Services) -> Result<(), RulesError> {
        let chains = chains(services);
        let hairpins = chains.values().flatten().map(|(address, _)| *address).collect();
        let script = difference((&self.chains, &self.hairpins), (&chains, &hairpins));
        if !script.is_empty() {
            self.apply(&script).await?;
        }
        (self.chains, self.hairpins) = (chains, hairpins);
        Ok(())
    }

    async fn apply(&self, script: &str) -> Result<(), RulesError> {
        let mut child = Command::new(&self.nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(RulesError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// What differs between the two families of addresses; each has a table of its own.
struct Family {
    /// The table's family, and the word for an address of it.
    word: &'static str,
    /// The type of an address.
    kind: &'static str,
    /// The protocol of errors.
    errors: &'static str,
}

impl Family {
    const V4: Self = Self { word: "ip", kind: "ipv4_addr", errors: "icmp" };
    const V6: Self = Self { word: "ip6", kind: "ipv6_addr", errors: "icmpv6" };

    fn of(address: &IpAddr) -> &'static Self {
        if address.is_ipv4() { &Self::V4 } else { &Self::V6 }
    }

    /// The network of Services, and those of its addresses that are served themselves.
    fn network(&self) -> (String, String) {
        if self.word == Self::V4.word {
            let own = format!("{} daddr {{ {API_ADDRESS}, {DNS_ADDRESS} }} return;", self.word);
            return (format!("{}/{}", SERVICE_NETWORK.0, SERVICE_NETWORK.1), own);
        }
        (format!("{}/{}", SERVICE_NETWORK_6.0, SERVICE_NETWORK_6.1), String::new())
    }
}

/// What is not translated although it is in the network of Services has nobody behind it: whoever tries is told at once.
fn table(family: &Family) -> String {
    let Family { word, kind, errors } = family;
    let (network, own) = family.network();
    format!(
        "add table {word} mesh
delete table {word} mesh
table {word} mesh {{
  map vips {{ type {kind} . inet_proto . inet_service : verdict; }}
  set hairpin {{ type {kind} . {kind}; }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {word} daddr {network} {word} daddr . meta l4proto . th dport vmap @vips;
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {word} daddr {network} {word} daddr . meta l4proto . th dport vmap @vips;
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat {word} saddr . {word} daddr @hairpin masquerade;
  }}
  chain refuse {{
    {own}
    meta l4proto tcp reject with tcp reset;
    reject with {errors} port-unreachable;
  }}
  chain refuse_forwarded {{
    type filter hook prerouting priority -90; policy accept;
    {word} daddr {network} jump refuse;
  }}
  chain refuse_own {{
    type filter hook output priority -90; policy accept;
    {word} daddr {network} jump refuse;
  }}
}}
"
    )
}

fn chains(services: &Services) -> BTreeMap<Vip, Vec<(IpAddr, u16)>> {
    let mut chains = BTreeMap::new();
    for service in services.services.values() {
        // The API and DNS are served at their Services' addresses themselves.
        let Some(address) = service.address.filter(|it| *it != API_ADDRESS && *it != DNS_ADDRESS) else { continue };
        for port in &service.ports {
            // A translation stays within a family.
            let mut endpoints = port.endpoints.clone();
            endpoints.retain(|(endpoint, _)| endpoint.is_ipv4() == address.is_ipv4());
            if !endpoints.is_empty() {
                chains.insert((address, port.protocol, port.port), endpoints);
            }
        }
    }
    chains
}

type State<'a> = (&'a BTreeMap<Vip, Vec<(IpAddr, u16)>>, &'a BTreeSet<IpAddr>);

/// The commands that lead from one state to the other.
fn difference((old, old_hairpins): State<'_>, (new, new_hairpins): State<'_>) -> String {
    let mut script = String::new();
    for vip in old.keys().filter(|vip| !new.contains_key(vip)) {
        let (address, protocol, port) = vip;
        let (word, chain) = (Family::of(address).word, chain_name(vip));
        let _ =
            writeln!(script, "delete element {word} mesh vips {{ {address} . {protocol} . {port} : goto {chain} }}");
        let _ = writeln!(script, "delete chain {word} mesh {chain}");
    }
    for (vip, endpoints) in new {
        let (address, protocol, port) = vip;
        let (word, chain) = (Family::of(address).word, chain_name(vip));
        match old.get(vip) {
            Some(known) if known == endpoints => continue,
            Some(_) => {
                let _ = writeln!(script, "flush chain {word} mesh {chain}");
            }
            None => {
                let _ = writeln!(script, "add chain {word} mesh {chain}");
            }
        }
        let _ =
            writeln!(script, "add rule {word} mesh {chain} meta l4proto {protocol} {}", translation(word, endpoints));
        if !old.contains_key(vip) {
            let _ =
                writeln!(script, "add element {word} mesh vips {{ {address} . {protocol} . {port} : goto {chain} }}");
        }
    }
    for (command, addresses) in [
        ("delete", old_hairpins.difference(new_hairpins).collect::<Vec<_>>()),
        ("add", new_hairpins.difference(old_hairpins).collect()),
    ] {
        for address in addresses {
            let word = Family::of(address).word;
            let _ = writeln!(script, "{command} element {word} mesh hairpin {{ {address} . {address} }}");
        }
    }
    script
}

fn chain_name((address, protocol, port): &Vip) -> String {
    format!("s_{}_{protocol}_{port}", address.to_string().replace(['.', ':'], "_"))
}

fn translation(word: &str, endpoints: &[(IpAddr, u16)]) -> String {
    if let [(address, port)] = endpoints {
        return format!("dnat to {}", std::net::SocketAddr::new(*address, *port));
    }
    let targets: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(number, (address, port))| format!("{number} : {address} . {port}"))
        .collect();
    format!("dnat {word} to numgen random mod {} map {{ {} }}", endpoints.len(), targets.join(", "))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn endpoint(last: u8) -> (IpAddr, u16) {
        (Ipv4Addr::new(10, 244, 1, last).into(), 8080)
    }

    #[test]
    fn only_what_has_changed_is_written() {
        let (a, b) = ((Ipv4Addr::new(10, 96, 1, 1).into(), "tcp", 80), (Ipv4Addr::new(10, 96, 1, 2).into(), "tcp", 80));
        let old = BTreeMap::from([(a, vec![endpoint(1)]), (b, vec![endpoint(1)])]);
        let hairpins = BTreeSet::from([endpoint(1).0]);
        assert_eq!(difference((&old, &hairpins), (&old, &hairpins)), "");
        let new = BTreeMap::from([(b, vec![endpoint(1), endpoint(2)])]);
        let new_hairpins = BTreeSet::from([endpoint(1).0, endpoint(2).0]);
        assert_eq!(
            difference((&old, &hairpins), (&new, &new_hairpins)),
            "delete element ip mesh vips { 10.96.1.1 . tcp . 80 : goto s_10_96_1_1_tcp_80 }\n\
             delete chain ip mesh s_10_96_1_1_tcp_80\n\
             flush chain ip mesh s_10_96_1_2_tcp_80\n\
             add rule ip mesh s_10_96_1_2_tcp_80 meta l4proto tcp dnat ip to numgen random mod 2 map \
             { 0 : 10.244.1.1 . 8080, 1 : 10.244.1.2 . 8080 }\n\
             add element ip mesh hairpin { 10.244.1.2 . 10.244.1.2 }\n"
        );
    }

    #[test]
    fn a_service_in_ipv6_has_its_chain_in_the_other_table() {
        let vip: IpAddr = "fd10:96::1:2".parse().expect("an address");
        let pod = |last| (IpAddr::from(Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 1, last)), 80);
        let (none, nobody) = (BTreeMap::new(), BTreeSet::new());
        let one = BTreeMap::from([((vip, "tcp", 80), vec![pod(5)])]);
        assert_eq!(
            difference((&none, &nobody), (&one, &nobody)),
            "add chain ip6 mesh s_fd10_96__1_2_tcp_80\n\
             add rule ip6 mesh s_fd10_96__1_2_tcp_80 meta l4proto tcp dnat to [fd10:244::1:5]:80\n\
             add element ip6 mesh vips { fd10:96::1:2 . tcp . 80 : goto s_fd10_96__1_2_tcp_80 }\n"
        );
        assert_eq!(
            translation("ip6", &[pod(5), pod(6)]),
            "dnat ip6 to numgen random mod 2 map { 0 : fd10:244::1:5 . 80, 1 : fd10:244::1:6 . 80 }"
        );
        let table = table(&Family::V6);
        assert!(table.contains("ip6 daddr fd10:96::/112 jump refuse") && !table.contains("10.96."), "{table}");
    }
}
