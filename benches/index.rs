//! The index at a million pods: its memory as the allocator counts it, and what events and questions take.
//!
//! ```text
//! JSON of the API server ──Workload::parse──▶ ──Facts::of──▶ ──Index::apply, Index::delete──▶ Index ──▶ held, holders
//!                          decode             └─────────────────── apply ───────────────────┘
//! ```
//! That is the watch's own path. A word after `--` is a part of a shape's name: then only that is measured.

use modelguard::catalog::{EntryName, Format};
use modelguard::index::{Facts, Index};
use modelguard::object::{HolderKind, Workload};
use modelguard::reference::CatalogKey;
use modelguard::sharing::Sharing;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::env;
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MILLION: usize = 1_000_000;

/// Events, or questions, that a median is of.
const SAMPLES: usize = 10_000;

/// Bytes that the index may take for a pod that holds references, and for one that holds none.
const HOLDING: usize = 200;
const HOLDING_NONE: usize = 40;

/// Within how long an event must be applied.
const EVENT: &str = "limit 5 µs";

/// What workloads are called.
const APPS: [&str; 4] = ["extraction-api", "ranking-service", "search-frontend", "translation"];

/// What the model ConfigMaps of each namespace list versions of.
const MODELS: [&str; 5] = ["extraction", "ranking", "search", "speech", "translation"];

/// Owners in a row whose pods use the same version.
const OWNERS_OF_A_VERSION: usize = 10;

/// What generated names end with: the characters that Kubernetes takes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How the pods of a cluster are spread.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    pods: usize,
    namespaces: usize,
    /// In a row, and of one template.
    pods_of_an_owner: usize,
    /// The owner's kind.
    owner: Option<&'static str>,
    holding: bool,
    /// Whether time is measured as well.
    timed: bool,
}

/// The JSON of a shape's pods, but for their names.
struct Json {
    shape: Shape,
    text: String,
}

const USUAL: Shape = Shape {
    name: "10 pods an owner, 20 namespaces",
    pods: MILLION,
    namespaces: 20,
    pods_of_an_owner: 10,
    owner: Some("ReplicaSet"),
    holding: true,
    timed: true,
};

const SHAPES: [Shape; 5] = [
    USUAL,
    // 58,824 pods a namespace: a few more than a hash table of 65,536 places takes.
    Shape { name: "10 pods an owner, 17 namespaces, their tables just grown", namespaces: 17, timed: false, ..USUAL },
    Shape { name: "one pod an owner, the worst case", pods_of_an_owner: 1, ..USUAL },
    Shape { name: "bare pods", owner: None, timed: false, ..USUAL },
    Shape { name: "pods that hold nothing", holding: false, ..USUAL },
];

fn main() {
    // cargo adds `--bench`.
    let asked = env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for shape in SHAPES.into_iter().filter(|shape| shape.name.contains(&asked)) {
        println!("\n{} pods: {}", shape.pods, shape.name);
        let json = Json::new(shape, "True");
        let mut index = measure_memory(&json);
        if shape.timed {
            measure_events(&json, &mut index);
        }
        if shape.holding && shape.timed {
            measure_questions(&index, &filled(&Json::new(Shape { pods: 1000, namespaces: 1, ..shape }, "True")));
        }
    }
}

// === what is measured ===

fn measure_memory(json: &Json) -> Index {
    let region = Region::new(COUNTED);
    let index = filled(json);
    let change = region.change();
    let bytes = (change.bytes_allocated - change.bytes_deallocated) / json.shape.pods;
    let limit = if json.shape.holding { HOLDING } else { HOLDING_NONE };
    println!("  {:<42}{bytes:>8} bytes a pod         limit {limit}", "memory");
    index
}

