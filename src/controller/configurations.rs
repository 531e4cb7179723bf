//! The watches of what proofs rest on: the guarded namespaces, and modelguard's own webhook configurations.
//!
//! A watch that stays open cannot be told from one whose connection died. That of the configurations ends after
//! [`RELIST`] and lists again, so every round proves that what is known is fresh.

mod defect;

use super::Progress;
use super::trouble::Trouble;
use crate::arming::{Arming, Configuration, RELIST, Webhooks};
use crate::index::{Index, Source};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Api, ListParams, ObjectMeta, WatchEvent, WatchParams};
use kube::core::{ClusterResourceScope, ObjectList};
use kube::{Client, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::info;

/// After a failed read; an outage of the API server should end within seconds of its return.
const RETRY: Duration = Duration::from_secs(1);

/// How much longer than it should last a call may take before it counts as dead.
const GRACE: Duration = Duration::from_secs(5);

/// A webhook configuration, of either kind.
trait Webhook: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug {
    const WHICH: Webhooks;

    /// Why nothing is proven by what it lets pass.
    fn defect(&self) -> Option<String>;

    /// What else it does not protect, and should.
    fn gap(&self) -> Option<String> {
        None
    }
}

impl Webhook for MutatingWebhookConfiguration {
    const WHICH: Webhooks = Webhooks::Mutating;

    fn defect(&self) -> Option<String> {
        defect::of_mutating(self.webhooks.as_deref().unwrap_or_default())
    }
}

impl Webhook for ValidatingWebhookConfiguration {
    const WHICH: Webhooks = Webhooks::Validating;

    fn defect(&self) -> Option<String> {
        defect::of_validating(self.webhooks.as_deref().unwrap_or_default())
    }

    fn gap(&self) -> Option<String> {
        defect::of_going(self.webhooks.as_deref().unwrap_or_default())
    }
}

/// Reads both configurations called `name` once.
///
/// # Errors
/// When the API server does not let them be listed, or does not answer.
pub async fn read_configurations(client: &Client, name: &str) -> Result<Arming, ConfigurationError> {
    let mut arming = Arming::default();
    let mutating = list(&Api::<MutatingWebhookConfiguration>::all(client.clone()), name).await?;
    arming.configuration(Webhooks::Mutating, mutating.items.first().map(configuration), Duration::ZERO);
    let validating = list(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), name).await?;
    arming.configuration(Webhooks::Validating, validating.items.first().map(configuration), Duration::ZERO);
    Ok(arming)
}

/// Watches the mutating and the validating configuration called `name`, for ever.
pub async fn watch_configurations(client: Client, name: String, progress: Progress, changed: watch::Sender<()>) {
    let mutating = follow::<MutatingWebhookConfiguration>(&client, &name, &progress, &changed);
    let validating = follow::<ValidatingWebhookConfiguration>(&client, &name, &progress, &changed);
    tokio::join!(mutating, validating);
}

/// Tells `progress` which namespaces are guarded, whenever the index learns of it; at once, for epochs hang on it.
pub async fn follow_namespaces(
    index: Arc<RwLock<Index>>,
    mut news: watch::Receiver<()>,
    progress: Progress,
    changed: watch::Sender<()>,
) {
    loop {
        news.mark_unchanged();
        let guarded = {
            let index = index.read();
            let known = index.missing().all(|source| source != Source::Namespaces)
                && index.failing().all(|(source, _)| source != Source::Namespaces);
            known.then(|| index.guarded().map(|(name, stamp)| (name.into(), stamp.into())).collect())
        };
        if progress.saw_namespaces(guarded) {
            changed.send_replace(());
        }
        // That a watch has recovered is no event of its own.
        if let Ok(Err(_closed)) = timeout(GRACE, news.changed()).await {
            return;
        }
    }
}

/// Lists and watches one configuration again and again, and says what it finds.
async fn follow<K: Webhook>(client: &Client, name: &str, progress: &Progress, changed: &watch::Sender<()>) {
    let api = Api::<K>::all(client.clone());
    let tell = |found: Option<&K>| {
        let found = found.map(configuration);
        if progress.saw_configuration(K::WHICH, found.clone()) {
            info!(name, which = ?K::WHICH, ?found, "webhook configuration seen");
            changed.send_replace(());
        }
    };
    let mut trouble = Trouble::new("watch the webhook configuration");
    loop {
        match round(&api, name, &tell).await {
            Ok(()) => trouble.over(),
            Err(error) => {
                trouble.is(&error);
                sleep(RETRY).await;
            }
        }
    }
}

/// One list, and one watch from where it ended.
async fn round<K: Webhook>(api: &Api<K>, name: &str, tell: impl Fn(Option<&K>)) -> Result<(), ConfigurationError> {
    let listed = list(api, name).await?;
    tell(listed.items.first());
    let from = listed.metadata.resource_version.unwrap_or_default();
    let seconds = u32::try_from(RELIST.as_secs()).unwrap_or(u32::MAX);
    let params = WatchParams::default().fields(&named(name)).timeout(seconds).disable_bookmarks();
    let events = timeout(GRACE, api.watch(&params, &from)).await??;
    pin_mut!(events);
    let until = Instant::now() + RELIST + GRACE;
    while let Some(event) = timeout_at(until, events.next()).await? {
        match event? {
            WatchEvent::Added(item) | WatchEvent::Modified(item) => tell(Some(&item)),
            WatchEvent::Deleted(_) => tell(None),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        }
    }
    Ok(())
}

/// That one configuration, if it is there.
async fn list<K: Webhook>(api: &Api<K>, name: &str) -> Result<ObjectList<K>, ConfigurationError> {
    Ok(timeout(GRACE, api.list(&ListParams::default().fields(&named(name)))).await??)
}

/// RBAC honors a resource name for lists that select it.
fn named(name: &str) -> String {
    format!("metadata.name={name}")
}

fn configuration<K: Webhook>(object: &K) -> Configuration {
    let ObjectMeta { uid, generation, .. } = object.meta();
    Configuration {
        uid: uid.clone().unwrap_or_default(),
        generation: generation.unwrap_or_default(),
        defect: object.defect(),
        gap: object.gap(),
    }
}

/// Why the configurations could not be read, or a round ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The API server said so.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The API server said nothing.
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}
