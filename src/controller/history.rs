//! Keeps each revision of every model ConfigMap beside it, so many of them, and those of a deleted one for a while.
//!
//! ```text
//! index: (UID, number) of what is stored ─┐
//!                                         ├─ not kept yet ──▶ GET ──▶ ControllerRevision
//! Archive: what is kept ──────────────────┤
//!                                         └─ kept, and ──▶ older than the last ten: deleted
//!                                                      └─▶ of what is gone: marked, deleted after 30 days
//! ```
//! The webhook keeps what a change ends, where that is not done by then. So this is what makes a change cost no more
//! than its annotation, and what keeps the last revision of a ConfigMap that goes unseen.

use super::trouble::Trouble;
use crate::index::{Index, Source};
use crate::names;
use crate::object::ConfigMap;
use crate::policy::{Unread, Version};
use crate::reference::CatalogKey;
use crate::revision::Keep;
use crate::world::KeepError;
use crate::world::cluster::history::{self, Meta};
use crate::world::cluster::{Cluster, answered};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

/// Changes come in bursts; a round sees the whole burst at once.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// The longest between two rounds: nothing else tells that 30 days are over.
const ROUND: Duration = Duration::from_secs(60);

/// How long the revisions of what is gone are kept.
const AFTERLIFE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is stored now: the number of the current revision, and whose it is, by UID.
type Living = HashMap<String, (CatalogKey, u64)>;

/// What is to be done with what is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Stays,
    /// It was marked, and its ConfigMap is there again.
    Returns,
    /// Its ConfigMap is gone.
    IsOrphaned,
    Goes,
}

/// What the last round left.
#[derive(Default)]
struct Known {
    /// The revisions that are kept, by UID and number.
    kept: HashSet<(String, u64)>,
    /// When all that is kept was looked at.
    at: Option<Instant>,
}

/// Keeps `limit` revisions besides the current one, for ever; acts while this replica leads.
pub async fn keep_history(cluster: Cluster, mut changes: watch::Receiver<()>, limit: u64) {
    cluster.history.listed().await;
    let mut leadership = cluster.progress.leadership.clone();
    let mut trouble = Trouble::new("keep the revisions of model ConfigMaps");
    let mut known = Known::default();
    loop {
        changes.mark_unchanged();
        if leadership.borrow_and_update().is_leader {
            match round(&cluster, &mut known, limit).await {
                Ok(()) => trouble.over(),
                Err(error) => trouble.is(&error),
            }
        }
        sleep(DEBOUNCE).await;
        tokio::select! {
            () = sleep(ROUND) => {}
            _ = changes.changed() => {}
            _ = leadership.changed() => {}
        }
    }
}

/// Keeps what is new. All that is kept is looked at only then, and once in a [`ROUND`]: pods that come and go, which wake
/// this as well, must cost next to nothing.
async fn round(cluster: &Cluster, known: &mut Known, limit: u64) -> Result<(), KeepError> {
    let Some(living) = living(&cluster.index.read()) else { return Ok(()) };
    let missing = |known: &Known| living.iter().any(|(uid, (_, number))| !known.kept.contains(&(uid.clone(), *number)));
    if !missing(known) && known.at.is_some_and(|at| at.elapsed() < ROUND) {
        return Ok(());
    }
    let all = cluster.history.known();
    let written = all.iter().flat_map(|meta| history::written(meta));
    known.kept = written.map(|written| (String::from(written.uid), written.revision)).collect();
    known.at = Some(Instant::now());
    let mut outcome = Ok(());
    for (uid, (key, number)) in &living {
        if !known.kept.contains(&(uid.clone(), *number)) {
            outcome = outcome.and(keep(cluster, key).await);
        }
    }
    for meta in &all {
        let fate = fate(meta, &living, limit, Timestamp::now());
        outcome = outcome.and(make(cluster, meta, fate).await.map_err(KeepError::from));
    }
    outcome
}

/// What is stored now; `None` while that is not known.
fn living(index: &Index) -> Option<Living> {
    let is_listed = index.missing().all(|source| source != Source::Catalogs);
    let current = index.catalogs().filter(|(_, facts)| !facts.uid.is_empty());
    is_listed.then(|| current.map(|(key, facts)| (facts.uid.to_string(), (key.clone(), facts.revision))).collect())
}

/// Keeps what a ConfigMap stores now.
async fn keep(cluster: &Cluster, key: &CatalogKey) -> Result<(), KeepError> {
    let Some(json) = cluster.json(key).await? else { return Ok(()) };
    let unread = |error| Unread::new(format!("ConfigMap {key}"), error);
    let version = Version::stored(ConfigMap::parse(&json).map_err(unread)?);
    match cluster.history.keep(&Keep { config_map: key, version: &version, is_needed: false }).await {
        Err(KeepError::Going) => Ok(()),
        kept => kept,
    }
}

