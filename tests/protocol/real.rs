//! The bridge to what is checked: small forms in, the real functions of the crate, small forms out.
//!
//! Nothing is decided here. A ConfigMap becomes the JSON that the API server would send, a need becomes a workload, and
//! the answer is read off what comes back. Equal questions are answered from memory, for the functions are pure.

use super::state::{ENTRIES, Entries, Mark, Marks, Need, Stored};
use jiff::Timestamp;
use modelguard::catalog::EntryName;
use modelguard::guard::{Guard, WhileInUse};
use modelguard::holder::{Hold, Holders, ObjectId, Workload as Holding};
use modelguard::names;
use modelguard::object::{ConfigMap, HolderKind, Workload};
use modelguard::policy::{
    self, Caller, CatalogChange, CurrentEpoch, Declared, Facts, Mutation, Prospect, Request, Terms, WorkloadChange,
};
use modelguard::reference::CatalogKey;
use modelguard::retention::{Retained, Retention};
use modelguard::revision::{self, Place};
use modelguard::sharing::Sharing;
use modelguard::usage::{Epoch, Plan, Settler, SettlingId, State, Usage, View, Why};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

/// How long a tick of the model is.
const TICK: Duration = Duration::from_secs(60);

/// Longer than anything that is waited for: the age of a timer can be read off what it leaves of this.
const LONG: Duration = Duration::from_secs(1 << 30);

/// When the model's controller looks; all that it remembers was before.
const NOW: Duration = Duration::from_secs(1 << 20);

/// The answers so far.
#[derive(Default)]
pub(crate) struct Real {
    references: Mutex<HashMap<Asked, Referred>>,
    changes: Mutex<HashMap<Changed, Judged>>,
    plans: Mutex<HashMap<Planned, Planning>>,
    proofs: Mutex<HashMap<Concluded, Option<Marks>>>,
    begins: Mutex<HashMap<Begun, Marks>>,
    priors: Mutex<HashMap<[u8; ENTRIES], String>>,
}

/// P1: a workload that needs `old` comes to need `new`, and this ConfigMap was read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Asked {
    pub(crate) stored: Option<Stored>,
    pub(crate) old: Option<Need>,
    pub(crate) new: Need,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Referred {
    Denied,
    Allowed,
    Lift(Marks),
}

/// P2: what is stored, what was sent instead, and whether it passed the mutating webhook.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Changed {
    pub(crate) old: Option<Stored>,
    pub(crate) new: Option<Stored>,
    pub(crate) mutated: bool,
    pub(crate) epoch: u8,
    pub(crate) known_held: Entries,
    /// The guard keeps what an update removes.
    pub(crate) defers: bool,
    /// It is our own write that asks for what is retained to go.
    pub(crate) retires: bool,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Judged {
    /// Denied; a proof is to begin for these.
    Denied { settle: Entries },
    /// Allowed; this is to be stored.
    Allowed(Option<Stored>),
}

/// P3: a controller looks at a ConfigMap.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Planned {
    pub(crate) timers: [Option<(u8, u8)>; ENTRIES],
    pub(crate) seen: Stored,
    pub(crate) held: Entries,
    pub(crate) epoch: u8,
    /// Δ, in ticks.
    pub(crate) settle: u8,
    /// Every entry that has no holder now has had none for very long.
    pub(crate) quiet: bool,
    /// An id that nobody knows; those after it are not known either.
    pub(crate) id: u8,
}

/// What it is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Planning {
    pub(crate) timers: [Option<(u8, u8)>; ENTRIES],
    pub(crate) write: Option<Marks>,
    pub(crate) due: [Option<u8>; ENTRIES],
}

/// P3: the LIST is done.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Concluded {
    pub(crate) usage: Marks,
    pub(crate) epoch: u8,
    pub(crate) due: [Option<u8>; ENTRIES],
    pub(crate) held: Entries,
}

/// P3: a removal was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Begun {
    pub(crate) usage: Marks,
    pub(crate) epoch: u8,
    pub(crate) entries: Entries,
    pub(crate) id: u8,
}

