//! The decision alone: from the two raw objects of a review to the verdict, with no network and no server.
//!
//! The change is the common one: an 8 KiB model ConfigMap of 40 keys gains a key, and nothing is taken away.

#![allow(missing_docs, reason = "what criterion's macros make is public")]

use criterion::{Criterion, criterion_group, criterion_main};
use modelguard::guard::Guard;
use modelguard::object::ConfigMap;
use modelguard::policy::{self, Caller, CatalogChange, Facts, Request, Terms};
use modelguard::reference::CatalogKey;
use modelguard::usage::Epoch;
use serde_json::{Value, json};
use std::hint::black_box;

/// A model ConfigMap of this many keys, 190 bytes each.
fn config_map(keys: usize) -> Value {
    let data: serde_json::Map<_, _> =
        (0..keys).map(|key| (format!("model-{key:02}"), json!("x".repeat(190)))).collect();
    json!({
        "metadata": {"name": "models", "namespace": "prod", "labels": {"modelguard.dev/catalog": "keys"}},
        "data": data,
    })
}

fn change<'a>(old: &'a str, new: &'a str) -> CatalogChange<'a> {
    let [old, new] = [old, new].map(|json| ConfigMap::parse(json).expect("a ConfigMap"));
    CatalogChange::new(CatalogKey::new("prod", "models"), Some(old), Some(new), Caller::default())
}

/// What the mutating webhook would have made of it, so that the validating one allows it.
fn mutated(old: &str, mut new: Value) -> String {
    let text = new.to_string();
    let annotations = policy::mutate(&change(old, &text)).into_iter();
    let set = annotations.filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
    new["metadata"]["annotations"] = Value::Object(set.collect());
    new.to_string()
}

fn decision(c: &mut Criterion) {
    let old = config_map(40).to_string();
    let new = mutated(&old, config_map(41));
    let terms = Terms { epoch: Ok(Epoch::new("e")), guard: Guard::default(), now: jiff::Timestamp::UNIX_EPOCH };
    c.bench_function("validate an added entry, 8 KiB", |b| {
        b.iter(|| {
            let request = Request::Catalog(Box::new(change(black_box(&old), black_box(&new))));
            let decision = policy::decide(&request, &Facts::default(), &terms);
            assert!(decision.allowed(), "{decision:?}");
        });
    });
    c.bench_function("mutate an added entry, 8 KiB", |b| {
        b.iter(|| black_box(policy::mutate(&change(black_box(&old), black_box(&new)))).len());
    });
    c.bench_function("validate without a change of content, 8 KiB", |b| {
        b.iter(|| {
            let request = Request::Catalog(Box::new(change(black_box(&new), black_box(&new))));
            assert!(policy::decide(&request, &Facts::default(), &terms).allowed());
        });
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);
