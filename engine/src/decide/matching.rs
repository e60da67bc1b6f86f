//! How paths and headers are matched.

use crate::request::Request;
use crate::tables::{HeaderMatch, HeaderTest, PathMatch, Subject};

impl PathMatch {
    /// Whether a path without its query matches. An empty one is that of CONNECT.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if path.is_empty() {
            return *self == PathMatch::Connect;
        }
        match self {
            PathMatch::Connect => false,
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
            PathMatch::Regex(_) | PathMatch::IgnoreCase(_) | PathMatch::Connect => self.matches(path),
        }
    }

    /// How many bytes of a path that matches a prefix rewrite replaces: the prefix, else everything.
    pub(crate) fn matched_len(&self, path: &str) -> usize {
        match self {
            PathMatch::Prefix(prefix) | PathMatch::Elements(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
            PathMatch::IgnoreCase(inner) => inner.matched_len(path),
        }
    }
}

impl HeaderMatch {
    /// Whether a request fulfils the condition.
    ///
    /// As in Envoy every value of a repeated header is looked at by itself: the condition holds if it does for any of
    /// them, and an inverted one if it does for none.
    #[must_use]
    pub fn matches(&self, request: &impl Request) -> bool {
        match &self.subject {
            Subject::Path => self.holds_for(std::iter::once(request.path().as_bytes())),
            Subject::Method => self.holds_for(std::iter::once(request.method().as_bytes())),
            Subject::Authority => self.holds_for(std::iter::once(request.authority().as_bytes())),
            Subject::Scheme => self.holds_for(std::iter::once(request.scheme().as_bytes())),
            Subject::Header(name) => self.holds_for(request.header(name)),
        }
    }

    /// Whether one value of a header that is there fulfils the condition.
    #[must_use]
    pub(crate) fn matches_value(&self, value: &[u8]) -> bool {
        match self.test {
            HeaderTest::Present(wanted) => wanted != self.invert,
            _ => self.test.holds(value) != self.invert,
        }
    }

    fn holds_for<'v>(&self, values: impl Iterator<Item = &'v [u8]>) -> bool {
        let mut values = values.peekable();
        let is_there = values.peek().is_some();
        if let HeaderTest::Present(wanted) = self.test {
            return ((is_there || self.missing_is_empty) == wanted) != self.invert;
        }
        match (is_there, self.missing_is_empty) {
            (true, _) => values.any(|value| self.test.holds(value)) != self.invert,
            (false, true) => self.test.holds(b"") != self.invert,
            (false, false) => false,
        }
    }
}

impl HeaderTest {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            HeaderTest::Present(wanted) => *wanted,
            HeaderTest::Text(text) => text.matches(value),
            HeaderTest::Range(start, end) => whole_number(value).is_some_and(|n| (*start..*end).contains(&n)),
        }
    }
}

fn whole_number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
