//! Ingresses whose TLS passes through to their services.
//!
//! Nothing of a request is seen inside TLS but the server's name in the clear, so that is all that such an Ingress can
//! choose by. What it says beyond that is refused: it would look as if it were heeded.

use crate::kubernetes::{Ingress, Path, PathType, Rule};
use crate::model::{self, Passthrough};
use crate::problem::Problem;
use crate::registry::Registry;

impl Registry {
    /// Takes the servers of an Ingress whose TLS passes through, and says what is wrong with them.
    pub(super) fn servers(&self, ingress: &Ingress, meant: &mut model::Ingress) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, rule) in ingress.spec.rules.iter().enumerate() {
            let read = || -> Result<Passthrough, (&str, Box<Problem>)> {
                let server_name = server_name(rule).map_err(|problem| ("host", problem))?;
                let path = only_path(rule).map_err(|problem| ("http.paths", problem))?;
                let back_end = self.backend(&path.backend, &meant.key);
                let (service, port) = back_end.map_err(|problem| ("http.paths[0]", problem))?;
                Ok(Passthrough { server_name, service, port })
            };
            match read() {
                Ok(server) => meant.passthrough.push(server),
                Err((field, problem)) => problems.push(problem.in_field(format!("spec.rules[{index}].{field}"))),
            }
        }
        if ingress.spec.default_backend.is_some() {
            let problem = Problem::error("an Ingress whose TLS passes through has no default back end");
            let problem = problem.with_hint("name the servers; what asks for any other is closed");
            problems.push(problem.in_field("spec.defaultBackend"));
        }
        problems
    }
}

/// The server name that a rule is about, checked to be one: a listener with a wrong one would be refused as a whole.
fn server_name(rule: &Rule) -> Result<String, Box<Problem>> {
    let name = rule.host.trim_end_matches('.').to_ascii_lowercase();
    if name.is_empty() {
        let problem =
            Problem::error("a rule whose TLS passes through needs a host: nothing else tells connections apart");
        return Err(Box::new(
            problem.with_hint("write `host: shop.example.com`, or `*.example.com` for all names below"),
        ));
    }
    let is_label = |label: &str| {
        let is_end = |end: Option<char>| end.is_some_and(|char| char.is_ascii_alphanumeric() || char == '_');
        label.len() <= 63
            && is_end(label.chars().next())
            && is_end(label.chars().next_back())
            && label.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'))
    };
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    if name.len() > 253 || !labels.split('.').all(is_label) || labels.parse::<std::net::IpAddr>().is_ok() {
        let problem = Problem::error(format!("`{}` is no server name that a client of TLS could ask for", rule.host));
        return Err(Box::new(problem.with_hint("a name of DNS, of which the first label may be `*`")));
    }
    Ok(name)
}

