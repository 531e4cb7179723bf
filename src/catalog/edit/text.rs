//! Keeping and removing entries in the formats that have one list, in the text of one key.

use super::element::render;
use super::list::{List, Target};
use super::{CannotEdit, Edit, Field};
use crate::catalog::item::Notation;
use crate::catalog::tree::{Fault, Node, Place, Value};
use crate::catalog::{Catalog, CatalogError, EntryName};
use crate::object::Content;
use std::collections::BTreeSet;

/// A catalog and where its entries stand in the text that lists them.
struct Document<'c> {
    key: &'c str,
    text: &'c str,
    root: Node<'c>,
    /// The names of the elements, in their order.
    names: Vec<EntryName>,
    catalog: Catalog,
    /// None where the text is null.
    list: Option<List>,
}

/// How the elements that are kept get their text.
#[derive(Clone, Copy)]
enum Writing {
    /// As they stand in the old text, where that can be copied.
    Source,
    /// Written anew.
    Rendered,
}

/// What is kept, from where.
struct Keeping<'k> {
    notation: &'k Notation,
    old: Document<'k>,
    new: Document<'k>,
    entries: &'k BTreeSet<EntryName>,
    /// What the result has to list.
    expected: Catalog,
}

// === impl Notation ===

impl Notation {
    /// See [`keep`](super::keep).
    pub(in crate::catalog) fn keep(
        &self,
        old: &Content<'_>,
        new: &Content<'_>,
        entries: &BTreeSet<EntryName>,
    ) -> Result<Vec<Edit>, CannotEdit> {
        let old = self.document(old).map_err(CannotEdit::stored)?;
        let new = self.document(new)?;
        if let Some(entry) = entries.iter().find(|entry| !old.catalog.lists(entry)) {
            return Err(CannotEdit::not_stored(old.key, entry));
        }
        if let Some(entry) = entries.iter().find(|entry| new.catalog.lists(entry)) {
            return Err(CannotEdit::listed_already(new.key, entry));
        }
        let expected = new.catalog.clone().and(old.catalog.part(|name| entries.contains(name)));
        Keeping { notation: self, old, new, entries, expected }.edits()
    }

    /// See [`remove`](super::remove).
    pub(in crate::catalog) fn remove(
        &self,
        content: &Content<'_>,
        entries: &BTreeSet<EntryName>,
    ) -> Result<Vec<Edit>, CannotEdit> {
        let document = self.document(content)?;
        let Some(first) = document.names.iter().position(|name| entries.contains(name)) else {
            return Ok(Vec::new());
        };
        let text = document.without(entries);
        let expected = document.catalog.part(|name| !entries.contains(name));
        let why = match self.catalog_in(document.key, &text) {
            Ok(catalog) if catalog == expected => return Ok(vec![document.edit(text)]),
            Ok(_) => "what is left would be read as something else".to_owned(),
            Err(error) => format!("what is left would not be read: {error}"),
        };
        let place = document.root.elements()[first].place;
        Err(document.refusal(place, format!("{} cannot be removed, {why}", some_of(entries))))
    }

    fn document<'c>(&self, content: &'c Content<'_>) -> Result<Document<'c>, CatalogError> {
        let (key, text) = self.source(content)?;
        self.document_of(key, text)
    }

    fn document_of<'c>(&self, key: &'c str, text: &'c str) -> Result<Document<'c>, CatalogError> {
        let read = || {
            let (root, list) = (self.outline)(text)?;
            let catalog = self.catalog(&root)?;
            let names = root.elements().iter().map(|element| Ok(self.identity(element)?.0));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            if list.as_ref().is_some_and(|list| !list.has(names.len())) {
                return Err(Fault::new(root.place, "a list whose elements can be told apart"));
            }
            Ok(Document { key, text, root, names, catalog, list })
        };
        read().map_err(|fault| fault.in_key(key))
    }

    fn catalog_in(&self, key: &str, text: &str) -> Result<Catalog, CatalogError> {
        (self.read)(text).and_then(|root| self.catalog(&root)).map_err(|fault| fault.in_key(key))
    }
}

