use super::super::tests::fake::{self, Asked};
use super::*;
use crate::catalog::{EntryName, Format};
use crate::reference::CatalogKey;
use crate::sharing::Sharing;
use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longer than a backoff of the watches, shorter than patience.
const SOON: Duration = Duration::from_secs(20);

fn pod(name: &str, uses: &str) -> Value {
    let annotations = json!({"modelguard.dev/uses": uses});
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "prod", "resourceVersion": "7", "annotations": annotations},
        "spec": {"containers": []},
    })
}

/// Streams empty lists, but for the guarded namespace `prod`.
fn nothing(asked: &Asked) -> Response<Body> {
    let prod = json!({"metadata": {"name": "prod", "resourceVersion": "1"}});
    match asked.path.as_str() {
        "/api/v1/namespaces" if asked.is_streaming() => {
            fake::events(&[fake::event("ADDED", &prod), fake::end_of_list()])
        }
        _ => fake::events(&[fake::end_of_list()]),
    }
}

/// Watches a server that has nothing but what `pods` answers to requests for pods.
async fn watching(
    pods: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static,
    until: impl Fn(&Index) -> bool,
) -> (Arc<RwLock<Index>>, fake::Asking, Watches) {
    let (client, asking) = fake::client(move |asked| match asked.path.as_str() {
        "/api/v1/pods" => pods(asked),
        _ => nothing(asked),
    });
    let index = Arc::new(RwLock::new(Index::default()));
    let watches = spawn(&client, &index);
    wait(&index, until).await;
    (index, asking, watches)
}

async fn wait(index: &RwLock<Index>, until: impl Fn(&Index) -> bool) {
    wait_for(SOON, index, until).await;
}

