//! The format `yaml`: a sequence of mappings with `name` and `version`.
//!
//! What YAML has beyond JSON, and what becomes of it:
//! - plain `null`, `~` and nothing are null; any other scalar is its text, however it is quoted;
//! - an alias stands for a copy of what it names, and `<<` for the fields it merges, as if written out;
//! - the tag `!!str` makes text of a plain scalar; any other tag is refused, for its meaning is the reader's;
//! - a second document is refused, for readers differ in which one they take;
//! - an empty document is an empty sequence: it removes every entry, which is then judged.

mod outline;

use super::item::{Notation, Outlined};
use super::tree::{Fault, Field, Fields, Limits, Node, Place, Value};
use super::{Catalog, CatalogError};
use crate::object::Content;
use outline::Outline;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) const YAML: Notation =
    Notation { key: "models.yaml", read, outline, list: "a sequence", map: "a mapping", scalar: "a scalar" };

/// How many of the characters `,`, `[` and `{` a text may have, wherever they stand. The parser keeps all tokens
/// of a flow collection, 100 bytes each, until its end: without a limit 1 MiB of `[a,a,…` took 180 MB.
const MOST_FLOW: usize = 1 << 15;

/// Turns the parser's events into a tree.
struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    /// What aliases stand for, by the parser's number.
    anchors: BTreeMap<usize, Node<'a>>,
    limits: Limits,
    /// Where the elements stand, for who asks for it.
    outline: Option<Outline<'a>>,
}

pub(super) fn parse(content: &Content<'_>) -> Result<Catalog, CatalogError> {
    YAML.parse(content)
}

pub(super) fn read(text: &str) -> Result<Node<'_>, Fault> {
    Reader::new(text)?.document()
}

fn outline(text: &str) -> Result<Outlined<'_>, Fault> {
    let mut reader = Reader { outline: Some(Outline::new(text)), ..Reader::new(text)? };
    let root = reader.document()?;
    let list = reader.outline.take().map(Outline::list).transpose()?;
    Ok((root, list.flatten()))
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Result<Self, Fault> {
        bounded(text)?;
        let (events, anchors) = (Parser::new_from_str(text), BTreeMap::new());
        Ok(Self { text, events, anchors, limits: Limits::new(), outline: None })
    }

    fn document(&mut self) -> Result<Node<'a>, Fault> {
        let (mut event, mut place) = self.next()?;
        while matches!(event, Event::StreamStart | Event::DocumentStart(_)) {
            (event, place) = self.next()?;
        }
        if event == Event::StreamEnd {
            let value = Value::Null;
            return Ok(Node { place, value });
        }
        let root = self.node(event, place)?;
        (event, place) = self.next()?;
        if event == Event::DocumentEnd {
            (event, place) = self.next()?;
        }
        match event {
            Event::StreamEnd => Ok(root),
            _ => Err(Fault::new(place, "a single document (found another one)")),
        }
    }

    fn node(&mut self, event: Event<'a>, place: Place) -> Result<Node<'a>, Fault> {
        let (anchor, value) = match event {
            Event::Alias(id) => return self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => {
                self.limits.text(place, &text)?;
                (anchor, scalar(text, style, tag.as_deref(), place)?)
            }
            Event::SequenceStart(anchor, tag) => {
                untagged(tag.as_deref(), place)?;
                (anchor, self.sequence(place)?)
            }
            Event::MappingStart(anchor, tag) => {
                untagged(tag.as_deref(), place)?;
                (anchor, self.mapping(place)?)
            }
            _ => return Err(Fault::new(place, "a value (found none)")),
        };
        let node = Node { place, value };
        if anchor > 0 {
            self.limits.copy(place, &node)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, place: Place) -> Result<Value<'a>, Fault> {
        self.limits.enter(place)?;
        let mut nodes = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if event == Event::SequenceEnd {
                break;
            }
            nodes.push(self.node(event, place)?);
        }
        self.limits.leave();
        Ok(Value::List(nodes))
    }

    fn mapping(&mut self, place: Place) -> Result<Value<'a>, Fault> {
        self.limits.enter(place)?;
        let mut fields = Vec::new();
        let mut merged = None;
        loop {
            let (event, place) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merges = is_merge(&event);
            let key = self.key(event, place)?;
            let (event, at) = self.next()?;
            let node = self.node(event, at)?;
            if !merges {
                fields.push(Field { key, place, node });
            } else if merged.replace(node).is_some() {
                return Err(Fault::repeated(place, &key));
            }
        }
        self.limits.leave();
        fields.shrink_to_fit();
        let mut fields = Fields::new(fields)?;
        if let Some(from) = merged {
            fields.merge(sources(from)?);
        }
        Ok(Value::Map(fields))
    }

    fn key(&mut self, event: Event<'a>, place: Place) -> Result<Cow<'a, str>, Fault> {
        let node = self.node(event, place)?;
        match node.value {
            Value::Text(key) => Ok(key),
            _ => Err(unexpected("a scalar as key", &node)),
        }
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<Node<'a>, Fault> {
        let Some(node) = self.anchors.get(&id) else {
            let expected = "an alias of something that ends before it (found one inside)";
            return Err(Fault::new(place, expected));
        };
        self.limits.copy(place, node)?;
        let value = node.value.clone();
        Ok(Node { place, value })
    }

    fn next(&mut self) -> Result<(Event<'a>, Place), Fault> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                if let Some(outline) = &mut self.outline {
                    outline.pass(&event, span);
                }
                let (line, column) = (span.start.line(), span.start.col() + 1);
                Ok((event, Place { line, column }))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Err(Fault::new(self.end(), "more YAML (found the end)")),
        }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let mark = error.marker();
        // The parser places what it misses at the end on a line that the text does not have.
        let place = if mark.index() < self.text.chars().count() {
            let (line, column) = (mark.line(), mark.col() + 1);
            Place { line, column }
        } else {
            self.end()
        };
        Fault::new(place, format!("valid YAML ({})", error.info()))
    }

    fn end(&self) -> Place {
        Place::START.after(self.text)
    }
}

