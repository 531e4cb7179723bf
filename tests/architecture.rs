//! The architecture as a test: every file stands in one room, and a room's rules hold in each of its files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// A room of `src/`, the files and folders that stand in it, and what they must not name.
struct Room {
    name: &'static str,
    files: &'static [&'static str],
    forbidden: &'static [&'static str],
}

/// What would let a clock, or anything that can fail or block, into a decision.
const IO_AND_CLOCK: &[&str] = &[
    "kube::",
    "k8s_openapi::",
    "axum",
    "tokio::",
    "hyper::",
    "rustls::",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "fastrand",
    "async fn",
    ".await",
];

const ROOMS: &[Room] = &[
    Room {
        name: "domain",
        files: &[
            "names.rs",
            "catalog.rs",
            "catalog/",
            "object.rs",
            "object/",
            "manifest.rs",
            "manifest/",
            "reference.rs",
            "reference/",
            "holder.rs",
            "usage.rs",
            "usage/",
            "revision.rs",
            "revision/",
            "history.rs",
            "retention.rs",
            "retention/",
            "healing.rs",
            "healing/",
            "policy.rs",
            "policy/",
            "sharing.rs",
            "arming.rs",
            "audit.rs",
            "audit/",
            "status.rs",
            "status/",
            "event.rs",
            "guard.rs",
        ],
        forbidden: IO_AND_CLOCK,
    },
    Room { name: "index", files: &["index.rs", "index/"], forbidden: IO_AND_CLOCK },
    Room {
        name: "Kubernetes",
        files: &[
            "index/resource.rs",
            "index/watch.rs",
            "index/watch/",
            "index/live.rs",
            "index/live/",
            "world.rs",
            "world/",
            "controller.rs",
            "controller/",
        ],
        forbidden: &["axum", "rustls::", "std::fs", "SystemTime"],
    },
    Room {
        name: "folder",
        files: &["world/standalone.rs", "world/standalone/"],
        forbidden: &[
            "kube::",
            "k8s_openapi::",
            "axum",
            "rustls::",
            "std::net",
            "std::time",
            "SystemTime",
            "Timestamp::now",
        ],
    },
    Room {
        name: "transport",
        files: &["admission.rs", "admission/", "admin.rs", "connections.rs"],
        forbidden: &["kube::", "k8s_openapi::"],
    },
    Room {
        name: "process",
        files: &[
            "main.rs",
            "lib.rs",
            "cli.rs",
            "cli/",
            "record.rs",
            "record/",
            "metrics.rs",
            "telemetry.rs",
            "shutdown.rs",
            "clock.rs",
        ],
        forbidden: &[],
    },
];

/// The most lines of a file, its tests not counted.
const LONGEST_FILE: usize = 500;

#[test]
fn every_file_stands_in_a_room_and_keeps_its_rules() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let Some(room) = room(&name) else {
            broken.push(format!("{name} stands in no room of tests/architecture.rs"));
            continue;
        };
        for (number, line) in code(&text) {
            for forbidden in room.forbidden.iter().filter(|forbidden| line.contains(**forbidden)) {
                broken.push(format!("{name}:{number}: {forbidden:?} does not belong in the room {:?}", room.name));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn no_file_outgrows_its_line_in_the_map() {
    let lines = |text: &str| without_tests(text).lines().count();
    let long: Vec<_> =
        sources().map(|(name, text)| (lines(&text), name)).filter(|(lines, _)| *lines > LONGEST_FILE).collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE} lines: {long:?}");
}

/// Invariant 1 rests on it: in a cluster, an entry is proven unneeded by what the old object carries, or not at all.
#[test]
fn only_a_folder_of_manifests_proves_by_looking() {
    let says_so = |text: &str| code(text).any(|(_, line)| line.contains("Proof::Standalone"));
    let who: Vec<_> = sources().filter(|(_, text)| says_so(text)).map(|(name, _)| name).collect();
    assert_eq!(who, ["policy/catalog.rs", "world/standalone.rs"]);
    let (_, cluster) = sources().find(|(name, _)| name == "world/cluster.rs").unwrap();
    assert!(!cluster.contains("fn proof"), "the world of a cluster must leave World::proof as it is");
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(src().join("lib.rs")).unwrap();
    let (docs, modules) = map.split_once("\npub mod").unwrap();
    for module in format!("pub mod{modules}").lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(docs.contains(&format!("[`{module}`]")), "the map in lib.rs does not say where {module} stands");
    }
}

#[test]
fn a_module_is_a_file_and_a_folder_of_the_same_name() {
    let odd: Vec<_> = sources().map(|(name, _)| name).filter(|name| name.ends_with("mod.rs")).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

// === helpers ===

/// The room with the longest matching path: a file can stand apart from its folder.
fn room(name: &str) -> Option<&'static Room> {
    let fits = |file: &&&str| if file.ends_with('/') { name.starts_with(**file) } else { name == **file };
    let longest = |room: &&Room| room.files.iter().filter(fits).map(|file| file.len()).max();
    ROOMS.iter().filter(|room| longest(room).is_some()).max_by_key(longest)
}

/// The lines of code with their numbers: no comments, no tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = without_tests(text).lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file below `src/`, by its path there, but for those that hold nothing but tests.
fn sources() -> impl Iterator<Item = (String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert!(files.len() > 30, "only {} files found", files.len());
    files.sort();
    let name = |path: &Path| path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
    let files = files.into_iter().map(move |path| (name(&path), fs::read_to_string(&path).unwrap()));
    files.filter(|(name, _)| !name.ends_with("/tests.rs") && !name.contains("/tests/"))
}
