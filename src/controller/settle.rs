//! P3: from InUse to Settling, and after Δ and a live LIST to Idle.

use super::trouble::Trouble;
use crate::catalog::{EntryName, Format};
use crate::event::Event;
use crate::holder::Hold;
use crate::index::{self, CatalogFacts, Index};
use crate::metrics::EntryCounts;
use crate::policy::{Declared, Stored, Unread};
use crate::reference::CatalogKey;
use crate::usage::{Epoch, Plan, Settler, SettlingId, State, Usage, View, Why};
use crate::world::cluster::Cluster;
use crate::world::{LiftError, World as _};
use futures::{StreamExt as _, stream};
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

/// After a LIST that failed; doubles each time up to [`LONGEST_RETRY`], and no event cuts it short: a server that
/// cannot answer a LIST of everything must not be asked for one ten times a second.
const RETRY: Duration = Duration::from_secs(2);

/// The longest between two attempts to list.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// After a ConfigMap that could not be written, for a reason of its own.
const RETRY_WRITE: Duration = Duration::from_secs(2);

/// The shortest between two LISTs, however often there is reason for one.
const BETWEEN_LISTS: Duration = Duration::from_secs(1);

/// How long after the verdict Settling is written at the earliest. The API server compares a refused change with
/// the stored object once more: were that another one by then, a PUT would get a bare 409 in place of the reason.
const AFTER_ANSWER: Duration = Duration::from_millis(200);

/// So many refused removals begin to settle at the same time: one write that hangs must not hold up the others.
const SETTLING_AT_ONCE: usize = 8;

/// How often a write is tried against other writers before it is left to the next round, or the client's next attempt.
const ATTEMPTS: usize = 5;

/// A request that was denied only for want of a proof.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Of which ConfigMap.
    pub catalog: CatalogKey,
    /// What is to be proven.
    pub wanted: Wanted,
    /// When.
    pub at: Instant,
}

/// What somebody waits for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// That these entries may be removed.
    Removal(BTreeSet<EntryName>),
    /// That the namespace may be deleted.
    Closing,
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
    /// A ConfigMap could not be written.
    #[error(transparent)]
    Write(LiftError),
}

/// A model ConfigMap whose entries have waited.
struct Due {
    key: CatalogKey,
    uid: Box<str>,
    epoch: Epoch,
    entries: BTreeMap<EntryName, SettlingId>,
    closing: Option<SettlingId>,
}

/// What is to be done for one model ConfigMap, and the revision that this rests on.
struct Planned {
    key: CatalogKey,
    uid: Box<str>,
    revision: String,
    epoch: Epoch,
    plan: Plan,
}

