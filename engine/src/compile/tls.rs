//! Transport sockets → where TLS begins and ends.
//!
//! The certificate and the bundle are always the proxy's own: the secrets `default` and `ROOTCA`, wherever the message says
//! that they come from. TLS without a certificate on both sides, or without names for the server, is refused.

use std::mem::take;
use std::sync::Arc;

use super::strict::{At, Refusal, nothing_left, typed};
use crate::proto::{cluster as pb, core, extension, matcher, protobuf, raw_buffer, tls};
use crate::tables::{ClientTls, ServerTls, SocketMatch, Words};

use tls::common_tls_context::{CombinedCertificateValidationContext as Combined, ValidationContextType};

/// Name of the secret that is the proxy's own certificate.
pub(crate) const CERTIFICATE: &str = "default";
/// Name of the secret that is the bundle of roots.
pub(crate) const BUNDLE: &str = "ROOTCA";

/// The ways to connect to a cluster's endpoints.
pub(super) fn sockets(messages: Vec<pb::cluster::TransportSocketMatch>) -> Result<Vec<SocketMatch>, Refusal> {
    messages
        .into_iter()
        .enumerate()
        .map(|(nth, message)| socket(message).at_nth("transport_socket_matches", nth))
        .collect()
}

fn socket(mut message: pb::cluster::TransportSocketMatch) -> Result<SocketMatch, Refusal> {
    let name = take(&mut message.name).into();
    let wanted = message.r#match.take().map(|wanted| words(wanted).at("match")).transpose()?.unwrap_or_default();
    let any = configuration(message.transport_socket.take()).at("transport_socket")?;
    nothing_left(&message)?;
    let tls = match any.type_url.as_str() {
        url if url == extension::RAW_BUFFER.1 => {
            nothing_left(&typed::<raw_buffer::RawBuffer>(&any, url).at("transport_socket")?)?;
            None
        }
        url if url == extension::UPSTREAM_TLS.1 => Some(Arc::new(client(&any).at("transport_socket")?)),
        url => return Err(Refusal::not_in_force(url)).at("transport_socket"),
    };
    Ok(SocketMatch { name, wanted, tls })
}

/// Texts of a `Struct`, in the order of their keys.
pub(super) fn words(from: protobuf::Struct) -> Result<Words, Refusal> {
    let mut words = Vec::with_capacity(from.fields.len());
    for (key, value) in from.fields {
        match value.kind {
            Some(protobuf::value::Kind::StringValue(text)) => words.push((key.into(), text.into())),
            _ => return Err(Refusal::not_in_force(format!("{key}: anything but text"))),
        }
    }
    words.sort();
    Ok(words)
}

/// TLS that a filter chain ends.
pub(super) fn server(message: core::TransportSocket) -> Result<Option<ServerTls>, Refusal> {
    let any = configuration(Some(message))?;
    if any.type_url == extension::RAW_BUFFER.1 {
        nothing_left(&typed::<raw_buffer::RawBuffer>(&any, extension::RAW_BUFFER.1)?)?;
        return Ok(None);
    }
    if any.type_url != extension::DOWNSTREAM_TLS.1 {
        return Err(Refusal::not_in_force(any.type_url));
    }
    let mut context: tls::DownstreamTlsContext = typed(&any, extension::DOWNSTREAM_TLS.1)?;
    if !context.require_client_certificate.take().is_some_and(|required| required.value) {
        return Err(Refusal::not_in_force("require_client_certificate: false"));
    }
    let common = context.common_tls_context.take().unwrap_or_default();
    nothing_left(&context)?;
    let common = shared(common).at("common_tls_context")?;
    if !common.servers.is_empty() {
        return Err(Refusal::not_in_force("match_typed_subject_alt_names")).at("common_tls_context");
    }
    Ok(Some(ServerTls { alpn: common.alpn }))
}

fn client(any: &protobuf::Any) -> Result<ClientTls, Refusal> {
    let mut context: tls::UpstreamTlsContext = typed(any, extension::UPSTREAM_TLS.1)?;
    let resumes = context.max_session_keys.take().is_none_or(|most| most.value > 0);
    let server_name = take(&mut context.sni).into();
    let common = context.common_tls_context.take().unwrap_or_default();
    nothing_left(&context)?;
    let common = shared(common).at("common_tls_context")?;
    if common.servers.is_empty() {
        let why = "no name of the server is asked for, so any workload of the mesh could answer";
        return Err(Refusal::invalid(why)).at("common_tls_context");
    }
    Ok(ClientTls { servers: common.servers, server_name, alpn: common.alpn, resumes })
}

