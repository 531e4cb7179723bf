use super::*;
use crate::object::StringMap;
use crate::revision::kept::{Kept, Written};
use proptest::collection::btree_map;
use proptest::prelude::*;
use serde_json::json;

/// More than an annotation ever has room for.
const ROOM: usize = 256 * 1024;

fn any_map() -> impl Strategy<Value = StringMap<'static>> {
    let pair = || ("[-._a-z]{1,4}", "[ -~\n\té\u{1}\u{2028}]{0,8}");
    let (key, value) = pair();
    btree_map(key, value, 0..4).prop_map(|map| map.into_iter().collect())
}

/// Binary values of any bytes, as the API server writes them.
fn any_binary() -> impl Strategy<Value = StringMap<'static>> {
    let value = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| STANDARD.encode(bytes));
    btree_map("[-._a-z]{1,4}", value, 0..4).prop_map(|map| map.into_iter().collect())
}

/// Long enough for every encoding, with bytes that repeat or do not.
fn any_large() -> impl Strategy<Value = String> {
    let line =
        prop_oneof!["[ -~]{0,60}\r\n", Just("- name: extraction\n".to_owned()), "\u{7f}{1,9}", "[α-ω]{1,20} +\n"];
    (proptest::collection::vec(line, 1..20), 1..600_usize).prop_map(|(lines, times)| lines.concat().repeat(times))
}

fn revision(number: u64, manager: Option<String>, content: Content<'static>) -> Revision<'static> {
    let head = Head {
        number,
        time: Some("2026-11-20T09:12:44Z".into()),
        manager: manager.map(Cow::Owned),
        digest: digest(&content),
    };
    Revision { head, content: Cow::Owned(content) }
}

fn text(value: &str) -> Content<'static> {
    Content { data: [("a".to_owned(), value.to_owned())].into_iter().collect(), ..Content::default() }
}

/// Whether this is where that content is, as it was.
fn is(place: &Place<'_>, expected: &Content<'_>) -> bool {
    matches!(place, Place::Here(content) if **content == *expected)
}

/// Nothing that a compressor finds anything in.
fn noise(len: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from((state >> 33) % 95).unwrap())
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

fn encoding(annotation: &str) -> String {
    serde_json::from_str::<Value>(annotation).unwrap()["encoding"].as_str().unwrap().to_owned()
}

proptest! {
    #[test]
    fn what_is_encoded_is_json_without_a_space_and_decodes_to_the_same(
        data in any_map(),
        binary_data in any_binary(),
        immutable: Option<bool>,
        manager in proptest::option::of("[ -~]{0,6}"),
        number: u64,
    ) {
        let revision = revision(number, manager, Content { data, binary_data, immutable });
        let text = encode(&revision, "models", ROOM);
        let Prior { head, place } = decode(&text).unwrap();
        prop_assert!(head == revision.head && is(&place, &revision.content), "{}", text);
        // serde_json sorts the members, but has the same bytes for each.
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value.to_string().len(), text.len(), "{}", text);
    }

    #[test]
    fn a_large_content_comes_back_from_wherever_it_is(value in any_large(), room in 2_000..ROOM) {
        let revision = revision(3, None, text(&value));
        let annotation = encode(&revision, "models", room);
        prop_assert_eq!(&annotation, &encode(&revision, "models", room));
        prop_assert!(annotation.len() <= room.min(INLINE));
        match decode(&annotation).unwrap().place {
            Place::Beside(name) => prop_assert_eq!(name, kept::name("models", &revision.head.digest)),
            here @ Place::Here(_) => prop_assert!(is(&here, &revision.content)),
        }
    }

    #[test]
    fn a_controller_revision_keeps_every_content(
        data in any_map(),
        binary_data in any_binary(),
        large in any_large(),
        immutable: Option<bool>,
    ) {
        let mut content = Content { data, binary_data, immutable };
        content.data.insert("large", large);
        let kept = Kept {
            config_map: crate::reference::CatalogKey::new("prod", "models"),
            catalog: "yaml".into(),
            digest: digest(&content),
            content: Cow::Owned(content),
            written: Vec::new(),
        };
        let data = kept.data().to_string();
        let read = Kept::read("prod", None, &data).unwrap();
        prop_assert!(*read.content == *kept.content && read.catalog == "yaml" && read.config_map == kept.config_map);
    }
}

#[test]
fn the_annotation_is_written_in_one_way_only() {
    let data = [("a", "1\n\"2\""), ("b", "é")].into_iter().collect();
    let content = Content { data, binary_data: StringMap::default(), immutable: Some(false) };
    let revision = revision(7, None, content);
    let digest = revision.head.digest;
    let expected = format!(
        r#"{{"v":1,"revision":7,"digest":"{digest}","time":"2026-11-20T09:12:44Z","encoding":"json","payload":{{"data":{{"a":"1\n\"2\"","b":"é"}},"immutable":false}}}}"#
    );
    assert_eq!(encode(&revision, "models", ROOM), expected);
}

#[test]
fn what_is_damaged_is_no_revision() {
    let whole = encode(&revision(7, None, text("1")), "models", ROOM);
    let damages = [
        ("v", json!(2)),
        ("digest", json!("0")),
        ("digest", json!("0".repeat(64))),
        ("encoding", json!("deflate")),
        ("encoding", json!("ref")),
        ("encoding", json!("zstd")),
        ("payload", json!({"data": {"a": "2"}})),
        ("payload", json!({"data": {"a": "1"}, "stringData": {}})),
        ("payload", Value::Null),
        ("revision", json!("7")),
    ];
    for (field, wrong) in damages {
        let mut damaged: Value = serde_json::from_str(&whole).unwrap();
        damaged[field] = wrong;
        assert!(decode(&damaged.to_string()).is_err(), "{damaged}");
    }
    for text in ["", "null", "[]", "{}", &whole[..whole.len() - 1]] {
        assert!(decode(text).is_err(), "{text}");
    }
}

