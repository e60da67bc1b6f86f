//! Which requests a rule is about: `match`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{IstioService, Surroundings, check};
use crate::model::{self, Condition, Source, Subject};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `match` of a route rule, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MatchCondition {
    /// Whose requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IstioService>,
    /// Connections by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<L4Match>,
    /// Datagrams by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<L4Match>,
    /// Requests by their attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestMatch>,
}

/// Addresses of a connection, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct L4Match {
    /// Addresses or ranges that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_subnet: Option<Vec<String>>,
    /// Addresses or ranges that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_subnet: Option<Vec<String>>,
}

/// Attributes of a request, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RequestMatch {
    /// By header name; `uri`, `scheme`, `method` and `authority` stand for these parts of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, StringMatch>>,
}

/// How one value is compared, as typed: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StringMatch {
    /// Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Matches as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

impl Read for MatchCondition {
    const WHAT: &'static str = "a mapping with `source` or `request`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let condition = MatchCondition {
            source: fields.optional("source"),
            tcp: fields.optional("tcp"),
            udp: fields.optional("udp"),
            request: fields.optional("request"),
        };
        fields.end();
        Some(condition)
    }
}

impl Read for L4Match {
    const WHAT: &'static str = "a mapping with `sourceSubnet` or `destinationSubnet`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let condition = L4Match {
            source_subnet: fields.optional("sourceSubnet"),
            destination_subnet: fields.optional("destinationSubnet"),
        };
        fields.end();
        Some(condition)
    }
}

impl Read for RequestMatch {
    const WHAT: &'static str = "a mapping with `headers`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let condition = RequestMatch { headers: fields.optional("headers") };
        fields.end();
        Some(condition)
    }
}

impl Read for StringMatch {
    const WHAT: &'static str = "a comparison such as `{exact: jason}`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let comparison = StringMatch {
            exact: fields.optional("exact"),
            prefix: fields.optional("prefix"),
            regex: fields.optional("regex"),
        };
        fields.end();
        Some(comparison)
    }
}

impl MatchCondition {
    /// Checks the condition and says whose requests it is about, and what they must be like.
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> (Option<Source>, Vec<Condition>) {
        let source =
            self.source.as_ref().and_then(|source| context.within("source", |context| source.source(around, context)));
        if let Some(tcp) = &self.tcp {
            context.within("tcp", |context| tcp.check(context));
            context.not_in_force("tcp");
        }
        if let Some(udp) = &self.udp {
            context.within("udp", |context| {
                udp.check(context);
                context.error_with_hint("`udp` is not supported", "the mesh leaves datagrams alone");
            });
        }
        let headers = self.request.as_ref().and_then(|request| request.headers.as_ref());
        let conditions = headers.map_or_else(Vec::new, |headers| {
            context.within("request", |context| context.within("headers", |context| conditions(headers, context)))
        });
        (source, conditions)
    }
}

impl L4Match {
    fn check(&self, context: &mut Context<'_>) {
        for (field, subnets) in [("sourceSubnet", &self.source_subnet), ("destinationSubnet", &self.destination_subnet)]
        {
            for (index, subnet) in subnets.iter().flatten().enumerate() {
                if !check::is_ipv4_range(subnet) {
                    context.within(field, |context| {
                        context.within(index, |context| {
                            let message = format!("`{subnet}` is neither an IPv4 address nor a range of them");
                            context.error_with_hint(message, "write it like `10.0.0.1` or `10.0.0.0/8`");
                        });
                    });
                }
            }
        }
    }
}

fn conditions(headers: &BTreeMap<String, StringMatch>, context: &mut Context<'_>) -> Vec<Condition> {
    headers
        .iter()
        .filter_map(|(name, comparison)| {
            context.within(name.clone(), |context| {
                let on = subject(name, context)?;
                let value = comparison.mean(&on, context)?;
                Some(Condition { on, value })
            })
        })
        .collect()
}

fn subject(name: &str, context: &mut Context<'_>) -> Option<Subject> {
    Some(match name {
        "uri" => Subject::Uri,
        "scheme" => Subject::Scheme,
        "method" => Subject::Method,
        "authority" => Subject::Authority,
        name => {
            if !check::header_name(name, context) {
                return None;
            }
            Subject::Header(name.to_owned())
        }
    })
}

impl StringMatch {
    fn mean(&self, on: &Subject, context: &mut Context<'_>) -> Option<model::StringMatch> {
        let given = [("exact", &self.exact), ("prefix", &self.prefix), ("regex", &self.regex)];
        let mut given = given.into_iter().filter_map(|(how, text)| Some((how, text.as_ref()?)));
        let Some((how, text)) = given.next() else {
            if context.is_clean() {
                let message = format!("{} is compared with nothing", context.subject());
                context.error_with_hint(message, "give it one of `exact`, `prefix` or `regex`");
            }
            return None;
        };
        if let Some((second, _)) = given.next() {
            let message = format!("{} has both `{how}` and `{second}`", context.subject());
            context.error_with_hint(message, "keep one of them");
            return None;
        }
        if *on == Subject::Uri {
            if text.is_empty() {
                context.within(how, |context| context.error("`uri` is compared with the empty text"));
                return None;
            }
            if how != "regex" && !text.starts_with('/') {
                context.within(how, |context| {
                    context.warn(
                        format!("no path begins with `{text}`, so this rule matches nothing"),
                        format!("write `/{text}`"),
                    );
                });
            }
        }
        match how {
            "exact" => Some(model::StringMatch::Exact(text.clone())),
            "prefix" => Some(model::StringMatch::Prefix(text.clone())),
            _ => {
                let compiles = context.within(how, |context| check::regex(text, context));
                compiles.then(|| model::StringMatch::Regex(text.clone()))
            }
        }
    }
}
