//! Starts the parts, joins them together, and ends them in order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::names::{CA_CERT_SECRET, CA_PLUGGED_SECRET, CA_ROOT_SECRET, SYSTEM_NAMESPACE};
use arc_swap::ArcSwap;
use kube::Client;
use runtime::admin::{self, Limits};
use runtime::certificate::Certificate;
use runtime::exit::{Code, Failure};
use runtime::signals::Shutdown;
use runtime::svid::{self, Clock, PeerVerifier, Peers};
use runtime::tls::{Handshakes, TlsListener};
use runtime::{CancellationToken, Tasks, daemon};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tonic::transport::Server;

use crate::authority::{Authority, Plan, Policy, ROOT_SKEW};
use crate::caller::Callers;
use crate::debug::{self, Debug, Rotating};
use crate::holders::kept::Holders;
use crate::holders::{Record, seconds};
use crate::metrics::Metrics;
use crate::naming::Naming;
use crate::rotation::pilots::Pilots;
use crate::rotation::{Rotator, Waiting};
use crate::service::Issuing;
use crate::settings::{Listen, Settings};
use crate::store::Store;

/// Connections to the debug port at a time.
const CONNECTIONS: usize = 64;
/// Streams on one connection; a caller needs one.
const STREAMS: u32 = 16;
/// How long one request may take, slow senders included.
const REQUEST: Duration = Duration::from_secs(10);
/// After so long a connection is closed in order: whoever holds it open asks again by a new one.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// How often a silent connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Largest request's headers: a token and little more.
const HEADER_BYTES: u32 = 64 * 1024;
/// A root that is younger has signed nothing without a record.
const NEW: Duration = Duration::from_secs(60);
/// How often the Secrets are looked at while a root is rotated.
const LOOK_CLOSELY: Duration = Duration::from_secs(1);
/// How often the Secrets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often and after which pause the API server is asked again at the start.
const ATTEMPTS: (u32, Duration) = (10, Duration::from_secs(1));

/// Runs until a signal, or until a part that cannot be done without ends.
///
/// # Errors
///
/// Why it cannot start or go on, with what to do about it.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let mut shutdown = Shutdown::listen()?;
    let client = daemon::api_client(settings.kubeconfig.as_deref(), "mesh-ca").await?;
    let drain = settings.drain;
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let ca = tokio::select! {
        ca = Ca::start(settings, client, clock) => ca?,
        _ = shutdown.recv() => return Ok(()),
    };
    daemon::until_the_end(shutdown, &ca.tasks, drain, "certificates that were issued hold on").await
}

/// A running CA.
pub struct Ca {
    /// Where it listens.
    pub addresses: Listen,
    /// Who signs.
    pub authority: Arc<ArcSwap<Authority>>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Its tasks; stop them to end it.
    pub tasks: Tasks,
}

