//! A server on loopback, with a node that only pretends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use local::api::{
    Api, ApiConfig, ApiError, ApiResult, Duplex, ExecRequest, ExecSession, LogRequest, PodRef, PodStreams, Store,
};
use runtime::Tasks;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub(crate) struct Server {
    directory: TempDir,
    pub(crate) api: Arc<Api>,
    tasks: Tasks,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let store = Arc::new(Store::open(directory.path()).expect("a store"));
        let config = ApiConfig { pki: directory.path().join("pki") };
        let api = Api::open(store, &config, Arc::new(Pretender)).expect("an API");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let tasks = Tasks::new();
        local::api::serve(&api, vec![listener], &tasks).expect("served");
        local::controllers::start(&api, &tasks);
        let server = Self { directory, api, tasks };
        local::api::kubeconfig::write(&server.kubeconfig(), "test", port, server.api.pki()).expect("written");
        server
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    pub(crate) async fn config(&self) -> kube::Config {
        let file = Kubeconfig::read_from(self.kubeconfig()).expect("a kubeconfig");
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a usable one")
    }

    pub(crate) async fn client(&self) -> kube::Client {
        kube::Client::try_from(self.config().await).expect("a client")
    }

    /// A client that shows a token instead of a certificate.
    pub(crate) async fn client_with_token(&self, token: &str) -> kube::Client {
        let mut config = self.config().await;
        config.auth_info = kube::config::AuthInfo { token: Some(token.to_owned().into()), ..Default::default() };
        kube::Client::try_from(config).expect("a client")
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop(Duration::from_secs(5)).await.expect("every task ends");
    }
}

/// Asks until the answer is there, for ten seconds at most.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Logs three lines, echoes what is sent to port 7 four bytes at a time and to `cat`, and knows `exit N`.
struct Pretender;

impl PodStreams for Pretender {
    fn log(&self, request: LogRequest) -> BoxFuture<'_, ApiResult<mpsc::Receiver<std::io::Result<Bytes>>>> {
        async move {
            let (sender, receiver) = mpsc::channel(4);
            let skip =
                request.tail_lines.map_or(0, |wanted| 3usize.saturating_sub(usize::try_from(wanted).expect("small")));
            for line in ["one\n", "two\n", "three\n"].iter().skip(skip) {
                sender.send(Ok(Bytes::from_static(line.as_bytes()))).await.expect("room");
            }
            Ok(receiver)
        }
        .boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, ApiResult<ExecSession>> {
        async move {
            let (stdin, input) = tokio::io::duplex(1024);
            let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
            let (stdout, code): (Box<dyn tokio::io::AsyncRead + Send + Unpin>, i32) = match words.as_slice() {
                ["cat"] => (Box::new(input), 0),
                ["exit", code] => (Box::new(tokio::io::empty()), code.parse().expect("a number")),
                other => (Box::new(std::io::Cursor::new(format!("{}: {}\n", request.container, other.join(" ")))), 0),
            };
            let stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>> =
                request.stdin.then(|| Box::new(stdin) as _);
            let exit = async move { Ok(code) }.boxed();
            Ok(ExecSession { stdin, stdout: Some(stdout), stderr: None, resize: None, exit })
        }
        .boxed()
    }

    fn port_forward(&self, _pod: PodRef, port: u16) -> BoxFuture<'_, ApiResult<Box<dyn Duplex>>> {
        async move {
            if port != 7 {
                return Err(ApiError::bad_request(format!("nothing listens on port {port}")));
            }
            let (ours, theirs) = tokio::io::duplex(1024);
            let echo = tokio_util::task::TaskTracker::new();
            echo.spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(ours);
                let mut word = [0; 4];
                while reader.read_exact(&mut word).await.is_ok() && &word != b"quit" {
                    writer.write_all(&word).await.expect("written");
                }
            });
            Ok(Box::new(theirs) as Box<dyn Duplex>)
        }
        .boxed()
    }
}