// === impl Keeping ===

impl Keeping<'_> {
    fn edits(&self) -> Result<Vec<Edit>, CannotEdit> {
        let Some(list) = &self.new.list else {
            let entry = some_of(self.entries);
            let reason = format!("expected a list to keep {entry} in (found null); write [] for an empty one");
            return Err(self.new.refusal(self.new.root.place, reason));
        };
        let target = Target { list, text: self.new.text };
        let copied = match self.written(&target, Writing::Source) {
            Ok(text) => return Ok(vec![self.new.edit(text)]),
            Err(why) => why,
        };
        if let Ok(text) = self.written(&target, Writing::Rendered) {
            return Ok(vec![self.new.edit(text)]);
        }
        let reason = format!("{} cannot be kept at the end of this list, {copied}", some_of(self.entries));
        Err(self.new.refusal(Place::START.after(&self.new.text[..list.end]), reason))
    }

    /// The new text with the kept elements, if it says what it should; else why not.
    fn written(&self, target: &Target<'_>, writing: Writing) -> Result<String, String> {
        let elements = self.elements(&self.old, target, writing);
        let text = target.list.insert(target.text, &elements);
        let result = self.notation.document_of(self.new.key, &text);
        let result = result.map_err(|error| format!("for the result would not be read: {error}"))?;
        if result.catalog != self.expected {
            return Err("for the result would be read as something else".to_owned());
        }
        // Removing them must give the new text back, and keeping them again must make no difference.
        let is_stable = self.elements(&result, target, Writing::Source) == elements;
        if is_stable && result.without(self.entries) == target.text {
            return Ok(text);
        }
        Err("for they could not be told apart from what surrounds them".to_owned())
    }

    fn elements(&self, from: &Document<'_>, target: &Target<'_>, writing: Writing) -> Vec<String> {
        let kept = from.names.iter().enumerate().filter(|(_, name)| self.entries.contains(*name));
        kept.map(|(index, name)| {
            let copy = match writing {
                Writing::Source => from.copy(index, target),
                Writing::Rendered => None,
            };
            let copy = copy.filter(|copy| self.stands_alone(copy, target.list, name));
            copy.unwrap_or_else(|| render(&from.root.elements()[index], target.list.shape))
        })
        .collect()
    }

    /// Whether an element says the same in other surroundings: an alias in it may name something outside.
    fn stands_alone(&self, element: &str, list: &List, name: &EntryName) -> bool {
        let list = list.of_one(element);
        let expected = self.old.catalog.part_of(name);
        self.notation.catalog_in(self.new.key, &list).is_ok_and(|catalog| catalog == expected)
    }
}

// === impl Document ===

impl Document<'_> {
    fn copy(&self, index: usize, target: &Target<'_>) -> Option<String> {
        self.list.as_ref().and_then(|list| list.copy(self.text, index, target))
    }

    fn without(&self, entries: &BTreeSet<EntryName>) -> String {
        let chosen: Vec<_> = self.names.iter().map(|name| entries.contains(name)).collect();
        self.list.as_ref().map_or_else(|| self.text.to_owned(), |list| list.cut(self.text, &chosen))
    }

    fn edit(&self, text: String) -> Edit {
        Edit { field: Field::Data, key: self.key.into(), value: Some(text) }
    }

    fn refusal(&self, place: Place, reason: String) -> CannotEdit {
        CannotEdit { key: self.key.to_owned(), line: place.line, column: place.column, reason }
    }
}

// === impl Node ===

impl Node<'_> {
    /// The elements of a list; null has none.
    fn elements(&self) -> &[Self] {
        match &self.value {
            Value::List(elements) => elements,
            Value::Map(_) | Value::Null | Value::Text(_) => &[],
        }
    }
}

// === helpers ===

/// Names one of the entries, which has to do for a message.
fn some_of(entries: &BTreeSet<EntryName>) -> String {
    let first = entries.first().map(EntryName::as_str).unwrap_or_default();
    match entries.len() {
        0 | 1 => format!("entry {first}"),
        len => format!("entry {first} (and {} more)", len - 1),
    }
}
