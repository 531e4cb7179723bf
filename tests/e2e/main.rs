//! modelguard against a real control plane: etcd, kube-apiserver, its controllers, and pods that kwok runs.
//!
//! ```text
//! main ──▶ trials ──▶ shared: one control plane, one modelguard      a namespace each
//!                └──▶ own:    one of each for the test alone         at most two at a time
//! ```
//! One file a capability. A test says what a person or a pipeline does, with kubectl and helm, and what comes of
//! it: the code, the status, and what is stored afterwards.

mod audit;
mod break_glass;
mod canary;
mod defer;
mod deletions;
mod events;
mod findings;
mod forgery;
mod history;
mod incident;
mod moments;
mod namespaces;
mod optin;
mod proofs;
mod races;
mod references;
mod replicas;
mod revision;
mod rollback;
mod rolling_back;
mod rollouts;
mod scene;
mod servers;
mod stage;
mod status;
mod strictness;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod transport;
mod unsound;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use scene::Test;
use stage::Stage;
use std::process::ExitCode;
use std::sync::Arc;
use support::assets::Assets;
use support::leftovers;

/// Most tests wait most of the time, so more of them than there are processors.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(THREADS);
    let tests = spread(all());
    let is_selected = |test: &&Test| !args.is_filtered_out(&Trial::test(test.name.as_str(), || Ok(())));
    let selected: Vec<_> = tests.iter().filter(is_selected).map(Test::seat).collect();
    if args.list || selected.is_empty() {
        let trials = tests.into_iter().map(|test| Trial::test(test.name, || Ok(()))).collect();
        return libtest_mimic::run(&args, trials).exit_code();
    }
    let weakened = tests.iter().filter(is_selected).any(Test::is_unsound);
    match prepare(weakened) {
        Ok(assets) => run(&args, tests, Stage::new(assets, selected)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Does what must be done before anything runs. The weakened program is built now, if it is wanted, for the compiler takes
/// the processors from tests that count what is done in a second.
fn prepare(weakened: bool) -> Result<Assets> {
    let assets = Assets::find()?;
    leftovers::watch_for_signals()?;
    if weakened {
        unsound::build()?;
    }
    Ok(assets)
}

fn run(args: &Arguments, tests: Vec<Test>, stage: Stage) -> ExitCode {
    stage::keep_panics();
    let stage = Arc::new(stage);
    let trial = |test: Test| {
        let stage = Arc::clone(&stage);
        Trial::test(test.name.clone(), move || stage.perform(&test).map_err(Into::into))
    };
    let trials = tests.into_iter().map(trial).collect();
    let conclusion = libtest_mimic::run(args, trials);
    // What the trials shared ends here, whatever came of them.
    drop(stage);
    conclusion.exit_code()
}

fn all() -> Vec<Test> {
    let files = [
        incident::tests,
        forgery::tests,
        history::tests,
        references::tests,
        namespaces::tests,
        optin::tests,
        proofs::tests,
        races::tests,
        replicas::tests,
        revision::tests,
        rollback::tests,
        rolling_back::tests,
        rollouts::tests,
        servers::tests,
        status::tests,
        strictness::tests,
        targets::tests,
        transport::tests,
        audit::tests,
        break_glass::tests,
        canary::tests,
        defer::tests,
        deletions::tests,
        events::tests,
        findings::tests,
    ];
    files.into_iter().flat_map(|tests| tests()).collect()
}

/// Tests with a control plane of their own wait for each other: evenly between the rest, they keep no thread from it.
fn spread(tests: Vec<Test>) -> Vec<Test> {
    let (own, mut rest): (Vec<_>, Vec<_>) = tests.into_iter().partition(Test::is_alone);
    let step = rest.len() / own.len().max(1) + 1;
    for (number, test) in own.into_iter().enumerate() {
        rest.insert((number * step).min(rest.len()), test);
    }
    rest
}
