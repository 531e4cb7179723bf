//! A namespace that goes, and a reference from another one: what `policy/namespace.rs`, `policy/workload.rs` and
//! `usage/closing.rs` say, in every order.
//!
//! ```text
//!   DELETE of the namespace: judged by the catalog as it is ──at most Δ──▶ committed, or never
//!   reference from elsewhere: judged by the catalog as it is ──at most Δ──▶ committed, or never
//!   controller: plan (of a view that may be old) ─▶ write (CAS) ─▶ LIST ─▶ conclude (CAS)
//! ```
//! Time goes on one tick, or until a Closed catalog is given up; Δ is two ticks.

use crate::departing::app;
use jiff::Timestamp;
use modelguard::catalog::Format;
use modelguard::guard::Guard;
use modelguard::holder::{Hold, Holders, ObjectId};
use modelguard::object::{Content, HolderKind, Workload};
use modelguard::policy::{
    self, BreakGlass, Caller, Declared, Departure, Facts, NamespaceChange, Prospect, Request, SharedCatalog, Stored,
    Terms, WorkloadChange,
};
use modelguard::reference::CatalogKey;
use modelguard::sharing::Sharing;
use modelguard::usage::{Epoch, Settler, SettlingId, Usage, View};
use serde_json::json;
use stateright::{Checker as _, Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

const DELTA: u64 = 2;

/// Longer than a catalog stays Closed.
const LONG: u64 = 200;

/// So many ticks, and so many long waits, are gone through.
const TICKS: u8 = 7;
const WAITS: u8 = 1;

/// What is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Variant {
    Protocol,
    /// A reference does not look at the mark.
    UnmarkedReference,
    /// The mark of a Closed catalog is taken away at once.
    NoReopening,
    /// Nobody is looked for before Closed is written.
    NoList,
    /// The deletion passes while the proof is under way.
    Impatient,
}

#[derive(Clone, Debug)]
struct Cluster {
    variant: Variant,
    epochs: u8,
}

