//! A model ConfigMap with its history, and writes to it as the API server makes them.

use super::*;
use crate::guard::WhileInUse;
use crate::object::Content;
use crate::retention::asked_for;
use crate::revision::Kept;
use crate::revision::restore::Found;
use serde_json::{Value, json};

const ROLLBACK_TO: &str = "modelguard.dev/rollback-to";

/// What is stored, and what is kept beside it.
#[derive(Clone)]
struct Stored {
    object: Value,
    kept: Vec<Kept<'static>>,
    guard: Guard,
}

impl Stored {
    /// At its first revision.
    fn new(format: &str, data: &Value) -> Self {
        let metadata = json!({
            "name": "models", "namespace": "prod", "uid": "u", "resourceVersion": "1",
            "labels": {"modelguard.dev/catalog": format}, "annotations": {"modelguard.dev/revision": "1"},
        });
        Self { object: json!({"metadata": metadata, "data": data}), kept: Vec::new(), guard: Guard::default() }
    }

    fn keys<const N: usize>(entries: [(&str, &str); N]) -> Self {
        Self::new("keys", &entries.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect())
    }

    fn terms(&self) -> Terms {
        Terms { epoch: Ok(Epoch::new("e1")), guard: self.guard, now: Timestamp::UNIX_EPOCH }
    }

    fn found(&self, change: &CatalogChange<'_>) -> Option<Result<Found, Unread>> {
        let seek = seek(change)?;
        let numbers = self.kept.iter().flat_map(|kept| &kept.written).filter(|it| *it.uid == *seek.uid);
        let found = self.kept.iter().find_map(|kept| kept.revision(&seek.uid, seek.number));
        Some(Ok(match found {
            Some(revision) => Found::Revision(Box::new(revision.into_owned())),
            None => Found::Unknown(numbers.map(|it| it.revision).collect()),
        }))
    }

    /// Writes through both webhooks; gives the warnings, or the denial.
    fn write(&mut self, new: &Value, caller: Caller) -> Result<Vec<String>, Denial> {
        let (old, sent) = (self.object.to_string(), new.to_string());
        let parse = |json| Some(ConfigMap::parse(json).unwrap());
        let change = CatalogChange::new(key(), parse(&old), parse(&sent), caller);
        let Mutation { annotations, content, keep, decision } = mutate(&change, self.found(&change), &self.terms());
        if let Some(denial) = decision.denial {
            return Err(denial);
        }
        let kept = keep.map(|keep| keep.kept().into_owned());
        let mut made = new.clone();
        for (name, value) in annotations {
            let all = made["metadata"]["annotations"].as_object_mut().unwrap();
            match value {
                Some(value) => drop(all.insert(name.to_owned(), value.into())),
                None => drop(all.remove(name)),
            }
        }
        if let Some(content) = content {
            set_content(&mut made, &content);
        }
        let json = made.to_string();
        let request = Request::Catalog(Box::new(CatalogChange::new(key(), parse(&old), parse(&json), caller)));
        let needs = needs(&request, &self.terms());
        let facts = Facts {
            terminating: needs.namespaces.into_iter().map(|name| (name, Ok(false))).collect(),
            holders: needs.holders.map(|of| {
                Ok(of.entries.into_iter().map(|entry| (entry.clone(), holders(&entry, &[], true))).collect())
            }),
            prospect: Some(Prospect::Moving(Duration::ZERO)),
            beside: needs.beside.map(|beside| Ok(kept.iter().chain(&self.kept).any(|kept| kept.name() == beside.name))),
            ..Facts::default()
        };
        let judged = decide(&request, &facts, &self.terms());
        if let Some(denial) = judged.denial {
            return Err(denial);
        }
        self.object = made;
        if let Some(kept) = kept {
            match self.kept.iter_mut().find(|it| it.digest == kept.digest) {
                Some(there) => there.written.extend(kept.written),
                None => self.kept.push(kept),
            }
        }
        Ok(decision.warnings.into_iter().chain(judged.warnings).collect())
    }

