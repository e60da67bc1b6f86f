//! Before a deleted pod is told to end: nobody is to be sent there any more.

use std::sync::Arc;
use std::time::Duration;

use super::context::PodContext;
use crate::api::object::{array, text};
use crate::api::{ApiResult, Selection};

const SLICES: &str = "endpointslices.discovery.k8s.io";
/// How long it may take until no EndpointSlice names the pod as ready.
const UNLISTED: Duration = Duration::from_secs(2);
/// How long the callers' proxies, and the rules of Services, may take from there. Kubernetes leaves that to a `preStop`
/// hook that sleeps; here every pod has the time, as its grace allows.
const HEARD: Duration = Duration::from_millis(750);

/// Waits until the endpoints of all Services leave out a pod that has been serving, and until those who call it can have
/// heard of that. Returns at once for a pod to which nobody is sent.
pub(super) async fn until_nobody_is_sent_here(context: &Arc<PodContext>) {
    if !is_named(context, |_| true) || !context.state.borrow().containers.values().any(|it| it.ready) {
        return;
    }
    let unlisted = async {
        while is_named(context, |endpoint| endpoint["conditions"]["ready"] != false) {
            changed(context).await?;
        }
        ApiResult::Ok(())
    };
    if !matches!(tokio::time::timeout(UNLISTED, unlisted).await, Ok(Ok(()))) {
        tracing::warn!(pod = context.reference.name, "a deleted pod ends while it is an endpoint still");
    }
    tokio::time::sleep(HEARD).await;
}

/// Whether an endpoint of the pod is as `fact` says.
fn is_named(context: &PodContext, fact: impl Fn(&serde_json::Value) -> bool) -> bool {
    let slices = context.shared.store.list(SLICES, &Selection::namespace(&context.reference.namespace));
    let mut endpoints = slices.items.iter().flat_map(|slice| array(slice, "/endpoints"));
    endpoints.any(|endpoint| text(endpoint, "/targetRef/uid") == context.reference.uid && fact(endpoint))
}

async fn changed(context: &PodContext) -> ApiResult<()> {
    let store = &context.shared.store;
    let mut watch = store.watch(SLICES, store.version())?;
    // What changed between the look and the watch is looked at again soon.
    let _ = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    Ok(())
}
