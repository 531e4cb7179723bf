//! What the text formats decode into: values with their places, before anything is known of models.
//!
//! ```text
//! yaml::read, json::read ──▶ Node { place, value: Null | Text | List | Map(Fields) } ──item──▶ Catalog
//!          │ within Limits
//!          ▼ else Fault { place, expected } ──in_key──▶ CatalogError
//! ```
//! A scalar is its text, quoted or not: `1.10`, `no` and `007` stay as they are, `1` and `"1"` are the same.
//! Only what the notation reads as null is kept apart from text.

use super::CatalogError;
use std::borrow::Cow;

/// How deep lists and maps may nest. Real catalogs need 6; every walk of a tree recurses this deep.
const DEEPEST: usize = 64;

/// What a tree may cost, see [`cost`]: 1 MiB of 9,000 small models costs 150,000, and reading it took 28 MB.
/// YAML aliases pay for what they repeat, so that a short text cannot become a large tree.
const DEAREST: usize = 1 << 18;

/// Line and column within one key's value, both from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    place: Place,
    expected: String,
}

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) place: Place,
    pub(super) value: Value<'a>,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    List(Vec<Node<'a>>),
    Map(Fields<'a>),
    Null,
    Text(Cow<'a, str>),
}

/// The fields of a map: sorted by key, each key once.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(Vec<Field<'a>>);

/// One key of a map and its value.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) key: Cow<'a, str>,
    /// Where the key stands.
    pub(super) place: Place,
    pub(super) node: Node<'a>,
}

/// What is left of the depth and the cost that one text may have.
#[derive(Debug)]
pub(super) struct Limits {
    depth: usize,
    cost: usize,
}

// === impl Place ===

impl Place {
    /// The first character of a text.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// Where the character that follows `passed` stands, if `passed` starts here.
    pub(super) fn after(self, passed: &str) -> Self {
        match passed.rsplit_once('\n') {
            None => Self { column: self.column + passed.chars().count(), ..self },
            Some((lines, last)) => {
                Self { line: self.line + 1 + lines.matches('\n').count(), column: 1 + last.chars().count() }
            }
        }
    }
}

// === impl Fault ===

impl Fault {
    pub(super) fn new(place: Place, expected: impl Into<String>) -> Self {
        Self { place, expected: expected.into() }
    }

    /// A key that its map has already.
    pub(super) fn repeated(place: Place, key: &str) -> Self {
        Self::new(place, format!("each key once (found {} again)", quote(key)))
    }

    /// The error for the ConfigMap key whose value this was found in.
    pub(super) fn in_key(self, key: &str) -> CatalogError {
        CatalogError { key: key.to_owned(), line: self.place.line, column: self.place.column, expected: self.expected }
    }
}

// === impl Node ===

