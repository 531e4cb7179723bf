//! From one HTTP request to its HTTP response.

use super::answer::{self, answer};
use super::body::{self, Received};
use super::convert::{Asked, Identity, Known};
use super::judge::judge;
use super::review::{Operation, Review, Unreadable, salvage_uid};
use super::shares::{Full, Pool};
use crate::connections::Connection;
use crate::event::Event;
use crate::metrics::{Metrics, RequestLabels, Shed};
use crate::policy::{self, Decision, Denial, Request, Terms};
use crate::record::{Digests, Log, Object, Outcome, Record, Schema, Verdict};
use crate::reference::CatalogKey;
use crate::shutdown::Shutdown;
use crate::world::World;
use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use axum::http::{StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::FutureExt;
use json_patch::Patch;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

/// The longest that the API server waits for a webhook: who says more wants to keep us busy.
const LONGEST: Duration = Duration::from_secs(30);

/// The peer of a request that came over no connection.
const NOBODY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// What is too much, and too long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections that are open at once.
    pub connections: usize,
    /// The most requests that `/validate` judges at once; one address gets less than half of them.
    pub validate: usize,
    /// The most requests that `/mutate` judges at once; one address gets less than half of them.
    pub mutate: usize,
    /// The largest body, in bytes.
    pub body: usize,
    /// What all bodies together may take at once, in bytes; one body gets a third at most, those of one address less
    /// than half.
    pub bodies: usize,
    /// How long a request may take that does not say how long it waits.
    pub timeout: Duration,
    /// How much sooner than the client gives up the answer is ready, so that it arrives.
    pub margin: Duration,
}

/// What handles requests: shared by all of them.
pub struct App<W> {
    world: Arc<W>,
    own: Option<Box<str>>,
    limits: Limits,
    validate: Pool,
    mutate: Pool,
    /// For what says that it is modelguard's own.
    own_slots: Pool,
    bodies: Pool,
    metrics: Metrics,
    log: Log,
    shutdown: Shutdown,
}

/// Which of the two webhooks is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Path {
    Mutate,
    Validate,
}

/// What a review comes to.
#[derive(Debug, Default)]
struct Judged<'a> {
    /// Of the object, where it has been read; else it is looked for in the review.
    identity: Option<Identity<'a>>,
    decision: Decision,
    patch: Option<Patch>,
    digests: Digests,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Two for each slot. One takes 25 to 100 kB, so this is 100 MB at most.
            connections: 1024,
            // A review and what is read for it take some 100 kB, and two cores judge thousands a second: more at
            // once only means that reads hang.
            validate: 256,
            mutate: 256,
            // Two ConfigMaps of 1 MiB whose every byte is escaped, and room.
            body: 16 << 20,
            // Three of the largest, or 256 KiB for each request that is judged at once. A buffer that grows takes up to
            // twice what is in it, 128 MiB then: the chart's memory limit must leave room for what is parsed, and for
            // the index.
            bodies: 64 << 20,
            // What the API server waits by default.
            timeout: Duration::from_secs(10),
            margin: Duration::from_millis(250),
        }
    }
}

// === impl Limits ===

