//! What a pod's annotations ask of its sidecar: `sidecar.meshctl.io/NAME`, and the classic spellings.
//!
//! An annotation of ours that nobody knows is refused; of the classic ones, those that have a meaning here are read.

use std::net::IpAddr;

use api::names::proxy_port;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::Refusal;
use crate::rules::{Interception, Wanted};

/// What our annotations begin with.
const OURS: &str = "sidecar.meshctl.io/";
/// What the classic annotations on traffic begin with.
const CLASSIC_TRAFFIC: &str = "traffic.sidecar.istio.io/";
/// What the other classic annotations begin with.
const CLASSIC: &str = "sidecar.istio.io/";

/// Every annotation of ours on a pod.
const NAMES: [&str; 28] = [
    "sidecar.meshctl.io/inject",
    "sidecar.meshctl.io/status",
    "sidecar.meshctl.io/includeInboundPorts",
    "sidecar.meshctl.io/excludeInboundPorts",
    "sidecar.meshctl.io/includeOutboundPorts",
    "sidecar.meshctl.io/excludeOutboundPorts",
    "sidecar.meshctl.io/includeOutboundIPRanges",
    "sidecar.meshctl.io/excludeOutboundIPRanges",
    "sidecar.meshctl.io/excludeInterfaces",
    "sidecar.meshctl.io/rerouteInterfaces",
    "sidecar.meshctl.io/interceptionMode",
    "sidecar.meshctl.io/rewriteAppHTTPProbers",
    "sidecar.meshctl.io/holdApplicationUntilProxyStarts",
    "sidecar.meshctl.io/nativeSidecar",
    "sidecar.meshctl.io/native-sidecar",
    "sidecar.meshctl.io/logLevel",
    "sidecar.meshctl.io/statusPort",
    "sidecar.meshctl.io/proxyImage",
    "sidecar.meshctl.io/proxyCPU",
    "sidecar.meshctl.io/proxyMemory",
    "sidecar.meshctl.io/proxyCPULimit",
    "sidecar.meshctl.io/proxyMemoryLimit",
    "sidecar.meshctl.io/accessLog",
    "sidecar.meshctl.io/accessLogEncoding",
    "sidecar.meshctl.io/accessLogFormat",
    "sidecar.meshctl.io/traceSampling",
    "sidecar.meshctl.io/workloadSocket",
    "sidecar.meshctl.io/workloadSocketUsers",
];

/// What a pod asks of its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) interception: Interception,
    /// Where the proxy says whether it is ready.
    pub(super) status_port: u16,
    pub(super) image: Option<String>,
    pub(super) resources: Resources,
    /// Variables of the proxy about what it tells of traffic.
    pub(super) telemetry: Vec<(&'static str, String)>,
    /// Whether the proxy makes the application's probes.
    pub(super) rewrites_probes: bool,
    /// Whether the proxy is a native sidecar, rather than a container beside the others.
    pub(super) is_native: bool,
    /// Whether the application waits until the proxy is ready, where the proxy is not a native sidecar: behind one it
    /// always does.
    pub(super) holds_application: bool,
    /// What the proxy logs.
    pub(super) log_level: Option<String>,
    /// Whether the application can reach the socket of the pod's identity.
    pub(super) workload_socket: bool,
    /// Users that may ask there; `None`: all.
    pub(super) workload_users: Option<String>,
}

/// Resources of the proxy's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resources {
    cpu: String,
    memory: String,
    cpu_limit: Option<String>,
    memory_limit: Option<String>,
}

impl Resources {
    pub(super) fn to_json(&self) -> Value {
        let mut resources = json!({"requests": {"cpu": self.cpu, "memory": self.memory}});
        for (name, limit) in [("cpu", &self.cpu_limit), ("memory", &self.memory_limit)] {
            if let Some(limit) = limit {
                resources["limits"][name] = json!(limit);
            }
        }
        resources
    }
}