// === helpers ===

fn bounded(text: &str) -> Result<(), Fault> {
    let flow = |byte: &u8| matches!(byte, b',' | b'[' | b'{');
    if text.as_bytes().iter().filter(|byte| flow(byte)).count() <= MOST_FLOW {
        return Ok(());
    }
    let mut places = text.match_indices([',', '[', '{']);
    let before = places.nth(MOST_FLOW).map_or(text, |(offset, _)| &text[..offset]);
    let expected = format!("at most {MOST_FLOW} of `,`, `[` and `{{` in all (found more)");
    Err(Fault::new(Place::START.after(before), expected))
}

fn scalar<'a>(text: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Value<'a>, Fault> {
    if tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Ok(Value::Text(text));
    }
    untagged(tag, place)?;
    let is_null = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
    if is_null && style == ScalarStyle::Plain {
        return Ok(Value::Null);
    }
    Ok(Value::Text(text))
}

fn untagged(tag: Option<&Tag>, place: Place) -> Result<(), Fault> {
    match tag {
        None => Ok(()),
        Some(_) => Err(Fault::new(place, "a value without a tag (found a tagged one)")),
    }
}

fn is_merge(key: &Event<'_>) -> bool {
    matches!(key, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<")
}

/// The mappings that the value of a merge key names, the one that prevails first.
fn sources(from: Node<'_>) -> Result<Vec<Fields<'_>>, Fault> {
    let nodes = match from.value {
        Value::List(nodes) => nodes,
        _ => vec![from],
    };
    let fields = nodes.into_iter().map(|node| match node.value {
        Value::Map(fields) => Ok(fields),
        _ => Err(unexpected("a mapping, or a sequence of them, to merge", &node)),
    });
    fields.collect()
}

fn unexpected(expected: &str, found: &Node<'_>) -> Fault {
    Fault::new(found.place, format!("{expected} (found {})", YAML.kind(found)))
}

#[cfg(test)]
mod tests;
