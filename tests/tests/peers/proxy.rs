//! A proxy with a configuration from a file, and what stands behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_tests::programs::{Scratch, eventually, program};
use serde_json::{Value, json};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// Waits until something listens.
pub(crate) fn wait_for(port: u16) {
    eventually(Duration::from_secs(10), || {
        TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| format!("port {port}: {error}"))
    });
}

/// A running proxy, ended with its value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    child: Child,
    _config: Scratch,
}

impl Proxy {
    /// Sends everything to a port on this machine, by `http` or `http2`.
    pub(crate) fn start(upstream: u16, protocol: &str) -> Self {
        let port = free_port();
        let config = Scratch::file(&format!("proxy-{port}.json"), &config(port, upstream, protocol).to_string());
        let mut command = Command::new(program("mesh-proxy"));
        for name in ["MESH_ADMIN_PORT", "MESH_METRICS_PORT", "MESH_READINESS_PORT"] {
            command.env(name, "0");
        }
        command.env("MESH_ACCESS_LOG", "off").args(["--config", config.path()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mesh-proxy starts");
        wait_for(port);
        Proxy { port, child, _config: config }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(port: u16, upstream: u16, protocol: &str) -> Value {
    const TYPE: &str = "type.googleapis.com/envoy.extensions";
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let options = json!({
        "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {format!("{protocol}_protocol_options"): {}},
    });
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}});
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(port), "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "in",
                "route_config": {
                    "name": "all",
                    "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": format!("{TYPE}.filters.http.router.v3.Router")},
                }],
            },
        }]}]}],
        "clusters": [{
            "name": "up", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
            "load_assignment": {
                "cluster_name": "up",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
            },
        }],
    }})
}

/// A server of HTTP/1.1 that answers everything with a few words; it lives as long as the test's process.
pub(crate) struct Backend {
    pub(crate) port: u16,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    // A client that goes away ends its connection only.
                    let _ = serve(stream);
                });
            }
        });
        Backend { port }
    }
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let (mut line, mut length, mut is_chunked, mut is_first, mut to_head) = (String::new(), 0, false, true, false);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.trim_end().to_ascii_lowercase();
            to_head |= is_first && lower.starts_with("head ");
            is_first = false;
            if let Some(value) = lower.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            }
            is_chunked |= lower == "transfer-encoding: chunked";
            if lower.is_empty() {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        while is_chunked {
            line.clear();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end(), 16).unwrap_or(0);
            std::io::copy(&mut reader.by_ref().take(size + 2), &mut std::io::sink())?;
            is_chunked = size > 0;
        }
        let body = if to_head { "" } else { "some words in answer\n" };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{body}")?;
    }
}
