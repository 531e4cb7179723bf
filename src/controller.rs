//! The controller: moves entries forward to Idle, and tells everybody how that is going.
//!
//! ```text
//! configurations (short watch) ─▶ Arming ─┐
//! index (watches) ─▶ View ────────────────┼─▶ Settler::plan ─▶ write (CAS) │ due ─▶ live LIST ─▶ Idle (CAS)
//! election (Lease) ───────────────────────┘        every replica plans, the leader acts
//! refused removals ─▶ Settling (CAS)               every replica, after it has answered
//! ```
//! Every replica keeps the timers, so that Δ does not start anew when another one takes over. Nothing rests on
//! there being one leader: every write is a compare-and-swap, and a proof is worth the same whoever makes it.

mod configurations;
mod election;
mod settle;

pub use configurations::{follow_namespaces, watch_configurations};
pub use election::{Election, Leadership};
pub use settle::{Refused, prove, settle_refused};

use crate::arming::{Arming, Configuration, Webhooks};
use crate::clock::Clock;
use crate::policy::{CurrentEpoch, HoldersOf, Prospect};
use crate::usage::{Settler, SettlingId};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
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
}

impl Progress {
    /// Nothing is known yet.
    pub fn new(clock: Clock, settle: Duration, leadership: watch::Receiver<Leadership>) -> Self {
        let settlers = Arc::default();
        Self { clock, settle, arming: Arc::default(), settlers, leadership }
    }

    /// The epoch that this process sees now.
    pub fn epoch(&self) -> CurrentEpoch {
        self.arming.read().epoch(self.clock.now())
    }

    /// Whether waiting would help to remove these entries, and how long.
    pub fn prospect(&self, of: &HoldersOf) -> Prospect {
        let epoch = match self.epoch() {
            Ok(epoch) => epoch,
            Err(unread) => return Prospect::Stuck(unread.to_string()),
        };
        if !self.leadership.borrow().is_live {
            return Prospect::Stuck("no modelguard controller is running".to_owned());
        }
        let now = self.clock.now();
        let settling: HashMap<_, _> = of.usage.settling(&epoch).collect();
        let settlers = self.settlers.lock();
        let left = |entry, id: &SettlingId| {
            let known = settlers.values().map(|settler| settler.remaining(entry, id, self.settle, now));
            known.min().unwrap_or(self.settle)
        };
        let remaining = of.entries.iter().map(|entry| settling.get(entry).map_or(self.settle, |id| left(entry, id)));
        Prospect::Moving(remaining.max().unwrap_or(self.settle))
    }

    /// A webhook configuration was read.
    fn saw_configuration(&self, which: Webhooks, found: Option<Configuration>) -> bool {
        self.arming.write().configuration(which, found, self.clock.now())
    }

    /// The guarded namespaces are these.
    fn saw_namespaces(&self, uids: BTreeSet<Box<str>>) -> bool {
        self.arming.write().namespaces(uids)
    }
}