impl Options {
    /// Reads the annotations of a pod.
    pub(super) fn read(pod: &Value) -> Result<Self, Refusal> {
        let annotations = Annotations { map: pod.pointer("/metadata/annotations").unwrap_or(&Value::Null) };
        annotations.refuse_unknown()?;
        let status_port = annotations.status_port(pod)?;
        if let Some(found) = annotations.find("interceptionMode", CLASSIC)?
            && found.value != "REDIRECT"
        {
            return Err(found.refused("only `REDIRECT` is in force"));
        }
        let mut exclude_inbound_ports = annotations.ports("excludeInboundPorts")?;
        exclude_inbound_ports.extend([proxy_port::METRICS, status_port]);
        let resources = Resources {
            cpu: annotations.quantity("proxyCPU", is_cpu)?.unwrap_or_else(|| "10m".to_owned()),
            memory: annotations.quantity("proxyMemory", is_memory)?.unwrap_or_else(|| "16Mi".to_owned()),
            cpu_limit: annotations.quantity("proxyCPULimit", is_cpu)?,
            memory_limit: annotations.quantity("proxyMemoryLimit", is_memory)?,
        };
        let image = match annotations.find("proxyImage", CLASSIC)? {
            Some(found) if found.value.is_empty() || found.value.contains(char::is_whitespace) => {
                return Err(found.refused("an image is written as `registry/name:tag`"));
            }
            found => found.map(|found| found.value.to_owned()),
        };
        let interception = Interception {
            include_inbound_ports: annotations.wanted_ports("includeInboundPorts")?,
            exclude_inbound_ports,
            include_outbound_ports: annotations.ports("includeOutboundPorts")?,
            exclude_outbound_ports: annotations.ports("excludeOutboundPorts")?,
            include_outbound_ranges: annotations.wanted_ranges("includeOutboundIPRanges")?,
            exclude_outbound_ranges: annotations.ranges("excludeOutboundIPRanges")?,
            exclude_interfaces: annotations.interfaces("excludeInterfaces", "excludeInterfaces")?,
            reroute_interfaces: annotations.interfaces("rerouteInterfaces", "kubevirtInterfaces")?,
        };
        let telemetry = annotations.telemetry()?;
        let native = annotations.switch(["nativeSidecar", "native-sidecar"].map(|name| format!("{OURS}{name}")))?;
        let classic_native = || annotations.switch([format!("{CLASSIC}nativeSidecar"), String::new()]);
        Ok(Options {
            interception,
            status_port,
            image,
            resources,
            rewrites_probes: annotations.is_on("rewriteAppHTTPProbers")?.unwrap_or(true),
            is_native: native.map_or_else(classic_native, |native| Ok(Some(native)))?.unwrap_or(true),
            holds_application: annotations.holds_application()?,
            telemetry,
            log_level: annotations.log_level()?,
            workload_socket: annotations.switch([format!("{OURS}workloadSocket"), String::new()])?.unwrap_or(false),
            workload_users: annotations.workload_users()?,
        })
    }
}

/// The ports that a pod's containers declare.
pub(super) fn application_ports(pod: &Value) -> Vec<u64> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let ports = containers.flat_map(|c| c.get("ports").and_then(Value::as_array).into_iter().flatten());
    let mut ports: Vec<u64> = ports.filter_map(|port| port.get("containerPort")?.as_u64()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

struct Annotations<'a> {
    map: &'a Value,
}

/// An annotation that is there.
struct Found<'a> {
    key: String,
    value: &'a str,
}

impl Found<'_> {
    fn refused(&self, reason: impl Into<String>) -> Refusal {
        Refusal::Annotation { key: self.key.clone(), value: self.value.to_owned(), reason: reason.into() }
    }

    /// The items between commas; none when there is nothing.
    fn items<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Refusal> {
        if self.value.trim().is_empty() {
            return Ok(Vec::new());
        }
        self.value.split(',').map(|item| read(item.trim())).collect::<Result<_, _>>().map_err(|why| self.refused(why))
    }
}

impl<'a> Annotations<'a> {
    fn refuse_unknown(&self) -> Result<(), Refusal> {
        for key in self.map.as_object().into_iter().flat_map(|map| map.keys()) {
            if key.starts_with(OURS) && !NAMES.contains(&key.as_str()) {
                let hint = api::suggest::closest(key, NAMES);
                return Err(Refusal::UnknownAnnotation { key: key.clone(), hint });
            }
        }
        Ok(())
    }

