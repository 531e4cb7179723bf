//! Removals against references, many at a time: at the end no holder needs an entry that is missing.
//!
//! ```text
//! wave ──▶ many rounds, each with a model ConfigMap and an entry of its own
//!            ├─ a removal, in any way there is, again and again while the answer is 429 ┐ both at random
//!            └─ a holder that comes to reference the entry, in any way there is         ┘ moments
//!      ──▶ one LIST of every holder and every ConfigMap: is there a holder of an entry that is missing?
//! ```
//! A webhook of somebody else's makes some requests take seconds between modelguard's verdict and the commit, as
//! they may: up to Δ. A round with a request that took longer proves nothing, and is void. On a machine that makes many of
//! them void, fewer are played at a time, and further ones, until the void ones are few.
//!
//! The same among kills of either replica and restarts of the API server: then calls fail, with an outcome that nobody
//! knows, and what is stored at the end decides alone.
//!
//! `MODELGUARD_RACE_ROUNDS` says how many rounds, `MODELGUARD_RACE_SEED` repeats the choices of an earlier run.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{keys, template, workload};
use crate::support::client::{client, code};
use crate::support::control_plane::Shape;
use crate::support::net::random;
use crate::support::slow::{self, DELAY};
use crate::support::wait::{LONG, Over};
use fastrand::Rng;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Δ. Far more than a request takes here, and little enough to wait for.
const SETTLE: Duration = Duration::from_secs(10);

const ROUNDS: usize = 200;

/// Among kills and restarts.
const TROUBLED_ROUNDS: usize = 100;

/// Most of a round is waiting.
const AT_A_TIME: usize = 100;

/// The fewest, on the slowest machine.
const AT_A_TIME_AT_LEAST: usize = 10;

/// One void round of so many is the most that a report may have.
const FEW: usize = 20;

/// So many times the rounds are played at the most, void ones among them.
const PATIENCE: usize = 3;

/// Without a wait the controller proves all the time, and the fewer entries there are the sooner it is done.
const AT_A_TIME_WEAKENED: usize = 30;

/// What is noted of a call that failed.
const LOST: &str = "lost";

/// What is noted of a removal that leaves the entry there for as long as it may be needed.
const RETAINED: &str = "retained";

/// The entry that is fought for.
const ENTRY: &str = "v1";

const REMOVALS: [Removal; 9] = [
    Removal::Patch,
    Removal::Cut,
    Removal::Put,
    Removal::BoundPut,
    Removal::Apply,
    Removal::Rollback,
    Removal::Delete,
    Removal::DeleteCollection,
    Removal::OptOut,
];

const REFERENCES: [Reference; 7] = [
    Reference::Deployment,
    Reference::Template,
    Reference::Undo,
    Reference::Wake,
    Reference::Scale,
    Reference::Pod,
    Reference::Job,
];

/// When the reference comes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Moment {
    /// The entry is Idle, and both come at once.
    Idle,
    /// It was judged while the entry was InUse, and is committed seconds after that begins Settling.
    InFlight,
    /// While the entry is Settling.
    Settling,
    /// About when the proof is made.
    Proof,
}

/// How the entry is removed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Removal {
    Patch,
    /// Of a JSON patch.
    Cut,
    Put,
    /// A PUT of the revision that was read just before.
    BoundPut,
    Apply,
    /// By `modelguard.dev/rollback-to`, to what was there before the entry came. What may still be needed is retained then,
    /// and goes later.
    Rollback,
    Delete,
    DeleteCollection,
    /// The label goes, and with it all protection.
    OptOut,
}

/// How a holder comes to reference the entry.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Reference {
    /// A Deployment is created.
    Deployment,
    /// One that is there changes its template.
    Template,
    /// The same by the JSON patch that `kubectl rollout undo` sends.
    Undo,
    /// A ReplicaSet that is there is scaled up from zero.
    Wake,
    /// The same by its scale subresource, which nothing can hold up.
    Scale,
    Pod,
    Job,
}

