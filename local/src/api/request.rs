//! What a request asks for: its path, its query, and the form of the answer.

use std::sync::Arc;

use http::HeaderMap;
use http::header::ACCEPT;
use percent_encoding::percent_decode_str;

use super::classic::View;
use super::resources::{Resource, Resources};
use super::{ApiError, ApiResult, Reason, Selection};

/// What a path stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// `/version`.
    Version,
    /// `/healthz` and its like.
    Health,
    /// `/api`.
    Core,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// `/openapi/…`.
    OpenApi(String),
    /// A question that is answered and not kept, as a TokenReview: its plural.
    Review(String),
    /// Objects.
    Objects(Target),
}

/// Which objects, or which part of one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) resource: Arc<Resource>,
    /// How the caller sees the objects.
    pub(super) view: View,
    /// API group in the path, for authorisation.
    pub(super) group: String,
    /// Empty for the cluster, or for all namespaces.
    pub(super) namespace: String,
    /// Empty for the collection.
    pub(super) name: String,
    pub(super) subresource: String,
}

/// Groups and plurals of the questions that are answered and not kept.
pub(super) const REVIEWS: &[(&str, &str, &str)] = &[
    ("authentication.k8s.io", "tokenreviews", "TokenReview"),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
];

impl Place {
    /// Finds out what a path stands for.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) fn parse(resources: &Resources, path: &str) -> ApiResult<Self> {
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| unknown(path))?;
        let segments: Vec<&str> = decoded.split('/').filter(|it| !it.is_empty()).collect();
        match segments.as_slice() {
            ["version"] => Ok(Self::Version),
            ["healthz" | "livez" | "readyz", ..] => Ok(Self::Health),
            ["api"] => Ok(Self::Core),
            ["apis"] => Ok(Self::Groups),
            ["openapi", rest @ ..] => Ok(Self::OpenApi(rest.join("/"))),
            ["api", "v1"] => Ok(Self::GroupVersion(String::new(), "v1".into())),
            ["api", version, rest @ ..] => Self::objects(resources, "", version, rest).ok_or_else(|| unknown(path)),
            ["apis", group] => Ok(Self::Group((*group).to_owned())),
            ["apis", group, version] => Ok(Self::GroupVersion((*group).to_owned(), (*version).to_owned())),
            ["apis", group, version, rest @ ..] => {
                Self::objects(resources, group, version, rest).ok_or_else(|| unknown(path))
            }
            _ => Err(unknown(path)),
        }
    }

    fn objects(resources: &Resources, group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        if let [plural] = rest
            && version == "v1"
            && REVIEWS.iter().any(|(in_group, known, _)| *in_group == group && known == plural)
        {
            return Some(Self::Review((*plural).to_owned()));
        }
        let (namespace, rest) = match rest {
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, "", String::new()),
            [plural, name] => (plural, *name, String::new()),
            [plural, name, subresource] => (plural, *name, (*subresource).to_owned()),
            _ => return None,
        };
        let (resource, view) = View::find(resources, group, version, plural)?;
        // Objects of the cluster are in no namespace; single objects of namespaces are in one.
        if resource.namespaced == namespace.is_empty() && (!resource.namespaced || !name.is_empty()) {
            return None;
        }
        let own = |text: &str| text.to_owned();
        let target =
            Target { resource, view, group: own(group), namespace: own(namespace), name: own(name), subresource };
        Some(Self::Objects(target))
    }
}

fn unknown(path: &str) -> ApiError {
    ApiError::new(
        Reason::NotFound,
        format!("the server could not find the requested resource: {path} is not served here"),
    )
}

/// The query, decoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|it| !it.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(found, _)| found == key).map(|(_, value)| value.clone()).collect()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.0.iter().any(|(found, value)| found == key && matches!(value.as_str(), "true" | "1" | "True" | ""))
    }

    pub(super) fn number(&self, key: &str) -> ApiResult<Option<u64>> {
        self.get(key)
            .map(|text| text.parse().map_err(|_| ApiError::bad_request(format!("{key}: \"{text}\" is not a number"))))
            .transpose()
    }

    /// Whether nothing is to be changed.
    pub(super) fn dry_run(&self) -> ApiResult<bool> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                Err(ApiError::bad_request(format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\"")))
            }
        }
    }

    /// The objects that selectors in the query leave over.
    pub(super) fn selection(&self, target: &Target) -> ApiResult<Selection> {
        let mut selection = match target.namespace.as_str() {
            "" => Selection::all(),
            namespace => Selection::namespace(namespace),
        };
        if let Some(labels) = self.get("labelSelector") {
            selection = selection.with_labels(labels)?;
        }
        if let Some(fields) = self.get("fieldSelector") {
            selection = selection.with_fields(&target.resource.key(), fields)?;
        }
        Ok(selection)
    }
}

