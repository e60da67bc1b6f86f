//! What callers prove: certificates and tokens.

use super::*;

const AUTHENTICATION: &str = "
apiVersion: config.meshctl.io/v1alpha2
kind: AuthenticationPolicy
metadata: {name: NAME, namespace: NAMESPACE}
spec: SPEC
";

pub(super) fn authentication(name: &str, namespace: &str, spec: &str) -> String {
    AUTHENTICATION.replace("NAMESPACE", namespace).replace("NAME", name).replace("SPEC", spec)
}

#[test]
fn the_closest_authentication_policy_holds_and_of_several_the_strictest() {
    let strict = "{peers: [{mtls: {mode: STRICT}}]}";
    let permissive = "{peers: [{mtls: {mode: PERMISSIVE}}]}";
    let of_reviews = |mode: &str, ports: &str| {
        format!("{{targets: [{{name: reviews{ports}}}], peers: [{{mtls: {{mode: {mode}}}}}]}}")
    };
    for (policies, expected) in [
        (vec![], None),
        (vec![("default", "mesh-system", strict.to_owned())], Some(MtlsMode::Strict)),
        (
            vec![("default", "mesh-system", strict.to_owned()), ("default", "default", permissive.to_owned())],
            Some(MtlsMode::Permissive),
        ),
        (vec![("a", "default", strict.to_owned()), ("b", "default", permissive.to_owned())], Some(MtlsMode::Strict)),
        (
            vec![("a", "default", strict.to_owned()), ("b", "default", of_reviews("DISABLE", ""))],
            Some(MtlsMode::Disable),
        ),
        (
            vec![
                ("a", "default", of_reviews("DISABLE", "")),
                ("b", "default", of_reviews("STRICT", ", ports: [{number: 9080}]")),
            ],
            Some(MtlsMode::Strict),
        ),
        (vec![("a", "default", of_reviews("STRICT", ", ports: [{name: http}]"))], Some(MtlsMode::Strict)),
        (vec![("a", "default", of_reviews("STRICT", ", ports: [{number: 80}]"))], None),
        (vec![("a", "other", strict.to_owned())], None),
        (vec![("a", "default", "{peers: [{mtls: }], peerIsOptional: true}".to_owned())], Some(MtlsMode::Permissive)),
        (vec![("a", "default", "{peers: [{mtls: }]}".to_owned())], Some(MtlsMode::Strict)),
    ] {
        let text = policies.iter().map(|(name, namespace, spec)| authentication(name, namespace, spec));
        let text = text.collect::<Vec<_>>().join("---");
        let model = if policies.is_empty() { bookinfo() } else { model_with(&text) };
        let service = model.services.get(&host("reviews"));
        let applied = generate::authentication(&model, "default", service.map(|service| (&**service, port(9080))));
        assert_eq!(applied.mtls.map(|(mode, _)| mode), expected, "{policies:?}");
    }
}

#[test]
fn strict_keeps_out_who_has_no_certificate() {
    let model = model_with(&authentication("default", "default", "{peers: [{mtls: {mode: STRICT}}]}"));
    let get = Simple::get("x:9080", "/");
    assert!(!is_allowed(&model, "reviews", &get));
    assert!(is_allowed(&model, "reviews", &get.from_workload(&id("other", "anybody"))));
}

/// A policy that asks for tokens of a key.
pub(super) fn tokens_of(key: &Key, more: &str) -> String {
    let keys = key.set();
    authentication(
        "jwt",
        "default",
        &format!(
            "{{targets: [{{name: reviews}}], {more} origins: [{{jwt: {{issuer: 'https://issuer.test', audiences: [bookinfo], jwks: '{keys}', outputClaimToHeaders: [{{header: x-user, claim: sub}}]}}}}]}}"
        ),
    )
}

/// The claims and headers of a request at reviews, or why it is refused.
fn authenticated(model: &Model, request: &Simple) -> Result<Vec<(Box<str>, String)>, String> {
    let tables = tables(model, &sidecar(model, "reviews", "v1"));
    let http = http_of(&tables);
    let tokens = http.access.tokens.clone().unwrap();
    let mut verifying = |provider: &engine::tables::Provider, token: &str| verify(provider, token, 1500).map(Arc::new);
    authenticate(&tokens, request, &mut verifying)
        .map(|found| found.add)
        .map_err(|refused| format!("{}: {}", refused.provider, refused.why.word()))
}

