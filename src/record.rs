//! The decision record: what was asked, by whom, and what was answered, in one shape for log and audit.
//!
//! ```text
//! Record ──to_line──▶ one JSON line on stdout, written by a thread of its own, so that a slow reader of the
//!                     log never makes an admission request wait; what it cannot keep up with is counted
//! Decision ──audit_annotations──▶ the same facts in the API server's audit log, which knows who asked for what by itself
//! ```
//! Never data: an entry's name, a holder's name, a digest, and no more.

use crate::catalog::EntryName;
use crate::holder::Holders;
use crate::metrics::Metrics;
use crate::policy::{CatalogChange, Code, Decision, Version};
use prometheus_client::metrics::counter::Counter;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// Names the shape of a line; a change that readers must know of gets another one.
const SCHEMA: &str = "modelguard.dev/decision/v1";

/// What the record says of a decision that break-glass made, in the place of the guard's strictness.
const BREAK_GLASS: &str = "BreakGlass";

/// How many entries of each sort are named: a catalog of keys may lose thousands at once.
const MOST_ENTRIES: usize = 100;

/// The longest name that is written, in bytes. No name of an object is longer; but whoever reaches the port may send some of
/// megabytes, and thousands of lines and Events wait to be written.
const LONGEST_NAME: usize = 253;

/// The same of users: of a ServiceAccount 339 bytes, and whatever an identity provider calls people.
const LONGEST_USER: usize = 1024;

/// What most lines take, in bytes: a buffer that grows is copied time and again.
const USUAL_LINE: usize = 1024;

/// How many lines wait for the thread that writes them, at 1 or 2 kB each.
const MOST_WAITING: usize = 4096;

/// How long a line may wait for others. Where many come, waking the thread and writing cost as much as the decision;
/// what a crash may lose is still in the API server's audit log.
const GATHER: Duration = Duration::from_millis(5);

/// The longest audit annotation, in characters.
const LONGEST_ANNOTATION: usize = 1024;

/// In which of five ways a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Allowed, with nothing to say.
    Allow,
    /// Denied by a rule.
    Deny,
    /// Denied because it could not be judged.
    Error,
    /// Allowed with a warning.
    Warn,
    /// Allowed because the guard only records what it would deny.
    Audit,
}

/// One decision, as the log keeps it.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    pub(crate) schema: Schema,
    /// RFC 3339.
    pub(crate) ts: String,
    /// The review's uid.
    pub(crate) id: &'a str,
    pub(crate) webhook: &'static str,
    /// `null` where the review could not be read; so with all that only the review says.
    pub(crate) operation: Option<&'static str>,
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) object: Option<Object<'a>>,
    pub(crate) user: &'a str,
    #[serde(flatten)]
    pub(crate) outcome: Outcome<'a>,
    pub(crate) digests: &'a Digests,
    pub(crate) latency_us: u64,
}

/// Writes itself.
#[derive(Debug, Default)]
pub(crate) struct Schema;

/// What is decided on.
#[derive(Debug, Serialize)]
pub(crate) struct Object<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) resource_version: &'a str,
}

/// What a decision says.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome<'a> {
    allowed: bool,
    status: u16,
    code: Option<&'static str>,
    enforcement: &'static str,
    /// Why the rules were passed, in the requester's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    step: Option<u8>,
    entries: Entries<'a>,
    entries_total: usize,
    holders: Vec<Holder<'a>>,
    holders_total: usize,
    retry_after_s: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Entries<'a> {
    removed: Vec<&'a str>,
    replaced: Vec<&'a str>,
    added: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Holder<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    pods: usize,
}

/// Digests of a ConfigMap's content, as its revisions have them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Digests {
    old: Option<String>,
    new: Option<String>,
}

/// Where records go.
#[derive(Clone, Debug)]
pub struct Log {
    lines: SyncSender<Vec<u8>>,
    dropped: Counter,
}

/// The thread that writes a [`Log`].
#[derive(Debug)]
pub struct Writer {
    ended: oneshot::Receiver<io::Error>,
}

// === impl Verdict ===