// === the questions ===

impl Real {
    /// P1: [`policy::decide`] on a reference.
    pub(crate) fn refer(&self, asked: Asked) -> Referred {
        memo(&self.references, asked, || {
            let caller = Caller::default();
            let id = ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: "app".into() };
            let old = asked.old.map(workload);
            let request = Request::Workload(
                WorkloadChange::new(id, old.as_ref(), &workload(asked.new), caller, Guard::default()).into(),
            );
            let needs = policy::needs(&request, &terms(1, false));
            let stored = |key| (key, Ok(asked.stored.map(|stored| self.read(&stored))));
            let catalogs = needs.catalogs.into_iter().map(stored).collect();
            let terminating = needs.namespaces.into_iter().map(|name| (name, Ok(false))).collect();
            let facts = Facts { catalogs, terminating, ..Facts::default() };
            let decision = policy::decide(&request, &facts, &terms(1, false));
            match (decision.allowed(), decision.lifts.as_slice()) {
                (false, _) => Referred::Denied,
                (true, []) => Referred::Allowed,
                (true, [lift]) => Referred::Lift(marks_of(&lift.usage)),
                (true, lifts) => panic!("one ConfigMap is lifted once: {lifts:?}"),
            }
        })
    }

    /// P2: [`policy::mutate`], if that webhook is reached, and [`policy::decide`] on a change.
    pub(crate) fn change(&self, changed: Changed) -> Judged {
        memo(&self.changes, changed, || {
            let caller = Caller { own: changed.retires, ..Caller::default() };
            let terms = terms(changed.epoch, changed.defers);
            let (old, new) = (changed.old.map(|old| self.json(&old)), changed.new.map(|new| self.json(&new)));
            let old = old.as_deref().map(parse);
            let mut new = new.as_deref().map(parse);
            if let Some(new) = new.as_mut().filter(|_| changed.retires) {
                new.metadata.annotations.insert(names::RETIRE, "idle");
            }
            if changed.mutated {
                let change = CatalogChange::new(key(), old.clone(), new.clone(), caller);
                let Mutation { annotations, content, .. } = policy::mutate(&change, None, &terms);
                if let Some((new, content)) = new.as_mut().zip(content) {
                    new.content = content;
                }
                for (name, value) in annotations {
                    let annotations = &mut new.as_mut().unwrap().metadata.annotations;
                    match value {
                        Some(value) => annotations.insert(name, value),
                        None => annotations.remove(name),
                    };
                }
            }
            let becomes = new.as_ref().map(stored_of);
            let request = Request::Catalog(Box::new(CatalogChange::new(key(), old, new, caller)));
            let needs = policy::needs(&request, &terms);
            let held = |entry: &EntryName| (entry.clone(), holders(changed.known_held & bit(entry) != 0));
            let facts = Facts {
                terminating: needs.namespaces.into_iter().map(|name| (name, Ok(false))).collect(),
                holders: needs.holders.map(|of| Ok(of.entries.iter().map(held).collect())),
                prospect: Some(Prospect::Moving(Duration::ZERO)),
                ..Facts::default()
            };
            let decision = policy::decide(&request, &facts, &terms);
            assert!(decision.lifts.is_empty(), "a change of a catalog writes nothing by itself");
            match decision.allowed() {
                true => Judged::Allowed(becomes),
                false => Judged::Denied { settle: decision.settle.iter().map(bit).sum() },
            }
        })
    }

    /// P3, points 1 and 2: [`Settler::plan`].
    pub(crate) fn plan(&self, planned: Planned) -> Planning {
        memo(&self.plans, planned, || {
            let epoch = Epoch::new(&epoch_name(planned.epoch));
            let (usage, entries) = (usage(planned.seen.usage), listed(&planned.seen));
            let held = names(planned.held).intersection(&entries).cloned().collect();
            let retained = names(planned.seen.retained);
            let view = View {
                usage: &usage,
                entries: &entries,
                retained: &retained,
                held: Some(&held),
                needed_elsewhere: None,
            };
            let mut settler = remembering(planned.timers, planned.quiet.then_some(&entries));
            let mut id = planned.id;
            let ids = || {
                id += 1;
                settling_id(id - 1)
            };
            let Plan { write, due, .. } = settler.plan(view, &epoch, TICK * planned.settle.into(), NOW, ids);
            let marks = marks_of(&usage);
            let known = |entry: usize| {
                let stored = [planned.timers[entry].map(|(id, _)| id), settling(marks.of[entry])];
                stored.into_iter().flatten().find_map(|id| age(&settler, entry, id).map(|age| (id, age)))
            };
            Planning {
                timers: std::array::from_fn(known),
                write: write.as_ref().map(marks_of),
                due: std::array::from_fn(|entry| due.get(&name(entry)).map(id_of)),
            }
        })
    }

    /// P3, point 4: [`Settler::conclude`].
    pub(crate) fn conclude(&self, concluded: Concluded) -> Option<Marks> {
        memo(&self.proofs, concluded, || {
            let due = concluded.due.iter().enumerate();
            let due: BTreeMap<_, _> = due.filter_map(|(at, id)| Some((name(at), settling_id((*id)?)))).collect();
            let epoch = Epoch::new(&epoch_name(concluded.epoch));
            let next = Settler::conclude(&usage(concluded.usage), &epoch, &due, &names(concluded.held));
            next.as_ref().map(marks_of)
        })
    }

    /// P3, point 1, for what was refused: [`Usage::settle`].
    pub(crate) fn begin(&self, begun: Begun) -> Marks {
        memo(&self.begins, begun, || {
            let epoch = Epoch::new(&epoch_name(begun.epoch));
            let mut id = begun.id;
            let ids = || {
                id += 1;
                settling_id(id - 1)
            };
            marks_of(&usage(begun.usage).settle(&epoch, &names(begun.entries), Why::Refused, ids))
        })
    }

    /// A ConfigMap, as admission reads it.
    fn read(&self, stored: &Stored) -> policy::Stored {
        let json = self.json(stored);
        let object = parse(&json);
        policy::Stored {
            resource_version: "1".to_owned(),
            deleting: false,
            declared: Declared::read(object.metadata.labels.get(names::CATALOG_LABEL), &object.content),
            usage: Usage::parse(object.metadata.annotations.get(names::USAGE)),
            hold: Hold::default(),
            sharing: Sharing::new("prod", None),
        }
    }

    /// A ConfigMap, as a review carries it. Its number does not matter and is always the same.
    fn json(&self, stored: &Stored) -> String {
        let mut annotations = BTreeMap::from([(names::REVISION, "7".to_owned())]);
        annotations.extend(annotation(stored.usage).map(|usage| (names::USAGE, usage)));
        annotations.extend(retained(stored.retained).map(|retained| (names::RETAINED, retained)));
        annotations.extend(stored.prior.map(|prior| (names::PRIOR_REVISION, self.prior(prior))));
        config_map(stored.labelled, &annotations, stored.data)
    }

    /// The annotation that keeps `data` as the prior revision, as modelguard itself writes it.
    fn prior(&self, data: [u8; ENTRIES]) -> String {
        memo(&self.priors, data, || {
            let old = config_map(true, &BTreeMap::from([(names::REVISION, "6".to_owned())]), data);
            let new = config_map(true, &BTreeMap::new(), [u8::MAX; ENTRIES]);
            let change = CatalogChange::new(key(), Some(parse(&old)), Some(parse(&new)), Caller::default());
            revision::owned(&change, &Retention::default()).prior_revision.unwrap()
        })
    }
}

