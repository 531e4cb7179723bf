use super::super::tests::fake::{self, Asked};
use super::*;
use crate::catalog::{EntryName, Format};
use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};

fn models() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

fn catalogs() -> BTreeSet<CatalogKey> {
    BTreeSet::from([models()])
}

fn holds(index: &Index, entry: &str) -> bool {
    index.is_held(&models(), Format::Yaml, &EntryName::new(entry).unwrap())
}

fn pod(name: &str, uses: &str) -> Value {
    let annotations = json!({"modelguard.dev/uses": uses});
    json!({
        "metadata": {"name": name, "namespace": "prod", "resourceVersion": "7", "annotations": annotations},
        "spec": {"containers": []},
    })
}

/// Answers with no objects but the guarded namespace `prod`.
fn nothing(asked: &Asked) -> Response<Body> {
    match asked.path.as_str() {
        "/api/v1/namespaces" => fake::list(&[json!({"metadata": {"name": "prod"}})]),
        _ => fake::list(&[]),
    }
}

#[test]
fn every_kind_is_listed_once() {
    assert_eq!(BTreeSet::from(TOP_DOWN), BTreeSet::from(HolderKind::ALL));
}

#[test]
fn owners_are_listed_before_what_they_make() {
    let at = |kind| TOP_DOWN.iter().position(|it| *it == kind);
    for (owner, made) in [
        (HolderKind::CronJob, HolderKind::Job),
        (HolderKind::Deployment, HolderKind::ReplicaSet),
        (HolderKind::Rollout, HolderKind::ReplicaSet),
        (HolderKind::StatefulSet, HolderKind::ControllerRevision),
    ] {
        assert!(at(owner) < at(made), "{owner} before {made}");
    }
    assert_eq!(TOP_DOWN.last(), Some(&HolderKind::Pod));
}

#[tokio::test]
async fn nothing_is_held_where_there_is_nothing() {
    let (client, asking) = fake::client(nothing);
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(index.synced());
    assert!(!holds(&index, "v1"));
    assert_eq!(asking.of("").len(), HolderKind::ALL.len() + 1);
}

#[tokio::test]
async fn lists_are_quorum_reads_in_pages() {
    let (client, asking) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/pods" => match asked.parameter("continue") {
            None => fake::page(&[pod("a", "models:v1")], "more"),
            Some("more") => fake::list(&[pod("b", "models:v2")]),
            Some(other) => panic!("unknown token {other}"),
        },
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(holds(&index, "v1"));
    assert!(holds(&index, "v2"));
    for asked in asking.of("") {
        assert_eq!(asked.parameter("limit"), Some("500"), "{asked:?}");
        assert_eq!(asked.parameter("resourceVersion"), None, "{asked:?}");
        assert!(!asked.is_watch());
    }
}

#[tokio::test]
async fn only_guarded_namespaces_count() {
    let (client, asking) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/pods" => fake::list(&[pod("a", "models:v1")]),
        _ => fake::list(&[]),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(!holds(&index, "v1"));
    let selector = asking.of("/namespaces")[0].parameter("labelSelector").map(str::to_owned);
    assert_eq!(selector.as_deref(), Some("modelguard.dev%2Fguard%3Denabled"));
}

#[tokio::test]
async fn everything_has_the_catalogs_too_and_what_guarded_namespaces_need_unless_they_go() {
    let config_map = json!({
        "metadata": {"name": "other", "namespace": "prod", "uid": "u", "resourceVersion": "6",
                     "labels": {"modelguard.dev/catalog": "keys"}},
        "data": {"v1": ""},
    });
    for (deletion, demands) in [(Value::Null, 1), ("2026-11-23T12:00:00Z".into(), 0)] {
        let metadata = json!({"name": "prod", "uid": "n", "resourceVersion": "5", "deletionTimestamp": deletion});
        let (namespace, config_map) = (json!({"metadata": metadata}), config_map.clone());
        let (client, asking) = fake::client(move |asked| match asked.path.as_str() {
            "/api/v1/namespaces" => fake::list(std::slice::from_ref(&namespace)),
            "/api/v1/configmaps" => fake::list(std::slice::from_ref(&config_map)),
            "/api/v1/pods" => fake::list(&[pod("a", "unheard-of:v1")]),
            _ => fake::list(&[]),
        });
        let index = everything(&client, RollbackTargets::Ignore).await.unwrap();
        assert!(index.missing().next().is_none());
        assert_eq!(index.demands().count(), demands, "deleted: {deletion}");
        assert!(index.is_guarded("prod"));
        assert!(index.catalog(&CatalogKey::new("prod", "other")).unwrap().listing.is_ok());
        let selector = asking.of("/configmaps")[0].parameter("labelSelector").map(str::to_owned);
        assert_eq!(selector.as_deref(), Some("modelguard.dev%2Fcatalog"));
    }
}

