//! How a connection hears that the proxy leaves.

use std::pin::pin;
use std::task::Poll;

use runtime::drain::Drain;

/// Runs `serving` until it ends, or is cut at the drain's deadline (`None`).
///
/// It is woken once when the drain begins, so that inside [`Drain::is_draining`] is enough to notice: the token's lock is
/// taken once per connection and not once per request.
pub(crate) async fn until_cut<F: Future>(drain: &Drain, serving: F) -> Option<F::Output> {
    let (mut started, mut cut) = (pin!(drain.started()), pin!(drain.cut()));
    let mut serving = pin!(serving);
    let mut is_armed = false;
    std::future::poll_fn(|cx| {
        if !is_armed {
            is_armed = true;
            let _ = started.as_mut().poll(cx);
        }
        if drain.is_draining() && cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        serving.as_mut().poll(cx).map(Some)
    })
    .await
}
