//! What keeping and removing does to texts, in every format.

use super::*;
use crate::catalog::tests::{any_models, content, reversed};
use proptest::prelude::*;
use serde_json::Value;

/// A text as the only key of a ConfigMap.
fn of(format: Format, text: &str) -> Content<'_> {
    let key = if format == Format::Json { "models.json" } else { "models.yaml" };
    Content { data: [(key, text)].into_iter().collect(), ..Content::default() }
}

fn entries<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeSet<EntryName> {
    names.into_iter().map(|name| EntryName::new(name).unwrap()).collect()
}

/// The only value of the only edit.
fn only_value(edits: &[Edit]) -> String {
    match edits {
        [Edit { field: Field::Data, value: Some(value), .. }] => value.clone(),
        other => panic!("other edits: {other:?}"),
    }
}

/// What the first has and the second has not.
fn removed(format: Format, old: &Content<'_>, new: &Content<'_>) -> BTreeSet<EntryName> {
    let [old, new] = [old, new].map(|content| Catalog::parse(format, content).unwrap());
    old.diff(&new).removed
}

fn keep_text(format: Format, old: &str, new: &str, entries: &BTreeSet<EntryName>) -> Result<String, CannotEdit> {
    keep(format, &of(format, old), &of(format, new), entries).map(|edits| only_value(&edits))
}

fn remove_text(format: Format, text: &str, entries: &BTreeSet<EntryName>) -> String {
    only_value(&remove(format, &of(format, text), entries).unwrap())
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut bytes = whole.bytes();
    part.bytes().all(|byte| bytes.any(|other| other == byte))
}

/// Everything that has to hold of what is kept of `old` in `new`; gives the result.
fn check(format: Format, old: &str, new: &str, kept: &BTreeSet<EntryName>) -> Result<String, CannotEdit> {
    let stored = keep_text(format, old, new, kept)?;
    let case = format!("{old:?} {new:?} -> {stored:?}");
    let [before, user, after] =
        [old, new, &stored].map(|text| Catalog::parse(format, &of(format, text)).unwrap_or_else(|_| panic!("{case}")));
    assert!(is_subsequence(new, &stored), "{case}");
    assert!(user.names().chain(kept).collect::<BTreeSet<_>>().into_iter().eq(after.names()), "{case}");
    for name in user.names() {
        assert_eq!(after.rows(name), user.rows(name), "{name}: {case}");
    }
    for name in kept {
        assert_eq!(after.rows(name), before.rows(name), "{name}: {case}");
    }
    assert_eq!(remove_text(format, &stored, kept), new, "{case}");
    assert_eq!(keep_text(format, &stored, new, kept).as_deref(), Ok(&*stored), "{case}");
    for order in [kept.iter().collect::<Vec<_>>(), kept.iter().rev().collect()] {
        let one_by_one = order.into_iter().fold(stored.clone(), |text, name| {
            let name = BTreeSet::from([name.clone()]);
            remove_text(format, &text, &name)
        });
        assert_eq!(one_by_one, new, "{case}");
    }
    Ok(stored)
}

fn check_all(format: Format, old: &str, new: &str) -> Result<String, CannotEdit> {
    let kept = removed(format, &of(format, old), &of(format, new));
    if kept.is_empty() { Ok(new.to_owned()) } else { check(format, old, new, &kept) }
}

// === properties ===

