//! What the YAML reader takes, what it refuses, and where.

use super::super::tests::{content, names, refusal};
use super::*;
use proptest::prelude::*;

fn catalog(text: &str) -> Result<Catalog, CatalogError> {
    parse(&content([("models.yaml", text)], []))
}

fn same(one: &str, other: &str) -> bool {
    catalog(one).unwrap() == catalog(other).unwrap()
}

#[test]
fn a_sequence_of_mappings_is_a_catalog() {
    let text = "---\n# models\n- name: a\n  version: v1\n  path: s3://a\n- version: 1.10\n  name: 'b'\n\
        - {name: no, version: 007}\n- \"name\": |-\n    c\n...\n";
    assert_eq!(names(&catalog(text).unwrap()), ["a@v1", "b@1.10", "c", "no@007"]);
}

#[test]
fn a_document_without_content_lists_nothing() {
    for text in ["", "\n", "# nothing\n", "---\n", "---\n...\n", "[]", "[ ]\n", "null", "~", "\u{feff}"] {
        assert_eq!(catalog(text).unwrap(), Catalog::default(), "{text:?}");
    }
}

#[test]
fn order_comments_quotes_and_style_do_not_matter() {
    let plain = "- name: a\n  x: {p: no, q: [1.10, null]}\n  y: 'it''s'\n";
    for other in [
        "- y: it's\n  x:\n    q:\n    - 1.10\n    - ~\n    p: no\n  name: a\n",
        "[{name: a, y: \"it's\", x: {q: ['1.10', ~, ], p: \"n\\u006f\"}}]",
        "- name: a # comment\n\n  # comment\n  'x': {q: [1.10, null], p: no}\n  ? y\n  : |-\n    it's\n",
        "- name: a\r\n  x: {p: no, q: [1.10, NULL]}\r\n  y: >-\r\n    it's\r\n",
        "- !!str name: !!str a\n  x: {p: no, q: [1.10,\n    Null]}\n  y: it's\n",
    ] {
        assert!(same(plain, other), "{other}");
    }
}

#[test]
fn the_text_of_scalars_and_the_shape_of_values_matter() {
    let values = [
        "1.10", "1.1", "no", "false", "007", "7", "0x7", "~", "''", "'~'", "'null'", "[]", "{}", "[no]", "{no: }",
        "{no: ''}", "a b", "a  b",
    ];
    for (one, a) in values.iter().enumerate() {
        for (other, b) in values.iter().enumerate() {
            let item = |value: &str| format!("- name: a\n  x: {value}\n");
            assert_eq!(same(&item(a), &item(b)), one == other, "{a} {b}");
        }
    }
    assert!(!same("- name: a\n  x:\n", "- name: a\n"), "null is not absent");
    assert!(same("- name: a\n  x: !!str\n", "- name: a\n  x: ''\n"));
    assert!(same("- name: a\n  x: !!str null\n", "- name: a\n  x: 'null'\n"));
}

#[test]
fn an_alias_counts_as_what_it_stands_for() {
    let written = "- name: a\n  x: {p: [1]}\n- name: b\n  x: {p: [1]}\n  y: a\n";
    assert!(same(written, "- name: &n a\n  x: &x {p: [1]}\n- name: b\n  x: *x\n  y: *n\n"));
    assert!(same("- a: b\n  b: a\n  name: c\n", "- a: &b b\n  *b : a\n  name: c\n"));
    let redefined = "- &x {name: a}\n- name: b\n  y: &x 1\n- name: c\n  y: *x\n";
    assert!(same(redefined, "- {name: a}\n- {name: b, y: 1}\n- {name: c, y: 1}\n"));
}