    /// Ours, else the classic one.
    fn find(&self, name: &str, classic: &str) -> Result<Option<Found<'a>>, Refusal> {
        self.first([format!("{OURS}{name}"), format!("{classic}{name}")])
    }

    fn first(&self, keys: [String; 2]) -> Result<Option<Found<'a>>, Refusal> {
        for key in keys {
            match self.map.get(&key) {
                None | Some(Value::Null) => {}
                Some(Value::String(value)) => return Ok(Some(Found { key, value })),
                Some(other) => {
                    let reason = "annotations are text; put it in quotes".to_owned();
                    return Err(Refusal::Annotation { key, value: other.to_string(), reason });
                }
            }
        }
        Ok(None)
    }

    fn ports(&self, name: &str) -> Result<Vec<u16>, Refusal> {
        match self.find(name, CLASSIC_TRAFFIC)? {
            None => Ok(Vec::new()),
            Some(found) if found.value.trim() == "*" => {
                Err(found.refused("`*` is possible only where ports are included"))
            }
            Some(found) => found.items(port),
        }
    }

    fn wanted_ports(&self, name: &str) -> Result<Wanted<u16>, Refusal> {
        match self.find(name, CLASSIC_TRAFFIC)? {
            None => Ok(Wanted::All),
            Some(found) if found.value.trim() == "*" => Ok(Wanted::All),
            Some(found) => found.items(port).map(Wanted::Only),
        }
    }

    fn ranges(&self, name: &str) -> Result<Vec<IpNet>, Refusal> {
        match self.find(name, CLASSIC_TRAFFIC)? {
            None => Ok(Vec::new()),
            Some(found) if found.value.trim() == "*" => {
                Err(found
                    .refused("`*` is possible only where ranges are included; write includeOutboundIPRanges: \"\""))
            }
            Some(found) => found.items(range),
        }
    }

    fn wanted_ranges(&self, name: &str) -> Result<Wanted<IpNet>, Refusal> {
        match self.find(name, CLASSIC_TRAFFIC)? {
            None => Ok(Wanted::All),
            Some(found) if found.value.trim() == "*" => Ok(Wanted::All),
            Some(found) => found.items(range).map(Wanted::Only),
        }
    }

    fn status_port(&self, pod: &Value) -> Result<u16, Refusal> {
        let keys = [format!("{OURS}statusPort"), "status.sidecar.istio.io/port".to_owned()];
        let Some(found) = self.first(keys)? else { return Ok(proxy_port::READINESS) };
        let port = port(found.value.trim()).map_err(|why| found.refused(why))?;
        let own = [proxy_port::ADMIN, proxy_port::OUTBOUND, proxy_port::INBOUND, proxy_port::METRICS];
        if own.contains(&port) {
            return Err(found.refused("the proxy uses this port for something else"));
        }
        if application_ports(pod).contains(&u64::from(port)) {
            return Err(found.refused("a container of the pod uses this port"));
        }
        Ok(port)
    }

    /// What the proxy is to tell of traffic. Whether a format can be followed the proxy says itself when it starts.
    fn telemetry(&self) -> Result<Vec<(&'static str, String)>, Refusal> {
        let is_share = |text: &str| text.parse().is_ok_and(|share: f64| (0.0..=100.0).contains(&share));
        let is_something = |text: &str| !text.trim().is_empty();
        let is_encoding = |text: &str| matches!(text, "text" | "json");
        type Known = (&'static str, &'static str, fn(&str) -> bool, &'static str);
        let known: [Known; 4] = [
            ("accessLog", "MESH_ACCESS_LOG", is_something, "write a file, `/dev/stdout`, or `off`"),
            ("accessLogEncoding", "MESH_ACCESS_LOG_ENCODING", is_encoding, "write `text` or `json`"),
            ("accessLogFormat", "MESH_ACCESS_LOG_FORMAT", is_something, "leave it out for the default"),
            ("traceSampling", "MESH_TRACE_SAMPLING", is_share, "write a percentage from 0 to 100"),
        ];
        let mut variables = Vec::new();
        for (name, variable, is_right, hint) in known {
            match self.find(name, OURS)? {
                Some(found) if !is_right(found.value) => return Err(found.refused(hint)),
                Some(found) => variables.push((variable, found.value.to_owned())),
                None => {}
            }
        }
        Ok(variables)
    }

    /// The names of network interfaces.
    fn interfaces(&self, name: &str, classic: &str) -> Result<Vec<String>, Refusal> {
        match self.first([format!("{OURS}{name}"), format!("{CLASSIC_TRAFFIC}{classic}")])? {
            None => Ok(Vec::new()),
            Some(found) => found.items(interface),
        }
    }

    fn is_on(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.switch([format!("{OURS}{name}"), format!("{CLASSIC}{name}")])
    }

    fn switch(&self, keys: [String; 2]) -> Result<Option<bool>, Refusal> {
        self.first(keys)?.map_or(Ok(None), |found| match found.value {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(found.refused("it is `true` or `false`")),
        })
    }

    /// Ours, else the field of the classic annotation that holds a whole configuration, of which nothing else is read.
    fn holds_application(&self) -> Result<bool, Refusal> {
        const FIELD: &str = "holdApplicationUntilProxyStarts";
        if let Some(holds) = self.switch([format!("{OURS}{FIELD}"), String::new()])? {
            return Ok(holds);
        }
        let Some(found) = self.first(["proxy.istio.io/config".to_owned(), String::new()])? else { return Ok(false) };
        let (documents, problems) = api::yaml::parse("the annotation", found.value);
        if let Some(problem) = problems.first() {
            return Err(found.refused(problem.message.clone()));
        }
        let field = documents.first().and_then(|document| document.field(FIELD));
        Ok(field.is_some_and(|field| field.to_json() == Value::Bool(true)))
    }

    fn log_level(&self) -> Result<Option<String>, Refusal> {
        let Some(found) = self.find("logLevel", CLASSIC)? else { return Ok(None) };
        // What the classic proxy calls `warning` and `critical`; it has no level above error here.
        match found.value {
            "trace" | "debug" | "info" | "warn" | "error" | "off" => Ok(Some(found.value.to_owned())),
            "warning" => Ok(Some("warn".to_owned())),
            "critical" => Ok(Some("error".to_owned())),
            _ => Err(found.refused("a level is trace, debug, info, warn, error or off")),
        }
    }

    fn workload_users(&self) -> Result<Option<String>, Refusal> {
        let Some(found) = self.find("workloadSocketUsers", OURS)? else { return Ok(None) };
        if found.value != "any" && !found.value.split(',').all(|user| user.trim().parse::<u32>().is_ok()) {
            return Err(found.refused("write `any`, or user IDs between commas"));
        }
        Ok(Some(found.value.to_owned()))
    }

    fn quantity(&self, name: &str, is_right: fn(&str) -> bool) -> Result<Option<String>, Refusal> {
        match self.find(name, CLASSIC)? {
            Some(found) if !is_right(found.value) => {
                Err(found.refused("not a quantity, write it as `100m` or `0.5` (CPU), `64Mi` or `1Gi` (memory)"))
            }
            found => Ok(found.map(|found| found.value.to_owned())),
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port (1 to 65535)")),
        Ok(port) => Ok(port),
    }
}

/// The name of a network interface: what Linux allows, without what would end it in the rules.
fn interface(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte);
    if text.is_empty() || text.len() > 15 || !text.bytes().all(is_name) {
        return Err(format!("`{text}` is not the name of a network interface"));
    }
    Ok(text.to_owned())
}

/// A range, or an address, which is the range of that address alone.
fn range(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc()).ok_or_else(|| format!("`{text}` is not a range of addresses, write it as `10.0.0.0/8`"))
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.parse::<f64>().is_ok()
}

fn is_cpu(text: &str) -> bool {
    is_number(text.strip_suffix('m').unwrap_or(text))
}

fn is_memory(text: &str) -> bool {
    let units = ["Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"];
    is_number(units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(text))
}
