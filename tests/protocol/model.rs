//! The model: who may do what, and what comes of it.
//!
//! ```text
//!  users ─R2─▶ read C ─▶ policy::decide ─┬─▶ lift (CAS) ─▶ allowed ─▶ committed within Δ, or never
//!  users ─R1─▶ policy::{mutate, decide} ─┼─▶ admitted ─▶ committed, if C is still that revision
//!                                        └─▶ refused ─▶ Usage::settle (CAS)
//!  watch ─▶ view ─▶ Settler::plan ─▶ Settling (CAS) ⋯ > Δ ⋯ read C, LIST, LIST ─▶ Settler::conclude ─▶ Idle (CAS)
//! ```
//! Verdicts and writes are the crate's own (`real`). The model adds what surrounds them: one API server, requests
//! in flight, watches that lag, a clock, and processes that come and go. What it lets an index say of holders is
//! *anything*, for no proof may rest on that; and nobody is elected, so every replica acts as if it were the leader.

use super::controllers::{outage, watch};
use super::real::Real;
use super::state::{Admitted, Cluster, ENTRIES, Entries, Marks, Need, Replica, Request, SLOTS, Seen, Slot, Stored};
use super::users::{commit_holder, naive_list};
use stateright::{Model, Property};

/// What a configuration has in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) variant: Variant,
    /// Δ, in ticks.
    pub(crate) delta: u8,
    /// The content of each entry at first.
    pub(crate) data: [u8; ENTRIES],
    /// What holders need at first.
    pub(crate) holders: [Option<Need>; SLOTS],
    /// What requests may ask for, by slot.
    pub(crate) needs: [&'static [Need]; SLOTS],
    pub(crate) changes: &'static [Change],
    pub(crate) replicas: usize,
    /// How many of them see the ConfigMap late; the others see it at once.
    pub(crate) lagging: usize,
    pub(crate) epochs: Epochs,
    /// Processes come and go.
    pub(crate) restarts: bool,
    /// Controllers make pods, which nobody checks.
    pub(crate) pods: bool,
    /// Entries are settled unasked, too.
    pub(crate) quiet: bool,
    /// The mutating webhook is not always reached.
    pub(crate) unmutated: bool,
    /// For a while the webhook is not called for workloads.
    pub(crate) outage: bool,
    /// Updates of holders that only keep what they need.
    pub(crate) keeping: bool,
    /// The guard keeps what an update removes, until it is retired.
    pub(crate) defers: bool,
}

/// What is as in the protocol, or deliberately not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Variant {
    Protocol,
    /// R2 is allowed without taking its entry back to InUse.
    NoLift,
    /// The controller waits Δ and no longer.
    WaitExactly,
    /// The usage is kept in another object, so that writing it leaves the revision of C as it is.
    OtherObject,
    /// R2 reads C from a cache.
    CachedRead,
    /// R1 is committed whatever happened to C since it was admitted.
    UnboundCommit,
    /// R1 lists holders, R2 reads C, and no more.
    Naive,
    /// R2 takes back only what is marked in its own replica's epoch.
    LiftOwnEpoch,
    /// R1 believes a mark of any epoch.
    AnyEpoch,
    /// The marks of an entry stay when it is removed.
    NotStripped,
    /// Pods are listed before the templates that they are made from.
    BottomUp,
    /// Idle is written if the entry is still Settling, or Settling once more.
    AnySettling,
    /// What keeps a reference is not bound to the holder's revision.
    UnboundKeep,
    /// A new process believes that what it finds Settling has waited already.
    TrustingRestart,
    /// A controller makes a pod of a template that is another one by now.
    LaggingController,
    /// What a client sends as usage is stored.
    TrustingClient,
    /// What is retained goes whenever somebody asks for it.
    RetireUnproven,
}

/// What replicas take for the epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Epochs {
    Same,
    /// There is another one, and each learns of it at its own time.
    Learned,
    /// Each changes its mind as often as it likes.
    Disputed,
}

