//! Label and field selectors.

use serde_json::Value;

use super::{ApiError, ApiResult, object};

/// Which objects of a resource are meant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// Only in that namespace; all if `None`.
    pub namespace: Option<String>,
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq)]
enum LabelTerm {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

#[derive(Debug, Clone, PartialEq)]
struct FieldTerm {
    pointers: Vec<String>,
    value: String,
    equal: bool,
}

impl Selection {
    /// All objects of a resource.
    pub fn all() -> Self {
        Self::default()
    }

    /// All objects of a resource in one namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// Adds a label selector as clients write it: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// When the text is not a selector.
    pub fn with_labels(mut self, text: &str) -> ApiResult<Self> {
        for term in split_terms(text) {
            self.labels.push(label_term(term)?);
        }
        Ok(self)
    }

    /// Adds a selector as objects write it: `{matchLabels, matchExpressions}`.
    ///
    /// # Errors
    /// When an operator is not known.
    pub fn with_label_selector(mut self, selector: &Value) -> ApiResult<Self> {
        if let Some(labels) = selector["matchLabels"].as_object() {
            self = self.with_map(labels);
        }
        for expression in object::array(selector, "/matchExpressions") {
            let key = object::text(expression, "/key").to_owned();
            let values =
                || object::array(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            self.labels.push(match object::text(expression, "/operator") {
                "In" => LabelTerm::In(key, values()),
                "NotIn" => LabelTerm::NotIn(key, values()),
                "Exists" => LabelTerm::Exists(key),
                "DoesNotExist" => LabelTerm::Missing(key),
                other => {
                    return Err(ApiError::bad_request(format!("\"{other}\" is not a valid label selector operator")));
                }
            });
        }
        Ok(self)
    }

    /// Adds labels that must all be there, as a Service's `spec.selector`.
    #[must_use]
    pub fn with_map(mut self, labels: &serde_json::Map<String, Value>) -> Self {
        for (key, value) in labels {
            self.labels.push(LabelTerm::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()]));
        }
        self
    }

    /// Adds a field selector: `metadata.name=x,status.phase!=Running`.
    ///
    /// # Errors
    /// When the text is not a selector, or names a field that cannot be selected by.
    pub fn with_fields(mut self, resource: &str, text: &str) -> ApiResult<Self> {
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (field, value, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid field selector \"{term}\": expected FIELD=VALUE or FIELD!=VALUE"
                )));
            };
            let pointers = field_pointers(resource, field)
                .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {field}")))?;
            self.fields.push(FieldTerm { pointers, value: value.to_owned(), equal });
        }
        Ok(self)
    }

    /// Whether an object is one of those meant.
    pub fn matches(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object::namespace(object) == namespace)
            && self.labels.iter().all(|term| term.matches(object))
            && self.fields.iter().all(|term| term.matches(object))
    }
}

impl LabelTerm {
    fn matches(&self, object: &Value) -> bool {
        let has = |key: &str| object::label(object, key);
        match self {
            Self::In(key, values) => has(key).is_some_and(|value| values.iter().any(|it| it == value)),
            Self::NotIn(key, values) => has(key).is_none_or(|value| values.iter().all(|it| it != value)),
            Self::Exists(key) => has(key).is_some(),
            Self::Missing(key) => has(key).is_none(),
        }
    }
}

impl FieldTerm {
    fn matches(&self, object: &Value) -> bool {
        let found = self.pointers.iter().find_map(|pointer| match object.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        });
        (found.unwrap_or_default() == self.value) == self.equal
    }
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn label_term(term: &str) -> ApiResult<LabelTerm> {
    let wrong = || ApiError::bad_request(format!("unable to parse requirement: \"{term}\" is not a label selector"));
    let key = |key: &str| {
        let key = key.trim();
        let valid = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if valid { Ok(key.to_owned()) } else { Err(wrong()) }
    };
    let set = |values: &str| -> ApiResult<Vec<String>> {
        let inner = values.trim().strip_prefix('(').and_then(|it| it.strip_suffix(')')).ok_or_else(wrong)?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((name, values)) = term.split_once(" notin ") {
        return Ok(LabelTerm::NotIn(key(name)?, set(values)?));
    }
    if let Some((name, values)) = term.split_once(" in ") {
        return Ok(LabelTerm::In(key(name)?, set(values)?));
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(LabelTerm::NotIn(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(LabelTerm::In(key(name)?, vec![value.trim().to_owned()]));
    }
    match term.strip_prefix('!') {
        Some(name) => Ok(LabelTerm::Missing(key(name)?)),
        None => Ok(LabelTerm::Exists(key(term)?)),
    }
}

fn field_pointers(resource: &str, field: &str) -> Option<Vec<String>> {
    let direct = match (resource, field) {
        (_, "metadata.name" | "metadata.namespace") => true,
        (
            "pods",
            "spec.nodeName" | "status.phase" | "spec.restartPolicy" | "spec.serviceAccountName" | "status.podIP",
        ) => true,
        ("namespaces", "status.phase") | ("secrets", "type") | ("nodes", "spec.unschedulable") => true,
        ("events", _) => {
            field.starts_with("involvedObject.") || matches!(field, "reason" | "type" | "reportingComponent" | "source")
        }
        _ => false,
    };
    let pointer = |field: &str| format!("/{}", field.replace('.', "/"));
    match (resource, field) {
        ("events", "source") => Some(vec!["/source/component".into(), "/reportingComponent".into()]),
        _ if direct => Some(vec![pointer(field)]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_match_as_clients_expect() {
        let object = json!({"metadata": {"labels": {"app": "reviews", "version": "v1"}}});
        for (text, expected) in [
            ("app=reviews", true),
            ("app==reviews,version!=v2", true),
            ("app in (ratings, reviews)", true),
            ("app notin (reviews)", false),
            ("version,!canary", true),
            ("canary", false),
            ("canary!=yes", true),
            ("", true),
        ] {
            let selection = Selection::all().with_labels(text).expect("a selector");
            assert_eq!(selection.matches(&object), expected, "{text}");
        }
        for text in ["app in reviews", "a b", "=x"] {
            assert!(Selection::all().with_labels(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_match_known_fields_and_refuse_others() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "local"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("metadata.name=a", true),
            ("spec.nodeName=local,status.phase!=Pending", true),
            ("status.phase=Pending", false),
            ("spec.nodeName!=local", false),
        ] {
            assert_eq!(Selection::all().with_fields("pods", text).expect(text).matches(&pod), expected, "{text}");
        }
        assert!(Selection::all().with_fields("pods", "spec.color=red").is_err());
        assert!(Selection::all().with_fields("services", "status.phase=x").is_err());
    }
}
