//! Injection and its reverse on the text of files: comments, order, quoting and style of what the user wrote stay.
//!
//! Injection only inserts, block style into block style and flow style into flow style, so that a diff shows added
//! lines alone; where a probe asks the proxy from now on, the lines that it had stay as comments. [`remove`] takes exactly
//! these away again. What comes out is read once more, with stand-ins for what is
//! added, and must be what [`crate::inject_object`] makes of the object. Where a text cannot be extended (a pod template behind an alias, say)
//! that is said; nothing is ever rewritten.

use api::object::Judge;
use api::problem::{Location, Problem, any_error};
use api::yaml::{self, Node};
use serde_json::Value;

use crate::inject::{self, Injection, Skip};

mod insert;
mod lines;
mod probes;
mod same;
mod socket;
mod spot;
mod take;
mod taker;
mod writer;

use lines::{Edit, Lines};

/// What became of one object of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its kind, as typed.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why it was left as it is; `None` when it was changed.
    pub skipped: Option<Skip>,
}

/// A text that was changed, and what became of its objects in written order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The text.
    pub text: String,
    /// What became of its objects.
    pub reports: Vec<Report>,
}

/// Why a place in a text cannot be extended or shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    #[error("it is (or comes from) an alias")]
    Alias,
    #[error("it is written as null")]
    Null,
    #[error("it has an anchor or a tag on its line")]
    Decorated,
    #[error("it begins on the line of its list item")]
    OnItemLine,
    #[error("it is not written as a list or mapping")]
    Shape,
    #[error("it is shared with other places, or written in a way that is not understood")]
    Shared,
}

/// Injects every object of a text; `file` is the name that problems mention.
///
/// # Examples
///
/// ```
/// use install::{Images, Injection, text};
///
/// let pod = "kind: Pod\nmetadata:\n  name: app # mine\nspec:\n  containers: [{name: app, image: \"app:1\"}]\n";
/// let injection = Injection::new(Images::of_version("1"), "");
/// let injected = text::inject("pod.yaml", pod, &injection).expect("it can be injected").text;
/// assert!(injected.contains("mesh-proxy") && injected.contains("  name: app # mine\n"));
/// assert_eq!(text::remove("pod.yaml", &injected).expect("it can be taken out").text, pod);
/// ```
///
/// # Errors
///
/// All problems of all objects; nothing is injected then.
pub fn inject(file: &str, text: &str, injection: &Injection) -> Result<Changed, Vec<Problem>> {
    put_into(file, text, injection, None)
}

/// Injects as [`inject()`] does into a text whose objects are all sound, as [`api::object::validate_text`] judges them: it is read only once
/// for both. Warnings come along.
///
/// # Errors
///
/// All problems of all objects, of which those that make an object unsound come alone; nothing is injected then.
pub fn inject_sound(file: &str, text: &str, injection: &Injection) -> Result<(Changed, Vec<Problem>), Vec<Problem>> {
    let mut judged = Judging { judge: Some(Judge::new(file)), problems: Vec::new() };
    let changed = put_into(file, text, injection, Some(&mut judged));
    match changed {
        _ if any_error(&judged.problems) => Err(judged.problems),
        Ok(changed) => Ok((changed, judged.problems)),
        Err(problems) => Err(problems),
    }
}

/// What is judged while a text is changed.
struct Judging<'f> {
    judge: Option<Judge<'f>>,
    problems: Vec<Problem>,
}

fn put_into(
    file: &str,
    text: &str,
    injection: &Injection,
    judging: Option<&mut Judging<'_>>,
) -> Result<Changed, Vec<Problem>> {
    let mut renderer = writer::Renderer::default();
    let what = "the sidecar cannot be put into this text";
    change((file, text), what, judging, |lines, node, edits| {
        let object = node.to_json();
        let mut additions = match inject::plan_object(&object, injection) {
            Ok(Ok(additions)) => additions,
            Ok(Err(skip)) => return Ok((object, Some(skip))),
            Err(refusal) => return Err(Failure::Refused(format!("cannot be injected: {refusal}"))),
        };
        insert::additions(lines, node, &mut additions, &mut renderer, edits).map_err(Failure::Text)?;
        let refused = |refusal| Failure::Refused(format!("cannot be injected: {refusal}"));
        Ok((inject::extend_object(object, additions.stand_ins()).map_err(refused)?, None))
    })
}

