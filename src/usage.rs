//! Usage: the proof, carried by the model ConfigMap itself, that an entry may go.
//!
//! ```text
//!          no holder known                waited > Δ since Settling was first seen stored,
//!   InUse ────────────────▶ Settling ──── and a live LIST of every holder kind finds none ──▶ Idle
//!     ▲                        │                                                               │
//!     └── a reference (CAS) ───┴───────────────────── a reference (CAS) ───────────────────────┘
//! ```
//! Three parties, one annotation, every write a compare-and-swap of the ConfigMap:
//! * admission of a reference takes its entry back to InUse before it is allowed ([`Usage::without`]);
//! * admission of a removal reads the *old* object and wants Idle in the current epoch ([`Usage::state`]);
//! * the controller moves entries forward: [`Settler::plan`] says what to write and what to prove, and
//!   [`Settler::conclude`] turns a live LIST into the write of Idle.
//!
//! Everything here is pure: time is an argument, counted on a monotonic clock from any fixed instant, and so
//! is the source of Settling ids. This very machine is what the model check drives.
//!
//! # Why a reference ignores the epoch
//! State of another epoch does not allow a removal. It is nevertheless taken out when a reference comes in:
//! two replicas may disagree for a moment on what the epoch is, and the one that allows the reference must
//! void a proof that the other one still believes.

mod closing;
mod departing;
mod room;

pub use closing::Closing;

use crate::catalog::EntryName;
use closing::{Closer, Next};
use departing::{Departing, Departures};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How long an entry must have had no holder before the controller settles it unasked.
const QUIET: Duration = Duration::from_secs(600);

/// What is a little more than nothing: waiting *exactly* Δ is unsafe.
const TICK: Duration = Duration::from_millis(1);

/// The doubling of [`QUIET`] stops here: 600 s × 2⁸ is 43 hours.
const MOST_DOUBLINGS: u32 = 8;

/// A short hash of what proofs rest on: the webhook configurations, the guarded namespaces, the rules.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Epoch(Box<str>);

/// A random id that tells one Settling of an entry from the next one.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct SettlingId(Box<str>);

/// What is known of one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State<'a> {
    /// The default: it may be needed.
    InUse,
    /// No holder is known; the proof is under way.
    Settling(&'a SettlingId),
    /// Nobody needs it, and whoever comes to need it says so first.
    Idle,
}

/// Why an entry begins Settling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// It has had no holder for a while.
    Quiet,
    /// Its removal was denied only because the proof was missing.
    Refused,
}

/// The annotation `modelguard.dev/usage`: the entries that are not InUse, and the servers that are about to leave. Keys
/// are sorted, so equal states are equal bytes.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Usage {
    epoch: Epoch,
    idle: BTreeSet<EntryName>,
    settling: BTreeMap<EntryName, SettlingId>,
    /// Whether the namespace is to go, and how far that is proven; of its own epoch.
    closing: Option<Closing>,
    /// The servers that are about to leave; of any epoch.
    departing: Departing,
}

/// A model ConfigMap as the controller sees it now.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What its annotation says, of whatever epoch.
    pub usage: &'a Usage,
    /// The entries it lists.
    pub entries: &'a BTreeSet<EntryName>,
    /// Those whose removal was deferred: they settle as soon as nobody holds them, and go when they are Idle.
    pub retained: &'a BTreeSet<EntryName>,
    /// Those that have a holder, or that people hold; `None` while that is not known.
    pub held: Option<&'a BTreeSet<EntryName>>,
    /// Whether another namespace needs any of it; `None` while that is not known.
    pub needed_elsewhere: Option<bool>,
}

/// What is to be done for one model ConfigMap.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Write this usage, conditional on the revision that the view was taken from.
    pub write: Option<Usage>,
    /// These have waited: LIST every kind of holder, then [`Settler::conclude`].
    pub due: BTreeMap<EntryName, SettlingId>,
    /// This Closing has waited: LIST every kind of holder, then [`Usage::concluded`].
    pub closing: Option<SettlingId>,
    /// These are retained and Idle: ask for their removal, conditional on the revision that the view was taken from.
    pub retire: BTreeSet<EntryName>,
    /// Nothing changes by time alone before this instant.
    pub wake: Option<Duration>,
}