/// What one round does, chosen by chance before it begins.
#[derive(Clone, Debug)]
struct Round {
    number: usize,
    moment: Moment,
    removal: Removal,
    reference: Reference,
    /// Nobody begins a hundred releases in the same instant.
    start: Duration,
    /// How long the removal and the reference wait before they begin, and how long their requests are held up.
    waits: [Duration; 2],
    delays: [Duration; 2],
    seed: u64,
}

/// How it went: of the removal and of the reference, when they were answered, and with which code if not with yes.
struct Ended {
    round: Round,
    removed: Answer,
    referenced: Answer,
    slowest: Duration,
}

struct Answer {
    at: Instant,
    result: Result<(), String>,
}

/// What the rounds of one run came to.
#[derive(Default)]
struct Report {
    seed: u64,
    rounds: usize,
    void: usize,
    slowest: Duration,
    moments: BTreeMap<Moment, Tally>,
    /// Those of which a round proves something.
    pairs: BTreeSet<(Removal, Reference)>,
    violations: Vec<String>,
    denials: BTreeMap<String, usize>,
}

/// Who won, at one moment.
#[derive(Clone, Copy, Default)]
struct Tally {
    removed: usize,
    referenced: usize,
    neither: usize,
    /// Both, by what was acknowledged first.
    removed_then_referenced: usize,
    referenced_then_removed: usize,
}

/// Where the rounds are played.
struct Track {
    catalogs: Api<ConfigMap>,
    apps: Api<Deployment>,
    replica_sets: Api<ReplicaSet>,
    pods: Api<Pod>,
    jobs: Api<Job>,
}

pub(crate) fn tests() -> Vec<Test> {
    let mut setup = Setup { shape: Shape::Store, ..Setup::default() };
    setup.options.settle = format!("{}s", SETTLE.as_secs());
    let weakened = Setup { is_unsound: true, ..setup.clone() };
    let mut troubled = setup.clone();
    troubled.options.replicas = 2;
    vec![
        own("races::no_holder_of_a_missing_entry", setup, no_holder_of_a_missing_entry),
        own("races::among_kills_and_restarts", troubled, among_kills_and_restarts),
        own("races::a_weakened_build_is_found_out", weakened, a_weakened_build_is_found_out),
    ]
}

fn no_holder_of_a_missing_entry(scene: &Scene<'_>) {
    let rounds = rounds(ROUNDS);
    let report = race(scene, rounds, AT_A_TIME, |_| false);
    println!("races: {report}");
    report.check(rounds);
    // Races are what both may win.
    for moment in [Moment::Idle, Moment::Proof] {
        let tally = report.moments[&moment];
        assert!(tally.removed > 0 && tally.referenced > 0, "{moment:?}: {report}");
    }
    let expected = ["MG101", "MG103", "MG105", "MG106", "MG201", "MG202", RETAINED];
    let odd = report.denials.iter().filter(|(code, _)| !expected.contains(&code.as_str()));
    let odd: BTreeMap<_, _> = odd.collect();
    // On a machine that stands still for some seconds a read may time out now and then.
    let is_slow = |code: &String| ["MG501", LOST].contains(&code.as_str());
    assert!(odd.keys().all(|code| is_slow(code)), "{odd:?}");
    assert!(odd.into_values().sum::<usize>() * FEW <= report.rounds, "{report}");
}

/// Nothing is known of a call that failed, so that only what is stored counts.
fn among_kills_and_restarts(scene: &Scene<'_>) {
    let rounds = rounds(TROUBLED_ROUNDS);
    let trouble = Trouble::default();
    let report = thread::scope(|scope| {
        let _race = Over(&trouble.is_over);
        scope.spawn(|| trouble.make(scene));
        race(scene, rounds, AT_A_TIME, |_| false)
    });
    let [kills, restarts] = [&trouble.kills, &trouble.restarts].map(|count| count.load(Ordering::Relaxed));
    println!("races, {kills} kills and {restarts} restarts of the API server: {report}");
    report.check(rounds);
    assert!(kills > 0 && restarts > 0, "nothing happened");
    let removed: usize = report.moments.values().map(|tally| tally.removed).sum();
    let referenced: usize = report.moments.values().map(|tally| tally.referenced).sum();
    assert!(removed > 0 && referenced > 0, "{report}");
}

