//! Requests that take a namespace away, or out of the guard. MG401, MG402, MG103.
//!
//! A deletion takes every catalog of the namespace with it. Those that it shares are closed to others first, and that
//! nobody needs them is proven: [`crate::usage`] has the machine. What is not shared nobody else may reference.
//! A namespace that is going already is never held up.

use super::message;
use super::{Decision, Departure, Facts, NamespaceChange, Needs, Prospect, Record, SharedCatalog, Step, Terms, Unread};
use super::{break_glass, catalog};
use crate::holder::Holders;

pub(super) fn needs(change: &NamespaceChange, terms: &Terms) -> Needs {
    if change.going {
        return Needs::default();
    }
    let name = || Some(change.name.clone());
    let may_override = if change.break_glass.grants(terms.now) { name() } else { None };
    match change.departure {
        None => Needs { may_override, ..Needs::default() },
        Some(Departure::Deletion) => Needs { may_override, shared_by: name(), ..Needs::default() },
        Some(Departure::OptOut) => Needs { may_override, residents_of: name(), shared_by: name(), ..Needs::default() },
    }
}

pub(super) fn decide(change: &NamespaceChange, facts: &Facts, terms: &Terms) -> Decision {
    if change.going {
        return Decision::default();
    }
    let (decision, holders) = match change.departure {
        None => (Decision::default(), Holders::default()),
        Some(Departure::Deletion) => deletion(change, facts, terms),
        Some(Departure::OptOut) => opt_out(change, facts),
    };
    let decision = catalog::overlook(decision, terms.guard);
    let decision =
        break_glass::judge(decision, &change.break_glass, &message::namespace::subject(change), facts, terms);
    let step = (change.departure == Some(Departure::Deletion)).then_some(Step::Remove);
    let facts = Record { enforcement: terms.guard.while_in_use, step, holders, ..Record::default() };
    Decision { facts, ..decision }
}

/// MG401: what others need stays. MG103: that nobody does takes its proof.
fn deletion(change: &NamespaceChange, facts: &Facts, terms: &Terms) -> (Decision, Holders) {
    let shared = match shared(facts) {
        Ok(shared) => shared,
        Err(unread) => return unread_of(change, &unread),
    };
    let holders = elsewhere(shared);
    let needed: Vec<_> = shared.iter().filter(|it| !it.elsewhere.is_empty()).collect();
    if !needed.is_empty() {
        return (message::namespace::in_use(change, &needed).into(), holders);
    }
    let open: Vec<_> = shared.iter().filter(|it| !it.closed).collect();
    if open.is_empty() {
        return (Decision::default(), holders);
    }
    let denial = message::namespace::settling(change, &open, &slowest(&open), terms.guard);
    let wanted =
        if change.caller.dry_run { Default::default() } else { open.iter().map(|it| it.key.clone()).collect() };
    (Decision { close: wanted, ..Decision::from(denial) }, holders)
}

/// MG402: the references of a namespace count while it carries the label, so it stays while there are any; and while others
/// need its catalogs, for without it nobody is asked when it is deleted.
fn opt_out(change: &NamespaceChange, facts: &Facts) -> (Decision, Holders) {
    let shared = match shared(facts) {
        Ok(shared) => shared,
        Err(unread) => return unread_of(change, &unread),
    };
    let needed: Vec<_> = shared.iter().filter(|it| !it.elsewhere.is_empty()).collect();
    if !needed.is_empty() {
        return (message::namespace::opt_out_of_deletion(change, &needed).into(), elsewhere(shared));
    }
    match facts.residents.as_ref() {
        Some(Ok(residents)) if residents.is_empty() => (Decision::default(), Holders::default()),
        Some(Ok(residents)) => (message::namespace::opt_out(change, residents).into(), residents.clone()),
        Some(Err(unread)) => unread_of(change, unread),
        None => unread_of(change, &Unread::new("the holders", "were not read")),
    }
}

/// The catalogs that others may reference.
fn shared(facts: &Facts) -> Result<&[SharedCatalog], Unread> {
    let shared = facts.shared.as_ref();
    let shared = shared.ok_or_else(|| Unread::new("the model ConfigMaps of the namespace", "were not read"))?;
    shared.as_deref().map_err(Clone::clone)
}

fn elsewhere(shared: &[SharedCatalog]) -> Holders {
    shared.iter().map(|it| &it.elsewhere).fold(Holders::default(), Holders::merge)
}

