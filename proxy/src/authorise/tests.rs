use super::*;

type Changes = (Vec<Box<str>>, Vec<Box<str>>, Vec<(Box<str>, String)>);

fn tokens() -> Changes {
    (vec!["x-user".into()], vec!["authorization".into()], vec![("x-user".into(), "jason".to_owned())])
}

#[test]
fn a_client_cannot_say_what_the_proxy_says_in_any_spelling() {
    let (reserved, remove, add) = tokens();
    let handover = Handover { reserved: &reserved, remove: &remove, add: &add };
    for (name, kept) in [
        ("x-user", false),
        ("X-User", false),
        ("x_user", false),
        ("X_USER", false),
        ("Authorization", false),
        ("x-users", true),
        ("x-use", true),
        ("x.user", true),
        ("", true),
    ] {
        assert_eq!(handover.keeps(name.as_bytes()), kept, "{name}");
    }
    assert_eq!(handover.added().collect::<Vec<_>>(), [("x-user", "jason")]);
    assert!(Handover::default().keeps(b"x-user"));
}

#[test]
fn the_memory_of_tokens_is_bounded() {
    let memory = Memory::default();
    let claims = Arc::new(token::verify(&issuer(), &signed().0, 0).expect("a good token"));
    for nth in 0..20_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&nth.to_le_bytes());
        memory.put(key, Arc::clone(&claims));
        assert!(memory.get(&key).is_some());
    }
    assert!(memory.len() <= 16 * 256, "{}", memory.len());
}

fn issuer() -> Provider {
    Provider {
        name: "test".into(),
        issuer: "i".into(),
        audiences: Vec::new(),
        keys: token::KeySet::parse(signed().1.as_bytes()).expect("a key"),
        headers: vec![("authorization".into(), "Bearer ".into())],
        params: Vec::new(),
        cookies: Vec::new(),
        forward: true,
        payload_header: None,
        claim_headers: Vec::new(),
        key: "payload".into(),
        skew: 60,
        must_expire: false,
        fingerprint: [0; 32],
    }
}

/// A token of `i`, and the key set that verifies it.
fn signed() -> (String, String) {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let text = format!("{}.{}", token::encode(br#"{"alg":"EdDSA"}"#), token::encode(br#"{"iss":"i","sub":"s"}"#));
    let signature = token::encode(key.sign(text.as_bytes()).as_ref());
    let x = token::encode(key.public_key().as_ref());
    (format!("{text}.{signature}"), format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#))
}

#[test]
fn a_token_that_was_good_is_not_with_other_keys_or_when_its_time_is_over() {
    let authoriser = Authoriser::default();
    let (token, _) = signed();
    let mut provider = issuer();
    assert!(authoriser.verify(&provider, &token, 0).is_ok());
    assert_eq!(authoriser.memory.len(), 1);
    assert!(authoriser.verify(&provider, &token, 0).is_ok());
    // The issuer has changed its keys: what was remembered counts no more.
    let other = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    provider.keys = token::KeySet::parse(other.as_bytes()).expect("a key");
    provider.fingerprint = [1; 32];
    assert_eq!(authoriser.verify(&provider, &token, 0), Err(TokenError::Signature));
    provider.must_expire = true;
    provider.fingerprint = [0; 32];
    assert_eq!(authoriser.verify(&provider, &token, 0), Err(TokenError::Times), "times are asked every time");
}