impl Verdict {
    /// The verdict that a decision comes to.
    pub fn of(decision: &Decision) -> Self {
        match &decision.denial {
            Some(denial) if denial.code == Code::NotVerified => Self::Error,
            Some(_) => Self::Deny,
            None if !decision.warnings.is_empty() => Self::Warn,
            None if decision.overlooked.is_some() => Self::Audit,
            None => Self::Allow,
        }
    }

    /// As metrics and annotations write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Warn => "warn",
        }
    }
}

// === impl Record ===

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SCHEMA)
    }
}

impl<'a> Outcome<'a> {
    /// Sums up a decision.
    pub(crate) fn of(decision: &'a Decision) -> Self {
        let facts = &decision.facts;
        let denial = decision.denial.as_ref();
        let broken = denial.or(decision.overlooked.as_ref());
        let names =
            |entries: &'a BTreeSet<EntryName>| entries.iter().take(MOST_ENTRIES).map(EntryName::as_str).collect();
        Self {
            allowed: decision.allowed(),
            status: denial.map_or(200, |denial| denial.status),
            code: broken.map(|denial| denial.code.id()),
            enforcement: decision.granted.as_ref().map_or(facts.enforcement.as_str(), |_| BREAK_GLASS),
            reason: decision.granted.as_ref().map(|grant| grant.reason.as_str()),
            step: facts.step.map(|step| step.number()),
            entries: Entries {
                removed: names(&facts.removed),
                replaced: names(&facts.replaced),
                added: names(&facts.added),
            },
            entries_total: facts.removed.len() + facts.replaced.len() + facts.added.len(),
            holders: holders(&facts.holders),
            holders_total: facts.holders.workloads_total,
            retry_after_s: denial.and_then(|denial| denial.retry_after).map(whole_seconds),
        }
    }
}

fn holders(holders: &Holders) -> Vec<Holder<'_>> {
    let brief = holders.workloads.iter().map(|workload| Holder {
        kind: &workload.kind,
        namespace: &workload.namespace,
        name: &workload.name,
        pods: workload.pods,
    });
    brief.collect()
}

impl Digests {
    /// Hashes both contents; equal ones once.
    pub(crate) fn of(change: &CatalogChange<'_>) -> Self {
        let digest = |version: &Version<'_>| version.digest().to_string();
        match (&change.old, &change.new) {
            (Some(old), Some(_)) if change.keeps_content() => {
                let digest = digest(old);
                Self { old: Some(digest.clone()), new: Some(digest) }
            }
            (old, new) => Self { old: old.as_ref().map(digest), new: new.as_ref().map(digest) },
        }
    }
}

impl Record<'_> {
    /// The line, its end included.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(USUAL_LINE);
        serde_json::to_writer(&mut line, self).expect("strings and numbers under string keys are always JSON");
        line.push(b'\n');
        line
    }
}

/// A name as it is written: what is longer than names are is cut off.
pub(crate) fn short(name: &str) -> &str {
    start(name, LONGEST_NAME)
}

/// The same of a user.
pub(crate) fn short_user(user: &str) -> &str {
    start(user, LONGEST_USER)
}

fn start(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Seconds as HTTP counts them: whole, and never so few that the client comes back too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

// === audit annotations ===

/// The facts of the record whose id this is, under keys that the API server puts the webhook's name before.
pub(crate) fn audit_annotations(id: &str, decision: &Decision, digests: &Digests) -> BTreeMap<&'static str, String> {
    let (facts, outcome) = (&decision.facts, Outcome::of(decision));
    let mut annotations = BTreeMap::from([
        ("decision", Verdict::of(decision).as_str().to_owned()),
        ("enforcement", outcome.enforcement.to_owned()),
        ("id", id.to_owned()),
        ("status", outcome.status.to_string()),
    ]);
    if let Some(code) = outcome.code {
        annotations.insert("code", code.to_owned());
    }
    if let Some(retry_after) = outcome.retry_after_s {
        annotations.insert("retry_after_s", retry_after.to_string());
    }
    if let Some(grant) = &decision.granted {
        annotations.insert("break-glass", cut(&format!("until {}: {}", grant.until, grant.reason)));
    }
    if let Some(step) = facts.step {
        annotations.insert("step", step.number().to_string());
    }
    let entries = [("removed", &facts.removed), ("replaced", &facts.replaced), ("added", &facts.added)];
    let entries: Vec<_> = entries.into_iter().filter(|(_, names)| !names.is_empty()).map(listed).collect();
    if !entries.is_empty() {
        annotations.insert("entries", cut(&entries.join("; ")));
    }
    if !facts.holders.is_empty() {
        annotations.insert("holders", cut(&listed_holders(&facts.holders)));
    }
    let digests = [("old", &digests.old), ("new", &digests.new)];
    let digests: Vec<_> =
        digests.iter().filter_map(|(which, digest)| Some(format!("{which} {}", digest.as_ref()?))).collect();
    if !digests.is_empty() {
        annotations.insert("digests", digests.join("; "));
    }
    annotations
}