fn unread_of(change: &NamespaceChange, unread: &Unread) -> (Decision, Holders) {
    (message::unverified(&message::namespace::subject(change), unread).into(), Holders::default())
}

/// How long all of them take, or what is in the way of one.
fn slowest(open: &[&SharedCatalog]) -> Prospect {
    let prospects = open.iter().map(|it| &it.prospect);
    let slowest = prospects.max_by_key(|it| match it {
        Prospect::Stuck(_) => std::time::Duration::MAX,
        Prospect::Moving(remaining) => *remaining,
    });
    slowest.cloned().unwrap_or_else(|| Prospect::Stuck("nothing is known of it".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Guard, WhileInUse};
    use crate::holder::Workload;
    use crate::policy::{BreakGlass, Caller, Code};
    use crate::reference::CatalogKey;
    use crate::usage::Epoch;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn change(departure: Departure) -> NamespaceChange {
        let (break_glass, caller) = (BreakGlass::default(), Caller::default());
        NamespaceChange { name: "models".into(), departure: Some(departure), going: false, break_glass, caller }
    }

    fn terms(while_in_use: WhileInUse) -> Terms {
        let guard = Guard { while_in_use, ..Guard::default() };
        Terms { epoch: Ok(Epoch::default()), guard, now: jiff::Timestamp::UNIX_EPOCH }
    }

    fn app() -> Holders {
        let app = Workload {
            kind: "Deployment".into(),
            namespace: "prod".into(),
            name: "api".into(),
            template: true,
            pods: 0,
            pod_names: Vec::new(),
            rollback_target: None,
            unreadable: None,
        };
        Holders { workloads: vec![app], workloads_total: 1, pods_total: 0 }
    }

    fn shared(elsewhere: Holders, closed: bool, prospect: Prospect) -> Facts {
        let key = CatalogKey::new("models", "extraction");
        Facts { shared: Some(Ok(vec![SharedCatalog { key, elsewhere, closed, prospect }])), ..Facts::default() }
    }

    fn judged(change: &NamespaceChange, facts: &Facts) -> (&'static str, u16, String) {
        let decision = decide(change, facts, &terms(WhileInUse::Deny));
        decision.denial.map_or(("", 200, String::new()), |it| (it.code.id(), it.status, it.message))
    }

    #[test]
    fn a_namespace_whose_catalogs_others_need_stays() {
        let facts = shared(app(), true, Prospect::Moving(LONG));
        let (code, status, message) = judged(&change(Departure::Deletion), &facts);
        assert_eq!((code, status), ("MG401", 403));
        assert_eq!(
            message,
            "[MG401] Namespace models: deleting it would remove model ConfigMap models/extraction, which is still used by \
             the pod template of Deployment prod/api.\nThis is step 3 (remove) of a release; move these workloads to another \
             catalog (step 2) first. See: kubectl modelguard status -n models"
        );
    }

    #[test]
    fn a_deletion_waits_until_every_shared_catalog_is_closed() {
        let facts = shared(Holders::default(), false, Prospect::Moving(LONG));
        let decision = decide(&change(Departure::Deletion), &facts, &terms(WhileInUse::Deny));
        let denial = decision.denial.unwrap();
        assert_eq!((denial.code, denial.status), (Code::EntrySettling, 429));
        assert_eq!(denial.retry_after, Some(Duration::from_secs(9)));
        assert_eq!(
            denial.message,
            "[MG103] Namespace models: model ConfigMap models/extraction is used by nobody that modelguard knows of in other \
             namespaces; the proof takes about 61 s more.\nThis is step 3 (remove) of a release. kubectl and Helm ask again by \
             themselves until it passes. See: kubectl modelguard status -n models"
        );
        assert_eq!(decision.close, [CatalogKey::new("models", "extraction")].into());
        let closed = shared(Holders::default(), true, Prospect::Moving(LONG));
        assert_eq!(judged(&change(Departure::Deletion), &closed).1, 200);
        let none = Facts { shared: Some(Ok(Vec::new())), ..Facts::default() };
        assert_eq!(judged(&change(Departure::Deletion), &none).1, 200, "there is nothing to take away");
    }

    #[test]
    fn who_does_not_wait_is_told_at_once() {
        let facts = shared(Holders::default(), false, Prospect::Moving(LONG));
        for caller in [Caller { dry_run: true, ..Caller::default() }, Caller { system: true, ..Caller::default() }] {
            let asked = NamespaceChange { caller, ..change(Departure::Deletion) };
            assert_eq!(judged(&asked, &facts).1, 403);
            let decision = decide(&asked, &facts, &terms(WhileInUse::Deny));
            assert_eq!(decision.close.is_empty(), caller.dry_run, "a rehearsal writes nothing");
        }
        let stuck =
            shared(Holders::default(), false, Prospect::Stuck("no modelguard controller is running".to_owned()));
        let (code, status, message) = judged(&change(Departure::Deletion), &stuck);
        assert_eq!((code, status), ("MG103", 503));
        assert!(message.contains("cannot be proven now: no modelguard controller is running."), "{message}");
    }

    #[test]
    fn the_label_stays_while_workloads_hold_entries() {
        let facts =
            |residents| Facts { residents: Some(Ok(residents)), shared: Some(Ok(Vec::new())), ..Facts::default() };
        let (code, status, message) = judged(&change(Departure::OptOut), &facts(app()));
        assert_eq!((code, status), ("MG402", 403));
        assert_eq!(
            message,
            "[MG402] Namespace models: its workloads would no longer be guarded; entries are still used by the pod template \
             of Deployment prod/api.\nTake their references away first, or keep the label modelguard.dev/guard=enabled."
        );
        assert_eq!(judged(&change(Departure::OptOut), &facts(Holders::default())).1, 200);
    }

    #[test]
    fn the_label_stays_while_others_need_its_catalogs() {
        let facts = |elsewhere| {
            let residents = Some(Ok(Holders::default()));
            Facts { residents, ..shared(elsewhere, true, Prospect::Moving(LONG)) }
        };
        let (code, status, message) = judged(&change(Departure::OptOut), &facts(app()));
        assert_eq!((code, status), ("MG402", 403));
        assert_eq!(
            message,
            "[MG402] Namespace models: nothing would keep it from being deleted any more, and with it model ConfigMap \
             models/extraction, which is still used by the pod template of Deployment prod/api.\nMove these workloads to \
             another catalog first, or keep the label modelguard.dev/guard=enabled. See: kubectl modelguard status -n models"
        );
        assert_eq!(judged(&change(Departure::OptOut), &facts(Holders::default())).1, 200);
    }

    #[test]
    fn what_is_not_known_keeps_the_namespace() {
        let unread = || Unread::new("the holders", "not listed yet: pods");
        let facts = Facts { shared: Some(Err(unread())), residents: Some(Err(unread())), ..Facts::default() };
        for departure in [Departure::Deletion, Departure::OptOut] {
            assert_eq!(judged(&change(departure), &facts).0, "MG501");
            assert_eq!(judged(&change(departure), &Facts::default()).0, "MG501");
        }
    }

    #[test]
    fn a_namespace_that_is_going_is_never_held_up() {
        for departure in [Departure::Deletion, Departure::OptOut] {
            let going = NamespaceChange { going: true, ..change(departure) };
            assert_eq!(needs(&going, &terms(WhileInUse::Deny)), Needs::default());
            assert_eq!(judged(&going, &Facts::default()).1, 200);
        }
    }

    #[test]
    fn a_lenient_guard_and_break_glass_let_it_pass() {
        let facts = shared(app(), false, Prospect::Moving(LONG));
        for (mode, warnings) in [(WhileInUse::Warn, 1), (WhileInUse::Audit, 0)] {
            let decision = decide(&change(Departure::Deletion), &facts, &terms(mode));
            assert!(decision.allowed(), "{decision:?}");
            assert_eq!(decision.warnings.len(), warnings);
            assert_eq!(decision.overlooked.map(|it| it.code), Some(Code::NamespaceInUse));
        }
        let break_glass = BreakGlass::stored(Some("1970-01-01T00:30:00Z on fire"));
        let asked = NamespaceChange { break_glass, ..change(Departure::Deletion) };
        assert_eq!(needs(&asked, &terms(WhileInUse::Deny)).may_override.as_deref(), Some("models"));
        let break_glass = BreakGlass::wanted(None, Some("1970-01-01T00:30:00Z on fire"));
        let set = NamespaceChange { departure: None, break_glass, ..asked.clone() };
        for (may, code) in [(true, ""), (false, "MG502")] {
            let facts = Facts { may_override: Some(Ok(may)), ..facts.clone() };
            assert_eq!(judged(&asked, &facts).0, code);
            assert_eq!(judged(&set, &facts).0, code, "to set it takes the permission, too");
        }
    }
}
