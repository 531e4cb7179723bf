//! Where the elements of a list stand in its text; putting some in at the end, and cutting some out.
//!
//! ```text
//! Brackets  [{…}, {…}⎵]       ⎵ where more go, each after a separator as the list has them
//! Lines     - …               an element is its lines, from the dash to the last that has content:
//!           - …               comments and blank lines between elements belong to none
//!           ⎵
//! ```
//! An insertion and the cut that undoes it agree on this: an element in brackets takes what separates it from the
//! one before with it, an element on lines its line break; at the end of a text that does not end in a line break,
//! the line break before it.

use std::ops::Range;

/// White space of JSON, which is also what separates the elements in YAML's brackets.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// The elements of a list in their text, as byte offsets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::catalog) struct List {
    pub(in crate::catalog) shape: Shape,
    pub(in crate::catalog) elements: Vec<Range<usize>>,
    /// Where one more element goes.
    pub(in crate::catalog) end: usize,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::catalog) enum Shape {
    /// JSON's arrays and YAML's flow sequences; what they hold begins at `open`.
    Brackets { open: usize },
    /// YAML's block sequences.
    Lines {
        /// How many spaces stand before a dash.
        indent: usize,
    },
}

// === impl List ===

impl List {
    /// Whether it has that many elements, one behind the other.
    pub(super) fn has(&self, elements: usize) -> bool {
        self.elements.len() == elements && self.elements.windows(2).all(|pair| pair[0].end <= pair[1].start)
    }

    /// `text` with `more` elements at the end of this list.
    pub(super) fn insert(&self, text: &str, more: &[String]) -> String {
        let (before, after) = text.split_at(self.end);
        let mut out = String::with_capacity(text.len() + more.iter().map(|element| element.len() + 8).sum::<usize>());
        out.push_str(before);
        match self.shape {
            Shape::Brackets { open } => {
                let separator = self.separator(text, open);
                let first = if self.elements.is_empty() { "" } else { separator.as_str() };
                for (index, element) in more.iter().enumerate() {
                    out.push_str(if index == 0 { first } else { &separator });
                    out.push_str(element);
                }
            }
            Shape::Lines { .. } => {
                let line_break = line_break(text);
                let starts_line = line_start(text, self.end) == self.end;
                let (before, after) = if starts_line { ("", line_break) } else { (line_break, "") };
                more.iter().for_each(|element| out.extend([before, element, after]));
            }
        }
        out.push_str(after);
        out
    }

    /// `text` without the elements of this list that are `chosen`.
    pub(super) fn cut(&self, text: &str, chosen: &[bool]) -> String {
        let ranges = match self.shape {
            Shape::Brackets { .. } => self.in_brackets(chosen),
            Shape::Lines { .. } => self.pairs(chosen).filter(|(_, chosen)| *chosen).map(|(lines, _)| lines).collect(),
        };
        let (mut out, mut from) = (String::with_capacity(text.len()), 0);
        for range in &ranges {
            out.push_str(&text[from..range.start]);
            from = range.end;
        }
        out.push_str(&text[from..]);
        let at_end = ranges.last().is_some_and(|last| last.end == text.len());
        if at_end && matches!(self.shape, Shape::Lines { .. }) && !ends_line(text) {
            out.truncate(out.len() - last_break(&out));
        }
        out
    }

    /// The source of element `index`, as it can be put into `into`; none if the two are written in different ways.
    pub(super) fn copy(&self, text: &str, index: usize, into: &Target<'_>) -> Option<String> {
        let source = &text[self.elements[index].clone()];
        match (self.shape, into.list.shape) {
            (Shape::Brackets { .. }, Shape::Brackets { .. }) => Some(source.to_owned()),
            (Shape::Lines { indent: from }, Shape::Lines { indent }) => {
                let source = &source[..source.len() - last_break(source)];
                Some(indented(source, from, indent, line_break(into.text)))
            }
            _ => None,
        }
    }

    /// The text of a list with one element, written in the same way; with a blank line behind it, as may come to stand
    /// there: some block scalars (`|+`) would take it in.
    pub(super) fn of_one(&self, element: &str) -> String {
        match self.shape {
            Shape::Brackets { .. } => format!("[{element}]"),
            Shape::Lines { .. } => format!("{element}\n\n"),
        }
    }

    /// What stands between two elements: as between the last two, else as before the first.
    fn separator(&self, text: &str, open: usize) -> String {
        if let [.., before, last] = self.elements.as_slice() {
            let gap = &text[before.end..last.start];
            return if gap.trim_matches(SPACE) == "," { gap.to_owned() } else { ", ".to_owned() };
        }
        let inside = &text[open..];
        let space = inside.len() - inside.trim_start_matches(SPACE).len();
        format!(",{}", &inside[..space])
    }

    fn pairs<'l>(&'l self, chosen: &'l [bool]) -> impl Iterator<Item = (Range<usize>, bool)> + 'l {
        self.elements.iter().cloned().zip(chosen.iter().copied())
    }

    fn in_brackets(&self, chosen: &[bool]) -> Vec<Range<usize>> {
        let Some(left) = chosen.iter().position(|chosen| !chosen) else {
            let all = self.elements.first().zip(self.elements.last());
            return all.map(|(first, last)| first.start..last.end).into_iter().collect();
        };
        let front = (left > 0).then(|| self.elements[0].start..self.elements[left].start);
        let pairs = self.elements.windows(2).zip(&chosen[1..]).skip(left);
        let behind = pairs.filter(|(_, chosen)| **chosen).map(|(pair, _)| pair[0].end..pair[1].end);
        front.into_iter().chain(behind).collect()
    }
}

/// A list that elements are put into, and its text.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    pub(super) list: &'t List,
    pub(super) text: &'t str,
}

// === helpers ===

/// Where the line that `at` is in starts.
pub(in crate::catalog) fn line_start(text: &str, at: usize) -> usize {
    // A byte order mark stands before the first line.
    let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    text[..at].rfind(['\n', '\r']).map_or(first, |before| before + 1)
}

/// Where the line that `at` is in ends, its line break included.
pub(in crate::catalog) fn line_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    match rest.find(['\n', '\r']) {
        None => text.len(),
        Some(end) if rest[end..].starts_with("\r\n") => at + end + 2,
        Some(end) => at + end + 1,
    }
}

/// The line break that `text` has first.
fn line_break(text: &str) -> &'static str {
    match text.find('\n') {
        Some(end) if text[..end].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

fn ends_line(text: &str) -> bool {
    text.ends_with(['\n', '\r'])
}

/// The length of the line break at the end of `text`.
fn last_break(text: &str) -> usize {
    if text.ends_with("\r\n") { 2 } else { usize::from(ends_line(text)) }
}

/// Moves lines by as many spaces as their list is moved. Blank lines that have fewer stay, for they may be content.
fn indented(lines: &str, from: usize, into: usize, line_break: &str) -> String {
    let (old, new) = (" ".repeat(from), " ".repeat(into));
    let (mut out, mut at) = (String::with_capacity(lines.len()), 0);
    while at < lines.len() {
        let end = line_end(lines, at);
        let line = lines[at..end].trim_end_matches(['\n', '\r']);
        match line.strip_prefix(&old) {
            _ if line.is_empty() => {}
            Some(rest) => out.extend([&new, rest]),
            None if line.trim_matches(SPACE).is_empty() => out.push_str(line),
            None => out.extend([&new, line.trim_start_matches(' ')]),
        }
        if last_break(&lines[at..end]) > 0 {
            out.push_str(line_break);
        }
        at = end;
    }
    out
}
