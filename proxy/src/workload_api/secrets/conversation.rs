//! A stream both ways: what the client asks for, and what changes meanwhile.

use std::sync::Arc;

use futures_util::stream;
use runtime::svid::Svid;
use tonic::{Status, Streaming};

use crate::workload_api::following::{Answers, Following};

/// What one stream remembers.
pub(super) trait Conversation: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Takes a request: a wish, or what became of an answer. Gives why the client did not take it, if it did not.
    fn asked(&mut self, request: Self::Request) -> Result<Option<String>, Status>;

    /// What is to be sent now, with the certificates whose keys are in it; `None`: nothing is new.
    fn answer(&mut self, following: &Following) -> Option<(Self::Response, Vec<Arc<Svid>>)>;
}

/// Answers until the client or the proxy ends it.
pub(super) fn converse<C: Conversation>(
    requests: Streaming<C::Request>,
    following: Following,
    conversation: C,
) -> Answers<C::Response> {
    let start = (requests, following, conversation);
    Box::pin(stream::unfold(Some(start), |state| async move {
        let (mut requests, mut following, mut conversation) = state?;
        loop {
            following.seen();
            if let Some((response, keys)) = conversation.answer(&following) {
                keys.iter().for_each(|svid| following.record(Some(svid)));
                return Some((Ok(response), Some((requests, following, conversation))));
            }
            let next = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => conversation.asked(request),
                    Ok(None) => return None,
                    Err(status) => Err(status),
                },
                changed = following.changed() => changed.map(|()| None),
            };
            match next {
                Ok(Some(reason)) => following.record_refusal(&reason),
                Ok(None) => {}
                Err(status) => return Some((Err(status), None)),
            }
        }
    }))
}
