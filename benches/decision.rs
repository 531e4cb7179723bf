//! The decision alone: from the two raw objects of a review to the verdict, with no network and no server.
//!
//! The changes are those of an 8 KiB model ConfigMap, which keeps its prior revision: it gains a key, which takes nothing
//! away, or loses one that pods hold. Times are CPU times of the thread, so that others on the machine
//! are not in them.

#![allow(missing_docs, reason = "what criterion's macros make is public")]

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/review.rs"]
mod review;

use cpu::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use modelguard::catalog::EntryName;
use modelguard::holder::ObjectId;
use modelguard::index::{self, Index};
use modelguard::object::{ConfigMap, HolderKind, Owner};
use modelguard::policy::{self, Decision, Facts, Request};
use modelguard::reference::{Need, Origin, Reference, References};
use review::{Release, Size, change, terms};
use std::hint::black_box;

/// How many ReplicaSets the pods are of that hold the entry.
const OWNERS: usize = 10;

/// An index in which so many pods hold the ConfigMap's first entry.
fn index_of(pods: usize) -> Index {
    let entry = EntryName::new("model-00").expect("a name");
    let reference = Reference { catalog: review::key(), need: Need::Entry(entry), origin: Origin::Uses };
    let references = References { needs: [reference].into(), ..References::default() };
    let mut index = Index::default();
    index.guard("prod", "guarded");
    for pod in 0..pods {
        let owner = format!("api-{}", pod % OWNERS);
        let name = format!("{owner}-{pod:07}").into();
        index.apply(index::Facts {
            id: ObjectId { kind: HolderKind::Pod, namespace: "prod".into(), name },
            owner: Some(Owner { kind: "ReplicaSet".into(), name: owner.into() }),
            references: references.clone(),
            pending_revision: None,
            rollback_target: None,
            rollout_hash: None,
            created: None,
        });
    }
    index
}

/// Judges a change, its holders looked up as in a cluster.
fn judge(old: &str, new: &str, index: &Index) -> Decision {
    let terms = terms();
    let request = Request::Catalog(Box::new(change(black_box(old), black_box(new))));
    let needs = policy::needs(&request, &terms);
    let holders = needs.holders.map(|of| {
        let holders = |entry: &EntryName| (entry.clone(), index.holders(&of.catalog, &of.sharing, of.format, entry));
        Ok(of.entries.iter().map(holders).collect())
    });
    let terminating = needs.namespaces.into_iter().map(|namespace| (namespace, Ok(false))).collect();
    policy::decide(&request, &Facts { holders, terminating, ..Facts::default() }, &terms)
}

fn allow(old: &str, new: &str, index: &Index) {
    let decision = judge(old, new, index);
    assert!(decision.allowed(), "{decision:?}");
}

fn one_change(c: &mut Criterion) {
    for size in Size::ALL {
        let Release { old, asked, new, .. } = Release::new(size);
        let name = size.name();
        println!("{name}: {} bytes as stored, {} as they would be", old.len(), new.len());
        let nobody = Index::default();
        c.bench_function(&format!("{name}: validate an added entry"), |b| measure(b, || allow(&old, &new, &nobody)));
        c.bench_function(&format!("{name}: mutate an added entry"), |b| {
            measure(b, || policy::mutate(&change(black_box(&old), black_box(&asked)), None, &terms()).annotations);
        });
        c.bench_function(&format!("{name}: validate without a change of content"), |b| {
            measure(b, || allow(&new, &new, &nobody));
        });
        c.bench_function(&format!("{name}: read both objects from JSON"), |b| {
            measure(b, || [&old, &new].map(|json| ConfigMap::parse(black_box(json)).expect("a ConfigMap")));
        });
    }
}

fn among_pods(c: &mut Criterion) {
    let Release { old, new, less, .. } = Release::new(Size::Data);
    for pods in [1_000, 1_000_000] {
        let index = index_of(pods);
        c.bench_function(&format!("validate an added entry, {pods} pods"), |b| {
            measure(b, || allow(&old, &new, &index));
        });
        c.bench_function(&format!("deny a removal, {pods} pods hold the entry"), |b| {
            measure(b, || {
                let denial = judge(&old, &less, &index).denial.expect("a denial");
                assert_eq!(denial.code, policy::Code::EntryInUse);
            });
        });
    }
}

criterion_group!(benches, one_change, among_pods);
criterion_main!(benches);
