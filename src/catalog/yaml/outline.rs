//! Where the elements of a YAML catalog stand in its text.
//!
//! ```text
//! # comment                  of no element
//! - name: a   # comment    ┐
//!   # comment              │ an element: from the line of its dash …
//!   path: s3://a           ┘ … to the last line with content
//!   # comment                of no element
//! ```
//! The parser says where content starts and ends. Which dash is an element's, and which lines behind it are blank or
//! comments, is found in the text from there.

use super::super::edit::{List, Shape, line_end, line_start};
use super::super::tree::{Fault, Place};
use saphyr_parser::{Event, ScalarStyle, Span};

/// Finds out from the parser's events where the elements of a text are; an empty text is a list without elements.
pub(super) struct Outline<'t> {
    text: &'t str,
    root: Root,
    /// How many lists and maps are open.
    depth: usize,
    found: Vec<Content>,
    /// Where the list ends.
    end: usize,
    passed: Passed,
}

/// What stands at the top of a text.
enum Root {
    Nothing,
    Scalar,
    Sequence { start: usize, brackets: bool },
}

/// The content of an element, from its first character to its last; as far as the parser says.
struct Content {
    start: usize,
    end: usize,
}

/// How far a text has been passed: the parser counts in characters.
struct Passed {
    bytes: usize,
    chars: usize,
}

// === impl Outline ===

impl<'t> Outline<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let passed = Passed { bytes: 0, chars: 0 };
        Self { text, root: Root::Nothing, depth: 0, found: Vec::new(), end: text.len(), passed }
    }

    /// Takes the next of the parser's events.
    pub(super) fn pass(&mut self, event: &Event<'_>, span: Span) {
        let opens = matches!(event, Event::MappingStart(..) | Event::SequenceStart(..));
        let is_node = opens || matches!(event, Event::Scalar(..) | Event::Alias(_));
        match self.depth {
            0 if is_node => self.root = self.root(event, span),
            1 if is_node => {
                let start = self.passed.to(self.text, span.start.index());
                self.found.push(Content { start, end: start });
            }
            _ => {}
        }
        self.depth += usize::from(opens);
        if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
            self.depth -= 1;
            if self.depth == 0 {
                self.end = self.passed.to(self.text, span.start.index());
                if let Root::Sequence { brackets, .. } = &mut self.root {
                    *brackets = !span.is_empty();
                }
                return;
            }
        }
        let end = self.content_end(event, span);
        if let (Some(end), Some(content)) = (end, self.found.last_mut()) {
            content.end = end;
        }
    }

    fn root(&mut self, event: &Event<'_>, span: Span) -> Root {
        if is_nothing(event) {
            return Root::Nothing;
        }
        if !matches!(event, Event::SequenceStart(..)) {
            return Root::Scalar;
        }
        let start = self.passed.to(self.text, span.start.index());
        Root::Sequence { start, brackets: false }
    }

    /// Where the content ends that `event` is the end of.
    fn content_end(&mut self, event: &Event<'_>, span: Span) -> Option<usize> {
        let end = match event {
            Event::Scalar(..) if is_nothing(event) => return None,
            Event::Scalar(..) | Event::Alias(_) => self.passed.to(self.text, span.end.index()),
            // Where no bracket closes it, it ends with what is in it. White space behind a bracket is in the span.
            Event::MappingEnd | Event::SequenceEnd if !span.is_empty() => {
                self.passed.to(self.text, span.start.index()) + 1
            }
            _ => return None,
        };
        Some(match event {
            Event::Scalar(text, ScalarStyle::Literal | ScalarStyle::Folded, ..) => self.block_end(text, end),
            _ => end,
        })
    }

    /// A block scalar ends, for the parser, where the next content starts. Blank lines belong to it if they are kept
    /// (`|+`), which shows in its value alone.
    fn block_end(&self, value: &str, next: usize) -> usize {
        let before = &self.text[..next];
        if value == "\n" || value.ends_with("\n\n") {
            let lines = before.trim_end_matches(' ');
            let line = lines.strip_suffix('\n').unwrap_or(lines);
            return line.strip_suffix('\r').unwrap_or(line).len();
        }
        before.trim_end().len()
    }

    /// The list, once all events have been taken; none if the text is a scalar.
    pub(super) fn list(self) -> Result<Option<List>, Fault> {
        match self.root {
            Root::Scalar => Ok(None),
            Root::Nothing => {
                let end = document_end(self.text);
                Ok(Some(List { shape: Shape::Lines { indent: 0 }, elements: Vec::new(), end }))
            }
            Root::Sequence { start, brackets: true } => {
                let open = start + self.text[start..].find('[').map_or(0, |bracket| bracket + 1);
                let elements: Vec<_> = self.found.iter().map(|content| content.start..content.end).collect();
                let end = elements.last().map_or(open, |last| last.end);
                Ok(Some(List { shape: Shape::Brackets { open }, elements, end }))
            }
            Root::Sequence { .. } => self.lines().map(Some),
        }
    }

    fn lines(&self) -> Result<List, Fault> {
        let mut starts = Vec::with_capacity(self.found.len() + 1);
        let mut before = 0;
        for content in &self.found {
            let start = dash_line(self.text, before, content.start);
            let fault = || Fault::new(Place::START.after(&self.text[..content.start]), "each element on its own lines");
            starts.push(start.ok_or_else(fault)?);
            before = content.end;
        }
        let first = starts.first().copied().unwrap_or(self.end);
        let indent = self.text[first..].len() - self.text[first..].trim_start_matches(' ').len();
        let ends = starts.iter().skip(1).copied().chain([self.end]);
        let elements = starts.iter().zip(&self.found).zip(ends);
        let elements: Vec<_> =
            elements.map(|((start, content), next)| *start..last_line(self.text, content.end, next)).collect();
        let end = elements.last().map_or(first, |last| own_comments(self.text, last.end, indent));
        Ok(List { shape: Shape::Lines { indent }, elements, end })
    }
}

