//! The CA's program: what it writes down, and that it may be killed while it issues, kept waiting by the Kubernetes API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use runtime::Tasks;
use runtime::svid::client::{Authority, Pem, plain_dial};
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{KeyKind, Leaf, channel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};

use crate::world::{AUDIENCE, REVIEWS, SERVER, World, id_of};

const PATIENCE: Duration = Duration::from_secs(60);
/// A review of a token is larger than anything that the CA asks of the API by itself.
const REVIEW: usize = 700;

/// Passes bytes between the CA and the API, until it is told to keep those of a review back.
struct Gate {
    address: SocketAddr,
    shut: watch::Sender<bool>,
    knocked: Arc<Notify>,
}

impl Gate {
    async fn to(api: SocketAddr, tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gate = Gate {
            address: listener.local_addr().expect("an address"),
            shut: watch::channel(false).0,
            knocked: Arc::default(),
        };
        let (shut, knocked, all) = (gate.shut.clone(), Arc::clone(&gate.knocked), tasks.clone());
        tasks.spawn_until_cancelled("gate", async move {
            loop {
                let (near, _) = listener.accept().await.expect("accepts");
                let far = TcpStream::connect(api).await.expect("the API is there");
                let (shut, knocked) = (shut.subscribe(), Arc::clone(&knocked));
                all.spawn_until_cancelled("gate connection", pass(near, far, shut, knocked));
            }
        });
        gate
    }
}

async fn pass(near: TcpStream, far: TcpStream, mut shut: watch::Receiver<bool>, knocked: Arc<Notify>) {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let there = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = near_in.read(&mut bytes).await {
            if *shut.borrow() && count > REVIEW {
                knocked.notify_one();
                let _ = shut.wait_for(|is_shut| !is_shut).await;
            }
            if far_out.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
    };
    tokio::select! { () = there => {}, () = back => {} }
}

/// The program, at an address of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn start(kubeconfig: &Path, certificates: &Path, ip: Ipv4Addr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-ca"));
        command.arg("--kubeconfig").arg(kubeconfig).args(["--listen", &ip.to_string()]).env_clear();
        command.env("MESH_CA_CERTS", certificates).stdin(Stdio::null()).kill_on_drop(true);
        let log = std::fs::File::options().create(true).append(true).open(certificates.join("log")).expect("a log");
        command.stdout(log.try_clone().expect("twice")).stderr(log);
        let child = command.spawn().expect("it starts");
        let address = SocketAddr::from((ip, api::names::ca_port::CSR));
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("it listens");
        Process { child, address }
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("it is killed");
    }
}

/// The files of a serving certificate; gives their root.
fn certificates(directory: &Path) -> String {
    let made = runtime::authority::serving_certificate(&[SERVER], Duration::from_secs(3600)).expect("a certificate");
    for (file, text) in [("tls.crt", &made.cert_pem), ("tls.key", &made.key_pem), ("ca.crt", &made.ca_pem)] {
        std::fs::write(directory.join(file), text).expect("written");
    }
    made.ca_pem
}

