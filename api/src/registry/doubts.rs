//! Objects that are good by themselves and contradict each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Id, Registry, Resource};
use crate::kubernetes::PortRef;
use crate::model::{
    Access, Adapter, AuthenticationPolicy, AuthenticationTarget, Key, Model, MtlsMode, Origin, Protocol, RbacConfig,
    RbacMode,
};
use crate::names::{CLASSIC_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};
use crate::problem::Problem;

impl Registry {
    /// What objects say that other objects say differently: warnings, as the stricter of the two holds. What is wrong with
    /// Ingresses, which are no kind of ours, comes with it.
    ///
    /// Meant for objects of files, as everything that they refer to is expected among them.
    #[must_use]
    pub fn doubts(&self) -> Vec<Problem> {
        let access = &self.model.access;
        let mut doubts = Vec::new();
        modes(access, &mut doubts);
        configs(access, &mut doubts);
        roles(access, &mut doubts);
        rules(access, &mut doubts);
        servers(&self.model, &mut doubts);
        doubts.extend(self.problems().filter(|(id, _)| self.is_known_wrong(id)).map(|(_, problem)| problem.clone()));
        doubts
    }
}

impl Registry {
    /// Whether an object is an Ingress that is wrong, whatever else there may be in the mesh. Errs towards silence: one that names ports
    /// of services that are not among the objects is not judged.
    fn is_known_wrong(&self, id: &Id) -> bool {
        let Some((ingress, _)) = self.ingresses.get(&id.key).filter(|_| id.resource == Resource::Ingress) else {
            return false;
        };
        let is_known = |name: &str| {
            self.services.contains_key(&Key { namespace: id.key.namespace.clone(), name: name.to_owned() })
        };
        super::ingress::backends(ingress).all(|backend| match backend.target() {
            Some((name, PortRef::Name(_))) => is_known(name),
            _ => true,
        })
    }
}

fn doubt(kind: &str, (key, origin): (&Key, &Origin), message: String, hint: String) -> Problem {
    let problem = Problem::warning(message).in_object(format!("{kind} {key}")).with_hint(hint);
    match &origin.location {
        Some(location) => problem.at(location.clone()),
        None => problem,
    }
}

/// Two policies that say different modes of the same services.
fn modes(access: &Access, doubts: &mut Vec<Problem>) {
    let policies: Vec<&Arc<AuthenticationPolicy>> = access.authentication.values().collect();
    for (nth, policy) in policies.iter().enumerate() {
        for other in &policies[nth + 1..] {
            let (Some(one), Some(two)) = (policy.mtls, other.mtls) else { continue };
            let Some(about) = shared(policy, other).filter(|_| one != two) else { continue };
            let stricter = one.max(two);
            let (loser, winner) = if two == stricter { (policy, other) } else { (other, policy) };
            let weaker: MtlsMode = one.min(two);
            doubts.push(doubt(
                "AuthenticationPolicy",
                (&loser.key, &loser.origin),
                format!("it says {weaker} of {about}, of which {} says {stricter}: the stricter holds", winner.key),
                "let one policy say it".to_owned(),
            ));
        }
    }
}

/// What two policies are both about, equally closely.
fn shared(one: &AuthenticationPolicy, other: &AuthenticationPolicy) -> Option<String> {
    if one.key.namespace != other.key.namespace {
        return None;
    }
    if one.targets.is_empty() && other.targets.is_empty() {
        return Some(format!("namespace {}", one.key.namespace));
    }
    let overlap = |a: &AuthenticationTarget, b: &AuthenticationTarget| {
        let ports = a.ports.is_empty() && b.ports.is_empty() || a.ports.iter().any(|port| b.ports.contains(port));
        a.service == b.service && ports
    };
    let mut targets = one.targets.iter();
    let found = targets.find(|target| other.targets.iter().any(|of_other| overlap(target, of_other)));
    found.map(|target| target.service.to_string())
}

/// A config of the classic system namespace beside ours.
fn configs(access: &Access, doubts: &mut Vec<Problem>) {
    let of = |namespace: &str| {
        access.configs.get(&Key { namespace: namespace.to_owned(), name: RbacConfig::NAME.to_owned() })
    };
    if let (Some(ours), Some(other)) = (of(SYSTEM_NAMESPACE), of(CLASSIC_SYSTEM_NAMESPACE)) {
        doubts.push(doubt(
            "RbacConfig",
            (&other.key, &other.origin),
            format!("there are two, and {} is in force", ours.key),
            "delete one of the two".to_owned(),
        ));
    }
}

/// Rules that refer to what is not there, and roles that one object switches on and another off.
fn rules(access: &Access, doubts: &mut Vec<Problem>) {
    let off = access.config().filter(|config| config.mode == RbacMode::Off);
    for rule in access.mixer.rules.values() {
        for missing in access.mixer.missing(rule) {
            let message = format!("there is no {missing} among these objects");
            let hint = "the rule is in force all the same, with nothing of its own to say: create it too";
            doubts.push(doubt("Rule", (&rule.key, &rule.origin), message, hint.to_owned()));
        }
        if let (Some(off), Some(_)) = (off, rule.asks(Adapter::Rbac).next()) {
            let message = format!("it asks roles, which {} switches off: the stricter holds", off.key);
            doubts.push(doubt("Rule", (&rule.key, &rule.origin), message, "let one object say it".to_owned()));
        }
    }
}