// === impl Passed ===

impl Passed {
    /// The byte at which character number `index` starts; characters must be asked for in their order.
    fn to(&mut self, text: &str, index: usize) -> usize {
        let mut rest = text[self.bytes..].char_indices();
        if let Some(more) = index.checked_sub(self.chars) {
            self.bytes = rest.nth(more).map_or(text.len(), |(bytes, _)| self.bytes + bytes);
            self.chars = index;
        }
        self.bytes
    }
}

// === helpers ===

/// Whether a node has no text at all: the parser places such a one on what comes next.
fn is_nothing(event: &Event<'_>) -> bool {
    matches!(event, Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty())
}

/// The start of the line that has the dash of the element whose content is at `at`, not before `before`.
fn dash_line(text: &str, before: usize, at: usize) -> Option<usize> {
    let first = line_start(text, 0).max(before);
    let mut at = at;
    loop {
        let start = line_start(text, at);
        if start < first {
            return None;
        }
        let line = text[start..].trim_start_matches(' ');
        if line.strip_prefix('-').is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r'])) {
            return Some(start);
        }
        if start == first {
            return None;
        }
        at = start - 1;
    }
}

/// The end of the last line before `next` that has content, if there is content at `end`.
fn last_line(text: &str, end: usize, next: usize) -> usize {
    let mut last = line_end(text, end);
    let mut at = last;
    while at < next {
        let line = at..line_end(text, at);
        at = line.end;
        if !is_blank_or_comment(&text[line]) {
            last = at;
        }
    }
    last
}

/// The end of the comments right behind the last element that are indented as its content is.
fn own_comments(text: &str, end: usize, indent: usize) -> usize {
    let mut at = end;
    loop {
        let line = &text[at..line_end(text, at)];
        let comment = line.trim_start_matches([' ', '\t']);
        if !comment.starts_with('#') || line.len() - comment.len() <= indent || line_start(text, at) != at {
            return at;
        }
        at += line.len();
    }
}

fn is_blank_or_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// Where a text without content has its end, for more content: at the line that ends the document, if one does.
fn document_end(text: &str) -> usize {
    let mut at = line_start(text, 0);
    while at < text.len() {
        let ends = text[at..].strip_prefix("...");
        if ends.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r'])) {
            return at;
        }
        at = line_end(text, at);
    }
    text.len()
}