impl Ca {
    /// Finds or makes the key, then serves.
    ///
    /// # Errors
    ///
    /// When the key or the serving certificate cannot be used, or a port is taken.
    pub async fn start(settings: Settings, client: Client, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let certificate = Certificate::load(&settings.certificates).map_err(|error| {
            Failure::new(error).with_hint(format!("`meshctl install` puts it into the Secret {CA_CERT_SECRET}"))
        })?;
        let store = Store::new(client.clone());
        let authority = authority(&store, &settings.policy, &clock).await?;
        let (publisher, svids) = svid::channel_with_clock(Arc::clone(&clock));
        publisher.publish_bundle(authority.bundle().clone());
        let authority = Arc::new(ArcSwap::from_pointee(authority));
        let [csr, debug] = [daemon::bind(settings.listen.csr).await?, daemon::bind(settings.listen.debug).await?];
        let addresses = Listen { csr: csr.local_addr()?, debug: debug.local_addr()? };
        let tasks = Tasks::new();
        let registered = runtime::metrics::Metrics::new("ca");
        let metrics = Metrics::new(&registered, Arc::clone(&authority));
        tasks.spawn("certificate", certificate.clone().follow(tasks.token().clone()));
        let following = Following {
            store: store.clone(),
            look: Arc::default(),
            seen: watch::Sender::new(0),
            policy: settings.policy.clone(),
            clock,
            authority: Arc::clone(&authority),
            publisher,
            metrics: Arc::clone(&metrics),
        };
        let (look, seen) = (Arc::clone(&following.look), following.seen.subscribe());
        tasks.spawn("authority", following.run(tasks.token().clone()));
        let holders = Holders::new(client.clone(), before(&authority.load()));
        tasks.spawn("holders", holders.clone().run(tasks.token().clone()));
        let naming = naming(&authority.load(), &holders).await;
        let rotator = Rotator {
            client: client.clone(),
            store: store.clone(),
            policy: settings.policy.clone(),
            authority: Arc::clone(&authority),
            holders: holders.clone(),
            pilots: Pilots {
                client: client.clone(),
                certificate: certificate.clone(),
                port: settings.pilot_debug,
                naming: naming.clone(),
            },
            naming: naming.clone(),
            pod: settings.pod.clone(),
            look: Arc::clone(&look),
            looked: seen.clone(),
            waiting: watch::Sender::new(Waiting::at_first(&settings.pod)),
        };
        let waiting = rotator.waiting.subscribe();
        tasks.spawn("rotation", rotator.run(tasks.token().clone()));
        let verifier = Arc::new(PeerVerifier::new(svids.clone(), Peers::Members).optional());
        let config = certificate.verifying_server_config(verifier, &[b"h2"])?;
        let callers = Callers::new(client.clone(), svids, naming.clone());
        serve(
            Issuing {
                authority: Arc::clone(&authority),
                callers,
                metrics: Arc::clone(&metrics),
                holders,
                naming: naming.clone(),
                permits: Arc::new(Semaphore::new(settings.bounds.requests)),
            },
            csr,
            (config, settings.bounds.connections),
            &tasks,
        );
        let rotating = Rotating { store, policy: settings.policy.clone(), look, seen, waiting, naming };
        let debugging = Debug::new(client, Arc::clone(&authority), Arc::clone(&metrics), rotating, &settings.pod);
        let router = debug::router(debugging, registered.router());
        let config = certificate.server_config(&[b"http/1.1"])?;
        let listener = TlsListener::new(debug, config, Handshakes::default());
        let limits = Limits { connections: CONNECTIONS, grace: settings.drain, ..Limits::default() };
        tasks.spawn("http server", admin::serve(listener, router, limits, tasks.token().clone()));
        tracing::info!(csr = %addresses.csr, debug = %addresses.debug, "listening");
        Ok(Ca { addresses, authority, metrics, tasks })
    }
}

/// In which name to issue at first. Without the records it is the former one, which everybody accepts.
async fn naming(authority: &Authority, holders: &Holders) -> Naming {
    let naming = Naming::of(authority.policy());
    if !naming.is_known() {
        match holders.all(authority.now().unwrap_or_else(SystemTime::now)).await {
            Ok(ledger) => naming.remember(&ledger, authority.policy(), &authority.bundle().version()),
            Err(error) => {
                let error = runtime::exit::chain(&error);
                tracing::warn!(error, "who knows the new name of the trust domain cannot be read now");
            }
        }
    }
    naming
}

/// What may have been issued before there were records, in a mesh that is older than they are.
fn before(authority: &Authority) -> Option<Record> {
    let (now, policy) = (authority.now()?, authority.policy());
    let made = authority.valid().0.checked_add(ROOT_SKEW)?;
    let is_new = now.duration_since(made).is_ok_and(|age| age < NEW);
    (!is_new).then(|| Record {
        issuer: authority.issuer_key().to_owned(),
        bundle: "-".to_owned(),
        ends: seconds(now + policy.longest),
        id: "-".to_owned(),
    })
}

