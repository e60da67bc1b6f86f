//! Encodings in one fixed order, and the hash of them.
//!
//! The messages' maps have no stable order, so a message with a map of more than one entry is encoded in two parts:
//! the message without the map, and the map by hand in the order of its keys. In protobuf the concatenation of two
//! encodings of a message is the encoding of their union.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::Resource;
use crate::proto::{Kind, protobuf};

/// Appends a field that is a message, already encoded.
pub(super) fn field(out: &mut Vec<u8>, tag: u32, message: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// Appends a field that is a text; nothing for an empty one.
fn text(out: &mut Vec<u8>, tag: u32, text: &str) {
    if !text.is_empty() {
        field(out, tag, text.as_bytes());
    }
}

/// A value in the mesh's own metadata.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta<'m> {
    /// Text.
    Text(&'m str),
    /// A whole number.
    Number(u32),
}

/// Encodes `Metadata` with `filter_metadata["mesh"]` of these fields; they must be in the order of their keys.
/// Fields with empty text are left out.
pub(super) fn mesh_metadata(fields: &[(&str, Meta<'_>)]) -> Vec<u8> {
    metadata("mesh", fields)
}

/// Encodes `Metadata` with `filter_metadata` of this name.
pub(super) fn metadata(name: &str, fields: &[(&str, Meta<'_>)]) -> Vec<u8> {
    debug_assert!(fields.windows(2).all(|pair| pair[0].0 < pair[1].0), "fields are in the order of their keys");
    let mut fields_of_struct = Vec::new();
    for (key, value) in fields {
        let kind = match value {
            Meta::Text("") => continue,
            Meta::Text(text) => protobuf::value::Kind::StringValue((*text).to_owned()),
            Meta::Number(number) => protobuf::value::Kind::NumberValue(f64::from(*number)),
        };
        let mut entry = Vec::new();
        text(&mut entry, 1, key);
        field(&mut entry, 2, &protobuf::Value { kind: Some(kind) }.encode_to_vec());
        field(&mut fields_of_struct, 1, &entry);
    }
    let mut entry = Vec::new();
    text(&mut entry, 1, name);
    field(&mut entry, 2, &fields_of_struct);
    let mut metadata = Vec::new();
    field(&mut metadata, 1, &entry);
    metadata
}

/// Makes a resource of an encoding: its version is the encoding's hash.
pub(super) fn resource(kind: Kind, name: String, body: Vec<u8>) -> Resource {
    Resource { kind, name, version: version(&body), body: body.into() }
}

/// Makes a resource of an encoding whose maps are in any order: its version is the hash of a form that has one.
pub(super) fn resource_of(kind: Kind, name: String, body: Vec<u8>, canonical: &[u8]) -> Resource {
    Resource { kind, name, version: version(canonical), body: body.into() }
}

/// 128-bit FNV-1a in hexadecimal: fixed for all time, unlike the standard library's hashes.
fn version(bytes: &[u8]) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let hash = bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::core::Metadata;

    #[test]
    fn metadata_written_by_hand_reads_as_the_message() {
        let bytes =
            mesh_metadata(&[("app", Meta::Text("reviews")), ("line", Meta::Number(7)), ("none", Meta::Text(""))]);
        let metadata = Metadata::decode(&*bytes).expect("a Metadata");
        assert_eq!(metadata.encoded_len(), bytes.len());
        let mesh = &metadata.filter_metadata["mesh"].fields;
        assert_eq!(mesh["app"].kind, Some(protobuf::value::Kind::StringValue("reviews".to_owned())));
        assert_eq!(mesh["line"].kind, Some(protobuf::value::Kind::NumberValue(7.0)));
        assert_eq!(mesh.len(), 2);
    }

    #[test]
    fn the_version_is_the_same_for_ever() {
        assert_eq!(version(b""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(version(b"foobar"), "343e1662793c64bf6f0d3597ba446f18");
    }
}
