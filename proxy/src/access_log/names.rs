//! The names of Envoy's command operators, and what each asks for here.

use super::format::{Format, Wanted};
use super::operator::{Operator, Place, Shown, Source};

/// Why there is no such operator.
pub(super) enum Wrong {
    Unknown(Option<&'static str>),
    NotInForce,
    Argument(String),
}

const PLACES: &[(&str, Place, Shown)] = &[
    ("UPSTREAM_HOST", Place::Upstream, Shown::Whole),
    ("UPSTREAM_REMOTE_ADDRESS", Place::Upstream, Shown::Whole),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Place::Upstream, Shown::Ip),
    ("UPSTREAM_REMOTE_PORT", Place::Upstream, Shown::Port),
    ("UPSTREAM_LOCAL_ADDRESS", Place::UpstreamLocal, Shown::Whole),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Place::UpstreamLocal, Shown::Ip),
    ("UPSTREAM_LOCAL_PORT", Place::UpstreamLocal, Shown::Port),
    ("DOWNSTREAM_LOCAL_ADDRESS", Place::DownstreamLocal, Shown::Whole),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Place::DownstreamLocal, Shown::Ip),
    ("DOWNSTREAM_LOCAL_PORT", Place::DownstreamLocal, Shown::Port),
    ("DOWNSTREAM_REMOTE_ADDRESS", Place::DownstreamRemote, Shown::Whole),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Place::DownstreamRemote, Shown::Ip),
    ("DOWNSTREAM_REMOTE_PORT", Place::DownstreamRemote, Shown::Port),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Place::DownstreamRemote, Shown::Whole),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Place::DownstreamRemote, Shown::Ip),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Place::DownstreamRemote, Shown::Port),
];

const PLAIN: &[(&str, Operator)] = &[
    ("RESPONSE_CODE", Operator::ResponseCode),
    ("RESPONSE_CODE_DETAILS", Operator::ResponseDetails),
    ("MESH_FAILURE", Operator::Failure),
    ("RESPONSE_FLAGS", Operator::Flags),
    ("RESPONSE_FLAGS_LONG", Operator::LongFlags),
    ("PROTOCOL", Operator::Protocol),
    ("DURATION", Operator::Duration),
    ("RESPONSE_DURATION", Operator::ResponseDuration),
    ("RESPONSE_TX_DURATION", Operator::ResponseTxDuration),
    ("BYTES_RECEIVED", Operator::BytesReceived),
    ("BYTES_SENT", Operator::BytesSent),
    ("UPSTREAM_CLUSTER", Operator::Cluster),
    ("UPSTREAM_CLUSTER_RAW", Operator::Cluster),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Operator::Attempts),
    ("ROUTE_NAME", Operator::Route),
    ("REQUESTED_SERVER_NAME", Operator::ServerName),
    ("GRPC_STATUS_NUMBER", Operator::GrpcStatus),
    ("TRACE_ID", Operator::TraceId),
    ("SPAN_ID", Operator::SpanId),
    ("PARENT_SPAN_ID", Operator::ParentSpanId),
    // Istio's default format asks for it: the failure's word says what there is to say.
    ("CONNECTION_TERMINATION_DETAILS", Operator::Nothing),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Operator::TlsFailure(true)),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Operator::TlsFailure(false)),
    ("DOWNSTREAM_PEER_URI_SAN", Operator::DownstreamPeer),
    ("UPSTREAM_PEER_URI_SAN", Operator::UpstreamPeer),
    ("DOWNSTREAM_TLS_VERSION", Operator::TlsVersion(false)),
    ("UPSTREAM_TLS_VERSION", Operator::TlsVersion(true)),
];

/// What Envoy knows and this proxy has nothing to say for.
const NOT_IN_FORCE: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RETRANSMITTED",
    "CEL",
    "CLUSTER_METADATA",
    "COMMON_DURATION",
    "CONNECTION_ID",
    "COALESCE",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DYNAMIC_METADATA",
    "EMIT_TIME",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE",
    "GRPC_STATUS",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "PATH",
    "PRINCIPAL",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "ROUNDTRIP_DURATION",
    "START_TIME_LOCAL",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRAILER",
    "UNIQUE_ID",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

