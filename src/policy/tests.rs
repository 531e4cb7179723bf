//! The rule book as tables: a change, what is known, and the exact code and status.

use super::*;
use crate::catalog::EntryName;
use crate::guard::{Guard, WhileInUse};
use crate::holder::{Hold, Holders, Workload as HoldingWorkload};
use crate::names;
use crate::object::{ConfigMap, HolderKind, Workload};
use crate::reference::CatalogKey;
use crate::sharing::Sharing;
use crate::usage::{Epoch, Usage};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

mod rollback;
mod targets;

const EPOCH: &str = "e1";

fn epoch() -> CurrentEpoch {
    Ok(Epoch::new(EPOCH))
}

fn terms() -> Terms {
    Terms { epoch: epoch(), guard: Guard::default(), now: Timestamp::UNIX_EPOCH }
}

fn key() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name).unwrap()
}

/// A model ConfigMap `prod/models` of format `keys`; the JSON of its annotations and data.
fn json(label: Option<&str>, annotations: &str, data: &str) -> String {
    let labels = label.map_or_else(|| "{}".to_owned(), |label| format!(r#"{{"{}":"{label}"}}"#, names::CATALOG_LABEL));
    format!(
        r#"{{"metadata":{{"name":"models","namespace":"prod","labels":{labels},"annotations":{annotations}}},"data":{data}}}"#
    )
}

fn idle(entries: &str) -> String {
    let usage = format!(r#"{{"epoch":"{EPOCH}","idle":[{entries}]}}"#);
    format!(r#"{{"{}":{}}}"#, names::USAGE, serde_json::to_string(&usage).unwrap())
}

/// What the mutating webhook would make of it, and then the verdict.
struct Case {
    old: Option<String>,
    new: Option<String>,
    caller: Caller,
    epoch: CurrentEpoch,
    guard: Guard,
    may_override: Option<Result<bool, Unread>>,
    holders: Result<Vec<(&'static str, usize)>, Unread>,
    /// Whether holders hold by their own template, and not by pods of an older one alone.
    template: bool,
    prospect: Prospect,
    terminating: bool,
    /// Entries that a rollback of Deployment `api` to this revision would need.
    targets: &'static [(&'static str, u64)],
}

impl Case {
    fn new(old: Option<String>, new: Option<String>) -> Self {
        Self {
            old,
            new,
            caller: Caller::default(),
            epoch: epoch(),
            guard: Guard::default(),
            may_override: None,
            holders: Ok(Vec::new()),
            template: true,
            prospect: Prospect::Moving(Duration::from_secs(60)),
            terminating: false,
            targets: &[],
        }
    }

    fn held(mut self, held: &[(&'static str, usize)]) -> Self {
        self.holders = Ok(held.to_vec());
        self
    }

    fn terms(&self) -> Terms {
        Terms { epoch: self.epoch.clone(), guard: self.guard, now: Timestamp::UNIX_EPOCH }
    }

    fn decide(&self) -> Decision {
        let old = self.old.as_deref().map(|json| ConfigMap::parse(json).unwrap());
        let mut new = self.new.as_deref().map(|json| ConfigMap::parse(json).unwrap());
        let change = CatalogChange::new(key(), old.clone(), new.clone(), self.caller);
        for (name, value) in mutate(&change, None, &self.terms()).annotations {
            let annotations = &mut new.as_mut().unwrap().metadata.annotations;
            match value {
                Some(value) => annotations.insert(name, value),
                None => annotations.remove(name),
            };
        }
        self.judge(old, new)
    }

    fn judge(&self, old: Option<ConfigMap<'_>>, new: Option<ConfigMap<'_>>) -> Decision {
        let request = Request::Catalog(Box::new(CatalogChange::new(key(), old, new, self.caller)));
        let terms = self.terms();
        let needs = needs(&request, &terms);
        let mut facts = Facts { prospect: Some(self.prospect.clone()), ..Facts::default() };
        facts.may_override = needs.may_override.and_then(|_| self.may_override.clone());
        facts.terminating = needs.namespaces.iter().map(|name| (name.clone(), Ok(self.terminating))).collect();
        facts.holders = needs.holders.map(|of| {
            self.holders.clone().map(|held| {
                let known = |entry| self.held_target(entry).unwrap_or_else(|| holders(entry, &held, self.template));
                of.entries.iter().map(|entry| (entry.clone(), known(entry))).collect()
            })
        });
        facts.rollback_targets = needs.rollback_targets.map(|of| self.targets_among(&of)).unwrap_or_default();
        decide(&request, &facts, &terms)
    }
}

fn holders(entry: &EntryName, held: &[(&str, usize)], template: bool) -> Holders {
    let Some((_, pods)) = held.iter().find(|(name, _)| *name == entry.as_str()) else { return Holders::default() };
    let workload = HoldingWorkload {
        kind: "Deployment".into(),
        namespace: "prod".into(),
        name: "extraction-api".into(),
        template,
        pods: *pods,
        pod_names: ["extraction-api-7c9f-x2x4z".into()].into_iter().take(*pods).collect(),
        rollback_target: None,
        unreadable: None,
    };
    Holders { workloads: vec![workload], workloads_total: 1, pods_total: *pods }
}

fn code(decision: &Decision) -> Option<(&'static str, u16)> {
    decision.denial.as_ref().map(|denial| (denial.code.id(), denial.status))
}

const NONE: &str = "{}";

#[test]
fn what_a_change_takes_away_must_be_idle() {
    let keys = Some("keys");
    let two = || Some(json(keys, NONE, r#"{"v1":"a","v2":"b"}"#));
    let idle_v1 = || Some(json(keys, &idle(r#""v1""#), r#"{"v1":"a","v2":"b"}"#));
    let all_idle = || Some(json(keys, &idle(r#""v1","v2""#), r#"{"v1":"a","v2":"b"}"#));
    let without_v1 = || Some(json(keys, NONE, r#"{"v2":"b"}"#));
    let replaced = || Some(json(keys, NONE, r#"{"v1":"other","v2":"b"}"#));
    let added = || Some(json(keys, NONE, r#"{"v1":"a","v2":"b","v3":"c"}"#));
    let unlabelled = || Some(json(None, NONE, r#"{"v1":"a","v2":"b"}"#));
    let other_format = || Some(json(Some("yaml"), NONE, r#"{"models.yaml":"[]"}"#));
    let broken = || Some(json(Some("yaml"), NONE, r#"{"models.yaml":"a: b"}"#));
    let yaml = || Some(json(Some("yaml"), NONE, r#"{"models.yaml":"- {name: v1}"}"#));
    let yaml_idle = || Some(json(Some("yaml"), &idle(r#""v1""#), r#"{"models.yaml":"- {name: v1}"}"#));
    let toml = || Some(json(Some("toml"), NONE, NONE));
    let v1: &[(&str, usize)] = &[("v1", 3)];
    for (what, old, new, held, expected) in [
        ("nothing changes", two(), two(), v1, None),
        ("an entry is added", two(), added(), v1, None),
        ("a held entry is removed", two(), without_v1(), v1, Some(("MG101", 403))),
        ("an idle entry is removed", idle_v1(), without_v1(), &[], None),
        ("an idle entry is removed although the index still shows a holder", idle_v1(), without_v1(), v1, None),
        ("an unproven entry is removed", two(), without_v1(), &[], Some(("MG103", 429))),
        ("a held entry is replaced", two(), replaced(), v1, Some(("MG102", 403))),
        ("an idle entry is replaced", idle_v1(), replaced(), &[], None),
        ("an unproven entry is replaced", two(), replaced(), &[], Some(("MG103", 429))),
        ("the label is dropped", two(), unlabelled(), v1, Some(("MG105", 403))),
        ("the label is dropped, unproven", idle_v1(), unlabelled(), &[], Some(("MG103", 429))),
        ("the label is dropped, all idle", all_idle(), unlabelled(), &[], None),
        ("the format changes", two(), other_format(), v1, Some(("MG105", 403))),
        ("the format changes, all idle", all_idle(), other_format(), &[], None),
        ("the format changes to none that is known", two(), toml(), v1, Some(("MG105", 403))),
        ("the format changes to none that is known, unproven", two(), toml(), &[], Some(("MG104", 422))),
        ("the format changes, all idle, and the content is not of it", all_idle(), broken(), &[], Some(("MG104", 422))),
        ("it is deleted", two(), None, v1, Some(("MG106", 403))),
        ("it is deleted, unproven", two(), None, &[], Some(("MG103", 429))),
        ("it is deleted, all idle", all_idle(), None, &[], None),
        ("it stops parsing", yaml(), broken(), v1, Some(("MG104", 422))),
        ("it stops parsing, unproven", yaml(), broken(), &[], Some(("MG104", 422))),
        ("it stops parsing, all idle", yaml_idle(), broken(), &[], None),
        ("it is created and parses", None, yaml(), &[], None),
        ("it is created and does not parse", None, broken(), &[], Some(("MG104", 422))),
        ("a label is put on what does not parse", unlabelled(), broken(), &[], Some(("MG104", 422))),
        ("it did not parse and is mended", broken(), yaml(), &[], None),
        ("it did not parse and is deleted", broken(), None, &[], None),
        ("a label names no format", unlabelled(), toml(), &[], Some(("MG104", 422))),
    ] {
        let decision = Case::new(old, new).held(held).decide();
        assert_eq!(code(&decision), expected, "{what}: {decision:?}");
    }
}

#[test]
fn a_guard_that_waits_holds_the_client_while_only_older_pods_need_the_entry() {
    let change = || {
        let [old, new] = [r#"{"v1":"a","v2":"b"}"#, r#"{"v2":"b"}"#].map(|data| json(Some("keys"), NONE, data));
        let mut case = Case::new(Some(old), Some(new)).held(&[("v1", 3)]);
        case.guard.while_in_use = WhileInUse::Wait;
        case
    };
    let answer = |case: &Case| {
        let denial = case.decide().denial.unwrap();
        (denial.code.id(), denial.status, denial.retry_after.map(|after| after.as_secs()))
    };
    assert_eq!(answer(&change()), ("MG101", 403, None), "its template still needs it");

    let older = |case: Case| Case { template: false, ..case };
    assert_eq!(answer(&older(change())), ("MG101", 429, Some(30)));
    let message = older(change()).decide().denial.unwrap().message;
    assert_eq!(
        message,
        "[MG101] models: entry v1 is still used by 3 pods of Deployment prod/extraction-api (extraction-api-7c9f-x2x4z \
         and 2 more).\nOnly pods of an older template still need it: kubectl and Helm ask again by themselves until \
         these are gone and that is proven. See: kubectl modelguard status models -n prod"
    );

    let deny = Guard::default();
    assert_eq!(answer(&Case { guard: deny, ..older(change()) }), ("MG101", 403, None));
    let dry_run = Caller { dry_run: true, ..Caller::default() };
    assert_eq!(answer(&Case { caller: dry_run, ..older(change()) }), ("MG101", 403, None));
    let stuck = Prospect::Stuck("no modelguard controller is running".to_owned());
    assert_eq!(answer(&Case { prospect: stuck, ..older(change()) }), ("MG101", 403, None), "no proof would follow");

    // Few of a client's ten attempts may be left when the pods are gone.
    assert_eq!(answer(&change().held(&[])), ("MG103", 429, Some(24)));
    assert_eq!(answer(&Case { guard: deny, ..change().held(&[]) }), ("MG103", 429, Some(9)));
}

#[test]
fn waiting_does_not_help_with_what_people_keep() {
    let hold = format!(r#"{{"{}":"v2=soak"}}"#, names::HOLD);
    let [old, new] = [r#"{"v1":"a","v2":"b"}"#, "{}"].map(|data| json(Some("keys"), &hold, data));
    let mut case = Case { template: false, ..Case::new(Some(old), Some(new)).held(&[("v1", 3)]) };
    case.guard.while_in_use = WhileInUse::Wait;
    assert_eq!(code(&case.decide()), Some(("MG101", 403)));
}

#[test]
fn a_lenient_guard_lets_pass_what_only_use_forbids() {
    let two = || Some(json(Some("keys"), NONE, r#"{"v1":"a","v2":"b"}"#));
    let without_v1 = || Some(json(Some("keys"), NONE, r#"{"v2":"b"}"#));
    let replaced = || Some(json(Some("keys"), NONE, r#"{"v1":"other","v2":"b"}"#));
    let unlabelled = || Some(json(None, NONE, r#"{"v1":"a","v2":"b"}"#));
    for (new, held, overlooked) in [
        (without_v1(), Ok(vec![("v1", 3)]), "MG101"),
        (replaced(), Ok(vec![("v1", 3)]), "MG102"),
        (without_v1(), Ok(vec![]), "MG103"),
        (unlabelled(), Ok(vec![("v1", 3)]), "MG105"),
        (None, Ok(vec![("v1", 3)]), "MG106"),
        (without_v1(), Err(Unread::new("the holders", "not listed yet")), "MG501"),
    ] {
        for (while_in_use, warnings) in [(WhileInUse::Warn, 1), (WhileInUse::Audit, 0)] {
            let guard = Guard { while_in_use, ..Guard::default() };
            let decision = Case { guard, holders: held.clone(), ..Case::new(two(), new.clone()) }.decide();
            assert!(decision.allowed(), "{overlooked}: {decision:?}");
            assert_eq!(decision.overlooked.map(|denial| denial.code.id()), Some(overlooked));
            assert_eq!(decision.warnings.len(), warnings, "{overlooked}: {:?}", decision.warnings);
            assert_eq!(decision.facts.enforcement, while_in_use);
            assert!(decision.settle.is_empty());
        }
    }
}

#[test]
fn a_catalog_stays_shared_with_whoever_uses_it() {
    let shared = |with: &str| {
        let annotations = format!(r#"{{"{}":"{with}"}}"#, names::SHARED_WITH);
        Some(json(Some("keys"), &annotations, r#"{"v1":"a","v2":"b"}"#))
    };
    for (old, new, held, expected) in [
        ("apps", "", &[("v1", 3)][..], Some(("MG101", 403))),
        ("apps", "", &[], None),
        ("apps", "apps, other", &[("v1", 3)], None),
        ("*", "apps", &[("v1", 3)], Some(("MG101", 403))),
    ] {
        let case = Case::new(shared(old), shared(new)).held(held);
        assert_eq!(code(&case.decide()), expected, "{old:?} {new:?}");
    }
    let denial = Case::new(shared("apps"), shared("")).held(&[("v1", 3)]).decide().denial.unwrap();
    assert_eq!(
        denial.message,
        "[MG101] models: it cannot be taken from namespaces whose workloads use it: entry v1 is still used by 3 pods of \
         Deployment prod/extraction-api (extraction-api-7c9f-x2x4z and 2 more).\n\
         Roll these apps out without it first, then take their namespace out of modelguard.dev/shared-with. See: kubectl \
         modelguard status models -n prod"
    );
    let unread = Err(Unread::new("the holders", "not listed yet"));
    let case = Case { holders: unread, ..Case::new(shared("apps"), shared("")) };
    assert_eq!(code(&case.decide()), Some(("MG501", 503)));
}

#[test]
fn a_lenient_guard_says_what_it_would_have_denied() {
    let [old, new] = [r#"{"v1":"a"}"#, "{}"].map(|data| json(Some("keys"), NONE, data));
    let mut case = Case::new(Some(old), Some(new)).held(&[("v1", 3)]);
    case.guard.while_in_use = WhileInUse::Warn;
    let expected = "modelguard only warns here, and would deny this: [MG101] models: entry v1 is still used by 3 pods of \
                    Deployment prod/extraction-api (extraction-api-7c9f-x2x4z and 2 more).";
    assert_eq!(case.decide().warnings, [expected]);
}

#[test]
fn no_guard_is_lenient_with_what_cannot_be_read() {
    let [old, new] = ["- {name: v1}", "a: b"]
        .map(|text| json(Some("yaml"), NONE, &serde_json::json!({"models.yaml": text}).to_string()));
    for while_in_use in WhileInUse::ALL {
        let case = Case {
            guard: Guard { while_in_use, ..Guard::default() },
            ..Case::new(Some(old.clone()), Some(new.clone()))
        };
        assert_eq!(code(&case.held(&[("v1", 3)]).decide()), Some(("MG104", 422)), "{while_in_use}");
    }
}

#[test]
fn idle_of_another_epoch_proves_nothing() {
    let old = json(Some("keys"), &idle(r#""v1""#), r#"{"v1":"a"}"#);
    let mut case = Case::new(Some(old), Some(json(Some("keys"), NONE, "{}")));
    case.epoch = Ok(Epoch::new("another"));
    assert_eq!(code(&case.decide()), Some(("MG103", 429)));
    case.epoch = Err(Unread::new("the configurations", "not read yet"));
    assert_eq!(code(&case.decide()), Some(("MG501", 503)));
}

#[test]
fn in_a_folder_of_manifests_only_what_is_said_to_be_idle_may_go() {
    let old = json(Some("keys"), &idle(r#""v1""#), r#"{"v1":"1","v2":"2"}"#);
    for (gone, idle, allowed) in [("v1", "v1", true), ("v2", "v1", false), ("v1", "v2", false)] {
        let left = if gone == "v1" { r#"{"v2":"2"}"# } else { r#"{"v1":"1"}"# };
        let new = json(Some("keys"), "{}", left);
        let [old, new] = [&old, &new].map(|json| Some(ConfigMap::parse(json).unwrap()));
        let mut change = CatalogChange::new(key(), old, new, Caller::default());
        change.proof = Proof::Standalone([entry(idle)].into());
        let needs = needs(&Request::Catalog(change.into()), &terms());
        assert_eq!(needs.holders.is_none(), allowed, "{gone} {idle}");
    }
}

#[test]
fn what_is_not_known_keeps_the_guard_closed() {
    let change = || Case::new(Some(json(Some("keys"), NONE, r#"{"v1":"a"}"#)), Some(json(Some("keys"), NONE, "{}")));
    let mut unsynced = change();
    unsynced.holders = Err(Unread::new("the holders", "pods have not been listed"));
    assert_eq!(code(&unsynced.decide()), Some(("MG501", 503)));
    let mut stuck = change();
    stuck.prospect = Prospect::Stuck("no controller is running".to_owned());
    let decision = stuck.decide();
    assert_eq!(code(&decision), Some(("MG103", 503)));
    assert!(decision.denial.unwrap().message.contains("no controller is running"));
}

#[test]
fn what_people_hold_is_never_idle() {
    let held = idle(r#""v1","v2""#).replacen('{', &format!(r#"{{"{}":"v1=mobile clients","#, names::HOLD), 1);
    let old = || Some(json(Some("keys"), &held, r#"{"v1":"a","v2":"b"}"#));
    let case = Case::new(old(), Some(json(Some("keys"), NONE, r#"{"v2":"b"}"#)));
    let decision = case.decide();
    assert_eq!(code(&decision), Some(("MG101", 403)));
    assert!(decision.settle.is_empty());
    assert!(decision.denial.unwrap().message.contains("annotation modelguard.dev/hold keeps entry v1"));
    let case = Case::new(old(), Some(json(Some("keys"), NONE, r#"{"v1":"a"}"#)));
    assert_eq!(code(&case.decide()), None);
}

#[test]
fn a_terminating_namespace_is_never_wedged() {
    let mut case = Case::new(Some(json(Some("keys"), NONE, r#"{"v1":"a"}"#)), None).held(&[("v1", 1)]);
    case.terminating = true;
    assert_eq!(code(&case.decide()), None);
}

#[test]
fn only_clients_that_wait_are_told_to() {
    for (caller, expected) in [
        (Caller::default(), (429, Some(Duration::from_secs(9)))),
        (Caller { put: true, ..Caller::default() }, (429, Some(Duration::from_secs(65)))),
        (Caller { dry_run: true, ..Caller::default() }, (403, None)),
        (Caller { system: true, ..Caller::default() }, (403, None)),
    ] {
        let mut case = Case::new(Some(json(Some("keys"), NONE, r#"{"v1":"a"}"#)), None);
        case.caller = caller;
        let decision = case.decide();
        let denial = decision.denial.unwrap();
        assert_eq!((denial.status, denial.retry_after), expected, "{caller:?}");
        assert_eq!(decision.settle.is_empty(), caller.dry_run, "a dry run begins nothing");
    }
}

#[test]
fn a_replaced_entry_may_go_back_to_what_it_was() {
    let first = json(Some("keys"), NONE, r#"{"v1":"a","v2":"b"}"#);
    let old = ConfigMap::parse(&first).unwrap();
    let second = json(Some("keys"), NONE, r#"{"v1":"x","v2":"b"}"#);
    let mut new = ConfigMap::parse(&second).unwrap();
    for (name, value) in
        mutate(&CatalogChange::new(key(), Some(old.clone()), Some(new.clone()), Caller::default()), None, &terms())
            .annotations
    {
        new.metadata.annotations.insert(name, value.unwrap());
    }
    let case = Case::new(None, None).held(&[("v1", 1)]);
    let mut back = old.clone();
    let change = CatalogChange::new(key(), Some(new.clone()), Some(back.clone()), Caller::default());
    for (name, value) in mutate(&change, None, &terms()).annotations {
        back.metadata.annotations.insert(name, value.unwrap());
    }
    assert_eq!(code(&case.judge(Some(new), Some(back))), None);
}

#[test]
fn annotations_that_were_not_set_by_the_mutating_webhook_are_denied() {
    let old = json(Some("keys"), NONE, r#"{"v1":"a"}"#);
    let forged = json(Some("keys"), &idle(r#""v1""#), r#"{"v1":"a"}"#);
    let changed = json(Some("keys"), NONE, r#"{"v1":"a","v2":"b"}"#);
    for (old, new, expected) in [
        (Some(&old), &forged, Some(("MG501", 503))),
        (None, &forged, Some(("MG107", 403))),
        (Some(&old), &changed, Some(("MG107", 403))),
        (Some(&old), &old, None),
    ] {
        let old = old.map(|json| ConfigMap::parse(json).unwrap());
        let decision = Case::new(None, None).judge(old, Some(ConfigMap::parse(new).unwrap()));
        assert_eq!(code(&decision), expected, "{new}");
    }
}

/// Until half an hour after the epoch, which is what time it is in these tests.
const BROKEN_GLASS: &str = r#"{"modelguard.dev/break-glass":"1970-01-01T00:30:00Z on fire"}"#;

#[test]
fn break_glass_lets_a_change_of_a_catalog_pass() {
    let two = || Some(json(Some("keys"), BROKEN_GLASS, r#"{"v1":"a","v2":"b"}"#));
    let without_v1 = || Some(json(Some("keys"), BROKEN_GLASS, r#"{"v2":"b"}"#));
    let unlabelled = || Some(json(None, BROKEN_GLASS, r#"{"v1":"a","v2":"b"}"#));
    for (new, overlooked) in [(without_v1(), "MG101"), (unlabelled(), "MG105"), (None, "MG106")] {
        let case = Case { may_override: Some(Ok(true)), ..Case::new(two(), new.clone()) }.held(&[("v1", 3)]);
        let decision = case.decide();
        assert!(decision.allowed(), "{overlooked}: {decision:?}");
        assert_eq!(decision.overlooked.map(|denial| denial.code.id()), Some(overlooked));
        assert_eq!(decision.granted.map(|grant| grant.reason).as_deref(), Some("on fire"));
        let case = Case { may_override: Some(Ok(false)), ..Case::new(two(), new) }.held(&[("v1", 3)]);
        assert_eq!(code(&case.decide()), Some(("MG502", 403)), "instead of {overlooked}");
    }
}

#[test]
fn break_glass_begins_no_proof_and_makes_none() {
    let two = || Some(json(Some("keys"), BROKEN_GLASS, r#"{"v1":"a","v2":"b"}"#));
    let without_v1 = Some(json(Some("keys"), BROKEN_GLASS, r#"{"v2":"b"}"#));
    let unproven = Case { may_override: Some(Ok(true)), ..Case::new(two(), without_v1) }.decide();
    assert_eq!(unproven.overlooked.map(|denial| denial.code.id()), Some("MG103"));
    assert!(unproven.settle.is_empty());

    // A proof that nobody made would go on to count after the hour.
    let both = format!("{},{}", BROKEN_GLASS.trim_end_matches('}'), idle(r#""v1""#).trim_start_matches('{'));
    let forged = json(Some("keys"), &both, r#"{"v1":"a","v2":"b"}"#);
    let [old, new] = [two().unwrap(), forged];
    let [old, new] = [&old, &new].map(|json| Some(ConfigMap::parse(json).unwrap()));
    let case = Case { may_override: Some(Ok(true)), ..Case::new(None, None) };
    assert_eq!(code(&case.judge(old, new)), Some(("MG501", 503)));
}

#[test]
fn what_break_glass_lets_pass_beside_it_still_counts() {
    let mut object = deployment("models:v1, models:v9");
    let said = "1970-01-01T00:30:00Z on fire";
    object.metadata.annotations = [(names::BREAK_GLASS, said)].into_iter().collect();
    let id = crate::holder::ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: "api".into() };
    let change = WorkloadChange::new(id, None, &object, Caller::default(), Guard::default());
    assert_eq!(needs(&Request::Workload(change.clone().into()), &terms()).may_override.as_deref(), Some("prod"));
    let facts = known(key(), Some(stored(&idle(r#""v1""#), r#"{"v1":"a"}"#)));
    let facts = Facts { may_override: Some(Ok(true)), ..facts };
    let decision = decide(&Request::Workload(change.into()), &facts, &terms());
    assert!(decision.allowed(), "{decision:?}");
    assert_eq!(decision.overlooked.map(|denial| denial.code.id()), Some("MG201"));
    assert!(!decision.lifts[0].usage.marks(&entry("v1")));
}

#[test]
fn the_message_names_holders_step_and_what_to_do_next() {
    let old = json(Some("keys"), NONE, r#"{"v1":"a","v2":"b"}"#);
    let decision = Case::new(Some(old), Some(json(Some("keys"), NONE, "{}"))).held(&[("v1", 3), ("v2", 0)]).decide();
    let denial = decision.denial.unwrap();
    assert_eq!(
        denial.message,
        "[MG101] models: entry v1 is still used by 3 pods of Deployment prod/extraction-api \
         (extraction-api-7c9f-x2x4z and 2 more); so is 1 more: v2.\n\
         This is step 3 (remove) of a release; finish step 2 (roll out the app) first. See: kubectl modelguard status \
         models -n prod"
    );
    assert_eq!(
        denial.causes[2].message,
        "entry v2 is still used by the pod template of Deployment prod/extraction-api"
    );
    assert_eq!(decision.facts.step, Some(Step::Remove));
}

/// What is larger already is guarded as ever, and may shrink.
#[test]
fn a_catalog_does_not_grow_beyond_what_can_be_remembered() {
    let of = |range: std::ops::Range<usize>, annotations| {
        let data: Vec<_> = range.map(|n| format!(r#""v{n}":"""#)).collect();
        json(Some("keys"), annotations, &format!("{{{}}}", data.join(",")))
    };
    let retained = r#"{"modelguard.dev/revision":"2","modelguard.dev/retained":"[\"v0\"]"}"#;
    for (old, new, expected) in [
        (None, of(0..10_000, NONE), None),
        (None, of(0..10_001, NONE), Some("MG104")),
        (Some(of(0..10_000, NONE)), of(0..10_001, NONE), Some("MG104")),
        (Some(of(0..10_002, NONE)), of(0..10_003, NONE), Some("MG104")),
        (Some(of(0..10_002, NONE)), of(1..10_002, NONE), Some("MG103")),
        (Some(of(0..10_002, NONE)), of(0..1, NONE), Some("MG103")),
        (Some(of(0..10_000, NONE)), of(0..10_001, retained), None),
    ] {
        let decision = Case::new(old, Some(new)).held(&[]).decide();
        assert_eq!(decision.denial.as_ref().map(|denial| denial.code.id()), expected, "{:?}", decision.denial);
    }
    let denial = Case::new(None, Some(of(0..10_001, NONE))).decide().denial.unwrap();
    assert_eq!(
        denial.message,
        "[MG104] models: it lists 10001 models, and 10000 are the most.\nSpread them over several model ConfigMaps. Nothing \
         of the ConfigMap was changed."
    );
}

#[test]
fn what_is_too_much_to_be_proven_at_once_is_to_be_removed_in_parts() {
    let data: Vec<_> = (0..500).map(|n| format!(r#""{n:0100}":"x""#)).collect();
    let old = json(Some("keys"), NONE, &format!("{{{}}}", data.join(",")));
    let decision = Case::new(Some(old), None).held(&[]).decide();
    assert!(decision.settle.is_empty(), "nothing of it is begun");
    let denial = decision.denial.unwrap();
    assert_eq!((denial.code.id(), denial.status, denial.retry_after), ("MG103", 403, None));
    assert_eq!(
        denial.message,
        "[MG103] models: it would take 500 entries away at once, and no more than 286 of them can be proven unused at a \
         time.\nThis is step 3 (remove) of a release. Remove them in parts of 286 at most. See: kubectl modelguard status \
         models -n prod"
    );
}

#[test]
fn no_message_is_longer_than_a_thousand_characters() {
    let data: Vec<_> = (0..50).map(|n| format!(r#""{n:0500}":"x""#)).collect();
    let old = json(Some("keys"), NONE, &format!("{{{}}}", data.join(",")));
    let decision = Case::new(Some(old), None).decide();
    let message = decision.denial.unwrap().message;
    assert_eq!(message.chars().count(), 999);
    assert!(
        message.ends_with("… See: kubectl modelguard status models -n prod"),
        "where to look is never cut: {message}"
    );
}

// === references ===

fn deployment(uses: &str) -> Workload {
    let annotations = serde_json::json!({ names::USES: uses });
    let object = serde_json::json!({
        "metadata": {"name": "api", "namespace": "prod"},
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {"containers": []}}},
    });
    Workload::parse(&object.to_string()).unwrap()
}

fn stored(annotations: &str, data: &str) -> Stored {
    stored_in("prod", annotations, data)
}

fn stored_in(namespace: &str, annotations: &str, data: &str) -> Stored {
    let text = json(Some("keys"), annotations, data);
    let object = ConfigMap::parse(&text).unwrap();
    Stored {
        resource_version: "7".to_owned(),
        deleting: false,
        declared: Declared::read(object.metadata.labels.get(names::CATALOG_LABEL), &object.content),
        usage: Usage::parse(object.metadata.annotations.get(names::USAGE)),
        hold: Hold::default(),
        sharing: Sharing::new(namespace, object.metadata.annotations.get(names::SHARED_WITH)),
    }
}

fn reference(old: Option<&str>, new: &str, caller: Caller, facts: &Facts) -> Decision {
    let id = crate::holder::ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: "api".into() };
    let old = old.map(deployment);
    let change = WorkloadChange::new(id, old.as_ref(), &deployment(new), caller, Guard::default());
    decide(&Request::Workload(change.into()), facts, &terms())
}

fn known(key: CatalogKey, stored: Option<Stored>) -> Facts {
    let terminating = BTreeMap::from([(key.namespace.clone(), Ok(false))]);
    Facts { catalogs: BTreeMap::from([(key, Ok(stored))]), terminating, ..Facts::default() }
}

#[test]
fn what_is_referenced_must_be_there() {
    let there = || known(key(), Some(stored(NONE, r#"{"v1":"a"}"#)));
    let mut going = stored(NONE, r#"{"v1":"a"}"#);
    going.deleting = true;
    let mut ordinary = stored(NONE, r#"{"v1":"a"}"#);
    ordinary.declared = Declared::Ordinary;
    let foreign = || CatalogKey::new("other", "models");
    let shared = format!(r#"{{"{}":"a, prod"}}"#, names::SHARED_WITH);
    let mut gone = known(foreign(), Some(stored_in("other", &shared, r#"{"v1":"a"}"#)));
    gone.terminating.insert("other".into(), Ok(true));
    let unread = Facts { catalogs: [(key(), Err(Unread::new("x", "y")))].into(), ..Facts::default() };
    for (what, old, new, facts, expected) in [
        ("it is listed", None, "models:v1", there(), None),
        ("it is not listed", None, "models:v9", there(), Some(("MG201", 403))),
        ("it is kept", Some("models:v9"), "models:v9", Facts::default(), None),
        ("it is added beside one that is kept", Some("models:v9"), "models:v9,models:v1", there(), None),
        ("the ConfigMap does not exist", None, "models:v1", known(key(), None), Some(("MG202", 403))),
        ("the ConfigMap is not opted in", None, "models:v1", known(key(), Some(ordinary)), Some(("MG202", 403))),
        ("the ConfigMap is being deleted", None, "models:v1", known(key(), Some(going)), Some(("MG202", 403))),
        ("it does not parse", None, "models", there(), Some(("MG204", 422))),
        ("it did not parse before", Some("models"), "models", there(), None),
        ("more of it does not parse than before", Some("models"), "models, b", there(), Some(("MG204", 422))),
        ("what did not parse is gone", Some("models"), "models:v1", there(), None),
        ("the ConfigMap cannot be read", None, "models:v1", unread, Some(("MG501", 503))),
        ("the ConfigMap was not read", None, "models:v1", Facts::default(), Some(("MG501", 503))),
        (
            "another namespace does not share it",
            None,
            "other/models:v1",
            known(foreign(), Some(stored_in("other", NONE, r#"{"v1":"a"}"#))),
            Some(("MG202", 403)),
        ),
        (
            "another namespace shares it",
            None,
            "other/models:v1",
            known(foreign(), Some(stored_in("other", &shared, r#"{"v1":"a"}"#))),
            None,
        ),
        ("another namespace is being deleted", None, "other/models:v1", gone, Some(("MG202", 403))),
    ] {
        let decision = reference(old, new, Caller::default(), &facts);
        assert_eq!(code(&decision), expected, "{what}: {decision:?}");
    }
}

#[test]
fn an_update_adds_what_the_old_object_did_not_have() {
    for (what, old, new, added) in [
        ("all of a new object", None, "models:v1", &["v1"][..]),
        ("nothing of the same object", Some("models:v1"), "models:v1", &[]),
        ("nothing for another order", Some("models:v1, models:v2"), "models:v2,models:v1", &[]),
        ("the new entry", Some("models:v1"), "models:v2", &["v2"]),
        ("nothing when one is dropped", Some("models:v1, models:v2"), "models:v1", &[]),
        ("nothing of what is gone", Some("models:v1"), "", &[]),
    ] {
        let facts = known(key(), Some(stored(NONE, r#"{"v1":"a","v2":"b"}"#)));
        let decision = reference(old, new, Caller::default(), &facts);
        assert_eq!(decision.facts.added, added.iter().copied().map(entry).collect(), "{what}");
    }
}

#[test]
fn of_a_catalog_that_is_not_shared_nothing_is_told() {
    let foreign = CatalogKey::new("other", "models");
    let hidden = known(foreign.clone(), Some(stored_in("other", NONE, r#"{"secret-model":"a"}"#)));
    let missing = known(foreign, None);
    let message = |facts| reference(None, "other/models:v1", Caller::default(), facts).denial.unwrap().message;
    assert_eq!(message(&hidden), message(&missing));
}

#[test]
fn a_reference_takes_its_entry_back_whatever_the_epoch() {
    for usage in [idle(r#""v1","v2""#), idle(r#""v1","v2""#).replace(EPOCH, "another")] {
        let facts = known(key(), Some(stored(&usage, r#"{"v1":"a","v2":"b"}"#)));
        let decision = reference(None, "models:v1", Caller::default(), &facts);
        assert!(decision.allowed());
        let [lift] = &decision.lifts[..] else { panic!("{decision:?}") };
        assert_eq!((&lift.catalog, &*lift.resource_version), (&key(), "7"));
        assert!(!lift.usage.marks(&entry("v1")) && lift.usage.marks(&entry("v2")));
        let rehearsal = Caller { dry_run: true, ..Caller::default() };
        assert_eq!(reference(None, "models:v1", rehearsal, &facts).lifts, []);
    }
    let in_use = known(key(), Some(stored(NONE, r#"{"v1":"a"}"#)));
    assert_eq!(reference(None, "models:v1", Caller::default(), &in_use).lifts, []);
}

#[test]
fn an_unknown_entry_is_answered_with_what_there_is() {
    let facts = known(key(), Some(stored(NONE, r#"{"extraction-v2":"a","extraction-v3":"b"}"#)));
    let decision = reference(None, "models:extraction-v4", Caller::default(), &facts);
    assert_eq!(
        decision.denial.unwrap().message,
        "[MG201] Deployment prod/api: it references entry extraction-v4, but model ConfigMap prod/models lists \
         extraction-v2, extraction-v3 (nearest: extraction-v2).\n\
         This is step 2 (roll out the app) of a release; do step 1 (add the new version to models) first."
    );
}

#[test]
fn of_many_references_that_are_wrong_the_first_are_told() {
    let uses: Vec<_> = (0..100).map(|number| format!("models:missing-{number:02}")).collect();
    let facts = known(key(), Some(stored(NONE, r#"{"v1":"a"}"#)));
    let denial = reference(None, &uses.join(","), Caller::default(), &facts).denial.unwrap();
    assert!(denial.message.contains("missing-00"), "{denial:?}");
    assert_eq!(denial.causes.len(), 21);
    assert_eq!(denial.causes[1].field, "prod/models:missing-00");
    assert_eq!(denial.causes[20].field, "prod/models:missing-19");
}
