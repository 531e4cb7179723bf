//! P3: from InUse to Settling, and after Δ and a live LIST to Idle.

use super::Progress;
use crate::catalog::{EntryName, Format};
use crate::holder::Hold;
use crate::index::{self, CatalogFacts, Index};
use crate::policy::{Declared, Unread};
use crate::reference::CatalogKey;
use crate::usage::{Epoch, Plan, Settler, SettlingId, Usage, View, Why};
use crate::world::cluster::Cluster;
use crate::world::{LiftError, World as _};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

/// Events come in bursts (a rollout); a round sees the whole burst at once.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// The longest between two rounds, whatever happens: nothing rests on it but the repair of a lost wake-up.
const ROUND: Duration = Duration::from_secs(30);

/// After a proof that failed.
const RETRY: Duration = Duration::from_secs(2);

/// How long after the verdict Settling is written at the earliest. The API server compares a refused change with
/// the stored object once more: were that another one by then, a PUT would get a bare 409 in place of the reason.
const AFTER_ANSWER: Duration = Duration::from_millis(200);

/// How often a write of Settling is tried against other writers before it is left to the client's next attempt.
const ATTEMPTS: usize = 5;

/// A removal that was denied only for want of a proof.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Of which ConfigMap.
    pub catalog: CatalogKey,
    /// Of which entries.
    pub entries: BTreeSet<EntryName>,
    /// When.
    pub at: Instant,
}

