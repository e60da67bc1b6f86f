//! How paths and headers are matched.

use smallvec::SmallVec;

use crate::request::Request;
use crate::tables::{HeaderMatch, HeaderTest, PathMatch, Subject};

impl PathMatch {
    /// Whether a path without its query matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathMatch::Prefix(prefix) => path.starts_with(&**prefix),
            PathMatch::Exact(wanted) => path == &**wanted,
            PathMatch::Elements(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::Regex(regex) => regex.matches(path.as_bytes()),
            PathMatch::IgnoreCase(inner) => inner.matches_without_case(path),
        }
    }

    fn matches_without_case(&self, path: &str) -> bool {
        let head = |len: usize| path.as_bytes().get(..len);
        match self {
            PathMatch::Prefix(prefix) => head(prefix.len()).is_some_and(|h| h.eq_ignore_ascii_case(prefix.as_bytes())),
            PathMatch::Exact(wanted) => path.eq_ignore_ascii_case(wanted),
            PathMatch::Elements(prefix) => {
                head(prefix.len()).is_some_and(|h| h.eq_ignore_ascii_case(prefix.as_bytes()))
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Regex(_) | PathMatch::IgnoreCase(_) => self.matches(path),
        }
    }

    /// How many bytes of a path that matches a prefix rewrite replaces: the prefix, else everything.
    pub(crate) fn matched_len(&self, path: &str) -> usize {
        match self {
            PathMatch::Prefix(prefix) | PathMatch::Elements(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
            PathMatch::IgnoreCase(inner) => inner.matched_len(path),
        }
    }
}

impl HeaderMatch {
    /// Whether a request fulfils the condition. All values of a repeated header count, joined with `,` as in Envoy.
    #[must_use]
    pub fn matches(&self, request: &impl Request) -> bool {
        match &self.subject {
            Subject::Path => self.test_value(Some(request.path().as_bytes())),
            Subject::Method => self.test_value(Some(request.method().as_bytes())),
            Subject::Authority => self.test_value(Some(request.authority().as_bytes())),
            Subject::Scheme => self.test_value(Some(request.scheme().as_bytes())),
            Subject::Header(name) => {
                let mut values = request.header(name);
                let first = values.next();
                match values.next() {
                    None => self.test_value(first),
                    Some(second) => {
                        let mut joined: SmallVec<[u8; 256]> = SmallVec::new();
                        joined.extend_from_slice(first.unwrap_or_default());
                        for value in std::iter::once(second).chain(values) {
                            joined.push(b',');
                            joined.extend_from_slice(value);
                        }
                        self.test_value(Some(&joined))
                    }
                }
            }
        }
    }

    fn test_value(&self, value: Option<&[u8]>) -> bool {
        let value = match (&self.test, value) {
            (HeaderTest::Present(wanted), value) => {
                return (value.is_some() || self.missing_is_empty) == *wanted && !self.invert
                    || (value.is_some() || self.missing_is_empty) != *wanted && self.invert;
            }
            (_, Some(value)) => value,
            (_, None) if self.missing_is_empty => b"",
            (_, None) => return false,
        };
        let holds = match &self.test {
            HeaderTest::Present(_) => true,
            HeaderTest::Text(text) => text.matches(value),
            HeaderTest::Range(start, end) => whole_number(value).is_some_and(|n| (*start..*end).contains(&n)),
        };
        holds != self.invert
    }
}

fn whole_number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