fn listed((how, names): (&str, &BTreeSet<EntryName>)) -> String {
    let names: Vec<_> = names.iter().take(MOST_ENTRIES).map(EntryName::as_str).collect();
    format!("{how} {}", names.join(", "))
}

fn listed_holders(holders: &Holders) -> String {
    let named = holders.workloads.iter();
    let named: Vec<_> =
        named.map(|one| format!("{} {}/{} ({} pods)", one.kind, one.namespace, one.name, one.pods)).collect();
    let more = holders.workloads_total.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ANNOTATION) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

// === impl Log ===

impl Log {
    /// Starts a thread that writes lines to `out`, and counts those that are lost.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(out: impl Write + Send + 'static, metrics: &Metrics) -> io::Result<(Self, Writer)> {
        let (lines, waiting) = sync_channel(MOST_WAITING);
        let (failed, ended) = oneshot::channel();
        thread::Builder::new().name("record".to_owned()).spawn(move || {
            if let Err(error) = write(out, &waiting) {
                // Nobody waits for it when the process ends anyway.
                let _ = failed.send(error);
            }
        })?;
        Ok((Self { lines, dropped: metrics.records_dropped() }, Writer { ended }))
    }

    /// Writes a line soon; never blocks.
    pub(crate) fn append(&self, line: Vec<u8>) {
        if self.lines.try_send(line).is_err() {
            self.dropped.inc();
        }
    }
}

/// Writes until every [`Log`] is dropped: all lines that wait at once.
fn write(mut out: impl Write, waiting: &Receiver<Vec<u8>>) -> io::Result<()> {
    while let Ok(mut lines) = waiting.recv() {
        thread::sleep(GATHER);
        waiting.try_iter().for_each(|line| lines.extend(line));
        out.write_all(&lines)?;
        out.flush()?;
    }
    Ok(())
}

