//! Servers: the last ready one of an entry in use stays, however it is to go, and whoever else goes at the same time.
//!
//! ```text
//! race: waves of rounds, each with a model ConfigMap, a holder, and two or three ready servers of its entry
//!         ├─ each server is removed at the same moment: deleted, scaled, patched to zero, or served no more ─┐ some of
//!         │                                                                                                   ┘ them slowly
//!         └─ one is denied, the others are allowed: never all, never more than one denied
//! ```
//! `MODELGUARD_RACE_ROUNDS` says how many rounds, `MODELGUARD_RACE_SEED` repeats the choices of an earlier run.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys, template, workload};
use crate::support::client::{client, code};
use crate::support::kubectl::{Output, Tool};
use crate::support::modelguard::IDENTITY;
use crate::support::namespace::timeout;
use crate::support::net::random;
use crate::support::slow::{self, DELAY};
use crate::support::wait::{LONG, until};
use fastrand::Rng;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::env;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROUNDS: usize = 200;
/// Each of some thirty servers at a time lists all of them.
const AT_A_TIME: usize = 10;

/// How a server goes.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Delete,
    Scale,
    Zero,
    Serves,
}

/// What became of the servers of one round: how each was to go, and the code if it was denied.
type Ended = Vec<(Exit, Result<(), String>)>;

pub(crate) fn tests() -> Vec<Test> {
    let mut racing = Setup::default().without_controllers();
    racing.options.settle = "10s".to_owned();
    let weakened = Setup { is_unsound: true, ..racing.clone() };
    let strict = Setup::default().with("--require-served");
    vec![
        shared("servers::the_last_ready_one_of_an_entry_in_use_stays", the_last_ready_one_of_an_entry_in_use_stays),
        shared("servers::every_kind_of_server_is_guarded", every_kind_of_server_is_guarded),
        shared("servers::where_another_is_ready_one_may_go", where_another_is_ready_one_may_go),
        shared("servers::what_nobody_uses_may_go", what_nobody_uses_may_go),
        shared("servers::break_glass_passes", break_glass_passes),
        own("servers::a_namespace_goes_with_its_servers", Setup::default(), a_namespace_goes_with_its_servers),
        own("servers::a_reference_waits_for_a_ready_server", strict, a_reference_waits_for_a_ready_server),
        own("servers::of_those_that_go_at_once_one_stays", racing, of_those_that_go_at_once_one_stays),
        own("servers::a_weakened_build_is_found_out", weakened, a_weakened_build_is_found_out),
    ]
}

fn the_last_ready_one_of_an_entry_in_use_stays(scene: &Scene<'_>) {
    in_use(scene);
    scene.create_object(server("Deployment", "server-a", "models:v1").to_string()).ok();
    scene.rolled_out("deployment/server-a");
    let namespace = &scene.namespace.name;
    let denied = |output: Output, webhook: &str| {
        output
            .failed("Error from server (Forbidden)")
            .says(&format!("admission webhook \"{webhook}.modelguard.dev\" denied the request: [MG301] Deployment "))
            .says(&format!(
                "[MG301] Deployment {namespace}/server-a: it is the last ready server of entry v1 of model ConfigMap \
                 {namespace}/models, which is still used by the pod template of Deployment {namespace}/api.\nThis is step 3 \
                 (remove) of a release; finish step 2 (roll out the app) first, or let another server of it become ready."
            ))
    };
    let removal = || scene.kubectl(["delete", "deployment", "server-a"]);
    held(&removal());
    denied(removal().run(), "workload");
    let all = format!("/apis/apps/v1/namespaces/{namespace}/deployments?fieldSelector=metadata.name=server-a");
    denied(scene.kubectl(["delete", "--raw", &all]).run(), "workload");
    denied(scale("server-a", scene).run(), "scale");
    let autoscaler = ["--as=system:serviceaccount:kube-system:horizontal-pod-autoscaler", "--as-group=system:masters"];
    denied(scale("server-a", scene).args(autoscaler).run(), "scale");
    denied(patch(scene, "server-a", &json!({"replicas": 0})).run(), "workload");
    denied(patch(scene, "server-a", &serving(Some("models:v2"))).run(), "workload");
    denied(patch(scene, "server-a", &serving(None)).run(), "workload");
    let answers = scene.answers("deployments", "server-a", "admin");
    let refused: Vec<_> = answers.iter().filter(|(_, status)| *status >= 400).collect();
    assert!(refused.len() >= 6 && refused.iter().all(|(_, status)| *status == 403), "{answers:?}");

    // More of the same is no departure, and neither is what others serve.
    patch(scene, "server-a", &serving(Some("models:*"))).run().ok();
    scene.rolled_out("deployment/server-a");
    patch(scene, "server-a", &serving(Some("models:v1, other:v1"))).run().ok();
    scene.rolled_out("deployment/server-a");
    scene.kubectl(["scale", "deployment", "server-a", "--replicas=2"]).run().ok();
    assert_eq!(departing(scene), Value::Null);

    // Once the app is off it, it may go.
    patch(scene, "api", &json!({"template": {"metadata": {"annotations": {"modelguard.dev/uses": null}}}})).run().ok();
    until("it may go", || removal().succeed().map(drop));
}

