//! What people find beside an object, with `kubectl describe` and `kubectl events`: mostly a model ConfigMap.
//!
//! ```text
//! Decision, a denial ─────────▶ RemovalRefused  Warning, in the denial's words ─┐
//! Decision, by break-glass ───▶ RulesOverridden Warning: who, why, and what ─────┤
//! a finding of the audit ──────▶ its own name    Warning, of holders, too ───────┤
//! entries that were put back ─▶ EntryRestored   Normal ──────────────────────────┤
//! entries that became Idle ───▶ EntryRemovable  Normal ─────────────────────────┴─▶ World::announce
//! ```
//! Equal events are one event that happened again. Nothing rests on any of them: each may get lost.

use crate::audit::{Finding, Kind, Object};
use crate::catalog::EntryName;
use crate::policy::{self, Code, Decision, Denial, Grant, Step};
use crate::reference::CatalogKey;

/// The longest note, in bytes: what the API server takes.
const LONGEST: usize = 1024;

/// The most entries that are spelled out.
const ENTRIES: usize = 10;

/// Something that happened to an object.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Event {
    /// Which one.
    pub object: Object,
    /// Its UID: a namesake has events of its own. Nothing where whoever is called so is meant.
    pub uid: Option<Box<str>>,
    /// What happened.
    pub news: News,
    /// The same in words, plain text of at most 1024 bytes.
    pub note: Box<str>,
}

/// What can happen to an object.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum News {
    /// Entries of it became Idle.
    Removable,
    /// Entries that holders lacked were put back.
    Restored,
    /// A change that takes entries away was denied.
    Refused,
    /// A change passed by break-glass.
    Overridden,
    /// The audit found something.
    Found(Kind),
}

// === impl News ===

impl News {
    /// What programs know it by.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Removable => "EntryRemovable",
            Self::Restored => "EntryRestored",
            Self::Refused => "RemovalRefused",
            Self::Overridden => "RulesOverridden",
            Self::Found(kind) => kind.name(),
        }
    }

    /// What was done, or tried, when it happened.
    pub fn action(self) -> &'static str {
        match self {
            Self::Removable => "Prove",
            Self::Restored => "Restore",
            Self::Refused => "Remove",
            Self::Overridden => "Override",
            Self::Found(_) => "Audit",
        }
    }

    /// Whether somebody should look.
    pub fn is_warning(self) -> bool {
        !matches!(self, Self::Removable | Self::Restored)
    }
}

// === impl Event ===

impl Event {
    /// These entries, at least one, became Idle.
    pub fn removable<'e>(
        catalog: &CatalogKey,
        uid: &str,
        entries: impl ExactSizeIterator<Item = &'e EntryName>,
    ) -> Self {
        let noun = if entries.len() == 1 { "entry" } else { "entries" };
        let it = if entries.len() == 1 { "it" } else { "them" };
        let names = policy::list(entries, ENTRIES);
        let note = format!("{noun} {names} may be removed now: no pod and no pod template uses {it}");
        let object = Object::config_map(catalog);
        Self { object, uid: Some(uid.into()), news: News::Removable, note: clip(note) }
    }

    /// These entries, at least one, were put back.
    pub fn restored<'e>(
        catalog: &CatalogKey,
        uid: &str,
        entries: impl ExactSizeIterator<Item = &'e EntryName>,
    ) -> Self {
        let (noun, was, it) = if entries.len() == 1 { ("entry", "was", "it") } else { ("entries", "were", "them") };
        let names = policy::list(entries, ENTRIES);
        let note = format!(
            "{noun} {names} {was} gone although workloads need {it}: put back from the prior revision, until nobody needs {it}"
        );
        let object = Object::config_map(catalog);
        Self { object, uid: Some(uid.into()), news: News::Restored, note: clip(note) }
    }

    /// The audit found this: told of the object itself, and of the ConfigMap that it is about, if it is known.
    pub fn found(finding: &Finding, uid: Option<&str>) -> impl Iterator<Item = Self> {
        let Finding { kind, object, catalog, message, .. } = finding;
        let news = News::Found(*kind);
        let own = Self { object: object.clone(), uid: None, news, note: clip(message.to_string()) };
        let catalog = catalog.as_ref().map(Object::config_map).filter(|catalog| catalog != object);
        let of_catalog = catalog.zip(uid).map(|(catalog, uid)| Self {
            object: catalog,
            uid: Some(uid.into()),
            news,
            note: clip(format!("{object} {message}")),
        });
        std::iter::once(own).chain(of_catalog)
    }

    /// Whether that is what happened: what it is about is not there.
    pub fn is_of_what_is_missing(&self) -> bool {
        self.news == News::Found(Kind::WebhooksMissing)
    }

    /// A change of the ConfigMap that `user` asked for was judged; `None` unless it was refused for what it takes away, or
    /// passed by break-glass.
    pub fn judged(catalog: &CatalogKey, uid: &str, user: &str, decision: &Decision) -> Option<Self> {
        let object = Object::config_map(catalog);
        match &decision.denial {
            Some(denial) if refuses(denial, decision.facts.step) => {
                Some(Self { object, uid: Some(uid.into()), news: News::Refused, note: clip(denial.message.clone()) })
            }
            _ => Self::overridden(object, uid, user, decision),
        }
    }

    /// A change of any object that `user` asked for was judged; `None` unless it passed by break-glass.
    pub fn overridden(object: Object, uid: &str, user: &str, decision: &Decision) -> Option<Self> {
        let (Some(Grant { until, reason }), Some(denial)) = (&decision.granted, &decision.overlooked) else {
            return None;
        };
        let what = denial.message.lines().next().unwrap_or_default();
        let note = clip(format!("{user} passed by break-glass until {until} ({reason}): {what}"));
        Some(Self { object, uid: Some(uid.into()), news: News::Overridden, note })
    }
}

