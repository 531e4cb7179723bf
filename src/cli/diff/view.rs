//! What tells two contents of a model ConfigMap apart: its entries first, then what is stored.
//!
//! ```text
//! Content, Content ─┬─ Catalog::diff ──▶ entries that are added, removed, replaced ┐
//!                   └─ key by key ─────▶ Change: text by lines, the rest by size   ┴─▶ table, value
//! ```

use crate::catalog::{Catalog, Diff, Format};
use crate::cli::history;
use crate::cli::output::Paint;
use crate::object::{Content, StringMap};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use similar::TextDiff;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::time::Duration;

/// How long it may take to find the fewest lines that differ: two texts of 1 MiB may have nothing in common. Afterwards
/// it is still true, and may be longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines around what differs.
const CONTEXT: usize = 3;

/// A content, what it is called, and the value of its catalog label.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) catalog: &'a str,
    pub(super) content: &'a Content<'a>,
}

/// What tells the two apart.
#[derive(Debug)]
pub(super) struct Difference<'a> {
    from: Side<'a>,
    to: Side<'a>,
    /// Of the entries, or which side cannot be read, and why.
    entries: Result<Diff, String>,
}

/// The values of one key, where they differ.
struct Change<'a> {
    key: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
}

/// What is told of a value that is no text.
struct Blob {
    bytes: usize,
    sha256: String,
}

// === impl Difference ===

impl<'a> Difference<'a> {
    /// Between two contents.
    pub(super) fn between(from: Side<'a>, to: Side<'a>) -> Self {
        let entries = from.catalog().and_then(|was| Ok(was.diff(&to.catalog()?)));
        Self { from, to, entries }
    }

    /// For people; nothing where the two are equal.
    pub(super) fn table(&self, paint: Paint) -> String {
        let entries = match &self.entries {
            Ok(diff) => marked(diff, paint),
            Err(problem) => format!("{problem}\n"),
        };
        let [from, to] = [self.from, self.to].map(|side| Some(side.catalog));
        let format = (from != to).then(|| then("format", from, to));
        let texts = self.texts().map(|change| self.lines(&change, paint));
        let blobs = self.blobs().map(|change| {
            let [from, to] = [change.from, change.to].map(|value| value.map(Blob::of).map(|blob| blob.to_string()));
            then(&format!("binaryData[{}]", change.key), from, to)
        });
        let [from, to] = [self.from, self.to].map(|side| side.content.immutable);
        let immutable = (from != to).then(|| then("immutable", from, to));
        let parts: Vec<_> = [entries].into_iter().chain(format).chain(texts).chain(blobs).chain(immutable).collect();
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// Everything, by names that stay.
    pub(super) fn value(&self) -> Value {
        let entries = match &self.entries {
            Ok(diff) => history::changes(diff),
            Err(problem) => json!({"unreadable": problem}),
        };
        let text = |it: Change<'_>| (it.key.to_owned(), self.lines(&it, Paint::none()).into());
        let blob = |it: Option<&str>| it.map(Blob::of).map(|it| json!({"bytes": it.bytes, "sha256": it.sha256}));
        let blobs = |it: Change<'_>| (it.key.to_owned(), json!({"from": blob(it.from), "to": blob(it.to)}));
        json!({
            "entries": entries,
            "format": {"from": self.from.catalog, "to": self.to.catalog},
            "data": self.texts().map(text).collect::<Map<_, _>>(),
            "binary_data": self.blobs().map(blobs).collect::<Map<_, _>>(),
            "immutable": {"from": self.from.content.immutable, "to": self.to.content.immutable},
        })
    }

    fn texts(&self) -> impl Iterator<Item = Change<'a>> {
        changes(&self.from.content.data, &self.to.content.data)
    }

    fn blobs(&self) -> impl Iterator<Item = Change<'a>> {
        changes(&self.from.content.binary_data, &self.to.content.binary_data)
    }

    /// The lines of a text that differ, with some around them, as `diff -u` prints them.
    fn lines(&self, change: &Change<'_>, paint: Paint) -> String {
        let key = format!("data[{}]", change.key);
        let of = |side: Side<'_>| format!("{key} of {}", side.name);
        let [from, to] = [change.from, change.to].map(Option::unwrap_or_default);
        let lines = TextDiff::configure().timeout(PATIENCE).diff_lines(from, to);
        let unified = lines.unified_diff().context_radius(CONTEXT).header(&of(self.from), &of(self.to)).to_string();
        if unified.is_empty() {
            // Empty, and not there at all, are the same lines.
            return then(&key, change.from.map(|_| "empty"), change.to.map(|_| "empty"));
        }
        let painted = |line: &str| match line.as_bytes() {
            [b'+', ..] => paint.good(line),
            [b'-', ..] => paint.bad(line),
            [b'@', ..] => paint.dim(line),
            _ => line.to_owned(),
        };
        unified.split_inclusive('\n').map(|line| painted(line.trim_end_matches('\n')) + "\n").collect()
    }
}

// === impl Side ===

impl Side<'_> {
    /// What it lists, or why that cannot be read.
    fn catalog(self) -> Result<Catalog, String> {
        let format = self.catalog.parse::<Format>().map_err(|unknown| unknown.to_string());
        let read = format.and_then(|format| Catalog::parse(format, self.content).map_err(|error| error.to_string()));
        read.map_err(|problem| format!("{} cannot be read as a catalog: {problem}", self.name))
    }
}

// === impl Blob ===

