//! What is kept beside model ConfigMaps: ControllerRevisions of ours.
//!
//! ```text
//! watch of metadata ──▶ Store: what is kept already, so that a change of content costs no call ─┐
//! keep ──CREATE, or one revision more on what is there──▶ API server                            ├─ Archive
//! revision ──LIST of metadata ─▶ GET──▶ the content                                             ┘
//! ```
//! Names and annotations alone are watched: contents take up to a MiB each.

use super::answered;
use crate::history::Shelved;
use crate::names;
use crate::policy::{Beside, Unread};
use crate::reference::CatalogKey;
use crate::revision::kept::{self, Written};
use crate::revision::restore::{Found, Seek};
use crate::revision::{Keep, Kept};
use crate::world::KeepError;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often what is there already is changed against other writers.
const ATTEMPTS: usize = 5;

/// What tells that a namespace is being deleted: `NamespaceTerminatingCause` in `k8s.io/api/core/v1/types.go`.
const TERMINATING: &str = "NamespaceTerminating";

/// What a ControllerRevision of ours says besides its content.
pub type Meta = PartialObjectMeta<ControllerRevision>;

/// What is kept beside model ConfigMaps; cheap to clone.
#[derive(Clone)]
pub struct Archive {
    client: kube::Client,
    known: Store<Meta>,
}

/// Watches what is kept, for ever; each item says that something changed.
pub fn watch(client: &kube::Client) -> (Archive, impl Stream<Item = ()> + Send + 'static) {
    let (known, writer) = reflector::store();
    let all = Api::<Meta>::all(client.clone());
    let config = watcher::Config::default().labels(names::HISTORY_OF);
    let watched = reflector::reflector(writer, watcher(all, config).default_backoff());
    let history = Archive { client: client.clone(), known };
    (history, watched.map(|event| event.map_or_else(|error| tracing::debug!(%error, "watch of revisions"), drop)))
}

impl Archive {
    /// Everything that is known to be kept.
    pub fn known(&self) -> Vec<Arc<Meta>> {
        self.known.state()
    }

    /// Waits until what is kept has been listed once.
    pub async fn listed(&self) {
        // The other end is dropped with the process.
        let _ = self.known.wait_until_ready().await;
    }

    /// Whether this revision is known to be kept.
    pub fn knows(&self, keep: &Keep<'_>) -> bool {
        let found = self.known.get(&ObjectRef::new(&keep.name()).within(&keep.config_map.namespace));
        let (uid, number) = (keep.uid(), keep.number());
        found.is_some_and(|meta| written(&meta).iter().any(|it| (&*it.uid, it.revision) == (uid, number)))
    }

    /// Keeps a revision that is stored, unless it is kept already.
    ///
    /// # Errors
    /// As [`World::keep`](crate::world::World::keep).
    pub async fn keep(&self, keep: &Keep<'_>) -> Result<(), KeepError> {
        if self.knows(keep) {
            return Ok(());
        }
        let (name, kept) = (keep.name(), keep.kept());
        let object = object(&name, &kept);
        for _ in 0..ATTEMPTS {
            match self.create(&kept, &object).await? {
                Created::Yes => return Ok(()),
                Created::IsThere => {}
            }
            if self.add(&name, &kept).await? {
                return Ok(());
            }
        }
        Err(Unread::new(what(&kept.config_map, &name), "it was changed by others all the time").into())
    }

    /// As [`World::is_beside`](crate::world::World::is_beside).
    pub async fn has(&self, Beside { namespace, name }: &Beside) -> Result<bool, Unread> {
        if self.known.get(&ObjectRef::new(name).within(namespace)).is_some() {
            return Ok(true);
        }
        let what = || format!("ControllerRevision {namespace}/{name}");
        Ok(answered(what, self.api(namespace).get_metadata_opt(name)).await?.is_some())
    }

    /// As [`World::revision`](crate::world::World::revision).
    pub async fn revision(&self, seek: &Seek) -> Result<Found, Unread> {
        let CatalogKey { namespace, name } = &seek.config_map;
        let is_it = |it: &&Written| *it.uid == *seek.uid;
        let mut numbers = Vec::new();
        let mut found = None;
        for meta in self.list(&seek.config_map).await? {
            let written = written(&meta);
            numbers.extend(written.iter().filter(is_it).map(|it| it.revision));
            if written.iter().filter(is_it).any(|it| it.revision == seek.number) {
                found = meta.metadata.name;
            }
        }
        let Some(found) = found else { return Ok(Found::Unknown(numbers)) };
        let what = || format!("ControllerRevision {namespace}/{found}");
        let Some(object) = answered(what, self.api(namespace).get_opt(&found)).await? else {
            return Ok(Found::Unknown(numbers.into_iter().filter(|number| *number != seek.number).collect()));
        };
        let data = object.data.map(|data| data.0.to_string()).unwrap_or_default();
        Ok(match Kept::read(namespace, revisions(&object.metadata), &data) {
            Ok(kept) if kept.config_map.name == *name => match kept.revision(&seek.uid, seek.number) {
                Some(revision) => Found::Revision(Box::new(revision.into_owned())),
                None => Found::Unknown(numbers),
            },
            Ok(kept) => Found::Damaged(found, format!("is of ConfigMap {}", kept.config_map)),
            Err(error) => Found::Damaged(found, error.to_string()),
        })
    }

