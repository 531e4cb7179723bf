//! Events beside model ConfigMaps and what the audit finds, `events.k8s.io/v1`.
//!
//! ```text
//! a denial (every replica) ─────┐            ┌ first ─▶ LIST of that name: is it still that object? ─▶ create
//! Idle, findings (who leads) ───┴─▶ queue ─▶ Book
//!                                            └ again ─▶ patch of its series, every 10 s at most
//! ```
//! One write at a time: Events take at most one of the seats that admissions need. One that cannot be written is counted,
//! and never anything else. kube's own recorder would keep the first note of all that have one reason.

use super::trouble::Trouble;
use crate::audit::Object;
use crate::event::Event;
use crate::metrics::EventLoss;
use crate::names;
use crate::object::HolderKind;
use crate::policy::Unread;
use crate::world::cluster::{self, Cluster, answered};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ObjectReference};
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

/// So many events are taken from the queue at once.
const BATCH: usize = 64;

/// The least between two writes of one Event: a client in a loop asks hundreds of times a second.
const QUIET: Duration = Duration::from_secs(10);

/// An event that did not happen for so long begins anew: longer than the pauses of GitOps loops, and shorter than the
/// hour after which the API server forgets it.
const FORGET: Duration = Duration::from_secs(1800);

/// The most different events of one object that are remembered, and so written: a text that names pods changes while
/// they go. As in client-go.
const MOST_OF_ONE: usize = 25;

/// The most that are remembered of all objects, at some 1.5 kB each.
const MOST: usize = 1024;

/// Where the API server wants Events of what is in no namespace.
const NO_NAMESPACE: &str = "default";

/// What was announced lately.
#[derive(Debug, Default)]
struct Book(HashMap<Event, Series>);

/// One event, and how often it happened.
#[derive(Debug)]
struct Series {
    /// What the API server calls it; `None` before it is written.
    name: Option<String>,
    count: i32,
    seen: Instant,
    /// When it is to be written, if it is.
    due: Option<Instant>,
    written: Option<Instant>,
}

/// Writes what is announced, for ever; `instance` names this replica.
pub async fn announce(cluster: Cluster, instance: String, mut queue: mpsc::Receiver<Event>) {
    let mut book = Book::default();
    let mut trouble = Trouble::new("write Events");
    let mut news = Vec::with_capacity(BATCH);
    loop {
        let idle = Instant::now() + FORGET;
        tokio::select! {
            // The cluster has a sender too, so the queue never ends.
            _ = queue.recv_many(&mut news, BATCH) => {}
            () = sleep_until(book.next().unwrap_or(idle)) => {}
        }
        let now = Instant::now();
        for event in news.drain(..) {
            if !book.add(event, now) {
                cluster.metrics.event_lost(EventLoss::Burst);
            }
        }
        for event in book.due(now) {
            let Some(series) = book.0.get(&event) else { continue };
            let written = write(&cluster, &instance, &event, series).await;
            match &written {
                Ok(_) => trouble.over(),
                Err(error) => {
                    cluster.metrics.event_lost(EventLoss::Failed);
                    trouble.is(error);
                }
            }
            book.wrote(&event, written.ok().flatten(), Instant::now());
        }
    }
}

// === impl Book ===

impl Book {
    /// Takes in that something happened; whether there was room for it.
    fn add(&mut self, event: Event, now: Instant) -> bool {
        self.0.retain(|_, series| now < series.seen + FORGET || series.due.is_some());
        if let Some(series) = self.0.get_mut(&event) {
            series.again(now);
            return true;
        }
        let is_of_it = |other: &&Event| (&other.object, &other.uid) == (&event.object, &event.uid);
        let of_this_one = self.0.keys().filter(is_of_it).count();
        let has_room = self.0.len() < MOST && of_this_one < MOST_OF_ONE;
        if has_room {
            self.0.insert(event, Series { name: None, count: 1, seen: now, due: Some(now), written: None });
        }
        has_room
    }

    /// When something is to be written next.
    fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|series| series.due).min()
    }

    /// What is to be written now.
    fn due(&self, now: Instant) -> Vec<Event> {
        let is_due = |series: &Series| series.due.is_some_and(|due| due <= now);
        self.0.iter().filter(|(_, series)| is_due(series)).map(|(event, _)| event.clone()).collect()
    }

    /// It was written, and is called `name`; or it was not, and begins anew when it happens again.
    fn wrote(&mut self, event: &Event, name: Option<String>, now: Instant) {
        match self.0.get_mut(event) {
            Some(series) if name.is_some() => {
                (series.name, series.due, series.written) = (name, None, Some(now));
            }
            _ => drop(self.0.remove(event)),
        }
    }
}