impl Writer {
    /// Waits until the log cannot be written any more, or nobody is left to write to it and all is written.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub async fn run(self) -> io::Result<()> {
        match self.ended.await {
            Ok(error) => Err(error),
            Err(_all_written) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holder::Workload;
    use crate::policy::{Denial, Record as Facts, Step};
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn denied() -> Decision {
        let workload = Workload {
            kind: "Deployment".into(),
            namespace: "prod".into(),
            name: "extraction-api".into(),
            template: true,
            pods: 3,
            pod_names: Vec::new(),
            rollback_target: None,
            unreadable: None,
        };
        Decision {
            denial: Some(Denial {
                code: Code::EntrySettling,
                status: 429,
                message: "[MG103] extraction-models".to_owned(),
                causes: Vec::new(),
                retry_after: Some(Duration::from_secs(9)),
            }),
            facts: Facts {
                step: Some(Step::Remove),
                removed: [EntryName::new("extraction@v2").unwrap()].into(),
                holders: Holders { workloads: vec![workload], workloads_total: 2, pods_total: 3 },
                ..Facts::default()
            },
            ..Decision::default()
        }
    }

    #[test]
    fn a_name_is_cut_at_a_whole_character() {
        assert_eq!(short("models"), "models");
        assert_eq!(short(&"x".repeat(1 << 20)).len(), LONGEST_NAME);
        assert_eq!(short(&"ä".repeat(200)), "ä".repeat(126));
    }

    #[test]
    fn a_line_has_every_field_of_the_schema() {
        let decision = denied();
        let record = Record {
            schema: Schema,
            ts: "2026-11-20T09:12:44Z".to_owned(),
            id: "705ab4f5",
            webhook: "catalog",
            operation: Some("UPDATE"),
            subresource: "",
            dry_run: false,
            object: Some(Object {
                group: "",
                version: "v1",
                kind: "ConfigMap",
                namespace: "prod",
                name: "extraction-models",
                uid: "9b1d",
                resource_version: "42",
            }),
            user: "ci",
            outcome: Outcome::of(&decision),
            digests: &Digests { old: Some("aa".to_owned()), new: None },
            latency_us: 412,
        };
        let line = String::from_utf8(record.to_line()).unwrap();
        let expected = concat!(
            r#"{"schema":"modelguard.dev/decision/v1","ts":"2026-11-20T09:12:44Z","id":"705ab4f5","webhook":"catalog","#,
            r#""operation":"UPDATE","subresource":"","dry_run":false,"object":{"group":"","version":"v1","#,
            r#""kind":"ConfigMap","namespace":"prod","name":"extraction-models","uid":"9b1d","resource_version":"42"},"#,
            r#""user":"ci","allowed":false,"status":429,"code":"MG103","enforcement":"Deny","step":3,"#,
            r#""entries":{"removed":["extraction@v2"],"replaced":[],"added":[]},"entries_total":1,"#,
            r#""holders":[{"kind":"Deployment","namespace":"prod","name":"extraction-api","pods":3}],"#,
            r#""holders_total":2,"retry_after_s":9,"digests":{"old":"aa","new":null},"latency_us":412}"#,
            "\n",
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn audit_annotations_say_the_same() {
        let expected = [
            ("code", "MG103"),
            ("decision", "deny"),
            ("digests", "old aa; new bb"),
            ("enforcement", "Deny"),
            ("entries", "removed extraction@v2"),
            ("holders", "Deployment prod/extraction-api (3 pods) and 1 more"),
            ("id", "705ab4f5"),
            ("retry_after_s", "9"),
            ("status", "429"),
            ("step", "3"),
        ];
        let digests = Digests { old: Some("aa".to_owned()), new: Some("bb".to_owned()) };
        let denied = audit_annotations("705ab4f5", &denied(), &digests);
        assert_eq!(denied, expected.map(|(key, value)| (key, value.to_owned())).into());
        let allowed = audit_annotations("705ab4f5", &Decision::default(), &Digests::default());
        let expected = [("decision", "allow"), ("enforcement", "Deny"), ("id", "705ab4f5"), ("status", "200")];
        assert_eq!(allowed, expected.map(|(key, value)| (key, value.to_owned())).into());
    }

    #[test]
    fn waiting_is_counted_in_whole_seconds_rounded_up() {
        for (millis, seconds) in [(0, 1), (1000, 1), (1001, 2), (2500, 3)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn metrics() -> Metrics {
        Metrics::register(&mut crate::metrics::registry())
    }

    #[tokio::test]
    async fn all_lines_are_written_before_the_writer_ends() {
        let out = Shared::default();
        let (log, writer) = Log::start(out.clone(), &metrics()).unwrap();
        for line in 0..100 {
            log.append(format!("{line}\n").into_bytes());
        }
        drop(log);
        writer.run().await.unwrap();
        assert_eq!(out.0.lock().split(|byte| *byte == b'\n').count(), 101);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_ends_with_its_error() {
        let (log, writer) = Log::start(Closed, &metrics()).unwrap();
        log.append(b"lost\n".to_vec());
        assert_eq!(writer.run().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_line_that_finds_no_room_is_dropped_and_counted() {
        let dropped = Counter::default();
        let (lines, _never_read) = sync_channel(1);
        let log = Log { lines, dropped: dropped.clone() };
        log.append(b"kept\n".to_vec());
        log.append(b"lost\n".to_vec());
        assert_eq!(dropped.get(), 1);
    }
}