/// A YAML list of models `a` to `h`, each written in one of the ways that people and their tools have.
fn any_yaml() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec![
        "- name: @\n",
        "- name: @\n  version: v1 # comment\n  # inside\n  path: s3://é\n",
        "-  path: 's3://b'\n   name: @\n",
        "- name: @\n  x: |+\n    kept\n\n\n",
        "- name: @\n  x: |+\n\n\n",
        "- name: @\n  x: |-\n    stripped\n\n",
        "- name: @\n  x: |\n    text\n      more\n    # no comment\n",
        "- name: @\n  x: |2\n      text\n   more\n",
        "- name: @\n  x: >\n    folded\n    text\n\n    more\n",
        "- x: |\n  name: @\n",
        "- {name: @, x: [1, 2]}\n",
        "- {name: @, # comment\n   x: 1\n  }\n",
        "- { name: @,\n x: \"a\n  # no comment\" }\n",
        "-\n  name: @\n",
        "- # comment\n\n  name: @\n  x:\n",
        "- name: @\n  x: 'one\n\n    # two'\n",
        "- name: @\n  x: one\n    two\n   three\n",
        "- name: @\n  x:\n  - a\n  -  b: {}\n     c:\n     - d\n",
        "- ? name\n  : @\n",
        "-\tname: @\n",
        "- name: @\n  x: a\t# tab\n",
        "- &anchor\n  name: @\n  x: &inner [1]\n  y: *inner\n",
        "- <<: {x: 1}\n  name: @\n",
        "- &z {name: @, z: 1}\n",
        "- <<: *z\n  name: @\n",
        "- name: @\n  x: *z\n",
    ]);
    let between =
        prop::sample::select(vec!["", "", "", "", "# comment\n", "\n", "  # comment\n", "   \n", "\n# - name: x\n\n"]);
    let header = prop::sample::select(vec![
        "",
        "",
        "",
        "---\n",
        "# é\n",
        "\n",
        "%YAML 1.2\n---\n",
        "\u{feff}",
        "--- # comment\n",
    ]);
    let footer = prop::sample::select(vec![
        "",
        "",
        "",
        "...\n",
        "# end\n",
        "\n\n",
        "  # own\n",
        "...\n# end\n",
        "    # own\n# end\n",
        "\n  # own\n",
    ]);
    let elements =
        proptest::collection::btree_map("[a-h]", (between, element), 0..6).prop_map(Vec::from_iter).prop_shuffle();
    (header, elements, footer, 0..3_usize, any::<bool>(), any::<bool>())
        .prop_map(|(header, elements, footer, indent, crlf, cut)| {
            let list =
                elements.iter().map(|(name, (between, element))| format!("{between}{}", element.replace('@', name)));
            let list = list.collect::<String>();
            let list = list
                .lines()
                .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{}{line}\n", " ".repeat(indent)) });
            let mut text = format!("{header}{}{footer}", list.collect::<String>());
            if crlf {
                text = text.replace('\n', "\r\n");
            }
            if cut {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
            text
        })
        .prop_filter("is a catalog", |text| Catalog::parse(Format::Yaml, &of(Format::Yaml, text)).is_ok())
}

/// Other texts that are a catalog: flow sequences, and what lists nothing.
fn any_other_yaml() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "\n",
        "# nothing",
        "# nothing\n",
        "---",
        "---\n...\n",
        "--- # é\n",
        "\u{feff}",
        "# a\r\n\r\n",
        "[]",
        "[ ]\n",
        "[\n]\n",
        "[{name: a}]",
        "[{name: a}, {name: b, x: é}]\n",
        "[\n  {name: a}, # first\n  {name: b},\n]\n",
        "[name: a, name: b]",
        "--- [{name: a}] # comment\n",
        "[&z {name: a}, *z , {name: c}]",
        "&r [ {name: a} ,\n {name: b} ]\n...\n",
        "[{\"name\":\"a\"},{\"name\":\"b\"}]",
    ])
    .prop_filter("is a catalog", |text| Catalog::parse(Format::Yaml, &of(Format::Yaml, text)).is_ok())
    .prop_map(str::to_owned)
}

fn any_written(format: Format) -> impl Strategy<Value = String> {
    (any_models(0..5), 0..4_u8).prop_map(move |(models, style)| {
        let list = Value::from(models);
        match (style, format) {
            (0, _) => list.to_string(),
            (1, _) => format!("{list:#}\n"),
            (2, Format::Yaml) => reversed(&list, 0, true),
            _ => reversed(&list, 0, false),
        }
    })
}

proptest! {
    // Each case keeps twice and removes many times.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_kept_in_json_can_be_removed_again(
        old in any_written(Format::Json), new in any_written(Format::Json), later in any_written(Format::Json),
    ) {
        let stored = check_all(Format::Json, &old, &new).unwrap();
        check_all(Format::Json, &stored, &later).unwrap();
    }

    #[test]
    fn what_is_kept_in_yaml_can_be_removed_again(
        old in prop_oneof![4 => any_yaml(), 1 => any_other_yaml(), 1 => any_written(Format::Yaml)],
        new in prop_oneof![4 => any_yaml(), 1 => any_other_yaml(), 1 => any_written(Format::Yaml)],
        later in prop_oneof![4 => any_yaml(), 1 => any_other_yaml(), 1 => any_written(Format::Yaml)],
    ) {
        let stored = check_all(Format::Yaml, &old, &new).unwrap();
        check_all(Format::Yaml, &stored, &later).unwrap();
    }
}