#[tokio::test]
async fn a_list_that_expired_is_begun_again_and_never_continued() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let (client, asking) = fake::client(move |asked| match asked.path.as_str() {
        "/api/v1/pods" => match asked.parameter("continue") {
            None if first.swap(false, std::sync::atomic::Ordering::Relaxed) => {
                fake::page(&[pod("gone", "models:v1")], "more")
            }
            None => fake::list(&[pod("b", "models:v2")]),
            Some(_) => fake::failure(410, "Expired"),
        },
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(!holds(&index, "v1"), "seen only in the list that expired");
    assert!(holds(&index, "v2"));
    assert_eq!(asking.of("/pods").len(), 3);
}

#[tokio::test]
async fn a_list_that_expires_each_time_is_an_error() {
    let (client, asking) = fake::client(|asked| match asked.path.as_str() {
        "/apis/apps/v1/deployments" => fake::failure(410, "Expired"),
        _ => nothing(asked),
    });
    let error = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap_err();
    assert!(matches!(error, LiveError::Expired(_)), "{error}");
    assert_eq!(asking.of("/deployments").len(), ATTEMPTS);
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_is_an_error_that_names_it() {
    for kind in HolderKind::ALL {
        let (client, _) = fake::client(move |asked| {
            if asked.path.ends_with(kind.plural()) {
                return fake::failure(403, "Forbidden");
            }
            nothing(asked)
        });
        let error = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap_err();
        assert!(matches!(error, LiveError::Unlisted { .. }), "{error}");
        assert!(error.to_string().contains(kind.plural()), "{error}");
    }
}

#[tokio::test]
async fn of_a_kind_that_is_not_installed_there_are_none() {
    for kind in HolderKind::ALL {
        let (client, _) =
            fake::client(
                move |asked| {
                    if asked.path.ends_with(kind.plural()) { fake::no_such_page() } else { nothing(asked) }
                },
            );
        let live = live(&client, &catalogs(), RollbackTargets::Warn).await;
        assert_eq!(live.is_ok_and(|index| index.synced()), !kind.is_built_in(), "{kind}");
    }
}

#[tokio::test]
async fn what_was_listed_of_a_kind_that_goes_away_meanwhile_is_gone() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/apis/argoproj.io/v1alpha1/rollouts" => match asked.parameter("continue") {
            None => fake::page(&[rollout("models:v1", "")], "more"),
            Some(_) => fake::no_such_page(),
        },
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(index.synced());
    assert!(!holds(&index, "v1"));
}

#[tokio::test]
async fn a_rollout_is_followed_to_the_replica_set_that_is_stable() {
    for (stable, holds_old) in [("5f7d9", true), ("6b8c4", false), ("", false)] {
        let (client, _) = fake::client(move |asked| match asked.path.as_str() {
            "/apis/argoproj.io/v1alpha1/rollouts" => fake::list(&[rollout("others:v1", stable)]),
            "/apis/apps/v1/replicasets" => fake::list(&[json!({
                "metadata": {"name": "api-5f7d9", "namespace": "prod",
                    "labels": {"rollouts-pod-template-hash": "5f7d9"}, "ownerReferences": [
                    {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "api", "uid": "u", "controller": true},
                ]},
                "spec": {"replicas": 0, "template": template("models:v1")},
            })]),
            _ => nothing(asked),
        });
        for mode in [RollbackTargets::Warn, RollbackTargets::Ignore] {
            let index = live(&client, &catalogs(), mode).await.unwrap();
            assert_eq!(holds(&index, "v1"), holds_old, "{stable} {mode}");
            assert!(!holds(&index, "v2"));
        }
    }
}

fn rollout(uses: &str, stable: &str) -> Value {
    json!({
        "metadata": {"name": "api", "namespace": "prod"},
        "spec": {"template": template(uses)},
        "status": {"stableRS": stable, "observedGeneration": "1"},
    })
}

fn template(uses: &str) -> Value {
    json!({"metadata": {"annotations": {"modelguard.dev/uses": uses}}, "spec": {"containers": []}})
}

#[tokio::test]
async fn namespaces_that_cannot_be_listed_are_an_error() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/namespaces" => fake::failure(503, "ServiceUnavailable"),
        _ => nothing(asked),
    });
    assert!(live(&client, &catalogs(), RollbackTargets::Warn).await.is_err());
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_holds_everything() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/pods" => {
            fake::list(&[json!({"metadata": {"name": "a", "namespace": "prod"}, "spec": {"containers": 5}})])
        }
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(holds(&index, "v1"));
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_holds_what_it_names_elsewhere() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/apis/apps/v1/deployments" => {
            let annotations = json!({"modelguard.dev/uses": "prod/models:v1"});
            let template = json!({"metadata": {"annotations": annotations}, "spec": 5});
            let metadata = json!({"name": "web", "namespace": "apps"});
            fake::list(&[json!({"metadata": metadata, "spec": {"template": template}})])
        }
        "/api/v1/namespaces" => fake::list(&[json!({"metadata": {"name": "apps"}})]),
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(holds(&index, "v1"));
    assert!(holds(&index, "v2"), "what else it needs cannot be read");
}

#[tokio::test]
async fn an_object_without_a_name_is_an_error() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/pods" => fake::list(&[json!({"metadata": {"namespace": "prod"}})]),
        _ => nothing(asked),
    });
    let error = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap_err();
    assert!(matches!(error, LiveError::Nameless(_)), "{error}");
}

#[tokio::test]
async fn what_touches_no_catalog_in_question_is_not_kept() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/api/v1/pods" => fake::list(&[pod("a", "models:v1"), pod("b", "others:v1")]),
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert_eq!(index.count(HolderKind::Pod), 1);
}

#[tokio::test]
async fn a_stateful_set_is_followed_to_the_revision_it_comes_from() {
    let (client, _) = fake::client(|asked| match asked.path.as_str() {
        "/apis/apps/v1/statefulsets" => fake::list(&[json!({
            "metadata": {"name": "db", "namespace": "prod"},
            "spec": {"template": template("others:v1")},
            "status": {"currentRevision": "db-1", "updateRevision": "db-2"},
        })]),
        "/apis/apps/v1/controllerrevisions" => fake::list(&[json!({
            "metadata": {"name": "db-1", "namespace": "prod", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true},
            ]},
            "data": {"spec": {"template": template("models:v1")}},
        })]),
        _ => nothing(asked),
    });
    let index = live(&client, &catalogs(), RollbackTargets::Warn).await.unwrap();
    assert!(holds(&index, "v1"));
    assert!(!holds(&index, "v2"));
}
