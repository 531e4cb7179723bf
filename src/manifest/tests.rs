use super::*;
use serde_json::{Value, json};

fn values(text: &str) -> Vec<Value> {
    yaml::read(text).unwrap().iter().map(|document| serde_json::from_str(&document.json).unwrap()).collect()
}

#[track_caller]
fn fails(notation: Notation, text: &str, expected: &str) {
    assert_eq!(read(notation, text).unwrap_err().to_string(), expected, "{text}");
}

#[test]
fn plain_scalars_are_what_yaml_1_2_says() {
    for (text, value) in [
        ("", json!([null])),
        ("null", json!([null])),
        ("~", json!([null])),
        ("true", json!([true])),
        ("False", json!([false])),
        ("yes", json!(["yes"])),
        ("0", json!([0])),
        ("-12", json!([-12])),
        ("+12", json!([12])),
        ("0644", json!([644.0])),
        ("0o17", json!([15])),
        ("0xff", json!([255])),
        ("18446744073709551615", json!([u64::MAX])),
        ("1.10", json!([1.1])),
        ("1e3", json!([1000.0])),
        ("'1.10'", json!(["1.10"])),
        ("\"true\"", json!(["true"])),
        ("!!str 12", json!(["12"])),
        ("1.2.3", json!(["1.2.3"])),
        ("2026-11-20", json!(["2026-11-20"])),
        ("inf", json!(["inf"])),
        ("-", json!([[null]])),
        ("e5", json!(["e5"])),
    ] {
        assert_eq!(values(&format!("- {text}\n")), [value], "{text}");
    }
}

#[test]
fn blocks_aliases_and_merges_are_written_out() {
    let text = "a: &a {x: 1, y: [2]}\nb: *a\nc:\n  <<: *a\n  x: 3\nd: |\n  one\n  two\n";
    let expected =
        json!({"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}, "d": "one\ntwo\n"});
    assert_eq!(values(text), [expected]);
}

#[test]
fn every_document_is_read_and_knows_its_line() {
    let text = "# first\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: b\n  namespace: prod\n";
    let read = read(Notation::Yaml, text).unwrap();
    let brief: Vec<_> = read.iter().map(|it| (it.place.to_string(), it.group.as_str(), it.to_string())).collect();
    assert_eq!(
        brief,
        [
            ("line 2".to_owned(), "", "Pod default/a".to_owned()),
            ("line 7".to_owned(), "apps", "Deployment prod/b".to_owned())
        ]
    );
}

#[test]
fn json_is_read_as_it_is() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}}\n\n {\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"n\":1.10}";
    let read = read(Notation::Json, text).unwrap();
    assert_eq!(read.iter().map(|it| it.place.line).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(read[1].json, "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"n\":1.10}");
}

#[test]
fn lists_are_taken_apart() {
    let pods = json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pods, {"apiVersion": "v1", "kind": "Secret"}]});
    let read = read(Notation::Json, &list.to_string()).unwrap();
    assert_eq!(
        read.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Pod default/a", "Pod default/b", "Secret default/"]
    );
    assert_eq!(read[2].place.to_string(), "line 1, item 2");
}

#[test]
fn what_cannot_be_read_says_where_and_what_was_expected() {
    for (text, expected) in [
        ("a: 1\na: 2\n", "line 2, column 1: expected valid YAML (duplicate mapping key `a` is not allowed here)"),
        ("\nname: a\n", "line 2, column 1: expected a Kubernetes object with apiVersion and kind (found none)"),
        (
            "---\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1}]\n",
            "line 2, column 1: expected a Kubernetes object with apiVersion and kind (found none) in item 1 of the list",
        ),
        (
            "just text\n",
            "line 1, column 1: expected a Kubernetes object (invalid type: string \"just text\", expected struct Head)",
        ),
    ] {
        fails(Notation::Yaml, text, expected);
    }
    fails(Notation::Json, "{}\n{\"a\": }", "line 2, column 7: expected valid JSON (expected value)");
    for text in ["- .nan\n", "a: !x 1\n", "? [a]\n: 1\n", "a: {<<: 1}\n", "a: *b\n", "a: [1\n", "a: @\n"] {
        let error = read(Notation::Yaml, text).unwrap_err();
        assert!(error.expected.starts_with("valid YAML ("), "{text}: {error}");
    }
    assert!(read(Notation::Yaml, "a: {{ .Values.x }}\n").unwrap_err().to_string().starts_with("line 1, column "));
}

#[test]
fn aliases_cannot_make_a_large_tree_of_a_small_text() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    let error = read(Notation::Yaml, &text).unwrap_err();
    assert!(error.expected.starts_with("valid YAML ("), "{error}");
}

#[test]
fn no_nesting_overflows_the_stack() {
    let nested = |open: &str, close: &str, depth: usize| format!("a: {}1{}\n", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("[{<<: {b: 1}, a: ", "}]"), ("&a [", "]")] {
        let most = if open.contains("[{") { 31 } else { 62 };
        let error = read(Notation::Yaml, &nested(open, close, most)).unwrap_err();
        assert!(error.expected.starts_with("a Kubernetes object"), "{open}: {error}");
        for depth in [most + 10, 10_000] {
            let error = read(Notation::Yaml, &nested(open, close, depth)).unwrap_err();
            assert!(error.expected.starts_with("valid YAML ("), "{open}: {error}");
        }
    }
}
