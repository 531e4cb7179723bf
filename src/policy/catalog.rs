//! P2: changes of a model ConfigMap. MG101 to MG107.
//!
//! A change is allowed iff every entry that it takes away is Idle in the *old* object and the current epoch:
//! the API server commits it only if that very revision is still the stored one. Holders are looked up for the
//! message alone; they never allow anything.

use super::break_glass;
use super::message::{self, Patience};
use super::{
    Beside, CatalogChange, Code, CurrentEpoch, Decision, Declared, Denial, Facts, HoldersOf, Needs, Proof, Prospect,
    Record, Step, TargetsOf, Terms, Unread,
};
use crate::catalog::{Catalog, EntryName, Format, edit};
use crate::guard::{Guard, RollbackTargets, WhileInUse};
use crate::healing;
use crate::holder::{Hold, Holders};
use crate::names;
use crate::retention::{self, Retained, Retention};
use crate::revision::{self, Place, keeps_the_same};
use crate::usage::{Epoch, State, Usage};
use std::collections::{BTreeMap, BTreeSet};

/// The most models of a catalog: every replica remembers the names of all of them, for as long as the ConfigMap is there.
const MOST_MODELS: usize = 10_000;

/// Entries that a change takes away although they are not proven Idle.
struct Loss {
    /// The rule that this breaks if one of them has a holder.
    code: Code,
    /// What the format of the old version is.
    format: Format,
    entries: BTreeSet<EntryName>,
    /// The same with those that are proven Idle: all must be so at once.
    taken: BTreeSet<EntryName>,
    usage: Usage,
}

pub(super) fn needs(change: &CatalogChange<'_>, terms: &Terms) -> Needs {
    let beside = beside(change);
    let mut needs = needs_of_entries(change, terms);
    if beside.is_some() {
        needs.namespaces.insert(change.key.namespace.clone());
    }
    Needs { beside, ..needs }
}

/// What must be known of those who need entries.
fn needs_of_entries(change: &CatalogChange<'_>, terms: &Terms) -> Needs {
    // Our own writes keep the annotation as it is, and are denied nothing that it would grant.
    let asks = !change.caller.own && change.break_glass().grants(terms.now);
    let may_override = asks.then(|| change.key.namespace.clone());
    let rollback_targets = rollback_targets(change, terms.guard);
    let namespaces = [change.key.namespace.clone()].into();
    let Some(loss) = loss(change, &terms.epoch) else {
        let needs = Needs { may_override, rollback_targets, holders: unshared(change), ..Needs::default() };
        return if needs.holders.is_some() { Needs { namespaces, ..needs } } else { needs };
    };
    Needs {
        may_override,
        rollback_targets,
        namespaces,
        holders: Some(HoldersOf {
            catalog: change.key.clone(),
            uid: change.old.as_ref().map(|old| old.object.metadata.uid.to_string()).unwrap_or_default(),
            sharing: change.sharing(),
            format: loss.format,
            entries: loss.entries,
            usage: loss.usage,
        }),
        ..Needs::default()
    }
}

pub(super) fn decide(change: &CatalogChange<'_>, facts: &Facts, terms: &Terms) -> Decision {
    let record = record(change, facts, terms.guard);
    let judged = loss(change, &terms.epoch).map(|loss| judge_loss(change, &loss, facts, terms));
    let judged = judged.or_else(|| unshared(change).map(|_| judge_unsharing(change, facts)));
    let judged = judged.map(|decision| overlook(decision, terms.guard));
    let mut decision = match (judged, invalid_opt_in(change).or_else(|| too_large(change))) {
        // That somebody needs an entry says more than that the new label or content is wrong as well; that the
        // proof is missing says less, for what is wrong is refused however long the client waits.
        (Some(judged), Some(denial)) if !says_in_use(&judged) => denial.into(),
        (Some(judged), _) if !judged.allowed() => judged,
        (_, Some(denial)) => denial.into(),
        (judged, None) => judged.unwrap_or_default(),
    };
    if !change.caller.own {
        decision = break_glass::judge(decision, &change.break_glass(), &change.key.name, facts, terms);
    }
    if decision.allowed() {
        decision = judge_annotations(change, decision);
    }
    if let Some(beside) = beside(change).filter(|_| decision.allowed()) {
        decision = judge_beside(change, &beside, facts, decision);
    }
    if decision.allowed() {
        decision.warnings.extend(message::needed_by_rollbacks(&facts.rollback_targets));
    }
    decision.facts = record;
    decision
}

