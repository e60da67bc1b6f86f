//! The order in which route rules are asked.

use std::cmp::Ordering;

use super::RouteRule;

impl RouteRule {
    /// The order in which the rules of one destination are asked: the first that matches decides.
    ///
    /// Higher precedence comes first; at equal precedence a rule that restricts callers or requests comes before one
    /// that takes everything; then the key decides, so that the order is total.
    #[must_use]
    pub fn order(&self, other: &RouteRule) -> Ordering {
        (other.precedence.cmp(&self.precedence))
            .then_with(|| self.is_catch_all().cmp(&other.is_catch_all()))
            .then_with(|| self.key.cmp(&other.key))
    }

    /// Whether the rule takes every request of every caller.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        self.source.is_none() && self.conditions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Action, Condition, Fault, Host, Key, Origin, RouteRule, Source, StringMatch, Subject};

    fn rule(name: &str, precedence: i32) -> RouteRule {
        RouteRule {
            key: Key { namespace: "default".to_owned(), name: name.to_owned() },
            origin: Origin::default(),
            destination: Host::new("reviews.default.svc.cluster.local"),
            precedence,
            source: None,
            conditions: Vec::new(),
            action: Action::Route { to: Vec::new(), rewrite: None },
            fault: Fault::default(),
            timeout: None,
            retries: None,
        }
    }

    #[test]
    fn rules_are_asked_by_precedence_then_conditions_then_key() {
        let condition = Condition { on: Subject::Uri, value: StringMatch::Prefix("/".to_owned()) };
        let conditional = RouteRule { conditions: vec![condition], ..rule("z-conditional", 1) };
        let source = Source { service: None, labels: [("app".to_owned(), "ratings".to_owned())].into() };
        let for_one_caller = RouteRule { source: Some(source), ..rule("y-caller", 1) };
        let mut rules = [
            rule("b", 1),
            rule("low", -5),
            rule("a", 1),
            conditional,
            rule("none", 0),
            for_one_caller,
            rule("top", i32::MAX),
        ];
        rules.sort_by(RouteRule::order);
        let names: Vec<_> = rules.iter().map(|rule| rule.key.name.as_str()).collect();
        assert_eq!(names, ["top", "y-caller", "z-conditional", "a", "b", "none", "low"]);
    }
}
