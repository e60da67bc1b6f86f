//! What a proxy refused, read from the words of its NACK.

use std::sync::Arc;

/// Longest reason that is kept of one resource; a peer's words are cut there.
const LONGEST_REASON: usize = 1024;

/// One refused resource and the proxy's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The resource's name.
    pub name: Arc<str>,
    /// The proxy's words about it.
    pub reason: String,
}

/// Finds which of the resources `sent` a NACK is about.
///
/// Our proxy writes `name: reason; name: reason`, Envoy `Error adding/updating listener(s) name: reason`: so the names
/// that were sent are looked for, each followed by a colon. If none is found, all of them are refused with the whole
/// message, as a proxy that does not say may have kept none.
#[must_use]
pub fn refused(sent: &[Arc<str>], message: &str) -> Vec<Refused> {
    let mut found: Vec<(usize, &Arc<str>)> =
        sent.iter().filter_map(|name| Some((position(name, message)?, name))).collect();
    if found.is_empty() {
        return sent.iter().map(|name| Refused { name: name.clone(), reason: shortened(message.trim()) }).collect();
    }
    found.sort_unstable();
    let ends: Vec<usize> = found.iter().skip(1).map(|(start, _)| *start).chain([message.len()]).collect();
    found
        .into_iter()
        .zip(ends)
        .map(|((start, name), end)| {
            let reason = message.get(start + name.len() + 1..end).unwrap_or_default();
            let reason = reason.trim().trim_end_matches([';', ',']).trim_end();
            Refused { name: name.clone(), reason: shortened(reason) }
        })
        .collect()
}

/// Where `name:` stands as a word of its own.
fn position(name: &str, message: &str) -> Option<usize> {
    message.match_indices(name).map(|(start, _)| start).find(|&start| {
        let before = message[..start].chars().next_back();
        let follows = message[start + name.len()..].starts_with(':');
        follows && before.is_none_or(|c| c.is_whitespace() || c == '\'' || c == '"')
    })
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn read(sent: &[&str], message: &str) -> Vec<(String, String)> {
        refused(&names(sent), message).into_iter().map(|r| (r.name.to_string(), r.reason)).collect()
    }

    #[test]
    fn reasons_are_found_by_the_names_that_were_sent() {
        let sent = ["reviews.default.svc.cluster.local:9080", "ratings.default.svc.cluster.local:9080"];
        let message = "reviews.default.svc.cluster.local:9080: unknown field `mirror`; ratings.default.svc.cluster.local:9080: no domains: none";
        assert_eq!(
            read(&sent, message),
            [
                (sent[0].to_owned(), "unknown field `mirror`".to_owned()),
                (sent[1].to_owned(), "no domains: none".to_owned())
            ]
        );
    }

    #[test]
    fn envoys_words_are_understood_and_other_resources_are_not_blamed() {
        let sent = ["10.0.0.1_80", "10.0.0.1_8080"];
        let message = "Error adding/updating listener(s) 10.0.0.1_8080: Proto constraint validation failed";
        assert_eq!(read(&sent, message), [(sent[1].to_owned(), "Proto constraint validation failed".to_owned())]);
    }

    #[test]
    fn a_name_within_another_name_is_not_that_name() {
        assert_eq!(read(&["b:80", "a.b:80"], "a.b:80: broken"), [("a.b:80".to_owned(), "broken".to_owned())]);
    }

    #[test]
    fn without_a_name_all_of_them_are_refused() {
        assert_eq!(read(&["a", "b"], " out of memory ").len(), 2);
        assert_eq!(read(&["a", "b"], " out of memory ")[0].1, "out of memory");
    }

    #[test]
    fn long_and_odd_words_of_a_peer_do_no_harm() {
        let message = format!("a: {}", "é".repeat(5000));
        assert!(read(&["a"], &message)[0].1.len() <= LONGEST_REASON);
        assert_eq!(read(&[], "whatever"), []);
    }
}