/// What becomes of what is kept, at `now`.
fn fate(meta: &Meta, living: &Living, limit: u64, now: Timestamp) -> Fate {
    let written = history::written(meta);
    let current = |uid: &str| living.get(uid).map(|(_, number)| *number);
    let is_recent = |uid: &str, number: u64| current(uid).is_some_and(|current| number + limit >= current);
    let orphaned = meta.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::ORPHANED));
    if written.iter().any(|it| is_recent(&it.uid, it.revision)) {
        return if orphaned.is_some() { Fate::Returns } else { Fate::Stays };
    }
    if written.iter().all(|it| current(&it.uid).is_some()) && !written.is_empty() {
        return Fate::Goes;
    }
    // A mark that cannot be read is made anew.
    match orphaned.and_then(|since| since.parse::<Timestamp>().ok()) {
        Some(since) if now.duration_since(since) > AFTERLIFE => Fate::Goes,
        Some(_) => Fate::Stays,
        None => Fate::IsOrphaned,
    }
}

async fn make(cluster: &Cluster, meta: &Meta, fate: Fate) -> Result<(), Unread> {
    let name = meta.metadata.name.as_deref().unwrap_or_default();
    let key = CatalogKey::new(meta.metadata.namespace.as_deref().unwrap_or_default(), name);
    let mark = match fate {
        Fate::Stays => return Ok(()),
        Fate::Goes => return delete(cluster, &key, meta).await,
        Fate::IsOrphaned => json!(Timestamp::now().to_string()),
        Fate::Returns => json!(null),
    };
    let annotations = json!({names::ORPHANED: mark});
    let patch = json!({"metadata": {"resourceVersion": meta.metadata.resource_version, "annotations": annotations}});
    if cluster.history.patch(&key, name, patch).await? {
        debug!(revision = %key, ?fate, "marked");
    }
    Ok(())
}

/// Deletes what is kept, unless a revision was added to it meanwhile.
async fn delete(cluster: &Cluster, key: &CatalogKey, meta: &Meta) -> Result<(), Unread> {
    let preconditions =
        Preconditions { resource_version: meta.metadata.resource_version.clone(), uid: meta.metadata.uid.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let api = cluster.history.api(&key.namespace);
    let deleted = async {
        match api.delete(&key.name, &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    };
    if answered(|| format!("ControllerRevision {key}"), deleted).await? {
        info!(revision = %key, "this revision is no longer kept");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ControllerRevision;
    use kube::api::{ObjectMeta, PartialObjectMeta};
    use std::collections::BTreeMap;

    const NOW: &str = "2026-12-01T00:00:00Z";

    fn meta(written: &str, orphaned: Option<&str>) -> Meta {
        let mut annotations = BTreeMap::from([(names::REVISIONS.to_owned(), written.to_owned())]);
        annotations.extend(orphaned.map(|since| (names::ORPHANED.to_owned(), since.to_owned())));
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        PartialObjectMeta::<ControllerRevision> { metadata, ..PartialObjectMeta::default() }
    }

    #[track_caller]
    fn becomes(written: &str, orphaned: Option<&str>, expected: Fate) {
        let living = Living::from([("u".to_owned(), (CatalogKey::new("prod", "models"), 12))]);
        assert_eq!(fate(&meta(written, orphaned), &living, 10, NOW.parse().unwrap()), expected);
    }

    #[test]
    fn ten_revisions_stay_beside_the_current_one() {
        becomes(r#"[{"uid":"u","revision":12}]"#, None, Fate::Stays);
        becomes(r#"[{"uid":"u","revision":2}]"#, None, Fate::Stays);
        becomes(r#"[{"uid":"u","revision":1}]"#, None, Fate::Goes);
        becomes(r#"[{"uid":"u","revision":1},{"uid":"u","revision":5}]"#, None, Fate::Stays);
    }

    #[test]
    fn what_is_gone_is_kept_for_thirty_days() {
        let gone = r#"[{"uid":"x","revision":1}]"#;
        becomes(gone, None, Fate::IsOrphaned);
        becomes(gone, Some("no time"), Fate::IsOrphaned);
        becomes(gone, Some("2026-11-01T00:00:00Z"), Fate::Stays);
        becomes(gone, Some("2026-10-31T23:59:59Z"), Fate::Goes);
        becomes(r#"[{"uid":"x","revision":1},{"uid":"u","revision":1}]"#, None, Fate::IsOrphaned);
        becomes("damaged", None, Fate::IsOrphaned);
    }

    #[test]
    fn what_comes_back_loses_its_mark() {
        becomes(r#"[{"uid":"x","revision":1},{"uid":"u","revision":12}]"#, Some(NOW), Fate::Returns);
    }
}