// === examples: json ===

#[test]
fn json_is_kept_as_it_stood_with_the_separators_around() {
    let old = "[\n  {\"name\": \"a\"},\n  {\"name\": \"b\",\n   \"x\": 1.10}, {\"name\":\"c\"}\n]\n";
    let b = "{\"name\": \"b\",\n   \"x\": 1.10}";
    let cases = [
        ("[]", format!("[{b},{{\"name\":\"c\"}}]")),
        ("[ ]\n", format!("[{b}, {{\"name\":\"c\"}} ]\n")),
        ("[{\"name\":\"a\"}]", format!("[{{\"name\":\"a\"}},{b},{{\"name\":\"c\"}}]")),
        ("[\n  {\"name\": \"a\"}\n]\n", format!("[\n  {{\"name\": \"a\"}},\n  {b},\n  {{\"name\":\"c\"}}\n]\n")),
        (
            "[ {\"name\": \"a\"} , {\"name\":\"d\"}]",
            format!("[ {{\"name\": \"a\"}} , {{\"name\":\"d\"}} , {b} , {{\"name\":\"c\"}}]"),
        ),
        (
            "[\r\n\t{\"name\":\"é,]\"},\r\n\t{\"name\":\"a\"}]\r\n",
            format!("[\r\n\t{{\"name\":\"é,]\"}},\r\n\t{{\"name\":\"a\"}},\r\n\t{b},\r\n\t{{\"name\":\"c\"}}]\r\n"),
        ),
    ];
    for (new, expected) in cases {
        assert_eq!(check(Format::Json, old, new, &entries(["b", "c"])).as_deref(), Ok(&*expected));
    }
}

#[test]
fn any_element_of_json_can_be_cut_out() {
    let text = "[ {\"name\":\"a\"},\n {\"name\":\"b\"} ,{\"name\":\"c\"} ]";
    let cases = [
        (vec!["a"], "[ {\"name\":\"b\"} ,{\"name\":\"c\"} ]"),
        (vec!["b"], "[ {\"name\":\"a\"} ,{\"name\":\"c\"} ]"),
        (vec!["c", "z"], "[ {\"name\":\"a\"},\n {\"name\":\"b\"} ]"),
        (vec!["a", "b"], "[ {\"name\":\"c\"} ]"),
        (vec!["a", "c"], "[ {\"name\":\"b\"} ]"),
        (vec!["b", "c"], "[ {\"name\":\"a\"} ]"),
        (vec!["a", "b", "c"], "[  ]"),
    ];
    for (names, expected) in cases {
        assert_eq!(remove_text(Format::Json, text, &entries(names)), expected);
    }
    assert_eq!(remove(Format::Json, &of(Format::Json, text), &entries(["z"])), Ok(Vec::new()));
}

// === examples: yaml ===

#[test]
fn yaml_is_kept_in_its_own_lines() {
    let old =
        "- name: a\n# of b\n- name: b # beam\n  # inside\n  x: |\n    text\n\n      # more\n  # behind\n- {name: c}\n";
    let b = "- name: b # beam\n  # inside\n  x: |\n    text\n\n      # more\n";
    let moved = "  - name: b # beam\n    # inside\n    x: |\n      text\n\n        # more\n";
    let cases = [
        ("", format!("{b}- {{name: c}}\n")),
        ("# none\n", format!("# none\n{b}- {{name: c}}\n")),
        ("---\n...\n", format!("---\n{b}- {{name: c}}\n...\n")),
        ("- name: a\n", format!("- name: a\n{b}- {{name: c}}\n")),
        ("- name: a", format!("- name: a\n{b}- {{name: c}}")),
        ("- name: a\n  # own\n\n# end\n", format!("- name: a\n  # own\n{b}- {{name: c}}\n\n# end\n")),
        (
            "- name: a\r\n...\r\n",
            format!("- name: a\r\n{b}- {{name: c}}\n...\n").replace("\r\n", "\n").replace('\n', "\r\n"),
        ),
        ("#\n  -  name: a\n", format!("#\n  -  name: a\n{moved}  - {{name: c}}\n")),
        ("- name: a\n  x: |+\n    kept\n\n\n", format!("- name: a\n  x: |+\n    kept\n\n\n{b}- {{name: c}}\n")),
    ];
    for (new, expected) in cases {
        assert_eq!(check(Format::Yaml, old, new, &entries(["b", "c"])).as_deref(), Ok(&*expected));
    }
}

