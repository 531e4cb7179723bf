//! Runs the tests: what they share, who is alone, and what is shown of a failure.

use crate::scene::{Installation, Scene, Seat, Setup, Test};
use crate::support::assets::Assets;
use crate::support::control_plane::{ControlPlane, Shape};
use crate::support::namespace::{self, Namespace};
use crate::unsound;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// An API server was seen at 3 GB.
const MOST_ALONE: usize = 2;

/// How many of modelguard's log lines about a test's namespace are shown.
const LINES: usize = 40;

/// Everything that outlives one test.
pub(crate) struct Stage {
    assets: Assets,
    seats: Vec<Seat>,
    /// Started by the first test that shares.
    shared: OnceLock<Result<Shared, String>>,
    alone: Mutex<usize>,
    left: Condvar,
    /// Held while a control plane starts: several at once take each other the processors, until one does not start in time.
    starting: Mutex<()>,
}

/// What most tests share.
///
/// All their namespaces are made before modelguard starts, and go with the control plane: a namespace that comes
/// or goes is a change of the epoch, which voids the proofs that all other tests wait for.
struct Shared {
    installation: Installation,
    namespaces: BTreeMap<String, Value>,
}

thread_local! {
    /// The last panic of this thread, with its place; `None` on threads that perform no test.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on the panics of tests are kept for their report, instead of being printed in between.
pub(crate) fn keep_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_kept = PANIC.with_borrow_mut(|last| last.as_mut().map(|last| *last = info.to_string()).is_some());
        if !is_kept {
            print(info);
        }
    }));
}

// === impl Stage ===

impl Stage {
    /// With the tests that will be performed.
    pub(crate) fn new(assets: Assets, seats: Vec<Seat>) -> Self {
        Self {
            assets,
            seats,
            shared: OnceLock::new(),
            alone: Mutex::new(0),
            left: Condvar::new(),
            starting: Mutex::new(()),
        }
    }

    /// Performs a test; says what went wrong.
    pub(crate) fn perform(&self, test: &Test) -> Result<(), String> {
        match &test.own {
            None => {
                let shared = self.shared.get_or_init(|| self.share().map_err(|error| format!("{error:#}")));
                let shared = shared.as_ref().map_err(|error| format!("the shared control plane: {error}"))?;
                let namespace = &shared.namespaces[&test.name];
                play(test, &shared.installation, namespace)
            }
            Some(setup) => {
                let _turn = self.wait_for_a_turn();
                let started = self.start(setup, [namespace::object(&test.name, true)]);
                let (installation, namespaces) = started.map_err(|error| format!("{error:#}"))?;
                let played = play(test, &installation, &namespaces[0]);
                played.map_err(|error| format!("{error}\n{}", installation.cluster.log_tails()))
            }
        }
    }

    fn share(&self) -> Result<Shared> {
        let names: Vec<_> = self.seats.iter().filter(|seat| !seat.alone).map(|seat| seat.name.clone()).collect();
        let objects = names.iter().map(|name| namespace::object(name, true));
        let mut setup = Setup::default();
        if self.seats.iter().any(|seat| seat.needs_rollouts) {
            setup.shape = Shape::Rollouts;
        }
        let (installation, namespaces) = self.start(&setup, objects)?;
        Ok(Shared { installation, namespaces: names.into_iter().zip(namespaces).collect() })
    }

    fn start(&self, setup: &Setup, namespaces: impl IntoIterator<Item = Value>) -> Result<(Installation, Vec<Value>)> {
        let mut options = setup.options.clone();
        if setup.is_unsound {
            options.binary = unsound::build()?;
        }
        let cluster = {
            let _alone = self.starting.lock();
            ControlPlane::start(&self.assets, setup.shape)?
        };
        let namespaces: Vec<_> = namespaces.into_iter().collect();
        cluster.create(namespaces.iter().cloned())?;
        let installation = Installation::make(cluster, &options).context("modelguard was not installed")?;
        Ok((installation, namespaces))
    }

    fn wait_for_a_turn(&self) -> Turn<'_> {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.left.wait_while(alone, |alone| *alone >= MOST_ALONE);
        *free.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(self)
    }
}

/// The right to have a control plane of one's own.
struct Turn<'a>(&'a Stage);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.alone.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

// === one test ===

fn play(test: &Test, installation: &Installation, namespace: &Value) -> Result<(), String> {
    let namespace = Namespace::of(&installation.cluster, namespace);
    let scene = Scene { at: installation, namespace };
    PANIC.set(Some(String::new()));
    let played = panic::catch_unwind(AssertUnwindSafe(|| (test.body)(&scene)));
    let message = PANIC.take();
    played.map_err(|_| {
        // The report runs tools too; whatever fails there must not hide the failure itself.
        let dump = panic::catch_unwind(AssertUnwindSafe(|| scene.dump())).unwrap_or_default();
        let health = installation.cluster.check().err().map(|error| format!("{error:#}\n")).unwrap_or_default();
        format!("{}\n\n{health}{dump}\n{}", message.unwrap_or_default(), log_of(&scene))
    })
}

/// What modelguard logged about the test's namespace, and its last words.
fn log_of(scene: &Scene<'_>) -> String {
    let logs = scene.at.modelguard.logs();
    let about: Vec<_> = logs.lines().filter(|line| line.contains(&scene.namespace.name)).collect();
    let about = &about[about.len().saturating_sub(LINES)..];
    format!("--- modelguard on this namespace\n{}\n{}", about.join("\n"), scene.at.modelguard.log_tails())
}