/// A kubeconfig that leads through the gate.
fn through(world: &World, gate: &Gate, directory: &Path) -> PathBuf {
    let text = std::fs::read_to_string(world.kubeconfig()).expect("a kubeconfig");
    let port = world.api_address().port();
    let path = directory.join("kubeconfig");
    std::fs::write(&path, text.replace(&format!(":{port}"), &format!(":{}", gate.address.port()))).expect("written");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_is_killed_while_it_issues_leaves_one_identity_and_its_state_whole() {
    let world = World::start().await;
    let tasks = Tasks::new();
    let gate = Gate::to(world.api_address(), &tasks).await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let root = certificates(directory.path());
    let kubeconfig = through(&world, &gate, directory.path());
    // No other process of this machine is likely to be at this address.
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let ip = Ipv4Addr::new(127, 77, a, b.clamp(1, 254));
    let first = Process::start(&kubeconfig, directory.path(), ip).await;
    let kept = world.get("secrets", "mesh-system", "mesh-ca-root").expect("its root is kept");

    // A daemon asks, and the CA is killed while it asks the API who that is.
    gate.shut.send_replace(true);
    let authority = Authority {
        address: first.address.to_string(),
        server_name: SERVER.to_owned(),
        roots: Pem::Text(root),
        token_file: Some(world.token_file(&world.token("default", "reviews", AUDIENCE))),
        dial: plain_dial(),
    };
    let (publisher, svids) = channel();
    let status = Status::default();
    let renewal = Renewal {
        authority: authority.clone(),
        account: ("default".to_owned(), "reviews".to_owned()),
        key: KeyKind::P256,
        lifetime: None,
        publisher,
        status: status.clone(),
    };
    tasks.spawn("identity", renewal.run(tasks.token().clone()));
    tokio::time::timeout(PATIENCE, gate.knocked.notified()).await.expect("the CA asks who it is");
    assert_eq!(status.progress().renewals + status.progress().failures, 0, "the request is in flight");
    first.kill().await;
    tokio::time::timeout(PATIENCE, status.first_outcome()).await.expect("it is noticed");
    assert!(svids.current().is_none(), "nothing was issued");
    gate.shut.send_replace(false);

    // The next one goes on: the daemon asks again by itself, and has one identity.
    let second = Process::start(&kubeconfig, directory.path(), ip).await;
    let svid = tokio::time::timeout(PATIENCE, svids.ready()).await.expect("it has one");
    assert_eq!(svid.id.as_str(), REVIEWS);
    // It is counted once it is in force.
    let counted = async {
        while status.progress().renewals == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("it is counted");
    assert_eq!(status.progress().renewals, 1, "exactly one");
    let now = world.get("secrets", "mesh-system", "mesh-ca-root").expect("its root is kept");
    assert_eq!(now["data"], kept["data"], "with the root of before");
    let request = crate::world::request(None);
    let answer = authority.request(&svids, request).await.expect("issued");
    assert_eq!(id_of(&answer), REVIEWS);
    let leaf = Leaf::read(&answer.chain[0]).expect("an SVID");
    assert_ne!(leaf.peer.serial, svid.serial, "no number is given twice");
    second.kill().await;
    tasks.stop(Duration::from_secs(5)).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_issuance_and_each_refusal_is_a_line_of_the_log() {
    let world = World::start().await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let root = certificates(directory.path());
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let ip = Ipv4Addr::new(127, 78, a, b.clamp(1, 254));
    let process = Process::start(&world.kubeconfig(), directory.path(), ip).await;
    let token = world.token("default", "reviews", AUDIENCE);
    let authority = Authority {
        address: process.address.to_string(),
        server_name: SERVER.to_owned(),
        roots: Pem::Text(root),
        token_file: Some(world.token_file(&token)),
        dial: plain_dial(),
    };
    let (_publisher, svids) = channel();
    let asked = "spiffe://cluster.local/ns/default/sa/other";
    let answer = authority.request(&svids, crate::world::request(Some(asked))).await.expect("issued");
    let stranger = Authority { token_file: Some(world.token_file("nonsense")), ..authority };
    stranger.request(&svids, crate::world::request(None)).await.expect_err("refused");
    process.kill().await;

    let log = std::fs::read_to_string(directory.path().join("log")).expect("a log");
    let line = |words: &str| log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {log}"));
    let issued = line("a certificate was issued");
    let leaf = Leaf::read(&answer.chain[0]).expect("an SVID");
    // Who it is and by which proof, what was asked for instead, from where, and the number that it is found by, which some
    // write with zeros in front.
    let serial = leaf.peer.serial.trim_start_matches('0');
    for part in [id_of(&answer).as_str(), serial, "token", asked, "127.0.0.1"] {
        assert!(issued.contains(part), "{part}: {issued}");
    }
    assert!(line("a request was refused").contains("the API server refuses the token"), "{log}");
    assert!(!log.contains(&token), "no token is written down");
}
