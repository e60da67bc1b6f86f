//! `ca rotate root`: another root for the mesh, in stages, each of which waits until everybody has acknowledged it.
//!
//! What the CA keeps says how far it is, so that the command may be given again after whatever has interrupted it.

use std::time::Duration;

use api::messages::{AuthorityStatus, Proxies, Rotation, SvidStatus};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use crate::App;
use crate::args::duration;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::mesh::{self, Daemon};
use crate::wait::took;

/// How often it is looked who has acknowledged.
const EVERY: Duration = Duration::from_millis(200);

/// Arguments of `ca rotate`.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// What to replace
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
    /// Go through all stages; else take the next one, once the one before is acknowledged
    #[arg(long)]
    wait: bool,
    /// How long to wait for each acknowledgement
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
/// When a step is refused, or somebody does not acknowledge it in time: it is named, and nothing has been taken away.
pub(super) fn run(app: &App, args: &RotateArgs) -> Result<(), Error> {
    let What::Root = args.what;
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let mut rotation = Rotating { app, timeout: args.timeout, cas: mesh::cas(&cluster).await?, cluster };
        // What was done before must be acknowledged before anything is done.
        let mut stage = rotation.status().await?.rotation;
        rotation.settle(stage).await?;
        loop {
            let (step, next, words) = match stage {
                Rotation::None => ("add", Rotation::Added, "a new root is trusted by everybody"),
                Rotation::Added => ("sign", Rotation::Signing, "every certificate is renewed under the new root"),
                Rotation::Signing => ("retire", Rotation::None, "the old root is trusted by nobody"),
            };
            let began = Instant::now();
            rotation.step(step).await?;
            stage = next;
            rotation.settle(stage).await?;
            app.ui.line(&format!("{words} ({})", took(began.elapsed())))?;
            if stage == Rotation::None {
                return Ok(());
            }
            if !args.wait {
                app.ui.say("go on with the same command, or go through all stages with --wait");
                return Ok(());
            }
        }
    })
}

struct Rotating<'a> {
    app: &'a App,
    timeout: Duration,
    cas: Vec<Daemon>,
    cluster: Cluster,
}

impl Rotating<'_> {
    async fn status(&mut self) -> Result<AuthorityStatus, Error> {
        match self.cas.first_mut() {
            Some(ca) => ca.connection.get("/v1/authority").await,
            None => Err(Error::unreachable("there is no CA")),
        }
    }

    async fn step(&mut self, step: &str) -> Result<(), Error> {
        let Some(ca) = self.cas.first_mut() else { return Err(Error::unreachable("there is no CA")) };
        let _: AuthorityStatus = ca.connection.post(&format!("/v1/rotation/{step}")).await?;
        Ok(())
    }

    /// Waits until all CAs are at this stage, and every Pilot and proxy has what belongs to it.
    async fn settle(&mut self, stage: Rotation) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        let authority = self.agreed(stage, deadline).await?;
        let mut pilots = mesh::pilots(&self.cluster).await?;
        let mut asked_at = None;
        loop {
            let mut all: Vec<Proxies> = Vec::new();
            for pilot in &mut pilots {
                all.push(pilot.connection.get("/v1/proxies").await?);
            }
            let lagging = laggards(&all, &authority);
            if lagging.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::timeout(format!("not everybody has followed after {}", took(self.timeout)))
                    .because(format!("lagging: {}", lagging.join(", ")))
                    .hint("both roots stay trusted meanwhile; mend what lags, then give the same command again"));
            }
            // Who has come since, or missed it, is asked again.
            if asked_at.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(5)) {
                asked_at = Some(Instant::now());
                for pilot in &mut pilots {
                    let _: Proxies = pilot.connection.post("/v1/renew").await?;
                }
            }
            if self.app.ui.is_live {
                self.app.ui.say(&self.app.ui.err.dim(&format!("waiting for {}", lagging.join(", "))));
            }
            sleep(EVERY).await;
        }
    }

    /// Waits until all CAs say the same.
    async fn agreed(&mut self, stage: Rotation, deadline: Instant) -> Result<AuthorityStatus, Error> {
        loop {
            let mut all: Vec<AuthorityStatus> = Vec::new();
            for ca in &mut self.cas {
                all.push(ca.connection.get("/v1/authority").await?);
            }
            let of = |status: &AuthorityStatus| (status.rotation, status.bundle.clone(), status.issuer_key.clone());
            if let Some(first) = all.first()
                && first.rotation == stage
                && all.iter().all(|other| of(other) == of(first))
            {
                return Ok(first.clone());
            }
            if Instant::now() > deadline {
                let said = all.iter().map(|s| format!("{}: {:?}, bundle {}", s.ca, s.rotation, s.bundle));
                return Err(Error::timeout("the CAs do not agree").because(said.collect::<Vec<_>>().join("; ")));
            }
            sleep(EVERY).await;
        }
    }
}

/// Who does not have the roots, or the issuer, of today. A proxy that went away is no laggard.
fn laggards(all: &[Proxies], authority: &AuthorityStatus) -> Vec<String> {
    let follows = |svid: &SvidStatus| svid.bundle == authority.bundle && svid.issuer == authority.issuer_key;
    let mut lagging = Vec::new();
    for pilot in all {
        if !pilot.svid.as_ref().is_some_and(follows) {
            lagging.push(pilot.pilot.clone());
        }
        // A stock Envoy has no identity of the mesh's.
        let ours = pilot.proxies.iter().filter(|proxy| !proxy.version.starts_with("envoy"));
        lagging.extend(ours.filter(|proxy| !proxy.svid.as_ref().is_some_and(follows)).map(|proxy| proxy.id.clone()));
    }
    lagging
}

#[cfg(test)]
mod tests {
    use api::messages::ProxyStatus;

    use super::*;

    fn svid(bundle: &str, issuer: &str) -> Option<SvidStatus> {
        Some(SvidStatus { bundle: bundle.to_owned(), issuer: issuer.to_owned(), ..SvidStatus::default() })
    }

    fn proxy(id: &str, version: &str, svid: Option<SvidStatus>) -> ProxyStatus {
        ProxyStatus {
            traffic: None,
            id: id.to_owned(),
            role: "sidecar".to_owned(),
            ip: "10.0.0.1".to_owned(),
            version: version.to_owned(),
            connected_since: String::new(),
            svid,
            types: Vec::new(),
        }
    }

    #[test]
    fn who_has_other_roots_or_another_issuer_lags() {
        let authority =
            AuthorityStatus { bundle: "b".to_owned(), issuer_key: "k".to_owned(), ..AuthorityStatus::default() };
        let all = [Proxies {
            pilot: "pilot".to_owned(),
            svid: svid("b", "k"),
            proxies: vec![
                proxy("good", "0.1.0", svid("b", "k")),
                proxy("old-roots", "0.1.0", svid("a", "k")),
                proxy("old-issuer", "0.1.0", svid("b", "j")),
                proxy("nobody", "0.1.0", None),
                proxy("stock", "envoy 1.37.0", None),
            ],
            ..Proxies::default()
        }];
        assert_eq!(laggards(&all, &authority), ["old-roots", "old-issuer", "nobody"]);
    }
}
