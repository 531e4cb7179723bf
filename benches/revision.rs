//! Keeping a revision and reading it back: an annotation where it is small, a ControllerRevision beside it else.
//!
//! Times are CPU times of the thread. The limits: encoding and decoding 4 KiB takes under 100 µs, 1 MiB under 30 ms.

#![allow(missing_docs, reason = "what criterion's macros make is public")]

#[path = "support/cpu.rs"]
mod cpu;

use cpu::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use modelguard::object::{ConfigMap, Content};
use modelguard::policy::Version;
use modelguard::reference::CatalogKey;
use modelguard::revision::{Keep, Kept, Place, Prior, Revision};
use serde_json::json;
use std::hint::black_box;

/// What an annotation has room for.
const ROOM: usize = 200 * 1024;

/// A model list of that size.
fn models(size: usize) -> String {
    let model = |number: usize| format!("- name: m-{number}\n  version: v{number}\n  uri: s3://models/m/{number}\n");
    (0..).map(model).scan(0, |len, text| (*len + text.len() <= size).then(|| (*len += text.len(), text).1)).collect()
}

/// Printable, and nothing that a compressor finds anything in.
fn noise(size: usize) -> String {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| char::from(random.u8(b'0'..b'z'))).take(size).collect()
}

fn config_map(text: &str) -> String {
    json!({
        "metadata": {
            "name": "models", "namespace": "prod", "uid": "u", "creationTimestamp": "2026-11-19T08:00:00Z",
            "labels": {"modelguard.dev/catalog": "keys"}, "annotations": {"modelguard.dev/revision": "7"},
        },
        "data": {"models": text},
    })
    .to_string()
}

fn is(content: &Content<'_>, expected: &Content<'_>) -> bool {
    content.data.iter().eq(expected.data.iter())
}

fn keep_and_read(c: &mut Criterion) {
    const MIB: usize = (1 << 20) - 64;
    for (name, text) in
        [("4 KiB", models(4 << 10)), ("8 KiB", models(8 << 10)), ("1 MiB", models(MIB)), ("1 MiB of noise", noise(MIB))]
    {
        let json = config_map(&text);
        let read = || Version::stored(ConfigMap::parse(&json).expect("a ConfigMap"));
        c.bench_function(&format!("{name}: the annotation, and back"), |b| {
            measure(b, || {
                let version = read();
                let annotation = Revision::of(&version).annotation("models", ROOM);
                match Prior::read(black_box(&annotation)).expect("a revision").place {
                    Place::Here(content) => assert!(is(&content, &version.object.content)),
                    Place::Beside(name) => assert!(name.starts_with("models-")),
                }
            });
        });
        c.bench_function(&format!("{name}: the ControllerRevision, and back"), |b| {
            let key = CatalogKey::new("prod", "models");
            measure(b, || {
                let version = read();
                let data = Keep { config_map: &key, version: &version, is_needed: true }.kept().data().to_string();
                let kept = Kept::read("prod", None, black_box(&data)).expect("a revision");
                assert!(is(&kept.content, &version.object.content));
            });
        });
        c.bench_function(&format!("{name}: reading the ConfigMap, which is in all of these"), |b| measure(b, read));
    }
}

criterion_group!(benches, keep_and_read);
criterion_main!(benches);