fn measure_events(json: &Json, index: &mut Index) {
    let unready = Json::new(json.shape, "False");
    let step = json.shape.pods / SAMPLES;
    let known: Vec<_> = (0..SAMPLES).map(|number| json.pod(number * step)).collect();
    let changed: Vec<_> = (0..SAMPLES).map(|number| parse(&unready.pod(number * step))).collect();
    let new: Vec<_> = (0..SAMPLES).map(|number| parse(&json.pod(json.shape.pods + number))).collect();
    report("decode a pod's JSON", &format!("{} bytes", known[0].len()), &known, |json| parse(json));
    let known: Vec<_> = known.iter().map(|json| parse(json)).collect();
    let facts = |pod: &Workload| Facts::of(HolderKind::Pod, pod);
    report("apply a pod as it was", EVENT, &known, |pod| index.apply(facts(pod)));
    report("apply another status", EVENT, &changed, |pod| index.apply(facts(pod)));
    report("apply a new pod", EVENT, &new, |pod| index.apply(facts(pod)));
    report("apply a deletion", EVENT, &new, |pod| index.delete(&facts(pod).id));
}

/// What the controller asks of each entry, and what a denial asks: among so many pods, and among a thousand.
fn measure_questions(index: &Index, small: &Index) {
    let catalog = CatalogKey::new(&namespace(0), &catalog(0));
    let entries = ["v0", "none"].map(|version| EntryName::new(&format!("{}@{version}", MODELS[0])).expect("a name"));
    for (entry, which) in entries.iter().zip(["held", "not held"]) {
        let asked = vec![entry; SAMPLES];
        let [among_all, among_few] = [index, small]
            .map(|index| time(&asked, |entry| index.held(&catalog, &everybody(), Format::Yaml, [*entry])).0);
        print_ratio(&format!("is an entry held? ({which})"), among_all, among_few);
    }
    let asked = vec![&entries[0]; SAMPLES];
    let [among_all, among_few] =
        [index, small].map(|index| time(&asked, |entry| index.holders(&catalog, &everybody(), Format::Yaml, entry)).0);
    let holders = index.holders(&catalog, &everybody(), Format::Yaml, &entries[0]);
    let what = format!("who holds it? ({} owners, {} pods)", holders.workloads_total, holders.pods_total);
    print_ratio(&what, among_all, among_few);
}

fn print_ratio(what: &str, among_all: f64, among_few: f64) {
    println!("  {what:<42}{among_all:>8.2} µs, {:.1} times that among 1000 pods", among_all / among_few);
}

/// Prints the median time of `work` on one of `inputs`, and what 99 of 100 stay below.
fn report<I, O>(what: &str, beside: &str, inputs: &[I], work: impl FnMut(&I) -> O) {
    let (median, most) = time(inputs, work);
    println!("  {what:<42}{median:>8.2} µs, p99 {most:>6.2} µs   {beside}");
}

/// In microseconds: the median, and the 99th percentile.
fn time<I, O>(inputs: &[I], mut work: impl FnMut(&I) -> O) -> (f64, f64) {
    let time = |input| {
        let start = Instant::now();
        let output = black_box(work(black_box(input)));
        let elapsed = start.elapsed();
        drop(output);
        elapsed
    };
    let mut times: Vec<_> = inputs.iter().map(time).collect();
    times.sort_unstable();
    let micros = |at: usize| times[at].as_secs_f64() * 1e6;
    (micros(times.len() / 2), micros(times.len() * 99 / 100))
}

// === pods ===

fn filled(json: &Json) -> Index {
    let mut index = Index::default();
    for number in 0..json.shape.namespaces {
        index.guard(&namespace(number), "uid");
    }
    for number in 0..json.shape.pods {
        index.apply(Facts::of(HolderKind::Pod, &parse(&json.pod(number))));
    }
    index
}

fn parse(json: &str) -> Workload {
    Workload::parse(json).expect("a pod")
}

fn namespace(number: usize) -> String {
    format!("team-{number:02}-prod")
}

/// Shared with every namespace.
fn everybody() -> Sharing {
    Sharing::new("models", Some("*"))
}

fn catalog(number: usize) -> String {
    format!("{}-models", MODELS[number])
}