#[test]
fn yaml_is_written_anew_where_its_lines_would_say_something_else() {
    let cases = [
        // Its alias is of an element that stays behind.
        (
            "- &z {name: a, p: '1'}\n- <<: *z\n  name: b\n  version: ~é\n  q: [~, \"\\0\\u2028😀\"]\n",
            "",
            "- {\"name\": \"b\", \"version\": \"~é\", \"p\": \"1\", \"q\": [null, \"\\u0000\\u2028😀\"]}\n",
        ),
        // A blank line that comes to stand behind it would be kept, too.
        (
            "- name: b\n  x: |+\n    kept\n\n- name: a\n",
            "- name: a\n\n# end\n",
            "- name: a\n- {\"name\": \"b\", \"x\": \"kept\\u000a\\u000a\"}\n\n# end\n",
        ),
        // Lines go into no brackets, and brackets into lines only when they are written on one.
        ("- name: b\n  x: y\n", "[ {name: a} ] # é\n", "[ {name: a}, {\"name\": \"b\", \"x\": \"y\"} ] # é\n"),
        ("[name: b]", "- name: a\n", "- name: a\n- {\"name\": \"b\"}\n"),
    ];
    for (old, new, expected) in cases {
        assert_eq!(
            check(Format::Yaml, old, new, &entries([if old.contains("~é") { "b@~é" } else { "b" }])).as_deref(),
            Ok(expected)
        );
    }
}

#[test]
fn brackets_of_yaml_are_kept_as_they_stand() {
    let old = "[{name: a},\n {name: b, # beam\n  x: 'é'}, name: c]";
    let b = "{name: b, # beam\n  x: 'é'}";
    let cases = [
        ("[]\n", format!("[{b},name: c]\n")),
        ("&r [ # first\n  {name: a}, # a\n]", format!("&r [ # first\n  {{name: a}}, {b}, name: c, # a\n]")),
        ("[name: a ]", format!("[name: a,{b},name: c ]")),
    ];
    for (new, expected) in cases {
        assert_eq!(check(Format::Yaml, old, new, &entries(["b", "c"])).as_deref(), Ok(&*expected));
    }
}

// === examples: keys, and what is refused ===

#[test]
fn keys_go_back_where_they_were() {
    let old = content([("a", "1"), ("b", "2")], [("c", "AAE="), ("d", "AA==")]);
    let new = content([("a", "3")], [("d", "AA==")]);
    let kept = removed(Format::Keys, &old, &new);
    let edits = keep(Format::Keys, &old, &new, &kept).unwrap();
    let mut stored = new.clone();
    apply(edits, &mut stored);
    assert_eq!(stored, content([("a", "3"), ("b", "2")], [("c", "AAE="), ("d", "AA==")]));
    let mut again = new.clone();
    apply(keep(Format::Keys, &stored, &new, &kept).unwrap(), &mut again);
    assert_eq!(again, stored);
    apply(remove(Format::Keys, &stored, &entries(["b", "c", "z"])).unwrap(), &mut stored);
    assert_eq!(stored, new);
}

#[test]
fn an_entry_goes_into_the_key_that_is_read_now() {
    let old = content([("models.yaml", "- name: a\n- name: b\n"), ("other", "")], []);
    let new = content([("list.txt", "- name: a\n")], [("models.yaml", "AA==")]);
    let edits = keep(Format::Yaml, &old, &new, &entries(["b"])).unwrap();
    let value = Some("- name: a\n- name: b\n".to_owned());
    assert_eq!(edits, [Edit { field: Field::Data, key: "list.txt".into(), value }]);
}