#[test]
fn tokens_are_found_where_they_may_stand_and_nowhere_else() {
    let key = Key::of("ES256");
    let model = model_with(&tokens_of(&key, ""));
    let token = key.token("ES256", &issuer::claims());
    let bad = Key::of("ES256").token("ES256", &issuer::claims());
    let get = |path: &str| Simple::get("reviews:9080", path);
    let bearer = |token: &str| get("/").with_header("authorization", &format!("Bearer {token}"));
    let user = Ok(vec![("x-user".into(), "jason".to_owned())]);
    let why = |word: &str| Err(format!("authentication-policy/default/jwt/origins[0]: {word}"));
    for (request, expected) in [
        (bearer(&token), user.clone()),
        (get("/").with_header("authorization", &format!("bearer {token}")), user.clone()),
        (get(&format!("/x?a=b&access_token={token}")), user.clone()),
        (get("/"), why("missing")),
        (get("/").with_header("authorization", &format!("Basic {token}")), why("missing")),
        (get("/").with_header("x-token", &token), why("missing")),
        (get("/").with_header("cookie", &format!("access_token={token}")), why("missing")),
        (get(&format!("/x?b=access_token={token}")), why("missing")),
        (bearer(&bad), why("signature")),
        (bearer(&format!("{token} ")), user.clone()),
        (bearer(&token).with_header("authorization", &format!("Bearer {bad}")), why("several")),
        (
            get(&format!("/x?access_token={bad}")).with_header("authorization", &format!("Bearer {token}")),
            why("several"),
        ),
        (bearer(&token).with_header("authorization", &format!("Bearer {token}")), user.clone()),
        (bearer(""), why("malformed")),
    ] {
        assert_eq!(authenticated(&model, &request), expected, "{request:?}");
    }
    let optional = model_with(&tokens_of(&key, "originIsOptional: true,"));
    assert_eq!(authenticated(&optional, &get("/")), Ok(vec![]));
    assert_eq!(authenticated(&optional, &bearer(&token)), user);
    assert_eq!(authenticated(&optional, &bearer(&bad)), why("signature"), "a bad token is worse than none");
}

#[test]
fn tokens_are_found_in_the_headers_parameters_and_cookies_that_a_policy_names() {
    let key = Key::of("ES256");
    let token = key.token("ES256", &issuer::claims());
    let bad = Key::of("ES256").token("ES256", &issuer::claims());
    let of = |more: &str| {
        model_with(&tokens_of(&key, "").replace("outputClaimToHeaders", &format!("{more}, outputClaimToHeaders")))
    };
    let get = |path: &str| Simple::get("reviews:9080", path);
    let with = |name: &str, value: &str| get("/").with_header(name, value);
    let user = Ok(vec![("x-user".into(), "jason".to_owned())]);
    let why = |word: &str| Err(format!("authentication-policy/default/jwt/origins[0]: {word}"));
    let (headers, params) = ("jwtHeaders: [X-Token, x-other]", "jwtParams: [token]");
    let cookies = "jwtCookies: [session, __Host-id]";
    for (more, request, expected) in [
        (headers, with("x-token", &token), user.clone()),
        (headers, with("x-other", &token), user.clone()),
        (headers, with("x-token", &format!("Bearer {token}")), why("malformed")),
        (headers, with("x-token", &bad), why("signature")),
        (headers, with("x-token", &token).with_header("x-other", &bad), why("several")),
        // Where a policy names places, there are no others.
        (headers, with("authorization", &format!("Bearer {token}")), why("missing")),
        (headers, get(&format!("/?access_token={token}")), why("missing")),
        (params, get(&format!("/?token={token}")), user.clone()),
        (params, get(&format!("/a?x=y&token={token}&z")), user.clone()),
        (params, get(&format!("/?Token={token}")), why("missing")),
        (params, get(&format!("/?xtoken={token}")), why("missing")),
        (params, get(&format!("/token={token}")), why("missing")),
        (params, get(&format!("/?token={token}&token={bad}")), why("several")),
        (params, get("/?token="), why("malformed")),
        (params, with("authorization", &format!("Bearer {token}")), why("missing")),
        (cookies, with("cookie", &format!("session={token}")), user.clone()),
        (cookies, with("cookie", &format!("a=b; session=\"{token}\"; c=d")), user.clone()),
        (cookies, with("cookie", &format!("a=b;session={token}")), user.clone()),
        (cookies, with("cookie", "a=b").with_header("cookie", &format!("__Host-id={token}")), user.clone()),
        (cookies, with("cookie", &format!("Session={token}")), why("missing")),
        (cookies, with("cookie", &format!("xsession={token}")), why("missing")),
        (cookies, with("cookie", &format!("a=session={token}")), why("missing")),
        (cookies, with("cookie", &format!("session={token}; session={bad}")), why("several")),
        (cookies, with("cookie", "session="), why("malformed")),
        (cookies, with("x-session", &token), why("missing")),
        (cookies, with("authorization", &format!("Bearer {token}")), why("missing")),
    ] {
        assert_eq!(authenticated(&of(more), &request), expected, "{more}: {request:?}");
    }
    // In several of these at once it must be the same one.
    let all = of(&format!("{headers}, {params}, {cookies}"));
    let both =
        |token: &str, other: &str| get(&format!("/?token={token}")).with_header("cookie", &format!("session={other}"));
    assert_eq!(authenticated(&all, &both(&token, &token)), user);
    assert_eq!(authenticated(&all, &both(&token, &bad)), why("several"));
}

