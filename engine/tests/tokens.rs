//! Tokens as RFC 8725 asks for: each way to forge one, by name.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/issuer.rs"]
mod issuer;

use engine::tables::Provider;
use engine::token::{KeySet, KeySetError, TokenError, encode, verify};
use issuer::{Key, claims, provider};
use serde_json::{Value, json};

const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

fn verdict(provider: &Provider, token: &str) -> Result<(), TokenError> {
    verify(provider, token, 1500).map(drop)
}

#[test]
fn good_tokens_of_every_algorithm_are_believed_and_changed_ones_are_not() {
    for algorithm in ALGORITHMS {
        let key = Key::of(algorithm);
        let provider = provider(&key.set(), &["bookinfo"]);
        let token = key.token(algorithm, &claims());
        let verified = verify(&provider, &token, 1500).unwrap_or_else(|why| panic!("{algorithm}: {why}"));
        assert_eq!(verified.principal().as_deref(), Some("https://issuer.test/jason"));
        let other = Key::of(algorithm).token(algorithm, &claims());
        assert_eq!(verdict(&provider, &other), Err(TokenError::Signature), "{algorithm}: another key");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let mut elevated = claims();
        elevated["sub"] = json!("admin");
        let changed = format!("{header}.{}.{signature}", encode(elevated.to_string().as_bytes()));
        assert_eq!(verdict(&provider, &changed), Err(TokenError::Signature), "{algorithm}: changed claims");
        // CVE-2019-12995: lengths of signatures that nobody expects.
        for length in [0, 1, 2, 31, 32, 63, 65, 127, 255, 257, 512] {
            let short = format!("{signed}.{}", encode(&vec![1; length]));
            assert!(verdict(&provider, &short).is_err(), "{algorithm}: a signature of {length} bytes");
        }
    }
}

#[test]
fn alg_none_and_algorithm_confusion_are_refused() {
    let key = Key::of("RS256");
    let believed = provider(&key.set(), &[]);
    let body = encode(claims().to_string().as_bytes());
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS1", "ES256K", "dir"] {
        let header = encode(json!({ "alg": algorithm, "kid": "k1" }).to_string().as_bytes());
        // RS → HS: signed with what everybody knows, the public key.
        let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.set().as_bytes());
        let signature = aws_lc_rs::hmac::sign(&hmac, format!("{header}.{body}").as_bytes());
        let token = format!("{header}.{body}.{}", encode(signature.as_ref()));
        assert_eq!(verdict(&believed, &token), Err(TokenError::Algorithm), "{algorithm}");
        let bare = format!("{header}.{body}.");
        assert!(verdict(&believed, &bare).is_err(), "{algorithm} without a signature");
    }
    for header in [json!({}), json!({ "alg": null }), json!({ "alg": ["RS256"] }), json!({ "alg": 1 })] {
        let token = key.token_of(&header.to_string(), &claims().to_string());
        assert_eq!(verdict(&believed, &token), Err(TokenError::Algorithm), "{header}");
    }
    // A key is for its own family, and for its own algorithm where it says so.
    let token = Key::of("ES256").token("ES256", &claims());
    assert_eq!(verdict(&believed, &token), Err(TokenError::NoKey));
    let mut only = key.jwk("k1");
    only["alg"] = json!("RS256");
    let strict = provider(&json!({ "keys": [only] }).to_string(), &[]);
    assert_eq!(verdict(&strict, &key.token("PS256", &claims())), Err(TokenError::NoKey));
    assert_eq!(verdict(&strict, &key.token("RS256", &claims())), Ok(()));
}

