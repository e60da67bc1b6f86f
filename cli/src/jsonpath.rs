//! kubectl's JSONPath templates: `{.items[*].metadata.name}{"\n"}`, `{range .items[*]}…{end}`.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Deep(String),
    Filter { path: Vec<Step>, test: Option<(Comparison, Value)> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a template cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`.
    #[error("jsonpath template: `{{` without `}}`")]
    Unclosed,
    /// `[` without `]`.
    #[error("jsonpath template: `[` without `]` in `{0}`")]
    UnclosedBracket(String),
    /// `{range …}` without `{end}`, or the other way round.
    #[error("jsonpath template: `{{range}}` and `{{end}}` do not pair up")]
    Unpaired,
    /// Something that no path consists of.
    #[error("jsonpath template: cannot read `{0}`")]
    Unreadable(String),
}

impl Template {
    /// Reads a template. Text without any brace is taken as one path.
    ///
    /// # Errors
    /// When it is no template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if !text.contains('{') {
            return Ok(Template(vec![Part::Path(path(text)?)]));
        }
        let mut open: Vec<(Vec<Step>, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inner = &rest[start + 1..];
            let end = closing_brace(inner).ok_or(TemplateError::Unclosed)?;
            let expression = inner[..end].trim();
            rest = &inner[end + 1..];
            if expression == "end" {
                let (over, outer) = open.pop().ok_or(TemplateError::Unpaired)?;
                let body = std::mem::replace(&mut parts, outer);
                parts.push(Part::Range(over, body));
            } else if let Some(over) = expression.strip_prefix("range ") {
                open.push((path(over.trim())?, std::mem::take(&mut parts)));
            } else if let Some(literal) = quoted(expression) {
                parts.push(Part::Text(literal));
            } else {
                parts.push(Part::Path(path(expression)?));
            }
        }
        if !open.is_empty() {
            return Err(TemplateError::Unpaired);
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template(parts))
    }

    /// What the template selects from `root`, as text. Fields that are not there select nothing.
    #[must_use]
    pub fn render(&self, root: &Value) -> String {
        let mut text = String::new();
        render(&self.0, root, &mut text);
        text
    }
}

fn render(parts: &[Part], at: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(steps) => {
                let found: Vec<String> = select(steps, at).into_iter().map(scalar).collect();
                text.push_str(&found.join(" "));
            }
            Part::Range(over, body) => select(over, at).into_iter().for_each(|item| render(body, item, text)),
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn select<'a>(steps: &[Step], at: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![at];
    for step in steps {
        found = found.into_iter().flat_map(|value| step.select(value)).collect();
    }
    found
}

impl Step {
    fn select<'a>(&self, at: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => at.get(name).into_iter().collect(),
            Step::Index(index) => {
                at.as_array().and_then(|list| list.get(place(*index, list.len())?)).into_iter().collect()
            }
            Step::Slice(from, to) => {
                let Some(list) = at.as_array() else { return Vec::new() };
                let bound = |index: i64| place(index, list.len()).unwrap_or(list.len()).min(list.len());
                let (from, to) = (from.map_or(0, bound), to.map_or(list.len(), bound));
                list.get(from..to).unwrap_or_default().iter().collect()
            }
            Step::All => children(at),
            Step::Deep(name) => {
                let mut found: Vec<&Value> = at.get(name).into_iter().collect();
                children(at).into_iter().for_each(|child| found.extend(self.select(child)));
                found
            }
            Step::Filter { path, test } => children(at)
                .into_iter()
                .filter(|item| {
                    let found = select(path, item);
                    match test {
                        None => !found.is_empty(),
                        Some((comparison, wanted)) => {
                            found.first().is_some_and(|value| comparison.holds(value, wanted))
                        }
                    }
                })
                .collect(),
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

impl Comparison {
    fn holds(self, value: &Value, wanted: &Value) -> bool {
        let order = match (value.as_f64(), wanted.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => Some(scalar(value).cmp(&scalar(wanted))),
        };
        order.is_some_and(|order| match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        })
    }
}

/// Where the brace that closes an expression stands; braces in quotes do not count.
fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(q), _) if q == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

/// The text of a quoted literal, its escapes resolved.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' => plain.push('\n'),
                't' => plain.push('\t'),
                'r' => plain.push('\r'),
                other => plain.push(other),
            },
            _ => plain.push(c),
        }
    }
    Some(plain)
}

fn path(text: &str) -> Result<Vec<Step>, TemplateError> {
    let mut steps = Vec::new();
    let mut chars = text.chars().peekable();
    if matches!(chars.peek(), Some('$' | '@')) {
        chars.next();
    }
    while let Some(c) = chars.next() {
        match c {
            '.' if chars.peek() == Some(&'.') => {
                chars.next();
                steps.push(Step::Deep(name(&mut chars)));
            }
            '.' if chars.peek() == Some(&'[') || chars.peek().is_none() => {}
            '.' => match name(&mut chars) {
                name if name == "*" => steps.push(Step::All),
                name if name.is_empty() => return Err(TemplateError::Unreadable(text.to_owned())),
                name => steps.push(Step::Field(name)),
            },
            '[' => {
                let inner = bracket(&mut chars).ok_or_else(|| TemplateError::UnclosedBracket(text.to_owned()))?;
                steps.push(subscript(inner.trim())?);
            }
            _ if steps.is_empty() && (c.is_alphanumeric() || c == '_') => {
                steps.push(Step::Field(format!("{c}{}", name(&mut chars))));
            }
            _ => return Err(TemplateError::Unreadable(text.to_owned())),
        }
    }
    Ok(steps)
}

fn name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(&c) = chars.peek() {
        if matches!(c, '.' | '[' | ' ') {
            break;
        }
        chars.next();
        name.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    name
}

fn bracket(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let (mut inner, mut depth, mut quote) = (String::new(), 0, None);
    for c in chars.by_ref() {
        match (quote, c) {
            (Some(q), _) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(inner),
            (None, ']') => depth -= 1,
            _ => {}
        }
        inner.push(c);
    }
    None
}

fn subscript(inner: &str) -> Result<Step, TemplateError> {
    let unreadable = || TemplateError::Unreadable(format!("[{inner}]"));
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = quoted(inner) {
        return Ok(Step::Field(name));
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter(condition.trim());
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| unreadable());
    match inner.split_once(':') {
        Some((from, to)) => {
            let bound = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
            Ok(Step::Slice(bound(from)?, bound(to)?))
        }
        None => number(inner).map(Step::Index),
    }
}

fn filter(condition: &str) -> Result<Step, TemplateError> {
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (sign, comparison) in operators {
        if let Some((left, right)) = condition.split_once(sign) {
            let right = right.trim();
            let wanted = match quoted(right) {
                Some(text) => Value::String(text),
                None => serde_json::from_str(right).map_err(|_| TemplateError::Unreadable(right.to_owned()))?,
            };
            return Ok(Step::Filter { path: path(left.trim())?, test: Some((comparison, wanted)) });
        }
    }
    Ok(Step::Filter { path: path(condition)?, test: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> String {
        let list = json!({ "items": [
            { "metadata": { "name": "a", "labels": { "meshctl.io/rev": "x" } }, "n": 1, "on": true },
            { "metadata": { "name": "b" }, "n": 20 },
        ]});
        Template::parse(template).map_or_else(|e| e.to_string(), |t| t.render(&list))
    }

    #[test]
    fn templates_select_what_kubectl_selects() {
        for (template, expected) in [
            ("{.items[*].metadata.name}", "a b"),
            (".items[0].metadata.name", "a"),
            ("{.items[-1].n}", "20"),
            ("{.items[0:1].n}", "1"),
            ("{range .items[*]}{.metadata.name}={.n}{\"\\n\"}{end}", "a=1\nb=20\n"),
            ("{.items[?(@.n>5)].metadata.name}", "b"),
            ("{.items[?(@.metadata.name==\"a\")].n}", "1"),
            ("{.items[?(@.on)].n}", "1"),
            ("{.items[0].metadata.labels.meshctl\\.io/rev}", "x"),
            ("{.items[0].metadata.labels['meshctl.io/rev']}", "x"),
            ("{..name}", "a b"),
            ("{.nothing}", ""),
            ("{.items[0].metadata}", r#"{"name":"a","labels":{"meshctl.io/rev":"x"}}"#),
            ("{.items", "jsonpath template: `{` without `}`"),
            ("{range .items[*]}x", "jsonpath template: `{range}` and `{end}` do not pair up"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }
}