fn every_kind_of_server_is_guarded(scene: &Scene<'_>) {
    in_use(scene);
    scene.create_object(deployment("more", 0, "models:v2").to_string()).ok();
    for (kind, name, serves) in [("StatefulSet", "set", "models:v1"), ("DaemonSet", "daemons", "models:v2")] {
        scene.create_object(server(kind, name, serves).to_string()).ok();
        scene.rolled_out(&format!("{kind}/{name}"));
        let removal = scene.kubectl(["delete", kind, name]);
        held(&removal);
        let says = format!("[MG301] {kind} {}/{name}: it is the last ready server of entry ", scene.namespace.name);
        removal.run().failed(&says);
        let patch = |spec: &Value| {
            let patch = json!({"spec": spec}).to_string();
            scene.kubectl(["patch", kind, name, "--type=merge", "-p", &patch]).run().failed(&says);
        };
        patch(&serving(Some("models:v3")));
        if kind == "StatefulSet" {
            patch(&json!({"replicas": 0}));
            scene.kubectl(["scale", kind, name, "--replicas=0"]).run().failed(&says);
        }
        // The next one takes over, and the first one may go.
        let next = format!("{name}-next");
        scene.create_object(server("Deployment", &next, serves).to_string()).ok();
        scene.rolled_out(&format!("deployment/{next}"));
        removal.run().ok();
        scene.kubectl(["delete", "deployment", &next]).run().denied("MG301");
    }
}

fn where_another_is_ready_one_may_go(scene: &Scene<'_>) {
    in_use(scene);
    let removal = |name: &str| scene.kubectl(["delete", "deployment", name]);
    scene.create_object(server("Deployment", "server-a", "models:*").to_string()).ok();
    scene.rolled_out("deployment/server-a");
    held(&removal("server-a"));
    // One that is not ready is none.
    let mut late = server("Deployment", "server-c", "models:v1");
    late["spec"]["template"]["spec"]["nodeSelector"] = json!({"no": "such-node"});
    scene.create_object(late.to_string()).ok();
    removal("server-a").run().denied("MG301");

    scene.create_object(server("Deployment", "server-b", "models:v1").to_string()).ok();
    scene.rolled_out("deployment/server-b");
    removal("server-a").args(["--dry-run=server"]).run().ok();
    assert_eq!(departing(scene), Value::Null, "a rehearsal leaves no trace");
    removal("server-a").run().ok();
    let recorded = format!("Deployment/{}/server-a", scene.namespace.name);
    let patches = scene.answers("configmaps", "models", IDENTITY);
    assert!(patches.contains(&("patch".to_owned(), 200)), "{recorded} is recorded: {patches:?}");
    removal("server-b").run().denied("MG301");
    // A server that never was ready serves nothing, so that it goes changes nothing.
    removal("server-c").run().ok();
    until("it is forgotten after Δ", || match departing(scene) {
        Value::Null => Ok(()),
        other => Err(other),
    });
    removal("server-b").run().denied("MG301");
}

