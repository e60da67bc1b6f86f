//! A description in sections, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::paint::Paint;
use crate::table::Table;

/// Everything that is said of an object.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// `pod default/reviews-v1`.
    pub(super) title: String,
    sections: Vec<Section>,
    problems: Vec<Finding>,
}

#[derive(Debug)]
struct Section {
    name: &'static str,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Fields(Vec<(&'static str, String)>),
    Rows(Vec<&'static str>, Vec<Vec<String>>),
    Lines(Vec<String>),
}

/// Something that is wrong, or will surprise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Whether it is wrong.
    pub(super) is_error: bool,
    /// What.
    pub(super) what: String,
    /// What to do about it.
    pub(super) hint: String,
}

impl Report {
    pub(super) fn new(title: String) -> Self {
        Report { title, ..Report::default() }
    }

    /// Adds fields; those without a value are left out.
    pub(super) fn fields(&mut self, name: &'static str, fields: Vec<(&'static str, String)>) {
        let fields: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        if !fields.is_empty() {
            self.sections.push(Section { name, body: Body::Fields(fields) });
        }
    }

    /// Adds a table, unless it is empty.
    pub(super) fn rows(&mut self, name: &'static str, headings: &[&'static str], rows: Vec<Vec<String>>) {
        if !rows.is_empty() {
            self.sections.push(Section { name, body: Body::Rows(headings.to_vec(), rows) });
        }
    }

    /// Adds lines, unless there are none.
    pub(super) fn lines(&mut self, name: &'static str, lines: Vec<String>) {
        if !lines.is_empty() {
            self.sections.push(Section { name, body: Body::Lines(lines) });
        }
    }

    /// Adds something that is wrong.
    pub(super) fn error(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Finding { is_error: true, what: what.into(), hint: hint.into() });
    }

    /// Adds something that will surprise.
    pub(super) fn warning(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Finding { is_error: false, what: what.into(), hint: hint.into() });
    }

    pub(super) fn add(&mut self, findings: Vec<Finding>) {
        self.problems.extend(findings);
    }

    /// As a person reads it.
    pub(super) fn to_text(&self, paint: Paint) -> String {
        let mut text = format!("{}\n", paint.strong(&self.title));
        for section in &self.sections {
            match &section.body {
                Body::Fields(fields) => {
                    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                    let _ = writeln!(text, "\n{}", paint.strong(section.name));
                    for (name, value) in fields {
                        let _ = writeln!(text, "  {name:width$}   {value}");
                    }
                }
                Body::Rows(headings, rows) => {
                    let mut table = Table::new(headings);
                    rows.iter().for_each(|row| table.row(row.iter().map(|cell| painted(cell, paint)).collect()));
                    let _ = writeln!(text, "\n{}", paint.strong(section.name));
                    table.to_text(true).lines().for_each(|line| text.push_str(&format!("  {line}\n")));
                }
                Body::Lines(lines) => {
                    let _ = writeln!(text, "\n{}", paint.strong(section.name));
                    lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
                }
            }
        }
        let _ = writeln!(text, "\n{}", paint.strong("Problems"));
        if self.problems.is_empty() {
            let _ = writeln!(text, "  {}", paint.good("none found"));
        }
        for finding in &self.problems {
            let word = if finding.is_error { paint.error("error:") } else { paint.warning("warning:") };
            let _ = writeln!(text, "  {word} {}", finding.what);
            if !finding.hint.is_empty() {
                let _ = writeln!(text, "  {} {}", paint.hint("hint:"), finding.hint);
            }
        }
        text
    }

    /// As a program reads it: a field for each section, and `problems`.
    pub(super) fn to_json(&self) -> Value {
        let mut json = Map::new();
        json.insert("object".to_owned(), json!(self.title));
        for section in &self.sections {
            let body = match &section.body {
                Body::Fields(fields) => fields.iter().map(|(name, value)| (key(name), json!(value))).collect(),
                Body::Rows(headings, rows) => {
                    let row = |row: &Vec<String>| -> Value {
                        headings.iter().zip(row).map(|(heading, cell)| (key(heading), json!(cell))).collect()
                    };
                    rows.iter().map(row).collect()
                }
                Body::Lines(lines) => json!(lines),
            };
            json.insert(key(section.name), body);
        }
        let problem = |finding: &Finding| {
            let severity = if finding.is_error { "error" } else { "warning" };
            json!({ "severity": severity, "message": finding.what, "hint": finding.hint })
        };
        json.insert("problems".to_owned(), self.problems.iter().map(problem).collect());
        Value::Object(json)
    }
}

/// `Service account` → `serviceAccount`, `THIS POD` → `thisPod`; what is in brackets is for people.
fn key(name: &str) -> String {
    let mut key = String::new();
    let name = name.split(" (").next().unwrap_or(name);
    for (at, word) in name.split(' ').enumerate() {
        let word = word.to_lowercase();
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if at > 0 => key.extend(first.to_uppercase().chain(letters)),
            Some(first) => key.extend(std::iter::once(first).chain(letters)),
            None => {}
        }
    }
    key
}

/// Words that stand for a state get its colour.
fn painted(cell: &str, paint: Paint) -> String {
    match cell {
        "ready" | "SYNCED" | "Accepted" | "True" => paint.good(cell),
        "STALE" | "draining" | "not ready" => paint.warning(cell),
        "REJECTED" | "Rejected" => paint.error(cell),
        _ => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_are_told_the_same() {
        let mut report = Report::new("pod default/a".to_owned());
        report.fields("Pod", vec![("Status", "Running".to_owned()), ("Service account", String::new())]);
        report.rows("Ports", &["PORT", "THIS POD"], vec![vec!["80".to_owned(), "yes".to_owned()]]);
        report.warning("something", "do this");
        let expected = "pod default/a\n\nPod\n  Status   Running\n\nPorts\n  PORT   THIS POD\n  80     yes\n\nProblems\n  \
                        warning: something\n  hint: do this\n";
        assert_eq!(report.to_text(Paint::PLAIN), expected);
        let json = json!({
            "object": "pod default/a", "pod": {"status": "Running"}, "ports": [{"port": "80", "thisPod": "yes"}],
            "problems": [{"severity": "warning", "message": "something", "hint": "do this"}],
        });
        assert_eq!(report.to_json(), json);
    }
}
