//! MG103: nobody uses what a change takes away, and the proof of it is not complete.

use super::{NAMES, cause, causes, denial, list, place, see};
use crate::catalog::EntryName;
use crate::guard::{Guard, WhileInUse};
use crate::policy::{Caller, CatalogChange, Code, Denial, Prospect};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a proof takes beside Δ: the LIST of every holder, and being noticed.
const PROOF: Duration = Duration::from_secs(4);

/// How often a client asks while a proof is under way, at most: ten times in all, but where it has waited for pods
/// before ([`WhileInUse::Wait`]) few of these are left.
const ATTEMPTS: u64 = 8;
const ATTEMPTS_AFTER_PODS: u64 = 3;

const STEP_3: &str = "This is step 3 (remove) of a release.";
const STUCK: &str = "Repeat it when that is over; modelguard's logs and `modelguard audit` say more to an admin.";
const BEGINS: &str = "A dry run does not begin it, and is not made to wait, nor is an identity of kube-system: make the real \
                      request, or repeat this later.";
const WAITS: &str = "kubectl and Helm ask again by themselves until it passes.";
const AGAIN: &str = "Repeat it then: a replace holds for one revision of the ConfigMap, and the proof makes another.";

/// MG103: nobody holds `entries`, and the proof is not complete.
pub(in crate::policy) fn settling(
    change: &CatalogChange<'_>,
    entries: &BTreeSet<EntryName>,
    prospect: &Prospect,
    guard: Guard,
) -> Denial {
    let names = list(entries, NAMES);
    let (noun, verb) = if entries.len() == 1 { ("entry", "is") } else { ("entries", "are") };
    let unused = format!("{noun} {names} {verb} used by nobody that modelguard knows of");
    let pace = pace(&unused, prospect, change.caller, guard);
    let causes = causes(entries, |entry| cause(entry, &pace.what));
    let denial = denial(Code::EntrySettling, pace.status, &change.key.name, &pace.what, &pace.next, causes);
    see(Denial { retry_after: pace.retry_after, ..denial }, &place(&change.key))
}

/// MG103: nobody holds any of so many entries, and no more than these can be proven at once.
pub(in crate::policy) fn too_many(change: &CatalogChange<'_>, entries: &BTreeSet<EntryName>, room: usize) -> Denial {
    let what = format!(
        "it would take {} entries away at once, and no more than {room} of them can be proven unused at a time.",
        entries.len()
    );
    let next = format!("{STEP_3} Remove them in parts of {room} at most.");
    let causes = causes(entries, |entry| cause(entry, &what));
    let denial = denial(Code::EntrySettling, 403, &change.key.name, &what, &next, causes);
    see(denial, &place(&change.key))
}

/// What is said to whoever waits for a proof.
pub(super) struct Pace {
    pub(super) status: u16,
    pub(super) what: String,
    pub(super) next: String,
    pub(super) retry_after: Option<Duration>,
}

/// Says how long the proof takes that something is `unused`, and whether to wait for it.
pub(super) fn pace(unused: &str, prospect: &Prospect, caller: Caller, guard: Guard) -> Pace {
    match (prospect, caller.waits()) {
        (Prospect::Stuck(obstacle), _) => Pace {
            status: 503,
            what: format!("{unused}, but that cannot be proven now: {obstacle}."),
            next: format!("{STEP_3} {STUCK}"),
            retry_after: None,
        },
        (Prospect::Moving(remaining), true) => Pace {
            status: Code::EntrySettling.status(),
            what: format!("{unused}; the proof takes about {} s more.", remaining.as_secs() + 1),
            next: format!("{STEP_3} {}", if caller.put { AGAIN } else { WAITS }),
            retry_after: Some(retry_after(*remaining, caller, guard)),
        },
        (Prospect::Moving(remaining), false) => Pace {
            status: 403,
            what: format!("{unused}; the proof takes about {} s once it has begun.", remaining.as_secs() + 1),
            next: format!("{STEP_3} {BEGINS}"),
            retry_after: None,
        },
    }
}

/// ⌈(remaining + 10 s) / [`ATTEMPTS`]⌉, between 1 and 30: clients make eleven calls, so this outlasts Δ with a margin.
///
/// A PUT is asked to wait once and for all. Its second call ends in a conflict, for the proof changed the
/// ConfigMap; were that before the proof is complete, the user's next attempt would end in a conflict as well.
fn retry_after(remaining: Duration, caller: Caller, guard: Guard) -> Duration {
    if caller.put {
        return Duration::from_secs((remaining + PROOF).as_secs() + 1);
    }
    let attempts = if guard.while_in_use == WhileInUse::Wait { ATTEMPTS_AFTER_PODS } else { ATTEMPTS };
    let seconds = (remaining + Duration::from_secs(10)).as_millis().div_ceil(u128::from(attempts) * 1000);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(30).clamp(1, 30))
}
