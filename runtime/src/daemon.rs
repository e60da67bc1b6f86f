//! What the daemons of the control plane have in common: a client of the API server, ports, and an end in order.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::Tasks;
use crate::exit::Failure;
use crate::signals::Shutdown;

/// A port is taken, or not ours to take.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
struct CannotListen {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Listens.
///
/// # Errors
///
/// When the port is taken, or not ours to take.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|source| Failure::new(CannotListen { address, source }))
}

/// Waits for a signal, or for the end of a task that cannot be done without, and stops all others. `words` say what that means.
///
/// # Errors
///
/// Why that task has ended.
pub async fn until_the_end(
    mut shutdown: Shutdown,
    tasks: &Tasks,
    drain: Duration,
    words: &'static str,
) -> Result<(), Failure> {
    let signal = tokio::select! {
        signal = shutdown.recv() => Some(signal),
        () = tasks.token().cancelled() => None,
    };
    tracing::info!(signal, "ending: {words}");
    if let Err(left) = tasks.stop(drain).await {
        tracing::warn!(?left, "ended before these were done");
    }
    tasks.failure().map_or(Ok(()), |failure| Err(Failure::new(failure)))
}

/// The client of the API server: the pod's own account, or what a kubeconfig says. `program` is who asks, for the hint.
///
/// # Errors
///
/// When neither is there, or it cannot be used.
#[cfg(feature = "kubernetes")]
pub async fn api_client(kubeconfig: Option<&std::path::Path>, program: &str) -> Result<kube::Client, Failure> {
    use crate::exit::Code;
    use kube::Config;
    use kube::config::{KubeConfigOptions, Kubeconfig};

    let config = match kubeconfig {
        None => Config::incluster().map_err(|error| {
            let hint = format!("outside of a pod, say which API server: `{program} --kubeconfig FILE`");
            Failure::usage(error).with_hint(hint)
        })?,
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(Failure::usage)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(Failure::usage)?
        }
    };
    kube::Client::try_from(config).map_err(|error| Failure::new(error).with_code(Code::Unreachable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let held = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free one");
        let address = held.local_addr().expect("an address");
        let failure = bind(address).await.expect_err("it is taken");
        assert!(failure.to_string().contains(&format!("cannot listen on {address}")), "{failure}");
    }
}
