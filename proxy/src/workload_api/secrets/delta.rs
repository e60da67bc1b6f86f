//! A stream by delta: each request says what is wanted more or less, each answer holds what is new.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use runtime::svid::Svid;
use tonic::Status;

use super::conversation::Conversation;
use super::{NAMES, TYPE_URL, check, is_known, secret, unknown};
use crate::workload_api::following::Following;

/// What such a stream remembers.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// What is wanted, and which version of it the client has.
    wanted: BTreeMap<String, Option<String>>,
    /// What was asked for and is never here, to be said once.
    missing: Vec<String>,
    nonce: u64,
}

impl Conversation for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn asked(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<String>, Status> {
        check(&request.type_url, &request.resource_names_subscribe)?;
        let mut held = request.initial_resource_versions;
        for name in request.resource_names_unsubscribe {
            self.wanted.remove(&name);
        }
        for name in request.resource_names_subscribe {
            if !is_known(&name) {
                tracing::warn!("{}", unknown(&name));
                self.missing.push(name);
            } else {
                // Whoever asks again for what it has is given it again.
                let version = held.remove(&name);
                self.wanted.insert(name, version);
            }
        }
        if self.missing.len() > NAMES.0 {
            return Err(Status::invalid_argument("too many secrets that are not here were asked for"));
        }
        Ok(request.error_detail.map(|detail| detail.message))
    }

    fn answer(&mut self, following: &Following) -> Option<(DeltaDiscoveryResponse, Vec<Arc<Svid>>)> {
        let (mut resources, mut keys) = (Vec::new(), Vec::new());
        for (name, sent) in &mut self.wanted {
            let Some(given) = secret(name, following) else { continue };
            if sent.as_ref() == Some(&given.version) {
                continue;
            }
            *sent = Some(given.version.clone());
            keys.extend(given.key_of);
            resources.push(Resource {
                name: name.clone(),
                version: given.version,
                resource: Some(given.answer),
                ..Resource::default()
            });
        }
        let removed_resources = std::mem::take(&mut self.missing);
        if resources.is_empty() && removed_resources.is_empty() {
            return None;
        }
        self.nonce += 1;
        let response = DeltaDiscoveryResponse {
            resources,
            removed_resources,
            type_url: TYPE_URL.to_owned(),
            nonce: self.nonce.to_string(),
            ..DeltaDiscoveryResponse::default()
        };
        Some((response, keys))
    }
}
