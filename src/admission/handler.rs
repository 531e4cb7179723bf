//! From one HTTP request to its HTTP response.

use super::answer::{self, answer};
use super::body::{self, Received};
use super::convert::{Asked, Identity, Known};
use super::judge;
use super::limits::{Limits, weight};
use super::review::{Operation, Review, Unreadable, salvage_uid};
use super::shares::{Full, Pool};
use crate::audit;
use crate::connections::Connection;
use crate::event::Event;
use crate::metrics::{Metrics, RequestLabels, Shed};
use crate::object::HolderKind;
use crate::policy::{self, Decision, Denial, Request};
use crate::record::{Digests, Log, Object, Outcome, Record, Schema, Verdict, short, short_user};
use crate::reference::CatalogKey;
use crate::shutdown::Shutdown;
use crate::world::World;
use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use axum::http::{StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::FutureExt;
use json_patch::Patch;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

/// The peer of a request that came over no connection.
const NOBODY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

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
struct Judged {
    decision: Decision,
    patch: Option<Patch>,
    digests: Digests,
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
            .with_state(self.clone())
    }

    /// Answers, and asks for the next request to be taken elsewhere once the process is to stop: the API server keeps its
    /// connections to a terminating pod, and would go on using them. HTTP/2 knows no such header, it gets GOAWAY.
    async fn serve(&self, path: Path, request: HttpRequest) -> Response {
        let version = request.version();
        let mut response = self.respond(path, request).await;
        if version < Version::HTTP_2 && self.shutdown.is_leaving() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
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
        let size = bytes.len();
        match problem.take().map_or_else(|| parse(&head.headers, bytes), Err) {
            Err(why) => self.refuse(path, bytes, &why, started),
            Ok(mut review) => {
                self.metrics.read(size);
                let identity = review.identity();
                let Review { uid, operation, namespace, name, .. } = &review;
                // Written out it took 3 µs, and of most reviews nothing is logged.
                let span = tracing::debug_span!("review", path = path.as_str(), %uid, %operation, %namespace, %name);
                let judged = {
                    // It is large, so it stays where it is: each wrapper would copy it.
                    let judge = pin!(self.review(path, &mut review, (peer, size), deadline));
                    judge.instrument(span).await
                };
                self.conclude(path, &review, &identity, &judged, started)
            }
        }
    }

    /// Judges a review, if there is room for it, until the deadline.
    async fn review(
        &self,
        path: Path,
        review: &mut Review<'_>,
        (peer, size): (IpAddr, usize),
        deadline: Instant,
    ) -> Judged {
        let caller = review.caller(self.own.as_deref());
        // A lift is written inside somebody's admission and must not wait behind those who wait for it. But everybody
        // can say to be us.
        let slots = if caller.own { &self.own_slots } else { self.slots(path) };
        let turn = slots.turn(peer, weight(size));
        let slot = timeout_at(deadline, turn).await.ok().and_then(Result::ok);
        if slot.is_none() {
            self.metrics.shed(Shed::Concurrency);
            let what = "too many requests are being judged at once, so it is not allowed.";
            return policy::not_verified(&review.subject(), what, policy::REPEAT, Vec::new()).into();
        }
        let judged = {
            let work = pin!(async {
                let judged = match path {
                    Path::Mutate => self.mutated(review).await,
                    Path::Validate => self.validated(review).await,
                };
                judged.unwrap_or_else(|why| answer::unreadable(&why).into())
            });
            timeout_at(deadline, AssertUnwindSafe(work).catch_unwind()).await
        };
        match judged {
            Ok(Ok(judged)) => judged,
            Ok(Err(_panic)) => {
                let (uid, subject) = (&review.uid, review.subject());
                tracing::error!(%uid, subject, "a defect in modelguard kept it from judging a request");
                let what = "a defect in modelguard kept it from being judged, so it is not allowed.";
                let next = "An admin looks at modelguard's logs.";
                let denial = policy::not_verified(&subject, what, next, Vec::new());
                Denial { status: 500, retry_after: None, ..denial }.into()
            }
            Err(_elapsed) => {
                self.metrics.deadline_exceeded();
                let what = "what the decision needs was not read in time, so it is not allowed.";
                policy::not_verified(&review.subject(), what, policy::REPEAT, Vec::new()).into()
            }
        }
    }

    async fn validated(&self, review: &mut Review<'_>) -> Result<Judged, Unreadable> {
        let (caller, guard) = (review.caller(self.own.as_deref()), self.world.guard());
        let Asked::Judge(mut request) = review.asked(caller, guard)? else {
            return Ok(Judged::default());
        };
        let mut decision = judge::judge(&*self.world, &mut request, &review.user_info).await;
        let mut digests = Digests::default();
        if let Request::Catalog(change) = &request {
            digests = Digests::of(change);
            let settle = std::mem::take(&mut decision.settle);
            if !settle.is_empty() && !change.caller.dry_run {
                self.world.settle(&change.key, settle);
            }
        }
        if !decision.close.is_empty() {
            self.world.close(std::mem::take(&mut decision.close));
        }
        Ok(Judged { decision, patch: None, digests })
    }

    async fn mutated(&self, review: &mut Review<'_>) -> Result<Judged, Unreadable> {
        let (caller, guard) = (review.caller(self.own.as_deref()), self.world.guard());
        let Asked::Judge(Request::Catalog(change)) = review.asked(caller, guard)? else {
            return Err(review.stranger());
        };
        let mutation = judge::mutate(&*self.world, &change, &review.user_info).await;
        let patch = mutation.decision.allowed().then(|| answer::patch(&change, &mutation)).flatten();
        Ok(Judged { decision: mutation.decision, patch, digests: Digests::of(&change) })
    }

    fn slots(&self, path: Path) -> &Pool {
        match path {
            Path::Mutate => &self.mutate,
            Path::Validate => &self.validate,
        }
    }

    // --- answers ---

    /// Answers a review, and tells everybody who wants to know.
    fn conclude(
        &self,
        path: Path,
        review: &Review<'_>,
        identity: &Identity<'_>,
        judged: &Judged,
        started: Instant,
    ) -> Response {
        let decision = &judged.decision;
        let known = Known::of(review);
        let webhook = path.webhook(known);
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
            group: short(&review.kind.group),
            version: short(&review.kind.version),
            kind: short(&review.kind.kind),
            namespace: short(&review.namespace),
            name: short(name),
            uid: short(identity.uid.as_deref().unwrap_or_default()),
            resource_version: short(identity.resource_version.as_deref().unwrap_or_default()),
        };
        let record = Record {
            schema: Schema,
            ts: jiff::Timestamp::now().to_string(),
            id: &review.uid,
            webhook,
            operation: Some(review.operation.as_str()),
            subresource: short(&review.sub_resource),
            dry_run: review.is_dry_run(),
            object: Some(object),
            user: short_user(&review.user_info.username),
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
        let Record { id: uid, webhook, operation, .. } = *record;
        let (namespace, name) = record.object.as_ref().map_or(("", ""), |object| (object.namespace, object.name));
        match &decision.denial {
            None => match (&decision.granted, &decision.overlooked) {
                (Some(grant), Some(passed)) => {
                    self.metrics.break_glass(webhook);
                    let (until, reason) = (grant.until, &grant.reason);
                    let message = &passed.message;
                    tracing::warn!(uid, webhook, operation, namespace, name, %until, reason, message, "passed by break-glass");
                }
                _ => tracing::debug!(uid, webhook, operation, namespace, name, "allowed"),
            },
            Some(denial) => {
                self.metrics.denied(denial.code.id());
                let Denial { status, message, .. } = denial;
                tracing::info!(uid, webhook, operation, namespace, name, status, message, "denied");
            }
        }
        self.log.append(record.to_line());
    }
}

