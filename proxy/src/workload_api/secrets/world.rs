//! A stream by the state of the world: each request names all that is wanted, each answer holds all of it that is there.

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use runtime::svid::Svid;
use tonic::Status;

use super::conversation::Conversation;
use super::{TYPE_URL, check, is_known, secret, unknown, versions};
use crate::workload_api::following::Following;

/// What such a stream remembers.
#[derive(Debug, Default)]
pub(super) struct World {
    names: Vec<String>,
    /// Version of what was sent last for these names.
    sent: Option<String>,
    nonce: u64,
}

impl Conversation for World {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn asked(&mut self, request: DiscoveryRequest) -> Result<Option<String>, Status> {
        check(&request.type_url, &request.resource_names)?;
        // What was said before the last answer arrived is said again after it.
        if !request.response_nonce.is_empty() && request.response_nonce != self.nonce.to_string() {
            return Ok(None);
        }
        let mut names = request.resource_names;
        names.sort_unstable();
        names.dedup();
        if names != self.names {
            names.iter().filter(|name| !is_known(name)).for_each(|name| tracing::warn!("{}", unknown(name)));
            (self.names, self.sent) = (names, None);
        }
        Ok(request.error_detail.map(|detail| detail.message))
    }

    fn answer(&mut self, following: &Following) -> Option<(DiscoveryResponse, Vec<Arc<Svid>>)> {
        let given: Vec<_> = self.names.iter().filter_map(|name| secret(name, following)).collect();
        let version_info = versions(&given);
        if given.is_empty() || self.sent.as_ref() == Some(&version_info) {
            return None;
        }
        self.sent = Some(version_info.clone());
        self.nonce += 1;
        let keys = given.iter().filter_map(|secret| secret.key_of.clone()).collect();
        let response = DiscoveryResponse {
            version_info,
            resources: given.into_iter().map(|secret| secret.answer).collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: self.nonce.to_string(),
            ..DiscoveryResponse::default()
        };
        Some((response, keys))
    }
}