impl Node<'_> {
    /// What this node adds to the cost of a tree.
    pub(super) fn cost(&self) -> usize {
        match &self.value {
            Value::Null => cost(""),
            Value::Text(text) => cost(text),
            Value::List(nodes) => cost("") + nodes.iter().map(Node::cost).sum::<usize>(),
            Value::Map(Fields(fields)) => {
                let fields = fields.iter().map(|f| cost(&f.key) + f.node.cost());
                cost("") + fields.sum::<usize>()
            }
        }
    }

    /// How deep lists and maps nest in this node, itself included.
    pub(super) fn depth(&self) -> usize {
        match &self.value {
            Value::Null | Value::Text(_) => 0,
            Value::List(nodes) => 1 + nodes.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(Fields(fields)) => 1 + fields.iter().map(|f| f.node.depth()).max().unwrap_or(0),
        }
    }

    /// Appends bytes that are equal iff the values are, whatever the order of keys and the way of writing.
    fn encode(&self, out: &mut Vec<u8>) {
        match &self.value {
            Value::Null => out.push(b'n'),
            Value::Text(text) => {
                out.push(b't');
                encode_text(text, out);
            }
            Value::List(nodes) => {
                out.push(b'l');
                encode_len(nodes.len(), out);
                nodes.iter().for_each(|node| node.encode(out));
            }
            Value::Map(fields) => {
                out.push(b'm');
                encode_len(fields.0.len(), out);
                fields.encode(out, |_| true);
            }
        }
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Takes the fields of a map in the order in which they are written.
    ///
    /// # Errors
    /// [`Fault`] where a key stands again.
    pub(super) fn new(mut fields: Vec<Field<'a>>) -> Result<Self, Fault> {
        // Stable, so that the second of two equal keys is the one written later.
        fields.sort_by(|a, b| a.key.cmp(&b.key));
        match fields.windows(2).find(|pair| pair[0].key == pair[1].key) {
            None => Ok(Self(fields)),
            Some(pair) => Err(Fault::repeated(pair[1].place, &pair[1].key)),
        }
    }

    /// Takes over the fields of `others` whose keys are not there yet, the first of equal ones.
    pub(super) fn merge(&mut self, others: impl IntoIterator<Item = Self>) {
        self.0.extend(others.into_iter().flat_map(|Self(more)| more));
        self.0.sort_by(|a, b| a.key.cmp(&b.key));
        self.0.dedup_by(|later, kept| later.key == kept.key);
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        let found = self.0.binary_search_by(|field| (*field.key).cmp(key));
        found.ok().map(|index| &self.0[index].node)
    }

    /// All fields, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Field<'a>> {
        self.0.iter()
    }

    /// Appends the fields that `chosen` accepts by key, in bytes that are equal iff keys and values are.
    pub(super) fn encode(&self, out: &mut Vec<u8>, chosen: impl Fn(&str) -> bool) {
        for field in self.0.iter().filter(|field| chosen(&field.key)) {
            encode_text(&field.key, out);
            field.node.encode(out);
        }
    }
}

// === impl Limits ===

impl Limits {
    /// Those of one text.
    pub(super) fn new() -> Self {
        Self { depth: DEEPEST, cost: DEAREST }
    }

    /// Pays for a scalar or a key.
    pub(super) fn text(&mut self, place: Place, text: &str) -> Result<(), Fault> {
        self.pay(place, cost(text))
    }

    /// Pays for a list or map, and goes one level down.
    pub(super) fn enter(&mut self, place: Place) -> Result<(), Fault> {
        self.pay(place, cost(""))?;
        self.fits(place, 1)?;
        self.depth -= 1;
        Ok(())
    }

    /// Comes up again from a list or map.
    pub(super) fn leave(&mut self) {
        self.depth += 1;
    }

    /// Pays for one more copy of `node` at `place`.
    pub(super) fn copy(&mut self, place: Place, node: &Node<'_>) -> Result<(), Fault> {
        self.fits(place, node.depth())?;
        self.pay(place, node.cost())
    }

    fn fits(&self, place: Place, depth: usize) -> Result<(), Fault> {
        if depth <= self.depth {
            return Ok(());
        }
        let expected = format!("at most {DEEPEST} levels of nesting (found more)");
        Err(Fault::new(place, expected))
    }

    fn pay(&mut self, place: Place, cost: usize) -> Result<(), Fault> {
        match self.cost.checked_sub(cost) {
            Some(left) => {
                self.cost = left;
                Ok(())
            }
            None => {
                let expected = format!("at most {DEAREST} keys and values, with all that aliases repeat (found more)");
                Err(Fault::new(place, expected))
            }
        }
    }
}

// === helpers ===

/// What one key or value costs; a long text more, because copies of it take memory too.
fn cost(text: &str) -> usize {
    1 + text.len() / 64
}

/// Quotes what stands in a catalog, shortened: a message must stay readable.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(40) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

fn encode_len(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(len as u64).to_be_bytes());
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    encode_len(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}