fn memo<K: Copy + Eq + Hash, V: Clone>(known: &Mutex<HashMap<K, V>>, key: K, answer: impl FnOnce() -> V) -> V {
    if let Some(known) = known.lock().unwrap().get(&key) {
        return known.clone();
    }
    let answer = answer();
    known.lock().unwrap().insert(key, answer.clone());
    answer
}

// === timers ===

/// A controller that remembers `timers`, for it was shown just that; and that nobody has held `quiet` for very long.
fn remembering(timers: [Option<(u8, u8)>; ENTRIES], quiet: Option<&BTreeSet<EntryName>>) -> Settler {
    let mut settler = Settler::default();
    let mut marks = Marks { epoch: 1, ..Marks::default() };
    let mut timers: Vec<_> = timers.iter().enumerate().filter_map(|(at, timer)| Some((at, (*timer)?))).collect();
    timers.sort_by_key(|(_, (_, age))| std::cmp::Reverse(*age));
    let (nobody, no_entries) = (BTreeSet::new(), BTreeSet::new());
    let mut show = |marks: Marks, at: Duration| {
        let view = View {
            usage: &usage(marks),
            entries: quiet.unwrap_or(&no_entries),
            retained: &no_entries,
            held: Some(&nobody),
            needed_elsewhere: None,
        };
        let _ = settler.plan(view, &Epoch::new(&epoch_name(1)), LONG, at, || settling_id(u8::MAX));
    };
    show(marks, Duration::ZERO);
    for &(at, (id, age)) in &timers {
        marks.of[at] = Mark::Settling(id);
        show(marks, NOW - TICK * age.into());
    }
    for (at, (id, waited)) in timers {
        assert_eq!(age(&settler, at, id), Some(waited), "the controller remembers what it was shown");
    }
    settler
}