/// What is done to modelguard and the API server meanwhile, in turns.
#[derive(Default)]
struct Trouble {
    is_over: AtomicBool,
    kills: AtomicUsize,
    restarts: AtomicUsize,
}

impl Trouble {
    /// Leaves time in between for what takes a leader.
    fn make(&self, scene: &Scene<'_>) {
        let (modelguard, mut rng) = (&scene.at.modelguard, Rng::new());
        for turn in 0.. {
            let pause = Instant::now() + Duration::from_millis(rng.u64(3_000..12_000));
            while Instant::now() < pause {
                if self.is_over.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
            if turn % 3 == 1 {
                scene.at.cluster.restart_api_server().expect("the API server starts");
                self.restarts.fetch_add(1, Ordering::Relaxed);
            } else {
                let victim = rng.choice(&modelguard.replicas).expect("a replica");
                victim.kill();
                victim.restart().expect("it starts");
                self.kills.fetch_add(1, Ordering::Relaxed);
            }
            modelguard.wait_until_ready(2).expect("both are ready");
        }
    }
}

fn rounds(default: usize) -> usize {
    number("MODELGUARD_RACE_ROUNDS").map_or(default, |rounds| usize::try_from(rounds).expect("a number"))
}

/// The same rounds find what the feature `unsound` breaks, each of the two: where the entry was Idle before the reference
/// came, only the lift could have kept it; where the verdict on the reference came before Settling, only the wait.
fn a_weakened_build_is_found_out(scene: &Scene<'_>) {
    let broken = |report: &Report| {
        let violations = |moment| report.moments.get(&moment).map_or(0, |tally: &Tally| tally.violations());
        [Moment::Idle, Moment::InFlight].map(violations)
    };
    let report = race(scene, ROUNDS, AT_A_TIME_WEAKENED, |report| !broken(report).contains(&0));
    println!("races, weakened build: {report}");
    let [no_lift, no_wait] = broken(&report);
    assert!(no_lift > 0, "nobody noticed that references lift nothing: {report}");
    assert!(no_wait > 0, "nobody noticed that proofs do not wait: {report}");
}

/// Plays wave after wave, until there are so many rounds, with few void ones among them, or `enough` says so.
fn race(scene: &Scene<'_>, rounds: usize, mut at_a_time: usize, enough: impl Fn(&Report) -> bool) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(async {
        slow::start(&scene.at.cluster, &scene.namespace.name).await.expect("a slow webhook");
        let track = Track::new(scene).await;
        track.make_account(scene).await;
        let seed = number("MODELGUARD_RACE_SEED").unwrap_or_else(random);
        let mut rng = Rng::with_seed(seed);
        let mut report = Report { seed, ..Report::default() };
        while report.wants(rounds) && !enough(&report) {
            let left = rounds.saturating_sub(report.rounds);
            let size = if left == 0 { at_a_time } else { at_a_time.min(left) };
            let wave: Vec<_> = (report.rounds..).take(size).map(|number| Round::choose(number, &mut rng)).collect();
            let ended = join_all(wave.into_iter().map(|round| track.play(round))).await;
            if ended.iter().filter(|ended| ended.is_void()).count() * FEW > size {
                at_a_time = AT_A_TIME_AT_LEAST.max(at_a_time / 2);
            }
            report.add(&ended, &persist(|| track.violated()).await);
            persist(|| track.clear()).await;
        }
        report
    })
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

// === impl Round ===

