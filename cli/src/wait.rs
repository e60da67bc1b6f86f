//! `--wait`: asks every Pilot until every proxy concerned has applied a change.

use std::collections::BTreeSet;
use std::time::Duration;

use api::messages::Applied;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::error::{Error, count};
use crate::mesh::Daemon;
use crate::resources::{Resource, name_of, namespace_of, version_of};

/// How long Pilot may hold back an answer until it is the last.
const HELD: Duration = Duration::from_secs(1);
/// Pause after an answer that was not the last.
const PAUSE: Duration = Duration::from_millis(20);
/// After this time progress is shown.
const SILENT: Duration = Duration::from_secs(1);

/// A change that proxies are to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    kind: String,
    word: String,
    namespace: String,
    name: String,
    /// `None`: it was deleted.
    version: Option<String>,
}

impl Change {
    /// An object as the API server answered it.
    #[must_use]
    pub fn made(resource: &Resource, answer: &Value) -> Self {
        Change {
            kind: resource.kind.clone(),
            word: resource.word(),
            namespace: namespace_of(answer).to_owned(),
            name: name_of(answer).to_owned(),
            version: Some(version_of(answer).to_owned()),
        }
    }

    /// An object that was deleted.
    #[must_use]
    pub fn deleted(resource: &Resource, namespace: &str, name: &str) -> Self {
        Change {
            kind: resource.kind.clone(),
            word: resource.word(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: None,
        }
    }

    fn question(&self) -> String {
        let version = match &self.version {
            Some(version) => format!("resourceVersion={version}"),
            None => "deleted=true".to_owned(),
        };
        format!("/v1/applied?kind={}&namespace={}&name={}&{version}", self.kind, self.namespace, self.name)
    }

    fn label(&self) -> String {
        format!("{} {}/{}", self.word, self.namespace, self.name)
    }
}

/// How far all changes have got, over all Pilots.
#[derive(Debug, Default)]
pub struct Progress {
    is_known: bool,
    proxies: u64,
    applied: u64,
    waiting: BTreeSet<String>,
    refused: Vec<String>,
    problems: Vec<String>,
}

impl Progress {
    fn add(&mut self, change: &Change, answer: &Applied) {
        self.is_known &= answer.known;
        self.proxies += answer.proxies;
        self.applied += answer.applied;
        self.waiting.extend(answer.waiting.iter().cloned());
        self.refused.extend(answer.rejected.iter().map(|r| format!("{}: {}", r.resource, r.error)));
        if answer.known && !answer.accepted && change.version.is_some() {
            self.problems.push(format!("{} is not in force: {}", change.label(), answer.problems.join("; ")));
        }
    }

    fn is_done(&self) -> bool {
        self.is_known && self.waiting.is_empty() && self.applied >= self.proxies
    }

    /// `3 of 7`, or why not.
    #[must_use]
    pub fn short(&self) -> String {
        match (self.is_known, self.problems.first(), self.proxies) {
            (false, _, _) => "Pilot has not seen it yet".to_owned(),
            (_, Some(_), _) => "not in force".to_owned(),
            (true, None, 0) => "no proxy is concerned".to_owned(),
            (true, None, proxies) => {
                let refused =
                    if self.refused.is_empty() { String::new() } else { format!(", {} refused", self.refused.len()) };
                format!("{} of {proxies}{refused}", self.applied)
            }
        }
    }

