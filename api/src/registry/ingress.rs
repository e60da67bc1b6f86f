//! Ingresses of the mesh's class.

use std::num::NonZeroU16;

use super::{Id, Registry, Resource, put_shared};
use crate::kubernetes::{Backend, Ingress, Path, PathType, PortRef};
use crate::model::{self, IngressPath, IngressRule, Key, Origin};
use crate::problem::{NOT_IN_FORCE, Problem};

mod passthrough;

impl Registry {
    pub(super) fn take_ingress(&mut self, id: &Id, ingress: Option<(Ingress, Origin)>) {
        match ingress.filter(|(ingress, _)| ingress.is_ours()) {
            Some(ingress) => {
                self.ingresses.insert(id.key.clone(), ingress);
            }
            None => {
                self.ingresses.remove(&id.key);
            }
        }
        self.update_ingress(&id.key);
    }

    /// Looks again at the ingresses that could lead to a service: its ports may be known by other numbers now.
    pub(super) fn update_ingresses_of(&mut self, service: &Key) {
        let concerned: Vec<Key> = self
            .ingresses
            .iter()
            .filter(|(key, _)| key.namespace == service.namespace)
            .filter(|(_, (ingress, _))| {
                backends(ingress).any(|backend| backend.target().is_some_and(|(name, _)| name == service.name))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in concerned {
            self.update_ingress(&key);
        }
    }

    fn update_ingress(&mut self, key: &Key) {
        let id = Id { resource: Resource::Ingress, key: key.clone() };
        let Some((ingress, origin)) = self.ingresses.get(key) else {
            self.problems.remove(&id);
            let changed = put_shared(&mut self.model.ingresses, key, None);
            self.generation += u64::from(changed);
            return;
        };
        let mut meant =
            model::Ingress { key: key.clone(), origin: origin.clone(), rules: Vec::new(), passthrough: Vec::new() };
        let mut problems = match ingress.passes_tls() {
            Ok(true) => self.servers(ingress, &mut meant),
            Ok(false) => self.paths(ingress, &mut meant),
            Err((annotation, value)) => {
                let problem = Problem::error(format!("`{value}` is neither `true` nor `false`"));
                vec![problem.in_field(format!("metadata.annotations[{annotation}]"))]
            }
        };
        for problem in &mut problems {
            problem.object = Some(format!("Ingress {key}"));
            problem.location.clone_from(&origin.location);
        }
        if problems.is_empty() {
            self.problems.remove(&id);
        } else {
            self.problems.insert(id, problems);
        }
        let changed = put_shared(&mut self.model.ingresses, key, Some(meant));
        self.generation += u64::from(changed);
    }

    /// Takes the paths of an Ingress for HTTP, and says what is wrong with them.
    fn paths(&self, ingress: &Ingress, meant: &mut model::Ingress) -> Vec<Problem> {
        let (key, rules) = (&meant.key, &mut meant.rules);
        let mut problems = Vec::new();
        for (index, rule) in ingress.spec.rules.iter().enumerate() {
            for (place, path) in rule.http.paths.iter().enumerate() {
                let field = format!("spec.rules[{index}].http.paths[{place}]");
                match self.backend(&path.backend, key) {
                    Ok((service, port)) => {
                        let host = Some(rule.host.trim_end_matches('.').to_ascii_lowercase());
                        let host = host.filter(|host| !host.is_empty());
                        rules.push(IngressRule { host, path: compare(path), service, port });
                    }
                    Err(problem) => problems.push(problem.in_field(field)),
                }
            }
        }
        if let Some(backend) = &ingress.spec.default_backend {
            match self.backend(backend, key) {
                Ok((service, port)) => {
                    rules.push(IngressRule { host: None, path: IngressPath::Text("/".to_owned()), service, port });
                }
                Err(problem) => problems.push(problem.in_field("spec.defaultBackend")),
            }
        }
        if !ingress.spec.tls.is_empty() {
            let problem = Problem::warning(format!("TLS that ends at the gateway {NOT_IN_FORCE}")).in_field("spec.tls");
            problems.push(problem.with_hint("the Ingress is served in clear text, on the gateway's port 80"));
        }
        problems
    }

    /// The service and port that a back end means.
    fn backend(&self, backend: &Backend, ingress: &Key) -> Result<(model::Host, NonZeroU16), Box<Problem>> {
        let Some((name, port)) = backend.target() else {
            let problem = Problem::error("the back end names no service and port");
            return Err(Box::new(problem.with_hint("only services can be back ends")));
        };
        let key = Key { namespace: ingress.namespace.clone(), name: name.to_owned() };
        let number = match &port {
            PortRef::Number(number) => NonZeroU16::new(*number),
            PortRef::Name(port) => self
                .services
                .get(&key)
                .and_then(|service| service.spec.ports.iter().find(|known| known.name == *port))
                .and_then(|known| NonZeroU16::new(known.port))
                .or_else(|| port.parse().ok()),
        };
        let port = match port {
            PortRef::Number(number) => number.to_string(),
            PortRef::Name(name) => name,
        };
        let number =
            number.ok_or_else(|| Box::new(Problem::error(format!("the service {key} has no port `{port}`"))))?;
        Ok((self.host(&key), number))
    }
}

pub(super) fn backends(ingress: &Ingress) -> impl Iterator<Item = &Backend> {
    let paths = ingress.spec.rules.iter().flat_map(|rule| &rule.http.paths).map(|path| &path.backend);
    paths.chain(&ingress.spec.default_backend)
}

/// How a path is compared; one without a type in the classic way: `/foo.*` is a prefix, all else is exact.
fn compare(path: &Path) -> IngressPath {
    let text = path.path.as_str();
    match path.path_type {
        PathType::Exact => IngressPath::Exact(text.to_owned()),
        PathType::Prefix => {
            let text = text.trim_end_matches('/');
            IngressPath::Elements(if text.is_empty() { "/".to_owned() } else { text.to_owned() })
        }
        PathType::ImplementationSpecific if text.is_empty() => IngressPath::Text("/".to_owned()),
        PathType::ImplementationSpecific => match text.strip_suffix(".*") {
            Some(prefix) => IngressPath::Text(prefix.to_owned()),
            None => IngressPath::Exact(text.to_owned()),
        },
    }
}