    fn put(&mut self, data: Value) -> Result<Vec<String>, Denial> {
        let mut new = self.object.clone();
        new["data"] = data;
        self.write(&new, Caller::default())
    }

    fn roll_back(&mut self, to: &str) -> Result<Vec<String>, Denial> {
        let mut new = self.object.clone();
        new["metadata"]["annotations"][ROLLBACK_TO] = to.into();
        self.write(&new, Caller::default())
    }

    /// Nobody needs anything, and what is retained goes.
    fn settles(&mut self) {
        let json = self.object.to_string();
        let declared = Version::stored(ConfigMap::parse(&json).unwrap()).declared;
        let Declared::Catalog(_, catalog) = declared else { return };
        let idle: Vec<_> = catalog.names().map(EntryName::as_str).collect();
        let annotations = &mut self.object["metadata"]["annotations"];
        annotations["modelguard.dev/usage"] = json!({"epoch": "e1", "idle": idle}).to_string().into();
        let mut new = self.object.clone();
        new["metadata"]["annotations"]["modelguard.dev/retire"] = "idle".into();
        self.write(&new, Caller { own: true, ..Caller::default() }).unwrap();
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.object["metadata"]["annotations"][format!("modelguard.dev/{name}")].as_str()
    }

    /// What was asked for, as it stands.
    fn asked(&self) -> Content<'static> {
        let json = self.object.to_string();
        asked_for(&Version::stored(ConfigMap::parse(&json).unwrap())).into_owned().into_owned()
    }
}

fn set_content(object: &mut Value, content: &Content<'_>) {
    let map = |map: &crate::object::StringMap<'_>| -> Value {
        map.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
    };
    object["data"] = map(&content.data);
    object["binaryData"] = map(&content.binary_data);
}

fn mg108(result: Result<Vec<String>, Denial>) -> String {
    let denial = result.unwrap_err();
    assert_eq!((denial.code.id(), denial.status), ("MG108", 422), "{denial:?}");
    denial.message
}

#[test]
fn the_prior_revision_comes_back_in_the_write_that_asks_for_it() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    stored.put(json!({"v1": "a", "v2": "b", "v3": "c"})).unwrap();
    stored.settles();
    assert_eq!(stored.roll_back("prior").unwrap(), ["models goes back to revision 1"]);
    assert_eq!(stored.object["data"], json!({"v1": "a", "v2": "b"}));
    assert_eq!((stored.annotation("revision"), stored.annotation("rollback-to")), (Some("3"), None));
    stored.roll_back("prior").unwrap();
    assert_eq!(stored.object["data"], json!({"v1": "a", "v2": "b", "v3": "c"}), "a rollback can be rolled back");
}

