//! The world of a real cluster: quorum reads and compare-and-swap writes of the API server.
//!
//! ```text
//! catalog, terminating, workload ──GET without resourceVersion──▶ etcd (quorum)
//! lift ──merge patch with metadata.resourceVersion──▶ 409 when somebody was faster
//! epoch, holders, prospect ──▶ what the watches say (never allows a removal by itself)
//! settle, announce ──queue──▶ controller
//! revision, keep, is_beside ──▶ ControllerRevisions ([`history`])
//! ```

pub mod history;

use crate::catalog::{EntryName, Format};
use crate::controller::{Progress, Refused, Wanted};
use crate::event::Event;
use crate::guard::Guard;
use crate::healing;
use crate::holder::{Hold, Holders, ObjectId};
use crate::index::{self, Index};
use crate::metrics::{EventLoss, Metrics};
use crate::names;
use crate::object::{self, Content, HolderKind, Workload};
use crate::policy::{
    Beside, CurrentEpoch, Declared, HoldersOf, Lift, Prospect, Requester, SharedCatalog, Stored, TargetsOf, Unread,
    Version,
};
use crate::reference::{CatalogKey, Left, Server};
use crate::retention::Retained;
use crate::revision::Keep;
use crate::revision::restore::{Found, Seek};
use crate::sharing::Sharing;
use crate::usage::Usage;
use crate::world::{KeepError, LiftError, World};
use base64::Engine as _;
use history::Archive;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use parking_lot::{RwLock, RwLockReadGuard};
use serde_json::json;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long one call may take. An admission has less than that, and says so itself; the controller would otherwise
/// wait for ever for a connection that died.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster, through its API server.
#[derive(Clone)]
pub struct Cluster {
    /// Talks to the API server.
    pub client: kube::Client,
    /// How strict.
    pub guard: Guard,
    /// What the watches say.
    pub index: Arc<RwLock<Index>>,
    /// What the controller says of itself.
    pub progress: Progress,
    /// Where removals that were refused for want of a proof go.
    pub refused: mpsc::Sender<Refused>,
    /// What is kept beside model ConfigMaps.
    pub history: Archive,
    /// Where events go.
    pub events: mpsc::Sender<Event>,
    /// Where it is counted what becomes of them.
    pub metrics: Metrics,
}

impl World for Cluster {
    async fn catalog(&self, key: &CatalogKey) -> Result<Option<Stored>, Unread> {
        let found = self.config_maps(key);
        let found = answered(|| format!("ConfigMap {key}"), found.get_opt(&key.name)).await?;
        Ok(found.as_ref().map(stored))
    }

