//! Certificate signing requests, read strictly: one PEM block, one PKCS#10 request, P-256 or Ed25519, signed by its own
//! key. Of what it asks for only the key is used; the rest is kept to be written down.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Version};

/// Largest request (PEM). One with a P-256 key and an identity has half a kilobyte.
pub const LARGEST: usize = 8 * 1024;
/// Most names in a request.
const MOST_NAMES: usize = 16;
/// Longest name that is kept to be written down.
const LONGEST_NAME: usize = 256;
/// Length of an uncompressed point of P-256, with its leading 4.
const P256_POINT: usize = 65;
/// Length of a public key of Ed25519.
const ED25519_KEY: usize = 32;

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const PRIME256V1: &str = "1.2.840.10045.3.1.7";
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const ED25519_OID: &str = "1.3.101.112";

/// Why a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is too large.
    #[error("it has {size} bytes; {LARGEST} are the limit")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// It is not PEM with a request in it.
    #[error("it is not one PEM block `CERTIFICATE REQUEST`: {reason}")]
    NotPem {
        /// Why not.
        reason: &'static str,
    },
    /// Somebody sends a private key.
    #[error("a private key came with it; it must stay where it is, and is no secret any more: make a new one")]
    PrivateKey,
    /// It is not a PKCS#10 request.
    #[error("it is not a PKCS#10 request: {reason}")]
    NotPkcs10 {
        /// Why not.
        reason: String,
    },
    /// Its key is of another kind.
    #[error("its key is neither P-256 nor Ed25519 ({algorithm})")]
    KeyKind {
        /// The key's algorithm, as an object identifier.
        algorithm: String,
    },
    /// Its key is malformed.
    #[error("its key is malformed")]
    Key,
    /// It is signed in another way.
    #[error("its signature is of a kind that does not fit its key ({algorithm})")]
    SignatureKind {
        /// The signature's algorithm, as an object identifier.
        algorithm: String,
    },
    /// Its signature is not by its key.
    #[error("its signature is not by its own key")]
    Signature,
    /// It asks for very much.
    #[error("it names more than {MOST_NAMES} names")]
    Names,
}

/// What counts of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// The key to make a certificate for, whose holder has signed the request.
    pub key: SubjectKey,
    /// The URI that it asks for, if it asks for exactly one; for the record only.
    pub asked: Option<String>,
}

/// A public key that a certificate can be made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectKey {
    kind: Kind,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    Ed25519,
}

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            Kind::P256 => &PKCS_ECDSA_P256_SHA256,
            Kind::Ed25519 => &PKCS_ED25519,
        }
    }
}

impl SubjectKey {
    /// `P-256` or `Ed25519`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.kind {
            Kind::P256 => "P-256",
            Kind::Ed25519 => "Ed25519",
        }
    }
}

impl Csr {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// Why it cannot be signed.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CsrError> {
        if pem.len() > LARGEST {
            return Err(CsrError::TooLarge { size: pem.len() });
        }
        let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
        let mut der = None;
        for block in &mut blocks {
            let (kind, bytes) = block.map_err(|_| CsrError::NotPem { reason: "the block is damaged" })?;
            match kind {
                SectionKind::Csr if der.is_none() => der = Some(bytes),
                SectionKind::Csr => return Err(CsrError::NotPem { reason: "there are several" }),
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    return Err(CsrError::PrivateKey);
                }
                _ => return Err(CsrError::NotPem { reason: "there is something else in it" }),
            }
        }
        Csr::from_der(&der.ok_or(CsrError::NotPem { reason: "there is none" })?)
    }

    fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let not_one = |reason: String| CsrError::NotPkcs10 { reason };
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|error| not_one(error.to_string()))?;
        if !rest.is_empty() {
            return Err(not_one("bytes follow it".to_owned()));
        }
        let info = &request.certification_request_info;
        if info.version != X509Version::V1 {
            return Err(not_one(format!("its version is {}, not 0", info.version.0)));
        }
        let key = subject_key(&info.subject_pki)?;
        let (algorithm, identifier) = verification(key.kind, &request.signature_algorithm)?;
        // The parser is lenient about what surrounds the signed part; nothing but the one right form is read on.
        let signature = [&[0], &*request.signature_value.data].concat();
        let whole = [info.raw, identifier, &element(0x03, &signature)].concat();
        if element(0x30, &whole) != der {
            return Err(not_one("it is not in DER, or has more parts than it should".to_owned()));
        }
        UnparsedPublicKey::new(algorithm, &key.bytes)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        Ok(Csr { key, asked: asked(&request)? })
    }
}

