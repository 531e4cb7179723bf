//! `modelguard history`: the revisions of a model ConfigMap that are kept.

use crate::catalog::{Diff, EntryName};
use crate::cli::connect::{Cluster, Namespaced};
use crate::cli::output::{self, Format, Paint};
use crate::cli::stored::Stored;
use crate::cli::{Exit, block_on};
use crate::history::{History, Past, Place};
use crate::object::{Content, StringMap};
use crate::policy::Version;
use crate::reference::CatalogKey;
use crate::revision::restore::{Target, UnknownTarget};
use crate::world::cluster::history;
use anyhow::Context as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The columns of the table.
const COLUMNS: [&str; 5] = ["REVISION", "WRITTEN", "BY", "ENTRIES", "KEPT"];

/// The most entries that a row names.
const ENTRIES: usize = 5;

/// Which ConfigMap is meant, for every command about one's revisions.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Of {
    /// Name of the model ConfigMap; one that is gone has its revisions for 30 days
    #[arg(value_name = "CONFIGMAP")]
    name: String,
    #[command(flatten)]
    at: Namespaced,
}

/// What `history` was typed with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    output: output::Args,
}

/// Looks, and prints what is kept.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let history = block_on(args.of.read())??;
    output::print(&match args.output.output {
        Format::Json => format!("{}\n", value(&history)),
        Format::Yaml => output::yaml(&value(&history))?,
        Format::Table => table(&history, Paint::stdout()),
    })?;
    Ok(Exit::Fine)
}

// === impl Of ===

impl Of {
    /// What is kept of it, as it is now.
    pub(super) async fn read(&self) -> anyhow::Result<History> {
        let cluster = self.at.connect().await?;
        let key = CatalogKey::new(&cluster.namespace, &self.name);
        let stored = Stored::read(&cluster, &key).await?;
        read(&cluster, &key, stored.as_ref()).await
    }
}

/// What is kept of a ConfigMap that is stored so.
pub(super) async fn read(cluster: &Cluster, key: &CatalogKey, stored: Option<&Stored>) -> anyhow::Result<History> {
    let shelf = history::everything(&cluster.client, key).await?;
    let version = stored.map(Stored::object).transpose()?.map(Version::stored);
    History::of(key.clone(), version.as_ref(), &shelf)
        .with_context(|| format!("there is no model ConfigMap {key}, and nothing is kept of one"))
}

/// Reads what names a revision.
pub(super) fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error: UnknownTarget| error.to_string())
}

/// Which revisions there are, in words.
pub(super) fn kept(history: &History) -> String {
    let earlier: Vec<_> = history.earlier().map(|past| past.number.to_string()).collect();
    let kept = match &earlier[..] {
        [] => "no other is kept".to_owned(),
        [one] => format!("kept is {one}"),
        some => format!("kept are {}", some.join(", ")),
    };
    match history.current() {
        Some(current) => format!("{kept}, and the current one is {}", current.number),
        None => format!("{kept}, and the ConfigMap is gone"),
    }
}

// === for people ===

fn table(history: &History, paint: Paint) -> String {
    let changes = history.changes();
    let before = std::iter::once(None).chain(history.revisions.iter().map(Some));
    let rows = history.revisions.iter().zip(before).zip(&changes);
    let rows: Vec<_> = rows.map(|((past, before), diff)| row(past, before, diff.as_ref())).collect();
    output::table(COLUMNS, &rows, paint)
}

fn row(past: &Past, before: Option<&Past>, diff: Option<&Diff>) -> [String; 5] {
    let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let entries = match (&past.content, past.catalog()) {
        (Err(damage), _) => format!("damaged: {damage}"),
        (Ok(_), None) => "cannot be read as a catalog".to_owned(),
        (Ok(_), Some(catalog)) => {
            let count = catalog.names().count();
            // Of a change that happened in between nothing is known.
            let since = before.filter(|before| before.number + 1 < past.number);
            let since = since.map(|before| format!(" (since revision {})", before.number)).unwrap_or_default();
            diff.and_then(changed).map_or_else(|| count.to_string(), |changed| format!("{count}: {changed}{since}"))
        }
    };
    let kept = past.place.name().to_owned();
    [past.number.to_string(), or_nothing(&past.time), or_nothing(&past.manager), entries, kept]
}

/// `+a -b ~c`; `None` where nothing is another.
fn changed(diff: &Diff) -> Option<String> {
    let marked = |mark, entries: &BTreeSet<_>| {
        entries.iter().map(|entry: &EntryName| format!("{mark}{entry}")).collect::<Vec<_>>()
    };
    let all = [marked('+', &diff.added), marked('-', &diff.removed), marked('~', &diff.replaced)].concat();
    let more = all.len().saturating_sub(ENTRIES);
    let more = (more > 0).then(|| format!("and {more} more"));
    let shown: Vec<_> = all.into_iter().take(ENTRIES).chain(more).collect();
    (!shown.is_empty()).then(|| shown.join(" "))
}

