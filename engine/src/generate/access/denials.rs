//! Rules with the handler `denier` → policies that keep out, which are asked before roles.

use api::model::{
    AccessRule, AccessSubject, Adapter, Constraint, Handler, Model, Node, Pattern, RuleAction, Service, Test,
};

use super::guards::{Guards, Policies, Rules};
use super::rules;

/// Adds the rules that refuse something at these services of a workload, in the order of their keys.
pub(super) fn add(model: &Model, node: &Node, services: &[&Service], guards: &mut Guards) {
    for rule in model.access.mixer.rules.values() {
        if !rules::selects(rule, node, services) {
            continue;
        }
        for is_http in [true, false] {
            let mut policies = Policies { keep_out: true, ..Policies::default() };
            for action in rule.asks(Adapter::Denier) {
                let Some(principal) = rules::principal(model, &callers(rule), is_http) else { continue };
                let Some(permission) = rules::permission(&requests(rule, is_http), is_http) else { continue };
                policies.add(&words(model, action), vec![permission], vec![principal]);
            }
            if !policies.named.is_empty() {
                let rules = Rules { enforced: Some(policies), shadow: None };
                guards.add(&format!("rule/{}", rule.key), &rules, is_http);
            }
        }
    }
}

/// The name of the policy: the handler, and why it refuses.
fn words(model: &Model, action: &RuleAction) -> String {
    match model.access.mixer.handlers.get(&action.handler).map(|handler| &**handler) {
        Some(Handler::Denier { message }) if !message.is_empty() => format!("{}: {message}", action.handler),
        // Even a rule whose handler is not there keeps out.
        _ => action.handler.to_string(),
    }
}

fn callers(rule: &api::model::Rule) -> AccessSubject {
    let tests = rule.tests.iter().filter_map(|test| match test {
        Test::Caller(test) => Some(test.clone()),
        _ => None,
    });
    AccessSubject { tests: tests.collect() }
}

/// What is asked of each request. A connection has neither path nor headers: it is kept out whatever they should be, as
/// else it would be a way around the rule.
fn requests(rule: &api::model::Rule, is_http: bool) -> AccessRule {
    let mut requests =
        AccessRule { services: Vec::new(), paths: Vec::new(), methods: Vec::new(), constraints: Vec::new() };
    for test in rule.tests.iter().filter(|_| is_http) {
        match test {
            // Two different paths at once are no request's: the constraint form asks for all of them.
            Test::Path(path) if requests.paths.is_empty() => requests.paths.push(Pattern::Exact(path.clone())),
            Test::Path(path) => requests.constraints.push(header(":path", path)),
            Test::Method(method) => requests.constraints.push(header(":method", method)),
            Test::Header(name, value) => requests.constraints.push(header(name, value)),
            _ => {}
        }
    }
    requests
}

fn header(name: &str, value: &str) -> Constraint {
    Constraint::Header(name.to_owned(), vec![Pattern::Exact(value.to_owned())])
}
