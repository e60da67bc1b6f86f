//! Public keys of issuers (RFC 7517), and what each of them verifies.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

use super::{TokenError, decode};

/// Longest text of a key set, in bytes.
const MAX_KEY_SET: usize = 256 * 1024;
/// Most keys of a set.
const MAX_KEYS: usize = 256;

/// An algorithm that a signature may be made by. All of them are of public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with PKCS #1 v1.5, and SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSA with PSS, and SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// ECDSA on P-521.
    Es512,
    /// Ed25519.
    Ed25519,
}

impl Algorithm {
    /// The algorithm that `alg` names; `None` for every other, `none` and symmetric ones among them.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Algorithm::Rs256,
            "RS384" => Algorithm::Rs384,
            "RS512" => Algorithm::Rs512,
            "PS256" => Algorithm::Ps256,
            "PS384" => Algorithm::Ps384,
            "PS512" => Algorithm::Ps512,
            "ES256" => Algorithm::Es256,
            "ES384" => Algorithm::Es384,
            "ES512" => Algorithm::Es512,
            "EdDSA" | "Ed25519" => Algorithm::Ed25519,
            _ => return None,
        })
    }

    fn family(self) -> Family {
        match self {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => Family::Rsa,
            Algorithm::Es256 => Family::P256,
            Algorithm::Es384 => Family::P384,
            Algorithm::Es512 => Family::P521,
            Algorithm::Ed25519 => Family::Ed25519,
        }
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        Some(match self {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// What kind of key it is: that decides which algorithms it is for, whatever a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Family {
    fn verifier(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Family::Rsa => return None,
            Family::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Family::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Family::P521 => &signature::ECDSA_P521_SHA512_FIXED,
            Family::Ed25519 => &signature::ED25519,
        })
    }

    /// Length of a coordinate.
    fn width(self) -> usize {
        match self {
            Family::Rsa => 0,
            Family::P256 | Family::Ed25519 => 32,
            Family::P384 => 48,
            Family::P521 => 66,
        }
    }
}

#[derive(Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Box<[u8]>),
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    family: Family,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

/// The public keys of an issuer. Never empty.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Too long.
    #[error("the key set has {0} bytes, more than {MAX_KEY_SET}")]
    TooLong(usize),
    /// No JSON, or not of the shape.
    #[error("the key set is no JSON object with a list `keys`")]
    Shape,
    /// Too many.
    #[error("the key set has {0} keys, more than {MAX_KEYS}")]
    TooMany(usize),
    /// A secret is in it.
    #[error("the key set holds a secret key, which is one no longer")]
    Secret,
    /// Nothing of use is in it.
    #[error(
        "the key set has no key that could verify a token (RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519)"
    )]
    NoKey,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that are for something else, or of kinds that are not known, are passed over.
    ///
    /// # Errors
    /// When no key is left, or a secret one is among them.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.len() > MAX_KEY_SET {
            return Err(KeySetError::TooLong(text.len()));
        }
        let set = super::parse_strictly(text).map_err(|_| KeySetError::Shape)?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Shape)?;
        if list.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(list.len()));
        }
        if list.iter().any(|key| key.get("k").is_some() || key.get("d").is_some()) {
            return Err(KeySetError::Secret);
        }
        let keys: Vec<_> = list.iter().filter_map(key).collect();
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(KeySet { keys }) }
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies a signature by the key of that id, else by those that could be meant.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let fits = |key: &&Key| {
            key.family == algorithm.family()
                && key.algorithm.is_none_or(|only| only == algorithm)
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        let mut candidates = self.keys.iter().filter(fits).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::NoKey);
        }
        // A flood of keys without ids must not cost a flood of signatures.
        if candidates.take(8).any(|key| key.verifies(algorithm, signed, signature)) {
            return Ok(());
        }
        Err(TokenError::Signature)
    }
}

impl Key {
    fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm.rsa(), self.family.verifier()) {
            (Material::Rsa { n, e }, Some(parameters), _) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            (Material::Point(point), None, Some(verifier)) => {
                UnparsedPublicKey::new(verifier, point).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn key(json: &Value) -> Option<Key> {
    let text = |name: &str| json.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(decode);
    if text("use").is_some_and(|of| of != "sig") {
        return None;
    }
    if let Some(operations) = json.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|operation| operation == "verify")
    {
        return None;
    }
    let (family, material) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            // Shorter keys are broken; longer ones cost more than they are worth.
            if !(256..=1024).contains(&n.len()) || n.first() == Some(&0) {
                return None;
            }
            (Family::Rsa, Material::Rsa { n, e })
        }
        ("EC", Some(curve)) => {
            let family = match curve {
                "P-256" => Family::P256,
                "P-384" => Family::P384,
                "P-521" => Family::P521,
                _ => return None,
            };
            (family, Material::Point(point(family, &bytes("x")?, &bytes("y")?)?))
        }
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x").filter(|x| x.len() == Family::Ed25519.width())?;
            (Family::Ed25519, Material::Point(x.into()))
        }
        _ => return None,
    };
    let algorithm = match text("alg") {
        None => None,
        Some(name) => Some(Algorithm::named(name).filter(|algorithm| algorithm.family() == family)?),
    };
    Some(Key { id: text("kid").map(str::to_owned), family, algorithm, material })
}

/// A point of a curve in its long form; `None` if it is not on the curve.
fn point(family: Family, x: &[u8], y: &[u8]) -> Option<Box<[u8]>> {
    let width = family.width();
    if x.len() != width || y.len() != width {
        return None;
    }
    let point: Box<[u8]> = [&[4], x, y].concat().into();
    ParsedPublicKey::new(family.verifier()?, &*point).ok()?;
    Some(point)
}