/// What the controller remembers of one model ConfigMap (one UID) between views.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Settler {
    /// When each Settling was first seen stored; other writes to the ConfigMap do not restart it.
    seen: BTreeMap<(EntryName, SettlingId), Duration>,
    /// Since when an InUse entry has had no holder.
    quiet: BTreeMap<EntryName, Duration>,
    /// The epoch of the last view.
    epoch: Epoch,
    /// The entries that were marked Settling or Idle then.
    marked: BTreeSet<EntryName>,
    /// How often an entry was marked and then taken back: each doubles the wait, so that Jobs do not make it flap.
    lifts: BTreeMap<EntryName, u32>,
    closer: Closer,
    departures: Departures,
}

// === impl Epoch ===

impl Epoch {
    /// Takes the hash.
    pub fn new(hash: &str) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl SettlingId ===

impl SettlingId {
    /// Takes a text that no other Settling of this ConfigMap has.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

// === impl Usage ===

impl Usage {
    /// Nothing but InUse, in `epoch`.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Reads the annotation. What cannot be read, wholly or in part, is all InUse.
    pub fn parse(annotation: Option<&str>) -> Self {
        annotation.and_then(|text| serde_json::from_str::<Wire>(text).ok()).and_then(Wire::read).unwrap_or_default()
    }

    /// The annotation; `None` if every entry is InUse and no server leaves, for then there is none.
    pub fn render(&self) -> Option<String> {
        let wire = Wire {
            closing: self.closing.clone(),
            epoch: self.epoch.clone(),
            idle: self.idle.iter().map(|entry| entry.as_str().into()).collect(),
            settling: self.settling.iter().map(|(entry, id)| (entry.as_str().into(), id.clone())).collect(),
            departing: self.departing.clone(),
        };
        // A map of strings always serializes.
        if self.is_empty() { None } else { serde_json::to_string(&wire).ok() }
    }

    /// Whether every entry is InUse, no server is about to leave, and the namespace is not to go.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.settling.is_empty() && self.departing.is_empty() && self.closing.is_none()
    }

    /// What is known of `entry` in `epoch`: state of another epoch reads as InUse.
    pub fn state(&self, entry: &EntryName, epoch: &Epoch) -> State<'_> {
        if self.epoch != *epoch {
            State::InUse
        } else if self.idle.contains(entry) {
            State::Idle
        } else {
            self.settling.get(entry).map_or(State::InUse, State::Settling)
        }
    }

    /// The entries that are marked Idle, in whatever epoch it was written.
    pub fn idle(&self) -> impl Iterator<Item = &EntryName> {
        self.idle.iter()
    }

    /// The entries that are Settling in `epoch`, with their ids.
    pub fn settling(&self, epoch: &Epoch) -> impl Iterator<Item = (&EntryName, &SettlingId)> {
        let current = self.epoch == *epoch;
        self.settling.iter().filter(move |_| current)
    }

    /// Whether `entry` is marked Settling or Idle, in any epoch.
    pub fn marks(&self, entry: &EntryName) -> bool {
        self.idle.contains(entry) || self.settling.contains_key(entry)
    }

    /// The entries that are marked Settling or Idle, in any epoch.
    pub fn marked(&self) -> impl Iterator<Item = &EntryName> {
        self.idle.iter().chain(self.settling.keys())
    }

    /// The same with `entries` InUse.
    #[must_use]
    pub fn without<'a>(&self, entries: impl IntoIterator<Item = &'a EntryName>) -> Self {
        let mut usage = self.clone();
        for entry in entries {
            usage.idle.remove(entry);
            usage.settling.remove(entry);
        }
        usage
    }

    /// The same for the entries that `keep` says, InUse for all others.
    #[must_use]
    pub fn retaining(mut self, keep: impl Fn(&EntryName) -> bool) -> Self {
        self.idle.retain(&keep);
        self.settling.retain(|entry, _| keep(entry));
        self
    }

    /// Begins Settling, in `epoch`, for those of `entries` that are InUse; state of another epoch is dropped.
    ///
    /// Where the annotation would grow too large, entries whose removal was refused ([`Why::Refused`]) displace
    /// others; quiet ones wait for room.
    #[must_use]
    pub fn settle<'a>(
        &self,
        epoch: &Epoch,
        entries: impl IntoIterator<Item = &'a EntryName>,
        why: Why,
        mut id: impl FnMut() -> SettlingId,
    ) -> Self {
        let mut usage = self.in_epoch(epoch);
        let entries: BTreeSet<_> = entries.into_iter().collect();
        let others: Vec<_> = usage.marked().filter(|entry| !entries.contains(entry)).cloned().collect();
        let mut begun = Vec::new();
        for entry in entries {
            if !usage.marks(entry) {
                usage.settling.insert(entry.clone(), id());
                begun.push(entry.clone());
            }
        }
        match why {
            Why::Quiet => usage.fit(begun.iter().rev()),
            Why::Refused => usage.fit(others.iter().chain(begun.iter().rev())),
        }
        usage
    }

    /// This usage if it is of `epoch`, else one that says nothing of any entry.
    fn in_epoch(&self, epoch: &Epoch) -> Self {
        let anew =
            || Self { closing: self.closing.clone(), departing: self.departing.clone(), ..Self::new(epoch.clone()) };
        if self.epoch == *epoch { self.clone() } else { anew() }
    }
}