fn what_nobody_uses_may_go(scene: &Scene<'_>) {
    in_use(scene);
    scene.create_object(server("Deployment", "server-a", "models:v2").to_string()).ok();
    scene.rolled_out("deployment/server-a");
    // What uses only what it serves itself may go, too.
    let mut selfish = server("Deployment", "selfish", "models:v3");
    selfish["spec"]["template"]["metadata"]["annotations"]["modelguard.dev/uses"] = "models:v3".into();
    scene.create_object(selfish.to_string()).ok();
    scene.rolled_out("deployment/selfish");
    scale("selfish", scene).run().ok();
    scene.kubectl(["delete", "deployment", "server-a", "selfish"]).run().ok();
    assert_eq!(departing(scene), Value::Null);
}

fn break_glass_passes(scene: &Scene<'_>) {
    in_use(scene);
    for name in ["server-a", "server-b"] {
        scene.create_object(server("Deployment", name, "models:v1").to_string()).ok();
        scene.rolled_out(&format!("deployment/{name}"));
        let removal =
            if name == "server-a" { scene.kubectl(["delete", "deployment", name]) } else { scale(name, scene) };
        held(&removal);
        removal.run().denied("MG301");
        scene.kubectl(["annotate", "deployment", name, &grant()]).run().ok();
        removal.run().ok().says("lets pass what modelguard denies: [MG301] Deployment ");
    }
}

fn a_namespace_goes_with_its_servers(scene: &Scene<'_>) {
    in_use(scene);
    scene.create_object(server("Deployment", "server-a", "models:v1").to_string()).ok();
    scene.rolled_out("deployment/server-a");
    let removal = scene.kubectl(["delete", "deployment", "server-a"]);
    held(&removal);
    let name = &scene.namespace.name;
    scene.at.cluster.kubectl(["delete", "namespace", name, &timeout()]).run().ok();
}

fn a_reference_waits_for_a_ready_server(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2", "v3"]).to_string()).ok();
    let api = deployment("api", 0, "models:v1").to_string();
    let denied = |output: Output| {
        let namespace = &scene.namespace.name;
        output.failed("Error from server (Forbidden)").says(&format!(
            "[MG203] Deployment {namespace}/api: it references entry v1 of model ConfigMap {namespace}/models, which no ready \
             server serves.\nThis is step 2 (roll out the app) of a release; first wait until a workload with the annotation \
             modelguard.dev/serves for it is ready."
        ))
    };
    denied(scene.create_object(api.as_str()));
    scene.create_object(server("Deployment", "other", "models:v2").to_string()).ok();
    scene.rolled_out("deployment/other");
    denied(scene.create_object(api.as_str()));
    let mut late = server("Deployment", "server-a", "models:v1");
    late["spec"]["template"]["spec"]["nodeSelector"] = json!({"no": "such-node"});
    scene.create_object(late.to_string()).ok();
    denied(scene.create_object(api.as_str()));
    patch(scene, "server-a", &json!({"template": {"spec": {"nodeSelector": null}}})).run().ok();
    scene.rolled_out("deployment/server-a");
    scene.create_object(api.as_str()).ok();
    // What is there already only keeps its references.
    scene.kubectl(["scale", "deployment", "api", "--replicas=1"]).run().ok();
    // A server may need what it serves itself.
    let mut own = server("Deployment", "own", "models:v2");
    own["spec"]["template"]["metadata"]["annotations"]["modelguard.dev/uses"] = "models:v2".into();
    scene.create_object(own.to_string()).ok();
    let mut unserved = deployment("late", 0, "models:v3");
    scene.create_object(unserved.to_string()).denied("MG203");
    unserved["metadata"]["annotations"] = json!({"modelguard.dev/break-glass": until_when()});
    scene.create_object(unserved.to_string()).ok().says("lets pass what modelguard denies: [MG203]");
}

