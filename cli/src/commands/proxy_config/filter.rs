//! Which resources are asked for.

use serde_json::Value;

use super::tables::{Parts, name};
use super::{ConfigArgs, Direction, What};

/// Whether a resource passes all filters.
pub(super) fn is_wanted(resource: &Value, what: What, args: &ConfigArgs) -> bool {
    let name = name(resource);
    let by_name = args.resource.as_deref().is_none_or(|wanted| name.contains(wanted));
    let by_port = args.port.is_none_or(|port| has_port(name, port));
    let by_host = args.fqdn.as_deref().is_none_or(|wanted| has_host(name, wanted));
    let by_subset = args.subset.as_deref().is_none_or(|wanted| has_labels(name, wanted));
    let by_direction = args.direction.is_none_or(|direction| goes(name, what, direction));
    by_name && by_port && by_host && by_subset && by_direction
}

fn has_port(name: &str, port: u16) -> bool {
    let port = port.to_string();
    name.split(|c: char| !c.is_ascii_digit()).any(|number| number == port)
}

/// Whether it is about this host, of which the end may be left out: `reviews`, `reviews.default`.
fn has_host(name: &str, wanted: &str) -> bool {
    let host = Parts::of(name).host;
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    host.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether its labels are these, or hold this value: `version=v1`, `v1`.
fn has_labels(name: &str, wanted: &str) -> bool {
    let labels = Parts::of(name).labels;
    labels == wanted || labels.split(',').any(|label| label.split_once('=').is_some_and(|(_, value)| value == wanted))
}

/// Clusters and their endpoints say in their names where they lead, listeners what they are.
fn goes(name: &str, what: What, direction: Direction) -> bool {
    let is_inbound = name.starts_with("inbound");
    match direction {
        Direction::Inbound => is_inbound,
        // All routes that have a name are for what leaves.
        Direction::Outbound => !is_inbound || what == What::Routes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_labels_are_found_in_the_names_of_clusters() {
        let v1 = "outbound|9080|version=v1,track=a|reviews.default.svc.cluster.local";
        for (name, host, subset, is_found) in [
            (v1, "reviews", "v1", true),
            (v1, "reviews.default", "a", true),
            (v1, "reviews.default.svc.cluster.local", "version=v1,track=a", true),
            (v1, "reviews.other", "v1", false),
            (v1, "review", "v1", false),
            (v1, "reviews", "version", false),
            ("reviews.default.svc.cluster.local:9080", "reviews.default", "", true),
            ("inbound|9080", "reviews", "", false),
        ] {
            assert_eq!(has_host(name, host) && has_labels(name, subset), is_found, "{name} {host} {subset}");
        }
        assert!(has_port(v1, 9080) && !has_port(v1, 908));
        assert!(goes("inbound|9080", What::Clusters, Direction::Inbound));
        assert!(!goes("inbound|9080", What::Clusters, Direction::Outbound));
    }
}