#[test]
fn an_annotation_is_as_small_as_that_is_worth() {
    let model = "- name: extraction\n  version: v1\n  uri: s3://models/extraction/v1\n";
    let of = |content: String, room: usize| encoding(&encode(&revision(1, None, text(&content)), "models", room));
    assert_eq!(of(model.repeat(200), ROOM), "json", "13 KiB");
    assert_eq!(of(model.repeat(1_000), ROOM), "deflate", "64 KiB");
    assert_eq!(of(noise(40_000), ROOM), "json", "what compressing saves of noise, base64 takes back");
    assert_eq!(of(noise(100_000), ROOM), "ref");
    assert_eq!(of(model.repeat(14_000), ROOM), "deflate", "0.9 MiB that repeat");
    assert_eq!(of(noise(1 << 20), ROOM), "ref");
    assert_eq!(of("x".to_owned(), 300), "json");
    assert_eq!(of(noise(300), 300), "ref", "other annotations leave no room");
}

#[test]
fn as_many_and_as_long_keys_as_there_can_be_come_back() {
    let key = |number: usize| format!("{number:04}{}", "-._aZ".repeat(50)).chars().take(253).collect::<String>();
    for value in ["", "é\r\n \u{0}"] {
        let data = (0..1_000).map(|number| (key(number), value.to_owned())).collect();
        let binary_data = (1_000..2_000).map(|number| (key(number), String::new())).collect();
        let revision = revision(1, None, Content { data, binary_data, immutable: None });
        let annotation = encode(&revision, "models", ROOM);
        assert!(is(&decode(&annotation).unwrap().place, &revision.content), "they repeat, and are compressed");
    }
}

#[test]
fn what_expands_without_end_is_refused() {
    let bomb = pack(&" ".repeat(LARGEST + 1));
    let damaged =
        format!(r#"{{"v":1,"revision":1,"digest":"{}","encoding":"deflate","payload":"{bomb}"}}"#, "0".repeat(64));
    assert!(matches!(decode(&damaged), Err(DecodeError::Payload(_))));
}

#[test]
fn names_are_short_enough_and_tell_contents_apart() {
    let [one, other] = ["1", "2"].map(|value| digest(&text(value)));
    assert_eq!(kept::name("models", &one), format!("models-{}", one.short(16)));
    assert_ne!(kept::name("models", &one), kept::name("models", &other));
    let long = ["a".repeat(253), format!("{}b", "a".repeat(252)), format!("{}.a", "a".repeat(236))];
    let names: std::collections::BTreeSet<_> = long.iter().map(|long| kept::name(long, &one)).collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.len() <= 253 && !name.contains(".-")), "{names:?}");
    let label = kept::label(&long[0]);
    assert_eq!((label.len(), kept::label("models").as_ref()), (63, "models"));
}

#[test]
fn a_content_that_comes_back_is_of_both_revisions() {
    let written = |revision| Written { uid: "u".into(), revision, time: None, manager: Some("helm".into()) };
    let once = kept::with(None, &[written(1)]).unwrap();
    assert_eq!(once, r#"[{"uid":"u","revision":1,"manager":"helm"}]"#);
    assert_eq!(kept::with(Some(&once), &[written(1)]), None);
    let twice = kept::with(Some(&once), &[written(3)]).unwrap();
    assert_eq!(kept::written(Some(&twice)), [written(1), written(3)]);
    let many = (4..100).fold(twice, |said, number| kept::with(Some(&said), &[written(number)]).unwrap());
    let many = kept::written(Some(&many));
    assert_eq!((many.len(), many[0].revision, many[31].revision), (32, 68, 99));
    assert_eq!(kept::written(Some("damaged")), []);
}

/// What every released version of the codec wrote must stay readable: a blob is added with each, and none is ever changed.
#[test]
fn blobs_of_every_version_are_read() {
    let of = |versions: std::ops::RangeInclusive<u32>| -> String {
        versions
            .map(|it| format!("- name: extraction\n  version: v{it}\n  uri: s3://models/extraction/v{it}\n"))
            .collect()
    };
    let expected = |text: String| {
        let data = [("models.yaml".to_owned(), text)].into_iter().collect();
        let binary_data = [("weights".to_owned(), "AP/+gA==".to_owned())].into_iter().collect();
        Content { data, binary_data, immutable: Some(false) }
    };
    for (blob, text) in [
        (include_str!("../../../tests/data/revisions/v1-json.json"), of(1..=2)),
        (include_str!("../../../tests/data/revisions/v1-deflate.json"), of(1..=400)),
    ] {
        let prior = decode(blob.trim_end()).unwrap();
        assert!(is(&prior.place, &expected(text)), "{:?}", prior.head);
        assert_eq!((prior.head.number, prior.head.manager.as_deref()), (7, Some("helm")));
    }
    let named = decode(include_str!("../../../tests/data/revisions/v1-ref.json").trim_end()).unwrap();
    assert_eq!(named.place, Place::Beside("models-0a6dc1e6dfa5f2b0".into()));
    for (blob, text) in [
        (include_str!("../../../tests/data/revisions/v1-beside-json.json"), of(1..=2)),
        (include_str!("../../../tests/data/revisions/v1-beside-deflate.json"), of(1..=400)),
    ] {
        let kept = Kept::read("prod", None, blob).unwrap();
        assert!(*kept.content == expected(text));
        assert_eq!((kept.config_map.to_string().as_str(), kept.catalog.as_ref()), ("prod/models", "yaml"));
    }
}
