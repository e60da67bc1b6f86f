//! `local logs`: what a container has written.

use clap::Args;
use futures_util::AsyncReadExt as _;
use http::Request;

use super::Mesh;
use super::streams::{container, log_path};
use crate::app::App;
use crate::error::{Error, io_words};
use crate::mesh;
use crate::resources::{name_of, namespace_of};

const EXAMPLES: &str = "\
Examples:
  # The application's
  meshctl local logs deploy/reviews-v1
  # The proxy's access log, as it grows
  meshctl local logs deploy/reviews-v1 -c mesh-proxy -f
  # Why it ended the last time
  meshctl local logs deploy/reviews-v1 --previous --tail 20";

/// Arguments of `local logs`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogsArgs {
    /// POD, POD.NAMESPACE, or deploy/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// Container; by default the application's
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    /// Go on and show what is written
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// With times
    #[arg(long)]
    timestamps: bool,
    /// Of the container's run before this one
    #[arg(short = 'p', long)]
    previous: bool,
}

/// Runs `local logs`.
///
/// # Errors
/// When there is no such pod or container, or it has no log.
pub(super) fn run(app: &App, mesh: &Mesh, args: &LogsArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = mesh.cluster().await?;
        let pod = mesh::find_pod(&cluster, app.namespace(&cluster), &args.pod).await?;
        let container = container(&pod, args.container.as_deref())?;
        let mut query = String::new();
        for (is_asked, name) in [(args.follow, "follow"), (args.timestamps, "timestamps"), (args.previous, "previous")]
        {
            if is_asked {
                query.push_str(&format!("&{name}=true"));
            }
        }
        if let Some(lines) = args.tail {
            query.push_str(&format!("&tailLines={lines}"));
        }
        let request = Request::get(log_path(&pod, &container, &query))
            .body(Vec::new())
            .map_err(|e| Error::failed("cannot ask for the log").because(e.to_string()))?;
        let place = format!("container {container} of {}/{}", namespace_of(&pod), name_of(&pod));
        let stream = cluster.client().request_stream(request).await.map_err(|e| match e {
            kube::Error::Api(status) => Error::failed(format!("no log of {place}")).because(status.message.clone()),
            other => Error::unreachable(format!("no log of {place}")).because(other.to_string()),
        })?;
        let mut stream = Box::pin(stream);
        let mut buffer = vec![0; 32 << 10];
        loop {
            let read = stream
                .read(&mut buffer)
                .await
                .map_err(|e| Error::unreachable(format!("the log of {place} broke off")).because(io_words(&e)))?;
            if read == 0 {
                return Ok(());
            }
            app.ui.bytes(&buffer[..read])?;
        }
    })
}