impl Round {
    fn choose(number: usize, rng: &mut Rng) -> Self {
        let moment = match rng.u8(..100) {
            0..40 => Moment::Idle,
            40..65 => Moment::InFlight,
            65..80 => Moment::Settling,
            _ => Moment::Proof,
        };
        // Every pair of the two, in turn.
        let removal = REMOVALS[number % REMOVALS.len()];
        let reference = REFERENCES[number / REMOVALS.len() % REFERENCES.len()];
        // It cannot be held up.
        let moment =
            if reference == Reference::Scale && moment == Moment::InFlight { Moment::Settling } else { moment };
        let mut between = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
        let start = between(0, 3_000);
        let waits = match moment {
            Moment::Idle => [between(0, 40), between(0, 40)],
            // The verdict on the reference is out before Settling begins.
            Moment::InFlight => [between(300, 800), Duration::ZERO],
            Moment::Settling => [Duration::ZERO, between(300, 10_000)],
            // Δ, and then a LIST for each of many catalogs, one after the other.
            Moment::Proof => [Duration::ZERO, between(10_000, 20_000)],
        };
        let mut now_and_then =
            |to| if rng.u8(..3) == 0 { Duration::from_millis(rng.u64(..to)) } else { Duration::ZERO };
        let delays = match moment {
            Moment::InFlight => [now_and_then(200), Duration::from_millis(rng.u64(5_000..8_500))],
            _ => [now_and_then(500), now_and_then(2_000)],
        };
        Self { number, moment, removal, reference, start, waits, delays, seed: rng.u64(..) }
    }

    /// How long a removal waits before it asks again, `since` it first asked: no longer than it was `told`, and often
    /// enough to come at the moment.
    fn pause(&self, since: Duration, told: u32, rng: &mut Rng) -> Duration {
        let random = match self.moment {
            Moment::Idle | Moment::Settling => rng.u64(500..4_000),
            Moment::InFlight => rng.u64(300..1_500),
            Moment::Proof => rng.u64(100..600),
        };
        let earliest = if self.moment == Moment::Proof { SETTLE.saturating_sub(since) } else { Duration::ZERO };
        (earliest + Duration::from_millis(random)).min(Duration::from_secs(told.into()))
    }

    fn catalog(&self) -> String {
        format!("models-{}", self.number)
    }

    fn app(&self) -> String {
        format!("app-{}", self.number)
    }

    /// What its holder comes to need.
    fn uses(&self) -> String {
        format!("{}:{ENTRY}", self.catalog())
    }

    /// Its holder, of this kind.
    fn holder(&self, kind: &str, replicas: u32, uses: &str, delay: Duration) -> Value {
        let mut object = workload(kind, &self.app(), replicas, template(&self.app(), uses));
        json_patch::merge(&mut object["metadata"]["annotations"], &annotation(delay));
        object
    }

    /// Its ConfigMap, with these entries.
    fn content(&self, entries: &[&str], delay: Duration) -> Value {
        let mut content = keys(&self.catalog(), entries);
        content["metadata"]["annotations"] = annotation(delay);
        content
    }
}

fn annotation(delay: Duration) -> Value {
    if delay.is_zero() { json!({}) } else { json!({DELAY: delay.as_millis().to_string()}) }
}

// === impl Track ===

impl Track {
    async fn new(scene: &Scene<'_>) -> Self {
        let client = client(&scene.at.cluster).await.expect("a client");
        let namespace = &scene.namespace.name;
        Self {
            catalogs: Api::namespaced(client.clone(), namespace),
            apps: Api::namespaced(client.clone(), namespace),
            replica_sets: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            jobs: Api::namespaced(client, namespace),
        }
    }

    /// No pod is made without one, and nobody makes it here.
    async fn make_account(&self, scene: &Scene<'_>) {
        let accounts = Api::<ServiceAccount>::namespaced(self.pods.clone().into_client(), &scene.namespace.name);
        let account = json!({"metadata": {"name": "default"}});
        let created = create(&accounts, account).await;
        created.expect("a ServiceAccount");
    }

    async fn play(&self, round: Round) -> Ended {
        sleep(round.start).await;
        persist(|| self.prepare(&round)).await;
        if round.moment == Moment::Idle {
            persist(|| self.settle(&round)).await;
        }
        let slowest = Cell::new(Duration::ZERO);
        let removal = async {
            sleep(round.waits[0]).await;
            self.remove_with_patience(&round, &slowest).await
        };
        let reference = async {
            sleep(round.waits[1]).await;
            let result = timed(&slowest, self.refer(&round)).await;
            Answer::now(result)
        };
        let (removed, referenced) = tokio::join!(removal, reference);
        Ended { round, removed, referenced, slowest: slowest.get() }
    }

