//! Objects in files and in requests: what the CLI, the webhook and Pilot read and judge, with the same code.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::config::{Meant, Spec, Surroundings, check};
use crate::kinds::{self, Kind, Meaning};
use crate::kubernetes::basic;
use crate::model::{Key, Origin};
use crate::names::{CLASSIC_GROUP, CLASSIC_SYSTEM_NAMESPACE, DEFAULT_DOMAIN, GROUP, SYSTEM_NAMESPACE};
use crate::problem::{Location, NOT_IN_FORCE, Problem};
use crate::read::{Context, Read};
use crate::yaml::{self, Node, Value};

/// The namespace that is meant where none is named and nobody knows better.
const DEFAULT_NAMESPACE: &str = "default";

/// An object of a file, ours or Kubernetes'.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedObject {
    /// `apiVersion` as typed.
    pub api_version: String,
    /// `kind` as typed.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, if given.
    pub namespace: Option<String>,
    /// Where it begins.
    pub location: Option<Location>,
    /// The object as the API server gets it. One of ours is brought into its native form: our own group, camelCase,
    /// whatever was typed.
    pub json: Json,
    /// Its kind if it is one of ours.
    pub ours: Option<&'static Kind>,
    /// Whether nothing refuses it.
    pub is_accepted: bool,
}

impl ParsedObject {
    /// The object as messages name it, `RouteRule default/reviews`; without a namespace, `RouteRule reviews`.
    #[must_use]
    pub fn title(&self) -> String {
        title(&self.kind, self.namespace.as_deref(), &self.name)
    }
}

/// Reads and judges all objects of a text; `file` is the name that problems mention, `-` for stdin.
///
/// Every problem of every object is there, in the order of the text. Objects that have no kind or name are left out;
/// those with problems are there, marked as not accepted. Kinds that are not ours are looked at in passing only.
///
/// # Examples
///
/// ```
/// let text = "apiVersion: config.meshctl.io/v1alpha2
/// kind: RouteRule
/// metadata: {name: reviews}
/// spec:
///   destination: {name: reviews}
///   route:
///   - labels: {version: v1}
///     weigth: 90
/// ";
/// let (objects, problems) = api::object::validate_text("reviews.yaml", text);
/// assert_eq!(objects[0].title(), "RouteRule reviews");
/// assert_eq!(problems[0].to_string(), "reviews.yaml:8:5: unknown field `weigth` in `spec.route[0]`");
/// assert_eq!(problems[0].hint.as_deref(), Some("did you mean `weight`?"));
/// ```
#[must_use]
pub fn validate_text(file: &str, text: &str) -> (Vec<ParsedObject>, Vec<Problem>) {
    let mut judge = Judge::new(file);
    let mut objects = Vec::new();
    let of_text = yaml::each(file, text, |document| {
        judge.each(&document, |node, judged, place| objects.extend(Some(parsed(node, judged, place))));
    });
    (objects, judge.problems(of_text))
}

/// Judges the objects of a text while its documents are read one after the other, for who does more with them than that.
#[derive(Debug)]
pub struct Judge<'f> {
    file: &'f str,
    found: Vec<Problem>,
    is_empty: bool,
    first: BTreeMap<(String, String, Option<String>, String), Option<Location>>,
}

impl<'f> Judge<'f> {
    /// Begins with a text; `file` is the name that problems mention.
    #[must_use]
    pub fn new(file: &'f str) -> Self {
        Judge { file, found: Vec::new(), is_empty: true, first: BTreeMap::new() }
    }

    /// Judges the objects of a document.
    pub fn judge(&mut self, document: &Node) {
        self.each(document, |_, _, _| ());
    }

    /// All problems in the order of the text, of which `of_text` are those of the text itself.
    #[must_use]
    pub fn problems(self, mut of_text: Vec<Problem>) -> Vec<Problem> {
        of_text.extend(self.found);
        if self.is_empty && of_text.is_empty() {
            of_text.push(
                Problem::error("there is no object in here")
                    .at(Location { file: self.file.to_owned(), line: 1, column: 1 })
                    .with_hint("an object begins with `apiVersion:` and `kind:`"),
            );
        }
        of_text.sort_by_key(place);
        of_text
    }

    fn each(&mut self, document: &Node, mut take: impl FnMut(&Node, Judged, (Option<Location>, bool))) {
        self.is_empty = false;
        for node in items(document) {
            let mut context = Context::new(Some(self.file), node);
            let judged = judge(node, DEFAULT_DOMAIN, &mut context);
            let (at, is_sound) = (context.origin(), context.errors() == 0);
            self.found.extend(context.into_problems());
            if let Some(judged) = judged {
                let second = self.is_second(&judged.envelope, at.as_ref());
                let is_accepted = is_sound && second.is_none();
                self.found.extend(second);
                take(node, judged, (at, is_accepted));
            }
        }
    }