/// Why a proof could not be made; it is tried again.
#[derive(Debug, Error)]
enum ProofError {
    /// A ConfigMap could not be read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// A holder kind could not be listed: nobody knows that there is no holder.
    #[error("cannot list every kind of holder: {0}")]
    List(#[from] index::LiveError),
    /// What proofs rest on changed while holders were listed.
    #[error("the epoch changed meanwhile")]
    Epoch,
    /// A ConfigMap could not be written.
    #[error(transparent)]
    Write(LiftError),
}

/// A model ConfigMap whose entries have waited.
struct Due {
    key: CatalogKey,
    entries: BTreeMap<EntryName, SettlingId>,
}

/// Plans round after round, for ever; acts while this replica leads.
pub async fn prove(cluster: Cluster, mut index: watch::Receiver<()>, mut arming: watch::Receiver<()>) {
    let mut leadership = cluster.progress.leadership.clone();
    loop {
        let leads = leadership.borrow_and_update().is_leader;
        index.mark_unchanged();
        arming.mark_unchanged();
        let pause = match round(&cluster, leads).await {
            Ok(pause) => pause,
            Err(error) => {
                warn!(%error, "no entry can become Idle now; trying again");
                RETRY
            }
        };
        sleep(DEBOUNCE).await;
        tokio::select! {
            () = sleep(pause) => {}
            _ = index.changed() => {}
            _ = arming.changed() => {}
            _ = leadership.changed() => {}
        }
    }
}

/// Begins Settling for what was refused: by whichever replica refused it, once its answer is out.
pub async fn settle_refused(cluster: Cluster, mut refused: mpsc::Receiver<Refused>) {
    while let Some(refused) = refused.recv().await {
        sleep_until(refused.at + AFTER_ANSWER).await;
        if let Err(error) = begin(&cluster, &refused).await {
            warn!(catalog = %refused.catalog, %error, "cannot begin to settle; the next attempt of the client will");
        }
    }
}

// === the round ===

/// Looks at every model ConfigMap; says how long nothing changes by time alone.
async fn round(cluster: &Cluster, leads: bool) -> Result<Duration, ProofError> {
    let Ok(epoch) = cluster.progress.epoch() else { return Ok(ROUND) };
    let plans = plan(cluster, &epoch);
    let now = cluster.progress.clock.now();
    let wake = plans.iter().filter_map(|(.., plan)| plan.wake).min();
    if leads {
        let (mut due, mut failed) = (Vec::new(), None);
        for (key, revision, plan) in plans {
            if let Some(usage) = &plan.write {
                failed = write(cluster, &key, &revision, usage).await.err().or(failed);
            } else if !plan.due.is_empty() {
                due.push(Due { key, entries: plan.due });
            }
        }
        conclude(cluster, &epoch, due).await?;
        // Only now: a ConfigMap that cannot be written (another policy guards it) must not stop all others.
        failed.map_or(Ok(()), Err)?;
    }
    Ok(wake.map_or(ROUND, |at| at.saturating_sub(now).min(ROUND)))
}

/// The plan of each model ConfigMap, with the revision that it rests on.
fn plan(cluster: &Cluster, epoch: &Epoch) -> Vec<(CatalogKey, String, Plan)> {
    let Progress { clock, settle, settlers, .. } = &cluster.progress;
    let index = cluster.index.read();
    let mut settlers = settlers.lock();
    let uids: HashSet<&str> = index.catalogs().map(|(_, catalog)| &*catalog.uid).collect();
    settlers.retain(|uid, _| uids.contains(uid.as_str()));
    let nothing = BTreeSet::new();
    let plan = |(key, catalog): (&CatalogKey, &CatalogFacts)| {
        let listing = catalog.listing.as_ref().ok();
        let entries = listing.map_or(&nothing, |listing| &listing.entries);
        let hold = Hold::parse(catalog.hold.as_deref());
        let held = listing.filter(|_| index.synced()).map(|listing| {
            let mut held = index.held(key, listing.format, entries);
            held.extend(entries.iter().filter(|entry| hold.keeps(entry)).cloned());
            held
        });
        let view = View { usage: &catalog.usage, entries, held: held.as_ref() };
        let settler = settlers.entry(catalog.uid.to_string()).or_default();
        let plan = settler.plan(view, epoch, *settle, clock.now(), random_id);
        (key.clone(), catalog.resource_version.to_string(), plan)
    };
    index.catalogs().map(plan).collect()
}

/// The proof: reads each ConfigMap, then lists every kind of holder, then writes on the revisions that were read.
async fn conclude(cluster: &Cluster, epoch: &Epoch, due: Vec<Due>) -> Result<(), ProofError> {
    if due.is_empty() {
        return Ok(());
    }
    let mut read = Vec::new();
    for Due { key, entries } in due {
        if let Some(stored) = cluster.catalog(&key).await? {
            read.push((key, entries, stored));
        }
    }
    let keys: BTreeSet<_> = read.iter().map(|(key, ..)| key.clone()).collect();
    let live = index::live(&cluster.client, &keys).await?;
    if cluster.progress.epoch().ok().as_ref() != Some(epoch) {
        return Err(ProofError::Epoch);
    }
    let mut failed = None;
    for (key, entries, stored) in read {
        let mut held = held(&live, &key, stored.declared.format(), entries.keys());
        held.extend(entries.keys().filter(|entry| stored.hold.keeps(entry)).cloned());
        let Some(usage) = Settler::conclude(&stored.usage, epoch, &entries, &held) else { continue };
        match write(cluster, &key, &stored.resource_version, &usage).await {
            Ok(true) => {
                let idle: Vec<_> =
                    entries.keys().filter(|entry| !held.contains(*entry)).map(EntryName::as_str).collect();
                info!(catalog = %key, ?idle, still_held = ?held, "nobody needs these entries: they may be removed");
            }
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Those of `entries` that have a holder; all of them where the format, and so what counts, is not known.
fn held<'e>(
    index: &Index,
    key: &CatalogKey,
    format: Option<Format>,
    entries: impl Iterator<Item = &'e EntryName>,
) -> BTreeSet<EntryName> {
    match format {
        Some(format) => index.held(key, format, entries),
        None => entries.cloned().collect(),
    }
}

// === refused removals ===

async fn begin(cluster: &Cluster, refused: &Refused) -> Result<(), ProofError> {
    for _ in 0..ATTEMPTS {
        let Some(stored) = cluster.catalog(&refused.catalog).await? else { return Ok(()) };
        let Declared::Catalog(format, catalog) = &stored.declared else { return Ok(()) };
        let epoch = cluster.epoch()?;
        let entries: BTreeSet<_> =
            refused.entries.iter().filter(|entry| catalog.lists(entry) && !stored.hold.keeps(entry)).cloned().collect();
        let held = {
            let index = cluster.index.read();
            if !index.synced() {
                return Ok(());
            }
            index.held(&refused.catalog, *format, &entries)
        };
        let usage = stored.usage.settle(&epoch, entries.difference(&held), Why::Refused, random_id);
        if usage == stored.usage {
            return Ok(());
        }
        match cluster.write_usage(&refused.catalog, &stored.resource_version, &usage).await {
            Ok(()) => return Ok(()),
            Err(LiftError::Conflict) => {}
            Err(error) => return Err(ProofError::Write(error)),
        }
    }
    Ok(())
}

// === helpers ===

/// Writes, or leaves it to the next round where somebody was faster; says whether it is written.
async fn write(cluster: &Cluster, key: &CatalogKey, revision: &str, usage: &Usage) -> Result<bool, ProofError> {
    match cluster.write_usage(key, revision, usage).await {
        Ok(()) => Ok(true),
        Err(LiftError::Conflict) => {
            debug!(catalog = %key, "the ConfigMap changed meanwhile; looking again");
            Ok(false)
        }
        Err(error) => Err(ProofError::Write(error)),
    }
}

/// Eight letters or digits: 41 bits, to be unique among the Settlings of one entry.
fn random_id() -> SettlingId {
    SettlingId::new(&std::iter::repeat_with(fastrand::alphanumeric).take(8).collect::<String>().to_lowercase())
}
