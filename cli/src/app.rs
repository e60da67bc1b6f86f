//! What every command is given: which mesh, which streams, and the way to the mesh.

use crate::cluster::Cluster;
use crate::error::Error;
use crate::flags::Global;
use crate::output::Ui;
use crate::settings::Settings;

/// What every command is given.
pub struct App {
    /// Which mesh.
    pub global: Global,
    /// Where words go.
    pub ui: Ui,
    /// What the environment says.
    pub settings: Settings,
}

impl App {
    /// Runs a future to its end, on this thread.
    ///
    /// # Errors
    /// Those of the future, or when there is no runtime to be had.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::failed("cannot start").because(crate::error::io_words(&e)))?;
        let result = runtime.block_on(future);
        // What is left (name look-ups, mostly) is not waited for.
        runtime.shutdown_background();
        result
    }

    /// Finds the mesh that is meant and prepares a connection to it.
    ///
    /// # Errors
    /// When it is not there, or when it is not clear which one is meant.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        Cluster::open(&crate::context::find(&self.global, &self.settings)?).await
    }

    /// As [`App::cluster`], and says which mesh it is: for commands that change something.
    ///
    /// # Errors
    /// As [`App::cluster`].
    pub async fn cluster_to_change(&self) -> Result<Cluster, Error> {
        let cluster = self.cluster().await?;
        self.ui.say(&self.ui.err.dim(&format!("on {}", cluster.description)));
        Ok(cluster)
    }

    /// The namespace that is meant: `-n`, else the context's.
    #[must_use]
    pub fn namespace<'a>(&'a self, cluster: &'a Cluster) -> &'a str {
        self.global.namespace.as_deref().unwrap_or(&cluster.namespace)
    }
}
