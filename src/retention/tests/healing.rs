//! Entries that holders lack: what comes back, and what does not.

use super::*;

/// A ConfigMap of keys from which `v1` was taken although somebody needs it, under a guard that puts it back.
fn lacking() -> Stored {
    lose(Stored::keys([("v1", "a"), ("v2", "b")]), &json!({"v2": "b"}))
}

/// `stored` after a write that nobody judged.
fn lose(mut stored: Stored, data: &Value) -> Stored {
    stored.guard = Guard { heal: true, ..Guard::default() };
    let mut new = stored.object.clone();
    new["data"] = data.clone();
    stored.object = stored.mutated(&new, Caller::default()).0;
    stored
}

/// The controller's request.
fn restore(stored: &mut Stored, entries: &[&str]) -> Result<Vec<String>, &'static str> {
    let mut new = stored.object.clone();
    new["metadata"]["annotations"]["modelguard.dev/restore"] = json!(entries).to_string().into();
    stored.write(&new, OWN)
}

#[test]
fn what_holders_lack_comes_back_and_goes_once_nobody_needs_it() {
    let mut stored = lacking();
    let prior = stored.annotation("prior-revision").map(str::to_owned);
    restore(&mut stored, &["v1"]).unwrap();
    assert_eq!(stored.object["data"], json!({"v1": "a", "v2": "b"}));
    assert_eq!((stored.retained(), stored.annotation("restore")), (Some(r#"["v1"]"#), None));
    let revision = (stored.annotation("revision"), stored.annotation("prior-revision").map(str::to_owned));
    assert_eq!(revision, (Some("2"), prior), "it makes no revision of its own");
    let again = stored.object.clone();
    restore(&mut stored, &["v1"]).unwrap();
    assert_eq!(stored.object, again, "what is there needs not be put back");

    stored.becomes_idle(&["v1"]);
    stored.retire().unwrap();
    assert_eq!((stored.object["data"].clone(), stored.retained()), (json!({"v2": "b"}), None));
}

#[test]
fn a_text_gets_its_lines_back_and_ends_as_it_was_sent() {
    let both = "# ours\n- {name: x, version: v1, uri: a}\n- {name: x, version: v2, uri: b}\n";
    let sent = "- {name: x, version: v2, uri: b}\n";
    let mut stored = lose(Stored::yaml(both), &json!({"models.yaml": sent}));
    restore(&mut stored, &["x@v1"]).unwrap();
    let expected = format!("{sent}- {{name: x, version: v1, uri: a}}\n");
    assert_eq!(stored.object["data"]["models.yaml"], expected);
    stored.becomes_idle(&["x@v1"]);
    stored.retire().unwrap();
    assert_eq!(stored.object["data"]["models.yaml"], sent);
}

#[test]
fn nothing_else_comes_back() {
    let valid = "1970-01-01T00:30:00Z INC-1";
    let lenient = |while_in_use| Guard { while_in_use, heal: true, ..Guard::default() };
    type Change = Box<dyn Fn(&mut Stored)>;
    let cases: [(&str, Change); 7] = [
        ("the guard does not say so", Box::new(|stored| stored.guard = Guard::default())),
        ("it only warns", Box::new(move |stored| stored.guard = lenient(WhileInUse::Warn))),
        ("it only records", Box::new(move |stored| stored.guard = lenient(WhileInUse::Audit))),
        (
            "somebody may have meant it",
            Box::new(move |stored| {
                stored.object["metadata"]["annotations"]["modelguard.dev/break-glass"] = valid.into();
            }),
        ),
        ("its data cannot be changed", Box::new(|stored| stored.object["immutable"] = true.into())),
        ("it goes", Box::new(|stored| stored.object["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into())),
        (
            "nothing is kept of what was there",
            Box::new(|stored| {
                drop(
                    stored.object["metadata"]["annotations"]
                        .as_object_mut()
                        .unwrap()
                        .remove("modelguard.dev/prior-revision"),
                );
            }),
        ),
    ];
    for (why, change) in cases {
        let mut stored = lacking();
        change(&mut stored);
        let before = stored.object.clone();
        restore(&mut stored, &["v1"]).unwrap();
        assert_eq!(stored.object, before, "{why}");
    }
    let mut stored = lacking();
    let before = stored.object.clone();
    for unknown in [&["v2"][..], &["v3"], &[]] {
        restore(&mut stored, unknown).unwrap();
        assert_eq!(stored.object, before, "{unknown:?}");
    }
    stored.object["metadata"]["annotations"]["modelguard.dev/break-glass"] = "1969-12-31T23:00:00Z INC-1".into();
    restore(&mut stored, &["v1", "v3"]).unwrap();
    assert_eq!(stored.retained(), Some(r#"["v1"]"#), "break-glass is over");
}

#[test]
fn our_own_identity_puts_nothing_else_back() {
    let stored = lacking();
    for (data, allowed) in [
        (json!({"v1": "a", "v2": "b"}), true),
        (json!({"v1": "other", "v2": "b"}), false),
        (json!({"v1": "a", "v2": "other"}), false),
        (json!({"v1": "a", "v2": "b", "v3": "c"}), false),
        (json!({"v1": "a"}), false),
    ] {
        let mut new = stored.object.clone();
        new["data"] = data.clone();
        let (made, _) = stored.mutated(&new, OWN);
        assert_eq!(stored.judged(&made, OWN).allowed(), allowed, "{data}");
    }
}

#[test]
fn what_clients_ask_for_so_is_nothing() {
    let mut stored = lacking();
    let before = stored.object.clone();
    let mut new = before.clone();
    new["metadata"]["annotations"]["modelguard.dev/restore"] = r#"["v1"]"#.into();
    stored.write(&new, Caller::default()).unwrap();
    assert_eq!(stored.object, before);
}