/// The one path of a rule, which is about everything.
fn only_path(rule: &Rule) -> Result<&Path, Box<Problem>> {
    let hint = "write one path `/` of type Prefix, or none of type ImplementationSpecific";
    match rule.http.paths.as_slice() {
        [path] if path.path_type != PathType::Exact && matches!(path.path.as_str(), "" | "/" | "/.*") => Ok(path),
        [] => Err(Box::new(Problem::error("the rule has no back end").with_hint(hint))),
        _ => Err(Box::new(Problem::error("paths cannot be seen inside TLS that passes through").with_hint(hint))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Mesh;
    use crate::registry::Resource;

    fn rule(host: &str, path: &str, kind: &str) -> Value {
        let backend = json!({"service": {"name": "shop", "port": {"number": 443}}});
        json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}})
    }

    /// What an Ingress means, as `server_name → service:port`, and what is wrong with it.
    fn read(annotation: (&str, &str), spec: &Value) -> (Vec<String>, Vec<String>) {
        let mut registry = Registry::new(Mesh::default());
        let mut object = json!({
            "metadata": {"name": "in", "namespace": "default", "annotations": {annotation.0: annotation.1}},
            "spec": {"ingressClassName": "mesh"},
        });
        for (field, value) in spec.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        let problems = registry.apply(Resource::Ingress, &object);
        let problems = problems.iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
        let ingress = registry.model().ingresses.values().next().expect("it is there whatever is wrong with it");
        assert!(ingress.rules.is_empty() || ingress.passthrough.is_empty(), "one or the other");
        let shown = |it: &Passthrough| format!("{} → {}:{}", it.server_name, it.service, it.port);
        (ingress.passthrough.iter().map(shown).collect(), problems)
    }

    const OURS: (&str, &str) = ("ingress.meshctl.io/ssl-passthrough", "true");

    #[test]
    fn tls_passes_by_the_servers_name_alone() {
        let rules = json!({"rules": [rule("Shop.Example.com.", "/", "Prefix"), rule("*.example.com", "", "ImplementationSpecific")]});
        let nginx = ("nginx.ingress.kubernetes.io/ssl-passthrough", "true");
        for annotation in [OURS, nginx] {
            let (servers, problems) = read(annotation, &rules);
            assert_eq!(problems, [] as [String; 0]);
            assert_eq!(
                servers,
                [
                    "shop.example.com → shop.default.svc.cluster.local:443",
                    "*.example.com → shop.default.svc.cluster.local:443",
                ]
            );
        }
        let off = ("ingress.meshctl.io/ssl-passthrough", "false");
        assert_eq!(read(off, &rules), (vec![], vec![]), "HTTP, as without the annotation");
    }

    #[test]
    fn what_cannot_be_heeded_is_refused_and_disables_nothing_else() {
        let good = rule("shop.example.com", "/", "Prefix");
        let no_host =
            "spec.rules[1].host: a rule whose TLS passes through needs a host: nothing else tells connections apart";
        let paths = "spec.rules[1].http.paths: paths cannot be seen inside TLS that passes through";
        let name =
            |name: &str| format!("spec.rules[1].host: `{name}` is no server name that a client of TLS could ask for");
        for (wrong, expected) in [
            (rule("", "/", "Prefix"), no_host.to_owned()),
            (rule("a.example", "/login", "Prefix"), paths.to_owned()),
            (rule("a.example", "/", "Exact"), paths.to_owned()),
            (json!({"host": "a.example"}), "spec.rules[1].http.paths: the rule has no back end".to_owned()),
            (rule("*", "/", "Prefix"), name("*")),
            (rule("a.*.example", "/", "Prefix"), name("a.*.example")),
            (rule("10.0.0.1", "/", "Prefix"), name("10.0.0.1")),
            (rule("a..example", "/", "Prefix"), name("a..example")),
            (rule("-a.example", "/", "Prefix"), name("-a.example")),
            (rule("a.example:443", "/", "Prefix"), name("a.example:443")),
        ] {
            let (servers, problems) = read(OURS, &json!({"rules": [good, wrong]}));
            assert_eq!((servers.len(), problems), (1, vec![expected]));
        }
        let backend = json!({"service": {"name": "shop", "port": {"number": 443}}});
        let (servers, problems) = read(OURS, &json!({"rules": [good], "defaultBackend": backend}));
        assert_eq!(servers.len(), 1);
        assert_eq!(problems, ["spec.defaultBackend: an Ingress whose TLS passes through has no default back end"]);
        let (servers, problems) = read((OURS.0, "yes"), &json!({"rules": [good]}));
        assert_eq!(servers, [] as [String; 0], "neither way is it guessed");
        assert_eq!(
            problems,
            ["metadata.annotations[ingress.meshctl.io/ssl-passthrough]: `yes` is neither `true` nor `false`"]
        );
    }

    #[test]
    fn tls_that_would_end_at_the_gateway_is_said_not_to() {
        let spec =
            json!({"rules": [rule("a.example", "/", "Prefix")], "tls": [{"hosts": ["a.example"], "secretName": "a"}]});
        let (_, problems) = read(("x", "y"), &spec);
        assert_eq!(problems, ["spec.tls: TLS that ends at the gateway is understood but not in force yet"]);
        assert_eq!(read(OURS, &spec).1, [] as [String; 0], "the service has the certificate");
    }
}
