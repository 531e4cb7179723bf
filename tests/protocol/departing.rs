//! Servers that go at the same time: what `policy/server.rs` and `usage/departing.rs` say, in every order.
//!
//! ```text
//!   removal of a server: GET of C ─▶ LIST of the servers ─▶ judged ─▶ recorded on C (CAS) ──at most Δ──▶ committed, or never
//!   controller: view of C (that may be old) ─▶ plan ─▶ write (CAS)
//! ```
//! An entry of C is used throughout. Servers may come back, and go again. Δ is two ticks.

use jiff::Timestamp;
use modelguard::catalog::EntryName;
use modelguard::guard::Guard;
use modelguard::holder::{Hold, Holders, ObjectId, Workload as Holding};
use modelguard::names;
use modelguard::object::{HolderKind, Workload};
use modelguard::policy::{self, Caller, Declared, Facts, Request, Stored, Terms, WorkloadChange};
use modelguard::reference::{CatalogKey, Server};
use modelguard::sharing::Sharing;
use modelguard::usage::{Epoch, Settler, SettlingId, Usage, View};
use serde_json::json;
use stateright::{Checker as _, Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const DELTA: u64 = 2;
const MOST: usize = 3;

/// What is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Variant {
    Protocol,
    /// A departure is allowed without a record.
    NoRecord,
    /// It is recorded on whatever revision there is.
    Unconditional,
    /// The servers are listed before the ConfigMap is read.
    ListFirst,
    /// A departure that is asked for again is the same one.
    SameId,
    /// The controller forgets after exactly Δ.
    Impatient,
}

#[derive(Clone, Debug)]
struct Cluster {
    variant: Variant,
    servers: usize,
    comebacks: u8,
    /// So many are gone through.
    ticks: u8,
}

/// Which of the servers.
type Set = u8;