// === the race ===

fn of_those_that_go_at_once_one_stays(scene: &Scene<'_>) {
    let rounds = number("MODELGUARD_RACE_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).expect("a number"));
    let (seed, ended) = race(scene, rounds, |_| false);
    let allowed = |round: &Ended| round.iter().filter(|(_, result)| result.is_ok()).count();
    let odd: Vec<_> = ended.iter().filter(|round| allowed(round) + 1 != round.len()).collect();
    assert!(odd.is_empty(), "seed {seed}: not exactly one stayed in {} rounds: {odd:?}", odd.len());
    let codes: Vec<_> = ended.iter().flatten().filter_map(|(_, result)| result.as_ref().err()).collect();
    assert!(codes.iter().all(|code| *code == "MG301"), "{codes:?}");
    println!("servers: {} rounds, one stayed in each, seed {seed}", ended.len());
}

fn a_weakened_build_is_found_out(scene: &Scene<'_>) {
    let all_went =
        |ended: &[Ended]| ended.iter().filter(|round| round.iter().all(|(_, result)| result.is_ok())).count();
    let (seed, ended) = race(scene, ROUNDS, |ended| all_went(ended) > 0);
    let violations = all_went(&ended);
    assert!(violations > 0, "nobody noticed that departures are not recorded, seed {seed}");
    println!("servers, weakened build: all servers of {violations} of {} rounds went", ended.len());
}

fn race(scene: &Scene<'_>, rounds: usize, enough: impl Fn(&[Ended]) -> bool) -> (u64, Vec<Ended>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(async {
        slow::start(&scene.at.cluster, &scene.namespace.name).await.expect("a slow webhook");
        let track = Track::new(scene).await;
        let seed = number("MODELGUARD_RACE_SEED").unwrap_or_else(random);
        let mut rng = Rng::with_seed(seed);
        let mut ended = Vec::new();
        while ended.len() < rounds && !enough(&ended) {
            let wave = (ended.len()..rounds.min(ended.len() + AT_A_TIME)).map(|round| (round, rng.fork()));
            ended.extend(join_all(wave.map(|(round, rng)| track.play(round, rng)).collect::<Vec<_>>()).await);
            track.clear().await;
        }
        (seed, ended)
    })
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Where the rounds are played.
struct Track {
    catalogs: Api<ConfigMap>,
    apps: Api<Deployment>,
}

impl Track {
    async fn new(scene: &Scene<'_>) -> Self {
        let client = client(&scene.at.cluster).await.expect("a client");
        let namespace = &scene.namespace.name;
        Self { catalogs: Api::namespaced(client.clone(), namespace), apps: Api::namespaced(client, namespace) }
    }

    async fn play(&self, round: usize, mut rng: Rng) -> Ended {
        let servers: Vec<_> = (0..rng.usize(2..=3)).map(|number| format!("server-{round}-{number}")).collect();
        self.prepare(round, &servers).await;
        let exits = servers.iter().map(|name| {
            let exit = [Exit::Delete, Exit::Scale, Exit::Zero, Exit::Serves][rng.usize(..4)];
            let start = Duration::from_millis(rng.u64(..20));
            // Between verdict and commit, of what somebody else's webhook can delay.
            let delay = if rng.bool() { rng.u64(..1_000) } else { 0 };
            async move {
                sleep(start).await;
                (exit, self.remove(name, exit, delay).await.map_err(|error| code(&error)))
            }
        });
        join_all(exits.collect::<Vec<_>>()).await
    }

