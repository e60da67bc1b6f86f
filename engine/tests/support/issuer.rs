//! An issuer of tokens, with keys made for one test.
#![allow(dead_code, reason = "each test binary uses its own part")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use engine::tables::Provider;
use engine::token::{KeySet, encode};
use serde_json::{Value, json};

/// One key of an issuer.
pub(crate) enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

/// Whose tokens they are.
pub(crate) const ISSUER: &str = "https://issuer.test";

/// What is believed of the issuer with these keys, by these audiences.
pub(crate) fn provider(keys: &str, audiences: &[&str]) -> Provider {
    Provider {
        name: "test".into(),
        issuer: ISSUER.into(),
        audiences: audiences.iter().map(|audience| (*audience).into()).collect(),
        keys: KeySet::parse(keys.as_bytes()).unwrap(),
        headers: Vec::new(),
        params: Vec::new(),
        cookies: Vec::new(),
        forward: true,
        payload_header: None,
        claim_headers: Vec::new(),
        key: "payload".into(),
        skew: 60,
        must_expire: true,
        fingerprint: [0; 32],
    }
}

impl Key {
    /// A key for an algorithm.
    pub(crate) fn of(algorithm: &str) -> Self {
        let ec = |algorithm: &'static EcdsaSigningAlgorithm, curve| {
            Key::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve)
        };
        match algorithm {
            "ES256" => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => ec(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            "EdDSA" => Key::Ed25519(Ed25519KeyPair::generate().unwrap()),
            _ => Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        }
    }

    /// The public half, as a JSON Web Key.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        match self {
            Key::Rsa(key) => {
                let n = key.public_key().modulus().big_endian_without_leading_zero().to_vec();
                let e = key.public_key().exponent().big_endian_without_leading_zero().to_vec();
                json!({ "kty": "RSA", "kid": id, "use": "sig", "n": encode(&n), "e": encode(&e) })
            }
            Key::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "kid": id, "x": encode(x), "y": encode(y) })
            }
            Key::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(key.public_key().as_ref()) })
            }
        }
    }

    /// A key set of this key alone.
    pub(crate) fn set(&self) -> String {
        json!({ "keys": [self.jwk("k1")] }).to_string()
    }

    /// Signs any bytes by an algorithm.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Key::Rsa(key) => {
                let padding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Key::Ec(key, _) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims as text, signed by the algorithm that the header names.
    pub(crate) fn token_of(&self, header: &str, claims: &str) -> String {
        let algorithm: Value = serde_json::from_str(header).unwrap_or_default();
        let algorithm = algorithm["alg"].as_str().unwrap_or_default().to_owned();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&self.sign(&algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// A token with these claims.
    pub(crate) fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_of(&json!({ "alg": algorithm, "kid": "k1" }).to_string(), &claims.to_string())
    }
}

/// Claims that are good from 1,000 to 2,000 seconds after 1970.
pub(crate) fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "jason", "aud": "bookinfo", "iat": 1000, "nbf": 1000, "exp": 2000 })
}
