//! The host's resolver, for names outside the cluster.

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

/// How long the host's resolver may take. Programs ask again after five seconds, so this is less.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the host's resolver over a socket that was opened in the host's network, as the mesh has no way out.
pub(crate) struct Upstream {
    socket: UdpSocket,
    waiting: Mutex<HashMap<u16, oneshot::Sender<Message>>>,
}

impl Upstream {
    /// Takes a socket that is connected to the resolver.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn new(socket: StdUdpSocket) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Self { socket: UdpSocket::from_std(socket)?, waiting: Mutex::default() }))
    }

    /// Hands answers to those who wait for them, until cancelled.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut buffer = vec![0u8; 4096];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => {
                    if let Ok(answer) = Message::from_vec(buffer.get(..length).unwrap_or_default()) {
                        let asked = self.lock().remove(&answer.metadata.id);
                        if let Some(asked) = asked {
                            let _ = asked.send(answer);
                        }
                    }
                }
                // The resolver's port is closed; whoever asked runs into the time limit.
                Err(error) => tracing::debug!(%error, "the host's resolver does not answer"),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u16, oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resolver's answer, if it comes in time and is one to this question.
    pub(crate) async fn ask(&self, question: &Message) -> Option<Message> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut waiting = self.lock();
            let id = std::iter::repeat_with(rand::random::<u16>).take(64).find(|id| !waiting.contains_key(id))?;
            waiting.insert(id, sender);
            id
        };
        let mut passed_on = question.clone();
        passed_on.metadata.id = id;
        let answer = async {
            self.socket.send(&passed_on.to_vec().ok()?).await.ok()?;
            receiver.await.ok()
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.ok().flatten();
        self.lock().remove(&id);
        let mut answer = answer.filter(|answer| answer.queries == question.queries)?;
        answer.metadata.id = question.metadata.id;
        Some(answer)
    }
}
