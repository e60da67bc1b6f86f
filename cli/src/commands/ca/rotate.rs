//! `ca rotate root`: another root for the mesh, in stages, each of which waits until everybody has acknowledged it.
//!
//! The CAs go through the stages by themselves; this begins it, or follows one that is under way.

use std::time::Duration;

use api::messages::{AuthorityStatus, Rotation};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::flags::duration;
use crate::mesh;
use crate::wait::took;

/// How often it is looked how far it is.
const EVERY: Duration = Duration::from_millis(200);
/// What is done when a stage is, in their order.
const DONE: [&str; 3] = [
    "a new root is trusted by everybody",
    "every certificate is renewed under the new root",
    "the old root is trusted by nobody",
];

const EXAMPLES: &str = "\
Examples:
  # Another root, to the end; nothing is interrupted
  meshctl ca rotate root --wait
  # Pods that take long to follow
  meshctl ca rotate root --wait --timeout 10m";

/// Arguments of `ca rotate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RotateArgs {
    /// What to replace
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
    /// Follow it to its end; else the CA goes on by itself, and `meshctl ca status` says how far it is
    #[arg(long)]
    wait: bool,
    /// How long to wait for each stage
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The self-made root of all identities
    Root,
}

/// Runs `ca rotate`.
///
/// # Errors
/// When it cannot begin, or somebody does not acknowledge a stage in time: it is named, and nothing has been taken away.
pub(super) fn run(app: &App, args: &RotateArgs) -> Result<(), Error> {
    let What::Root = args.what;
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let begun = begin(&cluster).await?;
        if !args.wait {
            app.ui.line(&format!("the rotation of the root is under way (stage: {})", stage_word(begun.rotation)))?;
            app.ui.say("the CA goes on by itself: `meshctl ca status` says how far it is, --wait follows");
            return Ok(());
        }
        follow(app, &cluster, &begun, args.timeout).await
    })
}

async fn begin(cluster: &Cluster) -> Result<AuthorityStatus, Error> {
    let mut cas = mesh::cas(cluster).await?;
    match cas.first_mut() {
        Some(ca) => ca.connection.post("/v1/rotation").await,
        None => Err(Error::unreachable("there is no CA")),
    }
}

/// Follows it until its end, over the ends of CAs too.
async fn follow(app: &App, cluster: &Cluster, begun: &AuthorityStatus, timeout: Duration) -> Result<(), Error> {
    let mut done = stages_done(begun);
    let mut began = Instant::now();
    let mut seen = begun.clone();
    let mut said = Vec::new();
    loop {
        let reached = stages_done(&seen);
        for words in DONE.iter().take(reached).skip(done) {
            app.ui.line(&format!("{words} ({})", took(began.elapsed())))?;
            began = Instant::now();
        }
        done = done.max(reached);
        if done == DONE.len() {
            return Ok(());
        }
        if began.elapsed() > timeout {
            return Err(late(&seen, timeout));
        }
        if app.ui.is_live && !seen.waiting_for.is_empty() && said != seen.waiting_for {
            app.ui.say(&app.ui.err.dim(&format!("waiting for {}", who(&seen))));
            said.clone_from(&seen.waiting_for);
        }
        sleep(EVERY).await;
        // A CA that is away for a moment is no failure: another one, or its successor, goes on.
        if let Ok(status) = super::first_status(cluster).await {
            seen = status;
        }
    }
}

fn late(seen: &AuthorityStatus, timeout: Duration) -> Error {
    let lagging = if seen.waiting_for.is_empty() { "nobody is known to lag".to_owned() } else { who(seen) };
    Error::timeout(format!("not everybody has followed after {}", took(timeout)))
        .because(format!("lagging: {lagging}"))
        .hint("both roots stay trusted meanwhile; mend what lags, and the CA goes on by itself")
}

/// Whom it waits for, as a person reads it.
pub(super) fn who(status: &AuthorityStatus) -> String {
    let mut names = status.waiting_for.join(", ");
    let more = status.waiting.saturating_sub(status.waiting_for.len().try_into().unwrap_or(u64::MAX));
    if more > 0 {
        names.push_str(&format!(" and {more} more"));
    }
    names
}

/// How many stages are done, of a rotation that has begun.
fn stages_done(status: &AuthorityStatus) -> usize {
    match (status.rotation, status.is_rotating) {
        (Rotation::Added, _) => 0,
        (Rotation::Signing, _) => 1,
        (Rotation::None, true) => 2,
        (Rotation::None, false) => 3,
    }
}

/// A stage as JSON has it.
pub(super) fn stage_word(stage: Rotation) -> &'static str {
    match stage {
        Rotation::None => "none",
        Rotation::Added => "added",
        Rotation::Signing => "signing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_counted_and_those_that_lag_are_named() {
        let at = |rotation, is_rotating| AuthorityStatus { rotation, is_rotating, ..AuthorityStatus::default() };
        for (status, expected) in [
            (at(Rotation::Added, true), 0),
            (at(Rotation::Signing, true), 1),
            (at(Rotation::None, true), 2),
            (at(Rotation::None, false), 3),
        ] {
            assert_eq!(stages_done(&status), expected);
        }
        let names = ["a.default", "b.default"].map(str::to_owned).to_vec();
        let lagging = AuthorityStatus { waiting_for: names, waiting: 5, ..AuthorityStatus::default() };
        assert_eq!(who(&lagging), "a.default, b.default and 3 more");
    }
}