/// Finds or makes the authority; waits for an API server that is not there yet.
async fn authority(store: &Store, policy: &Policy, clock: &Arc<dyn Clock>) -> Result<Authority, Failure> {
    let now = clock.current_time().map(|now| SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()));
    let now = now.unwrap_or_else(SystemTime::now);
    let mut attempt = 1;
    let material = loop {
        match store.find_or_make(policy, now).await {
            Ok(material) => break material,
            Err(error) if error.is_passing() && attempt < ATTEMPTS.0 => {
                tracing::warn!(error = runtime::exit::chain(&error), again_in = ?ATTEMPTS.1, "cannot ask for the key");
                attempt += 1;
                tokio::time::sleep(ATTEMPTS.1).await;
            }
            Err(error) => {
                let code = if error.is_passing() { Code::Unreachable } else { Code::Failed };
                return Err(Failure::new(error).with_code(code).with_hint(mend()));
            }
        }
    };
    let origin = material.origin;
    let made = material.authority(policy.clone(), Arc::clone(clock)).inspect(|made| {
        let (trust_domain, bundle) = (&policy.domain, made.bundle().version());
        tracing::info!(origin = made.origin().name(), %trust_domain, bundle, "the authority is ready");
    });
    made.map_err(|error| {
        let secret = match origin {
            crate::authority::Origin::SelfMade => CA_ROOT_SECRET,
            crate::authority::Origin::PluggedIn => CA_PLUGGED_SECRET,
        };
        Failure::new(Unusable { secret, source: error }).with_hint(mend())
    })
}

fn mend() -> String {
    format!(
        "nothing was changed; mend or restore the Secret. Only if no workload needs its identity any more, delete \
         {SYSTEM_NAMESPACE}/{CA_ROOT_SECRET}: a new root is made then"
    )
}

/// The Secret holds an authority that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the authority in the Secret {SYSTEM_NAMESPACE}/{secret} cannot be used")]
struct Unusable {
    secret: &'static str,
    #[source]
    source: crate::authority::MaterialError,
}

fn serve(
    issuing: Issuing,
    listener: TcpListener,
    (config, connections): (Arc<rustls::ServerConfig>, usize),
    tasks: &Tasks,
) {
    let metrics = Arc::clone(&issuing.metrics);
    let listener = TlsListener::new(listener, config, Handshakes::default());
    let incoming = listener.into_bounded_stream(connections, move || metrics.turned_away());
    let stopped = tasks.token().clone().cancelled_owned();
    let server = Server::builder()
        .timeout(REQUEST)
        .max_connection_age(CONNECTION_AGE)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS))
        .http2_max_header_list_size(Some(HEADER_BYTES))
        .serve_with_incoming_shutdown(issuing, incoming, stopped);
    tasks.spawn_vital("csr server", server);
}

/// Follows the Secrets while the CA runs.
struct Following {
    store: Store,
    /// Has it look now.
    look: Arc<Notify>,
    /// How often it has looked.
    seen: watch::Sender<u64>,
    policy: Policy,
    clock: Arc<dyn Clock>,
    authority: Arc<ArcSwap<Authority>>,
    publisher: svid::Publisher,
    metrics: Arc<Metrics>,
}

impl Following {
    async fn run(self, cancelled: CancellationToken) {
        let mut seen = None;
        loop {
            let is_rotating = self.authority.load().plan() != Plan::Idle;
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(if is_rotating { LOOK_CLOSELY } else { LOOK_EVERY }) => {}
            }
            match self.store.find().await {
                Ok(Some(found)) if seen.as_ref() != Some(&found) => {
                    let authority = found.authority(self.policy.clone(), Arc::clone(&self.clock));
                    seen = Some(found);
                    match authority {
                        Ok(authority) => self.take(authority),
                        Err(error) => self.reject(&runtime::exit::chain(&error)),
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    tracing::warn!("the authority's Secret is gone; the CA goes on with what it has until it ends")
                }
                Err(error) if error.is_passing() => {
                    tracing::debug!(error = runtime::exit::chain(&error), "the Secrets cannot be read now");
                }
                Err(error) => self.reject(&runtime::exit::chain(&error)),
            }
            self.seen.send_modify(|count| *count += 1);
        }
    }

    /// Takes another authority if everybody who trusts the old one trusts it too.
    fn take(&self, authority: Authority) {
        let old = self.authority.load();
        if old.is_like(&authority) {
            return;
        }
        let (domain, new, now) = (&self.policy.domain, authority.bundle(), old.bundle().roots(&self.policy.domain));
        if !new.roots(domain).iter().any(|root| now.contains(root)) {
            return self.reject("it has none of the roots that the mesh trusts now: every connection would break");
        }
        tracing::info!(bundle = new.version(), "another authority is in force");
        self.publisher.publish_bundle(new.clone());
        self.authority.store(Arc::new(authority));
    }

    fn reject(&self, reason: &str) {
        self.metrics.rejected_change();
        tracing::warn!(reason, "the authority in the Secret cannot be used; the one before stays in force");
    }
}
