//! The controller: moves entries forward to Idle, and tells everybody how that is going.
//!
//! ```text
//! configurations (short watch) ─▶ Arming ─┐
//! index (watches) ─▶ View ────────────────┼─▶ Settler::plan ─▶ write (CAS) │ due ─▶ live LIST ─▶ Idle (CAS)
//! election (Lease) ───────────────────────┘        every replica plans, the leader acts
//! refused removals ─▶ Settling (CAS)               every replica, after it has answered
//! events ─▶ beside their ConfigMap                 every replica its own
//! index ─▶ History: revisions beside their ConfigMap  the leader
//! ```
//! Every replica keeps the timers, so that Δ does not start anew when another one takes over. Nothing rests on
//! there being one leader: every write is a compare-and-swap, and a proof is worth the same whoever makes it.

mod announce;
mod audit;
mod configurations;
mod election;
mod history;
mod settle;
mod trouble;

pub use announce::announce;
pub use audit::audit;
pub use configurations::{ConfigurationError, follow_namespaces, read_configurations, watch_configurations};
pub use election::{Election, Leadership};
pub use history::keep_history;
pub use settle::{Refused, Wanted, prove, settle_refused};

use crate::arming::{Arming, Configuration, Stamps, Webhooks};
use crate::clock::Clock;
use crate::guard::RollbackTargets;
use crate::index::Index;
use crate::policy::{CurrentEpoch, HoldersOf, Prospect, Stored};
use crate::sharing::Sharing;
use crate::usage::{Epoch, Settler};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What the parts of this process know of how proofs are going; cheap to clone, never held across an await.
#[derive(Clone, Debug)]
pub struct Progress {
    clock: Clock,
    /// Δ: `--settle`.
    settle: Duration,
    arming: Arc<RwLock<Arming>>,
    /// The machine of each model ConfigMap, by UID: one that is created anew starts anew.
    settlers: Arc<Mutex<HashMap<String, Settler>>>,
    leadership: watch::Receiver<Leadership>,
    /// Why the last proof of this process failed, if it did.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Progress {
    /// Nothing is known yet.
    pub fn new(
        clock: Clock,
        settle: Duration,
        rollback_targets: RollbackTargets,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        let arming = Arc::new(RwLock::new(Arming::new(rollback_targets)));
        Self { clock, settle, arming, settlers: Arc::default(), leadership, trouble: Arc::default() }
    }

    /// The epoch, as this process sees it now, of a catalog that is shared so.
    pub fn epoch(&self, sharing: &Sharing) -> CurrentEpoch {
        self.arming.read().epoch(sharing, self.clock.now())
    }

    /// The same, were the guarded namespaces those that `live` has.
    fn epoch_among(&self, live: &Index, sharing: &Sharing) -> CurrentEpoch {
        self.arming.read().epoch_among(live.guarded(), sharing, self.clock.now())
    }

    /// Whether this process has read once what proofs rest on.
    pub fn is_informed(&self) -> bool {
        self.arming.read().is_informed()
    }

    /// The epoch of a catalog that is shared so, where a proof of it can be made at all, or else what is in the way.
    fn provable(&self, sharing: &Sharing) -> Result<Epoch, String> {
        let epoch = self.epoch(sharing).map_err(|unread| unread.to_string())?;
        if !self.leadership.borrow().is_live {
            return Err("no modelguard controller is running".to_owned());
        }
        match &*self.trouble.lock() {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(epoch),
        }
    }

    /// Whether waiting would help to delete the namespace of this catalog, and how long.
    pub fn prospect_of_closing(&self, uid: &str, stored: &Stored) -> Prospect {
        if let Err(obstacle) = self.provable(&stored.sharing) {
            return Prospect::Stuck(obstacle);
        }
        let settlers = self.settlers.lock();
        let remaining = |it: &Settler| it.remaining_closing(&stored.usage, self.settle, self.clock.now());
        Prospect::Moving(settlers.get(uid).map_or(self.settle, remaining))
    }

    /// Whether waiting would help to remove these entries, and how long.
    pub fn prospect(&self, of: &HoldersOf) -> Prospect {
        let epoch = match self.provable(&of.sharing) {
            Ok(epoch) => epoch,
            Err(obstacle) => return Prospect::Stuck(obstacle),
        };
        let now = self.clock.now();
        let settling: HashMap<_, _> = of.usage.settling(&epoch).collect();
        let settlers = self.settlers.lock();
        let settler = settlers.get(&of.uid);
        let left = |entry, id| settler.map_or(self.settle, |it| it.remaining(entry, id, self.settle, now));
        let remaining = of.entries.iter().map(|entry| settling.get(entry).map_or(self.settle, |id| left(entry, id)));
        Prospect::Moving(remaining.max().unwrap_or(self.settle))
    }

    /// A webhook configuration was read.
    fn saw_configuration(&self, which: Webhooks, found: Option<Configuration>) -> bool {
        self.arming.write().configuration(which, found, self.clock.now())
    }

    /// The guarded namespaces are these, or are not known now.
    fn saw_namespaces(&self, guarded: Option<Stamps>) -> bool {
        self.arming.write().namespaces(guarded)
    }
}