// === handlers ===

async fn mutate<W: World>(State(app): State<Arc<App<W>>>, request: HttpRequest) -> Response {
    app.serve(Path::Mutate, request).await
}

async fn validate<W: World>(State(app): State<Arc<App<W>>>, request: HttpRequest) -> Response {
    app.serve(Path::Validate, request).await
}

// === helpers ===

impl Path {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Mutate => "/mutate",
            Self::Validate => "/validate",
        }
    }

    /// Which webhook of the configuration sends this here.
    fn webhook(self, known: Option<Known>) -> &'static str {
        match (self, known) {
            (Self::Mutate, _) => "revision",
            (Self::Validate, Some(Known::ConfigMap)) => "catalog",
            (Self::Validate, Some(Known::Namespace)) => "namespace",
            (Self::Validate, Some(Known::Holder(_) | Known::Scale(HolderKind::ReplicaSet))) => "workload",
            (Self::Validate, Some(Known::Scale(_))) => "scale",
            (Self::Validate, None) => "other",
        }
    }
}

impl From<Denial> for Judged {
    fn from(denial: Denial) -> Self {
        Self { decision: denial.into(), ..Self::default() }
    }
}

/// What people should find beside the object that a review is about, as `record` names it.
///
/// Nothing of a rehearsal; and what is not created yet has no place for it.
fn event(review: &Review<'_>, record: &Record<'_>, decision: &Decision) -> Option<Event> {
    let changes = matches!(review.operation, Operation::Delete | Operation::Update);
    let object = record.object.as_ref().filter(|_| changes && !review.is_dry_run())?;
    let Object { namespace, name, uid, .. } = *object;
    let overridden = |kind: &str, namespace: &str| {
        let object = audit::Object { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        Event::overridden(object, uid, record.user, decision)
    };
    match Known::of(review)? {
        Known::ConfigMap => Event::judged(&CatalogKey::new(namespace, name), uid, record.user, decision),
        Known::Holder(kind) | Known::Scale(kind) => overridden(kind.kind(), namespace),
        // A review of a namespace says that it is in itself.
        Known::Namespace => overridden("Namespace", ""),
    }
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
