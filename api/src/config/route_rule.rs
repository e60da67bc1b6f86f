//! `RouteRule`: which requests to a service go where.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cors::CorsPolicy;
use super::fault::{HttpFault, L4Fault};
use super::matching::MatchCondition;
use super::resilience::{HttpRetries, HttpTimeout};
use super::{IstioService, Surroundings, check};
use crate::model::{self, Action, Host, Target};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `spec` of a route rule, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// The service that the rule is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IstioService>,
    /// Higher is asked first; 0 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precedence: Option<i32>,
    /// Which requests it is about; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#match: Option<MatchCondition>,
    /// Where they go; the destination as a whole if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Vec<DestinationWeight>>,
    /// An answer that sends the caller elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<UriAndAuthority>,
    /// What is changed before the request goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<UriAndAuthority>,
    /// Whether the connection may become a WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket_upgrade: Option<bool>,
    /// How long the request may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_req_timeout: Option<HttpTimeout>,
    /// How often it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_req_retries: Option<HttpRetries>,
    /// Faults of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_fault: Option<HttpFault>,
    /// Faults of connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4_fault: Option<L4Fault>,
    /// Where a copy goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<IstioService>,
    /// Cross-origin requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_policy: Option<CorsPolicy>,
    /// Headers that are added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append_headers: Option<BTreeMap<String, String>>,
}

/// One destination of a route, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DestinationWeight {
    /// The service; the rule's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IstioService>,
    /// Labels of the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Share in percent; may be left out when it is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// `redirect` and `rewrite`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UriAndAuthority {
    /// The new path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The new authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

impl Read for RouteRule {
    const WHAT: &'static str = "a mapping with `destination`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let rule = RouteRule {
            destination: fields.required("destination"),
            precedence: fields.optional("precedence"),
            r#match: fields.optional("match"),
            route: fields.optional("route"),
            redirect: fields.optional("redirect"),
            rewrite: fields.optional("rewrite"),
            websocket_upgrade: fields.optional("websocketUpgrade"),
            http_req_timeout: fields.optional("httpReqTimeout"),
            http_req_retries: fields.optional("httpReqRetries"),
            http_fault: fields.optional("httpFault"),
            l4_fault: fields.optional("l4Fault"),
            mirror: fields.optional("mirror"),
            cors_policy: fields.optional("corsPolicy"),
            append_headers: fields.optional("appendHeaders"),
        };
        fields.end();
        Some(rule)
    }
}

impl Read for DestinationWeight {
    const WHAT: &'static str = "a mapping with `labels` and `weight`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let weight = DestinationWeight {
            destination: fields.optional("destination"),
            labels: fields.optional("labels"),
            weight: fields.optional("weight"),
        };
        fields.end();
        Some(weight)
    }
}

impl Read for UriAndAuthority {
    const WHAT: &'static str = "a mapping with `uri` or `authority`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let change = UriAndAuthority { uri: fields.optional("uri"), authority: fields.optional("authority") };
        fields.end();
        Some(change)
    }
}

