//! Comparisons of text: equal, begins with, ends with, contains, matches a regular expression as a whole.

use std::fmt;

use regex_automata::meta;
use regex_automata::util::syntax;

/// Longest pattern that is taken, in bytes.
const PATTERN_LIMIT: usize = 4096;
/// Bound on the size of one compiled automaton.
const NFA_LIMIT: usize = 1 << 20;
/// Bound on the working memory of one search.
const CACHE_LIMIT: usize = 256 << 10;

/// A regular expression that matches a text as a whole, in time linear in the text.
///
/// The syntax is RE2's. `.` and the classes `\d \w \s` are ASCII's unless the pattern itself asks for more
/// (`\p{…}`, or letters beyond ASCII in brackets), because header values are bytes.
pub struct Regex {
    pattern: Box<str>,
    /// Anchored at both ends.
    whole: meta::Regex,
    /// Not anchored: for substitutions.
    anywhere: Option<meta::Regex>,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than is taken.
    #[error("the regex has {0} bytes, more than {PATTERN_LIMIT}")]
    TooLong(usize),
    /// Not a regular expression, or one whose automaton would be too large.
    #[error("`{pattern}` is not a regex that can be used: {reason}")]
    Unusable {
        /// The pattern.
        pattern: String,
        /// The parser's or the compiler's words, on one line.
        reason: String,
    },
}

impl Regex {
    /// Compiles a pattern that matches texts as a whole.
    ///
    /// # Errors
    /// When the pattern is too long, not a regular expression, or compiles to too large an automaton.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_LIMIT {
            return Err(PatternError::TooLong(pattern.len()));
        }
        // Alone first: `a)(b` is no pattern, though it would be one between parentheses.
        let unicode = needs_unicode(pattern)?;
        let whole = build(&format!(r"\A(?:{pattern})\z"), unicode)?;
        Ok(Regex { pattern: pattern.into(), whole, anywhere: None })
    }

    /// Compiles a pattern that can also be used for substitution.
    ///
    /// # Errors
    /// As [`Regex::new`].
    pub fn for_substitution(pattern: &str) -> Result<Self, PatternError> {
        let mut regex = Regex::new(pattern)?;
        regex.anywhere = Some(build(pattern, needs_unicode(pattern)?)?);
        Ok(regex)
    }

    /// Whether the pattern matches all of the text.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.whole.is_match(text)
    }

    /// Replaces every match by `substitution`, in which `\0` to `\9` stand for groups and `\\` for a backslash.
    ///
    /// Returns `None` when nothing matches. Bytes that are not UTF-8 cannot come out of UTF-8 in.
    #[must_use]
    pub fn replace_all(&self, text: &str, substitution: &str) -> Option<String> {
        let regex = self.anywhere.as_ref()?;
        let mut out = Vec::with_capacity(text.len());
        let mut end = 0;
        for captures in regex.captures_iter(text) {
            let whole = captures.get_match()?;
            out.extend_from_slice(&text.as_bytes()[end..whole.start()]);
            let mut chars = substitution.bytes();
            while let Some(byte) = chars.next() {
                match (byte, byte == b'\\') {
                    (_, true) => match chars.next() {
                        Some(digit) if digit.is_ascii_digit() => {
                            if let Some(group) = captures.get_group(usize::from(digit - b'0')) {
                                out.extend_from_slice(&text.as_bytes()[group.range()]);
                            }
                        }
                        Some(other) => out.push(other),
                        None => {}
                    },
                    (byte, false) => out.push(byte),
                }
            }
            end = whole.end();
        }
        if end == 0 && out.is_empty() {
            return None;
        }
        out.extend_from_slice(&text.as_bytes()[end..]);
        String::from_utf8(out).ok()
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pattern
    }
}

/// Whether a pattern asks for more than ASCII.
fn needs_unicode(pattern: &str) -> Result<bool, PatternError> {
    if syntax::parse_with(pattern, &syntax_of(false)).is_ok() {
        return Ok(false);
    }
    match syntax::parse_with(pattern, &syntax_of(true)) {
        Ok(_) => Ok(true),
        Err(error) => Err(PatternError::Unusable { pattern: pattern.to_owned(), reason: one_line(&error.to_string()) }),
    }
}

fn syntax_of(unicode: bool) -> syntax::Config {
    syntax::Config::new().unicode(unicode).utf8(false).nest_limit(64)
}

fn build(pattern: &str, unicode: bool) -> Result<meta::Regex, PatternError> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(NFA_LIMIT))
        .hybrid_cache_capacity(CACHE_LIMIT)
        .dfa(false)
        .utf8_empty(false);
    meta::Builder::new()
        .configure(config)
        .syntax(syntax_of(unicode))
        .build(pattern)
        .map_err(|error| PatternError::Unusable { pattern: pattern.to_owned(), reason: one_line(&error.to_string()) })
}

