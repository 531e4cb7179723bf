//! What is said to whoever takes a namespace away.

use super::settling::pace;
use super::{NAMES, cause, causes, denial, list, see, used_by};
use crate::guard::Guard;
use crate::holder::Holders;
use crate::names;
use crate::policy::{Code, Denial, NamespaceChange, Prospect, SharedCatalog};

/// MG401: others need its catalogs.
pub(in crate::policy) fn in_use(change: &NamespaceChange, needed: &[&SharedCatalog]) -> Denial {
    let next = "This is step 3 (remove) of a release; move these workloads to another catalog (step 2) first.";
    needed_elsewhere(change, Code::NamespaceInUse, "deleting it would remove", needed, next)
}

/// MG402: others need its catalogs, and without the label it could be deleted with them.
pub(in crate::policy) fn opt_out_of_deletion(change: &NamespaceChange, needed: &[&SharedCatalog]) -> Denial {
    let next = format!(
        "Move these workloads to another catalog first, or keep the label {}={}.",
        names::GUARD_LABEL,
        names::GUARD_ENABLED
    );
    let what = "nothing would keep it from being deleted any more, and with it";
    needed_elsewhere(change, Code::NamespaceOptOut, what, needed, &next)
}

fn needed_elsewhere(change: &NamespaceChange, code: Code, what: &str, needed: &[&SharedCatalog], next: &str) -> Denial {
    let fact = |it: &SharedCatalog| format!("model ConfigMap {}, which is {}", it.key, used_by(&it.elsewhere));
    let mut what = format!("{what} {}", needed.first().map(|it| fact(it)).unwrap_or_default());
    if let more @ 1.. = needed.len().saturating_sub(1) {
        let others = list(needed.iter().skip(1).map(|it| &it.key), NAMES);
        what = format!("{what}; so {} {more} more: {others}", if more == 1 { "is" } else { "are" });
    }
    let causes = causes(needed, |it| cause(&it.key, &fact(it)));
    let denial = denial(code, code.status(), &subject(change), &format!("{what}."), next, causes);
    see(denial, &place(change))
}

/// MG103: nobody elsewhere needs its catalogs, and the proof of it is not complete.
pub(in crate::policy) fn settling(
    change: &NamespaceChange,
    open: &[&SharedCatalog],
    prospect: &Prospect,
    guard: Guard,
) -> Denial {
    let names = list(open.iter().map(|it| &it.key), NAMES);
    let (noun, verb) = if open.len() == 1 { ("model ConfigMap", "is") } else { ("model ConfigMaps", "are") };
    let unused = format!("{noun} {names} {verb} used by nobody that modelguard knows of in other namespaces");
    let pace = pace(&unused, prospect, change.caller, guard);
    let causes = causes(open, |it| cause(&it.key, &pace.what));
    let denial = denial(Code::EntrySettling, pace.status, &subject(change), &pace.what, &pace.next, causes);
    see(Denial { retry_after: pace.retry_after, ..denial }, &place(change))
}

/// MG402: its workloads hold entries.
pub(in crate::policy) fn opt_out(change: &NamespaceChange, residents: &Holders) -> Denial {
    let what = format!("its workloads would no longer be guarded; entries are {}.", used_by(residents));
    let next =
        format!("Take their references away first, or keep the label {}={}.", names::GUARD_LABEL, names::GUARD_ENABLED);
    let causes = vec![cause(names::GUARD_LABEL, &what)];
    let code = Code::NamespaceOptOut;
    denial(code, code.status(), &subject(change), &what, &next, causes)
}

/// Its model ConfigMaps as a command line names them.
fn place(change: &NamespaceChange) -> String {
    format!("-n {}", change.name)
}

/// What is asked for about a namespace, in words: `Namespace models`.
pub(in crate::policy) fn subject(change: &NamespaceChange) -> String {
    format!("Namespace {}", change.name)
}