impl RouteRule {
    /// Checks the rule and says what it means, with `context` looking at `spec`.
    ///
    /// `None` when something refuses it; the context knows what.
    #[must_use]
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<model::RouteRule> {
        let destination = self.check_destination(around, context);
        let (source, conditions) = self.r#match.as_ref().map_or_else(
            || (None, Vec::new()),
            |condition| context.within("match", |context| condition.mean(around, context)),
        );
        let rewrite = self.rewrite.as_ref().map(|rewrite| rewrite.check("rewrite", context));
        let redirect = self.redirect.as_ref().map(|redirect| redirect.check("redirect", context));
        let to = self.targets(destination.as_ref(), around, context);
        self.check_exclusions(context);
        let fault = self
            .http_fault
            .as_ref()
            .map_or_else(model::Fault::default, |fault| context.within("httpFault", |context| fault.mean(context)));
        let timeout = self
            .http_req_timeout
            .as_ref()
            .and_then(|timeout| context.within("httpReqTimeout", |context| timeout.mean(context)));
        let retries = self
            .http_req_retries
            .as_ref()
            .and_then(|retries| context.within("httpReqRetries", |context| retries.mean(context)));
        self.check_later(around, context);
        if context.errors() > 0 {
            return None;
        }
        let action = match redirect {
            Some((uri, authority)) => Action::Redirect(model::Redirect { uri, authority }),
            None => Action::Route { to, rewrite: rewrite.map(|(uri, authority)| model::Rewrite { uri, authority }) },
        };
        Some(model::RouteRule {
            key: around.key.clone(),
            origin: around.origin.clone(),
            destination: destination?,
            precedence: self.precedence.unwrap_or(0),
            source,
            conditions,
            action,
            fault,
            timeout,
            retries,
        })
    }

    fn check_destination(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Host> {
        let destination = self.destination.as_ref()?;
        context.within("destination", |context| {
            let is_good = destination.check(context);
            if destination.labels.as_ref().is_some_and(|labels| !labels.is_empty()) {
                context.within("labels", |context| {
                    let message = "a rule is about a service as a whole: its destination cannot have labels";
                    context.error_with_hint(message, "name the version in `route`, as `- labels: {version: v1}`");
                });
                return None;
            }
            if is_good { destination.host(around, context) } else { None }
        })
    }

    fn check_exclusions(&self, context: &mut Context<'_>) {
        if self.redirect.is_none() {
            return;
        }
        let excluded = [
            ("route", self.route.as_ref().is_some_and(|route| !route.is_empty())),
            ("rewrite", self.rewrite.is_some()),
            ("httpFault", self.http_fault.is_some()),
            ("websocketUpgrade", self.websocket_upgrade == Some(true)),
        ];
        for (field, is_there) in excluded {
            if is_there {
                context.within(field, |context| {
                    context.error_with_hint(format!("`{field}` does not go with `redirect`"), "keep one of the two");
                });
            }
        }
    }

    /// Where requests go, by weight; the destination as a whole when the rule does not say.
    fn targets(&self, destination: Option<&Host>, around: &Surroundings<'_>, context: &mut Context<'_>) -> Vec<Target> {
        let Some(route) = self.route.as_ref().filter(|route| !route.is_empty()) else {
            let whole = |host: &Host| Target { host: host.clone(), labels: model::Labels::new(), weight: 100 };
            return destination.map(whole).into_iter().collect();
        };
        context.within("route", |context| {
            let was_read = context.is_clean();
            let mut targets: Vec<Target> = Vec::new();
            for (index, weight) in route.iter().enumerate() {
                targets.extend(context.within(index, |context| weight.mean(destination, around, context)));
            }
            if let [only] = targets.as_mut_slice()
                && route.len() == 1
                && only.weight == 0
            {
                only.weight = 100;
            }
            if was_read {
                check_sum(route, &around.key.name, context);
            }
            targets
        })
    }

    /// Checks what is understood but not in force, and refuses it.
    fn check_later(&self, around: &Surroundings<'_>, context: &mut Context<'_>) {
        if self.websocket_upgrade == Some(true) {
            context.not_in_force("websocketUpgrade");
        }
        if let Some(fault) = &self.l4_fault {
            context.within("l4Fault", |context| fault.check(context));
            context.not_in_force("l4Fault");
        }
        if let Some(mirror) = &self.mirror {
            context.within("mirror", |context| mirror.check(context) && mirror.host(around, context).is_some());
            context.not_in_force("mirror");
        }
        if let Some(policy) = &self.cors_policy {
            context.within("corsPolicy", |context| policy.check(context));
            context.not_in_force("corsPolicy");
        }
        if let Some(headers) = self.append_headers.as_ref().filter(|headers| !headers.is_empty()) {
            context.within("appendHeaders", |context| {
                for (name, value) in headers {
                    context.within(name.clone(), |context| {
                        if check::header_name(name, context) && value.is_empty() {
                            context.error(format!("the header `{name}` has no value"));
                        }
                    });
                }
            });
            context.not_in_force("appendHeaders");
        }
    }
}

fn check_sum(route: &[DestinationWeight], rule: &str, context: &mut Context<'_>) {
    if let [only] = route
        && only.weight.unwrap_or(0) == 0
    {
        return;
    }
    let sum: i64 = route.iter().map(|weight| i64::from(weight.weight.unwrap_or(0))).sum();
    if sum == 100 {
        return;
    }
    let hint = if sum < 100 {
        format!("add a destination with weight {}, or make the others larger", 100 - sum)
    } else {
        format!("take away {}", sum - 100)
    };
    context.error_with_hint(format!("the weights of route `{rule}` add up to {sum}, not 100"), hint);
}

impl DestinationWeight {
    fn mean(&self, rule: Option<&Host>, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Target> {
        let host = match &self.destination {
            None => rule.cloned(),
            Some(destination) => context.within("destination", |context| {
                if destination.labels.as_ref().is_some_and(|labels| !labels.is_empty()) {
                    context.within("labels", |context| {
                        context
                            .warn("labels of the destination are not looked at", "put `labels` beside `destination`");
                    });
                }
                if destination.check(context) { destination.host(around, context) } else { None }
            }),
        };
        if let Some(labels) = &self.labels {
            context.within("labels", |context| check::labels(labels, context));
        }
        let weight = self.weight.unwrap_or(0);
        let Some(weight) = u32::try_from(weight).ok().filter(|weight| *weight <= 100) else {
            context.within("weight", |context| {
                context.error(format!("`weight` is {weight}, which is not between 0 and 100"));
            });
            return None;
        };
        Some(Target { host: host?, labels: self.labels.clone().unwrap_or_default(), weight })
    }
}

impl UriAndAuthority {
    /// Checks that something is changed, and says what.
    fn check(&self, field: &'static str, context: &mut Context<'_>) -> (Option<String>, Option<String>) {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (uri, authority) = (filled(&self.uri), filled(&self.authority));
        context.within(field, |context| {
            if uri.is_none() && authority.is_none() && context.is_clean() {
                context.error_with_hint(format!("`{field}` changes nothing"), "give it a `uri` or an `authority`");
            }
            for (part, text) in [("uri", &uri), ("authority", &authority)] {
                if text.as_ref().is_some_and(|text| text.chars().any(|c| c.is_control() || c == ' ')) {
                    context.within(part, |context| {
                        context.error(format!("`{part}` has a space or a control character in it"));
                    });
                }
            }
        });
        (uri, authority)
    }
}