/// The parser draws the pattern over several lines; the last says what is wrong.
fn one_line(error: &str) -> String {
    error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

/// How a text is compared.
#[derive(Debug, PartialEq)]
pub enum Text {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Ends with.
    Suffix(Box<str>),
    /// Has it somewhere.
    Contains(Box<str>),
    /// Matches as a whole.
    Regex(Box<Regex>),
    /// One of the above without regard to ASCII case (never a regex).
    IgnoreCase(Box<Text>),
}

impl Text {
    /// Whether a text compares as wanted.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Text::Exact(wanted) => text == wanted.as_bytes(),
            Text::Prefix(wanted) => text.starts_with(wanted.as_bytes()),
            Text::Suffix(wanted) => text.ends_with(wanted.as_bytes()),
            Text::Contains(wanted) => memchr::memmem::find(text, wanted.as_bytes()).is_some(),
            Text::Regex(regex) => regex.matches(text),
            Text::IgnoreCase(inner) => inner.matches_without_case(text),
        }
    }

    fn matches_without_case(&self, text: &[u8]) -> bool {
        match self {
            Text::Exact(wanted) => text.eq_ignore_ascii_case(wanted.as_bytes()),
            Text::Prefix(wanted) => {
                text.get(..wanted.len()).is_some_and(|head| head.eq_ignore_ascii_case(wanted.as_bytes()))
            }
            Text::Suffix(wanted) => text
                .len()
                .checked_sub(wanted.len())
                .is_some_and(|from| text[from..].eq_ignore_ascii_case(wanted.as_bytes())),
            Text::Contains(wanted) => {
                wanted.is_empty()
                    || text.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
            }
            Text::Regex(regex) => regex.matches(text),
            Text::IgnoreCase(inner) => inner.matches_without_case(text),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Exact(text) => write!(f, "exact `{text}`"),
            Text::Prefix(text) => write!(f, "prefix `{text}`"),
            Text::Suffix(text) => write!(f, "suffix `{text}`"),
            Text::Contains(text) => write!(f, "contains `{text}`"),
            Text::Regex(regex) => write!(f, "regex `{}`", regex.as_str()),
            Text::IgnoreCase(inner) => write!(f, "{inner} in any case"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> Text {
        Text::Regex(Box::new(Regex::new(pattern).expect(pattern)))
    }

    #[test]
    fn texts_compare_as_documented() {
        let any_case = |inner| Text::IgnoreCase(Box::new(inner));
        for (matcher, text, expected) in [
            (Text::Exact("jason".into()), "jason", true),
            (Text::Exact("jason".into()), "Jason", false),
            (Text::Prefix("ja".into()), "jason", true),
            (Text::Prefix("ja".into()), "j", false),
            (Text::Suffix("son".into()), "jason", true),
            (Text::Contains("aso".into()), "jason", true),
            (Text::Contains("x".into()), "jason", false),
            (any_case(Text::Exact("JASON".into())), "jason", true),
            (any_case(Text::Prefix("JA".into())), "jason", true),
            (any_case(Text::Suffix("SON".into())), "on", false),
            (any_case(Text::Contains("ASO".into())), "jason", true),
            (any_case(Text::Contains("".into())), "", true),
            (regex("^j.*n$"), "jasons", false),
            (regex("j.*n"), "jason", true),
            (regex("j.*n"), "xjason", false),
            (regex("a|ab"), "ab", true),
            (regex("^(.*?;)?(user=jason)(;.*)?$"), "user=jason", true),
            (regex("^(.*?;)?(user=jason)(;.*)?$"), "a=b;user=jason; c=d", true),
            (regex("^(.*?;)?(user=jason)(;.*)?$"), "user=jasons", false),
            (regex("(?i)JASON"), "jason", true),
            (regex(r"\d+"), "42", true),
            (regex("[é]"), "é", true),
            (regex(""), "", true),
            (regex(""), "a", false),
        ] {
            assert_eq!(matcher.matches(text.as_bytes()), expected, "{matcher} against {text:?}");
        }
        assert!(regex(".*").matches(b"\xff\xfe"), "a header value need not be UTF-8");
    }

    #[test]
    fn patterns_that_cannot_be_used_are_refused() {
        for pattern in ["a)(b", "(", "(?:a{1000}){1000}", r"(a)\1", "(?=a)", &"a".repeat(PATTERN_LIMIT + 1)] {
            assert!(Regex::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn cve_2019_14993_an_evil_pattern_takes_linear_time() {
        assert!(!regex("(a+)+b").matches("a".repeat(64 << 10).as_bytes()));
    }

    #[test]
    fn substitution_replaces_every_match() {
        let regex = Regex::for_substitution("/(v[0-9])/").expect("a pattern");
        assert_eq!(regex.replace_all("/v1/x/v2/", r"/api\1\\/").as_deref(), Some(r"/apiv1\/x/apiv2\/"));
        assert_eq!(regex.replace_all("/x", "y"), None);
    }
}