/// How far the removal of one server is.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
enum Removal {
    #[default]
    None,
    /// What is read of C, and which servers were listed; whichever comes first.
    Reading(Option<(Usage, u8)>, Option<Set>),
    /// Allowed, then.
    Allowed(u64),
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct State {
    now: u64,
    ticks: u8,
    comebacks: u8,
    /// Those that are there, and ready.
    present: Set,
    removals: [Removal; MOST],
    /// The annotation, and its revision.
    usage: Usage,
    revision: u8,
    /// What the controller saw last, and what it remembers.
    seen: (Usage, u8),
    settler: Settler,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Step {
    Tick,
    Read(usize),
    List(usize),
    Judge(usize),
    Commit(usize),
    ComeBack(usize),
    Watch,
    Plan,
    Restart,
}

impl State {
    fn is_present(&self, server: usize) -> bool {
        self.present & 1 << server != 0
    }

    fn write(&mut self, usage: Usage) {
        self.usage = usage;
        self.revision += 1;
    }

    /// What is not committed within Δ never is.
    fn tick(&mut self) {
        self.ticks += 1;
        self.now += 1;
        for removal in &mut self.removals {
            if matches!(removal, Removal::Allowed(at) if self.now > *at + DELTA) {
                *removal = Removal::None;
            }
        }
    }

    fn judge(&mut self, server: usize, variant: Variant) {
        let Removal::Reading(Some((usage, revision)), Some(listed)) = &self.removals[server] else { return };
        let verdict = judged(server, usage, *revision, *listed).map(|recorded| match variant {
            Variant::SameId => usage.clone().departing(&id(server), "again").unwrap(),
            _ => recorded,
        });
        let is_current = *revision == self.revision || variant == Variant::Unconditional;
        self.removals[server] = match verdict {
            None => Removal::None,
            Some(_) if variant == Variant::NoRecord => Removal::Allowed(self.now),
            Some(recorded) if is_current => {
                if recorded != self.usage {
                    self.write(recorded);
                }
                Removal::Allowed(self.now)
            }
            // Asked again, from the start.
            Some(_) => Removal::Reading(None, None),
        };
    }

    fn plan(&mut self, variant: Variant) {
        let nothing = BTreeSet::new();
        let (usage, revision) = self.seen.clone();
        let view =
            View { usage: &usage, entries: &nothing, retained: &nothing, held: Some(&nothing), needed_elsewhere: None };
        let settle = if variant == Variant::Impatient { DELTA - 1 } else { DELTA };
        let (settle, now) = (Duration::from_secs(settle), Duration::from_secs(self.now));
        let plan = self.settler.plan(view, &Epoch::new("e1"), settle, now, || SettlingId::new("unused"));
        if let Some(usage) = plan.write.filter(|_| revision == self.revision) {
            self.write(usage);
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State { present: (1 << self.servers) - 1, ..State::default() }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.ticks < self.ticks {
            steps.push(Step::Tick);
        }
        for server in 0..self.servers {
            match &state.removals[server] {
                Removal::None if state.is_present(server) => {
                    steps.push(if self.variant == Variant::ListFirst {
                        Step::List(server)
                    } else {
                        Step::Read(server)
                    });
                }
                Removal::None if state.comebacks < self.comebacks => steps.push(Step::ComeBack(server)),
                Removal::None => {}
                Removal::Reading(None, _) => steps.push(Step::Read(server)),
                Removal::Reading(_, None) => steps.push(Step::List(server)),
                Removal::Reading(Some(_), Some(_)) => steps.push(Step::Judge(server)),
                Removal::Allowed(_) => steps.push(Step::Commit(server)),
            }
        }
        if state.seen.1 != state.revision {
            steps.push(Step::Watch);
        }
        if state.settler != Settler::default() {
            steps.push(Step::Restart);
        }
        steps.push(Step::Plan);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => state.tick(),
            Step::Read(server) => {
                let listed = if let Removal::Reading(_, listed) = &state.removals[server] { *listed } else { None };
                state.removals[server] = Removal::Reading(Some((state.usage.clone(), state.revision)), listed);
            }
            Step::List(server) => {
                let read = if let Removal::Reading(read, _) = &state.removals[server] { read.clone() } else { None };
                state.removals[server] = Removal::Reading(read, Some(state.present));
            }
            Step::Judge(server) => state.judge(server, self.variant),
            Step::Commit(server) => {
                state.removals[server] = Removal::None;
                state.present &= !(1 << server);
            }
            Step::ComeBack(server) => {
                state.comebacks += 1;
                state.present |= 1 << server;
            }
            Step::Watch => state.seen = (state.usage.clone(), state.revision),
            Step::Plan => state.plan(self.variant),
            Step::Restart => state.settler = Settler::default(),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SERVED, |_, state: &State| state.present != 0),
            Property::sometimes(GONE, |_, state: &State| state.present.count_ones() == 1),
            Property::sometimes(FORGOTTEN, |_, state: &State| state.revision > 1 && state.usage.is_empty()),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.revision <= if self.servers == 2 { 4 } else { 3 }
    }
}

const SERVED: &str = "an entry in use has a ready server";
const GONE: &str = "all but one can go";
const FORGOTTEN: &str = "departures are forgotten";

/// All that can happen, gone through; says how the first property was broken, if it was.
fn explore(cluster: Cluster) -> (usize, Option<String>, BTreeMap<&'static str, bool>) {
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    let way = checker.discovery(SERVED).map(|path| format!("{:?}", path.into_actions()));
    let reached = [GONE, FORGOTTEN].map(|name| (name, checker.discovery(name).is_some()));
    (checker.unique_state_count(), way, reached.into())
}

#[test]
fn servers_that_go_at_the_same_time_leave_one() {
    for (servers, comebacks, ticks) in [(2, 1, 6), (3, 0, 3)] {
        let (states, broken, reached) = explore(Cluster { variant: Variant::Protocol, servers, comebacks, ticks });
        println!("departing, {servers} servers, {comebacks} that come back: {states} states");
        assert_eq!(broken, None);
        assert!(reached.values().all(|reached| *reached), "{reached:?}");
    }
}

#[test]
fn what_is_left_out_of_it_is_found_out() {
    use Variant::{Impatient, ListFirst, NoRecord, SameId, Unconditional};
    for variant in [NoRecord, Unconditional, ListFirst, SameId, Impatient] {
        let (states, broken, _) = explore(Cluster { variant, servers: 2, comebacks: 1, ticks: 6 });
        let way = broken.unwrap_or_else(|| panic!("{variant:?} was not found out in {states} states"));
        println!("departing, {variant:?}: found out after {states} states: {way}");
    }
}

// === the real rules ===

/// What is to be recorded where this server may go, by what was read and listed; `None` where it may not.
fn judged(server: usize, usage: &Usage, revision: u8, listed: Set) -> Option<Usage> {
    let change = WorkloadChange::removed(id(server), &workload(server), Caller::default());
    let listed = (0..MOST).filter(|other| listed & 1 << other != 0);
    let servers = listed.map(|it| Server::of(HolderKind::Deployment, &workload(it)).unwrap()).collect();
    let entry = EntryName::new("v1").unwrap();
    let stored = Stored {
        resource_version: revision.to_string(),
        deleting: false,
        declared: Declared::Unchanged(modelguard::catalog::Format::Keys),
        usage: usage.clone(),
        hold: Hold::default(),
        sharing: Sharing::new("prod", None),
    };
    let facts = Facts {
        catalogs: [(key(), Ok(Some(stored)))].into(),
        terminating: [("prod".into(), Ok(false))].into(),
        left: [(key(), Ok([(entry, app())].into()))].into(),
        servers: Some(Ok(servers)),
        ..Facts::default()
    };
    let terms = Terms { epoch: Ok(Epoch::new("e1")), guard: Guard::default(), now: Timestamp::UNIX_EPOCH };
    let mut decision = policy::decide(&Request::Workload(change.into()), &facts, &terms);
    decision.allowed().then(|| decision.lifts.pop().unwrap().usage)
}

fn key() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

fn id(server: usize) -> ObjectId {
    ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: server.to_string().into() }
}

fn workload(server: usize) -> Workload {
    let object = json!({
        "metadata": {"name": server.to_string(), "namespace": "prod", "generation": 1},
        "spec": {"template": {"metadata": {"annotations": {names::SERVES: "models:v1"}}, "spec": {"containers": []}}},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
    });
    serde_json::from_value(object).unwrap()
}

/// Somebody who uses an entry.
pub(crate) fn app() -> Holders {
    let app = Holding {
        kind: "Deployment".into(),
        namespace: "prod".into(),
        name: "api".into(),
        template: true,
        pods: 1,
        pod_names: Vec::new(),
        unreadable: None,
        rollback_target: None,
    };
    Holders { workloads: vec![app], workloads_total: 1, pods_total: 1 }
}