#[test]
fn keys_and_demands_within_a_token_are_refused() {
    let key = Key::of("ES256");
    let attacker = Key::of("ES256");
    let provider = provider(&key.set(), &[]);
    for (member, value, expected) in [
        ("jwk", attacker.jwk("k1"), TokenError::OwnKey),
        ("jku", json!("https://attacker.test/keys"), TokenError::OwnKey),
        ("x5u", json!("https://attacker.test/cert"), TokenError::OwnKey),
        ("x5c", json!(["MIIB"]), TokenError::OwnKey),
        ("crit", json!(["exp"]), TokenError::Demands),
        ("b64", json!(false), TokenError::Demands),
        ("zip", json!("DEF"), TokenError::Demands),
        ("enc", json!("A128GCM"), TokenError::Demands),
        ("typ", json!("logout+jwt"), TokenError::Demands),
        ("typ", json!("dpop+jwt"), TokenError::Demands),
        ("typ", json!(1), TokenError::Malformed),
        ("kid", json!(["k1"]), TokenError::Malformed),
        ("kid", json!("k".repeat(300)), TokenError::Malformed),
        ("kid", json!("../../../dev/null"), TokenError::NoKey),
        ("kid", json!("k1' OR '1'='1"), TokenError::NoKey),
    ] {
        for signer in [&key, &attacker] {
            let mut header = json!({ "alg": "ES256", "kid": "k1" });
            header[member] = value.clone();
            let token = signer.token_of(&header.to_string(), &claims().to_string());
            assert_eq!(verdict(&provider, &token), Err(expected), "{member}: {value}");
        }
    }
    for kind in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        let header = json!({ "alg": "ES256", "typ": kind });
        assert_eq!(verdict(&provider, &key.token_of(&header.to_string(), &claims().to_string())), Ok(()), "{kind}");
    }
}

