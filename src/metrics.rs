//! Metrics: names and labels. No label is unbounded: each value comes from a closed set.
//!
//! Whoever has metrics of its own registers them in the same [`Registry`] before the admin server gets it.

use crate::audit::{Findings, Kind};
use crate::index::Index;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use std::fmt::Write as _;
use std::time::Duration;

pub use prometheus_client::registry::Registry;

/// Bounds in seconds: half a millisecond is what a pure decision takes, five seconds is the webhooks' timeout.
const DURATION_BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Bounds in bytes: from a small pod to the largest body that is read.
const BODY_BUCKETS: [f64; 8] = [1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Bounds in seconds of a LIST of every holder: milliseconds in a small cluster, and a client's patience in the largest.
const PROOF_BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The media type that a scraper asks for when it knows OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text";

/// The metrics of the process; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    denials: Family<DenialLabels, Counter>,
    body_bytes: Histogram,
    shed: Family<ShedLabels, Counter>,
    connections: Gauge,
    connections_shed: Counter,
    reloads: Family<ResultLabels, Counter>,
    certificate_expiry: Family<RoleLabels, Gauge>,
    in_flight: Gauge,
    deadline_exceeded: Counter,
    break_glass: Family<WebhookLabels, Counter>,
    records_dropped: Counter,
    leader: Gauge,
    index_synced: Gauge,
    watches_failing: Gauge,
    catalogs_without_epoch: Gauge,
    entries: Family<UsageLabels, Gauge>,
    proofs: Family<ResultLabels, Counter>,
    proof_duration: Histogram,
    events_lost: Family<EventLossLabels, Counter>,
    audit_findings: Family<FindingLabels, Gauge>,
    audit_last_success: Gauge,
    entries_restored: Counter,
}

/// What a request is counted under.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct RequestLabels {
    pub(crate) webhook: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) decision: &'static str,
    pub(crate) dry_run: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DurationLabels {
    webhook: &'static str,
    operation: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DenialLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WebhookLabels {
    webhook: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ShedLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct UsageLabels {
    usage: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EventLossLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FindingLabels {
    finding: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RoleLabels {
    role: &'static str,
}

/// Why a request was turned away unjudged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shed {
    /// Too many requests are being judged.
    Concurrency,
    /// Too many bytes of bodies are being held.
    Memory,
}

/// How many entries there are of each usage, as the controller of this replica sees them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct EntryCounts {
    pub(crate) in_use: usize,
    pub(crate) settling: usize,
    pub(crate) idle: usize,
}

/// Why an Event was not written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EventLoss {
    /// Too many different ones are remembered.
    Burst,
    /// The API server did not take it.
    Failed,
    /// Too many wait.
    Full,
}

/// Counts a request as in flight until it is dropped, be it answered or abandoned.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

/// A registry with our prefix and `build_info`.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("modelguard");
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program that is running", build);
    registry
}

