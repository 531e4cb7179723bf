//! The decision alone: from the two raw objects of a review to the verdict, with no network and no server.
//!
//! The change is the common one: an 8 KiB model ConfigMap of 40 keys, which keeps its prior revision, gains a key, and
//! nothing is taken away. Times are CPU times of the thread, so that others on the machine are not in them.

#![allow(missing_docs, reason = "what criterion's macros make is public")]

#[path = "support/review.rs"]
mod review;

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use modelguard::object::ConfigMap;
use modelguard::policy::{self, Facts, Request};
use review::{Release, change, terms};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn measure<T>(bencher: &mut Bencher<'_>, mut work: impl FnMut() -> T) {
    bencher.iter_custom(|times| {
        let started = cpu_time();
        for _ in 0..times {
            black_box(work());
        }
        cpu_time() - started
    });
}

fn decision(c: &mut Criterion) {
    let Release { old, asked, new } = Release::new();
    let terms = terms();
    let judge = |old: &str, new: &str| {
        let request = Request::Catalog(Box::new(change(black_box(old), black_box(new))));
        let decision = policy::decide(&request, &Facts::default(), &terms);
        assert!(decision.allowed(), "{decision:?}");
    };
    c.bench_function("validate an added entry, 8 KiB", |b| measure(b, || judge(&old, &new)));
    c.bench_function("mutate an added entry, 8 KiB", |b| {
        measure(b, || policy::mutate(&change(black_box(&old), black_box(&asked)), &terms));
    });
    c.bench_function("validate without a change of content, 8 KiB", |b| measure(b, || judge(&new, &new)));
    c.bench_function("read both objects from JSON, 8 KiB", |b| {
        measure(b, || [&old, &new].map(|json| ConfigMap::parse(black_box(json)).expect("a ConfigMap")));
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);
