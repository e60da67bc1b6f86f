//! Basic types of well-known Kubernetes fields, so that a slip is found before the API server is asked.
//!
//! This is no schema: what is not listed here is not looked at.

use std::collections::BTreeMap;

use crate::read::{Context, Read, Step};
use crate::yaml::{Node, Value};

/// What a field must be.
#[derive(Clone, Copy)]
enum Basic {
    Number,
    Text,
    List,
    Texts,
}

use Basic::{List, Number, Text, Texts};

/// Fields by path; `*` is every element of a list.
type Table = &'static [(&'static [&'static str], Basic)];

const POD_SPEC: Table = &[
    (&["containers"], List),
    (&["containers", "*", "name"], Text),
    (&["containers", "*", "image"], Text),
    (&["containers", "*", "command", "*"], Text),
    (&["containers", "*", "args", "*"], Text),
    (&["containers", "*", "env", "*", "name"], Text),
    (&["containers", "*", "env", "*", "value"], Text),
    (&["containers", "*", "ports", "*", "containerPort"], Number),
    (&["initContainers"], List),
    (&["serviceAccountName"], Text),
    (&["terminationGracePeriodSeconds"], Number),
];

const WORKLOAD: Table = &[
    (&["spec", "replicas"], Number),
    (&["spec", "selector", "matchLabels"], Texts),
    (&["spec", "template", "metadata", "labels"], Texts),
    (&["spec", "template", "metadata", "annotations"], Texts),
];

const SERVICE: Table = &[
    (&["spec", "selector"], Texts),
    (&["spec", "type"], Text),
    (&["spec", "clusterIP"], Text),
    (&["spec", "ports"], List),
    (&["spec", "ports", "*", "name"], Text),
    (&["spec", "ports", "*", "port"], Number),
    (&["spec", "ports", "*", "protocol"], Text),
];

const CONFIG_MAP: Table = &[(&["data"], Texts)];
const SECRET: Table = &[(&["data"], Texts), (&["stringData"], Texts)];
const INGRESS: Table = &[(&["spec", "rules"], List), (&["spec", "ingressClassName"], Text)];

/// Checks the basic types of an object of that kind, with `context` looking at its root.
pub(crate) fn check<'a>(kind: &str, node: &'a Node, context: &mut Context<'a>) {
    let (table, pod): (Table, &[&'static str]) = match kind {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => (WORKLOAD, &["spec", "template", "spec"]),
        "Pod" => (&[], &["spec"]),
        "Service" => (SERVICE, &[]),
        "ConfigMap" => (CONFIG_MAP, &[]),
        "Secret" => (SECRET, &[]),
        "Ingress" => (INGRESS, &[]),
        _ => return,
    };
    for (path, basic) in table {
        look(node, path, *basic, context);
    }
    if !pod.is_empty() {
        for (path, basic) in POD_SPEC {
            let path: Vec<&'static str> = pod.iter().chain(path.iter()).copied().collect();
            look(node, &path, *basic, context);
        }
    }
}

fn look<'a>(node: &'a Node, path: &[&'static str], basic: Basic, context: &mut Context<'a>) {
    let Some((step, rest)) = path.split_first() else {
        if !node.is_null() {
            basic.check(node, context);
        }
        return;
    };
    match &node.value {
        Value::List(items) if *step == "*" => {
            for (index, item) in items.iter().enumerate() {
                context.within(Step::Index(index), |context| look(item, rest, basic, context));
            }
        }
        Value::Map(_) => {
            if let Some(field) = node.field(step) {
                context.within(*step, |context| look(field, rest, basic, context));
            }
        }
        _ => {}
    }
}

impl Basic {
    fn check<'a>(self, node: &'a Node, context: &mut Context<'a>) {
        match self {
            Number => drop(i64::read(node, context)),
            Text => drop(String::read(node, context)),
            Texts => drop(BTreeMap::<String, String>::read(node, context)),
            List => {
                if !matches!(node.value, Value::List(_)) {
                    context.wrong_type("a list", node);
                }
            }
        }
    }
}
