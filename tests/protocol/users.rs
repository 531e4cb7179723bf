//! What users do: P1 and P2, requests that add references and changes of the ConfigMap.
//!
//! A change is admitted on the stored object, and committed if that is still the stored one; where it is not, the API server
//! admits it anew, which is the same as if it had not been asked before.

use super::model::{Change, Machine, Part, Variant};
use super::real::{Asked, Begun, Changed, Judged, Referred};
use super::state::{
    Admitted, Cluster, ENTRIES, Entries, Mark, Marks, Need, Replica, Request, SLOTS, Seen, Slot, Stored,
};

impl Machine {
    /// R2: the webhook reads C after the review arrived, and decides.
    pub(crate) fn ask(&self, state: &mut Cluster, slot: usize, replica: usize, need: Need) -> Option<()> {
        let Replica { epoch, view, .. } = state.replicas[replica];
        let cached = self.config.variant == Variant::CachedRead;
        let stored = if cached { view.map(|seen| seen.stored) } else { state.stored };
        let referred = match state.outage {
            true => Referred::Allowed,
            false => self.real.refer(Asked { stored, old: state.slots[slot].template, new: need }),
        };
        let lifts = match referred {
            Referred::Denied => return None,
            Referred::Allowed => false,
            Referred::Lift(_) => match self.config.variant {
                Variant::NoLift => false,
                Variant::LiftOwnEpoch => stored?.usage.epoch == epoch,
                // The write conflicts, and the cache is read again.
                Variant::CachedRead if !view?.fresh => return None,
                _ => true,
            },
        };
        state.slots[slot].request = match lifts {
            true => Request::Lifting { need, age: 0, late: false },
            false => Request::Allowed { need, age: 0, checked: !state.outage, overtaken: false },
        };
        Some(())
    }

    /// R2: the lift is written; nothing else was since the read.
    pub(crate) fn write_lift(&self, state: &mut Cluster, slot: usize) -> Option<()> {
        let Slot { template: old, request: Request::Lifting { need, age, late }, .. } = state.slots[slot] else {
            return None;
        };
        let stored = state.stored.as_mut()?;
        let read = match self.config.variant {
            // The content may be another one by now, for it has a revision of its own.
            Variant::OtherObject => Stored { data: self.config.data, ..*stored },
            _ => *stored,
        };
        let Referred::Lift(usage) = self.real.refer(Asked { stored: Some(read), old, new: need }) else {
            panic!("what is read again is decided again in the same way");
        };
        stored.usage = usage;
        self.wrote(state, Part::Usage);
        if !late {
            state.slots[slot].request = Request::Allowed { need, age, checked: true, overtaken: false };
        }
        Some(())
    }

    /// A controller begins to make a pod; unless it lags, the template is still this one when the pod is stored.
    pub(crate) fn start_pod(&self, state: &mut Cluster, slot: usize) -> Option<()> {
        let need = state.slots[slot].template?;
        match self.config.variant {
            Variant::LaggingController => state.slots[slot].making = Some((need, 0)),
            _ => state.slots[slot].pod = Some(need),
        }
        Some(())
    }

    /// R1: both webhooks, on the stored object. What takes nothing away is committed at once.
    pub(crate) fn admit(&self, state: &mut Cluster, change: Change, replica: usize, mutated: bool) -> Option<()> {
        if state.outage {
            return None;
        }
        if change == Change::Copy {
            state.copy = state.stored.map(|stored| Seen { stored, fresh: true });
            return state.copy.map(drop);
        }
        let old = state.stored;
        let new = self.sent(state, change)?;
        let epoch = match self.config.variant {
            Variant::AnyEpoch => old.map_or(1, |old| old.usage.epoch.max(1)),
            _ => state.replicas[replica].epoch,
        };
        let (defers, retires) = (self.config.defers, change == Change::Retire);
        let judged = match new.filter(|_| retires && self.config.variant == Variant::RetireUnproven) {
            Some(new) => Judged::Allowed(Some(without_retained(new))),
            None => self.real.change(Changed { old, new, mutated, epoch, known_held: 0, defers, retires }),
        };
        match judged {
            Judged::Denied { settle } => self.begin(state, replica, settle),
            Judged::Allowed(mut becomes) => {
                if let (Variant::TrustingClient, Some(becomes), Some(new)) = (self.config.variant, &mut becomes, new) {
                    becomes.usage = new.usage;
                }
                if lost(old, becomes).next().is_none() {
                    self.commit(state, becomes);
                } else if state.change.is_none() {
                    state.change = Some(Admitted { becomes });
                } else {
                    return None;
                }
                Some(())
            }
        }
    }