    async fn terminating(&self, namespace: &str) -> Result<bool, Unread> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let found = answered(|| format!("namespace {namespace}"), namespaces.get_metadata_opt(namespace)).await?;
        Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
    }

    async fn workload(&self, id: &ObjectId) -> Result<Option<Workload>, Unread> {
        let what = || format!("{} {}/{}", id.kind, id.namespace, id.name);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &id.namespace, &resource(id.kind));
        let Some(found) = answered(what, api.get_opt(&id.name)).await? else { return Ok(None) };
        let read = serde_json::to_value(found).and_then(serde_json::from_value);
        read.map(Some).map_err(|error| Unread::new(what(), error))
    }

    async fn lift(&self, lift: &Lift) -> Result<(), LiftError> {
        if cfg!(feature = "unsound") {
            return Ok(());
        }
        self.write_usage(&lift.catalog, &lift.resource_version, &lift.usage).await
    }

    fn epoch(&self, sharing: &Sharing) -> CurrentEpoch {
        self.progress.epoch(sharing)
    }

    async fn may_override(&self, who: &Requester, namespace: &str) -> Result<bool, Unread> {
        let (group, resource, verb) = names::OVERRIDE;
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user: Some(who.username.clone()),
            uid: Some(who.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(who.groups.clone()),
            extra: Some(who.extra.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let params = PostParams::default();
        let answer = answered(|| "the permission to override".to_owned(), reviews.create(&params, &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    fn guard(&self) -> Guard {
        self.guard
    }

    fn holders(&self, of: &HoldersOf) -> Result<BTreeMap<EntryName, Holders>, Unread> {
        let index = self.synced()?;
        let holders = |entry: &EntryName| (entry.clone(), index.holders(&of.catalog, &of.sharing, of.format, entry));
        Ok(of.entries.iter().map(holders).collect())
    }

    fn rollback_targets(&self, of: &TargetsOf) -> BTreeMap<EntryName, Holders> {
        let index = self.index.read();
        let known = index.synced().then(|| index.rollback_targets(&of.catalog, &of.sharing, of.format, &of.entries));
        known.unwrap_or_default()
    }

    async fn shared_by(&self, namespace: &str) -> Result<Vec<SharedCatalog>, Unread> {
        let config_maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let what = || format!("the model ConfigMaps of namespace {namespace}");
        let labelled = ListParams::default().labels(names::CATALOG_LABEL);
        let found = answered(what, config_maps.list(&labelled)).await?;
        found
            .iter()
            .map(|object| (object, stored(object)))
            .filter(|(_, it)| it.sharing.reaches_others())
            .map(|(object, stored)| {
                let key = CatalogKey::new(namespace, object.metadata.name.as_deref().unwrap_or_default());
                let uid = object.metadata.uid.as_deref().unwrap_or_default();
                // What cannot be read may be of any format.
                let format = stored.declared.format().unwrap_or(Format::Keys);
                let closed = self.epoch(&stored.sharing).is_ok_and(|epoch| stored.usage.is_closed(&epoch));
                let index = if closed { self.synced()? } else { self.current()? };
                let elsewhere = index.elsewhere(&key, &stored.sharing, format);
                drop(index);
                let prospect = self.progress.prospect_of_closing(uid, &stored);
                Ok(SharedCatalog { key, elsewhere, closed, prospect })
            })
            .collect()
    }

    fn residents(&self, namespace: &str) -> Result<Holders, Unread> {
        let index = self.current()?;
        let catalogs = index.catalogs().map(|(key, facts)| {
            let format = facts.listing.as_ref().map_or(Format::Keys, |listing| listing.format);
            (key, facts.sharing(key), format)
        });
        Ok(index.residents(namespace, catalogs))
    }

    fn close(&self, catalogs: BTreeSet<CatalogKey>) {
        for catalog in catalogs {
            let _ = self.refused.try_send(Refused { catalog, wanted: Wanted::Closing, at: Instant::now() });
        }
    }

    async fn left(
        &self,
        from: &str,
        catalog: &CatalogKey,
        left: &Left,
    ) -> Result<BTreeMap<EntryName, Holders>, Unread> {
        let index = self.current()?;
        let shared = index.catalog(catalog).map(|facts| (facts, facts.sharing(catalog)));
        let Some((facts, sharing)) = shared.filter(|(_, sharing)| sharing.includes(from)) else {
            return Ok(BTreeMap::new());
        };
        let listing = match &facts.listing {
            Ok(listing) => listing,
            // What nobody references is left by nobody, whatever it lists.
            Err(_) if index.anybody(catalog, &sharing, Format::Keys).is_empty() => return Ok(BTreeMap::new()),
            Err(why) => return Err(Unread::new(format!("model ConfigMap {catalog}"), why)),
        };
        let entries = listing.entries.iter().filter(|entry| left.includes(entry));
        Ok(index.users(catalog, &sharing, listing.format, entries))
    }

    async fn servers(&self, shared: &[&Sharing]) -> Result<Vec<Server>, Unread> {
        let listed = index::ready_servers(&self.client, shared).await;
        listed.map_err(|error| Unread::new("the servers", error))
    }

    fn prospect(&self, of: &HoldersOf) -> Prospect {
        self.progress.prospect(of)
    }

    fn settle(&self, catalog: &CatalogKey, entries: BTreeSet<EntryName>) {
        // A full queue means that many are being settled already; the client asks again anyway.
        let wanted = Wanted::Removal(entries);
        let _ = self.refused.try_send(Refused { catalog: catalog.clone(), wanted, at: Instant::now() });
    }

    async fn revision(&self, seek: &Seek) -> Result<Found, Unread> {
        self.history.revision(seek).await
    }

    async fn keep(&self, keep: &Keep<'_>) -> Result<(), KeepError> {
        if self.history.knows(keep) {
            return Ok(());
        }
        // Whoever reaches the webhook can send a review that says anything; a rollback would bring it about.
        let key = keep.config_map;
        let unread = |why: &dyn std::fmt::Display| Unread::new(format!("ConfigMap {key}"), why);
        let json = self.json(key).await?.ok_or_else(|| unread(&"it does not exist"))?;
        let version = Version::stored(object::ConfigMap::parse(&json).map_err(|error| unread(&error))?);
        let stored = Keep { config_map: key, version: &version, is_needed: keep.is_needed };
        if (stored.uid(), stored.number(), stored.name()) != (keep.uid(), keep.number(), keep.name()) {
            return Err(unread(&"what is stored is another revision than the review says").into());
        }
        self.history.keep(&stored).await
    }

    async fn is_beside(&self, beside: &Beside) -> Result<bool, Unread> {
        self.history.has(beside).await
    }

    fn announce(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.metrics.event_lost(EventLoss::Full);
        }
    }
}

impl Cluster {
    /// The index, once it knows every kind of holder.
    fn synced(&self) -> Result<RwLockReadGuard<'_, Index>, Unread> {
        self.index_if(Index::synced)
    }

    /// The index, where it knows every kind of holder and all model ConfigMaps, and every watch gets on: what it does not know
    /// is taken for what is not there, with no proof behind it.
    fn current(&self) -> Result<RwLockReadGuard<'_, Index>, Unread> {
        let index = self.index_if(|index| index.missing().next().is_none())?;
        let failing = index.failing().next().map(|(source, why)| format!("the watch of {source} fails: {why}"));
        failing.map_or(Ok(index), |why| Err(Unread::new("the holders", why)))
    }

    fn index_if(&self, is_ready: impl Fn(&Index) -> bool) -> Result<RwLockReadGuard<'_, Index>, Unread> {
        let index = self.index.read();
        if is_ready(&index) {
            return Ok(index);
        }
        let missing: Vec<_> = index.missing().map(|source| source.to_string()).collect();
        Err(Unread::new("the holders", format_args!("not listed yet: {}", missing.join(", "))))
    }

    /// Writes the usage annotation and nothing else, conditional on the revision that was read.
    ///
    /// # Errors
    /// [`LiftError::Conflict`] if the ConfigMap is no longer at that revision, or gone.
    pub async fn write_usage(&self, key: &CatalogKey, revision: &str, usage: &Usage) -> Result<(), LiftError> {
        self.annotate(key, revision, names::USAGE, usage.render()).await.map(drop)
    }

    /// Asks the mutating webhook to remove what is retained and Idle, conditional on the revision that was read.
    ///
    /// # Errors
    /// [`LiftError::Conflict`] if the ConfigMap is no longer at that revision, or gone.
    pub async fn retire(&self, key: &CatalogKey, revision: &str) -> Result<(), LiftError> {
        self.annotate(key, revision, names::RETIRE, Some("idle".to_owned())).await.map(drop)
    }

    /// Asks the mutating webhook to put those of `wanted` back that can be; says of which ConfigMap, by its UID, and which it
    /// put back.
    ///
    /// # Errors
    /// [`LiftError::Conflict`] if the ConfigMap was changed in between, or is gone.
    pub async fn restore(
        &self,
        key: &CatalogKey,
        wanted: &BTreeSet<EntryName>,
    ) -> Result<Option<(String, BTreeSet<EntryName>)>, LiftError> {
        let Some(json) = self.json(key).await? else { return Ok(None) };
        let unreadable = |error: &dyn std::fmt::Display| Unread::new(format!("ConfigMap {key}"), error);
        let object = object::ConfigMap::parse(&json).map_err(|error| unreadable(&error))?;
        let restoration = healing::restorable(&object, wanted, jiff::Timestamp::now());
        let entries = restoration.map_err(|error| unreadable(&error))?.entries;
        let Some(asked) = Retained::from(entries.clone()).render() else { return Ok(None) };
        let (uid, revision) = (&object.metadata.uid, &object.metadata.resource_version);
        let written = self.annotate(key, revision, names::RESTORE, Some(asked)).await?;
        let annotations = written.annotations.unwrap_or_default();
        let retained = Retained::parse(annotations.get(names::RETAINED).map(String::as_str));
        Ok(Some((uid.to_string(), entries.intersection(retained.entries()).cloned().collect())))
    }

    /// A ConfigMap as it is stored, with all of its fields; `None` if there is none.
    ///
    /// # Errors
    /// [`Unread`] if it could not be read.
    pub async fn json(&self, key: &CatalogKey) -> Result<Option<String>, Unread> {
        let resource = ApiResource::erase::<ConfigMap>(&());
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let what = || format!("ConfigMap {key}");
        let Some(found) = answered(what, api.get_opt(&key.name)).await? else { return Ok(None) };
        serde_json::to_string(&found).map(Some).map_err(|error| Unread::new(what(), error))
    }

    /// Sets one annotation, or removes it where `None`; gives the metadata that is stored then.
    async fn annotate(
        &self,
        key: &CatalogKey,
        revision: &str,
        name: &str,
        value: Option<String>,
    ) -> Result<ObjectMeta, LiftError> {
        let patch = json!({"metadata": {"resourceVersion": revision, "annotations": {name: value}}});
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (config_maps, patch) = (self.config_maps(key), Patch::Merge(patch));
        let written = async {
            match config_maps.patch_metadata(&key.name, &params, &patch).await {
                Ok(written) => Ok(Some(written.metadata)),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
                Err(error) => Err(error),
            }
        };
        answered(|| format!("the write to ConfigMap {key}"), written).await?.ok_or(LiftError::Conflict)
    }

    fn config_maps(&self, key: &CatalogKey) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

/// What the API server calls holders of this kind.
pub(crate) fn resource(kind: HolderKind) -> ApiResource {
    ApiResource {
        group: kind.group().to_owned(),
        version: kind.version().to_owned(),
        api_version: kind.api_version().to_owned(),
        kind: kind.kind().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

/// A ConfigMap as the API server stores it.
fn stored(object: &ConfigMap) -> Stored {
    let annotation = |name| object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    Stored {
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        deleting: object.metadata.deletion_timestamp.is_some(),
        declared: declared(object),
        usage: Usage::parse(annotation(names::USAGE).map(String::as_str)),
        hold: Hold::parse(annotation(names::HOLD).map(String::as_str)),
        sharing: Sharing::new(
            object.metadata.namespace.as_deref().unwrap_or_default(),
            annotation(names::SHARED_WITH).map(String::as_str),
        ),
    }
}

/// What a ConfigMap says it is, by its label and content.
pub fn declared(object: &ConfigMap) -> Declared {
    let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(names::CATALOG_LABEL));
    Declared::read(label.map(String::as_str), &content(object))
}

/// The content of a ConfigMap, borrowed but for what is binary.
fn content(object: &ConfigMap) -> Content<'_> {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let data = object.data.iter().flatten().map(|(key, value)| (Cow::from(key), Cow::from(value)));
    let binary = object.binary_data.iter().flatten().map(|(key, value)| (Cow::from(key), encode(&value.0)));
    Content { data: data.collect(), binary_data: binary.collect(), immutable: object.immutable }
}

/// Waits for an answer, and says what was asked where there is none.
pub(crate) async fn answered<T>(
    what: impl Fn() -> String,
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Unread> {
    match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => {
            Err(Unread::new(what(), format_args!("{} ({})", status.message, status.code)))
        }
        Ok(Err(error)) => Err(Unread::new(what(), error)),
        Err(_elapsed) => Err(Unread::new(what(), format_args!("no answer within {} s", PATIENCE.as_secs()))),
    }
}