impl Series {
    /// It happened again.
    fn again(&mut self, now: Instant) {
        self.count = self.count.saturating_add(1);
        self.seen = now;
        let quiet = self.written.map_or(now, |written| now.max(written + QUIET));
        self.due.get_or_insert(quiet);
    }
}

// === the API server ===

/// Writes an event, or that it happened again; `None` where there is nothing any more to write it for.
async fn write(cluster: &Cluster, instance: &str, event: &Event, series: &Series) -> Result<Option<String>, Unread> {
    let Some(resource) = resource(&event.object.kind) else { return Ok(None) };
    let events: Api<v1::Event> = Api::namespaced(cluster.client.clone(), namespace(&event.object));
    let written = async {
        if let Some(name) = &series.name {
            let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            match events.patch(name, &params, &Patch::Merge(json!({"series": again(series)}))).await {
                // It expired.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                patched => return patched.map(|_| Some(name.clone())),
            }
        }
        let found = uid(cluster, &event.object, &resource).await?;
        let uid = found.filter(|found| event.uid.as_ref().is_none_or(|meant| **meant == **found));
        if uid.is_none() && !event.is_of_what_is_missing() {
            // It is gone; or somebody who is no API server sent a review of what there never was.
            debug!(object = %event.object, "what an Event is about is not there");
            return Ok(None);
        }
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match events.create(&params, &made(event, (&resource, uid), series, instance)).await {
            Err(kube::Error::Api(status)) if is_going(&status) => Ok(None),
            created => created.map(|created| created.metadata.name),
        }
    };
    answered(|| format!("the Event of {}", event.object), written).await
}

/// What the API server calls objects of this kind; `None` of kinds that are not ours to read, as that of a controller of
/// somebody else's.
fn resource(kind: &str) -> Option<ApiResource> {
    let known = [
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Namespace>(&()),
        ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
    ];
    let holders = HolderKind::ALL.into_iter().map(cluster::resource);
    known.into_iter().chain(holders).find(|resource| resource.kind == kind)
}

/// The UID of who is called so now. Our role lets us list all of them, and get only some.
async fn uid(cluster: &Cluster, object: &Object, resource: &ApiResource) -> Result<Option<String>, kube::Error> {
    let client = cluster.client.clone();
    let objects: Api<DynamicObject> = match &*object.namespace {
        "" => Api::all_with(client, resource),
        namespace => Api::namespaced_with(client, namespace, resource),
    };
    let named = ListParams::default().fields(&format!("metadata.name={}", object.name));
    let found = objects.list_metadata(&named).await?;
    Ok(found.items.into_iter().find_map(|found| found.metadata.uid))
}

fn namespace(object: &Object) -> &str {
    if object.namespace.is_empty() { NO_NAMESPACE } else { &object.namespace }
}