/// What both sides say of TLS.
struct Common {
    servers: Vec<Box<str>>,
    alpn: Vec<Box<str>>,
}

fn shared(mut message: tls::CommonTlsContext) -> Result<Common, Refusal> {
    version(message.tls_params.take()).at("tls_params")?;
    let certificates = take(&mut message.tls_certificate_sds_secret_configs);
    let [certificate] = certificates.as_slice() else {
        return Err(Refusal::invalid(format!("one certificate is needed, and there are {}", certificates.len())))
            .at("tls_certificate_sds_secret_configs");
    };
    secret(certificate, CERTIFICATE).at("tls_certificate_sds_secret_configs")?;
    let servers = match message.validation_context_type.take() {
        None => return Err(Refusal::invalid("who is trusted is missing")).at("validation_context_type"),
        Some(ValidationContextType::ValidationContextSdsSecretConfig(bundle)) => {
            secret(&bundle, BUNDLE).map(|()| Vec::new()).at("validation_context_sds_secret_config")?
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            names(combined).at("combined_validation_context")?
        }
        Some(_) => return Err(Refusal::not_in_force("validation_context_type")),
    };
    let alpn = take(&mut message.alpn_protocols).into_iter().map(Into::into).collect();
    nothing_left(&message)?;
    Ok(Common { servers, alpn })
}

/// TLS 1.3, whether it is asked for or not.
fn version(message: Option<tls::TlsParameters>) -> Result<(), Refusal> {
    use tls::tls_parameters::TlsProtocol;
    let Some(mut message) = message else { return Ok(()) };
    let is_ours = |number: i32| {
        let version = TlsProtocol::try_from(number);
        matches!(version, Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv13))
    };
    if !is_ours(take(&mut message.tls_minimum_protocol_version)) {
        return Err(Refusal::not_in_force("tls_minimum_protocol_version: anything but TLSv1_3"));
    }
    if !is_ours(take(&mut message.tls_maximum_protocol_version)) {
        return Err(Refusal::not_in_force("tls_maximum_protocol_version: anything but TLSv1_3"));
    }
    nothing_left(&message)
}

/// Wherever the secret comes from in Envoy, here it is the proxy's own.
fn secret(message: &tls::SdsSecretConfig, wanted: &str) -> Result<(), Refusal> {
    match message.name.as_str() {
        name if name == wanted => Ok(()),
        name => Err(Refusal::invalid(format!("the secret is `{name}`, and a proxy has `{wanted}` alone"))),
    }
}

/// The names that a peer must have one of.
fn names(mut message: Combined) -> Result<Vec<Box<str>>, Refusal> {
    let bundle = message.validation_context_sds_secret_config.take().unwrap_or_default();
    secret(&bundle, BUNDLE).at("validation_context_sds_secret_config")?;
    let mut context = message.default_validation_context.take().unwrap_or_default();
    nothing_left(&message)?;
    let mut read = || {
        let names = take(&mut context.match_typed_subject_alt_names)
            .into_iter()
            .enumerate()
            .map(|(nth, matcher)| name(matcher).at_nth("match_typed_subject_alt_names", nth))
            .collect::<Result<_, _>>()?;
        nothing_left(&context)?;
        Ok(names)
    };
    read().at("default_validation_context")
}

fn name(mut message: tls::SubjectAltNameMatcher) -> Result<Box<str>, Refusal> {
    use matcher::string_matcher::MatchPattern;
    use tls::subject_alt_name_matcher::SanType;
    if SanType::try_from(take(&mut message.san_type)) != Ok(SanType::Uri) {
        return Err(Refusal::not_in_force("san_type: anything but URI"));
    }
    let mut text = message.matcher.take().unwrap_or_default();
    nothing_left(&message)?;
    let Some(MatchPattern::Exact(exact)) = text.match_pattern.take() else {
        return Err(Refusal::not_in_force("matcher: anything but exact"));
    };
    nothing_left(&text).at("matcher")?;
    if exact.is_empty() {
        return Err(Refusal::invalid("the name is empty"));
    }
    Ok(exact.into())
}

/// A transport socket's configuration.
fn configuration(message: Option<core::TransportSocket>) -> Result<protobuf::Any, Refusal> {
    let Some(mut message) = message else { return Err(Refusal::invalid("the transport socket is missing")) };
    message.name.clear();
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = message.config_type.take() else {
        return Err(Refusal::not_in_force("a transport socket without typed_config"));
    };
    nothing_left(&message)?;
    Ok(any)
}

#[cfg(test)]
mod tests;