#[test]
fn merged_fields_count_as_if_they_were_written_out() {
    let written = "- {name: a, version: v1, p: 1, q: 2}\n- {name: b, version: v1, p: 1, q: 3}\n";
    for merged in [
        "- &a {name: a, version: v1, p: 1, q: 2}\n- {<<: *a, name: b, q: 3}\n",
        "- &a {name: a, version: v1, p: 1, q: 2}\n- <<: [{q: 3}, *a]\n  name: b\n",
        "- &a {<<: {p: 1}, name: a, version: v1, q: 2}\n- {name: b, q: 3, <<: *a}\n",
    ] {
        assert!(same(written, merged), "{merged}");
    }
    assert!(!same("- {name: a, '<<': {p: 1}}\n", "- {name: a, p: 1}\n"), "in quotes it is a key");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let cases = [
        ("- name: é\n  x: [é, 'é' é]\n", "2:14 valid YAML (invalid trailing content after double-quoted scalar)"),
        ("- name: a\n  x: [\n", "3:1 valid YAML (while parsing a node, did not find expected node content)"),
        ("- name: a\n  x: [", "2:7 valid YAML (while parsing a node, did not find expected node content)"),
        ("- name: \"a\n", "1:9 valid YAML (while scanning a quoted scalar, found unexpected end of stream)"),
        ("- name: a\n\tx: 1\n", "1:9 valid YAML (while scanning a plain scalar, found a tab)"),
        ("- name: *a\n", "1:9 valid YAML (while parsing node, found unknown anchor)"),
        ("- name: a\n- &x [*x]\n", "2:7 an alias of something that ends before it (found one inside)"),
        ("- name: a\n---\n- name: b\n", "2:1 a single document (found another one)"),
        ("- name: a\n  é: !env X\n", "2:6 a value without a tag (found a tagged one)"),
        ("- name: a\n  x: !!int 1\n", "2:6 a value without a tag (found a tagged one)"),
        ("- !!map {name: a}\n", "1:3 a value without a tag (found a tagged one)"),
        ("- !!str {name: a}\n", "1:3 a value without a tag (found a tagged one)"),
        ("- name: a\n  ? [b]\n  : c\n", "2:5 a scalar as key (found a sequence)"),
        ("- name: a\n  ~: c\n", "2:3 a scalar as key (found null)"),
        ("- {é: 1, name: a,\n  é: 2}\n", "2:3 each key once (found \"é\" again)"),
        ("- name: a\n  <<: {}\n  <<: {}\n", "3:3 each key once (found \"<<\" again)"),
        ("- name: a\n  <<: b\n", "2:7 a mapping, or a sequence of them, to merge (found a scalar)"),
        ("- name: a\n  <<: [{}, [{}]]\n", "2:12 a mapping, or a sequence of them, to merge (found a sequence)"),
        ("a\0b", "1:2 valid YAML (found unprintable character)"),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(catalog(text)), expected, "{text:?}");
    }
}

#[test]
fn protobuf_text_is_no_yaml_catalog() {
    let text = "model_config_list {\n  config {\n    name: \"a\"\n  }\n}\n";
    assert!(catalog(text).is_err());
}

#[test]
fn a_deep_nest_is_refused_before_the_stack_ends() {
    let nest = |depth| format!("- name: a\n  x: {}{}\n", "[".repeat(depth), "]".repeat(depth));
    assert!(catalog(&nest(62)).is_ok());
    let error = "2:68 at most 64 levels of nesting (found more)";
    assert_eq!(refusal(catalog(&nest(63))), error);
    assert_eq!(refusal(catalog(&"- ".repeat(1 << 19))), error.replace("2:68", "1:129"));
    for text in ["[", "? ", ": ", "{a: ", "- {a: [", "[? "] {
        assert!(catalog(&text.repeat((1 << 20) / text.len())).is_err(), "{text}");
    }
}

#[test]
fn aliases_cannot_make_a_deep_nest() {
    let mut text = "- name: a\n  x0: &x0 [1]\n".to_owned();
    for n in 1..80 {
        text += &format!("  x{n}: &x{n} [*x{}]\n", n - 1);
    }
    let error = "64:14 at most 64 levels of nesting (found more)";
    assert_eq!(refusal(catalog(&text)), error);
}

#[test]
fn aliases_cannot_make_a_large_tree() {
    let mut bomb = "- name: a\n  x0: &x0 [lol]\n".to_owned();
    for n in 1..60 {
        let last = format!("*x{},", n - 1);
        bomb += &format!("  x{n}: &x{n} [{}]\n", last.repeat(9));
    }
    let long = format!("- name: a\n  x: &x {}\n  y: [{}]\n", "a".repeat(1 << 19), "*x,".repeat(1000));
    let merge = format!("- &m {{name: a{}}}\n", (0..9999).map(|n| format!(", k{n}: 1")).collect::<String>())
        + &(0..9999).map(|n| format!("- {{<<: *m, name: n{n}}}\n")).collect::<String>();
    let nested = format!("{}1{}", "&a [".repeat(60), "]".repeat(60)).replace('1', &"1,".repeat(30000));
    for text in [bomb, long, merge, nested] {
        let error = catalog(&text).unwrap_err();
        assert!(error.expected.starts_with("at most 262144 keys and values"), "{error}");
    }
}

#[test]
fn a_large_flow_collection_is_refused_before_it_takes_memory() {
    let text = format!("# é\n[{}]", "a,".repeat(1 << 19));
    let error = "2:65537 at most 32768 of `,`, `[` and `{` in all (found more)";
    assert_eq!(refusal(catalog(&text)), error);
}

#[test]
fn a_long_block_is_read() {
    let text = (0..8000).map(|n| format!("- name: m{n}\n  version: v1\n  path: s3://bucket/{n}\n"));
    assert_eq!(catalog(&text.collect::<String>()).unwrap().names().count(), 8000);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".*") {
        let _ = catalog(&text);
    }

    #[test]
    fn no_text_of_yaml_characters_makes_the_reader_panic(
        text in "(- |name: |<<: |a|&a |\\*a|[|>]|'|\"|\\[|\\]|\\{|\\}|, |: |:|\\? |!!str |!a |#|%|---|\n|\n  |\t|~|\\\\|é){0,30}",
    ) {
        let _ = catalog(&text);
    }
}
