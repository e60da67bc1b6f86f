//! Filters that stand before the application, and the policies in them.

use crate::generate::wire;
use crate::proto::{extension, hcm, listener as pb, protobuf};

/// Filters that stand before the application.
#[derive(Debug, Clone, Default)]
pub(in crate::generate) struct Guards {
    /// Before HTTP.
    pub(in crate::generate) http: Vec<hcm::HttpFilter>,
    /// Before opaque bytes.
    pub(in crate::generate) tcp: Vec<pb::Filter>,
}

impl Guards {
    /// Adds rules under a name, before HTTP or before opaque bytes.
    pub(super) fn add(&mut self, name: &str, rules: &Rules, is_http: bool) {
        let body = rules.encode(name, is_http);
        if is_http {
            self.http.push(http_filter(name, extension::RBAC.1, body));
        } else {
            let any = protobuf::Any { type_url: extension::NETWORK_RBAC.1.to_owned(), value: body };
            let config_type = Some(pb::filter::ConfigType::TypedConfig(any));
            self.tcp.push(pb::Filter { name: name.to_owned(), config_type });
        }
    }
}

pub(super) fn http_filter(name: &str, type_url: &str, value: Vec<u8>) -> hcm::HttpFilter {
    let any = protobuf::Any { type_url: type_url.to_owned(), value };
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any)),
        ..Default::default()
    }
}

/// Policies by name, encoded in the order of their names: they let in, or keep out.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    pub(super) named: std::collections::BTreeMap<String, crate::proto::rbac::Policy>,
    pub(super) keep_out: bool,
}

impl Policies {
    pub(super) fn add(
        &mut self,
        name: &str,
        permissions: Vec<crate::proto::rbac::Permission>,
        principals: Vec<crate::proto::rbac::Principal>,
    ) {
        let policy = crate::proto::rbac::Policy { permissions, principals, ..Default::default() };
        self.named.insert(name.to_owned(), policy);
    }

    /// `envoy.config.rbac.v3.RBAC`, whose map has no order of its own.
    fn encode(&self) -> Vec<u8> {
        use prost::Message;
        let action = if self.keep_out { crate::proto::rbac::rbac::Action::Deny } else { Default::default() };
        let mut out = crate::proto::rbac::Rbac { action: action.into(), ..Default::default() }.encode_to_vec();
        for (name, policy) in &self.named {
            let mut entry = Vec::new();
            wire::field(&mut entry, 1, name.as_bytes());
            wire::field(&mut entry, 2, &policy.encode_to_vec());
            wire::field(&mut out, 2, &entry);
        }
        out
    }
}

/// Rules that count, and rules on trial.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) enforced: Option<Policies>,
    pub(super) shadow: Option<Policies>,
}

impl Rules {
    /// The filter's configuration: of HTTP, or of connections.
    fn encode(&self, name: &str, is_http: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(policies) = &self.enforced {
            wire::field(&mut out, 1, &policies.encode());
        }
        if let Some(policies) = &self.shadow {
            wire::field(&mut out, 2, &policies.encode());
        }
        if !is_http {
            wire::field(&mut out, 3, name.as_bytes());
        }
        out
    }
}
