//! Rollbacks: what `modelguard.dev/rollback-to` asks for. MG108.
//!
//! The mutating webhook restores the revision in the very write that asks for it, and what comes of it is judged like
//! any other change: nobody goes back by taking away what is in use. A request that cannot be fulfilled is denied
//! here already, for what would be left of it is a write that does nothing.

use super::message::rollback as message;
use super::{CatalogChange, Declared, Denial, Terms, Unread, Version, unverified};
use crate::names;
use crate::object::Content;
use crate::retention::{Retained, Retention};
use crate::revision::restore::{Found, Restored, Seek, Target, restore};
use crate::revision::{self, Place, Prior, Revision};

/// What a rollback comes to.
pub(super) struct Back {
    /// What is stored.
    pub(super) content: Content<'static>,
    /// What becomes of entries.
    pub(super) retention: Retention,
    /// What there is to say of it.
    pub(super) said: String,
}

/// What must be looked for beside the ConfigMap before `change` can be mutated; nothing where it asks for no rollback, for
/// one that cannot be, or for what the ConfigMap carries itself.
pub fn seek(change: &CatalogChange<'_>) -> Option<Seek> {
    let (old, target) = asked(change)?.ok()?;
    match wanted(old, target) {
        Wanted::Here(_) => None,
        Wanted::Beside(number) => {
            Some(Seek { config_map: change.key.clone(), uid: old.object.metadata.uid.to_string(), number })
        }
    }
}

/// What the rollback that `change` asks for comes to; nothing where it asks for none.
pub(super) fn roll_back(
    change: &CatalogChange<'_>,
    found: Option<Result<Found, Unread>>,
    terms: &Terms,
) -> Option<Result<Back, Denial>> {
    let asked = asked(change)?;
    Some(asked.and_then(|(old, target)| {
        let revision = fetched(change, old, target, found)?;
        let restored = restore(old, &revision.content, terms);
        let restored = restored.map_err(|error| message::cannot(change, revision.head.number, &error))?;
        // Whatever the revision lists is asked for again.
        let wanted = Retained::of(&old.object).entries().difference(&restored.kept).cloned().collect();
        let Restored { content, kept } = restored;
        let said = message::goes_back(&change.key, &revision.head);
        Ok(Back { content, retention: Retention { kept, wanted, ..Retention::default() }, said })
    }))
}

/// What there is to say of a request that is stored, for nobody was asked when it was made: it is over.
pub(super) fn unanswered(change: &CatalogChange<'_>) -> Option<String> {
    let stored = change.old.as_ref().filter(|_| !change.caller.own)?.annotation(names::ROLLBACK_TO)?;
    let is_sent_again = change.new.as_ref()?.annotation(names::ROLLBACK_TO) == Some(stored);
    is_sent_again.then(|| message::unanswered(stored))
}

/// Where the content of the revision that is wanted is.
enum Wanted<'o> {
    Here(Revision<'o>),
    Beside(u64),
}

/// The old version and the revision that is asked for, or why that is no request that could be fulfilled.
fn asked<'c, 'a>(change: &'c CatalogChange<'a>) -> Option<Result<(&'c Version<'a>, Target), Denial>> {
    let new = change.new.as_ref().filter(|_| !change.caller.own)?;
    let text = change.asks(names::ROLLBACK_TO)?;
    if new.declared == Declared::Ordinary {
        return None;
    }
    let Some(old) = change.old.as_ref().filter(|old| old.declared != Declared::Ordinary) else {
        return Some(Err(message::no_revisions(&change.key)));
    };
    if !change.keeps_content() || old.declared.format() != new.declared.format() {
        return Some(Err(message::changes_besides(&change.key)));
    }
    let current = revision::number(&old.object);
    Some(match text.parse() {
        Ok(Target::Number(number)) if number == current => Err(message::is_current(&change.key, number)),
        Ok(Target::Prior) if current <= 1 => Err(message::unknown(&change.key, None, current, &[], None)),
        Ok(target) => Ok((old, target)),
        Err(error) => Err(message::no_target(&change.key, text, &error)),
    })
}

/// Where the content of `target` is. A prior revision that is damaged may still be kept beside the ConfigMap.
fn wanted<'o>(old: &'o Version<'_>, target: Target) -> Wanted<'o> {
    let prior = revision::prior(&old.object);
    let number = match target {
        Target::Number(number) => number,
        Target::Prior => match &prior {
            Ok(Some(prior)) => prior.head.number,
            Ok(None) | Err(_) => revision::number(&old.object).saturating_sub(1),
        },
    };
    match prior {
        Ok(Some(Prior { head, place: Place::Here(content) })) if head.number == number => {
            Wanted::Here(Revision { head, content })
        }
        _ => Wanted::Beside(number),
    }
}

/// The revision, from wherever it is.
fn fetched(
    change: &CatalogChange<'_>,
    old: &Version<'_>,
    target: Target,
    found: Option<Result<Found, Unread>>,
) -> Result<Revision<'static>, Denial> {
    let key = &change.key;
    let number = match wanted(old, target) {
        Wanted::Here(revision) => return Ok(revision.into_owned()),
        Wanted::Beside(number) => number,
    };
    match found.unwrap_or_else(|| Err(Unread::new("its revisions", "were not read"))) {
        Ok(Found::Revision(revision)) => Ok(*revision),
        Ok(Found::Damaged(name, why)) => Err(message::damaged(key, number, &name, &why)),
        Err(unread) => Err(unverified(&key.name, &unread)),
        Ok(Found::Unknown(mut kept)) => {
            let (prior, damage) = match revision::prior(&old.object) {
                Ok(prior) => (prior, None),
                Err(damage) => (None, Some(damage.to_string())),
            };
            kept.extend(prior.filter(|prior| matches!(prior.place, Place::Here(_))).map(|prior| prior.head.number));
            let current = revision::number(&old.object);
            kept.retain(|number| *number != current);
            kept.sort_unstable();
            kept.dedup();
            Err(message::unknown(key, Some(number), current, &kept, damage.as_deref()))
        }
    }
}
