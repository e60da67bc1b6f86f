//! A CA that is killed while it issues: as a process, as it runs in a pod.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_ca::holders::{Holder, Ledger};
use runtime::svid::client::{Answer, Authority, Pem, plain_dial};
use tokio::net::TcpStream;

use crate::callers::join_token;
use crate::world::{REVIEWS, SERVER, World, id_of, request};

/// The CA's program, ended with this.
struct Process(Child);

impl Process {
    /// Starts it at an address of its own of the loopback network, and waits until it listens.
    async fn start(world: &World, address: IpAddr) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-ca"));
        command.arg("--kubeconfig").arg(world.kubeconfig()).arg("--listen").arg(address.to_string());
        command.env("MESH_CA_CERTS", world.certificates()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.spawn().expect("it starts"));
        let csr = SocketAddr::new(address, api::names::ca_port::CSR);
        let listens = async {
            while TcpStream::connect(csr).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listens).await.expect("it listens");
        process
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it has ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever asks while the CA dies gets its certificate from the next one, or from this one before; never from both by the same
/// token. Each certificate that was handed out is written down, so that no rotation forgets who holds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_is_killed_while_it_issues_has_written_down_what_it_handed_out() {
    const ASKING: usize = 24;
    let world = World::start().await;
    // An address of the loopback network for this test alone: the ports are those of every CA.
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let address = IpAddr::from([127, 83, a, b.max(1)]);
    let authority = Authority {
        address: SocketAddr::new(address, api::names::ca_port::CSR).to_string(),
        server_name: SERVER.to_owned(),
        roots: Pem::Text(world.root()),
        token_file: None,
        dial: plain_dial(),
    };
    let handed_out: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut first = Process::start(&world, address).await;
    let tasks = runtime::Tasks::new();
    for at in 0..ASKING {
        // Half of them have a token that works once.
        let token =
            if at % 2 == 0 { join_token(&world, "reviews", 600) } else { world.token("default", "reviews", "mesh-ca") };
        let authority = Authority { token_file: Some(world.token_file(&token)), ..authority.clone() };
        let handed_out = Arc::clone(&handed_out);
        tasks.spawn_until_cancelled("caller", async move {
            let (_publisher, svids) = runtime::svid::channel();
            loop {
                match authority.request(&svids, request(None)).await {
                    Ok(answer) => {
                        note(&handed_out, &answer);
                        // Whoever may ask again does: the CA is to die while it issues.
                        if at % 2 == 0 {
                            return;
                        }
                    }
                    // A token that was used up by a CA that died before it could answer is lost, and gives nothing.
                    Err(error) if error.to_string().contains("was used before") => return,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
    }
    let enough = |count: usize| {
        let handed_out = Arc::clone(&handed_out);
        async move {
            while handed_out.lock().expect("not poisoned").len() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), enough(ASKING)).await.expect("it issues");
    first.kill();
    let before = handed_out.lock().expect("not poisoned").clone();
    let ledger = recorded(&world);
    let missing: Vec<_> = before.iter().filter(|serial| ledger.get(&Holder::leaf(serial)).is_none()).collect();
    assert!(missing.is_empty(), "{} of {} are not written down: {missing:?}", missing.len(), before.len());
    let root = world.get("secrets", "mesh-system", "mesh-ca-root").expect("it is kept");

    let _second = Process::start(&world, address).await;
    tokio::time::timeout(Duration::from_secs(30), enough(before.len() + ASKING)).await.expect("the next one issues");
    tasks.stop(Duration::from_secs(20)).await.expect("they end");
    assert_eq!(world.get("secrets", "mesh-system", "mesh-ca-root"), Some(root), "with the same root");
}

fn note(handed_out: &Mutex<BTreeSet<String>>, answer: &Answer) {
    assert_eq!(id_of(answer), REVIEWS);
    let leaf = runtime::svid::Leaf::read(&answer.chain[0]).expect("an SVID");
    handed_out.lock().expect("not poisoned").insert(leaf.peer.serial);
}

fn recorded(world: &World) -> Ledger {
    let map = world.get("configmaps", "mesh-system", "mesh-ca-holders").expect("there are records");
    map["data"]["holders"].as_str().expect("text").parse().expect("records")
}
