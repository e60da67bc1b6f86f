//! Starts the parts, joins them together, and ends them in order.

use std::convert::Infallible;
use std::sync::Arc;

use install::inject::Injection;
use kube::Client;
use runtime::admin::{self, Limits};
use runtime::exit::Failure;
use runtime::logging::Logging;
use runtime::signals::Shutdown;
use runtime::svid::client::{Pem, plain_dial};
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{self, KeyKind, PeerVerifier, Peers};
use runtime::tls::{Handshakes, TlsListener};
use runtime::{Tasks, daemon};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::server::TlsStream;

use crate::debug::{self, Debug};
use crate::keys::{Fetcher, Follower, KeySets};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::settings::{Listen, Settings};
use crate::snapshot::{self, Snapshots};
use crate::source::kubernetes;
use crate::status;
use crate::webhook;
use crate::xds::{self, Ads, OwnIdentity, Proxies};
use runtime::certificate::Certificate;
use runtime::token::Authenticator;

/// Connections to the webhooks and to the debug port at a time, each.
const CONNECTIONS: usize = 256;

/// Runs until a signal, or until a part that cannot be done without ends.
///
/// # Errors
///
/// Why it cannot start or go on, with what to do about it.
pub async fn run(settings: Settings, logging: Logging) -> Result<(), Failure> {
    let shutdown = Shutdown::listen()?;
    let client = daemon::api_client(settings.kubeconfig.as_deref(), "mesh-pilot").await?;
    let drain = settings.drain;
    let pilot = Pilot::start(settings, client, Some(logging)).await?;
    daemon::until_the_end(shutdown, &pilot.tasks, drain, "proxies keep what they have and connect to another replica")
        .await
}

/// A running Pilot.
pub struct Pilot {
    /// Where it listens.
    pub addresses: Listen,
    /// What it serves.
    pub snapshots: Snapshots,
    /// Whom it serves.
    pub proxies: Proxies,
    /// Its tasks; stop them to end it.
    pub tasks: Tasks,
}

impl Pilot {
    /// Starts everything: watches, registry, ADS, webhooks, debug port. The process's `logging` is given when the debug
    /// port may change it.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be used or a port is taken.
    pub async fn start(settings: Settings, client: Client, logging: Option<Logging>) -> Result<Self, Failure> {
        let certificate = Certificate::load(&settings.certificates).map_err(|error| {
            let hint = format!("`meshctl install` puts it into the Secret {}", api::names::PILOT_CERT_SECRET);
            Failure::new(error).with_hint(hint)
        })?;
        let Listen { xds, webhooks, debug } = settings.listen;
        let (xds_listener, webhooks) = (daemon::bind(xds).await?, daemon::bind(webhooks).await?);
        let debug = daemon::bind(debug).await?;
        let addresses =
            Listen { xds: xds_listener.local_addr()?, webhooks: webhooks.local_addr()?, debug: debug.local_addr()? };
        let tasks = Tasks::new();
        let registered = runtime::metrics::Metrics::new("pilot");
        let metrics = Metrics::new(&registered);
        let (publisher, snapshots) = snapshot::channel();
        let proxies = Proxies::default();
        let authenticator = Authenticator::new(client.clone(), [api::names::TOKEN_AUDIENCE]);
        let name: Arc<str> = settings.pod.as_str().into();

        let (changes, receiver) = mpsc::channel(kubernetes::QUEUE);
        kubernetes::watch(&client, &tasks, &changes);
        let registry = Registry::new(settings.mesh.clone());
        let keys = KeySets::default();
        let follower = Follower {
            fetcher: Fetcher::of_machine(settings.allows_local_keys),
            wanted: registry.wanted_keys(),
            changes,
            state: keys.clone(),
        };
        tasks.spawn("keys", follower.run(tasks.token().clone()));
        registered.register(|registry| registry.register_collector(Box::new(keys.clone())));
        tasks.spawn_vital("registry", {
            let running = registry.run(receiver, publisher, metrics.clone(), tasks.token().clone());
            async move {
                running.await;
                Ok::<(), Infallible>(())
            }
        });
        let status = status::Writer::new(client.clone(), snapshots.clone());
        tasks.spawn("status", status.run(tasks.token().clone()));
        tasks.spawn("certificate", certificate.clone().follow(tasks.token().clone()));
        let identity = identity(&settings, &registered, &tasks);
        let ads = Ads {
            identity: identity.clone(),
            authenticator: authenticator.clone(),
            snapshots: snapshots.clone(),
            proxies: proxies.clone(),
            metrics,
            tasks: tasks.clone(),
            name: name.clone(),
        };
        xds::serve(ads, xds_listener, &certificate, &tasks)?;
        let injection = injection(&settings, certificate.clone());
        let debugging = Debug {
            authenticator,
            identity,
            snapshots: snapshots.clone(),
            proxies: proxies.clone(),
            keys,
            name,
            logging,
        };
        let limits = Limits { connections: CONNECTIONS, grace: settings.drain, ..Limits::default() };
        let config = certificate.server_config(&[b"http/1.1"])?;
        let listener = TlsListener::new(webhooks, config, Handshakes::default());
        let router = webhook::router(injection);
        tasks.spawn("http server", admin::serve(listener, router, limits, tasks.token().clone()));
        serve_debug(debugging, (debug, limits), &certificate, registered.router(), &tasks)?;
        tracing::info!(xds = %addresses.xds, webhooks = %addresses.webhooks, debug = %addresses.debug, "listening");
        Ok(Pilot { addresses, snapshots, proxies, tasks })
    }
}

/// Serves the debug port. Who shows an SVID there must show a good one; who shows none has a token.
fn serve_debug(
    debugging: Debug,
    (listener, limits): (TcpListener, Limits),
    certificate: &Certificate,
    metrics: axum::Router,
    tasks: &Tasks,
) -> Result<(), Failure> {
    let verifier = PeerVerifier::new(debugging.identity.svids.clone(), Peers::Members).optional();
    let config = certificate.verifying_server_config(Arc::new(verifier), &[b"http/1.1"])?;
    let listener = TlsListener::new(listener, config, Handshakes::default());
    let router = debug::router(debugging, metrics);
    let by_certificate = move |io: &TlsStream<TcpStream>| {
        let peer = svid::peer(io.get_ref().1.peer_certificates());
        router.clone().layer(axum::Extension(debug::Shown(peer.map(|peer| peer.id))))
    };
    tasks.spawn("debug server", admin::serve_each(listener, by_certificate, limits, tasks.token().clone()));
    Ok(())
}

/// Begins to ask the CA for Pilot's own identity; what comes with it is what proxies' certificates are verified with.
fn identity(settings: &Settings, metrics: &runtime::metrics::Metrics, tasks: &Tasks) -> OwnIdentity {
    let (publisher, svids) = svid::channel();
    let status = Status::default();
    let roots = Pem::File(settings.certificates.join("ca.crt"));
    let renewal = Renewal {
        authority: settings.ca.authority(roots, plain_dial()),
        account: settings.account.clone(),
        key: KeyKind::P256,
        lifetime: None,
        publisher,
        status: status.clone(),
    };
    svid::metrics::register(metrics, svids.clone(), status.clone());
    tasks.spawn("identity", renewal.run(tasks.token().clone()));
    OwnIdentity { svids, status, renewals: Arc::new(watch::Sender::new(0)) }
}

/// What injection depends on, with the root certificate in force.
fn injection(settings: &Settings, certificate: Certificate) -> webhook::InjectionSource {
    let images = settings.images.clone();
    Arc::new(move || Injection::new(images.clone(), &certificate.root_pem()))
}