/// What there is to say of a change that the mutating webhook sees.
pub(super) fn mutated(retention: &Retention, terms: &Terms) -> Decision {
    let Retention { kept, retired, restored, .. } = retention;
    let removed: BTreeSet<_> = kept.union(retired).cloned().collect();
    let step = (!removed.is_empty()).then_some(Step::Remove);
    let added = restored.clone();
    let warnings = (!kept.is_empty()).then(|| message::kept_for_now(kept)).into_iter().collect();
    let facts = Record { enforcement: terms.guard.while_in_use, step, removed, added, ..Record::default() };
    Decision { warnings, facts, ..Decision::default() }
}

// === the rules ===

/// MG104: what comes to be a model ConfigMap must be a catalog that can be read.
fn invalid_opt_in(change: &CatalogChange<'_>) -> Option<Denial> {
    let new = &change.new.as_ref()?.declared;
    let was = change.old.as_ref().map_or(&Declared::Ordinary, |old| &old.declared);
    match new {
        Declared::UnknownFormat(unknown) if was != new => Some(message::unknown_format(change, unknown)),
        Declared::Invalid(format, error) => {
            let comes_to_be = match was {
                Declared::Ordinary | Declared::UnknownFormat(_) => true,
                // A catalog that can no longer be read takes all its entries away: the loss says so.
                Declared::Catalog(was, _) | Declared::Invalid(was, _) | Declared::Unchanged(was) => was != format,
            };
            comes_to_be.then(|| message::catalog_invalid(change, *format, error))
        }
        _ => None,
    }
}

/// MG104: a catalog does not grow beyond what can be remembered of it. What is only retained comes on top, and what is larger
/// already may go on as it is, or shrink.
fn too_large(change: &CatalogChange<'_>) -> Option<Denial> {
    let new = change.new.as_ref().filter(|_| !change.caller.own)?;
    let Declared::Catalog(_, catalog) = &new.declared else { return None };
    let was = match change.old.as_ref().map(|old| &old.declared) {
        Some(Declared::Catalog(_, old)) => old.names().count(),
        _ => 0,
    };
    let asked = catalog.names().count().saturating_sub(Retained::of(&new.object).entries().len());
    (asked > MOST_MODELS && asked > was).then(|| message::too_large(change, asked, MOST_MODELS))
}

/// MG101, MG102, MG104 to MG106: what the change takes away and may not; `None` if there is nothing of the kind.
fn loss(change: &CatalogChange<'_>, epoch: &CurrentEpoch) -> Option<Loss> {
    let old = change.old.as_ref()?;
    let Declared::Catalog(format, catalog) = &old.declared else { return None };
    let all = || catalog.names().cloned().collect();
    let (code, taken): (Code, BTreeSet<EntryName>) = match change.new.as_ref().map(|new| &new.declared) {
        None => (Code::CatalogInUse, all()),
        Some(Declared::Catalog(is, _)) if is == format => taken(change, *format),
        Some(Declared::Invalid(is, _)) if is == format => (Code::CatalogInvalid, all()),
        Some(_) => (Code::CatalogOptOut, all()),
    };
    let usage = Usage::parse(old.annotation(names::USAGE));
    let hold = hold(change);
    let proven = |entry: &EntryName| match &change.proof {
        Proof::Carried => epoch.as_ref().is_ok_and(|epoch| usage.state(entry, epoch) == State::Idle),
        Proof::Standalone(idle) => idle.contains(entry),
    };
    let idle = |entry: &EntryName| proven(entry) && !hold.keeps(entry);
    let entries: BTreeSet<_> = taken.iter().filter(|entry| !idle(entry)).cloned().collect();
    (!entries.is_empty()).then_some(Loss { code, format: *format, entries, taken, usage })
}