#[test]
fn without_a_place_for_an_entry_the_error_says_what_is_in_the_way() {
    let yaml = content([("models.yaml", "- name: a\n")], []);
    let json = content([("models.json", "[{\"name\":\"a\"},{\"name\":\"b\"}]")], []);
    let cases = [
        (
            Format::Yaml,
            &yaml,
            content([], []),
            "a",
            "key \"\", line 1, column 1: expected the key \"models.yaml\" or a single key in data (found none)",
        ),
        (
            Format::Yaml,
            &yaml,
            content([("models.yaml", "# c\nnull\n")], []),
            "a",
            "key \"models.yaml\", line 2, column 1: expected a list to keep entry a in (found null); write [] for an empty one",
        ),
        (
            Format::Yaml,
            &yaml,
            content([("models.yaml", "a: b")], []),
            "a",
            "key \"models.yaml\", line 1, column 1: expected a sequence of models (found a mapping)",
        ),
        (
            Format::Yaml,
            &yaml,
            content([("models.yaml", "- name: a\n")], []),
            "a",
            "key \"models.yaml\", line 1, column 1: entry a needs not be kept, for the new content lists it",
        ),
        (
            Format::Yaml,
            &yaml,
            content([("models.yaml", "")], []),
            "b",
            "key \"models.yaml\", line 1, column 1: entry b cannot be kept, for the stored catalog does not list it",
        ),
        (
            Format::Yaml,
            &json,
            content([("models.json", "- !")], []),
            "a",
            "key \"models.json\", line 1, column 3: expected a value without a tag (found a tagged one)",
        ),
        (
            Format::Json,
            &json,
            content([("models.json", " null")], []),
            "a",
            "key \"models.json\", line 1, column 2: expected a list to keep entry a in (found null); write [] for an empty one",
        ),
        (
            Format::Json,
            &yaml,
            content([("models.json", "[]")], []),
            "a",
            "key \"models.yaml\", line 1, column 1: the stored catalog: expected a value (found \"-\")",
        ),
        (
            Format::Keys,
            &yaml,
            content([("models.yaml", "")], []),
            "models.yaml",
            "key \"models.yaml\", line 1, column 1: entry models.yaml needs not be kept, for the new content lists it",
        ),
        (
            Format::Keys,
            &yaml,
            content([], []),
            "z",
            "key \"z\", line 1, column 1: entry z cannot be kept, for the stored catalog does not list it",
        ),
    ];
    for (format, old, new, entry, expected) in cases {
        let error = keep(format, old, &new, &entries([entry])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_a_limit_stops_is_refused_at_the_place_it_would_go_to() {
    let old = "- name: a\n  x: [1]\n- name: b\n";
    let new = format!("- name: c\n  x: [{}]\n", "1,".repeat((1 << 15) - 1));
    let error = keep_text(Format::Yaml, old, &new, &entries(["a"])).unwrap_err();
    assert_eq!((error.line, error.column), (3, 1));
    let start =
        "entry a cannot be kept at the end of this list, for the result would not be read: key \"models.yaml\", line 4";
    assert!(error.reason.starts_with(start), "{error}");
    assert!(keep_text(Format::Yaml, old, &new, &entries(["b"])).is_ok());
}

#[test]
fn what_others_are_aliases_of_is_not_removed() {
    let text = "- name: c\n- &a {name: a}\n- {<<: *a, name: b}\n";
    let error = remove(Format::Yaml, &of(Format::Yaml, text), &entries(["a"])).unwrap_err();
    let expected = "key \"models.yaml\", line 2, column 3: entry a cannot be removed, what is left would not be read: \
        key \"models.yaml\", line 2, column 8: expected valid YAML (while parsing node, found unknown anchor)";
    assert_eq!(error.to_string(), expected);
    assert_eq!(remove_text(Format::Yaml, text, &entries(["a", "b"])), "- name: c\n");
}

proptest! {
    #[test]
    fn no_text_makes_an_edit_panic_or_lie(
        old in "(- |name: |a|b|\\[|\\]|\\{|\\}|, |[|>][+-]?\n|'|\"|&a |\\*a|\\? |#|---|\\.\\.\\.|\r?\n|\n  |\t|é){0,20}",
        new in "(- |name: |a|b|\\[|\\]|\\{|\\}|, |[|>][+-]?\n|'|\"|&a |\\*a|\\? |#|---|\\.\\.\\.|\r?\n|\n  |\t|é){0,20}",
    ) {
        for (old, new) in [(&*old, &*new), ("- name: kept\n  x: |\n    y\n", &*new), (&*old, "# none\n")] {
            let [before, after] = [old, new].map(|text| Catalog::parse(Format::Yaml, &of(Format::Yaml, text)));
            let (Ok(before), Ok(after)) = (before, after) else { continue };
            let kept = before.diff(&after).removed;
            if !kept.is_empty() {
                _ = check(Format::Yaml, old, new, &kept);
            }
        }
    }
}
