//! The history of one model ConfigMap: every revision that can be gone back to, and where it is kept.
//!
//! ```text
//! ConfigMap ─┬─ what it stores now ──────────▶ Place::Current
//!            └─ annotation prior-revision ───▶ Place::Annotation ─┐
//! ControllerRevisions of ours ───────────────▶ Place::Beside ─────┴─▶ History, by number
//! ```
//! Of a revision that is in both places the annotation counts. A ConfigMap that is gone has the history of the last one
//! of its name. What is damaged is listed, with the reason, and never restored from.

use crate::catalog::{Catalog, Diff, Digest, Format};
use crate::names;
use crate::object::Content;
use crate::policy::Version;
use crate::reference::CatalogKey;
use crate::revision::{self, DecodeError, Kept, Place as PriorPlace, Revision, Written};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A ControllerRevision of ours, as it is found.
#[derive(Debug)]
pub struct Shelved {
    /// Its name.
    pub name: String,
    /// The revisions that it says it is of.
    pub written: Vec<Written>,
    /// What it keeps.
    pub kept: Result<Kept<'static>, DecodeError>,
}

/// Where a revision is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// It is what the ConfigMap stores.
    Current,
    /// In the annotation of the ConfigMap.
    Annotation,
    /// In the ControllerRevision of this name.
    Beside(String),
}

/// One revision.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its number.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub time: Option<String>,
    /// Who wrote it.
    pub manager: Option<String>,
    /// The value of the catalog label, then or now.
    pub catalog: String,
    /// What was asked for, with its digest; or why that cannot be known.
    pub content: Result<(Digest, Content<'static>), String>,
    /// Where it is.
    pub place: Place,
}

/// The revisions of one ConfigMap.
#[derive(Clone, Debug)]
pub struct History {
    /// Whose.
    pub config_map: CatalogKey,
    /// Its UID.
    pub uid: String,
    /// By number, the oldest first.
    pub revisions: Vec<Past>,
}

// === impl Place ===

impl Place {
    /// In words, for a table: `current`, `annotation`, or the name of a ControllerRevision.
    pub fn name(&self) -> &str {
        match self {
            Self::Current => "current",
            Self::Annotation => "annotation",
            Self::Beside(name) => name,
        }
    }
}

// === impl Past ===

impl Past {
    /// The catalog that it was; `None` if it cannot be read as one.
    pub fn catalog(&self) -> Option<Catalog> {
        let (_, content) = self.content.as_ref().ok()?;
        Catalog::parse(self.format()?, content).ok()
    }

    /// Its format, where the label names one.
    pub fn format(&self) -> Option<Format> {
        self.catalog.parse().ok()
    }

    fn of(revision: &Revision<'_>, catalog: &str, place: Place) -> Self {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            number: revision.head.number,
            time: text(&revision.head.time),
            manager: text(&revision.head.manager),
            catalog: catalog.to_owned(),
            content: Ok((revision.head.digest, revision.content.clone().into_owned().into_owned())),
            place,
        }
    }

    fn shelved(shelved: &Shelved, written: &Written) -> Self {
        let own = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let kept = shelved.kept.as_ref();
        Self {
            number: written.revision,
            time: own(&written.time),
            manager: own(&written.manager),
            catalog: kept.map(|kept| kept.catalog.to_string()).unwrap_or_default(),
            content: match kept {
                Ok(kept) => Ok((kept.digest, kept.content.clone().into_owned())),
                Err(error) => Err(error.to_string()),
            },
            place: Place::Beside(shelved.name.clone()),
        }
    }
}

// === impl History ===

impl History {
    /// The history of `config_map`, whose current `version` there is, or of the last one of its name; `None` where there
    /// never was one.
    pub fn of(config_map: CatalogKey, version: Option<&Version<'_>>, shelf: &[Shelved]) -> Option<Self> {
        let uid = match version {
            Some(version) => version.object.metadata.uid.to_string(),
            None => last(shelf)?.uid.to_string(),
        };
        let mut revisions = BTreeMap::new();
        for shelved in shelf {
            for written in shelved.written.iter().filter(|it| *it.uid == *uid) {
                revisions.insert(written.revision, Past::shelved(shelved, written));
            }
        }
        if let Some(version) = version {
            let catalog = version.object.metadata.labels.get(names::CATALOG_LABEL).unwrap_or_default();
            if let Some(prior) = annotated(version, catalog, &revisions) {
                revisions.insert(prior.number, prior);
            }
            let current = Past::of(&Revision::of(version), catalog, Place::Current);
            revisions.insert(current.number, current);
        }
        Some(Self { config_map, uid, revisions: revisions.into_values().collect() })
    }

    /// The revision of that number.
    pub fn get(&self, number: u64) -> Option<&Past> {
        self.revisions.iter().find(|past| past.number == number)
    }

    /// The current one; `None` where the ConfigMap is gone.
    pub fn current(&self) -> Option<&Past> {
        self.revisions.iter().find(|past| past.place == Place::Current)
    }

    /// The numbers of those before the current one, the oldest first.
    pub fn earlier(&self) -> impl DoubleEndedIterator<Item = &Past> {
        self.revisions.iter().filter(|past| past.place != Place::Current)
    }