    fn words(&self) -> String {
        if self.is_known && self.proxies == 0 {
            return "applied; no connected proxy is concerned".to_owned();
        }
        if self.is_known {
            return format!(
                "applied by {} of {}",
                self.applied,
                count(usize::try_from(self.proxies).unwrap_or(usize::MAX), "proxy")
            );
        }
        "Pilot has not seen the change yet".to_owned()
    }
}

/// Waits until every proxy concerned has applied all changes, says so, and gives their number. `pilots` connects to those who know.
///
/// # Errors
/// When the time is over, naming those that lag; when a proxy refuses the change, with its words; when Pilot does not
/// use the object or cannot be reached.
pub async fn until_applied(
    app: &App,
    pilots: impl Future<Output = Result<Vec<Daemon>, Error>>,
    changes: &[Change],
    limit: Duration,
) -> Result<u64, Error> {
    if changes.is_empty() {
        app.ui.say("nothing to wait for");
        return Ok(0);
    }
    let started = Instant::now();
    let mut pilots = pilots.await?;
    let mut shown = String::new();
    loop {
        let held = limit.saturating_sub(started.elapsed()).min(HELD);
        let progress = ask(&mut pilots, changes, held).await?;
        if let Some(problem) = progress.problems.first() {
            clear(app, &shown);
            return Err(Error::failed(problem.clone()));
        }
        if !progress.refused.is_empty() {
            clear(app, &shown);
            return Err(Error::failed(format!("{} refused the change", count(progress.refused.len(), "proxy")))
                .because(progress.refused.join("\n"))
                .hint("the proxies keep what they had; `meshctl proxy-status` shows all of them"));
        }
        if progress.is_done() {
            clear(app, &shown);
            app.ui.say(&app.ui.err.good(&format!("{} in {}", progress.words(), took(started.elapsed()))));
            return Ok(progress.proxies);
        }
        if started.elapsed() >= limit {
            clear(app, &shown);
            return Err(late(&progress, limit));
        }
        if started.elapsed() >= SILENT {
            show(app, &mut shown, &progress);
        }
        sleep(PAUSE).await;
    }
}

/// How far one object as it is has got.
///
/// # Errors
/// When Pilot does not answer.
pub async fn state(pilots: &mut [Daemon], change: &Change) -> Result<Progress, Error> {
    ask(pilots, std::slice::from_ref(change), Duration::ZERO).await
}

async fn ask(pilots: &mut [Daemon], changes: &[Change], held: Duration) -> Result<Progress, Error> {
    let mut progress = Progress { is_known: true, ..Progress::default() };
    for change in changes {
        // A proxy is connected to one Pilot, so counts add up over Pilots; over changes, the one that is furthest behind
        // counts.
        let mut one = Progress { is_known: true, ..Progress::default() };
        for pilot in &mut *pilots {
            let question = format!("{}&timeout={:.3}", change.question(), held.as_secs_f64());
            one.add(change, &pilot.connection.get(&question).await?);
        }
        progress.is_known &= one.is_known;
        progress.waiting.append(&mut one.waiting);
        progress.refused.append(&mut one.refused);
        progress.problems.append(&mut one.problems);
        if one.proxies > progress.proxies {
            progress.applied += one.proxies - progress.proxies;
            progress.proxies = one.proxies;
        }
        progress.applied =
            progress.applied.min(progress.proxies.saturating_sub(one.proxies.saturating_sub(one.applied)));
    }
    Ok(progress)
}

fn show(app: &App, shown: &mut String, progress: &Progress) {
    let mut words = format!("waiting: {}", progress.words());
    if let Some(first) = progress.waiting.first() {
        let others = progress.waiting.len() - 1;
        words.push_str(&format!("; not yet: {first}"));
        if others > 0 {
            words.push_str(&format!(" and {others} more"));
        }
    }
    if words == *shown {
        return;
    }
    if app.ui.is_live {
        app.ui.progress(&words);
    } else {
        app.ui.say(&words);
    }
    *shown = words;
}

fn clear(app: &App, shown: &str) {
    if !shown.is_empty() {
        app.ui.progress("");
    }
}

fn late(progress: &Progress, limit: Duration) -> Error {
    let error = Error::timeout(format!("{} after {}", progress.words(), took(limit)));
    let lagging: Vec<&str> = progress.waiting.iter().map(String::as_str).collect();
    let error = if lagging.is_empty() { error } else { error.because(format!("not yet: {}", lagging.join(", "))) };
    error.hint("the change is made; see how far it gets with `meshctl proxy-status`")
}

/// A short time in words: `38 ms`, `2.4 s`.
#[must_use]
pub fn took(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ if time.subsec_millis() < 50 => format!("{} s", time.as_secs()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(known: bool, proxies: u64, applied: u64, waiting: &[&str]) -> Applied {
        Applied {
            known,
            accepted: true,
            problems: Vec::new(),
            proxies,
            applied,
            waiting: waiting.iter().map(|w| (*w).to_owned()).collect(),
            rejected: Vec::new(),
        }
    }

    fn change() -> Change {
        Change {
            kind: "RouteRule".into(),
            word: "route-rule".into(),
            namespace: "default".into(),
            name: "reviews".into(),
            version: Some("7".into()),
        }
    }

    #[test]
    fn a_change_is_done_when_every_pilot_knows_it_and_every_proxy_has_applied_it() {
        for (answers, done) in [
            (vec![answer(true, 3, 3, &[])], true),
            (vec![answer(true, 3, 3, &[]), answer(false, 0, 0, &[])], false),
            (vec![answer(true, 3, 2, &["a.default"])], false),
            (vec![answer(true, 0, 0, &[])], true),
        ] {
            let mut progress = Progress { is_known: true, ..Progress::default() };
            answers.iter().for_each(|a| progress.add(&change(), a));
            assert_eq!(progress.is_done(), done, "{answers:?}");
        }
    }

    #[test]
    fn an_object_that_pilot_does_not_use_is_a_problem() {
        let mut progress = Progress { is_known: true, ..Progress::default() };
        let refused = Applied { accepted: false, problems: vec!["no such service".into()], ..answer(true, 0, 0, &[]) };
        progress.add(&change(), &refused);
        assert_eq!(progress.problems, ["route-rule default/reviews is not in force: no such service"]);
    }

    #[test]
    fn questions_name_the_version_or_the_deletion() {
        assert_eq!(change().question(), "/v1/applied?kind=RouteRule&namespace=default&name=reviews&resourceVersion=7");
        let deleted = Change { version: None, ..change() };
        assert_eq!(deleted.question(), "/v1/applied?kind=RouteRule&namespace=default&name=reviews&deleted=true");
    }
}