async fn wait_for(patience: Duration, index: &RwLock<Index>, until: impl Fn(&Index) -> bool) {
    let poll = async {
        while !until(&index.read()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(patience, poll).await;
    waited.unwrap_or_else(|_| panic!("not within {patience:?}: {:?}", index.read()));
}

fn holds(index: &Index, entry: &str) -> bool {
    let models = CatalogKey::new("prod", "models");
    index.is_held(&models, Format::Yaml, &EntryName::new(entry).unwrap())
}

#[tokio::test]
async fn a_streamed_list_fills_the_index() {
    let pods = |_: &Asked| {
        fake::events(&[
            fake::event("ADDED", &pod("a", "models:v1")),
            fake::end_of_list(),
            fake::event("ADDED", &pod("b", "models:v2")),
            fake::event("DELETED", &pod("a", "models:v1")),
            fake::event("ADDED", &pod("c", "models:v3")),
        ])
    };
    let (index, asking, mut watches) = watching(pods, |it| it.synced() && holds(it, "v3")).await;
    let index = index.read();
    assert!(!holds(&index, "v1"));
    assert!(holds(&index, "v2"));
    assert_eq!(asking.of("/pods").len(), 1);
    assert!(watches.changes.has_changed().unwrap());
    watches.changes.mark_unchanged();
    assert_eq!(watches.tasks.len(), Source::all().count());
}

#[tokio::test]
async fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    let pods = |asked: &Asked| match (asked.is_streaming(), asked.is_watch()) {
        (true, _) => fake::failure(422, "Invalid"),
        (false, true) => fake::events(&[fake::event("ADDED", &pod("c", "models:v3"))]),
        (false, false) => match asked.parameter("continue") {
            None => fake::page(&[pod("a", "models:v1")], "more"),
            Some(_) => fake::list(&[pod("b", "models:v2")]),
        },
    };
    let (index, asking, _watches) = watching(pods, |it| it.synced() && holds(it, "v3")).await;
    let index = index.read();
    assert!(holds(&index, "v1") && holds(&index, "v2"));
    assert_eq!(asking.of("/pods").len(), 4, "refused, two pages, a watch");
    assert_eq!(index.failing().count(), 0);
}

#[tokio::test]
async fn streamed_lists_that_never_end_well_give_way_to_pages() {
    let pods = |asked: &Asked| match (asked.is_streaming(), asked.is_watch()) {
        (true, _) => fake::ending(&[fake::event("ADDED", &pod("a", "models:v1"))]),
        (false, true) => fake::events(&[]),
        (false, false) => fake::list(&[pod("b", "models:v2")]),
    };
    let (index, _, _watches) = watching(pods, |it| it.synced()).await;
    let index = index.read();
    assert!(!holds(&index, "v1"));
    assert!(holds(&index, "v2"));
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_holds_everything_until_it_can() {
    let mut broken = pod("a", "models:v1");
    broken["spec"]["containers"] = json!(5);
    let pods = move |_: &Asked| {
        fake::events(&[
            fake::event("ADDED", &broken),
            fake::end_of_list(),
            fake::event("ADDED", &pod("b", "models:v2")),
        ])
    };
    let (index, _, _watches) = watching(pods, |it| it.synced() && it.count(HolderKind::Pod) == 2).await;
    assert!(holds(&index.read(), "anything"));
    let id = crate::holder::ObjectId { kind: HolderKind::Pod, namespace: "prod".into(), name: "a".into() };
    index.write().delete(&id);
    assert!(!holds(&index.read(), "anything"));
}

#[tokio::test]
async fn an_object_nested_deeper_than_can_be_read_holds_everything_and_stops_no_watch() {
    let mut deep = pod("deep", "apps/models:v1");
    deep["spec"]["containers"] = (0..200).fold(json!(0), |inner, _| json!([inner]));
    let pods = move |_: &Asked| fake::events(&[fake::event("ADDED", &deep), fake::end_of_list()]);
    let (index, _, _watches) = watching(pods, Index::synced).await;
    assert!(holds(&index.read(), "anything"), "in its own namespace");
    let elsewhere = |catalog: &str| {
        let (catalog, sharing) = (CatalogKey::new("apps", catalog), Sharing::new("apps", Some("prod")));
        index.read().held(&catalog, &sharing, Format::Keys, [&EntryName::new("v1").unwrap()]).len()
    };
    assert_eq!((elsewhere("models"), elsewhere("others")), (1, 0), "in another one what its annotation names");
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_keeps_the_index_from_being_synced() {
    let pods = |_: &Asked| fake::failure(403, "Forbidden");
    let (index, _, _watches) = watching(pods, |it| it.missing().count() == 1 && it.failing().next().is_some()).await;
    let index = index.read();
    assert!(!index.synced());
    assert_eq!(index.missing().collect::<Vec<_>>(), [HolderKind::Pod.into()]);
    let (source, reason) = index.failing().next().unwrap();
    assert_eq!(source, HolderKind::Pod.into());
    assert!(reason.contains("Forbidden"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_kind_may_be_installed_and_taken_away_at_any_time() {
    // It is not there, comes with one object, goes when its watch is resumed, and comes back with another one.
    let watched = AtomicUsize::new(0);
    let rollout = |name: &str, uses: &str| {
        let mut rollout = pod(name, uses);
        rollout["spec"] = json!({"template": {"metadata": rollout["metadata"].take(), "spec": {"containers": []}}});
        rollout["metadata"] = json!({"name": name, "namespace": "prod", "resourceVersion": "7"});
        fake::event("ADDED", &rollout)
    };
    let (client, asking) = fake::client(move |asked| match asked.path.as_str() {
        "/apis/argoproj.io/v1alpha1/rollouts" => match watched.fetch_add(1, Ordering::Relaxed) {
            0 | 1 | 3 => fake::no_such_page(),
            2 => fake::ending_after(SOON, &[rollout("a", "models:v1"), fake::end_of_list()]),
            _ => fake::events(&[rollout("b", "models:v2"), fake::end_of_list()]),
        },
        _ => nothing(asked),
    });
    let index = Arc::new(RwLock::new(Index::default()));
    let mut watches = spawn(&client, &index);
    wait(&index, Index::synced).await;
    assert!(!holds(&index.read(), "v1"));
    assert_eq!(index.read().failing().count(), 0, "that it is not there is no failure");
    watches.changes.mark_unchanged();
    let minute = Duration::from_secs(60);
    wait_for(minute, &index, |it| holds(it, "v1")).await;
    wait_for(minute, &index, |it| !holds(it, "v1") && it.failing().next().is_none()).await;
    assert!(watches.changes.has_changed().unwrap());
    wait_for(minute, &index, |it| holds(it, "v2")).await;
    assert!(index.read().synced());
    assert_eq!(asking.of("/rollouts").len(), 5);
}

/// In a cluster where something happens all the time, nobody is quiet for long.
#[tokio::test(start_paused = true)]
async fn a_watch_that_failed_is_over_it_with_the_next_change() {
    let watched = AtomicUsize::new(0);
    let (client, asking) = fake::client(move |asked| match asked.path.as_str() {
        "/api/v1/pods" => match watched.fetch_add(1, Ordering::Relaxed) {
            0 => fake::ending_after(SOON, &[fake::end_of_list()]),
            1 => fake::failure(403, "Forbidden"),
            _ => fake::events(&[fake::event("ADDED", &pod("b", "models:v1"))]),
        },
        _ => nothing(asked),
    });
    let index = Arc::new(RwLock::new(Index::default()));
    let _watches = spawn(&client, &index);
    wait_for(CALM / 2, &index, |it| holds(it, "v1") && it.failing().next().is_none()).await;
    assert_eq!(asking.of("/pods").len(), 3);
}

#[tokio::test]
async fn a_built_in_kind_that_is_not_found_is_a_failure() {
    let pods = |_: &Asked| fake::no_such_page();
    let (index, _, _watches) = watching(pods, |it| it.failing().next().is_some()).await;
    assert!(!index.read().synced());
}

#[tokio::test]
async fn a_list_that_broke_off_removes_nothing() {
    // The second list breaks off after an event that nobody can read; the third one is whole.
    let lists = AtomicUsize::new(0);
    let pods = move |_: &Asked| {
        let both = [pod("a", "models:v1"), pod("b", "models:v2")].map(|it| fake::event("ADDED", &it));
        let [a, b] = both;
        match lists.fetch_add(1, Ordering::Relaxed) {
            0 => fake::events(&[a, b, fake::end_of_list(), gone()]),
            1 => fake::events(&[json!({"type": "NONSENSE"}), fake::end_of_list()]),
            _ => fake::events(&[a, fake::end_of_list()]),
        }
    };
    let (index, asking, _watches) = watching(pods, |it| it.synced() && holds(it, "v1")).await;
    wait(&index, |it| {
        assert!(holds(it, "v1"), "was there all the time");
        !holds(it, "v2")
    })
    .await;
    assert_eq!(asking.of("/pods").len(), 3);
}

/// What a server says when it does not keep the revision any more.
fn gone() -> Value {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version"});
    fake::event("ERROR", &status)
}

#[tokio::test]
async fn a_namespace_that_loses_the_label_no_longer_counts() {
    let (client, asking) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/pods" => fake::events(&[fake::event("ADDED", &pod("a", "models:v1")), fake::end_of_list()]),
        "/api/v1/namespaces" => {
            let prod = json!({"metadata": {"name": "prod", "resourceVersion": "1"}});
            let events = ["ADDED", "DELETED"].map(|kind| fake::event(kind, &prod));
            fake::events(&[events[0].clone(), fake::end_of_list(), events[1].clone()])
        }
        _ => nothing(asked),
    });
    let index = Arc::new(RwLock::new(Index::default()));
    let _watches = spawn(&client, &index);
    wait(&index, |it| it.synced() && it.guarded().next().is_none()).await;
    assert!(!holds(&index.read(), "v1"));
    let selector = |path| asking.of(path)[0].parameter("labelSelector").map(str::to_owned);
    assert_eq!(selector("/configmaps").as_deref(), Some("modelguard.dev%2Fcatalog"));
    assert_eq!(selector("/namespaces").as_deref(), Some("modelguard.dev%2Fguard%3Denabled"));
}

#[tokio::test]
async fn model_config_maps_are_read_from_their_watch() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/configmaps" => fake::events(&[
            fake::event(
                "ADDED",
                &json!({
                    "metadata": {"name": "models", "namespace": "prod", "uid": "u", "resourceVersion": "5",
                        "labels": {"modelguard.dev/catalog": "xml"},
                        "annotations": {"modelguard.dev/hold": "v1=soak"}},
                    "data": {"a": "b"},
                }),
            ),
            fake::event(
                "ADDED",
                &json!({
                    "metadata": {"name": "broken", "namespace": "prod", "resourceVersion": "6"},
                    "data": 5,
                }),
            ),
            fake::end_of_list(),
        ]),
        _ => nothing(asked),
    });
    let index = Arc::new(RwLock::new(Index::default()));
    let _watches = spawn(&client, &index);
    wait(&index, |it| it.missing().count() == 0).await;
    let index = index.read();
    let models = index.catalog(&CatalogKey::new("prod", "models")).unwrap();
    assert_eq!((&*models.uid, &*models.resource_version), ("u", "5"));
    assert_eq!(models.hold.as_deref(), Some("v1=soak"));
    assert!(models.listing.as_ref().unwrap_err().contains("xml"));
    let broken = index.catalog(&CatalogKey::new("prod", "broken")).unwrap();
    assert!(broken.listing.is_err());
    assert_eq!(&*broken.resource_version, "6");
}
