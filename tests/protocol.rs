//! The protocol, model-checked: every order in which requests, watches, clocks and controllers can come.
//!
//! ```text
//!   tests ── Config, Variant ──▶ model (users, API server, watches, clock, processes)
//!     ▲                            │ ▲
//!     │                            ▼ │ verdicts, writes
//!   check ◀── states, steps      real: policy::{needs, mutate, decide}, Usage, Settler
//! ```
//! `usage.rs` and the rule book are driven as they are; the model is only what surrounds them. Each configuration
//! explores *all* states that it can reach, and shows
//! * that what a holder needs is there: nothing is removed, or replaced but to roll it back, while it is held or
//!   while a request for it is on its way;
//! * that an entry which nobody uses can be removed in the end, from wherever one is.
//!
//! Each unsafe variant leaves one thing out that the protocol insists on, and must be found out. `cargo test --test protocol --
//! --nocapture` prints the numbers of states, and the shortest way to each disaster.
//!
//! # What it does not cover
//! A request that commits later than Δ after its read (assumption), a LIST that is not linearizable (assumption),
//! break-glass, and catalogs of more than two entries.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and helpers are tests too")]

#[path = "protocol/check.rs"]
mod check;
#[path = "protocol/closing.rs"]
mod closing;
#[path = "protocol/controllers.rs"]
mod controllers;
#[path = "protocol/departing.rs"]
mod departing;
#[path = "protocol/model.rs"]
mod model;
#[path = "protocol/real.rs"]
mod real;
#[path = "protocol/state.rs"]
mod state;
#[path = "protocol/users.rs"]
mod users;

use check::{breaks, holds};
use model::{Change, Config, Epochs, Variant};
use state::Need::{self, All};

const V1: Need = Need::Entry(0);
const V2: Need = Need::Entry(1);

/// One entry, two kinds of holder, of which one has it at first; it may be removed and added again.
const ONE_ENTRY: Config = Config {
    name: "one entry",
    variant: Variant::Protocol,
    delta: 2,
    data: [1, 0],
    holders: [Some(V1), None],
    needs: [&[V1], &[V1]],
    changes: &[Change::Remove(0), Change::Add(0), Change::Touch],
    replicas: 1,
    lagging: 0,
    epochs: Epochs::Same,
    restarts: false,
    pods: false,
    quiet: false,
    unmutated: false,
    outage: false,
    keeping: false,
    defers: false,
};

/// One holder that needs all that there is, and one that needs an entry.
const TWO_ENTRIES: Config = Config {
    name: "two entries",
    delta: 1,
    data: [1, 1],
    holders: [None, None],
    needs: [&[V1, All], &[V2]],
    changes: &[Change::Remove(0), Change::Remove(1), Change::Add(0)],
    ..ONE_ENTRY
};

/// Nobody holds the entry at first, and one kind of holder can.
const TWO_REPLICAS: Config = Config {
    name: "two replicas",
    holders: [None, None],
    needs: [&[V1], &[]],
    changes: &[Change::Remove(0), Change::Add(0)],
    replicas: 2,
    ..ONE_ENTRY
};

const DISAGREEING: Config =
    Config { name: "two replicas that disagree on the epoch", epochs: Epochs::Disputed, ..TWO_REPLICAS };

const RESTARTS: Config = Config { name: "controllers that come and go", restarts: true, lagging: 1, ..TWO_REPLICAS };

/// Every way to write the ConfigMap.
const PUTS: Config = Config {
    name: "PUT, DELETE, forged and unmutated changes",
    needs: [&[V1], &[]],
    changes: &[
        Change::Remove(0),
        Change::Add(0),
        Change::Copy,
        Change::Put { without: Some(0), bound: true },
        Change::Put { without: Some(0), bound: false },
        Change::Put { without: None, bound: false },
        Change::Delete,
        Change::Create,
        Change::DropLabel,
        Change::Forge,
    ],
    lagging: 1,
    unmutated: true,
    ..ONE_ENTRY
};

const OUTAGE: Config = Config { name: "an outage of the webhook", outage: true, ..ONE_ENTRY };

const PODS: Config = Config { name: "pods that controllers make", pods: true, ..ONE_ENTRY };

const KEEPING: Config = Config { name: "updates that keep a reference", keeping: true, ..ONE_ENTRY };

/// Removals are kept until the controller asks for them, whenever that is.
const DEFERRED: Config = Config {
    name: "deferred removals",
    needs: [&[V1], &[]],
    changes: &[Change::Remove(0), Change::Retire, Change::Add(0), Change::Touch],
    lagging: 1,
    unmutated: true,
    defers: true,
    ..ONE_ENTRY
};

// === what is safe ===

#[test]
fn one_entry_that_comes_and_goes() {
    holds(Config { lagging: 1, ..ONE_ENTRY });
}

#[test]
fn an_entry_that_is_settled_unasked() {
    holds(Config { name: "settled unasked", quiet: true, lagging: 1, needs: [&[V1], &[]], ..ONE_ENTRY });
}

#[test]
fn several_entries_and_holders_of_all() {
    holds(TWO_ENTRIES);
}