/// Bindings to roles that are not there, where other roles of their namespace are.
fn roles(access: &Access, doubts: &mut Vec<Problem>) {
    for binding in access.bindings.values() {
        let role = Key { namespace: binding.key.namespace.clone(), name: binding.role.clone() };
        let mut of_namespace = access.roles.keys().filter(|key| key.namespace == role.namespace).peekable();
        if access.roles.contains_key(&role) || of_namespace.peek().is_none() {
            continue;
        }
        let near = crate::suggest::closest(&role.name, of_namespace.map(|key| key.name.as_str()));
        let hint = near.map_or_else(|| "it gives nobody anything".to_owned(), |near| format!("did you mean `{near}`?"));
        let message = format!("there is no ServiceRole {role} among these objects");
        doubts.push(doubt("ServiceRoleBinding", (&binding.key, &binding.origin), message, hint));
    }
}

/// Servers whose TLS passes through twice, or to a port that does not speak TLS.
fn servers(model: &Model, doubts: &mut Vec<Problem>) {
    let mut taken: BTreeMap<&str, &Key> = BTreeMap::new();
    for ingress in model.ingresses.values() {
        for server in &ingress.passthrough {
            let (name, ingress) = (&server.server_name, (&ingress.key, &ingress.origin));
            if let Some(first) = taken.get(name.as_str()) {
                let message = format!("{name} is passed through by Ingress {first} already, which wins");
                doubts.push(doubt("Ingress", ingress, message, "let one of the two have it".to_owned()));
                continue;
            }
            taken.insert(name, ingress.0);
            let ports = model.services.get(&server.service).map(|service| &service.ports);
            let port = ports.into_iter().flatten().find(|port| port.number == server.port);
            if port.is_some_and(|port| matches!(port.protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc)) {
                let message = format!(
                    "TLS for {name} passes through to port {} of {}, which speaks HTTP in clear text by its name",
                    server.port, server.service
                );
                let hint = "name the port `https-…` or `tls-…`, or set its appProtocol to `https`".to_owned();
                doubts.push(doubt("Ingress", ingress, message, hint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Mesh;
    use crate::registry::{Registry, Resource};

    const POLICIES: &str = "
apiVersion: config.meshctl.io/v1alpha2
kind: AuthenticationPolicy
metadata: {name: a}
spec: {peers: [{mtls: {mode: STRICT}}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: AuthenticationPolicy
metadata: {name: b}
spec: {peers: [{mtls: {mode: PERMISSIVE}}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: AuthenticationPolicy
metadata: {name: c}
spec: {targets: [{name: x}], peers: [{mtls: {mode: DISABLE}}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: ServiceRole
metadata: {name: viewer}
spec: {rules: [{services: ['*']}]}
---
apiVersion: config.meshctl.io/v1alpha2
kind: ServiceRoleBinding
metadata: {name: bind}
spec: {subjects: [{user: '*'}], roleRef: {kind: ServiceRole, name: viewr}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}, {name: https, port: 443}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: one, annotations: {ingress.meshctl.io/ssl-passthrough: 'true'}}
spec:
  ingressClassName: mesh
  rules:
  - {host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 443}}}}]}}
  - {host: b.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: two, annotations: {ingress.meshctl.io/ssl-passthrough: 'true'}}
spec:
  ingressClassName: mesh
  rules:
  - {host: A.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 443}}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: wrong, annotations: {ingress.meshctl.io/ssl-passthrough: 'true'}}
spec:
  ingressClassName: mesh
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: https}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: elsewhere}
spec:
  ingressClassName: mesh
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: other, port: {name: https}}}}]}}]
";

    #[test]
    fn contradictions_are_told_with_what_holds() {
        let (objects, problems) = crate::object::validate_text("x.yaml", POLICIES);
        assert_eq!(problems, []);
        let mut registry = Registry::new(Mesh::default());
        for object in objects {
            let resource = Resource::of(&object.api_version, &object.kind).expect("ours");
            registry.apply_from(resource, &object.json, object.location.clone());
        }
        let said: Vec<String> = registry.doubts().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "x.yaml:7:1: it says PERMISSIVE of namespace default, of which default/a says STRICT: the stricter holds",
                "x.yaml:22:1: there is no ServiceRole default/viewr among these objects",
                "x.yaml:32:1: TLS for b.example passes through to port 80 of shop.default.svc.cluster.local, which \
                 speaks HTTP in clear text by its name",
                "x.yaml:41:1: a.example is passed through by Ingress default/one already, which wins",
                "x.yaml:49:1: a rule whose TLS passes through needs a host: nothing else tells connections apart",
            ]
        );
        assert_eq!(registry.doubts().iter().filter(|doubt| doubt.is_error()).count(), 1);
    }
}