    /// Makes what must be there beforehand; again if that was cut short.
    async fn prepare(&self, round: &Round) -> Result<(), kube::Error> {
        if let Removal::Rollback = round.removal {
            let earlier = round.content(&["other"], Duration::ZERO);
            self.catalogs.patch(&round.catalog(), &owner(), &Patch::Apply(earlier)).await?;
        }
        let content = round.content(&[ENTRY, "other"], Duration::ZERO);
        let created = self.catalogs.patch(&round.catalog(), &owner(), &Patch::Apply(&content)).await;
        created?;
        match round.reference {
            Reference::Template | Reference::Undo => {
                make(&self.apps, round.holder("Deployment", 1, "", Duration::ZERO)).await
            }
            Reference::Wake | Reference::Scale => {
                make(&self.replica_sets, round.holder("ReplicaSet", 0, &round.uses(), Duration::ZERO)).await
            }
            Reference::Deployment | Reference::Pod | Reference::Job => Ok(()),
        }
    }

    /// Has the entry proven Idle; again if that was cut short.
    async fn settle(&self, round: &Round) -> Result<(), kube::Error> {
        // A rollback is not refused: what it may not remove is retained.
        let removal = if round.removal == Removal::Rollback { Removal::Patch } else { round.removal };
        let refused = &Round { removal, ..round.clone() };
        while !self.is_marked(round).await? {
            match self.remove(refused, Duration::ZERO).await {
                Err(refused) if code(&refused) == "MG103" => break,
                Err(other) => return Err(other),
                // It was Idle already, and is gone.
                Ok(_) => self.prepare(round).await?,
            }
        }
        self.wait_for_idle(round).await
    }

    /// Whether the entry is Settling or Idle.
    async fn is_marked(&self, round: &Round) -> Result<bool, kube::Error> {
        let usage = self.usage(round).await?;
        Ok(!usage["settling"][ENTRY].is_null() || is_idle(&usage))
    }

    async fn usage(&self, round: &Round) -> Result<Value, kube::Error> {
        let catalog = self.catalogs.get(&round.catalog()).await?;
        let usage = catalog.metadata.annotations.unwrap_or_default().remove("modelguard.dev/usage");
        Ok(serde_json::from_str(usage.as_deref().unwrap_or("{}")).expect("JSON"))
    }

