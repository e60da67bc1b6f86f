//! A stock Envoy as a process of its own, on loopback ports that it picks itself.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// Envoy: what `ENVOY` names, else what `scripts/get-envoy` has put under `target`, else what `PATH` has. `None`, said
/// aloud, where it does not start and `CI` is not set.
pub(crate) fn program() -> Option<OsString> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/envoy/bin/envoy");
    let program =
        std::env::var_os("ENVOY").unwrap_or_else(|| if fetched.exists() { fetched.into() } else { "envoy".into() });
    match Command::new(&program).arg("--version").output() {
        Ok(_) => Some(program),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{}: {error}", program.display()),
        Err(error) => {
            eprintln!("left out: {} does not start ({error}); scripts/get-envoy fetches one", program.display());
            None
        }
    }
}

/// A directory that is gone when it is dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        // Tests of one process may use the same name at the same time.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("engine-{name}-{}-{nth}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    /// A file in it with this content.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running Envoy; ends with its value.
pub(crate) struct Envoy {
    child: Child,
    admin: SocketAddr,
    _directory: Directory,
}

impl Envoy {
    /// Starts Envoy on static resources, and waits until it serves.
    pub(crate) fn start(program: &OsString, name: &str, static_resources: &Value) -> Self {
        let directory = Directory::new(name);
        let config = serde_json::json!({
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "static_resources": static_resources,
        });
        let file = directory.file("envoy.json", &config.to_string());
        let address = directory.0.join("admin");
        let child = Command::new(program)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error", "-c"])
            .arg(file)
            .arg("--admin-address-path")
            .arg(&address)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut envoy = Envoy { child, admin: SocketAddr::from(([127, 0, 0, 1], 0)), _directory: directory };
        let started = SystemTime::now();
        loop {
            if let Some(admin) = fs::read_to_string(&address).ok().and_then(|text| text.trim().parse().ok()) {
                envoy.admin = admin;
                if ask(admin, "GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").status == 200 {
                    return envoy;
                }
            }
            assert!(envoy.child.try_wait().unwrap().is_none(), "Envoy has ended");
            assert!(started.elapsed().unwrap() < Duration::from_secs(60), "Envoy is not ready after a minute");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The address of a listener.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        let answer = ask(self.admin, "GET /listeners?format=json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let listeners: Value = serde_json::from_str(&answer.body).unwrap();
        let all = listeners["listener_statuses"].as_array().unwrap();
        let found = all.iter().find(|listener| listener["name"] == name).unwrap();
        let port = found["local_address"]["socket_address"]["port_value"].as_u64().unwrap();
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// An answer over HTTP/1.1.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

/// Sends a request as it is and reads the answer.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut text = Vec::new();
    let mut part = [0; 16 << 10];
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    // Envoy closes a second after its answer, so that the end of the connection is not waited for.
    while !is_whole(&String::from_utf8_lossy(&text)) {
        let count = stream.read(&mut part).unwrap();
        text.extend_from_slice(&part[..count]);
        if count == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
    let is_chunked = head.contains("transfer-encoding: chunked");
    Answer { status, location, body: if is_chunked { joined(body) } else { body.to_owned() } }
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}

fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        body.push_str(chunk);
        chunks = rest.get(size + 2..).unwrap_or_default();
    }
    body
}