    /// What is kept of a ConfigMap, and of its former namesakes, as it is now.
    async fn list(&self, config_map: &CatalogKey) -> Result<Vec<Meta>, Unread> {
        let of = ListParams::default().labels(&format!("{}={}", names::HISTORY_OF, kept::label(&config_map.name)));
        let what = || format!("the revisions of ConfigMap {config_map}");
        Ok(answered(what, self.api(&config_map.namespace).list_metadata(&of)).await?.items)
    }

    async fn create(&self, kept: &Kept<'_>, object: &ControllerRevision) -> Result<Created, KeepError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api(&kept.config_map.namespace);
        let created = async {
            match api.create(&params, object).await {
                Ok(_) => Ok(Ok(Created::Yes)),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Ok(Created::IsThere)),
                Err(kube::Error::Api(status)) => Ok(Err(status)),
                Err(error) => Err(error),
            }
        };
        let created = answered(|| what(&kept.config_map, name), created).await?;
        created.map_err(|status| refused(&kept.config_map, name, &status))
    }

    /// Adds a revision to what is there; `false` where that changed meanwhile, or is gone.
    async fn add(&self, name: &str, kept: &Kept<'_>) -> Result<bool, KeepError> {
        let api = self.api(&kept.config_map.namespace);
        let what = || what(&kept.config_map, name);
        let Some(there) = answered(what, api.get_opt(name)).await? else { return Ok(false) };
        let data = there.data.as_ref().map(|data| data.0.to_string()).unwrap_or_default();
        let read = Kept::read(&kept.config_map.namespace, None, &data);
        if !read.is_ok_and(|it| it.digest == kept.digest && it.config_map == kept.config_map) {
            let why = format!("ControllerRevision {name} is there already and keeps something else; delete it");
            return Err(KeepError::Refused(why));
        }
        let Some(annotation) = kept::with(revisions(&there.metadata), &kept.written) else { return Ok(true) };
        let newest = newest(kept).max(there.revision);
        let patch = json!({
            "metadata": {
                "resourceVersion": there.metadata.resource_version,
                "annotations": {names::REVISIONS: annotation, names::ORPHANED: null},
            },
            "revision": newest,
        });
        self.patch(&kept.config_map, name, patch).await.map_err(KeepError::from)
    }

    /// Changes what is there; `false` where that changed meanwhile, or is gone.
    pub async fn patch(&self, of: &CatalogKey, name: &str, patch: serde_json::Value) -> Result<bool, Unread> {
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (api, patch) = (self.api(&of.namespace), Patch::Merge(patch));
        let written = async {
            match api.patch_metadata(name, &params, &patch).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
                Err(error) => Err(error),
            }
        };
        answered(|| what(of, name), written).await
    }

    /// The ControllerRevisions of a namespace.
    pub fn api(&self, namespace: &str) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Everything that is kept of a ConfigMap, and of its former namesakes, as it is now.
///
/// # Errors
/// [`Unread`] if it cannot be listed.
pub async fn everything(client: &kube::Client, config_map: &CatalogKey) -> Result<Vec<Shelved>, Unread> {
    let of = ListParams::default().labels(&format!("{}={}", names::HISTORY_OF, kept::label(&config_map.name)));
    let api = Api::<ControllerRevision>::namespaced(client.clone(), &config_map.namespace);
    let listed = answered(|| format!("the revisions of ConfigMap {config_map}"), api.list(&of)).await?;
    let shelved = |object: ControllerRevision| {
        let annotation = revisions(&object.metadata);
        let data = object.data.as_ref().map(|data| data.0.to_string()).unwrap_or_default();
        let kept = Kept::read(&config_map.namespace, annotation, &data).map(Kept::into_owned);
        // Labels of long names are hashes, and anybody can set a label.
        let is_another = kept.as_ref().is_ok_and(|kept| kept.config_map != *config_map);
        let written = kept::written(annotation);
        let name = object.metadata.name.clone().unwrap_or_default();
        (!is_another).then_some(Shelved { name, written, kept })
    };
    Ok(listed.items.into_iter().filter_map(shelved).collect())
}

/// Whether it was created.
enum Created {
    Yes,
    IsThere,
}

/// The revisions that a ControllerRevision says it is of.
pub fn written(meta: &Meta) -> Vec<Written> {
    kept::written(revisions(&meta.metadata))
}

fn revisions(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations.as_ref()?.get(names::REVISIONS).map(String::as_str)
}

fn newest(kept: &Kept<'_>) -> i64 {
    let newest = kept.written.iter().map(|it| it.revision).max().unwrap_or_default();
    i64::try_from(newest).unwrap_or(i64::MAX)
}

fn object(name: &str, kept: &Kept<'_>) -> ControllerRevision {
    let label = kept::label(&kept.config_map.name).into_owned();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(kept.config_map.namespace.to_string()),
            labels: Some(BTreeMap::from([(names::HISTORY_OF.to_owned(), label)])),
            annotations: kept::with(None, &kept.written).map(|it| BTreeMap::from([(names::REVISIONS.to_owned(), it)])),
            ..ObjectMeta::default()
        },
        revision: newest(kept),
        data: Some(RawExtension(kept.data())),
    }
}

/// Why the API server does not take it.
fn refused(of: &CatalogKey, name: &str, status: &Status) -> KeepError {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        404 => KeepError::Going,
        403 if causes.into_iter().any(|cause| cause.reason == TERMINATING) => KeepError::Going,
        400 | 403 | 413 | 422 => KeepError::Refused(format!("{} ({})", status.message, status.code)),
        code => KeepError::Unread(Unread::new(what(of, name), format_args!("{} ({code})", status.message))),
    }
}

fn what(of: &CatalogKey, name: &str) -> String {
    format!("ControllerRevision {}/{name}", of.namespace)
}