/// The entries that nobody will find any more, be it after `change` or once what it leaves for a while is gone, where the
/// user is to be told whose rollback would need them.
fn rollback_targets(change: &CatalogChange<'_>, guard: Guard) -> Option<TargetsOf> {
    if guard.rollback_targets != RollbackTargets::Warn || change.caller.own {
        return None;
    }
    let old = change.old.as_ref()?;
    let format = old.declared.format()?;
    let entries: BTreeSet<_> = match (&old.declared, change.new.as_ref()) {
        (Declared::Catalog(_, catalog), None) => catalog.names().cloned().collect(),
        (Declared::Catalog(_, catalog), Some(new)) if new.declared.format() != Some(format) => {
            catalog.names().cloned().collect()
        }
        (_, new) => {
            let [was, is] = [Some(old), new].map(|it| it.map(|it| Retained::of(&it.object)).unwrap_or_default());
            let deferred = is.entries().difference(was.entries()).cloned();
            deferred.chain(change.diff.removed.iter().cloned()).collect()
        }
    };
    (!entries.is_empty()).then(|| TargetsOf { catalog: change.key.clone(), sharing: change.sharing(), format, entries })
}

/// The entries that a change within one format removes or replaces; a removal is the graver one.
fn taken(change: &CatalogChange<'_>, format: Format) -> (Code, BTreeSet<EntryName>) {
    let mut taken = change.diff.removed.clone();
    let code = if taken.is_empty() { Code::EntryReplaced } else { Code::EntryInUse };
    taken.extend(change.diff.replaced.difference(&gone_back(change, format)).cloned());
    (code, taken)
}

/// The replaced entries that go back to a fingerprint which the prior revision had: a rollback is never MG102.
fn gone_back(change: &CatalogChange<'_>, format: Format) -> BTreeSet<EntryName> {
    let replaced = &change.diff.replaced;
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return BTreeSet::new() };
    if replaced.is_empty() {
        return BTreeSet::new();
    }
    match revision::prior(&old.object).ok().flatten().map(|prior| (prior.place, prior.head.digest)) {
        Some((Place::Here(content), _)) => {
            let prior = Catalog::parse(format, &content).unwrap_or_default();
            let Declared::Catalog(_, new) = &new.declared else { return BTreeSet::new() };
            replaced.iter().filter(|entry| new.agrees(&prior, entry)).cloned().collect()
        }
        // All of it goes back, or nobody can tell.
        Some((Place::Beside(_), digest)) if digest == revision::asked(new).1 => replaced.clone(),
        Some((Place::Beside(_), _)) | None => BTreeSet::new(),
    }
}

/// Denies a loss, unless the whole namespace goes.
fn judge_loss(change: &CatalogChange<'_>, loss: &Loss, facts: &Facts, terms: &Terms) -> Decision {
    match facts.terminating.get(&change.key.namespace) {
        // Denying here would wedge the namespace, and its pods go first anyway.
        Some(Ok(true)) => return Decision::default(),
        Some(Ok(false)) => {}
        Some(Err(unread)) => return message::unverified(&subject(change), unread).into(),
        None => return message::unverified(&subject(change), &Unread::new("its namespace", "was not read")).into(),
    }
    if let (Code::CatalogInvalid, Some(Declared::Invalid(format, error))) =
        (loss.code, change.new.as_ref().map(|new| &new.declared))
    {
        return message::catalog_invalid(change, *format, error).into();
    }
    let holders = match &facts.holders {
        Some(Ok(holders)) => holders,
        Some(Err(unread)) => return message::unverified(&subject(change), unread).into(),
        None => return message::unverified(&subject(change), &Unread::new("its holders", "are not known")).into(),
    };
    let held: BTreeMap<_, _> = holders.iter().filter(|(_, holders)| !holders.is_empty()).collect();
    if !held.is_empty() {
        let code = code_for(change, loss.code, &held);
        let patience = patience(change, loss, &held, facts, terms);
        return message::in_use(change, code, &held, &patience).into();
    }
    match &terms.epoch {
        Ok(epoch) => settling(change, loss, facts, (epoch, terms.guard)),
        Err(unread) => message::unverified(&subject(change), unread).into(),
    }
}