fn subject_key(info: &SubjectPublicKeyInfo<'_>) -> Result<SubjectKey, CsrError> {
    let algorithm = info.algorithm.algorithm.to_id_string();
    let parameters = info.algorithm.parameters.as_ref();
    let bytes = info.subject_public_key.data.to_vec();
    if info.subject_public_key.unused_bits != 0 {
        return Err(CsrError::Key);
    }
    match algorithm.as_str() {
        EC_PUBLIC_KEY => {
            let curve = parameters.and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
            if curve.as_deref() != Some(PRIME256V1) {
                return Err(CsrError::KeyKind { algorithm: curve.unwrap_or(algorithm) });
            }
            // An uncompressed point; that it lies on the curve is seen when the signature is verified.
            let is_point = bytes.len() == P256_POINT && bytes.first() == Some(&4);
            if is_point { Ok(SubjectKey { kind: Kind::P256, bytes }) } else { Err(CsrError::Key) }
        }
        ED25519_OID if parameters.is_none() && bytes.len() == ED25519_KEY => {
            Ok(SubjectKey { kind: Kind::Ed25519, bytes })
        }
        ED25519_OID => Err(CsrError::Key),
        _ => Err(CsrError::KeyKind { algorithm }),
    }
}

/// How a signature is verified, with the DER of its algorithm's identifier.
type Verification = (&'static dyn VerificationAlgorithm, &'static [u8]);

fn verification(kind: Kind, id: &AlgorithmIdentifier<'_>) -> Result<Verification, CsrError> {
    let algorithm = id.algorithm.to_id_string();
    match (kind, algorithm.as_str()) {
        (Kind::P256, ECDSA_SHA256) => {
            Ok((&ECDSA_P256_SHA256_ASN1, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"))
        }
        (Kind::P256, ECDSA_SHA384) => {
            Ok((&ECDSA_P256_SHA384_ASN1, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"))
        }
        (Kind::Ed25519, ED25519_OID) => Ok((&ED25519, b"\x30\x05\x06\x03\x2b\x65\x70")),
        _ => Err(CsrError::SignatureKind { algorithm }),
    }
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match length {
        [] => der.push(0),
        [short] if *short < 0x80 => der.push(*short),
        // At most eight bytes of length.
        long => {
            der.push(0x80 | long.len() as u8);
            der.extend_from_slice(long);
        }
    }
    der.extend_from_slice(content);
    der
}

/// The URI that the request asks for. Two are none: it is not ours to choose.
fn asked(request: &X509CertificationRequest<'_>) -> Result<Option<String>, CsrError> {
    let mut uris = Vec::new();
    let mut count = 0usize;
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        count = count.saturating_add(names.general_names.len());
        uris.extend(names.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        }));
    }
    if count > MOST_NAMES {
        return Err(CsrError::Names);
    }
    Ok(match uris.as_slice() {
        [uri] => Some(uri.chars().take(LONGEST_NAME).filter(|char| !char.is_control()).collect()),
        _ => None,
    })
}

/// For the fuzzer: reading never panics, whatever the bytes.
pub fn fuzz(bytes: &[u8]) {
    let _ = Csr::from_pem(bytes);
    let _ = Csr::from_der(bytes);
}

#[cfg(test)]
mod tests;