/// How many ticks ago the Settling was first seen; `None` if it is not known.
fn age(settler: &Settler, entry: usize, id: u8) -> Option<u8> {
    let left = |now| settler.remaining(&name(entry), &settling_id(id), LONG, now);
    let waited = LONG - left(NOW);
    // What is not known has the whole of it left, whenever one asks.
    let is_known = left(NOW + TICK) < LONG;
    is_known.then(|| u8::try_from(waited.as_secs() / TICK.as_secs()).unwrap())
}

// === names and forms ===

fn key() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

fn name(entry: usize) -> EntryName {
    EntryName::new(["v1", "v2"][entry]).unwrap()
}

fn names(entries: Entries) -> BTreeSet<EntryName> {
    (0..ENTRIES).filter(|entry| entries & 1 << entry != 0).map(name).collect()
}

fn bit(entry: &EntryName) -> Entries {
    (0..ENTRIES).filter(|it| name(*it) == *entry).map(|it| 1 << it).sum()
}

fn listed(stored: &Stored) -> BTreeSet<EntryName> {
    (0..ENTRIES).filter(|entry| stored.data[*entry] != 0).map(name).collect()
}

fn epoch_name(epoch: u8) -> String {
    format!("e{epoch}")
}

fn epoch(epoch: u8) -> CurrentEpoch {
    Ok(Epoch::new(&epoch_name(epoch)))
}

fn terms(of: u8, defers: bool) -> Terms {
    let while_in_use = if defers { WhileInUse::Defer } else { WhileInUse::Deny };
    Terms { epoch: epoch(of), guard: Guard { while_in_use, ..Guard::default() }, now: Timestamp::UNIX_EPOCH }
}

fn settling_id(id: u8) -> SettlingId {
    SettlingId::new(&id.to_string())
}

fn id_of(id: &SettlingId) -> u8 {
    (0..=u8::MAX).find(|it| settling_id(*it) == *id).unwrap()
}

fn settling(mark: Mark) -> Option<u8> {
    match mark {
        Mark::Settling(id) => Some(id),
        Mark::InUse | Mark::Idle => None,
    }
}

fn annotation(marks: Marks) -> Option<String> {
    let of = || marks.of.iter().enumerate();
    let idle: Vec<_> = of().filter(|(_, mark)| **mark == Mark::Idle).map(|(at, _)| name(at).to_string()).collect();
    let settling = of().filter_map(|(at, mark)| Some((name(at).to_string(), settling(*mark)?.to_string().into())));
    let settling: Map<String, Value> = settling.collect();
    let is_empty = idle.is_empty() && settling.is_empty();
    (!is_empty).then(|| json!({"epoch": epoch_name(marks.epoch), "idle": idle, "settling": settling}).to_string())
}