    /// Makes what must be there beforehand, and waits until modelguard knows the holder.
    async fn prepare(&self, round: usize, servers: &[String]) {
        let models = format!("models-{round}");
        let catalog = serde_json::from_value(keys(&models, &["v1"])).expect("a ConfigMap");
        self.catalogs.create(&PostParams::default(), &catalog).await.expect("a model ConfigMap");
        self.create(deployment(&format!("api-{round}"), 1, &format!("{models}:v1"))).await;
        for name in servers {
            self.create(server("Deployment", name, &format!("{models}:v1"))).await;
        }
        let (first, others) = servers.split_first().expect("a server");
        self.make_ready(first).await;
        let rehearsal = DeleteParams { dry_run: true, ..DeleteParams::default() };
        let started = Instant::now();
        loop {
            match self.apps.delete(first, &rehearsal).await {
                Err(error) if code(&error) == "MG301" => break,
                other => assert!(started.elapsed() < LONG, "the holder of {models} is not known: {:?}", other.err()),
            }
            sleep(Duration::from_millis(50)).await;
        }
        for name in others {
            self.make_ready(name).await;
        }
    }

    async fn create(&self, app: Value) {
        let app = serde_json::from_value(app).expect("a Deployment");
        self.apps.create(&PostParams::default(), &app).await.expect("a Deployment");
    }

    /// Says what its controller would say.
    async fn make_ready(&self, name: &str) {
        let status = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1});
        let patch = Patch::Merge(json!({"status": status}));
        self.apps.patch_status(name, &PatchParams::default(), &patch).await.expect("its status");
    }

    async fn remove(&self, name: &str, exit: Exit, delay: u64) -> Result<(), kube::Error> {
        let spec = match exit {
            Exit::Delete => return self.apps.delete(name, &DeleteParams::default()).await.map(drop),
            Exit::Scale => {
                let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
                return self.apps.patch_scale(name, &PatchParams::default(), &patch).await.map(drop);
            }
            Exit::Zero => json!({"replicas": 0}),
            Exit::Serves => serving(None),
        };
        let patch = json!({"metadata": {"annotations": {DELAY: delay.to_string()}}, "spec": spec});
        self.apps.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// What is left of one wave would only be listed again and again during the next; servers go once nobody uses them.
    async fn clear(&self) {
        let started = Instant::now();
        loop {
            let left = self.apps.list(&ListParams::default()).await.expect("the Deployments").items;
            let names: Vec<_> = left.into_iter().filter_map(|app| app.metadata.name).collect();
            if names.is_empty() {
                return;
            }
            assert!(started.elapsed() < LONG, "still there: {names:?}");
            for name in names {
                self.apps.delete(&name, &DeleteParams::default()).await.ok();
            }
        }
    }
}

// === what is there, and what is done ===

/// A catalog whose entry v1 is in use.
fn in_use(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2", "v3"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
}

/// A workload with one pod that serves something.
fn server(kind: &str, name: &str, serves: &str) -> Value {
    let mut template = template(name, "");
    template["metadata"]["annotations"] = json!({"modelguard.dev/serves": serves});
    workload(kind, name, 1, template)
}

/// A spec whose template serves this.
fn serving(serves: Option<&str>) -> Value {
    json!({"template": {"metadata": {"annotations": {"modelguard.dev/serves": serves}}}})
}

fn patch(scene: &Scene<'_>, name: &str, spec: &Value) -> Tool {
    scene.kubectl(["patch", "deployment", name, "--type=merge", "-p", &json!({"spec": spec}).to_string()])
}

fn scale(name: &str, scene: &Scene<'_>) -> Tool {
    scene.kubectl(["scale", "deployment", name, "--replicas=0"])
}

/// Which servers are recorded as about to leave the model ConfigMap.
fn departing(scene: &Scene<'_>) -> Value {
    let usage = &scene.get("configmap", "models")["metadata"]["annotations"]["modelguard.dev/usage"];
    let usage: Value = serde_json::from_str(usage.as_str().unwrap_or("{}")).expect("JSON");
    usage["departing"].clone()
}

/// Waits until modelguard knows who holds what this would take the last server of.
fn held(removal: &Tool) {
    let rehearsal = removal.clone().args(["--dry-run=server"]);
    until("its holder is known", || rehearsal.run().denies("MG301"));
}

fn grant() -> String {
    format!("modelguard.dev/break-glass={}", until_when())
}

fn until_when() -> String {
    format!("{:.0} INC-1 is on fire", Timestamp::now() + SignedDuration::from_mins(30))
}