/// The annotation's JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closing: Option<Closing>,
    epoch: Epoch,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    idle: Vec<Box<str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settling: BTreeMap<Box<str>, SettlingId>,
    #[serde(default, skip_serializing_if = "Departing::is_empty")]
    departing: Departing,
}

impl Wire {
    fn read(self) -> Option<Usage> {
        let idle: BTreeSet<_> = self.idle.iter().map(|name| EntryName::new(name).ok()).collect::<Option<_>>()?;
        let settling: BTreeMap<_, _> = self
            .settling
            .into_iter()
            .map(|(name, id)| Some((EntryName::new(&name).ok()?, id)))
            .collect::<Option<_>>()?;
        // An entry is in one state; a text that says two says nothing.
        let unambiguous = idle.iter().all(|entry| !settling.contains_key(entry));
        unambiguous.then_some(Usage {
            epoch: self.epoch,
            idle,
            settling,
            closing: self.closing,
            departing: self.departing,
        })
    }
}

// === impl Settler ===

impl Settler {
    /// Says what to do for the ConfigMap in `view`.
    ///
    /// `settle` is Δ. `now` never runs backwards. `id` gives a fresh id for each call.
    pub fn plan(
        &mut self,
        view: View<'_>,
        epoch: &Epoch,
        settle: Duration,
        now: Duration,
        mut id: impl FnMut() -> SettlingId,
    ) -> Plan {
        self.observe(view, epoch, now);
        let mut usage = view.usage.in_epoch(epoch).retaining(|entry| view.entries.contains(entry));
        self.departures.forget(&mut usage.departing, settle, now);
        let mut wake = self.seen.values().map(|since| *since + settle + TICK).collect::<Vec<_>>();
        wake.extend(self.departures.wake(settle));
        if let Some(held) = view.held {
            let back: Vec<_> = usage.marked().filter(|entry| held.contains(*entry)).cloned().collect();
            let (ripe, later) = self.ripe(view.retained, settle, now);
            let (asked, quiet): (Vec<_>, Vec<_>) = ripe.iter().partition(|entry| view.retained.contains(*entry));
            usage = usage.without(&back).settle(epoch, quiet, Why::Quiet, &mut id).settle(
                epoch,
                asked,
                Why::Refused,
                &mut id,
            );
            wake.extend(later);
        }
        let mut closing = None;
        match view.usage.closing.as_ref() {
            None => self.closer.forget(),
            Some(mark) => match self.closer.next(mark, view.needed_elsewhere, epoch, settle, now, id) {
                Next::Wait(at) => wake.push(at),
                Next::Becomes(next) => usage.closing = next,
                Next::Due(id) => closing = Some(id),
            },
        }
        let due = self.due(&usage, epoch, settle, now).filter(|_| view.held.is_some()).collect();
        // The epoch alone says nothing where no entry is marked.
        let same_but_epoch = Usage { epoch: view.usage.epoch.clone(), ..usage.clone() } == *view.usage;
        let changed = usage != *view.usage && !(same_but_epoch && usage.marked().next().is_none());
        let goes = |entry: &&EntryName| view.held.is_some() && view.usage.state(entry, epoch) == State::Idle;
        let retire = view.retained.iter().filter(goes).filter(|_| !changed).cloned().collect();
        Plan {
            write: changed.then_some(usage),
            due,
            closing,
            retire,
            wake: wake.into_iter().filter(|at| *at > now).min(),
        }
    }