/// The form in which objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Whole,
    /// As a table for people.
    Table,
    /// Only their metadata.
    Metadata,
}

impl Form {
    /// The first acceptable form in the `Accept` header that is known here.
    pub(super) fn of(headers: &HeaderMap) -> ApiResult<Self> {
        let accept = headers.get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or("*/*");
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameter = |key: &str| range.split(';').map(str::trim).find_map(|it| it.strip_prefix(key));
            match (media, parameter("as=")) {
                ("application/json", Some("Table")) => return Ok(Self::Table),
                ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    return Ok(Self::Metadata);
                }
                ("application/json" | "application/*" | "*/*" | "text/plain", None) => return Ok(Self::Whole),
                _ => {}
            }
        }
        Err(ApiError::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, and application/json;as=Table;v=v1;g=meta.k8s.io",
        ))
    }

    /// Whether the caller wants the aggregated discovery document.
    pub(super) fn is_aggregated_discovery(headers: &HeaderMap) -> bool {
        let accept = headers.get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
        accept.split(',').any(|range| {
            let mut parameters = range.split(';').map(str::trim);
            let has = |wanted: &str| range.split(';').any(|it| it.trim() == wanted);
            parameters.next() == Some("application/json") && has("as=APIGroupDiscoveryList") && has("v=v2")
        })
    }
}

/// For the fuzzer: the first line is a path with its query, the second what the client accepts. What is understood
/// selects, or does not select, without a panic.
pub fn fuzz(bytes: &[u8]) {
    thread_local! {
        static RESOURCES: Resources = Resources::built_in();
    }
    let text = String::from_utf8_lossy(bytes);
    let (asked, accepts) = text.split_once('\n').unwrap_or((&text, ""));
    let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
    let mut headers = HeaderMap::new();
    if let Ok(accepts) = accepts.parse() {
        headers.insert(ACCEPT, accepts);
    }
    let _ = (Form::of(&headers), Form::is_aggregated_discovery(&headers));
    let query = Query::parse(query);
    let _ = (query.number("limit"), query.flag("watch"), query.dry_run(), query.all("command"));
    RESOURCES.with(|resources| {
        if let Ok(Place::Objects(target)) = Place::parse(resources, path)
            && let Ok(selection) = query.selection(&target)
        {
            let object =
                serde_json::json!({"metadata": {"name": "a", "namespace": target.namespace, "labels": {"app": "a"}}});
            let _ = selection.matches(&object);
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_stand_for_what_they_stand_for_in_kubernetes() {
        let resources = Resources::built_in();
        let found = |path: &str| match Place::parse(&resources, path) {
            Ok(Place::Objects(it)) => format!("{} {}/{} {}", it.resource.key(), it.namespace, it.name, it.subresource),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.status_code().to_string(),
        };
        for (path, expected) in [
            ("/api/v1/pods", "pods / "),
            ("/api/v1/namespaces/a/pods/b/log", "pods a/b log"),
            ("/api/v1/namespaces/a", "namespaces /a "),
            ("/api/v1/namespaces/a/status", "namespaces /a status"),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", "deployments.apps a/b scale"),
            ("/apis/extensions/v1beta1/namespaces/a/ingresses", "ingresses.networking.k8s.io a/ "),
            ("/apis/events.k8s.io/v1/namespaces/a/events", "events a/ "),
            ("/api/v1/pods/b", "404"),
            ("/api/v1/namespaces/a/nodes/b", "404"),
            ("/api/v1/nodes/b", "nodes /b "),
            ("/apis/apps/v2/deployments", "404"),
            ("/apis/authentication.k8s.io/v1/tokenreviews", "Review(\"tokenreviews\")"),
            ("/%ff", "404"),
        ] {
            assert_eq!(found(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_request_line_panics(path in "(/(api|apis|v1|apps|namespaces|pods|log|%[0-9a-f]{2}|[a-z./%]{0,6})){0,8}", query in ".{0,60}") {
            let resources = Resources::built_in();
            let query = Query::parse(&query);
            let _ = query.number("limit");
            if let Ok(Place::Objects(target)) = Place::parse(&resources, &path) {
                let _ = query.selection(&target);
            }
        }

        #[test]
        fn no_selector_panics(text in "[a-z=!<>,() in]{0,40}", any in ".{0,40}") {
            for text in [&text, &any] {
                let _ = Selection::all().with_labels(text);
                let _ = Selection::all().with_fields("pods", text);
            }
        }
    }
}