impl Limits {
    /// How long the answer to a request with this query may take.
    ///
    /// The API server says how long it waits as `?timeout=5s`; what cannot be read counts as not said.
    fn patience(&self, query: Option<&str>) -> Duration {
        let said = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("timeout="));
        let timeout = said.and_then(go_duration).unwrap_or(self.timeout).min(LONGEST);
        timeout.saturating_sub(self.margin).max(timeout / 2)
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `1.5s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len())];
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[digits + unit.len()..];
    }
    (!sum.is_zero()).then_some(sum)
}

// === impl App ===

impl<W> fmt::Debug for App<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("own", &self.own).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<W: World> App<W> {
    /// Puts it together.
    pub fn new(
        world: Arc<W>,
        own: Option<Box<str>>,
        limits: Limits,
        metrics: Metrics,
        log: Log,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            world,
            own,
            validate: Pool::new(limits.validate),
            mutate: Pool::new(limits.mutate),
            own_slots: Pool::new(limits.validate),
            bodies: Pool::new(limits.bodies),
            limits,
            metrics,
            log,
            shutdown,
        }
    }

    /// The routes of the webhook.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/mutate", post(mutate))
            .route("/validate", post(validate))
            .fallback(|| async { (StatusCode::NOT_FOUND, "expected POST /validate or POST /mutate\n") })
            .layer(middleware::from_fn_with_state(self.clone(), say_goodbye))
            .with_state(self.clone())
    }

    async fn respond(&self, path: Path, request: HttpRequest) -> Response {
        let started = Instant::now();
        let deadline = started + self.limits.patience(request.uri().query());
        let _in_flight = self.metrics.enter();
        let (head, body) = request.into_parts();
        let connection = head.extensions.get::<Connection>();
        let peer = connection.map_or(NOBODY, Connection::peer);
        let mut received = match body::read(body, self.limits.body, self.bodies.share(peer), deadline).await {
            Ok(received) => received,
            Err(Full) => return self.no_room(path, started),
        };
        let _busy = connection.map(Connection::busy);
        let Received { bytes, problem, .. } = &mut received;
        match problem.take().map_or_else(|| parse(&head.headers, bytes), Err) {
            Err(why) => self.refuse(path, bytes, &why, started),
            Ok(review) => {
                self.metrics.read(bytes.len());
                let judged = self.review(path, &review, peer, deadline).await;
                self.conclude(path, &review, &judged, started)
            }
        }
    }

    /// Judges a review, if there is room for it, until the deadline.
    async fn review<'a>(&self, path: Path, review: &Review<'a>, peer: IpAddr, deadline: Instant) -> Judged<'a> {
        let span = Span::current();
        span.record("uid", display(&review.uid)).record("operation", display(review.operation));
        span.record("namespace", display(&review.namespace)).record("name", display(&review.name));
        let caller = review.caller(self.own.as_deref());
        // A lift is written inside somebody's admission and must not wait behind those who wait for it. But everybody
        // can say to be us.
        let slots = if caller.own { &self.own_slots } else { self.slots(path) };
        let slot = slots.one(peer);
        if slot.is_err() {
            self.metrics.shed(Shed::Concurrency);
            let what = "too many requests are being judged at once, so it is not allowed.";
            return policy::not_verified(&review.subject(), what, policy::REPEAT, Vec::new()).into();
        }
        let work = async {
            let judged = match path {
                Path::Mutate => self.mutated(review),
                Path::Validate => self.validated(review).await,
            };
            judged.unwrap_or_else(|why| answer::unreadable(&why).into())
        };
        match timeout_at(deadline, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(judged)) => judged,
            Ok(Err(_panic)) => {
                tracing::error!("a defect in modelguard kept it from judging a request");
                let what = "a defect in modelguard kept it from being judged, so it is not allowed.";
                let next = "An admin looks at modelguard's logs.";
                let denial = policy::not_verified(&review.subject(), what, next, Vec::new());
                Denial { status: 500, retry_after: None, ..denial }.into()
            }
            Err(_elapsed) => {
                self.metrics.deadline_exceeded();
                let what = "what the decision needs was not read in time, so it is not allowed.";
                policy::not_verified(&review.subject(), what, policy::REPEAT, Vec::new()).into()
            }
        }
    }

    async fn validated<'a>(&self, review: &Review<'a>) -> Result<Judged<'a>, Unreadable> {
        let Asked::Judge(mut request) = review.asked(review.caller(self.own.as_deref()))? else {
            return Ok(Judged::default());
        };
        let mut decision = judge(&*self.world, &mut request, &review.requester()).await;
        let (mut digests, mut identity) = (Digests::default(), None);
        if let Request::Catalog(change) = &request {
            digests = Digests::of(change);
            identity = Some(Identity::of(change));
            let settle = std::mem::take(&mut decision.settle);
            if !settle.is_empty() && !change.caller.dry_run {
                self.world.settle(&change.key, settle);
            }
        }
        Ok(Judged { identity, decision, patch: None, digests })
    }

    fn mutated<'a>(&self, review: &Review<'a>) -> Result<Judged<'a>, Unreadable> {
        let caller = review.caller(self.own.as_deref());
        let Asked::Judge(Request::Catalog(change)) = review.asked(caller)? else {
            return Err(review.stranger());
        };
        let (epoch, guard) = (self.world.epoch(&change.sharing()), self.world.guard());
        let terms = Terms { epoch, guard, now: jiff::Timestamp::now() };
        let mutation = policy::mutate(&change, &terms);
        let patch = answer::patch(&change, &mutation);
        let identity = Some(Identity::of(&change));
        Ok(Judged { identity, decision: mutation.decision, patch, digests: Digests::of(&change) })
    }

    fn slots(&self, path: Path) -> &Pool {
        match path {
            Path::Mutate => &self.mutate,
            Path::Validate => &self.validate,
        }
    }

    // --- answers ---

    /// Answers a review, and tells everybody who wants to know.
    fn conclude(&self, path: Path, review: &Review<'_>, judged: &Judged<'_>, started: Instant) -> Response {
        let decision = &judged.decision;
        let known = Known::of(review);
        let webhook = path.webhook(known);
        let identity = judged.identity.clone().unwrap_or_else(|| review.identity());
        let took = started.elapsed();
        let labels = RequestLabels {
            webhook,
            operation: review.operation.as_str(),
            kind: known.map_or("other", Known::label),
            decision: Verdict::of(decision).as_str(),
            dry_run: if review.is_dry_run() { "true" } else { "false" },
        };
        let name = if review.name.is_empty() { identity.name.as_deref().unwrap_or_default() } else { &review.name };
        let object = Object {
            group: &review.kind.group,
            version: &review.kind.version,
            kind: &review.kind.kind,
            namespace: &review.namespace,
            name,
            uid: identity.uid.as_deref().unwrap_or_default(),
            resource_version: identity.resource_version.as_deref().unwrap_or_default(),
        };
        let record = Record {
            schema: Schema,
            ts: jiff::Timestamp::now().to_string(),
            id: &review.uid,
            webhook,
            operation: Some(review.operation.as_str()),
            subresource: &review.sub_resource,
            dry_run: review.is_dry_run(),
            object: Some(object),
            user: &review.user_info.username,
            outcome: Outcome::of(decision),
            digests: &judged.digests,
            latency_us: micros(took),
        };
        self.note(&record, &labels, decision, took);
        if let Some(event) = event(review, &record, decision) {
            self.world.announce(event);
        }
        json(answer(&review.uid, decision, &judged.digests, judged.patch.as_ref()).encode())
    }

    /// Answers what could not be read: with a denial if it can be said whose, else with an HTTP error.
    fn refuse(&self, path: Path, bytes: &[u8], why: &Unreadable, started: Instant) -> Response {
        if matches!(why, Unreadable::Late) {
            self.metrics.deadline_exceeded();
        }
        let decision = Decision::from(answer::unreadable(why));
        let uid = salvage_uid(bytes);
        self.note_unread(path, uid.as_deref().unwrap_or_default(), &decision, started);
        let Some(uid) = uid else {
            let status = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::BAD_REQUEST);
            return (status, format!("{why}\n")).into_response();
        };
        json(answer(&uid, &decision, &Digests::default(), None).encode())
    }

    /// Turns a request away whose body there is no memory for; the API server asks again by itself.
    fn no_room(&self, path: Path, started: Instant) -> Response {
        self.metrics.shed(Shed::Memory);
        let (status, why) = (StatusCode::TOO_MANY_REQUESTS, "too many large requests at once");
        let denial = policy::not_verified("an admission review", &format!("{why}."), policy::REPEAT, Vec::new());
        self.note_unread(path, "", &Denial { status: status.as_u16(), ..denial }.into(), started);
        let retry_after = HeaderValue::from(policy::RETRY_AFTER.as_secs());
        (status, [(RETRY_AFTER, retry_after)], format!("{why}\n")).into_response()
    }

    /// Tells everybody of a review of which no more is known than, perhaps, its uid.
    fn note_unread(&self, path: Path, uid: &str, decision: &Decision, started: Instant) {
        let took = started.elapsed();
        let webhook = path.webhook(None);
        let labels = RequestLabels {
            webhook,
            operation: "other",
            kind: "other",
            decision: Verdict::of(decision).as_str(),
            dry_run: "false",
        };
        let record = Record {
            schema: Schema,
            ts: jiff::Timestamp::now().to_string(),
            id: uid,
            webhook,
            operation: None,
            subresource: "",
            dry_run: false,
            object: None,
            user: "",
            outcome: Outcome::of(decision),
            digests: &Digests::default(),
            latency_us: micros(took),
        };
        self.note(&record, &labels, decision, took);
    }

    fn note(&self, record: &Record<'_>, labels: &RequestLabels, decision: &Decision, took: Duration) {
        self.metrics.answered(labels, took);
        match &decision.denial {
            None => match (&decision.granted, &decision.overlooked) {
                (Some(grant), Some(passed)) => {
                    self.metrics.break_glass();
                    let (until, reason) = (grant.until, &grant.reason);
                    tracing::warn!(%until, reason, message = passed.message, "passed by break-glass");
                }
                _ => tracing::debug!("allowed"),
            },
            Some(denial) => {
                self.metrics.denied(denial.code.id());
                tracing::info!(status = denial.status, message = denial.message, "denied");
            }
        }
        self.log.append(record.to_line());
    }
}

// === handlers ===

async fn mutate<W: World>(State(app): State<Arc<App<W>>>, request: HttpRequest) -> Response {
    app.respond(Path::Mutate, request).instrument(span("/mutate")).await
}

async fn validate<W: World>(State(app): State<Arc<App<W>>>, request: HttpRequest) -> Response {
    app.respond(Path::Validate, request).instrument(span("/validate")).await
}

fn span(path: &'static str) -> Span {
    tracing::info_span!("review", path, uid = Empty, operation = Empty, namespace = Empty, name = Empty)
}

/// Asks clients to take their next request elsewhere once the process is to stop: the API server keeps its
/// connections to a terminating pod, and would go on using them. HTTP/2 knows no such header, it gets GOAWAY.
async fn say_goodbye<W: World>(State(app): State<Arc<App<W>>>, request: HttpRequest, next: Next) -> Response {
    let version = request.version();
    let mut response = next.run(request).await;
    if version < Version::HTTP_2 && app.shutdown.is_leaving() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

// === helpers ===

impl Path {
    /// Which webhook of the configuration sends this here.
    fn webhook(self, known: Option<Known>) -> &'static str {
        match (self, known) {
            (Self::Mutate, _) => "revision",
            (Self::Validate, Some(Known::ConfigMap)) => "catalog",
            (Self::Validate, Some(Known::Holder(_) | Known::ReplicaSetScale)) => "workload",
            (Self::Validate, None) => "other",
        }
    }
}

impl From<Denial> for Judged<'_> {
    fn from(denial: Denial) -> Self {
        Self { decision: denial.into(), ..Self::default() }
    }
}

/// What people should find beside the ConfigMap that a review is about, as `record` names it.
///
/// Nothing of a rehearsal; and what is not created yet has no place for it.
fn event(review: &Review<'_>, record: &Record<'_>, decision: &Decision) -> Option<Event> {
    let changes = matches!(review.operation, Operation::Delete | Operation::Update);
    let object = record.object.as_ref().filter(|_| Known::of(review) == Some(Known::ConfigMap))?;
    if !changes || review.is_dry_run() {
        return None;
    }
    Event::refused(CatalogKey::new(object.namespace, object.name), object.uid, decision)
}

/// Reads what came as a review.
fn parse<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Review<'a>, Unreadable> {
    let header = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = header(CONTENT_TYPE).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Unreadable::ContentType(super::review::printable(essence)));
    }
    if let Some(encoding) = header(CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return Err(Unreadable::ContentType(super::review::printable(&format!("{essence} in {encoding}"))));
    }
    Review::parse(body)
}

fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("5s", Some(5000)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1500)),
            ("1h0m0s", Some(3_600_000)),
            ("250000us", Some(250)),
            ("0s", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("1..5s", None),
            ("9999999999999999999999h", None),
        ] {
            assert_eq!(go_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn an_answer_is_ready_before_the_client_gives_up() {
        let limits = Limits::default();
        for (query, millis) in [
            (Some("timeout=5s"), 4750),
            (Some("a=b&timeout=2s"), 1750),
            (Some("timeout=300ms"), 150),
            (Some("timeout=soon"), 9750),
            (Some("timeout=1000h"), 29_750),
            (None, 9750),
        ] {
            assert_eq!(limits.patience(query), Duration::from_millis(millis), "{query:?}");
        }
    }
}
