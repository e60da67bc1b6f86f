//! The wire form of responses: shared resources are written as they were encoded, not encoded again per proxy.

use std::sync::Arc;

use bytes::BufMut;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::resource::{Resource, field_len, put_field, put_header};

/// A `DeltaDiscoveryResponse` whose resources are references.
#[derive(Debug, Clone)]
pub struct Response {
    /// Type of all its resources.
    pub type_url: &'static str,
    /// By which the proxy acknowledges it.
    pub nonce: String,
    /// Version of the snapshot that it comes from, for people.
    pub system_version: String,
    /// What is new or changed.
    pub resources: Vec<Arc<Resource>>,
    /// Names of what is gone.
    pub removed: Vec<Arc<str>>,
    /// Who answers: Pilot's pod.
    pub control_plane: Arc<str>,
}

impl Response {
    /// Length of the message on the wire.
    fn len(&self) -> usize {
        let resources: usize = self.resources.iter().map(|resource| resource.entry().len()).sum();
        let removed: usize = self.removed.iter().map(|name| field_len(name.len())).sum();
        field_len(self.system_version.len())
            + resources
            + field_len(self.type_url.len())
            + field_len(self.nonce.len())
            + removed
            + field_len(field_len(self.control_plane.len()))
    }

    fn put(&self, buffer: &mut impl BufMut) {
        put_field(1, self.system_version.as_bytes(), buffer);
        for resource in &self.resources {
            buffer.put_slice(resource.entry());
        }
        put_field(4, self.type_url.as_bytes(), buffer);
        put_field(5, self.nonce.as_bytes(), buffer);
        for name in &self.removed {
            put_field(6, name.as_bytes(), buffer);
        }
        put_header(7, field_len(self.control_plane.len()), buffer);
        put_field(1, self.control_plane.as_bytes(), buffer);
    }
}

/// Reads requests with prost, writes [`Response`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeltaCodec;

impl Codec for DeltaCodec {
    type Encode = Response;
    type Decode = DeltaDiscoveryRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for DeltaCodec {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        item.put(dst);
        Ok(())
    }
}

impl Decoder for DeltaCodec {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        DeltaDiscoveryRequest::decode(src)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("not a DeltaDiscoveryRequest: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::listener::v3::Listener;
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

    use super::*;
    use crate::resource::{Kind, Version};

    #[test]
    fn a_response_decodes_to_what_it_says() {
        let listener = Listener { name: "virtual_inbound".to_owned(), ..Listener::default() }.encode_to_vec();
        let resource = Resource::new(Kind::Listener, "virtual_inbound".into(), Version(1), &listener);
        let response = Response {
            type_url: Kind::Listener.type_url(),
            nonce: "12".to_owned(),
            system_version: "3".to_owned(),
            resources: vec![Arc::new(resource)],
            removed: vec!["a".into(), "b".into()],
            control_plane: "mesh-pilot-0".into(),
        };
        let mut bytes = Vec::new();
        response.put(&mut bytes);
        assert_eq!(bytes.len(), response.len());
        let read = DeltaDiscoveryResponse::decode(bytes.as_slice()).expect("decodes");
        assert_eq!(read.encoded_len(), bytes.len(), "nothing unknown was written");
        assert_eq!((read.nonce.as_str(), read.system_version_info.as_str()), ("12", "3"));
        assert_eq!(read.type_url, Kind::Listener.type_url());
        assert_eq!(read.removed_resources, ["a", "b"]);
        assert_eq!(read.resources[0].name, "virtual_inbound");
        assert_eq!(read.control_plane.expect("set").identifier, "mesh-pilot-0");
    }
}