impl Blob {
    /// Of base64.
    fn of(base64: &str) -> Self {
        // What is not base64 the API server does not store.
        let bytes = STANDARD.decode(base64).unwrap_or_default();
        Self { bytes: bytes.len(), sha256: format!("{:x}", Sha256::digest(&bytes)) }
    }
}

impl Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes (sha256 {})", self.bytes, self.sha256)
    }
}

// === helpers ===

/// The keys whose values differ, sorted.
fn changes<'a>(from: &'a StringMap<'_>, to: &'a StringMap<'_>) -> impl Iterator<Item = Change<'a>> {
    let keys: BTreeSet<_> = from.iter().chain(to.iter()).map(|(key, _)| key).collect();
    let all = keys.into_iter().map(|key| Change { key, from: from.get(key), to: to.get(key) });
    all.filter(|change| change.from != change.to)
}

/// A line for each entry that differs.
fn marked(Diff { added, removed, replaced }: &Diff, paint: Paint) -> String {
    let added = added.iter().map(|entry| paint.good(&format!("+ entry {entry}")));
    let removed = removed.iter().map(|entry| paint.bad(&format!("- entry {entry}")));
    let replaced = replaced.iter().map(|entry| paint.bold(&format!("~ entry {entry} (another content)")));
    added.chain(removed).chain(replaced).map(|line| line + "\n").collect()
}

/// `what` was something, and is something else.
fn then(what: &str, from: Option<impl Display>, to: Option<impl Display>) -> String {
    let from = from.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
    let to = to.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
    format!("{what}: {from}, then {to}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(json: &Value) -> Content<'static> {
        let map = |name: &str| -> StringMap<'static> {
            let pairs = json[name].as_object().into_iter().flatten();
            pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
        };
        Content { data: map("data"), binary_data: map("binaryData"), immutable: json["immutable"].as_bool() }
    }

    fn between(catalog: &str, from: &Value, to: &Value, check: impl Fn(&Difference<'_>)) {
        let (from, to) = (content(from), content(to));
        let from = Side { name: "revision 1", catalog, content: &from };
        let to = Side { name: "revision 2", catalog, content: &to };
        check(&Difference::between(from, to));
    }

    fn models(versions: &[&str]) -> Value {
        let entry = |version: &&str| format!("- {{name: x, version: {version}}}\n");
        json!({"data": {"models.yaml": versions.iter().map(entry).collect::<String>()}})
    }

    #[test]
    fn entries_come_first_and_then_the_lines_that_differ() {
        between("yaml", &models(&["v1", "v2", "v3", "v4"]), &models(&["v2", "v3", "v4", "v5"]), |difference| {
            let expected = "\
+ entry x@v5
- entry x@v1

--- data[models.yaml] of revision 1
+++ data[models.yaml] of revision 2
@@ -1,4 +1,4 @@
-- {name: x, version: v1}
 - {name: x, version: v2}
 - {name: x, version: v3}
 - {name: x, version: v4}
+- {name: x, version: v5}
";
            assert_eq!(difference.table(Paint::none()), expected);
            let value = difference.value();
            assert_eq!(value["entries"], json!({"added": ["x@v5"], "removed": ["x@v1"], "replaced": []}));
            assert!(
                value["data"]["models.yaml"].as_str().unwrap().starts_with("--- data[models.yaml] of revision 1\n")
            );
        });
    }

    #[test]
    fn every_byte_that_differs_shows() {
        let from = json!({"data": {"a": "x\n", "b": "", "same": "s"}, "binaryData": {"blob": "AAE=", "gone": ""}});
        let to = json!({"data": {"a": "x", "c": "", "same": "s"}, "binaryData": {"blob": "AAI="}, "immutable": false});
        between("keys", &from, &to, |difference| {
            let expected = "\
+ entry c
- entry b
- entry gone
~ entry a (another content)
~ entry blob (another content)

--- data[a] of revision 1
+++ data[a] of revision 2
@@ -1 +1 @@
-x
+x
\\ No newline at end of file

data[b]: empty, then nothing

data[c]: nothing, then empty

binaryData[blob]: 2 bytes (sha256 b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2), then 2 bytes (sha256 fcf0a6c700dd13e274b6fba8deea8dd9b26e4eedde3495717cac8408c9c5177f)

binaryData[gone]: 0 bytes (sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855), then nothing

immutable: nothing, then false
";
            assert_eq!(difference.table(Paint::none()), expected);
        });
    }

    #[test]
    fn equal_contents_differ_in_nothing() {
        between("yaml", &models(&["v1"]), &models(&["v1"]), |difference| {
            assert_eq!(difference.table(Paint::none()), "");
        });
    }

    #[test]
    fn a_side_that_cannot_be_read_is_named_and_still_compared() {
        let broken = json!({"data": {"models.yaml": "- name: ["}});
        between("yaml", &models(&["v1"]), &broken, |difference| {
            let text = difference.table(Paint::none());
            assert!(text.starts_with("revision 2 cannot be read as a catalog: key \"models.yaml\", line 1"), "{text}");
            assert!(text.contains("+- name: ["), "{text}");
        });
    }

    #[test]
    fn texts_without_a_line_in_common_do_not_take_for_ever() {
        let text = |salt: usize| (0..60_000).map(|line| format!("{}\n", line * 2 + salt)).collect::<String>();
        let started = std::time::Instant::now();
        let [from, to] = [0, 1].map(|salt| json!({"data": {"a": text(salt)}}));
        between("keys", &from, &to, |difference| assert!(!difference.table(Paint::none()).is_empty()));
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
