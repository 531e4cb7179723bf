//! Runs a configuration, and says how large it was and how long it took.
//!
//! Safety is `stateright`'s: no reachable state breaks it. That an entry nobody uses can be removed in the end is shown on
//! the graph of all reachable states: from each in which an entry is listed and nobody holds it, steps that
//! need no luck (time passes, watches catch up, controllers and the remover go on) lead to one where it is gone.

use super::model::{Action, Change, Config, Machine, SAFE, Variant};
use super::real::Real;
use super::state::{Cluster, ENTRIES, Entries};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The reachable states, and the steps that need no luck.
#[derive(Default)]
struct Graph {
    numbers: HashMap<Cluster, u32>,
    /// By number: the entries that are listed and that nobody holds, and those that are not listed.
    states: Vec<(Entries, Entries)>,
    steps: Vec<(u32, u32)>,
}

/// Explores all of it: nothing unsafe, and what nobody uses can go.
pub(crate) fn holds(config: Config) {
    let started = Instant::now();
    let graph = Arc::new(Mutex::new(Graph::default()));
    let seen = Arc::clone(&graph);
    let observer =
        move |last: &Cluster, action: &Action, next: &Cluster| seen.lock().unwrap().enter(last, action, next);
    let machine = Machine { config, real: Real::default(), observer: Some(Box::new(observer)), symmetric: true };
    let checker = machine.checker().spawn_bfs().join();
    if let Some(path) = checker.discovery(SAFE) {
        panic!("{}: unsafe:\n{}", config.name, steps(&path.into_actions()));
    }
    checker.assert_properties();
    let stuck = graph.lock().unwrap().stuck();
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{}: safe, {states} states, {steps} steps, depth {depth}, {:.1?}", config.name, started.elapsed());
    assert_eq!(stuck, 0, "{}: states from which an entry that nobody uses can never be removed", config.name);
}

/// Looks for the shortest way to something unsafe, and wants to find one.
pub(crate) fn breaks(config: Config, variant: Variant) {
    let started = Instant::now();
    let machine =
        Machine { config: Config { variant, ..config }, real: Real::default(), observer: None, symmetric: false };
    let checker = machine.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(SAFE) else {
        panic!("{}, {variant:?}: no counterexample in {states} states", config.name);
    };
    let actions = path.into_actions();
    let took = started.elapsed();
    println!("{variant:?}: unsafe in {} steps, found among {states} states, {took:.1?}:", actions.len());
    println!("{}", steps(&actions));
}

fn steps(actions: &[Action]) -> String {
    actions.iter().map(|action| format!("    {action:?}\n")).collect()
}

// === impl Graph ===

impl Graph {
    fn enter(&mut self, last: &Cluster, action: &Action, next: &Cluster) {
        let (last_number, next_number) = (self.number(last), self.number(next));
        if needs_no_luck(last, action) {
            self.steps.push((next_number, last_number));
        }
    }

    fn number(&mut self, state: &Cluster) -> u32 {
        if let Some(number) = self.numbers.get(state) {
            return *number;
        }
        let number = u32::try_from(self.states.len()).unwrap();
        self.numbers.insert(state.clone(), number);
        let listed = bits(|entry| state.lists(entry));
        self.states.push((bits(|entry| state.lists(entry) && !state.holds(entry)), !listed));
        number
    }

    /// How many states there are from which an entry that nobody holds cannot be removed.
    fn stuck(&self) -> usize {
        let mut back = vec![Vec::new(); self.states.len()];
        for (to, from) in &self.steps {
            back[*to as usize].push(*from);
        }
        let mut reaches: Vec<Entries> = self.states.iter().map(|(_, gone)| *gone).collect();
        let mut work: Vec<u32> = (0..).take(self.states.len()).collect();
        while let Some(state) = work.pop() {
            let entries = reaches[state as usize];
            for from in &back[state as usize] {
                let known = &mut reaches[*from as usize];
                if *known | entries != *known {
                    *known |= entries;
                    work.push(*from);
                }
            }
        }
        self.states.iter().zip(reaches).filter(|((idle, _), reached)| idle & !reached != 0).count()
    }
}

fn bits(is: impl Fn(u8) -> bool) -> Entries {
    (0..).take(ENTRIES).filter(|entry| is(*entry)).map(|entry| 1 << entry).sum()
}

/// Whether a step can be relied on: no new request but the removal, no failure, and an index that knows the truth.
fn needs_no_luck(state: &Cluster, action: &Action) -> bool {
    match action {
        Action::Plan { held, quiet, .. } => !quiet && *held == bits(|entry| state.holds(entry)),
        Action::Admit { change: Change::Remove(_), mutated, .. } => *mutated,
        Action::Tick
        | Action::WriteLift(_)
        | Action::GiveUp(_)
        | Action::Abort(_)
        | Action::CommitChange
        | Action::Watch(_)
        | Action::List(_)
        | Action::Conclude(_)
        | Action::Outage
        | Action::Epoch(_) => true,
        Action::Admit { .. }
        | Action::Ask { .. }
        | Action::Commit(_)
        | Action::Keep(_)
        | Action::DeleteHolder(_)
        | Action::StartPod(_)
        | Action::MakePod(_)
        | Action::EndPod(_)
        | Action::NaiveList
        | Action::Restart(_) => false,
    }
}
