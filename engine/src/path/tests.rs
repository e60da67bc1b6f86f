use proptest::prelude::*;

use super::*;

const MERGE: PathPolicy = PathPolicy { merge_slashes: true, escaped_slashes: Slashes::Keep };
const APART: PathPolicy = PathPolicy { merge_slashes: false, escaped_slashes: Slashes::Keep };
const UNESCAPE: PathPolicy = PathPolicy { merge_slashes: true, escaped_slashes: Slashes::Unescape };
const REJECT: PathPolicy = PathPolicy { merge_slashes: true, escaped_slashes: Slashes::Reject };

#[test]
fn paths_come_into_canonical_form() {
    for (policy, path, expected) in [
        (MERGE, "/", "/"),
        (MERGE, "*", "*"),
        (MERGE, "/a/b?c=d//e/../%2e", "/a/b?c=d//e/../%2e"),
        (MERGE, "//admin", "/admin"),
        (APART, "//admin", "//admin"),
        (MERGE, "/a/./b", "/a/b"),
        (MERGE, "/a/../b", "/b"),
        (MERGE, "/../../b", "/b"),
        (MERGE, "/a/..", "/"),
        (MERGE, "/a/.", "/a/"),
        (MERGE, "/a/%2e%2E/b", "/b"),
        (MERGE, "/a%2fb%5c", "/a%2Fb%5C"),
        (UNESCAPE, "/a%2f..%5cb", "/b"),
        (MERGE, r"/a\..\b", "/b"),
        (MERGE, "/%61%7E%3b", "/a~%3B"),
        (MERGE, "/é", "/%C3%A9"),
        (MERGE, "/.hidden", "/.hidden"),
        (MERGE, "/a...", "/a..."),
        (APART, "/a//../b", "/a/b"),
        (MERGE, "/a;x=1/b", "/a;x=1/b"),
    ] {
        assert_eq!(canonical_path(path, policy).as_deref(), Ok(expected), "{path} under {policy:?}");
    }
}

#[test]
fn paths_that_can_be_read_in_two_ways_are_refused() {
    for (policy, path, expected) in [
        (MERGE, "", PathError::NotAbsolute),
        (MERGE, "admin", PathError::NotAbsolute),
        (MERGE, "http://x/", PathError::NotAbsolute),
        (MERGE, "/a%00b", PathError::Nul),
        (MERGE, "/a%", PathError::BadEscape),
        (MERGE, "/a%%361", PathError::BadEscape),
        (MERGE, "/a%2", PathError::BadEscape),
        (MERGE, "/a#b", PathError::Fragment),
        (MERGE, "/a?b#c", PathError::Fragment),
        (MERGE, "/a b", PathError::Control),
        (MERGE, "/a\0b", PathError::Control),
        (REJECT, "/a%2Fb", PathError::EscapedSlash),
        (REJECT, "/a%5cb", PathError::EscapedSlash),
    ] {
        assert_eq!(canonical_path(path, policy), Err(expected), "{path:?}");
    }
}

#[test]
fn authorities_come_into_canonical_form() {
    for (authority, expected) in [
        ("reviews", Ok("reviews")),
        ("Reviews:9080", Ok("reviews:9080")),
        ("reviews.:80", Ok("reviews:80")),
        ("reviews:", Ok("reviews")),
        ("reviews:0080", Ok("reviews:80")),
        ("10.0.0.1:9080", Ok("10.0.0.1:9080")),
        ("[FD00::1]:80", Ok("[fd00::1]:80")),
        ("[::1]", Ok("[::1]")),
        ("", Err(AuthorityError::Empty)),
        (".", Err(AuthorityError::Empty)),
        (":80", Err(AuthorityError::Empty)),
        ("..", Err(AuthorityError::Empty)),
        ("a..", Err(AuthorityError::Empty)),
        ("a@b", Err(AuthorityError::UserInfo)),
        ("a b", Err(AuthorityError::BadCharacter)),
        ("a/b", Err(AuthorityError::BadCharacter)),
        ("fd00::1", Err(AuthorityError::BadCharacter)),
        ("[fe80::1%25eth0]", Err(AuthorityError::BadCharacter)),
        ("a:65536", Err(AuthorityError::BadPort)),
        ("a:x", Err(AuthorityError::BadPort)),
        ("a:+1", Err(AuthorityError::BadPort)),
    ] {
        assert_eq!(canonical_authority(authority).as_deref(), expected.as_deref(), "{authority:?}");
    }
    assert_eq!(canonical_authority(&"a".repeat(262)), Err(AuthorityError::TooLong));
}

fn any_policy() -> impl Strategy<Value = PathPolicy> {
    prop_oneof![Just(MERGE), Just(APART), Just(UNESCAPE), Just(REJECT)]
}

proptest! {
    #[test]
    fn the_canonical_form_of_a_canonical_path_is_itself(path in r"/([a./%\\25eEfF?]|%2[eEfF]|%5[cC]|%61|é){0,24}", policy in any_policy()) {
        if let Ok(once) = canonical_path(&path, policy) {
            let twice = canonical_path(&once, policy);
            prop_assert_eq!(twice.as_deref(), Ok(&*once));
            let bare = without_query(&once);
            prop_assert!(!bare.split('/').any(|segment| segment == "." || segment == ".."));
            prop_assert!(!policy.merge_slashes || !bare.contains("//"));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), policy in any_policy()) {
        let _ = canonical_path(&text, policy);
        if let Ok(once) = canonical_authority(&text) {
            let twice = canonical_authority(&once);
            prop_assert_eq!(twice.as_deref(), Ok(&*once));
        }
    }
}
