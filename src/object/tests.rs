use super::*;

#[test]
fn null_is_absent_in_every_field_of_a_config_map() {
    let map = ConfigMap::parse(
        r#"{
            "metadata": {
                "name": null, "namespace": null, "uid": null, "resourceVersion": null,
                "creationTimestamp": null, "deletionTimestamp": null,
                "labels": null, "annotations": null, "managedFields": null
            },
            "data": null, "binaryData": null, "immutable": null
        }"#,
    )
    .unwrap();
    assert_eq!(map.metadata.name, "");
    assert!(map.metadata.annotations.is_empty());
    assert_eq!(map.content, Content::default());
}

#[test]
fn a_config_map_borrows_what_has_no_escapes() {
    let map =
        ConfigMap::parse(r#"{"metadata": {"name": "models"}, "data": {"a": "plain", "b": "two\nlines"}}"#).unwrap();
    assert!(matches!(map.metadata.name, Cow::Borrowed("models")));
    assert!(matches!(map.content.data.0[0], (_, Cow::Borrowed("plain"))));
    assert_eq!(map.content.data.get("b"), Some("two\nlines"));
}

#[test]
fn a_config_map_that_cannot_be_read_is_an_error_and_not_an_empty_one() {
    for (what, json, expected) in [
        ("a list", r"[{}]", "expected an object"),
        ("metadata that is a list", r#"{"metadata": []}"#, "expected an object"),
        ("no metadata", r"{}", "missing field `metadata`"),
        ("a name that is a number", r#"{"metadata": {"name": 1}}"#, "expected a string"),
        ("data that is a list", r#"{"metadata": {}, "data": []}"#, "expected a map of strings"),
        ("a value that is no string", r#"{"metadata": {}, "data": {"a": 1}}"#, "expected a string"),
        ("a value that is null", r#"{"metadata": {}, "data": {"a": null}}"#, "expected a string"),
        ("a key twice", r#"{"metadata": {}, "data": {"a": "1", "a": "2"}}"#, "duplicate key \"a\""),
        ("data twice", r#"{"metadata": {}, "data": {}, "data": {}}"#, "duplicate field `data`"),
        ("no base64", r#"{"metadata": {}, "binaryData": {"a": "%"}}"#, "binaryData[\"a\"] is not base64"),
    ] {
        let error = ConfigMap::parse(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn an_owned_map_has_the_same_pairs() {
    let map: StringMap<'_> = [("a", "1"), ("b", "2")].into_iter().collect();
    assert_eq!(map.clone().into_owned(), map);
}