#[test]
fn duplicate_members_and_malformed_parts_are_refused() {
    let key = Key::of("ES256");
    let provider = provider(&key.set(), &[]);
    let header = r#"{"alg":"ES256"}"#;
    let base = claims().to_string();
    let with = |more: &str| format!("{},{more}}}", base.trim_end_matches('}'));
    for (header, claims, expected) in [
        (header, with(r#""sub":"admin""#), TokenError::Duplicate),
        (header, with(r#""s\u0075b":"admin""#), TokenError::Duplicate),
        (header, with(r#""x":{"a":1,"a":2}"#), TokenError::Duplicate),
        (r#"{"alg":"ES256","alg":"ES256"}"#, base.clone(), TokenError::Duplicate),
        (r#"{"alg":"ES256"}x"#, base.clone(), TokenError::Malformed),
        (header, "[]".to_owned(), TokenError::Malformed),
        (header, "\"text\"".to_owned(), TokenError::Malformed),
        (header, format!("{base}{base}"), TokenError::Malformed),
    ] {
        assert_eq!(verdict(&provider, &key.token_of(header, &claims)), Err(expected), "{header} {claims}");
    }
    let good = key.token("ES256", &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts.as_slice() else { panic!("{good}") };
    for (text, expected) in [
        (String::new(), TokenError::Malformed),
        ("...".to_owned(), TokenError::Malformed),
        (format!("{head}.{body}"), TokenError::Malformed),
        (format!("{good}.x"), TokenError::Malformed),
        (format!("{head}=.{body}.{signature}"), TokenError::Malformed),
        (format!("{head}.{body}.{signature}="), TokenError::Malformed),
        (format!(" {good}"), TokenError::Malformed),
        (format!("{good}\0"), TokenError::Malformed),
        ("a.".repeat(5000), TokenError::TooLong),
        (format!("{good}{}", "A".repeat(9000)), TokenError::TooLong),
    ] {
        assert_eq!(verdict(&provider, &text), Err(expected), "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn times_audiences_and_issuers_are_looked_at() {
    let key = Key::of("EdDSA");
    let provider = provider(&key.set(), &["bookinfo", "other"]);
    let with = |member: &str, value: Value| {
        let mut claims = claims();
        claims[member] = value;
        claims
    };
    let without = |member: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(member);
        claims
    };
    for (claims, expected) in [
        (with("exp", json!(1441)), Ok(())),
        (with("exp", json!(1440)), Err(TokenError::Expired)),
        (with("exp", json!(1500.5)), Ok(())),
        (with("nbf", json!(1560)), Ok(())),
        (with("nbf", json!(1561)), Err(TokenError::NotYet)),
        (with("iat", json!(9000)), Err(TokenError::NotYet)),
        (with("exp", json!("2000")), Err(TokenError::Times)),
        (with("exp", json!(-1)), Err(TokenError::Times)),
        (with("exp", json!(1e300)), Err(TokenError::Times)),
        (with("exp", json!(null)), Err(TokenError::Times)),
        (with("nbf", json!([])), Err(TokenError::Times)),
        (without("exp"), Err(TokenError::Times)),
        (with("aud", json!(["x", "other"])), Ok(())),
        (with("aud", json!(["x"])), Err(TokenError::Audience)),
        (with("aud", json!("bookinfo2")), Err(TokenError::Audience)),
        (with("aud", json!([])), Err(TokenError::Audience)),
        (with("aud", json!([["bookinfo"]])), Err(TokenError::Malformed)),
        (with("aud", json!({ "bookinfo": 1 })), Err(TokenError::Malformed)),
        (without("aud"), Err(TokenError::Audience)),
        (with("iss", json!("https://issuer.test/")), Err(TokenError::Issuer)),
        (with("iss", json!(["https://issuer.test"])), Err(TokenError::Issuer)),
        (without("iss"), Err(TokenError::Issuer)),
    ] {
        assert_eq!(verdict(&provider, &key.token("EdDSA", &claims)), expected, "{claims}");
    }
}

#[test]
fn key_sets_of_no_use_are_refused_and_useless_keys_passed_over() {
    let rsa = Key::of("RS256");
    let mut short = rsa.jwk("short");
    short["n"] = json!(encode(&[0xff; 128]));
    let mut off = Key::of("ES256").jwk("off the curve");
    off["y"] = json!(encode(&[7; 32]));
    let mut for_encryption = rsa.jwk("enc");
    for_encryption["use"] = json!("enc");
    let symmetric = json!({ "kty": "oct", "k": "c2VjcmV0" });
    let mut private = rsa.jwk("private");
    private["d"] = json!("AQAB");
    for (keys, expected) in [
        (json!({ "keys": [] }), KeySetError::NoKey),
        (json!({ "keys": [short] }), KeySetError::NoKey),
        (json!({ "keys": [off] }), KeySetError::NoKey),
        (json!({ "keys": [for_encryption] }), KeySetError::NoKey),
        (json!({ "keys": [rsa.jwk("k1"), symmetric] }), KeySetError::Secret),
        (json!({ "keys": [private] }), KeySetError::Secret),
        (json!({ "keys": {} }), KeySetError::Shape),
        (json!([]), KeySetError::Shape),
        (json!({ "keys": vec![rsa.jwk("k"); 257] }), KeySetError::TooMany(257)),
    ] {
        assert_eq!(KeySet::parse(keys.to_string().as_bytes()).err(), Some(expected), "{keys}");
    }
    assert!(matches!(KeySet::parse(&vec![b' '; 300_000]), Err(KeySetError::TooLong(_))));
    assert_eq!(KeySet::parse(b"<html>").err(), Some(KeySetError::Shape));
    let mixed = json!({ "keys": [short, rsa.jwk("k1"), { "kty": "quantum" }] }).to_string();
    assert_eq!(KeySet::parse(mixed.as_bytes()).map(|set| set.len()), Ok(1));
}

#[test]
fn cve_2019_12995_any_bytes_are_looked_at_without_a_panic() {
    let key = Key::of("ES256");
    let provider = provider(&key.set(), &[]);
    let good = key.token("ES256", &claims());
    // Each byte of a good token in turn is another: none of these is believed.
    for at in 0..good.len() {
        for byte in [b'A', b'.', b'-', b'\n', 0x7f] {
            let mut bytes = good.clone().into_bytes();
            if bytes[at] == byte {
                continue;
            }
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            assert!(verdict(&provider, &text).is_err(), "{text}");
            let _ = engine::token::check(text.as_bytes());
        }
    }
}
