//! The watches of what proofs rest on: the guarded namespaces, and modelguard's own webhook configurations, which are proofs rest on, never more than a minute old.
//!
//! A watch that stays open cannot be told from one whose connection died. This one ends after [`RELIST`] and
//! lists again, so every round proves that what is known is fresh.

use super::Progress;
use crate::arming::{Configuration, RELIST, Webhooks};
use crate::index::{Index, Source};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Resource;
use kube::api::{Api, ListParams, ObjectMeta, PartialObjectMeta, WatchEvent, WatchParams};
use kube::core::ClusterResourceScope;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

/// After a failed read; an outage of the API server should end within seconds of its return.
const RETRY: Duration = Duration::from_secs(1);

/// How much longer than it should last a call may take before it counts as dead.
const GRACE: Duration = Duration::from_secs(5);

/// Watches the mutating and the validating configuration called `name`, for ever.
pub async fn watch_configurations(client: kube::Client, name: String, progress: Progress, changed: watch::Sender<()>) {
    let mutating = follow::<MutatingWebhookConfiguration>(&client, &name, Webhooks::Mutating, &progress, &changed);
    let validating =
        follow::<ValidatingWebhookConfiguration>(&client, &name, Webhooks::Validating, &progress, &changed);
    tokio::join!(mutating, validating);
}

/// Tells `progress` which namespaces are guarded, whenever the index learns of it; at once, for the epoch hangs on it.
pub async fn follow_namespaces(
    index: Arc<RwLock<Index>>,
    mut news: watch::Receiver<()>,
    progress: Progress,
    changed: watch::Sender<()>,
) {
    loop {
        news.mark_unchanged();
        let guarded: Option<BTreeSet<_>> = {
            let index = index.read();
            let listed = index.missing().all(|source| source != Source::Namespaces);
            listed.then(|| index.guarded().map(|(_, uid)| uid.into()).collect())
        };
        if guarded.is_some_and(|uids| progress.saw_namespaces(uids)) {
            changed.send_replace(());
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Lists and watches one configuration again and again, and says what it finds.
async fn follow<K>(client: &kube::Client, name: &str, which: Webhooks, progress: &Progress, changed: &watch::Sender<()>)
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<PartialObjectMeta<K>>::all(client.clone());
    let tell = |found: Option<&ObjectMeta>| {
        let found = found.map(configuration);
        if progress.saw_configuration(which, found.clone()) {
            info!(name, ?which, ?found, "webhook configuration seen");
            changed.send_replace(());
        }
    };
    loop {
        if let Err(error) = round(&api, name, &tell).await {
            warn!(name, ?which, %error, "cannot watch the webhook configuration");
            sleep(RETRY).await;
        }
    }
}

/// One list, and one watch from where it ended.
async fn round<K>(api: &Api<PartialObjectMeta<K>>, name: &str, tell: impl Fn(Option<&ObjectMeta>)) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let selector = format!("metadata.name={name}");
    let listed = timeout(GRACE, api.list(&ListParams::default().fields(&selector))).await??;
    tell(listed.items.first().map(|item| &item.metadata));
    let from = listed.metadata.resource_version.unwrap_or_default();
    let seconds = u32::try_from(RELIST.as_secs()).unwrap_or(u32::MAX);
    let params = WatchParams::default().fields(&selector).timeout(seconds).disable_bookmarks();
    let events = timeout(GRACE, api.watch(&params, &from)).await??;
    pin_mut!(events);
    let until = Instant::now() + RELIST + GRACE;
    while let Some(event) = timeout_at(until, events.next()).await? {
        match event? {
            WatchEvent::Added(item) | WatchEvent::Modified(item) => tell(Some(&item.metadata)),
            WatchEvent::Deleted(_) => tell(None),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        }
    }
    Ok(())
}

fn configuration(metadata: &ObjectMeta) -> Configuration {
    Configuration { uid: metadata.uid.clone().unwrap_or_default(), generation: metadata.generation.unwrap_or_default() }
}

/// Why a round ended before its time.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server said so.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The API server said nothing.
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}