    /// Refuses an object that the text defines a second time.
    fn is_second(&mut self, object: &Envelope, at: Option<&Location>) -> Option<Problem> {
        let group = object.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let group = if group == CLASSIC_GROUP { GROUP } else { group };
        let namespace = kept_in(object);
        let id = (group.to_owned(), object.kind.clone(), namespace.map(str::to_owned), object.name.clone());
        let Some(before) = self.first.get(&id) else {
            self.first.insert(id, at.cloned());
            return None;
        };
        let title = title(&object.kind, namespace, &object.name);
        let line = before.as_ref().map_or(0, |location| location.line);
        let message = format!("{title} is here a second time; the first is on line {line}");
        let mut problem = Problem::error(message).in_object(title).with_hint("give it another name, or leave it out");
        problem.location = at.cloned();
        Some(problem)
    }
}

/// Judges one object as the API server has it; without problems for kinds that are not ours.
#[must_use]
pub fn validate_object(object: &Json) -> Vec<Problem> {
    let node = Node::from_json(object);
    let mut context = Context::new(None, &node);
    let _ = judge(&node, DEFAULT_DOMAIN, &mut context);
    context.into_problems()
}

/// Says what an object of one of our kinds means, or why it is refused.
///
/// `origin` overrides where the object came from; `domain` is the cluster's.
#[must_use]
pub fn mean(object: &Json, origin: &Origin, domain: &str) -> (Option<Meant>, Vec<Problem>) {
    let node = Node::from_json(object);
    let mut context = Context::new(None, &node);
    let judged = judge(&node, domain, &mut context);
    let mut problems = context.into_problems();
    if let Some(location) = &origin.location {
        for problem in &mut problems {
            problem.location.get_or_insert_with(|| location.clone());
        }
    }
    let mut meant = judged.and_then(|judged| judged.meant);
    match &mut meant {
        Some(Meant::RouteRule(rule)) => rule.origin = origin.clone(),
        Some(Meant::DestinationPolicy(policy)) => policy.origin = origin.clone(),
        Some(Meant::ServiceRole(role)) => role.origin = origin.clone(),
        Some(Meant::ServiceRoleBinding(binding)) => binding.origin = origin.clone(),
        Some(Meant::RbacConfig(config)) => config.origin = origin.clone(),
        Some(Meant::AuthenticationPolicy(policy)) => policy.origin = origin.clone(),
        Some(Meant::Rule(rule)) => rule.origin = origin.clone(),
        Some(Meant::Handler(_) | Meant::Instance(_)) => {}
        None => {}
    }
    (meant, problems)
}

/// The objects of a document: itself, or those that a `List` holds.
fn items(document: &Node) -> Vec<&Node> {
    match (document.field("kind").and_then(Node::text), document.field("items").map(|items| &items.value)) {
        (Some("List"), Some(Value::List(items))) => items.iter().collect(),
        _ => vec![document],
    }
}

fn place(problem: &Problem) -> (u32, u32) {
    problem.location.as_ref().map_or((0, 0), |location| (location.line, location.column))
}

/// What every object has.
struct Envelope {
    api_version: String,
    kind: String,
    name: String,
    namespace: Option<String>,
    meaning: Meaning,
}

/// What there is to say about an object.
struct Judged {
    envelope: Envelope,
    spec: Option<Spec>,
    meant: Option<Meant>,
}

fn parsed(node: &Node, judged: Judged, (location, is_accepted): (Option<Location>, bool)) -> ParsedObject {
    let Judged { envelope, spec, .. } = judged;
    let namespace = kept_in(&envelope).map(str::to_owned);
    let Envelope { api_version, kind, name, namespace: judged_in, meaning } = envelope;
    let ours = match meaning {
        Meaning::Ours(kind) => Some(kind),
        _ => None,
    };
    let mut json = match (ours, &spec) {
        (Some(kind), Some(spec)) => render(kind, node.field("metadata").map(Node::to_json).unwrap_or_default(), spec),
        _ => node.to_json(),
    };
    if namespace != judged_in {
        json["metadata"]["namespace"] = namespace.clone().into();
    }
    ParsedObject { api_version, kind, name, namespace, location, json, ours, is_accepted }
}

/// The namespace that an object is kept in, if it says one. What the classic files say of the whole mesh is kept where the mesh is, whose
/// system namespace has another name.
fn kept_in(object: &Envelope) -> Option<&str> {
    let namespace = object.namespace.as_deref();
    let is_of_mesh = |kind: &Kind| kind.is_of_mixer() || *kind == kinds::RBAC_CONFIG;
    match object.meaning {
        Meaning::Ours(kind)
            if namespace == Some(CLASSIC_SYSTEM_NAMESPACE) && is_of_mesh(kind) && is_classic(&object.api_version) =>
        {
            Some(SYSTEM_NAMESPACE)
        }
        _ => namespace,
    }
}

/// The object of that kind in its native form.
#[must_use]
pub fn render(kind: &Kind, metadata: Json, spec: &Spec) -> Json {
    let mut object = serde_json::Map::with_capacity(4);
    object.insert("apiVersion".to_owned(), kinds::api_version().into());
    object.insert("kind".to_owned(), kind.kind.into());
    object.insert("metadata".to_owned(), metadata);
    // A spec is plain data with text for names: it cannot fail to be JSON.
    object.insert("spec".to_owned(), serde_json::to_value(spec).unwrap_or_default());
    Json::Object(object)
}

