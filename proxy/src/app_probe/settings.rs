//! What injection tells the proxy of the application's probes: `MESH_APP_PROBES`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

/// The application's probes, by the path that stands for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppProbes {
    probes: BTreeMap<String, AppProbe>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppProbe {
    /// What is asked.
    pub what: What,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A page.
    Http(HttpProbe),
    /// Whether somebody accepts connections.
    Tcp {
        /// The port.
        port: u16,
    },
    /// The health service of gRPC.
    Grpc {
        /// The port.
        port: u16,
        /// The service that it is asked for; empty for the server as a whole.
        service: String,
    },
}

/// A probe by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Whether over TLS.
    pub is_tls: bool,
    /// Headers to send.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl AppProbes {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&String, &AppProbe)> {
        self.probes.iter()
    }
}

impl FromStr for AppProbes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written: BTreeMap<String, Written> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let read = |(path, written): (String, Written)| match written.read() {
            Ok(probe) => Ok((path, probe)),
            Err(why) => Err(format!("{path}: {why}")),
        };
        Ok(AppProbes { probes: written.into_iter().map(read).collect::<Result<_, _>>()? })
    }
}

/// A probe as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    http_get: Option<WrittenHttp>,
    tcp_socket: Option<WrittenTcp>,
    grpc: Option<WrittenGrpc>,
    timeout_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenHttp {
    port: u16,
    path: String,
    scheme: String,
    #[serde(default)]
    http_headers: Vec<WrittenHeader>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTcp {
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGrpc {
    port: u16,
    #[serde(default)]
    service: String,
}

impl Written {
    fn read(self) -> Result<AppProbe, String> {
        let what = match (self.http_get, self.tcp_socket, self.grpc) {
            (Some(http), None, None) => What::Http(http.read()?),
            (None, Some(tcp), None) => What::Tcp { port: tcp.port },
            (None, None, Some(grpc)) => What::Grpc { port: grpc.port, service: grpc.service },
            _ => return Err("it has none or several of httpGet, tcpSocket and grpc".to_owned()),
        };
        Ok(AppProbe { what, timeout: Duration::from_secs(self.timeout_seconds.max(1)) })
    }
}

impl WrittenHttp {
    fn read(self) -> Result<HttpProbe, String> {
        let is_tls = match self.scheme.as_str() {
            "HTTP" => false,
            "HTTPS" => true,
            other => return Err(format!("{other} is neither HTTP nor HTTPS")),
        };
        let header = |header: WrittenHeader| {
            let name =
                header.name.parse::<HeaderName>().map_err(|_| format!("`{}` is no header's name", header.name))?;
            let value = HeaderValue::from_str(&header.value)
                .map_err(|_| format!("the value of header {name} cannot be sent"))?;
            Ok::<_, String>((name, value))
        };
        let headers = self.http_headers.into_iter().map(header).collect::<Result<_, _>>()?;
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        Ok(HttpProbe { port: self.port, path: format!("{slash}{}", self.path), is_tls, headers })
    }
}
