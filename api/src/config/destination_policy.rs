//! `DestinationPolicy`: how traffic to a destination is balanced, and when it is cut off.

use serde::Serialize;

use super::resilience::CircuitBreaker;
use super::{IstioService, Surroundings};
use crate::model::{self, Balancing};
use crate::read::{Context, Read};
use crate::suggest;
use crate::yaml::{Node, Value};

/// `spec` of a destination policy, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationPolicy {
    /// The service, or with labels a version of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IstioService>,
    /// Whose traffic; everybody's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IstioService>,
    /// How an endpoint is picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// When traffic is cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// `loadBalancing`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LoadBalancing {
    /// How an endpoint is picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Algorithm>,
}

/// The ways to pick an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Algorithm {
    /// In turn.
    RoundRobin,
    /// The less busy of two.
    LeastConn,
    /// At random.
    Random,
}

/// Names and numbers of the ways, as protobuf's JSON has both.
const ALGORITHMS: [(&str, u64, Algorithm); 3] = [
    ("ROUND_ROBIN", 0, Algorithm::RoundRobin),
    ("LEAST_CONN", 1, Algorithm::LeastConn),
    ("RANDOM", 2, Algorithm::Random),
];

impl Read for DestinationPolicy {
    const WHAT: &'static str = "a mapping with `destination`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let policy = DestinationPolicy {
            destination: fields.required("destination"),
            source: fields.optional("source"),
            load_balancing: fields.optional("loadBalancing"),
            circuit_breaker: fields.optional("circuitBreaker"),
        };
        fields.end();
        Some(policy)
    }
}

impl Read for LoadBalancing {
    const WHAT: &'static str = "a mapping with `name`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let balancing = LoadBalancing { name: fields.optional("name") };
        fields.unsupported("custom", "use `name`");
        fields.end();
        Some(balancing)
    }
}

impl Read for Algorithm {
    const WHAT: &'static str = "ROUND_ROBIN, LEAST_CONN or RANDOM";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let found = ALGORITHMS.iter().find(|(name, number, _)| match &node.value {
            Value::String(text) => text == name,
            Value::Number(given) => given.as_u64() == Some(*number),
            _ => false,
        });
        if found.is_none() {
            let message = format!("{} must be {}", context.subject(), Self::WHAT);
            let names = ALGORITHMS.iter().map(|(name, ..)| *name);
            match node.text().and_then(|text| suggest::closest(text, names)) {
                Some(meant) => context.error_with_hint(message, format!("did you mean `{meant}`?")),
                None => context.error(message),
            }
        }
        found.map(|(_, _, algorithm)| *algorithm)
    }
}

impl DestinationPolicy {
    /// Checks the policy and says what it means, with `context` looking at `spec`.
    ///
    /// `None` when something refuses it; the context knows what.
    #[must_use]
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::DestinationPolicy> {
        let destination = self.destination.as_ref().and_then(|destination| {
            context.within("destination", |context| {
                if destination.check(context) { destination.host(around, context) } else { None }
            })
        });
        let source =
            self.source.as_ref().and_then(|source| context.within("source", |context| source.source(around, context)));
        let balancing = self.load_balancing.as_ref().map(|balancing| {
            context.within("loadBalancing", |context| {
                if balancing.name.is_none() && context.is_clean() {
                    context
                        .error_with_hint("`loadBalancing` does not say how", "give it a `name` such as `ROUND_ROBIN`");
                }
            });
            match balancing.name {
                Some(Algorithm::RoundRobin) => Balancing::RoundRobin,
                Some(Algorithm::Random) => Balancing::Random,
                Some(Algorithm::LeastConn) | None => Balancing::LeastRequest,
            }
        });
        let (breaker, outlier) = self
            .circuit_breaker
            .as_ref()
            .map_or((None, None), |breaker| context.within("circuitBreaker", |context| breaker.mean(context)));
        if context.errors() > 0 {
            return None;
        }
        Some(model::DestinationPolicy {
            key: around.key.clone(),
            origin: around.origin.clone(),
            destination: destination?,
            labels: self.destination.as_ref().and_then(|destination| destination.labels.clone()).unwrap_or_default(),
            source,
            balancing: balancing.unwrap_or_default(),
            breaker,
            outlier,
        })
    }
}