// === for programs ===

fn value(history: &History) -> Value {
    let changes = history.changes();
    let revisions: Vec<_> =
        history.revisions.iter().zip(&changes).map(|(past, diff)| one(past, diff.as_ref())).collect();
    let CatalogKey { namespace, name } = &history.config_map;
    json!({"namespace": namespace, "name": name, "uid": history.uid, "revisions": revisions})
}

fn one(past: &Past, diff: Option<&Diff>) -> Value {
    let content = past.content.as_ref();
    json!({
        "revision": past.number,
        "time": past.time,
        "manager": past.manager,
        "current": past.place == Place::Current,
        "kept": past.place.name(),
        "format": past.catalog,
        "digest": content.ok().map(|(digest, _)| digest.to_string()),
        "damage": content.err(),
        "entries": past.catalog().map(|catalog| names(catalog.names())),
        "changes": diff.map(changes),
        "content": content.ok().map(|(_, content)| stored(content)),
    })
}

/// What a change does to entries.
pub(super) fn changes(Diff { added, removed, replaced }: &Diff) -> Value {
    json!({"added": names(added), "removed": names(removed), "replaced": names(replaced)})
}

fn names<'e>(entries: impl IntoIterator<Item = &'e EntryName>) -> Value {
    entries.into_iter().map(EntryName::as_str).collect()
}

/// A content as a ConfigMap has it.
fn stored(content: &Content<'_>) -> Value {
    let map =
        |map: &StringMap<'_>| map.iter().map(|(key, value)| (key.to_owned(), value.into())).collect::<Map<_, _>>();
    json!({"data": map(&content.data), "binaryData": map(&content.binary_data), "immutable": content.immutable})
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::revision;

    fn past(number: u64, entries: &[&str], place: Place) -> Past {
        let data = entries.iter().map(|entry| (entry.to_string(), String::new())).collect();
        let content = Content { data, ..Content::default() };
        Past {
            number,
            time: Some(format!("2026-11-30T12:00:0{number}Z")),
            manager: Some("helm".to_owned()),
            catalog: "keys".to_owned(),
            content: Ok((revision::digest(&content), content)),
            place,
        }
    }

    /// Revisions of these numbers, the last of which may be the current one.
    pub(in crate::cli) fn history(numbers: &[u64], is_there: bool) -> History {
        let place = |number| match number == numbers.last() {
            true if is_there => Place::Current,
            _ => Place::Annotation,
        };
        let revisions = numbers.iter().map(|number| past(*number, &["v1"], place(Some(number)))).collect();
        History { config_map: CatalogKey::new("prod", "models"), uid: "u".to_owned(), revisions }
    }

    #[test]
    fn the_table_is_for_people() {
        let mut history = history(&[], true);
        history.revisions = vec![
            past(1, &["v1"], Place::Beside("models-1a2b".to_owned())),
            past(2, &["v1", "v2"], Place::Beside("models-3c4d".to_owned())),
            past(4, &["v2", "v3"], Place::Annotation),
            Past { time: None, manager: None, ..past(5, &["v2", "v3"], Place::Current) },
        ];
        history.revisions[0].content = Err("does not match its digest".to_owned());
        let expected = "\
REVISION   WRITTEN                BY     ENTRIES                              KEPT
1          2026-11-30T12:00:01Z   helm   damaged: does not match its digest   models-1a2b
2          2026-11-30T12:00:02Z   helm   2                                    models-3c4d
4          2026-11-30T12:00:04Z   helm   2: +v3 -v1 (since revision 2)        annotation
5          -                      -      2                                    current
";
        assert_eq!(table(&history, Paint::none()), expected);
        assert_eq!(kept(&history), "kept are 1, 2, 4, and the current one is 5");
    }

    #[test]
    fn the_value_has_all_of_it() {
        let value = value(&history(&[1, 2], true));
        let newest = &value["revisions"][1];
        assert_eq!(
            (&newest["revision"], &newest["current"], &newest["damage"]),
            (&json!(2), &json!(true), &Value::Null)
        );
        assert_eq!(newest["content"], json!({"data": {"v1": ""}, "binaryData": {}, "immutable": null}));
        assert_eq!(newest["changes"], json!({"added": [], "removed": [], "replaced": []}));
        assert_eq!(value["revisions"][0]["changes"], Value::Null);
    }
}
