//! What goes on without users: P3, the controllers, and what surrounds them all.

use super::model::{Machine, Part, Variant};
use super::real::{Concluded, Planned};
use super::state::{Cluster, ENTRIES, Entries, Mark, Need, Proof, Replica, Request, Seen, Stored};

impl Machine {
    /// Time passes, unless somebody is bound to act first: R2 is committed within Δ of its read, or never.
    pub(crate) fn tick(&self, state: &mut Cluster) -> Option<()> {
        let before = state.clone();
        for slot in &mut state.slots {
            let ages = [
                match &mut slot.request {
                    Request::Lifting { age, late: false, .. } | Request::Allowed { age, .. } => Some(age),
                    Request::None | Request::Lifting { late: true, .. } | Request::Keeping { .. } => None,
                },
                slot.making.as_mut().map(|(_, age)| age),
            ];
            for age in ages.into_iter().flatten() {
                *age += 1;
                if *age > self.config.delta {
                    return None;
                }
            }
        }
        for (_, age) in state.replicas.iter_mut().flat_map(|replica| replica.timers.iter_mut().flatten()) {
            *age = (*age + 1).min(self.config.delta + 1);
        }
        (*state != before).then_some(())
    }

    /// P3: a round of the controller. What is due is read anew, and then listed.
    pub(crate) fn plan(&self, state: &mut Cluster, replica: usize, held: Entries, quiet: bool) -> Option<()> {
        let id = state.unknown_ids().next()?;
        let Replica { epoch, view, timers, proof } = state.replicas[replica];
        let Seen { stored: seen, fresh } = view?;
        let settle =
            if self.config.variant == Variant::WaitExactly { self.config.delta - 1 } else { self.config.delta };
        let planning = self.real.plan(Planned { timers, seen, held, epoch, settle, quiet, id });
        let is_due = planning.due.iter().any(Option::is_some);
        let begins = planning.write.is_none() && is_due && proof.is_none() && state.stored.is_some();
        let writes = planning.write.filter(|_| fresh);
        state.replicas[replica].timers = planning.timers;
        if begins {
            state.replicas[replica].proof = Some(Proof { due: planning.due, epoch, listed: 0, held: 0 });
        }
        if let Some(usage) = writes {
            state.stored.as_mut()?.usage = usage;
            self.wrote(state, Part::Usage);
        }
        (begins || writes.is_some() || planning.timers != timers).then_some(())
    }

    /// P3: one more kind of holder is listed: each slot is of another kind, or templates and then pods.
    pub(crate) fn list(&self, state: &mut Cluster, replica: usize) -> Option<()> {
        let slots = state.slots;
        let proof = state.replicas[replica].proof.as_mut()?;
        let needs: Vec<Need> = match (self.config.pods, proof.listed == 0) {
            (false, _) => slots[usize::from(proof.listed)].needs().collect(),
            (true, first) if first == (self.config.variant != Variant::BottomUp) => {
                slots.iter().filter_map(|slot| slot.template).collect()
            }
            (true, _) => slots.iter().filter_map(|slot| slot.pod).collect(),
        };
        proof.listed += 1;
        proof.held = needs.into_iter().map(|need| need.entries([1; ENTRIES])).fold(proof.held, |all, one| all | one);
        Some(())
    }

    /// P3: the end of a proof.
    pub(crate) fn conclude(&self, state: &mut Cluster, replica: usize) -> Option<()> {
        let Replica { epoch, proof, .. } = &mut state.replicas[replica];
        let Proof { mut due, epoch: proven, held, .. } = proof.take()?;
        let current = *epoch == proven;
        if let Some(stored) = state.stored.as_mut().filter(|_| current) {
            if self.config.variant == Variant::AnySettling {
                due = std::array::from_fn(|at| match stored.usage.of[at] {
                    Mark::Settling(id) => due[at].and(Some(id)),
                    Mark::InUse | Mark::Idle => None,
                });
            }
            if let Some(usage) = self.real.conclude(Concluded { usage: stored.usage, epoch: proven, due, held }) {
                stored.usage = usage;
                self.wrote(state, Part::Usage);
            }
        }
        Some(())
    }

    pub(crate) fn restart(&self, state: &mut Cluster, replica: usize) -> Option<()> {
        let before = state.replicas[replica];
        let trusted = |at: usize| match before.view?.stored.usage.of[at] {
            Mark::Settling(id) => Some((id, self.config.delta + 1)),
            Mark::InUse | Mark::Idle => None,
        };
        let after = Replica {
            epoch: before.epoch,
            timers: match self.config.variant {
                Variant::TrustingRestart => std::array::from_fn(trusted),
                _ => Default::default(),
            },
            ..Replica::default()
        };
        state.replicas[replica] = after;
        (before != after).then_some(())
    }

    /// Makes stale whatever rests on the revision before.
    pub(crate) fn wrote(&self, state: &mut Cluster, part: Part) {
        let variant = self.config.variant;
        let apart = variant == Variant::OtherObject;
        if !(variant == Variant::UnboundCommit || apart && part == Part::Usage) {
            state.change = None;
        }
        if let Some(copy) = &mut state.copy {
            copy.fresh = false;
        }
        if apart && part == Part::Content {
            return;
        }
        let marks = state.stored.map(|stored| stored.usage.of);
        for replica in &mut state.replicas {
            if let Some(view) = &mut replica.view {
                view.fresh = false;
            }
            // What is no longer Settling by that id is not concluded by this proof, for no id comes twice: it is dropped
            // at once, which saves states.
            if let Some(proof) = replica.proof.as_mut().filter(|_| variant != Variant::AnySettling) {
                let is_it = |at: usize, id| marks.is_some_and(|marks| marks[at] == Mark::Settling(id));
                proof.due = std::array::from_fn(|at| proof.due[at].filter(|id| is_it(at, *id)));
                if proof.due.iter().all(Option::is_none) {
                    replica.proof = None;
                }
            }
        }
        for slot in &mut state.slots {
            if let Request::Lifting { .. } = slot.request {
                slot.request = Request::None;
            }
        }
    }
}

/// The watch of a replica catches up. Of what it skipped nothing is lost: a round looks at the last view only.
pub(crate) fn watch(state: &mut Cluster, replica: usize) {
    let stored = state.stored;
    let replica = &mut state.replicas[replica];
    replica.view = stored.map(|stored| Seen { stored: Stored { prior: None, ..stored }, fresh: true });
    if stored.is_none() {
        replica.timers = Default::default();
    }
}

/// The webhook is no longer called for workloads; and then it is again, by a configuration of another epoch.
pub(crate) fn outage(state: &mut Cluster) -> Option<()> {
    if state.replicas[0].epoch != 1 {
        return None;
    }
    // Nothing is promised for a change that was in flight.
    state.change = None;
    if state.outage {
        for replica in &mut state.replicas {
            replica.epoch = 2;
        }
    }
    state.outage = !state.outage;
    Some(())
}