/// What users do to the ConfigMap.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Change {
    Add(usize),
    Remove(usize),
    /// Its content becomes the other one.
    Replace(usize),
    /// Something that modelguard does not care for.
    Touch,
    /// The controller asks for what is retained to go.
    Retire,
    Delete,
    DropLabel,
    /// Claims that every entry is Idle.
    Create,
    /// Claims the same by a PATCH.
    Forge,
    /// Reads it, to PUT it later.
    Copy,
    /// Writes what was read, less an entry; `bound` sends the resourceVersion.
    Put {
        without: Option<usize>,
        bound: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Action {
    Tick,
    // R2
    Ask { slot: usize, replica: usize, need: Need },
    WriteLift(usize),
    GiveUp(usize),
    Abort(usize),
    Commit(usize),
    Keep(usize),
    DeleteHolder(usize),
    StartPod(usize),
    MakePod(usize),
    EndPod(usize),
    // R1
    Admit { change: Change, replica: usize, mutated: bool },
    CommitChange,
    NaiveList,
    // Controllers
    Watch(usize),
    Plan { replica: usize, held: Entries, quiet: bool },
    List(usize),
    Conclude(usize),
    // Surroundings
    Restart(usize),
    Epoch(usize),
    Outage,
}

/// Which part of the ConfigMap is written: the same object, but for one unsafe variant.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Part {
    Content,
    Usage,
}

/// Sees a step, and the states before and after it.
pub(crate) type Observer = dyn Fn(&Cluster, &Action, &Cluster) + Send + Sync;

/// The machine, in one configuration.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) real: Real,
    /// Sees every step.
    pub(crate) observer: Option<Box<Observer>>,
    /// Takes replicas for one another, where nobody wants to know which of them did what.
    pub(crate) symmetric: bool,
}

pub(crate) const SAFE: &str = "what a holder needs is there";
pub(crate) const REMOVED: &str = "an entry is removed";

impl Model for Machine {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let Config { data, holders, .. } = self.config;
        let stored = Stored { labelled: true, data, usage: Marks::default(), prior: None, retained: 0 };
        let view = Some(Seen { stored, fresh: true });
        let replicas = std::array::from_fn(|at| match at < self.config.replicas {
            true => Replica { epoch: 1, view, ..Replica::default() },
            false => Replica::default(),
        });
        let slots = holders.map(|template| Slot { template, ..Slot::default() });
        vec![Cluster {
            stored: Some(stored),
            slots,
            change: None,
            naive: None,
            copy: None,
            replicas,
            outage: false,
            broken: false,
        }]
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        for slot in 0..SLOTS {
            self.slot_actions(state, slot, actions);
        }
        self.change_actions(state, actions);
        for replica in 0..self.config.replicas {
            self.replica_actions(state, replica, actions);
        }
        if self.config.outage {
            actions.push(Action::Outage);
        }
    }

    fn next_state(&self, last: &Cluster, action: Action) -> Option<Cluster> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        for replica in self.config.lagging..self.config.replicas {
            watch(&mut state, replica);
        }
        state.forget_timers();
        if self.symmetric {
            // Those that lag are alike, and those that do not are.
            let (lagging, prompt) = state.replicas[..self.config.replicas].split_at_mut(self.config.lagging);
            lagging.sort();
            prompt.sort();
        }
        if let Some(observer) = &self.observer {
            observer(last, &action, &state);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_, state: &Cluster| {
                let there = |need: Need| match need {
                    Need::Entry(entry) => state.lists(entry),
                    Need::All => true,
                };
                !state.broken && state.slots.iter().all(|slot| slot.needs().all(there))
            }),
            Property::sometimes(REMOVED, |machine: &Self, state: &Cluster| {
                (0..ENTRIES).any(|entry| machine.config.data[entry] != 0 && !state.lists(u8::try_from(entry).unwrap()))
            }),
        ]
    }
}

// === who may do what ===

impl Machine {
    fn slot_actions(&self, state: &Cluster, slot: usize, actions: &mut Vec<Action>) {
        let Slot { template, pod, making, request } = state.slots[slot];
        match request {
            Request::None => {
                let needs = self.config.needs[slot].iter().filter(|need| template != Some(**need));
                for need in needs {
                    // Which replica is asked matters to two variants; for all others it is the same question.
                    actions.extend((0..self.config.replicas).map(|replica| Action::Ask { slot, replica, need: *need }));
                }
                if self.config.keeping && template.is_some() {
                    actions.push(Action::Keep(slot));
                }
            }
            Request::Lifting { late: false, .. } => actions.extend([Action::WriteLift(slot), Action::GiveUp(slot)]),
            Request::Lifting { late: true, .. } => actions.extend([Action::WriteLift(slot), Action::Abort(slot)]),
            Request::Allowed { .. } | Request::Keeping { .. } => {
                actions.extend([Action::Commit(slot), Action::Abort(slot)]);
            }
        }
        if template.is_some() {
            actions.push(Action::DeleteHolder(slot));
        }
        if self.config.pods {
            actions.extend(template.filter(|_| pod.is_none() && making.is_none()).map(|_| Action::StartPod(slot)));
            actions.extend(making.map(|_| Action::MakePod(slot)));
            actions.extend(pod.map(|_| Action::EndPod(slot)));
        }
    }