#[test]
fn what_was_added_since_stays_until_nobody_needs_it() {
    let mut stored = Stored::new("yaml", &json!({"models.yaml": "# ours\n- {name: m, version: v2}\n"}));
    stored.put(json!({"models.yaml": "# ours\n- {name: m, version: v2}\n- {name: m, version: v3}\n"})).unwrap();
    let said = stored.roll_back("1").unwrap();
    assert_eq!(said[1], "entry m@v3 may still be needed: modelguard keeps it, and removes it once nobody needs it");
    assert_eq!(
        stored.object["data"],
        json!({"models.yaml": "# ours\n- {name: m, version: v2}\n- {name: m, version: v3}\n"})
    );
    assert_eq!((stored.annotation("retained"), stored.annotation("revision")), (Some(r#"["m@v3"]"#), Some("3")));
    stored.settles();
    assert_eq!(stored.object["data"], json!({"models.yaml": "# ours\n- {name: m, version: v2}\n"}));
    assert_eq!((stored.annotation("retained"), stored.annotation("revision")), (None, Some("3")));
}

#[test]
fn any_kept_revision_comes_back() {
    let mut stored = Stored::keys([("v1", "a")]);
    for number in 2..6 {
        stored.settles();
        stored.put(json!({format!("v{number}"): "x"})).unwrap();
    }
    stored.settles();
    stored.roll_back("2").unwrap();
    stored.settles();
    assert_eq!((&stored.object["data"], stored.annotation("revision")), (&json!({"v2": "x"}), Some("6")));
    stored.roll_back("5").unwrap();
    stored.settles();
    assert_eq!(stored.object["data"], json!({"v5": "x"}));
}

#[test]
fn what_replaced_an_entry_goes_back_with_a_warning() {
    let mut stored = Stored::keys([("v1", "a")]);
    stored.settles();
    stored.put(json!({"v1": "x"})).unwrap();
    let said = stored.roll_back("prior").unwrap();
    assert_eq!(said[1], "entry v1 gets its former content back while pods use it");
    assert_eq!(stored.object["data"], json!({"v1": "a"}));
}

#[test]
fn a_revision_that_is_not_kept_is_denied_by_naming_those_that_are() {
    let mut stored = Stored::keys([("v1", "a")]);
    let said = mg108(stored.roll_back("prior"));
    assert_eq!(
        said,
        "[MG108] models: there is no revision before the current one; no other is kept, and the current one is 1.\n\
         There is nothing to go back to: leave the annotation modelguard.dev/rollback-to out."
    );
    for number in 2..5 {
        stored.settles();
        stored.put(json!({format!("v{number}"): "x"})).unwrap();
    }
    let said = mg108(stored.roll_back("9"));
    assert!(
        said.starts_with("[MG108] models: revision 9 is not kept; kept are 1, 2, 3, and the current one is 4."),
        "{said}"
    );
    let said = mg108(stored.roll_back("4"));
    assert!(said.starts_with("[MG108] models: revision 4 is the current one."), "{said}");
    for text in ["latest", "", "-1", "1.0", "other-models-0a6dc1e6dfa5f2b0"] {
        let said = mg108(stored.roll_back(text));
        assert!(said.contains(&format!("is {text:?}, which names no revision of it: expected `prior` or")), "{said}");
    }
    stored.kept.retain(|kept| kept.written.iter().all(|it| it.revision != 2));
    assert!(
        mg108(stored.roll_back("2")).contains("revision 2 is not kept; kept are 1, 3, and"),
        "it was deleted by hand"
    );
    let before = stored.object.clone();
    let mut new = before.clone();
    new["metadata"]["annotations"][ROLLBACK_TO] = "1".into();
    new["data"] = json!({"v9": "x"});
    assert!(mg108(stored.write(&new, Caller::default())).contains("not both"));
    assert_eq!(stored.object, before, "nothing was done by half");
}

#[test]
fn a_damaged_annotation_is_never_restored_from() {
    let mut stored = Stored::keys([("v1", "a")]);
    stored.settles();
    stored.put(json!({"v1": "a", "v2": "b"})).unwrap();
    let kept = std::mem::take(&mut stored.kept);
    let prior = stored.annotation("prior-revision").unwrap().replace(r#""v1":"a""#, r#""v1":"z""#);
    stored.object["metadata"]["annotations"]["modelguard.dev/prior-revision"] = prior.into();
    let said = mg108(stored.roll_back("prior"));
    assert!(said.contains("revision 1 is not kept"), "{said}");
    assert!(said.contains("The annotation modelguard.dev/prior-revision does not match its digest."), "{said}");
    stored.kept = kept;
    stored.settles();
    stored.roll_back("prior").unwrap();
    assert_eq!(stored.object["data"], json!({"v1": "a"}), "it is kept beside the ConfigMap as well");
}

#[test]
fn a_revision_of_another_format_says_so() {
    let mut stored = Stored::new("yaml", &json!({"models.yaml": "- {name: m, version: v1}\n"}));
    stored.settles();
    let mut new = stored.object.clone();
    new["metadata"]["labels"]["modelguard.dev/catalog"] = "json".into();
    new["data"] = json!({"models.json": "[]"});
    stored.write(&new, Caller::default()).unwrap();
    let denial = stored.roll_back("prior").unwrap_err();
    assert_eq!(denial.code.id(), "MG104");
    assert!(denial.message.contains("revision 1 cannot be read as json"), "{}", denial.message);
}

#[test]
fn a_first_version_has_nothing_to_go_back_to() {
    let mut new = Stored::keys([("v1", "a")]).object;
    new["metadata"]["annotations"] = json!({ROLLBACK_TO: "prior"});
    let sent = new.to_string();
    let of = |old: Option<&str>| {
        let old = old.map(|json| ConfigMap::parse(json).unwrap());
        let change = CatalogChange::new(key(), old, Some(ConfigMap::parse(&sent).unwrap()), Caller::default());
        mutate(&change, None, &terms()).decision.denial.unwrap().message
    };
    new["metadata"]["labels"] = json!({});
    new["metadata"]["annotations"] = json!({});
    let unlabelled = new.to_string();
    for old in [None, Some(unlabelled.as_str())] {
        assert!(of(old).contains("it has no revision yet to go back to."), "{old:?}");
    }
}

#[test]
fn a_request_that_the_mutating_webhook_did_not_see_is_denied() {
    let stored = Stored::keys([("v1", "a")]).object;
    let mut new = stored.clone();
    new["metadata"]["annotations"][ROLLBACK_TO] = "prior".into();
    let (old, new) = (stored.to_string(), new.to_string());
    let decision = Case::new(None, None).judge(ConfigMap::parse(&old).ok(), ConfigMap::parse(&new).ok());
    assert_eq!(code(&decision), Some(("MG501", 503)));
}

/// Else whoever writes next would roll back, and nobody could write anything but that.
#[test]
fn a_request_that_is_stored_asks_for_nothing() {
    let mut stored = Stored::keys([("v1", "a")]);
    stored.settles();
    stored.put(json!({"v1": "a", "v2": "b"})).unwrap();
    let left = |stored: &mut Stored| stored.object["metadata"]["annotations"][ROLLBACK_TO] = "prior".into();
    let is_over = "modelguard.dev/rollback-to=prior was stored while modelguard was not asked: it is taken off, and nothing \
         goes back; ask again if it should";

    left(&mut stored);
    let mut new = stored.object.clone();
    new["metadata"]["annotations"]["a"] = "b".into();
    assert_eq!(stored.write(&new, Caller::default()).unwrap(), [is_over]);
    assert_eq!(stored.object["data"], json!({"v1": "a", "v2": "b"}));
    assert_eq!(stored.annotation("rollback-to"), None);

    left(&mut stored);
    assert_eq!(stored.put(json!({"v1": "a", "v2": "b", "v3": "c"})).unwrap(), [is_over]);
    assert_eq!((stored.annotation("revision"), stored.annotation("rollback-to")), (Some("3"), None));

    left(&mut stored);
    stored.settles();
    assert_eq!(stored.annotation("rollback-to"), None, "our own writes take it off as well");
    left(&mut stored);
    stored.roll_back("1").unwrap();
    assert_eq!((stored.annotation("revision"), &stored.object["data"]["v1"]), (Some("4"), &json!("a")));
}

#[test]
fn a_large_revision_must_be_kept_beside() {
    let noise: String = (0_u64..20_000).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    let mut stored = Stored::keys([("v1", &noise)]);
    stored.put(json!({"v1": noise, "v2": "b"})).unwrap();
    let prior = stored.annotation("prior-revision").unwrap();
    assert!(prior.contains(&format!(r#""encoding":"ref","name":"{}""#, stored.kept[0].name())), "{prior}");
    stored.settles();
    stored.roll_back("prior").unwrap();
    assert_eq!(stored.object["data"], json!({"v1": noise}));

    // Whatever says that it is there without its being so, but for a rehearsal, and where all goes.
    let (old, new) = {
        let mut stored = Stored::keys([("v1", &noise)]);
        let old = stored.object.to_string();
        stored.put(json!({"v1": noise, "v2": "b"})).unwrap();
        (old, stored.object.to_string())
    };
    let judge = |caller: Caller, terminating: bool, beside: Option<Result<bool, Unread>>| {
        let [old, new] = [&old, &new].map(|json| ConfigMap::parse(json).ok());
        let request = Request::Catalog(Box::new(CatalogChange::new(key(), old, new, caller)));
        let needs = needs(&request, &terms());
        let terminating = needs.namespaces.into_iter().map(|name| (name, Ok(terminating))).collect();
        code(&decide(&request, &Facts { terminating, beside, ..Facts::default() }, &terms()))
    };
    let rehearsal = Caller { dry_run: true, ..Caller::default() };
    assert_eq!(judge(Caller::default(), false, Some(Ok(true))), None);
    assert_eq!(judge(Caller::default(), false, Some(Ok(false))), Some(("MG107", 403)));
    assert_eq!(judge(Caller::default(), false, None), Some(("MG501", 503)));
    assert_eq!(judge(Caller::default(), true, Some(Ok(false))), None);
    assert_eq!(judge(rehearsal, false, None), None);
}

/// Random changes, under a guard that defers, and rollbacks to whatever was before: each restores, once nobody needs what
/// came since, exactly the bytes that were asked for then.
#[test]
fn every_revision_is_restored_to_equal_bytes() {
    const SEQUENCES: u64 = 10_000;
    let mut rollbacks = 0;
    for seed in 0..SEQUENCES {
        let mut random = fastrand::Rng::with_seed(seed);
        let format = ["keys", "yaml", "json"][random.usize(..3)];
        let mut stored = Stored::new(format, &any_data(format, &mut random));
        stored.guard.while_in_use = WhileInUse::Defer;
        let mut asked = BTreeMap::from([(1, stored.asked())]);
        for _ in 0..random.usize(2..5) {
            if random.bool() {
                stored.settles();
            }
            let current: u64 = stored.annotation("revision").unwrap().parse().unwrap();
            let target = random.u64(1..=current);
            let written = match random.u8(..4) > 0 && target != current {
                false => stored.put(any_data(format, &mut random)),
                true => stored.roll_back(&target.to_string()).inspect(|_| {
                    let mut later = stored.clone();
                    later.settles();
                    assert_eq!(later.asked(), asked[&target], "seed {seed}: revision {target} of {}", stored.object);
                    rollbacks += 1;
                }),
            };
            if let Err(denial) = written {
                let replaces = matches!(denial.code, Code::EntryReplaced | Code::EntrySettling);
                assert!(replaces, "seed {seed}: {}", denial.message);
            }
            let now = stored.annotation("revision").unwrap().parse().unwrap();
            asked.entry(now).or_insert_with(|| stored.asked());
            assert_eq!(asked[&now], stored.asked(), "seed {seed}: revision {now} is what it was");
        }
    }
    println!("{SEQUENCES} sequences with {rollbacks} rollbacks");
    assert!(rollbacks > SEQUENCES / 2);
}

/// Up to four entries, in one of the ways that people write them.
fn any_data(format: &str, random: &mut fastrand::Rng) -> Value {
    let versions: Vec<_> = (1..6).filter(|_| random.bool()).collect();
    let comment = random.u8(..4);
    match format {
        "keys" => versions
            .iter()
            .map(|it| (format!("v{it}"), Value::from(format!("weights {}\r\n", random.u8(..2)))))
            .collect(),
        "json" => {
            let rows: Vec<_> = versions.iter().map(|it| format!(r#"{{"name": "m", "version": "v{it}"}}"#)).collect();
            json!({"models.json": format!("[{}]{}", rows.join(", "), "\n".repeat(comment.into())), "README": comment.to_string()})
        }
        _ => {
            let rows: String = versions.iter().map(|it| format!("- name: m\n  version: v{it} # \t é\n")).collect();
            let rows = if rows.is_empty() { "[]\n".to_owned() } else { rows };
            json!({"models.yaml": format!("# {comment}\n{rows}")})
        }
    }
}
