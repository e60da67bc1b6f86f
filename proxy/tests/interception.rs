//! Connections that the kernel redirects, over IPv4 and IPv6, in a network namespace of the test's own.
//!
//! Needs `unshare`, `nft` and `ip`, and user namespaces. Without them the test says so and passes, except where `CI` is set.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "the harness is shared with other tests")]

use std::net::SocketAddr;
use std::process::Command;

use mesh_proxy::Settings;

#[path = "data/mesh.rs"]
mod mesh;

use mesh::{Mesh, Peer, Upstream};

/// What the kernel is told: connections to port 80 go to the proxy, except its own.
const RULES: &str = "table inet test {
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta mark 1337 return
    tcp dport 80 redirect to :15001
  }
}";

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var_os("PATH").unwrap_or_default().to_string_lossy());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn the_original_destination_is_found_for_both_families() {
    let able = run("unshare", &["-Urn", "sh", "-c", "ip link set lo up && nft list tables"]);
    if let Err(why) = able {
        assert!(std::env::var_os("CI").is_none(), "this machine cannot run it: {why}");
        println!("left out, as this machine cannot run it: {why}");
        return;
    }
    let myself = std::env::current_exe().expect("a path");
    let myself = myself.to_str().expect("text");
    let inside = ["-Urn", myself, "--ignored", "--exact", "inside_a_namespace", "--nocapture"];
    run("unshare", &inside).unwrap_or_else(|why| panic!("{why}"));
}

/// Run by the test above, in its namespace.
#[tokio::test]
#[ignore = "changes the network that it runs in"]
async fn inside_a_namespace() {
    run("ip", &["link", "set", "lo", "up"]).expect("ip");
    run("ip", &["addr", "add", "10.9.9.9/32", "dev", "lo"]).expect("ip");
    run("ip", &["-6", "addr", "add", "fd99::9/128", "dev", "lo", "nodad"]).expect("ip -6");
    run("nft", &[RULES]).expect("nft");
    let mesh = Mesh::with(Settings { mark: Some(1337), ..Settings::default() });
    mesh.original_destination("passthrough");
    mesh.intercepting("outbound", "passthrough", &["0.0.0.0:15001", "[::]:15001"]);
    for address in ["10.9.9.9:80", "[fd99::9]:80"] {
        let address: SocketAddr = address.parse().expect("an address");
        let upstream = Upstream::at(address);
        let mut client = Peer::connect(address).await;
        client.send("from the client").await;
        let mut server = upstream.accept().await;
        assert_eq!(server.exactly(15).await, b"from the client", "{address}");
        server.send("from the server").await;
        assert_eq!(client.exactly(15).await, b"from the server", "{address}");
        assert_eq!(mesh.connections(), 1, "{address} has come through the proxy");
        drop((client, server));
        mesh::until("the connection ends", || mesh.connections() == 0).await;
    }
}