/// MG101: the namespaces that a change no longer shares the catalog with, and what they may hold of it.
///
/// Who holds is judged by the index alone: there is nothing in the ConfigMap that could prove it, and whoever takes
/// the sharing back means these namespaces to go without the guarantee.
fn unshared(change: &CatalogChange<'_>) -> Option<HoldersOf> {
    let (old, new) = (change.old.as_ref()?, change.new.as_ref()?);
    let format = old.declared.format().filter(|format| new.declared.format() == Some(*format))?;
    let [was, is] = [old, new].map(|version| version.annotation(names::SHARED_WITH));
    let sharing = (was != is).then(|| change.sharing().lost(&new.sharing(&change.key))).flatten()?;
    Some(HoldersOf {
        catalog: change.key.clone(),
        uid: old.object.metadata.uid.to_string(),
        sharing,
        format,
        entries: Catalog::parse(format, &old.object.content).ok()?.names().cloned().collect(),
        usage: Usage::default(),
    })
}

fn judge_unsharing(change: &CatalogChange<'_>, facts: &Facts) -> Decision {
    if matches!(facts.terminating.get(&change.key.namespace), Some(Ok(true))) {
        return Decision::default();
    }
    let holders = match &facts.holders {
        Some(Ok(holders)) => holders,
        Some(Err(unread)) => return message::unverified(&subject(change), unread).into(),
        None => return message::unverified(&subject(change), &Unread::new("its holders", "are not known")).into(),
    };
    let held: BTreeMap<_, _> = holders.iter().filter(|(_, holders)| !holders.is_empty()).collect();
    match held.is_empty() {
        true => Decision::default(),
        false => message::still_shared(change, &held).into(),
    }
}

/// What the guard does for the change.
fn patience(
    change: &CatalogChange<'_>,
    loss: &Loss,
    held: &BTreeMap<&EntryName, &Holders>,
    facts: &Facts,
    terms: &Terms,
) -> Patience {
    match terms.guard.while_in_use {
        WhileInUse::Wait if waiting_helps(change, loss, held, facts) => Patience::Waits,
        // By break-glass nothing is deferred.
        WhileInUse::Defer if change.break_glass().grants(terms.now) => Patience::None,
        WhileInUse::Defer => Patience::Undeferrable(undeferrable(change, loss)),
        WhileInUse::Deny | WhileInUse::Wait | WhileInUse::Warn | WhileInUse::Audit => Patience::None,
    }
}

/// Why what `change` takes away could not be kept in it.
fn undeferrable(change: &CatalogChange<'_>, loss: &Loss) -> String {
    let (Some(old), Some(new), Code::EntryInUse) = (&change.old, &change.new, loss.code) else {
        return match loss.code {
            Code::CatalogInUse => "a deletion leaves nothing to keep it in",
            Code::CatalogOptOut => "what is no such catalog any more cannot keep it",
            _ => "one version cannot have two contents",
        }
        .to_owned();
    };
    if new.object.content.immutable == Some(true) {
        return "the same change makes the ConfigMap immutable, so that nothing could be removed from it later"
            .to_owned();
    }
    let removed = loss.entries.intersection(&change.diff.removed).cloned().collect();
    match edit::keep(loss.format, &old.object.content, &new.object.content, &removed) {
        _ if removed.is_empty() => "one version cannot have two contents".to_owned(),
        Err(error) => error.to_string(),
        Ok(_) => "the mutating webhook, which would have kept it, was not asked".to_owned(),
    }
}