/// A request that was judged, and when.
type Judged = Option<u64>;

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct State {
    now: u64,
    ticks: u8,
    waits: u8,
    epoch: u8,
    ids: u8,
    /// The annotation, and its revision.
    usage: Usage,
    revision: u8,
    settler: Settler,
    deletion: Judged,
    is_gone: bool,
    reference: Judged,
    is_referenced: bool,
    /// What the watches say of that.
    is_known: bool,
    /// What waited, and what the LIST found.
    listed: Option<(SettlingId, bool)>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Step {
    Tick,
    Wait,
    NextEpoch,
    Ask,
    CommitDeletion,
    Refer,
    CommitReference,
    DropReference,
    Learn,
    Plan,
    Conclude,
}

impl State {
    fn id(&mut self) -> SettlingId {
        self.ids += 1;
        SettlingId::new(&self.ids.to_string())
    }

    fn epoch(&self) -> Epoch {
        Epoch::new(&self.epoch.to_string())
    }

    fn write(&mut self, usage: Usage) {
        if usage != self.usage {
            self.usage = usage;
            self.revision += 1;
        }
    }

    /// What is not committed within Δ never is.
    fn pass(&mut self, ticks: u64) {
        self.now += ticks;
        let now = self.now;
        let in_time = |at: &u64| now <= *at + DELTA;
        self.deletion = self.deletion.filter(in_time);
        self.reference = self.reference.filter(in_time);
    }

    /// Judges a DELETE; one that is denied asks for the proof, which is begun then.
    fn ask(&mut self, variant: Variant) {
        let (passes, closes) = deletion(&self.usage, &self.epoch(), self.is_known);
        if passes || (variant == Variant::Impatient && self.usage.is_closing()) {
            self.deletion = Some(self.now);
        } else if closes {
            let (epoch, id) = (self.epoch(), self.id());
            self.write(self.usage.close(&epoch, id));
        }
    }

    fn plan(&mut self, variant: Variant) {
        let (nothing, was) = (BTreeSet::new(), self.usage.clone());
        let (epoch, mut ids) = (self.epoch(), self.ids);
        let view = View {
            usage: &was,
            entries: &nothing,
            retained: &nothing,
            held: Some(&nothing),
            needed_elsewhere: Some(self.is_known),
        };
        let id = || {
            ids += 1;
            SettlingId::new(&ids.to_string())
        };
        let plan = self.settler.plan(view, &epoch, Duration::from_secs(DELTA), Duration::from_secs(self.now), id);
        self.ids = ids;
        if let Some(usage) = plan.write {
            let reopens = was.is_closing() && usage.is_closing();
            self.write(if variant == Variant::NoReopening && reopens { Usage::default() } else { usage });
        } else if let Some(due) = plan.closing {
            let found = self.is_referenced && variant != Variant::NoList;
            self.listed = Some((due, found));
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.is_gone {
            return;
        }
        if state.ticks < TICKS {
            steps.push(Step::Tick);
        }
        if state.waits < WAITS {
            steps.push(Step::Wait);
        }
        if state.epoch < self.epochs {
            steps.push(Step::NextEpoch);
        }
        if state.deletion.is_none() {
            steps.push(Step::Ask);
        } else {
            steps.push(Step::CommitDeletion);
        }
        if state.reference.is_some() {
            steps.extend([Step::CommitReference]);
        } else if state.is_referenced {
            steps.push(Step::DropReference);
        } else {
            steps.push(Step::Refer);
        }
        if state.is_known != state.is_referenced {
            steps.push(Step::Learn);
        }
        steps.push(if state.listed.is_some() { Step::Conclude } else { Step::Plan });
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => {
                state.ticks += 1;
                state.pass(1);
            }
            Step::Wait => {
                state.waits += 1;
                state.pass(LONG);
            }
            Step::NextEpoch => state.epoch += 1,
            Step::Ask => state.ask(self.variant),
            Step::CommitDeletion => {
                state.deletion = None;
                state.is_gone = true;
            }
            Step::Refer => {
                let unmarked = Usage::default();
                let seen = if self.variant == Variant::UnmarkedReference { &unmarked } else { &state.usage };
                if !may_refer(seen, &state.epoch()) {
                    return None;
                }
                state.reference = Some(state.now);
            }
            Step::CommitReference => {
                state.reference = None;
                state.is_referenced = true;
            }
            Step::DropReference => state.is_referenced = false,
            Step::Learn => state.is_known = state.is_referenced,
            Step::Plan => state.plan(self.variant),
            Step::Conclude => {
                let (due, found) = state.listed.take()?;
                let id = state.id();
                state.write(state.usage.concluded(&due, found, id));
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what another namespace references is there", |_, state: &State| {
                let comes = state.reference.is_some();
                !state.is_gone || !(state.is_referenced || comes)
            }),
            Property::sometimes("the namespace can be deleted", |_, state: &State| state.is_gone),
            Property::sometimes("a deletion that was given up is forgotten", |_, state: &State| {
                state.waits > 0 && state.ids > 2 && !state.usage.is_closing()
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.ids <= 5
    }
}

/// All that can happen, gone through; says how the first property was broken, if it was.
fn explore(variant: Variant, epochs: u8) -> (usize, Option<String>, BTreeMap<&'static str, bool>) {
    let checker = Cluster { variant, epochs }.checker().threads(2).spawn_bfs().join();
    let broken = checker.discovery("what another namespace references is there");
    let names = ["the namespace can be deleted", "a deletion that was given up is forgotten"];
    let reached = names.map(|name| (name, checker.discovery(name).is_some()));
    let way = broken.map(|path| format!("{:?}", path.into_actions()));
    (checker.unique_state_count(), way, reached.into())
}

#[test]
fn a_namespace_that_goes_leaves_no_reference_behind() {
    for epochs in [0, 1] {
        let (states, broken, reached) = explore(Variant::Protocol, epochs);
        println!("closing, {epochs} changes of the epoch: {states} states");
        assert_eq!(broken, None);
        assert!(reached.values().all(|reached| *reached), "{reached:?}");
    }
}

#[test]
fn what_is_left_out_of_it_is_found_out() {
    for variant in [Variant::UnmarkedReference, Variant::NoReopening, Variant::NoList, Variant::Impatient] {
        let (states, broken, _) = explore(variant, 1);
        let way = broken.unwrap_or_else(|| panic!("{variant:?} was not found out in {states} states"));
        println!("closing, {variant:?}: found out after {states} states: {way}");
    }
}

// === the real rules ===

/// Whether a DELETE of the namespace passes, and whether its catalog is to be closed, where the index knows that the catalog is
/// needed from elsewhere, or that it is not.
fn deletion(usage: &Usage, epoch: &Epoch, is_needed: bool) -> (bool, bool) {
    let elsewhere = if is_needed { app() } else { Holders::default() };
    let prospect = Prospect::Moving(Duration::from_secs(DELTA));
    let shared = SharedCatalog { key: key(), elsewhere, closed: usage.is_closed(epoch), prospect };
    let facts = Facts { shared: Some(Ok(vec![shared])), ..Facts::default() };
    let (break_glass, caller) = (BreakGlass::default(), Caller::default());
    let departure = Some(Departure::Deletion);
    let change = NamespaceChange { name: "models".into(), departure, going: false, break_glass, caller };
    let decision = policy::decide(&Request::Namespace(change), &facts, &terms(epoch));
    (decision.allowed(), !decision.close.is_empty())
}

/// Whether a workload of another namespace may come to reference the catalog.
fn may_refer(usage: &Usage, epoch: &Epoch) -> bool {
    let stored = Stored { usage: usage.clone(), ..CATALOG.clone() };
    let facts = Facts {
        catalogs: [(key(), Ok(Some(stored)))].into(),
        terminating: [("models".into(), Ok(false))].into(),
        ..Facts::default()
    };
    policy::decide(&Request::Workload(REFERENCE.clone().into()), &facts, &terms(epoch)).allowed()
}

static CATALOG: LazyLock<Stored> = LazyLock::new(|| {
    let content = Content { data: [("v1", "weights")].into_iter().collect(), ..Content::default() };
    Stored {
        resource_version: "1".to_owned(),
        deleting: false,
        declared: Declared::read(Some(&Format::Keys.to_string()), &content),
        usage: Usage::default(),
        hold: Hold::default(),
        sharing: Sharing::new("models", Some("prod")),
    }
});

static REFERENCE: LazyLock<WorkloadChange> = LazyLock::new(|| {
    let id = ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: "api".into() };
    let annotations = json!({"modelguard.dev/uses": "models/extraction:v1"});
    let template = json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}});
    let app = json!({"metadata": {"name": "api", "namespace": "prod"}, "spec": {"template": template}});
    let app = Workload::parse(&app.to_string()).unwrap();
    WorkloadChange::new(id, None, &app, Caller::default(), Guard::default())
});

fn key() -> CatalogKey {
    CatalogKey::new("models", "extraction")
}

fn terms(epoch: &Epoch) -> Terms {
    Terms { epoch: Ok(epoch.clone()), guard: Guard::default(), now: Timestamp::UNIX_EPOCH }
}