/// The operator of this name. Headers that it asks for are added to the format's lists.
pub(super) fn find(name: &str, argument: Option<&str>, format: &mut Format) -> Result<Operator, Wrong> {
    let plain = PLAIN.iter().find(|(known, _)| *known == name).map(|(_, operator)| operator.clone());
    let place = PLACES.iter().find(|(known, ..)| *known == name);
    let operator = plain.or(place.map(|(_, place, shown)| Operator::Address(*place, *shown)));
    if let Some(operator) = operator {
        return match argument {
            None => Ok(operator),
            Some(_) => Err(Wrong::Argument("it takes nothing in brackets".to_owned())),
        };
    }
    match name {
        "START_TIME" => start_time(argument).map(Operator::StartTime),
        "REQ" => {
            let (first, second) = headers(name, argument, &mut format.request, request_source)?;
            Ok(Operator::Request(first, second))
        }
        "RESP" => {
            let (first, second) = headers(name, argument, &mut format.response, response_source)?;
            Ok(Operator::Response(first, second))
        }
        "HOSTNAME" if argument.is_none() => {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            Ok(Operator::Fixed(Some(host.into())))
        }
        "ENVIRONMENT" => match argument.filter(|name| !name.is_empty()) {
            Some(name) => {
                let value = runtime::settings::Env::process().text(name);
                let value = value.map_err(|error| Wrong::Argument(error.to_string()))?;
                Ok(Operator::Fixed(value.map(Into::into)))
            }
            None => Err(Wrong::Argument("write the name of a variable in brackets".to_owned())),
        },
        name if NOT_IN_FORCE.contains(&name) => Err(Wrong::NotInForce),
        name => {
            let others = ["START_TIME", "REQ", "RESP", "HOSTNAME", "ENVIRONMENT"];
            let known = PLAIN.iter().map(|(name, _)| *name).chain(PLACES.iter().map(|(name, ..)| *name)).chain(others);
            Err(Wrong::Unknown(api::suggest::closest(name, known)))
        }
    }
}

/// The form of a time, tried on one.
fn start_time(argument: Option<&str>) -> Result<Option<Box<str>>, Wrong> {
    let Some(form) = argument.filter(|form| !form.is_empty()) else { return Ok(None) };
    match jiff::fmt::strtime::format(form, jiff::Timestamp::UNIX_EPOCH) {
        Ok(_) => Ok(Some(form.into())),
        Err(error) => Err(Wrong::Argument(error.to_string())),
    }
}

/// One header, or two of which the second stands in for the first.
fn headers(
    operator: &str,
    argument: Option<&str>,
    kept: &mut Vec<Wanted>,
    special: fn(&str) -> Option<Source>,
) -> Result<(Source, Option<Source>), Wrong> {
    let Some(argument) = argument.filter(|argument| !argument.is_empty()) else {
        let reason = format!("write the name of a header in brackets, as %{operator}(X?Y):Z%");
        return Err(Wrong::Argument(reason));
    };
    let mut names = argument.split('?').map(|name| match special(&name.to_ascii_lowercase()) {
        Some(source) => Ok(source),
        None => keep(name, kept),
    });
    match (names.next(), names.next(), names.next()) {
        (Some(first), second, None) => Ok((first?, second.transpose()?)),
        _ => Err(Wrong::Argument("write one header, or two with `?` between them".to_owned())),
    }
}

/// The place of a header among those that are kept.
fn keep(name: &str, kept: &mut Vec<Wanted>) -> Result<Source, Wrong> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(Wrong::Argument(format!("{name:?} is not the name of a header")));
    }
    let wanted = Wanted(name.to_ascii_lowercase().into_bytes().into());
    let at = kept.iter().position(|known| *known == wanted).unwrap_or_else(|| {
        kept.push(wanted);
        kept.len() - 1
    });
    Ok(Source::Kept(at))
}

fn request_source(name: &str) -> Option<Source> {
    match name {
        ":method" => Some(Source::Method),
        // The path as it came; the one that went on may be another.
        ":path" | "x-envoy-original-path" => Some(Source::Path),
        ":authority" | "host" => Some(Source::Authority),
        ":scheme" => Some(Source::Scheme),
        _ => None,
    }
}

fn response_source(name: &str) -> Option<Source> {
    (name == "x-envoy-upstream-service-time").then_some(Source::ServiceTime)
}