#[test]
fn entries_that_are_replaced_and_rolled_back() {
    let changes = &[Change::Remove(0), Change::Replace(0), Change::Add(0)];
    holds(Config { name: "replaced entries", needs: [&[V1], &[All]], changes, ..ONE_ENTRY });
}

#[test]
fn replicas_that_lag() {
    holds(Config { name: "two replicas that lag", delta: 1, lagging: 2, ..TWO_REPLICAS });
}

#[test]
fn replicas_that_disagree_on_the_epoch() {
    holds(DISAGREEING);
}

#[test]
fn replicas_that_learn_of_another_epoch_while_one_lags() {
    let (epochs, changes) = (Epochs::Learned, &[Change::Remove(0)]);
    holds(Config {
        name: "two replicas that learn of an epoch",
        epochs,
        delta: 1,
        lagging: 1,
        changes,
        ..TWO_REPLICAS
    });
}

#[test]
fn controllers_that_come_and_go() {
    holds(RESTARTS);
}

#[test]
fn every_way_to_write_the_config_map() {
    holds(PUTS);
}

#[test]
fn an_outage_of_the_webhook_voids_older_proofs() {
    holds(OUTAGE);
}

#[test]
fn pods_that_controllers_make_are_found_from_the_top_down() {
    holds(Config { restarts: true, ..PODS });
}

#[test]
fn updates_that_keep_a_reference_need_no_check() {
    holds(KEEPING);
}

#[test]
fn removals_that_are_deferred() {
    holds(DEFERRED);
}

#[test]
fn several_removals_that_are_deferred() {
    let changes = &[Change::Remove(0), Change::Remove(1), Change::Retire];
    holds(Config { name: "several deferred removals", defers: true, changes, ..TWO_ENTRIES });
}

// === what is not ===

#[test]
fn a_reference_that_does_not_take_its_entry_back_is_unsafe() {
    breaks(ONE_ENTRY, Variant::NoLift);
}

#[test]
fn waiting_no_longer_than_the_bound_is_unsafe() {
    breaks(ONE_ENTRY, Variant::WaitExactly);
}

#[test]
fn usage_in_another_object_is_unsafe() {
    breaks(ONE_ENTRY, Variant::OtherObject);
}

#[test]
fn a_reference_judged_by_a_cache_is_unsafe() {
    breaks(Config { lagging: 2, ..TWO_REPLICAS }, Variant::CachedRead);
}

#[test]
fn a_removal_that_is_not_bound_to_the_admitted_revision_is_unsafe() {
    breaks(ONE_ENTRY, Variant::UnboundCommit);
}

#[test]
fn listing_and_reading_without_a_proof_is_unsafe() {
    breaks(ONE_ENTRY, Variant::Naive);
}

#[test]
fn a_reference_that_takes_back_its_own_epoch_alone_is_unsafe() {
    breaks(DISAGREEING, Variant::LiftOwnEpoch);
}

#[test]
fn a_removal_that_believes_any_epoch_is_unsafe() {
    breaks(OUTAGE, Variant::AnyEpoch);
}

#[test]
fn listing_pods_before_what_makes_them_is_unsafe() {
    breaks(PODS, Variant::BottomUp);
}

/// The pods of controllers are exempt because controllers keep up. Where one makes a pod of a template that is gone,
/// even within Δ, the pod can come just behind the LIST: the wait is counted from Settling, not from the end of
/// the last template. What is left is then an index that shows the template in time.
#[test]
fn exempting_a_controller_that_lags_is_unsafe() {
    breaks(PODS, Variant::LaggingController);
}

#[test]
fn concluding_for_whatever_settling_there_is_is_unsafe() {
    breaks(ONE_ENTRY, Variant::AnySettling);
}

#[test]
fn keeping_a_reference_regardless_of_the_holders_revision_is_unsafe() {
    breaks(KEEPING, Variant::UnboundKeep);
}

#[test]
fn a_new_process_that_does_not_wait_again_is_unsafe() {
    breaks(RESTARTS, Variant::TrustingRestart);
}

#[test]
fn usage_that_clients_may_write_is_unsafe() {
    breaks(PUTS, Variant::TrustingClient);
}

#[test]
fn retiring_what_is_not_proven_to_be_idle_is_unsafe() {
    breaks(DEFERRED, Variant::RetireUnproven);
}

// === what would be safe without ===

/// A holder of all takes back every mark, also those of entries that are not listed: an entry that is added again
/// is not Idle once somebody holds it. That marks are stripped keeps it so where that is forgotten some day.
#[test]
fn the_marks_of_removed_entries_could_stay() {
    let variant = Variant::NotStripped;
    holds(Config { name: "marks that stay", variant, needs: [&[All], &[]], ..TWO_ENTRIES });
}

/// One cache that both admits references and starts timers is never behind itself. There are several replicas.
#[test]
fn a_cache_would_do_for_a_single_replica() {
    let variant = Variant::CachedRead;
    holds(Config { name: "a single replica's cache", variant, lagging: 1, needs: [&[V1], &[]], ..ONE_ENTRY });
}
