//! The local platform's API server, in this process, with no node behind it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use local::api::{
    Api, ApiConfig, ApiError, ApiResult, Duplex, ExecRequest, ExecSession, LogRequest, PodRef, PodStreams, Store,
    kubeconfig, serve,
};
use runtime::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

use crate::run::Home;

/// A server with the mesh's kinds installed, and a home whose commands are about it.
pub(crate) struct Server {
    pub(crate) home: Home,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let home = Home::new();
        let dir = home.path().join("state");
        std::fs::create_dir(&dir).expect("made");
        let (ready, is_ready) = channel();
        let (stop, stopped) = oneshot::channel();
        let state = dir.clone();
        let thread = std::thread::spawn(move || run(&state, &ready, stopped));
        is_ready.recv().expect("the API starts");
        let kubeconfig = dir.join("kubeconfig").display().to_string();
        let home = home.with(&["--kubeconfig", &kubeconfig]);
        Server { home, stop: Some(stop), thread: Some(thread) }
    }

    /// Installs the mesh's kinds, without the webhooks of a Pilot that does not run here.
    pub(crate) fn with_kinds() -> Self {
        let server = Server::start();
        let manifests = server.home.run(&["install", "--dry-run", "-o", "json"]).stdout;
        let list: serde_json::Value = serde_json::from_str(&manifests).expect("JSON");
        let kinds: Vec<&serde_json::Value> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|o| o["kind"] == "CustomResourceDefinition")
            .collect();
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": kinds });
        let ran = server.home.run_with_input(&["apply", "-f", "-"], &list.to_string());
        assert_eq!(ran.code, 0, "{ran:?}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(dir: &Path, ready: &Sender<()>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(Store::open(dir).expect("a store"));
        let config = ApiConfig { pki: dir.join("pki") };
        let api = Api::open(store.clone(), &config, Arc::new(NoNode)).expect("an API");
        let _ = store.create("namespaces", serde_json::json!({ "metadata": { "name": "default" } }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        kubeconfig::write(&dir.join("kubeconfig"), "test", port, api.pki()).expect("written");
        let tasks = Tasks::new();
        serve(&api, vec![listener], &tasks).expect("it serves");
        ready.send(()).expect("somebody waits");
        let _ = stopped.await;
    });
}

/// A node that runs nothing.
struct NoNode;

impl PodStreams for NoNode {
    fn log(&self, _: LogRequest) -> BoxFuture<'_, ApiResult<mpsc::Receiver<io::Result<Bytes>>>> {
        Box::pin(async { Err(nothing()) })
    }

    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, ApiResult<ExecSession>> {
        Box::pin(async { Err(nothing()) })
    }

    fn port_forward(&self, _: PodRef, _: u16) -> BoxFuture<'_, ApiResult<Box<dyn Duplex>>> {
        Box::pin(async { Err(nothing()) })
    }
}

fn nothing() -> ApiError {
    ApiError::internal("nothing runs here")
}