    /// Turns a LIST into the next usage: Idle for those of `due` that it found no holder of, InUse for the rest.
    ///
    /// `usage` is what the ConfigMap says when the LIST is over, and the write is conditional on that revision. An entry whose
    /// Settling is another one by now is left alone: ids are unique, and a reference takes the id away, so that the same one
    /// says that nobody referenced the entry since the Settling began, whatever else was written.
    pub fn conclude(
        usage: &Usage,
        epoch: &Epoch,
        due: &BTreeMap<EntryName, SettlingId>,
        held: &BTreeSet<EntryName>,
    ) -> Option<Usage> {
        let mut next = usage.in_epoch(epoch);
        for (entry, id) in due {
            if next.settling.get(entry) == Some(id) {
                next.settling.remove(entry);
                if !held.contains(entry) {
                    next.idle.insert(entry.clone());
                }
            }
        }
        (next != *usage).then_some(next)
    }

    /// How much of Δ is left for `entry`; the whole of it where its Settling has not been seen yet.
    pub fn remaining(&self, entry: &EntryName, id: &SettlingId, settle: Duration, now: Duration) -> Duration {
        let since = self.seen.get(&(entry.clone(), id.clone())).copied().unwrap_or(now);
        (since + settle).saturating_sub(now)
    }

    /// How long it takes until the Closing of `usage` has waited; all of Δ where there is none.
    pub fn remaining_closing(&self, usage: &Usage, settle: Duration, now: Duration) -> Duration {
        usage.closing.as_ref().map_or(settle, |closing| self.closer.remaining(closing, settle, now))
    }

    /// Keeps the timers of what is still there, and starts those of what is new.
    fn observe(&mut self, view: View<'_>, epoch: &Epoch, now: Duration) {
        let settling: BTreeSet<_> = view.usage.settling(epoch).map(|(entry, id)| (entry.clone(), id.clone())).collect();
        self.seen.retain(|key, _| settling.contains(key));
        for key in settling {
            self.seen.entry(key).or_insert(now);
        }
        self.departures.observe(&view.usage.departing, now);
        let marked: BTreeSet<_> = view.usage.in_epoch(epoch).marked().cloned().collect();
        // That an epoch ended takes entries back, too, and says nothing about them.
        if self.epoch == *epoch {
            for entry in self.marked.difference(&marked) {
                *self.lifts.entry(entry.clone()).or_default() += 1;
            }
        }
        self.marked = marked;
        self.epoch = epoch.clone();
        self.lifts.retain(|entry, _| view.entries.contains(entry));
        let Some(held) = view.held else {
            self.quiet.clear();
            return;
        };
        let is_quiet = |entry: &EntryName| !held.contains(entry) && view.usage.state(entry, epoch) == State::InUse;
        self.quiet.retain(|entry, _| view.entries.contains(entry) && is_quiet(entry));
        for entry in view.entries.iter().filter(|entry| is_quiet(entry)) {
            self.quiet.entry(entry.clone()).or_insert(now);
        }
    }

    /// The entries that have been quiet for long enough, and when the others will have been.
    fn ripe(
        &self,
        retained: &BTreeSet<EntryName>,
        settle: Duration,
        now: Duration,
    ) -> (BTreeSet<EntryName>, Vec<Duration>) {
        let mut ripe = BTreeSet::new();
        let mut later = Vec::new();
        for (entry, since) in &self.quiet {
            let lifts = self.lifts.get(entry).copied().unwrap_or(0);
            let doublings = 2u32.pow(lifts.min(MOST_DOUBLINGS));
            let pause = match lifts {
                // Somebody waits for its removal, who may have rolled back and forth before.
                0 if retained.contains(entry) => Duration::ZERO,
                _ if retained.contains(entry) => (settle * doublings).min(QUIET),
                _ => QUIET * doublings,
            };
            let at = *since + pause;
            if at <= now {
                ripe.insert(entry.clone());
            } else {
                later.push(at);
            }
        }
        (ripe, later)
    }

    /// What has waited *more* than Δ.
    fn due(
        &self,
        usage: &Usage,
        epoch: &Epoch,
        settle: Duration,
        now: Duration,
    ) -> impl Iterator<Item = (EntryName, SettlingId)> {
        usage.settling(epoch).filter_map(move |(entry, id)| {
            let key = (entry.clone(), id.clone());
            self.seen.get(&key).is_some_and(|since| now > *since + settle).then_some(key)
        })
    }
}

#[cfg(test)]
mod tests;