/// The Event as it is first written.
fn made(event: &Event, (resource, uid): (&ApiResource, Option<String>), series: &Series, instance: &str) -> v1::Event {
    let Event { object, news, note, .. } = event;
    v1::Event {
        metadata: ObjectMeta {
            // The API server appends something of its own; it would cut off the end of a long name itself.
            generate_name: Some(format!("{:.50}-", object.name)),
            namespace: Some(namespace(object).to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(object.kind.to_string()),
            namespace: Some(object.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(object.name.to_string()),
            uid,
            ..ObjectReference::default()
        }),
        type_: Some(if news.is_warning() { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(news.reason().to_owned()),
        action: Some(news.action().to_owned()),
        note: Some(note.to_string()),
        event_time: Some(now()),
        series: (series.count > 1).then(|| again(series)),
        reporting_controller: Some(names::FIELD_MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..v1::Event::default()
    }
}

/// How often it happened, the first time included.
fn again(series: &Series) -> v1::EventSeries {
    v1::EventSeries { count: series.count, last_observed_time: now() }
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

/// Whether the namespace is on its way out, or gone: nothing new comes into it.
fn is_going(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 404 || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Kind;
    use crate::event::News;
    use crate::reference::CatalogKey;
    use std::slice;

    fn event(uid: &str, note: &str) -> Event {
        let object = Object::config_map(&CatalogKey::new("prod", "extraction-models"));
        Event { object, uid: Some(uid.into()), news: News::Refused, note: note.into() }
    }

    fn written(book: &mut Book, event: &Event, at: Instant) {
        book.wrote(event, Some("extraction-models-x7k2p".to_owned()), at);
    }

    #[test]
    fn what_happens_again_is_one_event_that_counts() {
        let (mut book, start) = (Book::default(), Instant::now());
        let refused = event("a", "[MG101] v1");
        assert!(book.add(refused.clone(), start));
        assert_eq!(book.due(start), slice::from_ref(&refused), "the first time at once");
        written(&mut book, &refused, start);
        assert_eq!(book.next(), None);

        for second in 1..=7 {
            assert!(book.add(refused.clone(), start + Duration::from_secs(second)));
        }
        assert_eq!(book.next(), Some(start + QUIET), "seven times come to one write");
        assert_eq!(book.due(start + Duration::from_secs(9)), []);
        assert_eq!(book.due(start + QUIET), slice::from_ref(&refused));
        assert_eq!(again(&book.0[&refused]).count, 8);
        written(&mut book, &refused, start + QUIET);

        // A loop that comes back each three minutes.
        let later = start + Duration::from_secs(190);
        assert!(book.add(refused.clone(), later));
        assert_eq!(book.due(later), slice::from_ref(&refused));
        let patched = &book.0[&refused];
        assert_eq!((patched.name.is_some(), again(patched).count), (true, 9));
    }

    #[test]
    fn what_is_over_for_long_begins_anew() {
        let (mut book, start) = (Book::default(), Instant::now());
        let refused = event("a", "[MG101] v1");
        book.add(refused.clone(), start);
        written(&mut book, &refused, start);
        book.add(refused.clone(), start + FORGET);
        let series = &book.0[&refused];
        assert_eq!((&series.name, series.count), (&None, 1));
    }

    #[test]
    fn what_could_not_be_written_begins_anew() {
        let (mut book, start) = (Book::default(), Instant::now());
        let refused = event("a", "[MG101] v1");
        book.add(refused.clone(), start);
        book.wrote(&refused, None, start);
        assert_eq!(book.next(), None);
        book.add(refused.clone(), start);
        assert_eq!((book.due(start), book.0[&refused].count), (vec![refused.clone()], 1));
    }

    #[test]
    fn texts_that_keep_changing_are_bounded() {
        let (mut book, start) = (Book::default(), Instant::now());
        let added = (0..100).filter(|number| book.add(event("a", &format!("{number} pods")), start)).count();
        assert_eq!(added, MOST_OF_ONE);
        assert!(book.add(event("b", "1 pod"), start), "another ConfigMap has room of its own");
        assert!(book.add(event("a", "0 pods"), start), "what is known counts on");
        for number in 0..2 * MOST {
            book.add(event(&number.to_string(), "1 pod"), start);
        }
        assert_eq!(book.0.len(), MOST);
    }

    #[test]
    fn an_event_is_of_the_object_and_of_nothing_else() {
        let series = Series { name: None, count: 1, seen: Instant::now(), due: None, written: None };
        let posted = |event: &Event| {
            let resource = resource(&event.object.kind).unwrap();
            let event = made(event, (&resource, Some("9b1d".to_owned())), &series, "modelguard-0_x");
            let mut posted = serde_json::to_value(event).unwrap();
            assert!(posted["eventTime"].take().is_string());
            posted
        };
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"generateName": "extraction-models-", "namespace": "prod"},
            "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "prod",
                          "name": "extraction-models", "uid": "9b1d"},
            "type": "Warning", "reason": "RemovalRefused", "action": "Remove", "note": "[MG101] no",
            "reportingController": "modelguard", "reportingInstance": "modelguard-0_x", "eventTime": null,
        });
        let refused = event("9b1d", "[MG101] no");
        assert_eq!(posted(&refused), expected);
        let kind = "ValidatingWebhookConfiguration";
        let object = Object { kind: kind.into(), namespace: "".into(), name: "modelguard".into() };
        let altered = posted(&Event { object, news: News::Found(Kind::WebhooksAltered), ..refused });
        let api_version = "admissionregistration.k8s.io/v1";
        let regarding = json!({"apiVersion": api_version, "kind": kind, "name": "modelguard", "uid": "9b1d"});
        assert_eq!((&altered["regarding"], &altered["metadata"]["namespace"]), (&regarding, &"default".into()));
    }

    #[test]
    fn what_is_told_of_is_what_may_be_read() {
        for kind in HolderKind::ALL.map(HolderKind::kind).into_iter().chain(["ConfigMap", "Namespace"]) {
            assert_eq!(resource(kind).unwrap().kind, kind);
        }
        assert_eq!(resource("Workflow"), None);
    }

    #[test]
    fn a_namespace_that_goes_takes_no_event() {
        let status = |code, reason| {
            let causes = json!([{"reason": reason, "field": "metadata.namespace"}]);
            serde_json::from_value(json!({"code": code, "details": {"causes": causes}})).unwrap()
        };
        assert!(is_going(&status(403, "NamespaceTerminating")));
        assert!(is_going(&status(404, "")));
        assert!(!is_going(&status(403, "")));
    }
}