/// Reads an object with `context` looking at its root; `None` when it is not even known which object it is.
fn judge<'a>(node: &'a Node, domain: &str, context: &mut Context<'a>) -> Option<Judged> {
    let envelope = envelope(node, context)?;
    let mut judged = Judged { envelope, spec: None, meant: None };
    let Envelope { api_version, kind, name, namespace, meaning } = &judged.envelope;
    match meaning {
        Meaning::Ours(ours) => {
            if !check::is_dns_name(name) {
                context.within("metadata", |context| {
                    context.within("name", |context| {
                        let message = format!("`name` is `{name}`, which cannot be the name of an object");
                        context.error_with_hint(message, "names have lower-case letters, digits, dashes and dots");
                    });
                });
            }
            let namespace = namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
            let origin = Origin { resource_version: String::new(), location: context.origin() };
            let around = Surroundings { key: Key { namespace, name: name.clone() }, origin, domain };
            if let Some(spec) = node.field("spec").filter(|spec| !spec.is_null()).or(nothing_to_say(ours)) {
                judged.spec = context.within("spec", |context| Spec::read(ours, spec, context));
                if let (Some(spec), true) = (&mut judged.spec, is_classic(api_version)) {
                    spec.in_own_namespace();
                }
                judged.meant = context.within("spec", |context| judged.spec.as_ref()?.mean(&around, context));
            } else {
                context.error_with_hint("`spec` is missing", format!("a {kind} says what it wants in `spec`"));
            }
            if !ours.in_force {
                context.within("kind", |context| {
                    context.error_with_hint(format!("the kind `{kind}` {NOT_IN_FORCE}"), "leave it out for now");
                });
            }
        }
        Meaning::Later => {
            context.within("kind", |context| {
                context.error_with_hint(
                    format!("the kind `{kind}` of `{api_version}` {NOT_IN_FORCE}"),
                    "leave it out for now",
                );
            });
        }
        Meaning::Unknown { meant } => context.within("kind", |context| {
            let message = format!("`{kind}` is not a kind of `{api_version}`");
            match meant {
                Some(meant) => context.error_with_hint(message, format!("did you mean `{meant}`?")),
                None => {
                    let known: Vec<_> = kinds::KINDS.iter().map(|kind| kind.kind).collect();
                    context.error_with_hint(message, format!("its kinds are {}", known.join(", ")));
                }
            }
        }),
        Meaning::UnknownVersion => context.within("apiVersion", |context| {
            let hint = format!("write `{}`", kinds::api_version());
            context.error_with_hint(format!("there is no version `{api_version}`"), hint);
        }),
        Meaning::Foreign => {
            if let Some(ours) = kinds::KINDS.iter().find(|ours| ours.kind == kind && !ours.is_of_mixer()) {
                context.within("apiVersion", |context| {
                    let message = format!("`{}` is not a kind of `{api_version}`", ours.kind);
                    context.error_with_hint(message, format!("write `apiVersion: {}`", kinds::api_version()));
                });
            }
            basic::check(kind, node, context);
        }
    }
    Some(judged)
}

/// What stands for a missing `spec` of kinds that have nothing in it.
fn nothing_to_say(kind: &Kind) -> Option<&'static Node> {
    static NOTHING: Node = Node { mark: None, value: Value::Map(Vec::new()) };
    (*kind == kinds::CHECK_NOTHING).then_some(&NOTHING)
}

fn is_classic(api_version: &str) -> bool {
    api_version.rsplit_once('/').is_some_and(|(group, _)| group == CLASSIC_GROUP)
}

/// Reads what every object has, and lets the context name the object.
fn envelope<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Envelope> {
    let mut fields = context.fields(node, "an object with `apiVersion` and `kind`")?;
    let api_version: Option<String> = fields.required("apiVersion");
    let kind: Option<String> = fields.required("kind");
    let metadata: Option<Metadata> = fields.required("metadata");
    let meaning = match (&api_version, &kind) {
        (Some(api_version), Some(kind)) => kinds::meaning(api_version, kind),
        _ => Meaning::Foreign,
    };
    if matches!(meaning, Meaning::Ours(_)) {
        fields.ignore("spec");
        fields.ignore("status");
        fields.end();
    }
    let (api_version, kind, metadata) = (api_version?, kind?, metadata?);
    let name = metadata.name?;
    context.name_object(title(&kind, metadata.namespace.as_deref(), &name));
    Some(Envelope { api_version, kind, name, namespace: metadata.namespace, meaning })
}

/// The part of `metadata` that is looked at.
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

impl Read for Metadata {
    const WHAT: &'static str = "a mapping with `name`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let (name, namespace) = (fields.required("name"), fields.optional("namespace"));
        let _: Option<BTreeMap<String, String>> = fields.optional("labels");
        let _: Option<BTreeMap<String, String>> = fields.optional("annotations");
        Some(Metadata { name, namespace })
    }
}

fn title(kind: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests;
