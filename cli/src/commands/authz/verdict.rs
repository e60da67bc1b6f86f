//! What a workload's rules say of a request.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::access::{Admission, admit};
use engine::path::{canonical_authority, canonical_path};
use engine::request::{Caller, Connection, Simple};
use engine::tables::{Filter, Http, Provider, Tables};
use engine::token::{authenticate, verify};
use engine::trace::{Recording, Step};
use serde_json::{Value, json};

use super::Question;
use crate::app::App;
use crate::error::Error;
use crate::output::Format;

/// A port of a workload, and what its proxy has been told.
pub(super) struct Target {
    /// The pod.
    pub(super) pod: String,
    /// Its address and the port there.
    pub(super) address: SocketAddr,
    /// What its proxy decides with; nothing if it has none.
    pub(super) tables: Option<Tables>,
    /// Where policies were written, by the name that verdicts have for them.
    pub(super) places: Vec<(String, String)>,
}

/// What the rules say.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) pod: String,
    pub(super) allowed: bool,
    /// The word for the failure.
    code: &'static str,
    /// Which rules, provider or policy decided it.
    by: String,
    /// Why, in words.
    why: String,
    /// Who would refuse it if its rules were not on trial.
    would_deny: Option<String>,
    /// Where the policy was written.
    place: Option<String>,
    steps: Vec<Step>,
}

/// Asks the rules of a workload.
pub(super) fn judge(target: &Target, question: &Question) -> Verdict {
    let mut verdict = Verdict { pod: target.pod.clone(), ..Verdict::default() };
    let Some(tables) = &target.tables else {
        return Verdict { allowed: true, why: "the pod has no proxy, so nobody asks".to_owned(), ..verdict };
    };
    let port = target.address.port();
    let chain = tables.listener("virtual_inbound").and_then(|listener| listener.chain(port, Some("http/1.1")));
    let Some(chain) = chain else {
        return Verdict { code: "no_route", why: format!("nothing is served at port {port}"), ..verdict };
    };
    let mut trace = Recording::default();
    let caller = &question.caller;
    let rules = match &chain.filter {
        Filter::Tcp(tcp) => &tcp.rbac,
        Filter::Http(http) => &http.access.rbac,
    };
    let has_rules = rules.iter().any(|rbac| rbac.rules.is_some());
    let admission = match &chain.filter {
        Filter::Tcp(tcp) => {
            let caller = Caller {
                identity: caller.identity.as_ref(),
                address: caller.address,
                destination: Some(target.address),
                tokens: &[],
            };
            "the port is opaque: only who connects is looked at".clone_into(&mut verdict.why);
            admit(&tcp.rbac, &Connection(caller), &mut trace)
        }
        Filter::Http(http) => match ask_http(http, target, question, &mut trace) {
            Ok(admission) => admission,
            Err(refused) => return Verdict { place: place(target, &refused.by), pod: verdict.pod, ..*refused },
        },
    };
    verdict.steps = trace.steps;
    verdict.would_deny = admission.would_deny.map(|denied| denied.to_string());
    verdict.take(admission, has_rules);
    verdict.place = place(target, &verdict.by);
    verdict
}

/// Asks as a request is asked: verifies its tokens, then the rules. Gives the verdict if it does not come to the rules.
fn ask_http<'t>(
    http: &'t Http,
    target: &Target,
    question: &Question,
    trace: &mut Recording,
) -> Result<Admission<'t>, Box<Verdict>> {
    let unclear = |why: String| Box::new(Verdict { code: "bad_request", why, ..Verdict::default() });
    let path = canonical_path(&question.path, http.path).map_err(|why| unclear(why.to_string()))?;
    let authority = canonical_authority(&question.authority).map_err(|why| unclear(why.to_string()))?;
    let mut request = Simple::get(&authority, &path).with_method(&question.method);
    for (name, value) in &question.headers {
        request = request.with_header(name, value);
    }
    request.identity.clone_from(&question.caller.identity);
    request.address = question.caller.address;
    request.destination = Some(target.address);
    if let Some(tokens) = &http.access.tokens {
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let mut verified = |provider: &Provider, token: &str| verify(provider, token, now).map(Arc::new);
        let authenticated = authenticate(tokens, &request, &mut verified).map_err(|refused| {
            let (by, why) = (refused.provider.into(), refused.why.to_string());
            Box::new(Verdict { code: "unauthenticated", by, why, ..Verdict::default() })
        })?;
        request.tokens = authenticated.tokens;
    }
    // Rules are all that is asked here: where the request then goes is the application's.
    Ok(admit(&http.access.rbac, &request, trace))
}