    fn change_actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        if state.change.is_some() {
            actions.push(Action::CommitChange);
        }
        if self.config.variant == Variant::Naive {
            return actions.push(Action::NaiveList);
        }
        for change in self.config.changes {
            for replica in 0..self.config.replicas {
                actions.push(Action::Admit { change: *change, replica, mutated: true });
                if self.config.unmutated {
                    actions.push(Action::Admit { change: *change, replica, mutated: false });
                }
            }
        }
    }

    fn replica_actions(&self, state: &Cluster, replica: usize, actions: &mut Vec<Action>) {
        if self.config.variant == Variant::Naive {
            return;
        }
        if replica < self.config.lagging {
            actions.push(Action::Watch(replica));
        }
        for held in 0..1 << self.config.data.iter().filter(|content| **content != 0).count() {
            actions.push(Action::Plan { replica, held, quiet: false });
            if self.config.quiet {
                actions.push(Action::Plan { replica, held, quiet: true });
            }
        }
        actions.extend(state.replicas[replica].proof.map(|proof| match proof.listed {
            2 => Action::Conclude(replica),
            _ => Action::List(replica),
        }));
        if self.config.restarts {
            actions.push(Action::Restart(replica));
        }
        let epoch = state.replicas[replica].epoch;
        if self.config.epochs == Epochs::Disputed || (self.config.epochs == Epochs::Learned && epoch == 1) {
            actions.push(Action::Epoch(replica));
        }
    }
}

// === what comes of it ===

impl Machine {
    /// `None` if the action is not possible now, or changes nothing.
    fn step(&self, state: &mut Cluster, action: Action) -> Option<()> {
        match action {
            Action::Tick => self.tick(state),
            Action::Ask { slot, replica, need } => self.ask(state, slot, replica, need),
            Action::WriteLift(slot) => self.write_lift(state, slot),
            Action::GiveUp(slot) => {
                let Request::Lifting { need, .. } = state.slots[slot].request else { return None };
                state.slots[slot].request = Request::Lifting { need, age: 0, late: true };
                Some(())
            }
            Action::Abort(slot) => {
                state.slots[slot].request = Request::None;
                Some(())
            }
            Action::Commit(slot) => commit_holder(state, slot),
            Action::Keep(slot) => {
                state.slots[slot].request = Request::Keeping { need: state.slots[slot].template? };
                Some(())
            }
            Action::DeleteHolder(slot) => {
                state.slots[slot].template = None;
                if self.config.variant != Variant::UnboundKeep {
                    // An update of what is gone is not committed.
                    state.slots[slot].request = Request::None;
                }
                Some(())
            }
            Action::StartPod(slot) => self.start_pod(state, slot),
            Action::MakePod(slot) => {
                state.slots[slot].pod = state.slots[slot].making.take().map(|(need, _)| need);
                Some(())
            }
            Action::EndPod(slot) => state.slots[slot].pod.take().map(drop),
            Action::Admit { change, replica, mutated } => self.admit(state, change, replica, mutated),
            Action::CommitChange => {
                let Admitted { becomes } = state.change.take()?;
                self.commit(state, becomes);
                Some(())
            }
            Action::NaiveList => naive_list(state),
            Action::Watch(replica) => {
                watch(state, replica);
                Some(())
            }
            Action::Plan { replica, held, quiet } => self.plan(state, replica, held, quiet),
            Action::List(replica) => self.list(state, replica),
            Action::Conclude(replica) => self.conclude(state, replica),
            Action::Restart(replica) => self.restart(state, replica),
            Action::Epoch(replica) => {
                state.replicas[replica].epoch = 3 - state.replicas[replica].epoch;
                Some(())
            }
            Action::Outage => outage(state),
        }
    }
}