/// All metrics as a scraper whose `Accept` is `accept` wants them: the media type, and the text.
pub fn render(registry: &Registry, accept: &str) -> (&'static str, String) {
    let mut open = String::new();
    let _ = text::encode(&mut open, registry); // A String takes all that is written to it.
    if accept.contains(OPEN_METRICS) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", open)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", classic(&open))
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers the transport's metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            denials: Family::default(),
            body_bytes: Histogram::new(BODY_BUCKETS),
            shed: Family::default(),
            connections: Gauge::default(),
            connections_shed: Counter::default(),
            reloads: Family::default(),
            certificate_expiry: Family::default(),
            in_flight: Gauge::default(),
            deadline_exceeded: Counter::default(),
            break_glass: Family::default(),
            records_dropped: Counter::default(),
            leader: Gauge::default(),
            index_synced: Gauge::default(),
            watches_failing: Gauge::default(),
            catalogs_without_epoch: Gauge::default(),
            entries: Family::default(),
            proofs: Family::default(),
            proof_duration: Histogram::new(PROOF_BUCKETS),
            events_lost: Family::default(),
            audit_findings: Family::default(),
            audit_last_success: Gauge::default(),
            entries_restored: Counter::default(),
        };
        // From the start, so that an increase can be told from a first appearance.
        for shed in [Shed::Concurrency, Shed::Memory] {
            drop(metrics.shed.get_or_create(&shed.labels()));
        }
        for webhook in ["catalog", "namespace", "scale", "workload"] {
            drop(metrics.break_glass.get_or_create(&WebhookLabels { webhook }));
        }
        for result in ["error", "ok"] {
            drop(metrics.reloads.get_or_create(&ResultLabels { result }));
            drop(metrics.proofs.get_or_create(&ResultLabels { result }));
        }
        for loss in [EventLoss::Burst, EventLoss::Failed, EventLoss::Full] {
            drop(metrics.events_lost.get_or_create(&loss.labels()));
        }
        metrics.count_entries(EntryCounts::default());
        metrics.count_findings(&Findings::default());
        metrics.enter_into(registry);
        metrics
    }

    fn enter_into(&self, registry: &mut Registry) {
        registry.register("admission_requests", "Admission requests answered", self.requests.clone());
        registry.register(
            "admission_duration_seconds",
            "Time from the first byte of an admission request to its answer",
            self.durations.clone(),
        );
        registry.register("admission_denials", "Admission requests denied, by code", self.denials.clone());
        registry.register("admission_body_bytes", "Sizes of the reviews that were read", self.body_bytes.clone());
        registry.register("admission_shed", "Admission requests turned away unjudged, by limit", self.shed.clone());
        registry.register("connections", "Open connections, to both ports", self.connections.clone());
        registry.register(
            "connections_shed",
            "Connections closed in favor of others, at the limit",
            self.connections_shed.clone(),
        );
        registry.register("admission_in_flight", "Admission requests being answered", self.in_flight.clone());
        registry.register(
            "admission_deadline_exceeded",
            "Admission requests denied because their time was up",
            self.deadline_exceeded.clone(),
        );
        registry.register(
            "break_glass",
            "Requests that passed the rules by break-glass, dry runs included",
            self.break_glass.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate expires, in Unix time",
            self.certificate_expiry.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changed certificates, by whether they could be used",
            self.reloads.clone(),
        );
        registry.register(
            "decision_log_dropped",
            "Decision records lost because they could not be written in time",
            self.records_dropped.clone(),
        );
        registry.register("events_dropped", "Events that were not written, by why", self.events_lost.clone());
        registry.register("leader", "Whether this replica moves entries forward", self.leader.clone());
        registry.register("index_synced", "Whether every kind of holder has been listed", self.index_synced.clone());
        registry.register(
            "index_watches_failing",
            "Watches that do not get on now, so that holders may be missing in denials and findings",
            self.watches_failing.clone(),
        );
        registry.register(
            "catalogs_without_epoch",
            "Model ConfigMaps whose proofs cannot go on, because what they rest on is not known",
            self.catalogs_without_epoch.clone(),
        );
        registry.register("entries", "Entries of all model ConfigMaps, by usage", self.entries.clone());
        registry.register("proofs", "LISTs of every holder, by whether they could be read", self.proofs.clone());
        registry.register(
            "proof_duration_seconds",
            "Time that a LIST of every holder took",
            self.proof_duration.clone(),
        );
        registry.register(
            "audit_findings",
            "What should not be there and is, by what it is",
            self.audit_findings.clone(),
        );
        registry.register(
            "audit_last_success_timestamp_seconds",
            "When the last audit looked at everything, in Unix time; 0 if none has yet",
            self.audit_last_success.clone(),
        );
        registry.register(
            "entries_restored",
            "Entries that were put back because workloads needed them",
            self.entries_restored.clone(),
        );
    }

    /// Notes how a round of the controller found things.
    pub(crate) fn round(&self, leads: bool, index: &Index, catalogs_without_epoch: usize, entries: EntryCounts) {
        self.leader.set(leads.into());
        self.index_synced.set(index.synced().into());
        self.watches_failing.set(gauged(index.failing().count()));
        self.catalogs_without_epoch.set(gauged(catalogs_without_epoch));
        self.count_entries(entries);
    }

    /// Counts a LIST of every holder.
    pub(crate) fn proof(&self, listed: bool, took: Duration) {
        let result = if listed { "ok" } else { "error" };
        self.proofs.get_or_create(&ResultLabels { result }).inc();
        self.proof_duration.observe(took.as_secs_f64());
    }

    /// Notes what an audit found, and when it did.
    pub(crate) fn audited(&self, findings: &Findings, unix_seconds: i64) {
        self.count_findings(findings);
        self.audit_last_success.set(unix_seconds);
    }

    /// Counts entries that were put back.
    pub(crate) fn restored(&self, entries: usize) {
        self.entries_restored.inc_by(entries as u64);
    }

    fn count_findings(&self, findings: &Findings) {
        for kind in Kind::ALL {
            self.audit_findings
                .get_or_create(&FindingLabels { finding: kind.name() })
                .set(gauged(findings.count(kind)));
        }
    }

    fn count_entries(&self, entries: EntryCounts) {
        let EntryCounts { in_use, settling, idle } = entries;
        for (usage, count) in [("InUse", in_use), ("Settling", settling), ("Idle", idle)] {
            self.entries.get_or_create(&UsageLabels { usage }).set(gauged(count));
        }
    }

    /// Notes how large a review is.
    pub(crate) fn read(&self, bytes: usize) {
        self.body_bytes.observe(bytes as f64);
    }

    /// Counts one more request as in flight.
    pub(crate) fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, labels: &RequestLabels, took: Duration) {
        let RequestLabels { webhook, operation, .. } = *labels;
        self.requests.get_or_create(labels).inc();
        self.durations.get_or_create(&DurationLabels { webhook, operation }).observe(took.as_secs_f64());
    }

    /// Counts a denial with this code.
    pub(crate) fn denied(&self, reason: &'static str) {
        self.denials.get_or_create(&DenialLabels { reason }).inc();
    }

    /// Counts a request that was turned away.
    pub(crate) fn shed(&self, shed: Shed) {
        self.shed.get_or_create(&shed.labels()).inc();
    }

    /// Counts one more open connection.
    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    /// Counts one less.
    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    /// Counts a connection that was closed in favor of another.
    pub(crate) fn connection_shed(&self) {
        self.connections_shed.inc();
    }

    /// Counts a request whose time was up.
    pub(crate) fn deadline_exceeded(&self) {
        self.deadline_exceeded.inc();
    }

    /// A request passed the rules by break-glass.
    pub(crate) fn break_glass(&self, webhook: &'static str) {
        self.break_glass.get_or_create(&WebhookLabels { webhook }).inc();
    }

    /// Counts a changed certificate that could be used, or not.
    pub(crate) fn reloaded(&self, usable: bool) {
        let result = if usable { "ok" } else { "error" };
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts an Event that was not written.
    pub(crate) fn event_lost(&self, loss: EventLoss) {
        self.events_lost.get_or_create(&loss.labels()).inc();
    }

    /// Notes when the certificate that is served expires.
    pub(crate) fn certificate_expires(&self, unix_seconds: i64) {
        self.certificate_expiry.get_or_create(&RoleLabels { role: "serving" }).set(unix_seconds);
    }

    /// The counter of lost decision records.
    pub(crate) fn records_dropped(&self) -> Counter {
        self.records_dropped.clone()
    }
}

