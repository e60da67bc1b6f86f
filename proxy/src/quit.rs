//! Leaving because the application asks for it: for Jobs whose proxy is no native sidecar, which would never end otherwise.
//!
//! `POST /quit` (or `/quitquitquit`, as programs written for other meshes ask) on the admin and the metrics port begins the
//! same orderly end as SIGTERM. Only who is in the pod may ask: the connection must come from loopback.

use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use runtime::CancellationToken;
use runtime::admin::Peer;

/// The wish that the proxy leaves. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Quit {
    asked: CancellationToken,
}

impl Quit {
    /// Waits until somebody asks for it.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// The routes by which it is asked for.
    pub fn router(&self) -> Router {
        let quit = || {
            let quit = self.clone();
            post(move |Extension(peer): Extension<Peer>| async move { quit.ask(peer) })
        };
        Router::new().route("/quit", quit()).route("/quitquitquit", quit())
    }

    fn ask(&self, Peer(peer): Peer) -> (StatusCode, &'static str) {
        if !peer.ip().to_canonical().is_loopback() {
            return (StatusCode::FORBIDDEN, "only who is in the pod may ask the proxy to leave: ask 127.0.0.1\n");
        }
        self.asked.cancel();
        (StatusCode::OK, "leaving: what runs may finish\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_pod_itself_may_ask() {
        let quit = Quit::default();
        let peer = |address: &str| Peer(address.parse().expect("an address"));
        assert_eq!(quit.ask(peer("10.244.0.9:4711")).0, StatusCode::FORBIDDEN);
        assert!(!quit.asked.is_cancelled());
        assert_eq!(quit.ask(peer("[::ffff:127.0.0.1]:4711")).0, StatusCode::OK);
        quit.asked().await;
    }
}
