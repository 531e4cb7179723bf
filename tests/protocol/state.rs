//! A state of the model: small, hashable, and in one form only.
//!
//! ```text
//! Cluster ┬ stored    the model ConfigMap, or none            ┐ what the API server keeps
//!         ├ slots     holders, and the requests to add one    ┘
//!         ├ change    a change of the ConfigMap, admitted and not yet committed
//!         ├ copy      what a user read, to PUT it some day
//!         └ replicas  what each believes: epoch, view, timers, proof
//! ```
//! # No revisions, no clock
//! A revision matters only for whether it is still the stored one. So whoever rests on one is *fresh* or not, and
//! every write makes everybody else stale; a compare-and-swap on a stale revision fails for ever, so what
//! waits for one begins anew at once. Times are ages in ticks that stop to grow where nobody tells them apart, and a
//! Settling id is the least that nobody remembers. So the state space is finite without any bound on steps.

/// The most entries of a configuration.
pub(crate) const ENTRIES: usize = 2;

/// The most holders of a configuration.
pub(crate) const SLOTS: usize = 2;

/// A set of entries, by bit.
pub(crate) type Entries = u8;

/// What is marked of one entry.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Mark {
    #[default]
    InUse,
    Settling(u8),
    Idle,
}

/// The annotation `modelguard.dev/usage`; all zero where there is none.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Marks {
    pub(crate) epoch: u8,
    pub(crate) of: [Mark; ENTRIES],
}

/// A model ConfigMap. The content of an entry is a number, 0 where it is not listed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Stored {
    pub(crate) labelled: bool,
    pub(crate) data: [u8; ENTRIES],
    pub(crate) usage: Marks,
    pub(crate) prior: Option<[u8; ENTRIES]>,
    /// The entries whose removal was deferred.
    pub(crate) retained: Entries,
}

/// What a holder needs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Need {
    Entry(u8),
    All,
}

/// A request of a slot: to create its holder, or to change what it needs.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum Request {
    #[default]
    None,
    /// The webhook has read the ConfigMap and is to write a lift; `late` if nobody waits for its answer any more.
    Lifting { need: Need, age: u8, late: bool },
    /// It is allowed; `checked` by the webhook, if that was called, and `overtaken` if what it needs was taken away since.
    Allowed { need: Need, age: u8, checked: bool, overtaken: bool },
    /// It only keeps what the holder has, so the rules had nothing to check.
    Keeping { need: Need },
}

/// A workload: its template, and the pods that a controller made from it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Slot {
    pub(crate) template: Option<Need>,
    pub(crate) pod: Option<Need>,
    /// A controller is about to make a pod of this template, for that many ticks.
    pub(crate) making: Option<(Need, u8)>,
    pub(crate) request: Request,
}

/// Something of the ConfigMap that somebody has, and whether it is the stored revision.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Seen {
    pub(crate) stored: Stored,
    pub(crate) fresh: bool,
}

/// The proof that a controller is making: the ConfigMap is read, kinds of holder are being listed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Proof {
    pub(crate) due: [Option<u8>; ENTRIES],
    pub(crate) epoch: u8,
    pub(crate) listed: u8,
    pub(crate) held: Entries,
}

/// One process.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Replica {
    pub(crate) epoch: u8,
    /// What its watch has told of the ConfigMap.
    pub(crate) view: Option<Seen>,
    /// Per entry, the Settling that was seen stored, and how many ticks ago.
    pub(crate) timers: [Option<(u8, u8)>; ENTRIES],
    pub(crate) proof: Option<Proof>,
}

/// An admitted change: what it makes of the ConfigMap; `None` deletes it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Admitted {
    pub(crate) becomes: Option<Stored>,
}

/// Everything.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) stored: Option<Stored>,
    pub(crate) slots: [Slot; SLOTS],
    pub(crate) change: Option<Admitted>,
    /// Naive policy engines: how many kinds were listed for the change, and what was found.
    pub(crate) naive: Option<(u8, Entries)>,
    pub(crate) copy: Option<Seen>,
    pub(crate) replicas: [Replica; 2],
    /// The webhooks are not called for workloads.
    pub(crate) outage: bool,
    /// A holder was left with an entry whose content was replaced under it, or taken away and put back.
    pub(crate) broken: bool,
}

// === impl Marks ===

impl Marks {
    fn ids(self) -> impl Iterator<Item = u8> {
        self.of.into_iter().filter_map(|mark| match mark {
            Mark::Settling(id) => Some(id),
            Mark::InUse | Mark::Idle => None,
        })
    }
}

// === impl Need ===

impl Need {
    /// What it needs of a ConfigMap with `data`; all is all that there is.
    pub(crate) fn entries(self, data: [u8; ENTRIES]) -> Entries {
        match self {
            Self::Entry(entry) => 1 << entry,
            Self::All => (0..ENTRIES).filter(|entry| data[*entry] != 0).map(|entry| 1 << entry).sum(),
        }
    }
}

// === impl Slot ===

impl Slot {
    /// What its objects need.
    pub(crate) fn needs(self) -> impl Iterator<Item = Need> {
        self.template.into_iter().chain(self.pod)
    }
}

// === impl Cluster ===

impl Cluster {
    /// Whether `entry` is listed.
    pub(crate) fn lists(&self, entry: u8) -> bool {
        self.stored.is_some_and(|stored| stored.data[usize::from(entry)] != 0)
    }

    /// Whether a holder needs `entry`.
    pub(crate) fn holds(&self, entry: u8) -> bool {
        let needs = |need: Need| need == Need::All || need == Need::Entry(entry);
        self.slots.iter().any(|slot| slot.needs().any(needs))
    }

    /// Forgets the timers of Settlings that are neither stored nor in view: a controller does so when it looks next.
    pub(crate) fn forget_timers(&mut self) {
        let stored = self.stored.map(|stored| stored.usage.of).unwrap_or_default();
        for replica in &mut self.replicas {
            let view = replica.view.map(|seen| seen.stored.usage.of).unwrap_or_default();
            for (at, timer) in replica.timers.iter_mut().enumerate() {
                let known = |id: u8| [stored[at], view[at]].contains(&Mark::Settling(id));
                *timer = timer.filter(|(id, _)| known(*id));
            }
        }
    }

    /// Ids that nobody knows, nor the one after each.
    pub(crate) fn unknown_ids(&self) -> impl Iterator<Item = u8> {
        let seen = self.copy.into_iter().chain(self.replicas.iter().filter_map(|replica| replica.view));
        let stored = self.stored.into_iter().chain(seen.map(|seen| seen.stored));
        let becoming = self.change.and_then(|change| change.becomes);
        let mut known: u32 =
            stored.chain(becoming).flat_map(|stored| stored.usage.ids()).fold(0, |all, id| all | 1 << id);
        for replica in &self.replicas {
            let timers = replica.timers.into_iter().flatten().map(|(id, _)| id);
            let due = replica.proof.into_iter().flat_map(|proof| proof.due).flatten();
            known = timers.chain(due).fold(known, |all, id| all | 1 << id);
        }
        (0..32).filter(move |id| known & 0b11 << id == 0)
    }
}