/// Takes the sidecar out of every object of a text that has one.
///
/// # Errors
///
/// All problems of all objects; nothing is taken out then.
pub fn remove(file: &str, text: &str) -> Result<Changed, Vec<Problem>> {
    change((file, text), "the sidecar cannot be taken out of this text", None, |lines, node, edits| {
        let object = node.to_json();
        let Some(expected) = inject::remove_object(&object) else {
            return Ok((object, Some(Skip::NoSidecar)));
        };
        take::sidecar(lines, node, edits).map_err(Failure::Text)?;
        Ok((expected, None))
    })
}

/// Why an object cannot be changed.
enum Failure {
    /// It must not be.
    Refused(String),
    /// Its text does not allow it: which field, and why.
    Text((String, Obstacle)),
}

/// Lets `edit` collect the edits of each object and say what it must be afterwards, and applies them all.
fn change(
    (file, text): (&str, &str),
    what: &str,
    mut judging: Option<&mut Judging<'_>>,
    mut edit: impl FnMut(&Lines<'_>, &Node, &mut Vec<Edit>) -> Result<(Value, Option<Skip>), Failure>,
) -> Result<Changed, Vec<Problem>> {
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let lines = Lines::new(body);
    let (mut edits, mut reports, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = Vec::new();
    let mut problems = yaml::each(file, body, |document| {
        if let Some(judge) = judging.as_mut().and_then(|judging| judging.judge.as_mut()) {
            judge.judge(&document);
        }
        for node in objects(&document) {
            let (kind, name) =
                (word(node, "kind"), node.field("metadata").map_or_else(String::new, |m| word(m, "name")));
            match edit(&lines, node, &mut edits) {
                Ok((object, skipped)) => {
                    expected.push((object, location(file, node)));
                    reports.push(Report { kind, name, skipped });
                }
                Err(failure) => {
                    found.push(problem(failure, what, location(file, node)).in_object(format!("{kind} {name}")))
                }
            }
        }
    });
    if let Some(judging) = judging
        && let Some(judge) = judging.judge.take()
    {
        judging.problems = judge.problems(problems.clone());
        if any_error(&judging.problems) {
            return Err(problems);
        }
    }
    problems.append(&mut found);
    if !problems.is_empty() {
        return Err(problems);
    }
    if edits.is_empty() {
        return Ok(Changed { text: text.to_owned(), reports });
    }
    edits.sort_by_key(|edit| edit.range.start);
    verify(file, &lines::apply(body, &edits, |edit| edit.stand_in.as_deref().unwrap_or(&edit.text)), what, &expected)?;
    let changed = lines::apply(body, &edits, |edit| &edit.text);
    Ok(Changed { text: format!("{mark}{changed}"), reports })
}

/// Reads the changed text, whose objects must be the expected ones.
fn verify(file: &str, text: &str, what: &str, expected: &[(Value, Location)]) -> Result<(), Vec<Problem>> {
    let mut expected = expected.iter();
    let mut wrong = Vec::new();
    let broken = yaml::each(file, text, |document| {
        for node in objects(&document) {
            if let Some((object, location)) = expected.next()
                && !same::is_same(node, object)
            {
                wrong.push(location.clone());
            }
        }
    });
    if !broken.is_empty() || expected.next().is_some() {
        let place = Location { file: file.to_owned(), line: 1, column: 1 };
        wrong.push(wrong.first().cloned().unwrap_or(place));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let failure = |at| problem(Failure::Text(("its pod".to_owned(), Obstacle::Shared)), what, at);
    Err(wrong.into_iter().map(failure).collect())
}

fn problem(failure: Failure, what: &str, at: Location) -> Problem {
    match failure {
        Failure::Refused(message) => Problem::error(message).at(at),
        Failure::Text((field, obstacle)) => Problem::error(format!("{what} without rewriting it: {field}: {obstacle}"))
            .at(at)
            .with_hint("write the field out as a block of lines"),
    }
}

/// The objects of a document: itself, or those that a `List` holds.
fn objects(document: &Node) -> Vec<&Node> {
    match (document.field("kind").and_then(Node::text), document.field("items").map(|items| &items.value)) {
        (Some("List"), Some(yaml::Value::List(items))) => items.iter().collect(),
        _ => vec![document],
    }
}

fn word(node: &Node, field: &str) -> String {
    node.field(field).and_then(Node::text).unwrap_or_default().to_owned()
}

fn location(file: &str, node: &Node) -> Location {
    node.mark.map_or_else(|| Location { file: file.to_owned(), line: 1, column: 1 }, |mark| mark.in_file(file))
}

#[cfg(test)]
mod tests;
