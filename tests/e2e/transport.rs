//! How the API server reaches the webhook, and that it always does: at a URL, while certificates change, while it
//! stops, and after either side was restarted.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{catalog, deployment, keys};
use crate::support::control_plane::Shape;
use crate::support::kubectl::{Output, Tool};
use crate::support::modelguard::{IDENTITY, NAMESPACE, RELEASE, Route};
use crate::support::wait::{Over, until};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// How many write at a time.
const WRITERS: usize = 3;

pub(crate) fn tests() -> Vec<Test> {
    let store = Setup { shape: Shape::Store, ..Setup::default() };
    let mut url = store.clone();
    url.options.route = Route::Url;
    let mut patient = store.clone();
    patient.options.shutdown_delay = "60s".to_owned();
    vec![
        own("transport::at_a_url", url, at_a_url),
        own("transport::what_cannot_be_read_is_denied", store.clone(), what_cannot_be_read_is_denied),
        own("transport::certificates_rotate_under_writes", store, certificates_rotate_under_writes),
        own("transport::a_stop_loses_nothing", patient, a_stop_loses_nothing),
    ]
}

fn at_a_url(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    assert_eq!(scene.get("configmap", "models")["metadata"]["annotations"]["modelguard.dev/revision"], "1");
    scene.create_object(catalog("broken", "json", &[("models.json", "[")]).to_string()).denied("MG104");
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    scene.create_object(deployment("other", 0, "models:v9").to_string()).denied("MG201");
    remove(scene, "v1").denied("MG101");
    scene.armed();
    remove(scene, "v2").ok();

    // The API server's connections are gone with it, and its webhook cache.
    scene.at.cluster.restart_api_server().expect("the API server starts");
    remove(scene, "v1").denied("MG101");
    scene.at.modelguard.first().restart().expect("modelguard starts");
    remove(scene, "v1").denied("MG101");
}

/// Without its rights it knows nothing, and what it does not know it does not allow; kubectl waits for better times.
fn what_cannot_be_read_is_denied(scene: &Scene<'_>) {
    let cluster = &scene.at.cluster;
    let binding = cluster.kubectl(["get", "clusterrolebinding", RELEASE, "-o", "json"]).run().json();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    cluster.kubectl(["delete", "clusterrolebinding", RELEASE]).run().ok();
    until("the rights are gone", || {
        let output = scene.kubectl(["auth", "can-i", "get", "configmaps", "--as", IDENTITY]).run();
        if output.status.success() { Err(output) } else { Ok(()) }
    });
    // Nothing is referenced, so nothing must be read.
    scene.create_object(deployment("unrelated", 0, "").to_string()).ok();

    let answers = || scene.answers("deployments", "api", "admin");
    thread::scope(|threads| {
        let waiting = threads.spawn(|| scene.create_object(deployment("api", 0, "models:v1").to_string()));
        until("it was denied", || match answers().last() {
            Some((_, 503)) => Ok(()),
            _ => Err(format!("{:?}", answers())),
        });
        let restored = json!({"apiVersion": binding["apiVersion"], "kind": binding["kind"],
            "metadata": {"name": RELEASE}, "roleRef": binding["roleRef"], "subjects": binding["subjects"]});
        cluster.kubectl(["create", "-f-"]).stdin(restored.to_string()).run().ok();
        waiting.join().expect("kubectl ran").ok();
    });
    assert_eq!(answers().last(), Some(&("create".to_owned(), 201)));
    let denied = cluster.audit_events("MG501");
    assert!(denied.iter().any(|event| event["annotations"]["workload.modelguard.dev/code"] == "MG501"), "{denied:#?}");
}

fn certificates_rotate_under_writes(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let writes = Writes::default();
    thread::scope(|threads| {
        let writing = writes.begin(threads, scene);
        for name in ["second", "third"] {
            let certificate = scene.at.modelguard.certificates().rotate(name).expect("a certificate");
            until("the new certificate is served", || serves(scene, &certificate));
            writes.some_more();
        }
        drop(writing);
    });
    writes.all_passed();
}

fn a_stop_loses_nothing(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let replica = scene.at.modelguard.first();
    let writes = Writes::default();
    thread::scope(|threads| {
        let writing = writes.begin(threads, scene);
        writes.some_more();
        replica.terminate().expect("it runs");
        // At once, so that nobody new comes; those who do not know yet are still served.
        until("it no longer calls itself ready", || match replica.ready() {
            Ok(true) => Err("ready".to_owned()),
            Ok(false) => Ok(()),
            Err(error) => panic!("it is gone already: {error:#}"),
        });
        writes.some_more();
        drop(writing);
    });
    writes.all_passed();
    assert!(replica.ended().is_none(), "it serves for as long as it was told to");
    // The second time it does not wait for those who do not know yet.
    let status = replica.stop().expect("it ends");
    assert!(status.success(), "{status}");
    write(scene, 0).failed("failed calling webhook");
    let lease = scene.at.cluster.kubectl(["get", "lease", RELEASE, "-n", NAMESPACE, "-o", "json"]).run().json();
    assert_eq!(lease["spec"]["holderIdentity"].as_str().unwrap_or_default(), "", "given back: {lease:#}");
}

/// Writes that the webhook sees, one after the other on each thread.
#[derive(Default)]
struct Writes {
    ended: AtomicBool,
    passed: AtomicUsize,
    failed: Mutex<Vec<Output>>,
}

impl Writes {
    fn begin<'scope>(
        &'scope self,
        threads: &'scope thread::Scope<'scope, '_>,
        scene: &'scope Scene<'_>,
    ) -> Over<'scope> {
        // Before the first of them is there.
        let writing = Over(&self.ended);
        for writer in 0..WRITERS {
            threads.spawn(move || {
                for number in 0.. {
                    let output = write(scene, number * WRITERS + writer);
                    if output.status.success() {
                        self.passed.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.failed.lock().expect("nobody panics with it").push(output);
                    }
                    if self.ended.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        writing
    }

    /// Waits until each writer has surely written anew.
    fn some_more(&self) {
        let enough = self.passed.load(Ordering::Relaxed) + 2 * WRITERS;
        until("more was written", || match self.passed.load(Ordering::Relaxed) {
            passed if passed >= enough => Ok(()),
            _ if self.failed.lock().is_ok_and(|failed| !failed.is_empty()) => Ok(()),
            passed => Err(format!("{passed} writes")),
        });
    }

    fn all_passed(&self) {
        let failed = self.failed.lock().expect("nobody panics with it");
        assert!(
            failed.is_empty(),
            "{} passed, {} failed; the first:\n{}",
            self.passed.load(Ordering::Relaxed),
            failed.len(),
            failed[0]
        );
    }
}

fn write(scene: &Scene<'_>, number: usize) -> Output {
    scene.kubectl(["annotate", "configmap", "models", "--overwrite", &format!("number={number}")]).run()
}

/// Whether a new connection is shown this certificate.
fn serves(scene: &Scene<'_>, certificate: &Path) -> Result<(), String> {
    let address = scene.at.modelguard.first().listen().to_string();
    let shown = Tool::new("openssl".into(), Vec::new()).args(["s_client", "-connect", &address]).run();
    let expected = fs::read_to_string(certificate).map_err(|error| error.to_string())?;
    if shown.stdout.contains(expected.trim()) { Ok(()) } else { Err("another certificate".to_owned()) }
}

fn remove(scene: &Scene<'_>, entry: &str) -> Output {
    let patch = format!(r#"-p={{"data":{{"{entry}":null}}}}"#);
    scene.kubectl(["patch", "configmap", "models", "--type=merge", &patch]).run()
}