    /// What each revision did to the entries of the one before it, as far as both are catalogs.
    pub fn changes(&self) -> Vec<Option<Diff>> {
        let catalogs: Vec<_> = self.revisions.iter().map(Past::catalog).collect();
        let before = std::iter::once(None).chain(catalogs.iter().map(Option::as_ref));
        before.zip(&catalogs).map(|(was, is)| Some(was?.diff(is.as_ref()?))).collect()
    }
}

/// What the annotation of `version` keeps, if it keeps a content; one that is damaged is listed where nothing else is kept of
/// that revision.
fn annotated(version: &Version<'_>, catalog: &str, beside: &BTreeMap<u64, Past>) -> Option<Past> {
    match revision::prior(&version.object) {
        Ok(Some(revision::Prior { head, place: PriorPlace::Here(content) })) => {
            // The label then is known only beside it.
            let then = beside.get(&head.number).map_or(catalog, |past| &past.catalog);
            Some(Past::of(&Revision { head, content }, then, Place::Annotation))
        }
        Ok(_) => None,
        Err(damage) => {
            let number = revision::number(&version.object).saturating_sub(1);
            let content = Err(damage.to_string());
            let (time, manager, catalog) = (None, None, catalog.to_owned());
            let past = Past { number, time, manager, catalog, content, place: Place::Annotation };
            (!beside.contains_key(&number)).then_some(past)
        }
    }
}

/// What was written last of all that is kept.
fn last(shelf: &[Shelved]) -> Option<&Written> {
    shelf.iter().flat_map(|shelved| &shelved.written).max_by(|a, b| (&a.time, a.revision).cmp(&(&b.time, b.revision)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ConfigMap;
    use serde_json::json;

    fn shelved(uid: &str, number: u64, time: &str, value: &str) -> Shelved {
        let content =
            Content { data: [("v1".to_owned(), value.to_owned())].into_iter().collect(), ..Content::default() };
        let digest = revision::digest(&content);
        let written =
            vec![Written { uid: uid.into(), revision: number, time: Some(time.into()), manager: Some("helm".into()) }];
        let config_map = CatalogKey::new("prod", "models");
        let content = Cow::Owned(content);
        let kept = Kept { config_map, catalog: "keys".into(), digest, content, written: written.clone() };
        Shelved { name: kept.name(), written, kept: Ok(kept) }
    }

    fn of(object: Option<&str>, shelf: &[Shelved]) -> Option<History> {
        let version = object.map(|json| Version::stored(ConfigMap::parse(json).unwrap()));
        History::of(CatalogKey::new("prod", "models"), version.as_ref(), shelf)
    }

    #[test]
    fn revisions_of_all_places_are_listed_by_number() {
        let object = json!({"metadata": {
            "name": "models", "uid": "u", "labels": {"modelguard.dev/catalog": "keys"},
            "annotations": {"modelguard.dev/revision": "3"},
        }, "data": {"v1": "c", "v2": "d"}})
        .to_string();
        let shelf =
            [shelved("u", 2, "2026-02", "b"), shelved("u", 1, "2026-01", "a"), shelved("other", 7, "2025", "x")];
        let history = of(Some(&object), &shelf).unwrap();
        let listed: Vec<_> = history.revisions.iter().map(|past| (past.number, past.place.name().to_owned())).collect();
        let names = [shelf[1].name.clone(), shelf[0].name.clone()];
        assert_eq!(listed, [(1, names[0].clone()), (2, names[1].clone()), (3, "current".to_owned())]);
        assert_eq!(history.current().map(|past| past.number), Some(3));
        let changes = history.changes();
        let third = changes[2].as_ref().unwrap();
        assert_eq!((changes[0].is_none(), third.added.len(), third.replaced.len()), (true, 1, 1));
    }

    #[test]
    fn what_is_gone_has_the_history_of_the_last_one_of_its_name() {
        assert!(of(None, &[]).is_none());
        let history = of(None, &[shelved("old", 9, "2026-01", "a"), shelved("new", 1, "2026-02", "b")]).unwrap();
        assert_eq!((&*history.uid, history.revisions.len(), history.current().is_none()), ("new", 1, true));
    }

    #[test]
    fn a_damaged_annotation_is_listed_where_nothing_else_is_kept() {
        let object = json!({"metadata": {
            "name": "models", "uid": "u", "labels": {"modelguard.dev/catalog": "keys"},
            "annotations": {"modelguard.dev/revision": "2", "modelguard.dev/prior-revision": "{}"},
        }, "data": {"v1": "c"}})
        .to_string();
        let history = of(Some(&object), &[]).unwrap();
        let prior = history.get(1).unwrap();
        assert!(prior.content.as_ref().unwrap_err().starts_with("is not what modelguard writes"), "{prior:?}");
        let history = of(Some(&object), &[shelved("u", 1, "2026-01", "a")]).unwrap();
        assert!(history.get(1).unwrap().content.is_ok());
    }

    #[test]
    fn what_is_damaged_is_listed() {
        let mut damaged = shelved("u", 1, "2026-01", "a");
        damaged.kept = Err(DecodeError::Damaged);
        let history = of(None, &[damaged]).unwrap();
        assert_eq!(history.get(1).unwrap().content.as_ref().unwrap_err(), "does not match its digest");
        assert_eq!(history.changes().len(), 1);
    }
}