/// Whether a denial is the end of a removal.
///
/// MG103 is not, as long as waiting helps: clients wait by themselves, and then the entry is removable. MG104 and MG107
/// are mistakes in the change itself, which its author reads.
fn refuses(denial: &Denial, step: Option<Step>) -> bool {
    match denial.code {
        Code::EntryInUse | Code::EntryReplaced | Code::CatalogOptOut | Code::CatalogInUse => true,
        Code::EntrySettling => denial.status == Code::NotVerified.status(),
        Code::NotVerified | Code::OverrideDenied => step == Some(Step::Remove),
        Code::CatalogInvalid
        | Code::RevisionNotKept
        | Code::RevisionUnknown
        | Code::UnknownEntry
        | Code::UnknownCatalog
        | Code::NamespaceInUse
        | Code::NamespaceOptOut
        | Code::NotServed
        | Code::ReferenceInvalid
        | Code::LastServer => false,
    }
}

/// As much of it as the API server takes, with a mark where something is missing.
fn clip(note: String) -> Box<str> {
    const MARK: &str = "…";
    if note.len() <= LONGEST {
        return note.into();
    }
    let fits = |(at, character): &(usize, char)| at + character.len_utf8() <= LONGEST - MARK.len();
    note.char_indices().take_while(fits).map(|(_, character)| character).chain(MARK.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Record;
    use std::time::Duration;

    fn models() -> CatalogKey {
        CatalogKey::new("prod", "extraction-models")
    }

    fn denied(code: Code, status: u16, step: Option<Step>, retry_after: Option<Duration>) -> Decision {
        let message = format!("[{code}] extraction-models: no");
        let denial = Denial { code, status, message, causes: Vec::new(), retry_after };
        Decision { denial: Some(denial), facts: Record { step, ..Record::default() }, ..Decision::default() }
    }

    #[test]
    fn a_refused_removal_is_told_in_the_words_of_its_denial() {
        let wait = Some(Duration::from_secs(9));
        let remove = Some(Step::Remove);
        for (code, status, step, retry_after, told) in [
            (Code::EntryInUse, 403, remove, None, true),
            (Code::EntryReplaced, 403, remove, None, true),
            (Code::CatalogOptOut, 403, None, None, true),
            (Code::CatalogInUse, 403, remove, None, true),
            // The proof is under way, for those who wait and for those who do not.
            (Code::EntrySettling, 429, remove, wait, false),
            (Code::EntrySettling, 403, remove, None, false),
            // Nothing moves.
            (Code::EntrySettling, 503, remove, None, true),
            (Code::NotVerified, 503, remove, wait, true),
            (Code::OverrideDenied, 403, remove, None, true),
            (Code::NotVerified, 503, Some(Step::Add), wait, false),
            // Turned away, or out of time.
            (Code::NotVerified, 503, None, wait, false),
            (Code::CatalogInvalid, 422, remove, None, false),
            (Code::RevisionNotKept, 403, remove, None, false),
        ] {
            let event = Event::judged(&models(), "9b1d", "jane", &denied(code, status, step, retry_after));
            let note = format!("[{code}] extraction-models: no");
            let object = Object::config_map(&models());
            let expected = Event { object, uid: Some("9b1d".into()), news: News::Refused, note: note.into() };
            assert_eq!(event, told.then_some(expected), "{code} {status} {step:?}");
        }
        assert_eq!(Event::judged(&models(), "9b1d", "jane", &Decision::default()), None, "what is allowed");
    }

    #[test]
    fn who_passed_by_break_glass_is_told_with_the_reason() {
        let denial = denied(Code::EntryInUse, 403, None, None).denial;
        let grant = Grant { until: jiff::Timestamp::UNIX_EPOCH, reason: "INC-1".to_owned() };
        let passed = Decision { overlooked: denial, granted: Some(grant), ..Decision::default() };
        let event = Event::judged(&models(), "9b1d", "jane", &passed).unwrap();
        let note = "jane passed by break-glass until 1970-01-01T00:00:00Z (INC-1): [MG101] extraction-models: no";
        assert_eq!((event.news, &*event.note), (News::Overridden, note));
    }

    #[test]
    fn a_finding_is_told_of_the_holder_and_of_the_config_map() {
        let object = Object { kind: "Deployment".into(), namespace: "prod".into(), name: "api".into() };
        let catalog = Some(models());
        let finding = Finding { kind: Kind::EntryMissing, object, catalog, entry: None, message: "needs v1".into() };
        let told = |finding: &Finding, uid: Option<&str>| {
            let told = |event: Event| (event.object.to_string(), event.uid.map(String::from), String::from(event.note));
            Event::found(finding, uid).map(told).collect::<Vec<_>>()
        };
        let own = ("Deployment prod/api".to_owned(), None, "needs v1".to_owned());
        let other = "ConfigMap prod/extraction-models".to_owned();
        let note = "Deployment prod/api needs v1".to_owned();
        assert_eq!(told(&finding, Some("9b1d")), [own.clone(), (other.clone(), Some("9b1d".to_owned()), note)]);
        assert_eq!(told(&finding, None), [own], "that ConfigMap is gone");
        let invalid = Finding { object: Object::config_map(&models()), kind: Kind::CatalogInvalid, ..finding };
        assert_eq!(told(&invalid, Some("9b1d")), [(other, None, "needs v1".to_owned())], "once is enough");
    }

    #[test]
    fn what_may_be_removed_is_named() {
        let names: Vec<_> = (1..=12).map(|number| EntryName::new(&format!("x@v{number}")).unwrap()).collect();
        let note = |count| Event::removable(&models(), "9b1d", names[..count].iter()).note;
        assert_eq!(&*note(1), "entry x@v1 may be removed now: no pod and no pod template uses it");
        assert_eq!(&*note(2), "entries x@v1, x@v2 may be removed now: no pod and no pod template uses them");
        assert!(note(12).contains("x@v9, x@v10 and 2 more may be"), "{}", note(12));
    }

    #[test]
    fn what_was_put_back_is_named() {
        let name = EntryName::new("x@v1").unwrap();
        let event = Event::restored(&models(), "9b1d", std::iter::once(&name));
        let note =
            "entry x@v1 was gone although workloads need it: put back from the prior revision, until nobody needs it";
        assert_eq!((&*event.note, event.news.is_warning()), (note, false));
    }

    #[test]
    fn a_note_is_as_long_as_the_api_server_takes() {
        assert_eq!(clip("x".repeat(1024)).len(), 1024);
        for text in ["x", "ä", "日", "🦀"] {
            let cut = clip(text.repeat(1025));
            assert!((1021..=1024).contains(&cut.len()), "{} bytes of {text}", cut.len());
            assert!(cut.ends_with('…'));
        }
    }
}