#[test]
fn what_the_application_gets_of_a_token_is_what_the_policy_says() {
    let key = Key::of("ES256");
    let token = key.token("ES256", &issuer::claims());
    let payload = token.split('.').nth(1).unwrap().to_owned();
    let handed = |more: &str| {
        let policy = tokens_of(&key, "").replace("outputClaimToHeaders", &format!("{more} outputClaimToHeaders"));
        let model = model_with(&policy);
        let tables = tables(&model, &sidecar(&model, "reviews", "v1"));
        let tokens = http_of(&tables).access.tokens.clone().unwrap();
        let mut verifying =
            |provider: &engine::tables::Provider, token: &str| verify(provider, token, 1500).map(Arc::new);
        let request = Simple::get("reviews:9080", "/").with_header("authorization", &format!("Bearer {token}"));
        let request = request.with_header("x-token", &token);
        let found = authenticate(&tokens, &request, &mut verifying).unwrap();
        let text = |names: &[Box<str>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        (found.add, text(&found.remove), text(&tokens.reserved), found.remove_params)
    };
    let user = ("x-user".into(), "jason".to_owned());
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for more in ["", "forwardOriginalToken: true,"] {
        assert_eq!(handed(more), (vec![user.clone()], vec![], names(&["x-user"]), vec![]), "{more}");
    }
    let (_, headers, _, params) = handed("forwardOriginalToken: false,");
    assert_eq!((headers, params), (names(&["authorization"]), vec!["access_token".into()]));
    assert_eq!(handed("forwardOriginalToken: false, jwtHeaders: [x-token],").1, names(&["x-token"]));
    let of_params = handed("forwardOriginalToken: false, jwtHeaders: [x-token], jwtParams: [token, t],").3;
    assert_eq!(of_params.iter().map(ToString::to_string).collect::<Vec<_>>(), ["token", "t"]);
    let (add, _, mut reserved, _) = handed("outputPayloadToHeader: x-payload,");
    reserved.sort();
    assert_eq!(add, [("x-payload".into(), payload), user]);
    assert_eq!(reserved, names(&["x-payload", "x-user"]), "a client's own are left out");
}

#[test]
fn tokens_that_are_not_for_the_application_are_cut_out_of_the_query() {
    let names = ["access_token", "t"].map(Box::from).to_vec();
    let found = engine::token::Authenticated { remove_params: names, ..Default::default() };
    for (path, expected) in [
        ("/x", "/x"),
        ("/x?", "/x?"),
        ("/x?a=b&&c", "/x?a=b&&c"),
        ("/x?access_token=abc", "/x"),
        ("/x?a=b&access_token=abc&c=d", "/x?a=b&c=d"),
        ("/x?t=1&a=b&t=1&access_token=1", "/x?a=b"),
        ("/x??access_token=abc&a", "/x?a"),
        ("/x?access_token&b=access_token=abc", "/x?access_token&b=access_token=abc"),
        ("/access_token=abc?Access_token=abc", "/access_token=abc?Access_token=abc"),
    ] {
        assert_eq!(found.path(path.into()), expected, "{path}");
        assert_eq!(engine::token::Authenticated::default().path(path.into()), path);
    }
}

#[test]
fn cve_2026_31837_no_key_is_no_access_and_there_is_no_default_key() {
    let uri = "jwksUri: 'https://issuer.test/keys'";
    let spec = |more: &str| {
        format!("{{targets: [{{name: reviews}}], {more} origins: [{{jwt: {{issuer: 'https://issuer.test', {uri}}}}}]}}")
    };
    let get = Simple::get("x:9080", "/");
    let required = model_with(&authentication("jwt", "default", &spec("")));
    assert!(!is_allowed(&required, "reviews", &get));
    assert!(!is_allowed(&required, "reviews", &get.clone().with_header("authorization", "Bearer x")));
    assert!(is_allowed(&required, "ratings", &get), "the policy is about reviews alone");
    let optional = model_with(&authentication("jwt", "default", &spec("originIsOptional: true,")));
    assert!(is_allowed(&optional, "reviews", &get));
    for (name, value) in [("authorization", "Bearer x"), ("authorization", "bearer x")] {
        assert!(!is_allowed(&optional, "reviews", &get.clone().with_header(name, value)), "{name}: {value}");
    }
    assert!(!is_allowed(&optional, "reviews", &Simple::get("x:9080", "/?access_token=x")));
    // With the key it is as always; with one of no use it is as without.
    let key = Key::of("ES256");
    for (keys, expected) in [(key.set(), true), ("{\"keys\":[]}".to_owned(), false), ("<html>".to_owned(), false)] {
        let mut model = required.clone();
        model.access.key_sets.insert("https://issuer.test/keys".to_owned(), keys.as_str().into());
        let tables = tables(&model, &sidecar(&model, "reviews", "v1"));
        assert_eq!(http_of(&tables).access.tokens.is_some(), expected, "{keys}");
        let http = http_of(&tables);
        let admission = admit(&http.access.rbac, &get, &mut NoTrace);
        assert_eq!(admission.denied.is_none(), expected, "{keys}");
    }
}