/// Whether the client should hold the change and ask again: nothing but pods of older templates holds the entries, and
/// a proof will follow when those are gone.
fn waiting_helps(
    change: &CatalogChange<'_>,
    loss: &Loss,
    held: &BTreeMap<&EntryName, &Holders>,
    facts: &Facts,
) -> bool {
    let hold = hold(change);
    change.caller.waits()
        && matches!(facts.prospect, Some(Prospect::Moving(_)))
        && held.values().all(|holders| holders.will_go())
        && !loss.entries.iter().any(|entry| hold.keeps(entry))
}

/// A guard that only warns, or records, lets pass what nothing but the use of an entry forbids. A catalog that can no
/// longer be read is wrong whoever uses it.
pub(super) fn overlook(decision: Decision, guard: Guard) -> Decision {
    let warns = match guard.while_in_use {
        WhileInUse::Deny | WhileInUse::Wait | WhileInUse::Defer => return decision,
        WhileInUse::Warn => true,
        WhileInUse::Audit => false,
    };
    match decision.denial {
        Some(denial) if denial.code != Code::CatalogInvalid => Decision {
            warnings: warns.then(|| message::overlooked(&denial)).into_iter().collect(),
            overlooked: Some(denial),
            ..Decision::default()
        },
        denial => Decision { denial, ..decision },
    }
}

/// MG102 rather than MG101 where only replaced entries are held.
fn code_for(change: &CatalogChange<'_>, code: Code, held: &BTreeMap<&EntryName, &Holders>) -> Code {
    let replaced_only = held.keys().all(|entry| change.diff.replaced.contains(*entry));
    if code == Code::EntryInUse && replaced_only { Code::EntryReplaced } else { code }
}

/// MG103: nobody holds what is taken away, and the proof of it is not complete.
fn settling(change: &CatalogChange<'_>, loss: &Loss, facts: &Facts, (epoch, guard): (&Epoch, Guard)) -> Decision {
    let stuck = || Prospect::Stuck("it is not known whether the controller runs".to_owned());
    let hold = hold(change);
    if let Some(kept) = loss.entries.iter().find(|entry| hold.keeps(entry)) {
        return message::kept(change, loss.code, kept).into();
    }
    let room = loss.usage.room_for(&loss.taken, epoch);
    if room < loss.taken.len() {
        return message::settling::too_many(change, &loss.taken, room).into();
    }
    let prospect = facts.prospect.clone().unwrap_or_else(stuck);
    let settle = if change.caller.dry_run { BTreeSet::new() } else { loss.taken.clone() };
    Decision { settle, ..Decision::from(message::settling::settling(change, &loss.entries, &prospect, guard)) }
}

/// MG107, MG501: a change that did not pass the mutating webhook lacks what must be kept for a rollback, or
/// brings a proof that nobody made, which would go on to count. Any other stays `allowed`.
fn judge_annotations(change: &CatalogChange<'_>, mut allowed: Decision) -> Decision {
    let is_ours = || retention::is_retirement(change) || healing::is_restoration(change);
    if change.caller.own && change.changes_content() && !is_ours() {
        return message::own_data(change).into();
    }
    let owned = revision::owned(change, &Retention::after(change));
    let annotations = change.new.as_ref().map(|new| &new.object.metadata.annotations);
    let is_missed = |(name, value): &(&'static str, Option<String>)| {
        let sent = annotations.and_then(|annotations| annotations.get(name));
        let is_kept = |(sent, value): (&str, &String)| *name == names::PRIOR_REVISION && keeps_the_same(sent, value);
        !sent.zip(value.as_ref()).is_some_and(is_kept)
    };
    match annotations.and_then(|annotations| owned.changes(annotations).into_iter().find(is_missed)) {
        None => {
            allowed.warnings.extend(warnings(change));
            allowed
        }
        Some((name @ (names::REVISION | names::PRIOR_REVISION), _)) => message::revision_not_kept(change, name).into(),
        Some((name, _)) => message::forged(change, name).into(),
    }
}