impl Verdict {
    /// What the rules said; `has_rules` where there are any that are not on trial.
    fn take(&mut self, admission: Admission<'_>, has_rules: bool) {
        match admission.denied {
            Some(denied) => {
                self.code = "policy_denied";
                self.by = denied.by.to_owned();
                self.why = match denied.policy {
                    Some(policy) => format!("{policy} keeps it out"),
                    None => "no role allows it".to_owned(),
                };
            }
            None => {
                self.allowed = true;
                match admission.allowed_by {
                    Some(policy) => policy.clone_into(&mut self.by),
                    None => {
                        let why = if has_rules { "no rule keeps it out" } else { "no rules are in force here" };
                        let before = std::mem::replace(&mut self.why, why.to_owned());
                        if !before.is_empty() {
                            self.why = format!("{why}; {before}");
                        }
                    }
                }
            }
        }
    }
}

/// Where the object that a verdict names was written.
fn place(target: &Target, name: &str) -> Option<String> {
    let found = target.places.iter().filter(|(object, _)| name.starts_with(object.as_str()));
    found.max_by_key(|(object, _)| object.len()).map(|(_, place)| place.clone())
}

/// Shows the verdicts. Workloads that say the same are shown as one.
pub(super) fn show(app: &App, format: &Format, question: &Question, verdicts: &[Verdict]) -> Result<(), Error> {
    let caller = question.caller.identity.as_ref().map(ToString::to_string);
    if !matches!(format, Format::Table | Format::Wide) {
        let value = json!({
            "allowed": verdicts.iter().all(|verdict| verdict.allowed),
            "caller": caller,
            "method": question.method,
            "path": question.path,
            "verdicts": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
        });
        return match format {
            Format::Yaml => app.ui.yaml(&value),
            Format::JsonPath(template) => app.ui.print(&template.render(&value)),
            _ => app.ui.json(&value),
        };
    }
    let mut shown: Vec<(&Verdict, Vec<&str>)> = Vec::new();
    for verdict in verdicts {
        let says = |verdict: &Verdict| (verdict.allowed, verdict.by.clone(), verdict.why.clone());
        match shown.iter().position(|(other, _)| says(other) == says(verdict)) {
            Some(at) => shown[at].1.push(&verdict.pod),
            None => shown.push((verdict, vec![&verdict.pod])),
        }
    }
    for (verdict, pods) in shown {
        let paint = app.ui.out;
        let word = if verdict.allowed { paint.good("allowed") } else { paint.error("denied") };
        let by = if verdict.by.is_empty() { String::new() } else { format!(" by {}", verdict.by) };
        let place = verdict.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let why = if verdict.why.is_empty() { String::new() } else { format!(": {}", verdict.why) };
        app.ui.line(&format!("{word}{by}{place}{why}"))?;
        app.ui.line(&format!("  caller  {}", caller.as_deref().unwrap_or("nobody: no certificate")))?;
        app.ui.line(&format!("  at      {}", pods.join(", ")))?;
        if let Some(would_deny) = &verdict.would_deny {
            app.ui.line(&format!("  trial   {would_deny} would refuse it"))?;
        }
        for step in verdict.steps.iter().filter(|_| !verdict.allowed) {
            if let Step::Policy { policy, wants: Some(wants), trial: false, .. } = step {
                app.ui.line(&format!("  {policy} wants {wants}"))?;
            }
        }
    }
    Ok(())
}

impl Verdict {
    fn json(&self) -> Value {
        json!({
            "pod": self.pod,
            "allowed": self.allowed,
            "code": self.code,
            "by": self.by,
            "why": self.why,
            "place": self.place,
            "wouldDeny": self.would_deny,
            "steps": self.steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_let_in_by_no_policy_is_told_whether_there_are_rules() {
        let opaque = "the port is opaque: only who connects is looked at";
        for (has_rules, before, expected) in [
            (false, "", "no rules are in force here"),
            (true, "", "no rule keeps it out"),
            (true, opaque, "no rule keeps it out; the port is opaque: only who connects is looked at"),
        ] {
            let mut verdict = Verdict { why: before.to_owned(), ..Verdict::default() };
            verdict.take(Admission::default(), has_rules);
            assert_eq!((verdict.allowed, verdict.why.as_str()), (true, expected));
        }
        let mut verdict = Verdict::default();
        verdict.take(Admission { allowed_by: Some("readers"), ..Admission::default() }, true);
        assert_eq!((verdict.by.as_str(), verdict.why.as_str()), ("readers", ""));
    }
}