    async fn wait_for_idle(&self, round: &Round) -> Result<(), kube::Error> {
        let start = Instant::now();
        loop {
            let usage = self.usage(round).await?;
            if is_idle(&usage) {
                return Ok(());
            }
            assert!(start.elapsed() < LONG, "{round:?} waits for its entry to be Idle: {usage}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks again after a 429, sooner than it says, and after a conflict.
    async fn remove_with_patience(&self, round: &Round, slowest: &Cell<Duration>) -> Answer {
        let mut rng = Rng::with_seed(round.seed);
        let start = Instant::now();
        loop {
            let answer = timed(slowest, self.remove(round, round.delays[0])).await;
            let at = Instant::now();
            let told = match &answer {
                Err(kube::Error::Api(status)) if status.code == 429 => {
                    status.details.as_ref().map_or(0, |details| details.retry_after_seconds)
                }
                // Somebody wrote it meanwhile, as the controller does: whoever reads before writing reads again.
                Err(kube::Error::Api(status)) if status.code == 409 => 1,
                // Nobody could be asked.
                Err(error) if is_lost(error) => 1,
                _ => 0,
            };
            if told == 0 || start.elapsed() > 3 * SETTLE {
                return match answer {
                    Ok(false) => Answer { at, result: Err(RETAINED.to_owned()) },
                    answer => Answer { at, ..Answer::now(answer.map(drop)) },
                };
            }
            sleep(round.pause(start.elapsed(), told, &mut rng)).await;
        }
    }

    /// Removes the entry, once; whether it is gone then.
    async fn remove(&self, round: &Round, delay: Duration) -> Result<bool, kube::Error> {
        let name = round.catalog();
        let rest = round.content(&["other"], delay);
        let by = PatchParams::default();
        match round.removal {
            Removal::Patch => {
                let patch = json!({"metadata": {"annotations": annotation(delay)}, "data": {ENTRY: null}});
                self.catalogs.patch(&name, &by, &Patch::Merge(patch)).await.map(|_| true)
            }
            Removal::Cut => {
                let cut = json!([{"op": "remove", "path": format!("/data/{ENTRY}")}]);
                let patch = Patch::<ConfigMap>::Json(serde_json::from_value(cut).expect("a patch"));
                self.catalogs.patch(&name, &by, &patch).await.map(|_| true)
            }
            Removal::Put => {
                let rest = serde_json::from_value(rest).expect("a ConfigMap");
                self.catalogs.replace(&name, &PostParams::default(), &rest).await.map(|_| true)
            }
            Removal::Rollback => {
                let mut annotations = annotation(delay);
                // By its number: asked for again, it is the same.
                annotations["modelguard.dev/rollback-to"] = "1".into();
                let patch = json!({"metadata": {"annotations": annotations}});
                let written = self.catalogs.patch(&name, &by, &Patch::Merge(patch)).await?;
                Ok(!written.data.is_some_and(|data| data.contains_key(ENTRY)))
            }
            Removal::BoundPut => {
                let mut read = self.catalogs.get(&name).await?;
                read.data.as_mut().and_then(|data| data.remove(ENTRY));
                self.catalogs.replace(&name, &PostParams::default(), &read).await.map(|_| true)
            }
            Removal::Apply => self.catalogs.patch(&name, &owner(), &Patch::Apply(rest)).await.map(|_| true),
            Removal::Delete => self.catalogs.delete(&name, &DeleteParams::default()).await.map(|_| true),
            Removal::DeleteCollection => {
                let only = ListParams::default().fields(&format!("metadata.name={name}"));
                self.catalogs.delete_collection(&DeleteParams::default(), &only).await.map(|_| true)
            }
            Removal::OptOut => {
                let labels = json!({"modelguard.dev/catalog": null});
                let patch = json!({"metadata": {"annotations": annotation(delay), "labels": labels}});
                self.catalogs.patch(&name, &by, &Patch::Merge(patch)).await.map(|_| true)
            }
        }
    }

    async fn refer(&self, round: &Round) -> Result<(), kube::Error> {
        let (name, uses, delay) = (round.app(), round.uses(), round.delays[1]);
        let by = PatchParams::default();
        let holder = |kind| round.holder(kind, 1, &uses, delay);
        match round.reference {
            Reference::Deployment => create(&self.apps, holder("Deployment")).await,
            Reference::Pod => create(&self.pods, holder("Pod")).await,
            Reference::Job => create(&self.jobs, holder("Job")).await,
            Reference::Template => {
                let template = json!({"metadata": {"annotations": {"modelguard.dev/uses": uses}}});
                let patch = json!({"metadata": {"annotations": annotation(delay)}, "spec": {"template": template}});
                self.apps.patch(&name, &by, &Patch::Merge(patch)).await.map(drop)
            }
            Reference::Undo => {
                let undo = json!([
                    {"op": "replace", "path": "/spec/template", "value": template(&name, &uses)},
                    {"op": "add", "path": "/metadata/annotations", "value": annotation(delay)},
                ]);
                let patch = Patch::<Deployment>::Json(serde_json::from_value(undo).expect("a patch"));
                self.apps.patch(&name, &by, &patch).await.map(drop)
            }
            Reference::Wake => {
                let patch = json!({"metadata": {"annotations": annotation(delay)}, "spec": {"replicas": 1}});
                self.replica_sets.patch(&name, &by, &Patch::Merge(patch)).await.map(drop)
            }
            Reference::Scale => {
                let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
                self.replica_sets.patch_scale(&name, &by, &patch).await.map(drop)
            }
        }
    }

    /// The model ConfigMaps of which a holder needs an entry that is missing, as it is stored now.
    async fn violated(&self) -> Result<BTreeSet<String>, kube::Error> {
        let all = ListParams::default();
        let templates = |template: Option<ObjectMeta>| template.and_then(|template| uses(&template));
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for app in self.apps.list(&all).await? {
            needed.extend(templates(app.spec.and_then(|spec| spec.template.metadata)));
        }
        for set in self.replica_sets.list(&all).await? {
            let alive = set.spec.filter(|spec| spec.replicas != Some(0));
            needed.extend(templates(alive.and_then(|spec| spec.template).and_then(|template| template.metadata)));
        }
        for job in self.jobs.list(&all).await? {
            needed.extend(templates(job.spec.and_then(|spec| spec.template.metadata)));
        }
        for pod in self.pods.list(&all).await? {
            needed.extend(uses(&pod.metadata));
        }
        // Read last: an entry that is missing now, while its holders were there before, is missing.
        for catalog in self.catalogs.list(&all).await? {
            let name = catalog.metadata.name.unwrap_or_default();
            let is_opted_in =
                catalog.metadata.labels.is_some_and(|labels| labels.contains_key("modelguard.dev/catalog"));
            for entry in catalog.data.iter().flatten().map(|(entry, _)| entry).filter(|_| is_opted_in) {
                needed.remove(&format!("{name}:{entry}"));
            }
        }
        Ok(needed.into_iter().filter_map(|need| Some(need.split_once(':')?.0.to_owned())).collect())
    }

    /// The holders of one wave would only be listed again and again during the next.
    async fn clear(&self) -> Result<(), kube::Error> {
        let (how, all) = (DeleteParams::default(), ListParams::default());
        self.apps.delete_collection(&how, &all).await?;
        self.replica_sets.delete_collection(&how, &all).await?;
        self.pods.delete_collection(&how, &all).await?;
        self.jobs.delete_collection(&how, &all).await?;
        Ok(())
    }
}

/// As [`create`], where it may be there already.
async fn make<K>(api: &Api<K>, object: Value) -> Result<(), kube::Error>
where
    K: Clone + fmt::Debug + DeserializeOwned + Resource + Serialize,
{
    match create(api, object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other,
    }
}

/// Tries until it works. Where an API server is restarted again and again, on a machine that builds something beside, one
/// attempt may take a minute, and fail at its end.
async fn persist<T, F: Future<Output = Result<T, kube::Error>>>(attempt: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(error) => assert!(start.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<(), kube::Error>
where
    K: Clone + fmt::Debug + DeserializeOwned + Resource + Serialize,
{
    let object = serde_json::from_value(object).expect("an object of its kind");
    api.create(&PostParams::default(), &object).await.map(drop)
}

fn is_idle(usage: &Value) -> bool {
    usage["idle"].as_array().is_some_and(|idle| idle.iter().any(|entry| entry == ENTRY))
}

fn uses(metadata: &ObjectMeta) -> Option<String> {
    metadata.annotations.as_ref()?.get("modelguard.dev/uses").cloned()
}

fn owner() -> PatchParams {
    PatchParams::apply("owner").force()
}

/// Keeps the longest time that a request took.
async fn timed<T>(slowest: &Cell<Duration>, request: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let answer = request.await;
    slowest.set(slowest.get().max(start.elapsed()));
    answer
}

/// Whether modelguard said nothing, and perhaps nobody did: what became of the request is not known.
fn is_lost(error: &kube::Error) -> bool {
    !code(error).starts_with("MG")
}

// === impl Ended ===

impl Ended {
    /// Whether a request took longer than the guarantee allows for.
    fn is_void(&self) -> bool {
        self.slowest > SETTLE
    }

    /// Whether the answers say all of what became of the requests: none is lost, and none says that the entry goes later.
    fn is_known(&self) -> bool {
        [&self.removed, &self.referenced].iter().all(|answer| !answer.is(LOST) && !answer.is(RETAINED))
    }
}

// === impl Answer ===

impl Answer {
    fn now(result: Result<(), kube::Error>) -> Self {
        let result = result.map_err(|error| if is_lost(&error) { LOST.to_owned() } else { code(&error) });
        Self { at: Instant::now(), result }
    }

    fn is(&self, code: &str) -> bool {
        self.result.as_ref().is_err_and(|said| said == code)
    }
}

// === impl Report ===

impl Report {
    /// Nobody lacks anything, and so many rounds say so.
    #[track_caller]
    fn check(&self, rounds: usize) {
        assert!(self.violations.is_empty(), "a holder of a missing entry:\n{}", self.violations.join("\n"));
        assert!(self.rounds >= rounds, "{} of {rounds} rounds were played", self.rounds);
        let pairs = REMOVALS.len() * REFERENCES.len();
        let missed = pairs - self.pairs.len();
        assert!(rounds < pairs || missed <= self.void, "{missed} pairs were not played: {self}");
        assert!(!self.proves_little(), "{} of {} rounds are void: nothing is proven", self.void, self.rounds);
    }

    /// Whether there are not yet so many rounds, or too few of them prove something.
    fn wants(&self, rounds: usize) -> bool {
        self.rounds < rounds || (self.proves_little() && self.rounds < rounds * PATIENCE)
    }

    fn proves_little(&self) -> bool {
        self.void * FEW > self.rounds
    }

    fn add(&mut self, ended: &[Ended], violated: &BTreeSet<String>) {
        for ended in ended {
            let Ended { round, removed, referenced, slowest } = ended;
            self.rounds += 1;
            self.slowest = self.slowest.max(*slowest);
            let both = violated.contains(&round.catalog());
            let answered = removed.result.is_ok() && referenced.result.is_ok();
            assert!(!ended.is_known() || both == answered, "what is stored is what was answered: {round:?}");
            if ended.is_void() {
                self.void += 1;
                continue;
            }
            self.moments.entry(round.moment).or_default().add(ended, both);
            self.pairs.insert((round.removal, round.reference));
            for code in [&removed.result, &referenced.result].into_iter().filter_map(|result| result.as_ref().err()) {
                *self.denials.entry(code.clone()).or_default() += 1;
            }
            if both {
                let removed_later = removed.at.saturating_duration_since(referenced.at);
                let referenced_later = referenced.at.saturating_duration_since(removed.at);
                self.violations.push(format!(
                    "{round:?}, the removal answered {removed_later:?} after the reference, or {referenced_later:?} before"
                ));
            }
        }
    }
}

impl Tally {
    /// `both`: by what is stored, for an answer may be lost, or say that the rest comes later.
    fn add(&mut self, Ended { removed, referenced, .. }: &Ended, both: bool) {
        let counter = match (&removed.result, &referenced.result) {
            _ if both && removed.at < referenced.at => &mut self.removed_then_referenced,
            _ if both => &mut self.referenced_then_removed,
            (Ok(()), _) => &mut self.removed,
            (Err(_), Ok(())) => &mut self.referenced,
            (Err(_), Err(_)) => &mut self.neither,
        };
        *counter += 1;
    }

    fn violations(&self) -> usize {
        self.removed_then_referenced + self.referenced_then_removed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, rounds, void, slowest, moments, pairs, violations, denials } = self;
        let (count, pairs) = (violations.len(), pairs.len());
        write!(f, "{rounds} rounds, {pairs} pairs of removal and reference, {count} violations, {void} void; ")?;
        writeln!(f, "slowest request {slowest:.1?}; seed {seed}")?;
        writeln!(f, "  the entry is  removed  referenced  neither  both: removed first  referenced first")?;
        for (moment, tally) in moments {
            let Tally { removed, referenced, neither, removed_then_referenced, referenced_then_removed } = tally;
            write!(f, "  {:<12}  {removed:>7}  {referenced:>10}  {neither:>7}", format!("{moment:?}"))?;
            writeln!(f, "  {removed_then_referenced:>19}  {referenced_then_removed:>16}")?;
        }
        write!(f, "  denials: {denials:?}")
    }
}