/// Plans round after round, for ever; acts while this replica leads.
pub async fn prove(cluster: Cluster, mut index: watch::Receiver<()>, mut arming: watch::Receiver<()>) {
    let mut leadership = cluster.progress.leadership.clone();
    let mut unlisted = Trouble::new("prove that entries may go");
    let mut unwritten = Trouble::new("write what is known of an entry");
    let mut retry = RETRY;
    loop {
        let leads = leadership.borrow_and_update().is_leader;
        index.mark_unchanged();
        arming.mark_unchanged();
        let Round { wake, proof, written } = round(&cluster, leads).await;
        *cluster.progress.trouble.lock() = proof.as_ref().err().map(ToString::to_string);
        match &proof {
            Err(error) => {
                unlisted.is(error);
                sleep(retry).await;
                retry = (retry * 2).min(LONGEST_RETRY);
                continue;
            }
            Ok(listed) => {
                unlisted.over();
                retry = RETRY;
                sleep(if *listed { BETWEEN_LISTS } else { DEBOUNCE }).await;
            }
        }
        let pause = match &written {
            Ok(()) => {
                unwritten.over();
                wake
            }
            Err(error) => {
                unwritten.is(error);
                wake.min(RETRY_WRITE)
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = index.changed() => {}
            _ = arming.changed() => {}
            _ = leadership.changed() => {}
        }
    }
}

/// Begins Settling for what was refused: by whichever replica refused it, shortly after.
pub async fn settle_refused(cluster: Cluster, mut refused: mpsc::Receiver<Refused>) {
    let refused = stream::poll_fn(|context| refused.poll_recv(context));
    refused
        .for_each_concurrent(SETTLING_AT_ONCE, async |refused| {
            sleep_until(refused.at + AFTER_ANSWER).await;
            if let Err(error) = begin(&cluster, &refused).await {
                let catalog = &refused.catalog;
                warn!(%catalog, %error, "cannot begin to settle; the next attempt of the client will");
            }
        })
        .await;
}

// === the round ===

/// What came of a round.
struct Round {
    /// How long nothing changes by time alone.
    wake: Duration,
    /// Whether holders were listed, or why that was in vain.
    proof: Result<bool, ProofError>,
    /// Whether every ConfigMap could be written that had to be: one that cannot (another policy guards it) stops
    /// no other.
    written: Result<(), ProofError>,
}

/// Looks at every model ConfigMap, and does what is to be done if this replica `leads`.
async fn round(cluster: &Cluster, leads: bool) -> Round {
    let plans = plan(cluster, leads);
    let now = cluster.progress.clock.now();
    let wake = plans.iter().filter_map(|planned| planned.plan.wake).min();
    let wake = wake.map_or(ROUND, |at| at.saturating_sub(now).min(ROUND));
    let (mut due, mut written) = (Vec::new(), Ok(()));
    for Planned { key, uid, revision, epoch, plan } in plans.into_iter().filter(|_| leads) {
        if let Some(usage) = &plan.write {
            written = written.and(write(cluster, &key, &revision, usage).await.map(drop));
        } else if !plan.retire.is_empty() {
            written = written.and(retire(cluster, &key, &revision, &plan.retire).await);
        } else if !plan.due.is_empty() || plan.closing.is_some() {
            due.push(Due { key, uid, epoch, entries: plan.due, closing: plan.closing });
        }
    }
    if due.is_empty() {
        return Round { wake, proof: Ok(false), written };
    }
    let keys = due.iter().map(|due| due.key.clone()).collect();
    let started = Instant::now();
    let live = index::live(&cluster.client, &keys, cluster.guard.rollback_targets).await;
    cluster.metrics.proof(live.is_ok(), started.elapsed());
    let live = match live {
        Ok(live) => live,
        Err(error) => return Round { wake, proof: Err(error.into()), written },
    };
    for due in due {
        written = written.and(conclude(cluster, &live, &due).await);
    }
    Round { wake, proof: Ok(true), written }
}

/// The plan of each model ConfigMap whose epoch is known.
fn plan(cluster: &Cluster, leads: bool) -> Vec<Planned> {
    let progress = &cluster.progress;
    let settle = if cfg!(feature = "unsound") { Duration::ZERO } else { progress.settle };
    let index = cluster.index.read();
    let mut settlers = progress.settlers.lock();
    let uids: HashSet<&str> = index.catalogs().map(|(_, catalog)| &*catalog.uid).collect();
    settlers.retain(|uid, _| uids.contains(uid.as_str()));
    let nothing = BTreeSet::new();
    let mut counts = EntryCounts::default();
    let plan = |(key, catalog): (&CatalogKey, &CatalogFacts)| {
        let sharing = catalog.sharing(key);
        let epoch = progress.epoch(&sharing).ok()?;
        let listing = catalog.listing.as_ref().ok();
        let entries = listing.map_or(&nothing, |listing| &listing.entries);
        let hold = Hold::parse(catalog.hold.as_deref());
        let held = listing.filter(|_| index.synced()).map(|listing| {
            let mut held = index.held(key, &sharing, listing.format, entries);
            held.extend(entries.iter().filter(|entry| hold.keeps(entry)).cloned());
            held
        });
        count(&mut counts, &catalog.usage, &epoch, entries);
        let retained = catalog.retained.entries();
        let is_needed = || {
            // What cannot be read may be of any format.
            let format = listing.map_or(Format::Keys, |listing| listing.format);
            !index.elsewhere(key, &sharing, format).is_empty()
        };
        let needed_elsewhere = (catalog.usage.is_closing() && index.synced()).then(is_needed);
        let view = View { usage: &catalog.usage, entries, retained, held: held.as_ref(), needed_elsewhere };
        let settler = settlers.entry(catalog.uid.to_string()).or_default();
        let plan = settler.plan(view, &epoch, settle, progress.clock.now(), random_id);
        let (uid, revision) = (catalog.uid.clone(), catalog.resource_version.to_string());
        Some(Planned { key: key.clone(), uid, revision, epoch, plan })
    };
    let plans: Vec<_> = index.catalogs().filter_map(plan).collect();
    cluster.metrics.round(leads, &index, index.catalogs().count() - plans.len(), counts);
    plans
}

/// Adds the entries of one catalog.
fn count(counts: &mut EntryCounts, usage: &Usage, epoch: &Epoch, entries: &BTreeSet<EntryName>) {
    for entry in entries {
        match usage.state(entry, epoch) {
            State::InUse => counts.in_use += 1,
            State::Settling(_) => counts.settling += 1,
            State::Idle => counts.idle += 1,
        }
    }
}

/// Turns a LIST into Idle, or back into InUse.
///
/// The ConfigMap may have been read after the LIST: as long as the entry still has the same Settling id, nobody has
/// referenced it since the Settling began, for a reference takes the id away, and no id comes twice.
async fn conclude(cluster: &Cluster, live: &Index, due: &Due) -> Result<(), ProofError> {
    let Due { key, uid, epoch, entries, closing } = due;
    for _ in 0..ATTEMPTS {
        let Some(stored) = cluster.catalog(key).await? else { return Ok(()) };
        // The namespaces whose references were counted must be those that the epoch is made of.
        if cluster.progress.epoch_among(live, &stored.sharing).ok().as_ref() != Some(epoch)
            || cluster.progress.epoch(&stored.sharing).ok().as_ref() != Some(epoch)
        {
            return Ok(());
        }
        let mut held = held(live, key, &stored, entries.keys());
        held.extend(entries.keys().filter(|entry| stored.hold.keeps(entry)).cloned());
        let mut usage = Settler::conclude(&stored.usage, epoch, entries, &held).unwrap_or_else(|| stored.usage.clone());
        if let Some(closing) = closing {
            let format = stored.declared.format().unwrap_or(Format::Keys);
            let is_needed = !live.elsewhere(key, &stored.sharing, format).is_empty();
            usage = usage.concluded(closing, is_needed, random_id());
        }
        if usage == stored.usage {
            return Ok(());
        }
        if write(cluster, key, &stored.resource_version, &usage).await? {
            let idle: Vec<_> = entries.keys().filter(|entry| usage.state(entry, epoch) == State::Idle).collect();
            if usage.is_closed(epoch) && !stored.usage.is_closed(epoch) {
                info!(catalog = %key, "no other namespace needs this catalog: its namespace may be deleted");
            }
            if !idle.is_empty() {
                info!(catalog = %key, ?idle, still_held = ?held, "nobody needs these entries: they may be removed");
                cluster.announce(Event::removable(key, uid, idle.into_iter()));
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Those of `entries` that have a holder; all of them where the format, and so what counts, is not known.
fn held<'e>(
    index: &Index,
    key: &CatalogKey,
    stored: &Stored,
    entries: impl Iterator<Item = &'e EntryName>,
) -> BTreeSet<EntryName> {
    match stored.declared.format() {
        Some(format) => index.held(key, &stored.sharing, format, entries),
        None => entries.cloned().collect(),
    }
}

// === refused requests ===

async fn begin(cluster: &Cluster, refused: &Refused) -> Result<(), ProofError> {
    for _ in 0..ATTEMPTS {
        let Some(stored) = cluster.catalog(&refused.catalog).await? else { return Ok(()) };
        let epoch = cluster.epoch(&stored.sharing)?;
        let begun = match &refused.wanted {
            Wanted::Removal(entries) => settled(&cluster.index.read(), &refused.catalog, &stored, entries, &epoch),
            Wanted::Closing => closed(&cluster.index.read(), &refused.catalog, &stored, &epoch),
        };
        let Some(usage) = begun.filter(|usage| *usage != stored.usage) else { return Ok(()) };
        match cluster.write_usage(&refused.catalog, &stored.resource_version, &usage).await {
            Ok(()) => return Ok(()),
            Err(LiftError::Conflict) => {}
            Err(error) => return Err(ProofError::Write(error)),
        }
    }
    Ok(())
}

/// What `stored` becomes where the proof begins that nobody holds these entries.
fn settled(
    index: &Index,
    key: &CatalogKey,
    stored: &Stored,
    wanted: &BTreeSet<EntryName>,
    epoch: &Epoch,
) -> Option<Usage> {
    let Declared::Catalog(format, catalog) = &stored.declared else { return None };
    let may_settle = |entry: &&EntryName| catalog.lists(entry) && !stored.hold.keeps(entry);
    let entries: BTreeSet<_> = wanted.iter().filter(may_settle).cloned().collect();
    let held = index.synced().then(|| index.held(key, &stored.sharing, *format, &entries))?;
    Some(stored.usage.settle(epoch, entries.difference(&held), Why::Refused, random_id))
}

/// What `stored` becomes where the proof begins that no other namespace needs it.
fn closed(index: &Index, key: &CatalogKey, stored: &Stored, epoch: &Epoch) -> Option<Usage> {
    let format = stored.declared.format().unwrap_or(Format::Keys);
    let is_needed = !index.synced() || !index.elsewhere(key, &stored.sharing, format).is_empty();
    (!is_needed).then(|| stored.usage.close(epoch, random_id()))
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

/// Asks for the removal of `entries`, which was deferred until now; the mutating webhook makes it in this very write.
async fn retire(
    cluster: &Cluster,
    key: &CatalogKey,
    revision: &str,
    entries: &BTreeSet<EntryName>,
) -> Result<(), ProofError> {
    match cluster.retire(key, revision).await {
        Ok(()) => info!(catalog = %key, ?entries, "nobody needs these entries: their deferred removal was made"),
        Err(LiftError::Conflict) => debug!(catalog = %key, "the ConfigMap changed meanwhile; looking again"),
        Err(error) => return Err(ProofError::Write(error)),
    }
    Ok(())
}

/// Eight letters or digits: 41 bits, to be unique among the Settlings of one entry.
fn random_id() -> SettlingId {
    SettlingId::new(&std::iter::repeat_with(fastrand::alphanumeric).take(8).collect::<String>().to_lowercase())
}