fn usage(marks: Marks) -> Usage {
    Usage::parse(annotation(marks).as_deref())
}

fn marks_of(usage: &Usage) -> Marks {
    if usage.is_empty() {
        return Marks::default();
    }
    let mark = |entry: usize, epoch: &Epoch| match usage.state(&name(entry), epoch) {
        State::InUse => Mark::InUse,
        State::Settling(id) => Mark::Settling(id_of(id)),
        State::Idle => Mark::Idle,
    };
    let read = |epoch: u8| Marks { epoch, of: std::array::from_fn(|at| mark(at, &Epoch::new(&epoch_name(epoch)))) };
    (1..=2).map(read).find(|marks| marks.of != Marks::default().of).unwrap()
}

/// The annotation that names these entries.
fn retained(entries: Entries) -> Option<String> {
    let names: Vec<_> = names(entries).iter().map(|entry| entry.as_str().to_owned()).collect();
    Retained::from(names).render()
}

fn stored_of(object: &ConfigMap<'_>) -> Stored {
    let number = |text: Option<&str>| text.map_or(0, |text| text.parse().unwrap());
    let data = |data: &modelguard::object::StringMap<'_>| std::array::from_fn(|at| number(data.get(name(at).as_str())));
    Stored {
        labelled: object.metadata.labels.get(names::CATALOG_LABEL).is_some(),
        data: data(&object.content.data),
        usage: marks_of(&Usage::parse(object.metadata.annotations.get(names::USAGE))),
        retained: Retained::of(object).entries().iter().map(bit).sum(),
        prior: revision::prior(object).unwrap().map(|prior| match prior.place {
            Place::Here(content) => data(&content.data),
            Place::Beside(name) => panic!("{name} keeps what is small"),
        }),
    }
}

fn parse(json: &str) -> ConfigMap<'_> {
    ConfigMap::parse(json).unwrap()
}

fn config_map(labelled: bool, annotations: &BTreeMap<&str, String>, data: [u8; ENTRIES]) -> String {
    let labels = if labelled { json!({names::CATALOG_LABEL: "keys"}) } else { json!({}) };
    let data = data.iter().enumerate().filter(|(_, content)| **content != 0);
    let data: Map<String, Value> = data.map(|(at, it)| (name(at).to_string(), it.to_string().into())).collect();
    let metadata =
        json!({"name": "models", "namespace": "prod", "uid": "u", "labels": labels, "annotations": annotations});
    json!({"metadata": metadata, "data": data}).to_string()
}

fn workload(need: Need) -> Workload {
    // An implicit reference to what is no model ConfigMap is none, so single entries are named explicitly, too.
    let (container, annotations) = match need {
        Need::Entry(entry) => {
            let key = json!({"name": "models", "key": name(entry.into()).as_str()});
            let uses = format!("models:{}", name(entry.into()));
            let env = json!([{"name": "MODEL", "valueFrom": {"configMapKeyRef": key}}]);
            (json!({"name": "app", "env": env}), json!({names::USES: uses}))
        }
        Need::All => (json!({"name": "app", "envFrom": [{"configMapRef": {"name": "models"}}]}), json!({})),
    };
    let template = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [container]}});
    let object = json!({"metadata": {"name": "app", "namespace": "prod"}, "spec": {"template": template}});
    serde_json::from_value(object).unwrap()
}

fn holders(held: bool) -> Holders {
    let app = Holding {
        kind: "Deployment".into(),
        namespace: "prod".into(),
        name: "app".into(),
        template: true,
        pods: 0,
        pod_names: Vec::new(),
        rollback_target: None,
        unreadable: None,
    };
    let workloads: Vec<_> = held.then_some(app).into_iter().collect();
    Holders { workloads_total: workloads.len(), workloads, pods_total: 0 }
}