fn gauged(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Shed {
    const fn labels(self) -> ShedLabels {
        let limit = match self {
            Self::Concurrency => "concurrency",
            Self::Memory => "memory",
        };
        ShedLabels { limit }
    }
}

impl EventLoss {
    const fn labels(self) -> EventLossLabels {
        let reason = match self {
            Self::Burst => "burst",
            Self::Failed => "failed",
            Self::Full => "full",
        };
        EventLossLabels { reason }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The older text format, for `promtool check metrics` and scrapers that know no other: there a family has the
/// name of its samples, and there is no `info`.
fn classic(open: &str) -> String {
    let mut classic = String::with_capacity(open.len());
    let types = open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut types = types.peekable();
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let Some((keyword, name, rest)) = descriptor(line) else {
            let _ = writeln!(classic, "{line}");
            continue;
        };
        // HELP stands before the TYPE of the same family, so that is the next one.
        let kind = types.peek().map_or("", |(_, kind)| kind);
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        let rest = if keyword == "TYPE" { kind } else { rest };
        let _ = writeln!(classic, "# {keyword} {name}{suffix} {rest}");
        if keyword == "TYPE" {
            types.next();
        }
    }
    classic
}

fn descriptor(line: &str) -> Option<(&str, &str, &str)> {
    let mut parts = line.strip_prefix("# ")?.splitn(3, ' ');
    Some((parts.next()?, parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Registry {
        let mut registry = registry();
        let metrics = Metrics::register(&mut registry);
        let labels = RequestLabels {
            webhook: "catalog",
            operation: "UPDATE",
            kind: "ConfigMap",
            decision: "deny",
            dry_run: "false",
        };
        metrics.answered(&labels, Duration::from_millis(3));
        metrics.denied("MG101");
        metrics.certificate_expires(1_800_000_000);
        registry
    }

    /// The families of the classic text, each with its kind.
    fn families(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE modelguard_")).collect()
    }

    #[test]
    fn dashboards_find_these_families() {
        let (_, text) = render(&sample(), "");
        let expected = [
            "build_info gauge",
            "admission_requests_total counter",
            "admission_duration_seconds histogram",
            "admission_denials_total counter",
            "admission_body_bytes histogram",
            "admission_shed_total counter",
            "connections gauge",
            "connections_shed_total counter",
            "admission_in_flight gauge",
            "admission_deadline_exceeded_total counter",
            "break_glass_total counter",
            "certificate_expiry_timestamp_seconds gauge",
            "certificate_reloads_total counter",
            "decision_log_dropped_total counter",
            "events_dropped_total counter",
            "leader gauge",
            "index_synced gauge",
            "index_watches_failing gauge",
            "catalogs_without_epoch gauge",
            "entries gauge",
            "proofs_total counter",
            "proof_duration_seconds histogram",
            "audit_findings gauge",
            "audit_last_success_timestamp_seconds gauge",
            "entries_restored_total counter",
        ];
        assert_eq!(families(&text), expected);
    }

    #[test]
    fn durations_are_told_apart_where_webhooks_are() {
        let (_, text) = render(&sample(), "");
        let bounds = text.lines().filter_map(|line| {
            let labels = line.strip_prefix("modelguard_admission_duration_seconds_bucket{le=\"")?;
            labels.split_once('"').map(|(bound, _)| bound)
        });
        let expected =
            "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 +Inf".split(' ').collect::<Vec<_>>();
        assert_eq!(bounds.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn samples_have_documented_names_and_labels() {
        let (_, text) = render(&sample(), "");
        for line in [
            concat!("modelguard_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "modelguard_admission_requests_total{webhook=\"catalog\",operation=\"UPDATE\",kind=\"ConfigMap\",\
             decision=\"deny\",dry_run=\"false\"} 1",
            "modelguard_admission_duration_seconds_bucket{le=\"0.005\",webhook=\"catalog\",operation=\"UPDATE\"} 1",
            "modelguard_admission_denials_total{reason=\"MG101\"} 1",
            "modelguard_admission_shed_total{limit=\"concurrency\"} 0",
            "modelguard_admission_in_flight 0",
            "modelguard_admission_deadline_exceeded_total 0",
            "modelguard_break_glass_total{webhook=\"catalog\"} 0",
            "modelguard_certificate_expiry_timestamp_seconds{role=\"serving\"} 1800000000",
            "modelguard_entries{usage=\"Settling\"} 0",
            "modelguard_certificate_reloads_total{result=\"error\"} 0",
            "modelguard_decision_log_dropped_total 0",
            "modelguard_events_dropped_total{reason=\"full\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    /// What `promtool check metrics` asks for: each sample belongs to a family with help and type, and suffixes
    /// mean what they say.
    #[test]
    fn the_classic_text_keeps_the_conventions() {
        let (_, text) = render(&sample(), "text/plain");
        let mut family = ("", "");
        for line in text.lines() {
            match descriptor(line) {
                Some(("HELP", name, help)) => {
                    assert!(!help.is_empty(), "{line}");
                    family = (name, "");
                }
                Some(("TYPE", name, kind)) => {
                    assert_eq!(name, family.0, "HELP and TYPE are of one family");
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                    family = (name, kind);
                }
                _ => {
                    let name = line.split(['{', ' ']).next().unwrap();
                    let suffixes: &[&str] =
                        if family.1 == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
                    let suffix = name.strip_prefix(family.0).unwrap_or_else(|| panic!("{line} is not of {family:?}"));
                    assert!(suffixes.contains(&suffix), "{line} is not of {family:?}");
                }
            }
        }
    }

    #[test]
    fn a_scraper_that_knows_open_metrics_gets_it() {
        let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5";
        let (media_type, text) = render(&sample(), accept);
        assert!(media_type.starts_with(OPEN_METRICS));
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains("# TYPE modelguard_admission_requests counter"));
    }

    #[test]
    fn a_request_is_in_flight_until_it_is_dropped() {
        let mut registry = registry();
        let metrics = Metrics::register(&mut registry);
        let one = metrics.enter();
        assert_eq!(metrics.in_flight.get(), 1);
        drop(one);
        assert_eq!(metrics.in_flight.get(), 0);
    }
}