/// As Kubernetes ends a name, with so many characters, and another one for each number.
fn suffix(number: usize, length: u32) -> String {
    // A prime that 27 does not share a factor with, so no two numbers meet.
    let mut rest = number.wrapping_mul(7_654_321) % 27_usize.pow(length);
    let mut next = || {
        let character = ALPHABET[rest % 27];
        rest /= 27;
        char::from(character)
    };
    (0..length).map(|_| next()).collect()
}

impl Json {
    /// `ready` is what its conditions say.
    fn new(shape: Shape, ready: &str) -> Self {
        Self { shape, text: pod(&shape, ready).to_string() }
    }

    /// The JSON of one pod.
    fn pod(&self, number: usize) -> String {
        let group = number / self.shape.pods_of_an_owner;
        let within = group / self.shape.namespaces;
        let version = within / OWNERS_OF_A_VERSION;
        let model = version % MODELS.len();
        let owner = format!("{}-{}", APPS[within % APPS.len()], suffix(group, 9));
        self.text
            .replace("POD", &format!("{owner}-{}", suffix(number, 5)))
            .replace("OWNER", &owner)
            .replace("NAMESPACE", &namespace(group % self.shape.namespaces))
            .replace("USES", &format!("{}:{}@v{}", catalog(model), MODELS[model], version / MODELS.len()))
    }
}

/// A pod as a kubelet's status leaves it, with who manages which of its fields.
fn pod(shape: &Shape, ready: &str) -> Value {
    let time = "2026-11-02T09:30:00Z";
    let owners = shape.owner.map(|kind| {
        json!([{"apiVersion": "apps/v1", "kind": kind, "name": "OWNER", "uid": "0d3c7f0e-7d0b-4c55-9f59-3c1b7a0e9a11",
            "controller": true, "blockOwnerDeletion": true}])
    });
    let uses = if shape.holding { "modelguard.dev/uses" } else { "prometheus.io/scrape" };
    let mounts = json!([{"name": "kube-api-access-x2x4z", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions = conditions
        .map(|kind| json!({"type": kind, "status": ready, "lastProbeTime": null, "lastTransitionTime": time}));
    let fields = |names: &[&str]| names.iter().map(|name| (format!("f:{name}"), json!({}))).collect::<Value>();
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "POD", "generateName": "OWNER-", "namespace": "NAMESPACE",
            "uid": "6a0f4e1c-5b7e-4a52-8d0c-51c2f8f7f0a3", "resourceVersion": "48210733", "generation": 1,
            "creationTimestamp": time,
            "labels": {"app": "extraction-api", "pod-template-hash": "7c9f6d5b8"},
            "annotations": {uses: "USES"},
            "ownerReferences": owners,
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": time,
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": fields(&["annotations", "generateName",
                        "labels", "ownerReferences"]), "f:spec": fields(&["containers", "dnsPolicy",
                        "enableServiceLinks", "restartPolicy", "schedulerName", "securityContext",
                        "terminationGracePeriodSeconds"])}},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": time,
                    "fieldsType": "FieldsV1", "subresource": "status", "fieldsV1": {"f:status": fields(&["conditions",
                        "containerStatuses", "hostIP", "hostIPs", "phase", "podIP", "podIPs", "startTime"])}},
            ],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-x2x4z", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}],
            "containers": [{
                "name": "app", "image": "registry.example/app:1.42.0", "ports": [{"containerPort": 8080}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "POD_IP",
                    "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"memory": "2Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}},
                "volumeMounts": mounts, "imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "File",
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "nodeName": "node-0417",
            "securityContext": {}, "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {
            "phase": "Running", "conditions": conditions, "hostIP": "10.0.4.17", "podIP": "10.1.4.17",
            "podIPs": [{"ip": "10.1.4.17"}], "startTime": time, "qosClass": "Burstable",
            "containerStatuses": [{"name": "app", "state": {"running": {"startedAt": time}}, "lastState": {},
                "ready": true, "restartCount": 0, "image": "registry.example/app:1.42.0", "started": true}],
        },
    })
}
