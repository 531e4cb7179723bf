//! How the API server reaches the webhook, and that it always does: at a URL, while certificates change, while it
//! stops, and after either side was restarted.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{catalog, deployment, keys};
use crate::support::control_plane::Shape;
use crate::support::kubectl::{Output, Tool};
use crate::support::modelguard::Route;
use crate::support::wait::until;
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
    patient.options.shutdown_delay = "3s".to_owned();
    vec![
        own("transport::at_a_url", url, at_a_url),
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

fn certificates_rotate_under_writes(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let writes = Writes::default();
    thread::scope(|threads| {
        writes.begin(threads, scene);
        for name in ["second", "third"] {
            let certificate = scene.at.modelguard.certificates().rotate(name).expect("a certificate");
            until("the new certificate is served", || serves(scene, &certificate));
            writes.some_more();
        }
        writes.end();
    });
    writes.all_passed();
}

fn a_stop_loses_nothing(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let replica = scene.at.modelguard.first();
    let writes = Writes::default();
    thread::scope(|threads| {
        writes.begin(threads, scene);
        writes.some_more();
        replica.terminate().expect("it runs");
        // At once, so that nobody new comes; those who do not know yet are still served.
        until("it no longer calls itself ready", || match replica.ready() {
            Ok(true) => Err("ready".to_owned()),
            Ok(false) => Ok(()),
            Err(error) => panic!("it is gone already: {error:#}"),
        });
        writes.some_more();
        writes.end();
    });
    writes.all_passed();
    let status = replica.wait(std::time::Duration::from_secs(20)).expect("it ends");
    assert!(status.success(), "{status}");
    write(scene, 0).failed("failed calling webhook");
}

/// Writes that the webhook sees, one after the other on each thread.
#[derive(Default)]
struct Writes {
    ended: AtomicBool,
    passed: AtomicUsize,
    failed: Mutex<Vec<Output>>,
}

impl Writes {
    fn begin<'scope>(&'scope self, threads: &'scope thread::Scope<'scope, '_>, scene: &'scope Scene<'_>) {
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

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
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
