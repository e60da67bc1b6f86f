//! `RouteMatch` → conditions.

#![expect(deprecated, reason = "people still write the old forms of header matchers, and Envoy still reads them")]

use std::mem::take;

use super::fault::runtime_share;
use super::strict::{At, Refusal, nothing_left};
use crate::matcher::{Regex, Text};
use crate::proto::{matcher, protobuf, route as pb};
use crate::tables::{FaultShare, HeaderMatch, HeaderTest, PathMatch, Subject};

use matcher::string_matcher::MatchPattern;
use pb::header_matcher::HeaderMatchSpecifier;
use pb::route_match::PathSpecifier;

/// Compiles what a request must be like.
pub(super) fn compile(
    mut message: pb::RouteMatch,
) -> Result<(PathMatch, Vec<HeaderMatch>, Option<FaultShare>), Refusal> {
    let specifier =
        message.path_specifier.take().ok_or_else(|| Refusal::invalid("the match says nothing of the path"))?;
    let ignores_case = message.case_sensitive.take() == Some(protobuf::BoolValue { value: false });
    let path = path(specifier, ignores_case)?;
    let headers = take(&mut message.headers)
        .into_iter()
        .enumerate()
        .map(|(nth, message)| header(message).at_nth("headers", nth))
        .collect::<Result<_, _>>()?;
    let fraction = message.runtime_fraction.take().as_ref().map(runtime_share).transpose().at("runtime_fraction")?;
    nothing_left(&message)?;
    Ok((path, headers, fraction))
}

fn path(specifier: PathSpecifier, ignores_case: bool) -> Result<PathMatch, Refusal> {
    let path = match specifier {
        PathSpecifier::Prefix(text) => PathMatch::Prefix(text.into()),
        PathSpecifier::Path(text) => PathMatch::Exact(text.into()),
        PathSpecifier::PathSeparatedPrefix(text) => {
            if !text.starts_with('/') || text.ends_with('/') || text.contains(['?', '#']) {
                return Err(Refusal::invalid(format!(
                    "the path_separated_prefix `{text}` must begin with `/`, not end with it, and have neither `?` nor `#`"
                )));
            }
            PathMatch::Elements(text.into())
        }
        PathSpecifier::SafeRegex(message) if !ignores_case => {
            return Ok(PathMatch::Regex(Box::new(regex(&message).at("safe_regex")?)));
        }
        PathSpecifier::SafeRegex(_) => return Err(Refusal::invalid("`case_sensitive` is not for regexes")),
        PathSpecifier::ConnectMatcher(_) if !ignores_case => return Ok(PathMatch::Connect),
        PathSpecifier::ConnectMatcher(_) => {
            return Err(Refusal::invalid("`case_sensitive` is not for `connect_matcher`"));
        }
        PathSpecifier::PathMatchPolicy(_) => return Err(Refusal::not_in_force("path_match_policy")),
    };
    Ok(if ignores_case { PathMatch::IgnoreCase(Box::new(path)) } else { path })
}

/// Compiles a condition on a part of the head.
pub(super) fn header(mut message: pb::HeaderMatcher) -> Result<HeaderMatch, Refusal> {
    let name = take(&mut message.name).to_ascii_lowercase();
    let subject = match name.as_str() {
        "" => return Err(Refusal::invalid("the header has no name")),
        ":path" => Subject::Path,
        ":method" => Subject::Method,
        ":authority" | "host" => Subject::Authority,
        ":scheme" => Subject::Scheme,
        other if other.starts_with(':') => return Err(Refusal::not_in_force(format!("header {other}"))),
        _ => Subject::Header(name.into()),
    };
    let invert = take(&mut message.invert_match);
    let missing_is_empty = take(&mut message.treat_missing_header_as_empty);
    let test = match message.header_match_specifier.take() {
        None => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(wanted)) => HeaderTest::Present(wanted),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => HeaderTest::Range(range.start, range.end),
        Some(HeaderMatchSpecifier::StringMatch(message)) => HeaderTest::Text(text(message).at("string_match")?),
        Some(HeaderMatchSpecifier::ExactMatch(wanted)) => HeaderTest::Text(Text::Exact(wanted.into())),
        Some(HeaderMatchSpecifier::PrefixMatch(wanted)) => HeaderTest::Text(Text::Prefix(wanted.into())),
        Some(HeaderMatchSpecifier::SuffixMatch(wanted)) => HeaderTest::Text(Text::Suffix(wanted.into())),
        Some(HeaderMatchSpecifier::ContainsMatch(wanted)) => HeaderTest::Text(Text::Contains(wanted.into())),
        Some(HeaderMatchSpecifier::SafeRegexMatch(message)) => {
            HeaderTest::Text(Text::Regex(Box::new(regex(&message).at("safe_regex_match")?)))
        }
    };
    nothing_left(&message)?;
    Ok(HeaderMatch { subject, test, invert, missing_is_empty })
}

/// Compiles a comparison of text.
pub(super) fn text(mut message: matcher::StringMatcher) -> Result<Text, Refusal> {
    let ignores_case = take(&mut message.ignore_case);
    let text = match message.match_pattern.take() {
        None => return Err(Refusal::invalid("nothing is said about the text")),
        Some(MatchPattern::Exact(wanted)) => Text::Exact(wanted.into()),
        Some(MatchPattern::Prefix(wanted)) => Text::Prefix(wanted.into()),
        Some(MatchPattern::Suffix(wanted)) => Text::Suffix(wanted.into()),
        Some(MatchPattern::Contains(wanted)) => Text::Contains(wanted.into()),
        Some(MatchPattern::SafeRegex(_)) if ignores_case => {
            return Err(Refusal::invalid("`ignore_case` is not for regexes"));
        }
        Some(MatchPattern::SafeRegex(message)) => return Ok(Text::Regex(Box::new(regex(&message)?))),
        Some(MatchPattern::Custom(_)) => return Err(Refusal::not_in_force("custom")),
    };
    nothing_left(&message)?;
    Ok(if ignores_case { Text::IgnoreCase(Box::new(text)) } else { text })
}

fn regex(message: &matcher::RegexMatcher) -> Result<Regex, Refusal> {
    engine_is_re2(message)?;
    Regex::new(&message.regex).map_err(|error| Refusal::invalid(error.to_string()))
}

/// Compiles a regex that is used for substitution.
pub(super) fn substitution(message: &matcher::RegexMatcher) -> Result<Regex, Refusal> {
    engine_is_re2(message)?;
    Regex::for_substitution(&message.regex).map_err(|error| Refusal::invalid(error.to_string()))
}

/// The only engine that there is may be named (it was once required), but not tuned.
fn engine_is_re2(message: &matcher::RegexMatcher) -> Result<(), Refusal> {
    match &message.engine_type {
        Some(matcher::regex_matcher::EngineType::GoogleRe2(re2)) if re2.max_program_size.is_some() => {
            Err(Refusal::not_in_force("max_program_size"))
        }
        _ => Ok(()),
    }
}