    /// The object that the API server makes of a user's request.
    fn sent(&self, state: &Cluster, change: Change) -> Option<Option<Stored>> {
        let all_idle = Marks { epoch: 1, of: [Mark::Idle; ENTRIES] };
        if change == Change::Create {
            let data = self.config.data;
            let new = Stored { labelled: true, data, usage: all_idle, prior: None, retained: 0 };
            return state.stored.is_none().then_some(Some(new));
        }
        let mut new = state.stored?;
        match change {
            Change::Add(entry) if new.data[entry] == 0 => new.data[entry] = 1,
            Change::Remove(entry) if new.data[entry] != 0 => new.data[entry] = 0,
            Change::Replace(entry) if new.data[entry] != 0 => new.data[entry] = 3 - new.data[entry],
            Change::Touch => {}
            Change::Retire if new.retained != 0 => {}
            Change::Delete => return Some(None),
            Change::DropLabel => new.labelled = false,
            Change::Forge => new.usage = all_idle,
            Change::Put { without, bound } => {
                let copy = state.copy.filter(|copy| copy.fresh || !bound)?;
                new = copy.stored;
                if let Some(entry) = without {
                    new.data[entry] = 0;
                }
            }
            Change::Add(_)
            | Change::Remove(_)
            | Change::Replace(_)
            | Change::Retire
            | Change::Create
            | Change::Copy => return None,
        }
        Some(Some(new))
    }

    /// R1 is stored.
    pub(crate) fn commit(&self, state: &mut Cluster, becomes: Option<Stored>) {
        let old = state.stored;
        for entry in lost(old, becomes) {
            let back = old.and_then(|old| old.prior).is_some_and(|prior| {
                becomes.is_some_and(|new| new.labelled && new.data[entry] != 0 && new.data[entry] == prior[entry])
            });
            if back {
                continue;
            }
            let entry = u8::try_from(entry).unwrap();
            state.broken |= state.holds(entry);
            for slot in &mut state.slots {
                if let Request::Allowed { need, overtaken, .. } = &mut slot.request {
                    *overtaken |= *need == Need::All || *need == Need::Entry(entry);
                }
            }
        }
        let replaces = self.config.changes.iter().any(|change| matches!(change, Change::Replace(_)));
        state.stored = becomes.filter(|new| new.labelled).map(|mut new| {
            new.prior = new.prior.filter(|_| replaces);
            if let (Variant::NotStripped, Some(old)) = (self.config.variant, old) {
                let gone = |at: usize| if new.data[at] == 0 { old.usage.of[at] } else { new.usage.of[at] };
                let of = std::array::from_fn(gone);
                let epoch = if of == Marks::default().of { 0 } else { old.usage.epoch };
                new.usage = Marks { epoch, of };
            }
            if let (Variant::OtherObject, Some(old)) = (self.config.variant, old) {
                new.usage = old.usage;
            }
            new
        });
        self.wrote(state, Part::Content);
    }

    /// What was refused begins to settle, by the replica that refused it.
    fn begin(&self, state: &mut Cluster, replica: usize, entries: Entries) -> Option<()> {
        let id = state.unknown_ids().next()?;
        let stored = state.stored.as_mut()?;
        let epoch = state.replicas[replica].epoch;
        let usage = self.real.begin(Begun { usage: stored.usage, epoch, entries, id });
        if entries == 0 || usage == stored.usage {
            return None;
        }
        stored.usage = usage;
        self.wrote(state, Part::Usage);
        Some(())
    }
}

/// What is left when all that is retained goes, proven or not.
fn without_retained(stored: Stored) -> Stored {
    let data = std::array::from_fn(|at| if stored.retained & 1 << at == 0 { stored.data[at] } else { 0 });
    Stored { data, retained: 0, ..stored }
}

/// The entries that a change removes or replaces.
fn lost(old: Option<Stored>, becomes: Option<Stored>) -> impl Iterator<Item = usize> {
    let new = becomes.filter(|new| new.labelled).map_or([0; ENTRIES], |new| new.data);
    let old = old.map_or([0; ENTRIES], |old| old.data);
    (0..ENTRIES).filter(move |entry| old[*entry] != 0 && old[*entry] != new[*entry])
}

/// R2 is stored; an update of a holder only if that is still there.
pub(crate) fn commit_holder(state: &mut Cluster, slot: usize) -> Option<()> {
    let lists = |need: Need| !matches!(need, Need::Entry(entry) if !state.lists(entry));
    if let Request::Allowed { need, checked: false, .. } = state.slots[slot].request
        && !lists(need)
    {
        // Whoever was not asked cannot prevent it; what is promised begins with what is there.
        return None;
    }
    let slot = &mut state.slots[slot];
    match std::mem::take(&mut slot.request) {
        Request::Allowed { need, overtaken, .. } => {
            slot.template = Some(need);
            state.broken |= overtaken;
        }
        Request::Keeping { need } => slot.template = Some(need),
        Request::None | Request::Lifting { .. } => return None,
    }
    Some(())
}

/// A naive engine lists one more kind, and admits the removal of the first entry if nobody was found to hold it.
pub(crate) fn naive_list(state: &mut Cluster) -> Option<()> {
    let (listed, held) = state.naive.take().unwrap_or_default();
    if usize::from(listed) < SLOTS {
        let needs = state.slots[usize::from(listed)].needs();
        let held = needs.map(|need| need.entries([1; ENTRIES])).fold(held, |all, one| all | one);
        state.naive = Some((listed + 1, held));
    } else if held & 1 == 0 {
        let mut becomes = state.stored?;
        becomes.data[0] = 0;
        state.change = Some(Admitted { becomes: Some(becomes) });
    }
    Some(())
}
