//! `local exec`: a program in a pod.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::Mesh;
use super::streams::container;
use crate::app::App;
use crate::error::Error;
use crate::mesh;
use crate::resources::{name_of, namespace_of};

const EXAMPLES: &str = "\
Examples:
  # Call a service as a workload of the mesh does
  meshctl local exec deploy/productpage -- curl -s reviews:9080/reviews/0
  # A shell
  meshctl local exec -it deploy/productpage -- sh
  # In the proxy's container
  meshctl local exec deploy/productpage -c mesh-proxy -- mesh-proxy request GET /stats";

/// Arguments of `local exec`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExecArgs {
    /// POD, POD.NAMESPACE, or deploy/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// Container; by default the application's
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    /// Give it standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal
    #[arg(short = 't', long, requires = "stdin")]
    tty: bool,
    /// Program and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<String>,
}

/// Runs `local exec`; ends as the program ends.
///
/// # Errors
/// When there is no such pod or container, or the program cannot be run.
pub(super) fn run(app: &App, mesh: &Mesh, args: ExecArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = mesh.cluster().await?;
        let pod = mesh::find_pod(&cluster, app.namespace(&cluster), &args.pod).await?;
        let container = container(&pod, args.container.as_deref())?;
        let is_tty = args.tty && std::io::stdin().is_terminal();
        let parameters = AttachParams {
            container: Some(container),
            stdin: args.stdin,
            stdout: true,
            stderr: !is_tty,
            tty: is_tty,
            ..AttachParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace_of(&pod));
        let process = pods.exec(name_of(&pod), args.command, &parameters).await.map_err(|e| refused(&e, &args.pod))?;
        let raw = if is_tty { RawTerminal::enter() } else { None };
        let ended = attend(app, process, args.stdin).await;
        drop(raw);
        match ended? {
            0 => Ok(()),
            code => Err(Error::ended(code)),
        }
    })
}

fn refused(error: &kube::Error, pod: &str) -> Error {
    let words = match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    Error::failed(format!("cannot run a program in {pod}")).because(words)
}

/// Moves bytes until the program ends; gives its exit code.
async fn attend(app: &App, mut process: AttachedProcess, with_stdin: bool) -> Result<u8, Error> {
    let status = process.take_status();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let input = process.stdin();
    let size = process.terminal_size();
    let forward = async {
        if let (Some(mut remote), true) = (input, with_stdin) {
            let mut typed = typed();
            while let Some(bytes) = typed.recv().await {
                if remote.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = remote.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let resize = async {
        if let Some(mut sender) = size {
            use futures_util::SinkExt as _;
            let Ok(mut changes) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()) else {
                return;
            };
            loop {
                let (height, width) = console::Term::stdout().size();
                if sender.send(TerminalSize { height, width }).await.is_err() {
                    return;
                }
                changes.recv().await;
            }
        }
    };
    let output = async {
        let out = async {
            match stdout {
                Some(stream) => copy(stream, |bytes| app.ui.bytes(bytes)).await,
                None => Ok(()),
            }
        };
        let err = async {
            match stderr {
                Some(stream) => copy(stream, |bytes| app.ui.error_bytes(bytes)).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(out, err)
    };
    tokio::pin!(forward, resize, output);
    let mut resize_is_over = false;
    loop {
        tokio::select! {
            result = &mut output => { result?; break; }
            () = &mut forward => {}
            () = &mut resize, if !resize_is_over => resize_is_over = true,
        }
    }
    match status {
        Some(status) => status.await.map_or(Ok(0), |status| exit_code(&status)),
        None => Ok(0),
    }
}

/// What comes on standard input, read by a thread that may outlive its use: nothing can interrupt a read.
fn typed() -> mpsc::Receiver<Vec<u8>> {
    // Few: a program that does not read makes whoever writes wait.
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn copy(
    mut from: impl tokio::io::AsyncRead + Unpin,
    to: impl Fn(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => to(&buffer[..read])?,
        }
    }
}

/// What the API says about how a program ended.
fn exit_code(status: &Status) -> Result<u8, Error> {
    if status.reason.as_deref() == Some("NonZeroExitCode") {
        let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
        let code = causes
            .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
            .find_map(|cause| cause.message.as_ref()?.parse::<i32>().ok());
        return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    }
    if status.status.as_deref() == Some("Failure") {
        return Err(Error::failed("the program could not be run").because(status.message.clone().unwrap_or_default()));
    }
    Ok(0)
}

/// The terminal without line editing and echo, until it is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