/// MG107: the content of the revision before this one, which the annotation only names, is not there.
fn judge_beside(change: &CatalogChange<'_>, beside: &Beside, facts: &Facts, allowed: Decision) -> Decision {
    match &facts.beside {
        Some(Ok(true)) => allowed,
        Some(Ok(false)) if matches!(facts.terminating.get(&change.key.namespace), Some(Ok(true))) => allowed,
        Some(Ok(false)) => {
            message::revision_refused(change, &format!("there is no ControllerRevision {}", beside.name)).into()
        }
        Some(Err(unread)) => message::unverified(&subject(change), unread).into(),
        None => message::unverified(&subject(change), &Unread::new("what is kept beside it", "was not read")).into(),
    }
}

/// What `change` says is kept beside the ConfigMap, though nothing that is stored already says so.
fn beside(change: &CatalogChange<'_>) -> Option<Beside> {
    // A rehearsal keeps nothing.
    let new = change.new.as_ref().filter(|_| !change.caller.dry_run && !change.caller.own)?;
    let said = new.annotation(names::PRIOR_REVISION)?;
    let stored = change.old.as_ref()?.annotation(names::PRIOR_REVISION);
    // Most writes change nothing of it: reading it would hash what it keeps.
    let name = Some(said).filter(|_| stored != Some(said)).and_then(revision::beside)?;
    Some(Beside { namespace: change.key.namespace.clone(), name: name.into_owned() })
}

/// What is allowed and yet worth saying.
fn warnings(change: &CatalogChange<'_>) -> Vec<String> {
    let unreadable = |declared: &Declared| match declared {
        Declared::Invalid(_, error) => Some(error.to_string()),
        Declared::UnknownFormat(unknown) => Some(unknown.to_string()),
        Declared::Catalog(..) | Declared::Ordinary | Declared::Unchanged(_) => None,
    };
    let old = change.old.as_ref().and_then(|old| unreadable(&old.declared));
    let new = change.new.as_ref().and_then(|new| unreadable(&new.declared));
    let name = &change.key.name;
    let unguarded = match (old, new) {
        (_, Some(error)) => Some(format!("modelguard cannot guard {name}: {error}")),
        (Some(error), None) => Some(format!("modelguard could not read {name} before this change: {error}")),
        (None, None) => None,
    };
    let format = change.old.as_ref().and_then(|old| old.declared.format());
    let back = format.map(|format| gone_back(change, format)).filter(|back| !back.is_empty());
    unguarded.into_iter().chain(back.map(|back| message::rollback::content_goes_back(&back))).collect()
}

// === helpers ===

/// Whether somebody is known to need what would be taken away.
fn says_in_use(decision: &Decision) -> bool {
    let code = decision.denial.as_ref().map(|denial| denial.code);
    matches!(code, Some(Code::EntryInUse | Code::EntryReplaced | Code::CatalogOptOut | Code::CatalogInUse))
}

fn record(change: &CatalogChange<'_>, facts: &Facts, guard: Guard) -> Record {
    let step = if !change.diff.removed.is_empty() || !change.diff.replaced.is_empty() || change.new.is_none() {
        Some(Step::Remove)
    } else {
        (!change.diff.added.is_empty()).then_some(Step::Add)
    };
    let holders = facts.holders.as_ref().and_then(|holders| holders.as_ref().ok());
    Record {
        enforcement: guard.while_in_use,
        step,
        removed: change.diff.removed.clone(),
        replaced: change.diff.replaced.clone(),
        added: change.diff.added.clone(),
        holders: holders.into_iter().flat_map(BTreeMap::values).fold(Holders::default(), Holders::merge),
    }
}

/// What people keep, by the old object: as with the proof, that is the one that is compared.
fn hold(change: &CatalogChange<'_>) -> Hold {
    Hold::parse(change.old.as_ref().and_then(|old| old.annotation(names::HOLD)))
}

fn subject(change: &CatalogChange<'_>) -> String {
    change.key.name.to_string()
}
