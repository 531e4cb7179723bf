//! The syntax of `modelguard.dev/uses` and `modelguard.dev/serves`.
//!
//! ```text
//! models:extraction@v2, shared/models:ranking@v1,
//! └─┬──┘ └────┬─────┘   └─┬──┘
//! ConfigMap  entry     namespace, the holder's own if there is none
//! ```
//! An item is split at its first `:`, for entries may contain more. White space around items, and one comma
//! behind the last, do no harm, for YAML's block scalars bring both; an item with nothing in it is an error.

use super::{CatalogKey, Need, shortened};
use crate::catalog::{EntryName, InvalidEscape, InvalidName, unescape};
use crate::names;
use std::fmt;
use thiserror::Error;

/// How many characters of an item an error repeats.
const EXCERPT: usize = 80;

/// Which annotation is read; they differ in one point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Annotation {
    /// `modelguard.dev/uses`
    Uses,
    /// `modelguard.dev/serves`, where `*` stands for every entry of the ConfigMap.
    Serves,
}

/// An item that cannot be read.
#[derive(Debug, Eq, Error, PartialEq)]
#[error("{annotation}, item {position}, {item:?}: {problem}")]
pub(super) struct InvalidItem {
    annotation: Annotation,
    /// Counted from 1.
    position: usize,
    /// The item, or its beginning.
    item: String,
    problem: Problem,
}

/// What was expected of the item.
#[derive(Debug, Eq, Error, PartialEq)]
enum Problem {
    #[error("expected [namespace/]configmap:entry, found nothing")]
    Empty,
    #[error("expected [namespace/]configmap:entry, found no ':'")]
    NoEntry,
    #[error("expected a namespace before '/': lower-case letters, digits and '-', at most 63 characters")]
    Namespace,
    #[error(
        "expected the name of a ConfigMap before ':': lower-case letters, digits, '-' and '.', at most 253 characters"
    )]
    ConfigMap,
    #[error(transparent)]
    Escape(#[from] InvalidEscape),
    #[error("expected an entry after ':', but it {0}")]
    Entry(InvalidName),
    #[error("expected one entry after ':', for '*' has a meaning in {} only", names::SERVES)]
    Wildcard,
}

/// Reads an annotation's items, in their order; `namespace` is where those belong that name none.
pub(super) fn parse<'a>(
    annotation: Annotation,
    namespace: &'a str,
    text: &'a str,
) -> impl Iterator<Item = Result<(CatalogKey, Need), InvalidItem>> + 'a {
    let text = text.trim();
    let items = (!text.is_empty()).then(|| text.strip_suffix(',').unwrap_or(text).split(','));
    let items = items.into_iter().flatten().map(str::trim).enumerate();
    items.map(move |(index, item)| {
        parse_item(annotation, namespace, item).map_err(|problem| InvalidItem {
            annotation,
            position: index + 1,
            item: shortened(item, EXCERPT),
            problem,
        })
    })
}

// === impl Annotation ===

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uses => names::USES,
            Self::Serves => names::SERVES,
        })
    }
}

// === helpers ===

fn parse_item(annotation: Annotation, own_namespace: &str, item: &str) -> Result<(CatalogKey, Need), Problem> {
    if item.is_empty() {
        return Err(Problem::Empty);
    }
    let (path, entry) = item.split_once(':').ok_or(Problem::NoEntry)?;
    let (namespace, name) = match path.split_once('/') {
        None => (own_namespace, path),
        Some(parts @ (namespace, _)) if is_label(namespace) && namespace.len() <= 63 => parts,
        Some(_) => return Err(Problem::Namespace),
    };
    if !(name.split('.').all(is_label) && name.len() <= 253) {
        return Err(Problem::ConfigMap);
    }
    let need = match (entry, annotation) {
        ("*", Annotation::Serves) => Need::All,
        ("*", Annotation::Uses) => return Err(Problem::Wildcard),
        _ => Need::Entry(EntryName::new(&unescape(entry)?).map_err(Problem::Entry)?),
    };
    Ok((CatalogKey::new(namespace, name), need))
}

/// Whether the text is made as a DNS label is; how long it may be depends on what it names.
fn is_label(text: &str) -> bool {
    let inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty() && text.as_bytes().iter().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads an annotation of a holder in `prod`: its items one by one, as `namespace/configmap:entry` or the error.
    fn read(annotation: Annotation, text: &str) -> Vec<String> {
        parse(annotation, "prod", text)
            .map(|item| match item {
                Ok((catalog, Need::All)) => format!("{catalog} as a whole"),
                Ok((catalog, Need::Entry(entry))) => format!("{catalog}:{entry}"),
                Err(error) => error.to_string(),
            })
            .collect()
    }

    #[test]
    fn every_way_to_write_items_is_read() {
        for (what, text, expected) in [
            ("one", "models:extraction@v2", &["prod/models:extraction@v2"][..]),
            ("another namespace", "shared/models:a", &["shared/models:a"]),
            ("several", "models:a,models:b", &["prod/models:a", "prod/models:b"]),
            ("white space", " models:a ,\n  models:b\n", &["prod/models:a", "prod/models:b"]),
            ("a comma behind the last", "models:a,\nmodels:b,\n", &["prod/models:a", "prod/models:b"]),
            ("nothing", "", &[]),
            ("only white space", " \n\t", &[]),
            ("':' in the entry", "models:a:b:c", &["prod/models:a:b:c"]),
            ("'/' in the entry", "models:org/a@1/2", &["prod/models:org/a@1/2"]),
            ("white space within the entry", "models:a b", &["prod/models:a b"]),
            ("both escapes", "models:a%2Cb%25c", &["prod/models:a,b%c"]),
            ("small letters in an escape", "models:a%2cb", &["prod/models:a,b"]),
            ("an escaped escape", "models:%252C", &["prod/models:%2C"]),
            ("other scripts", "models:模型@版本", &["prod/models:模型@版本"]),
            ("dots in the ConfigMap", "a.b-c.1:x", &["prod/a.b-c.1:x"]),
            ("a wildcard of the catalog", "models:openai/*", &["prod/models:openai/*"]),
        ] {
            assert_eq!(read(Annotation::Uses, text), expected, "{what}");
            assert_eq!(read(Annotation::Serves, text), expected, "{what}");
        }
    }

    #[test]
    fn an_error_names_the_item_its_position_and_what_was_expected() {
        let path = "expected [namespace/]configmap:entry, found";
        let namespace = "expected a namespace before '/'";
        let config_map = "expected the name of a ConfigMap before ':'";
        let escape = "expected %2C for ',' or %25 for '%', found";
        for (text, position, item, expected) in [
            ("models", 1, "models", format!("{path} no ':'")),
            ("org/model@v1", 1, "org/model@v1", format!("{path} no ':'")),
            ("models:a,,models:b", 2, "", format!("{path} nothing")),
            ("models:a,,", 2, "", format!("{path} nothing")),
            (",", 1, "", format!("{path} nothing")),
            (",models:a", 1, "", format!("{path} nothing")),
            ("models:a, Prod/models:b", 2, "Prod/models:b", namespace.into()),
            ("/models:a", 1, "/models:a", namespace.into()),
            ("a.b/models:a", 1, "a.b/models:a", namespace.into()),
            (":a", 1, ":a", config_map.into()),
            ("prod/:a", 1, "prod/:a", config_map.into()),
            ("a/b/c:d", 1, "a/b/c:d", config_map.into()),
            ("-models:a", 1, "-models:a", config_map.into()),
            ("models-:a", 1, "models-:a", config_map.into()),
            ("mo..dels:a", 1, "mo..dels:a", config_map.into()),
            ("Models:a", 1, "Models:a", config_map.into()),
            ("models :a", 1, "models :a", config_map.into()),
            ("models:", 1, "models:", "expected an entry after ':', but it is empty".into()),
            ("models: a", 1, "models: a", "but it has leading or trailing white space".into()),
            ("models:a\u{7}", 1, "models:a\\u{7}", "or a character that is not visible".into()),
            ("models:%20", 1, "models:%20", format!("{escape} \"%20\"")),
            ("models:a%", 1, "models:a%", format!("{escape} \"%\"")),
            ("models:%2", 1, "models:%2", format!("{escape} \"%2\"")),
            ("models:%2模", 1, "models:%2模", format!("{escape} \"%2模\"")),
            ("models:%é", 1, "models:%é", format!("{escape} \"%é\"")),
        ] {
            let errors: Vec<_> =
                parse(Annotation::Uses, "prod", text).filter_map(Result::err).map(|error| error.to_string()).collect();
            let start = format!("modelguard.dev/uses, item {position}, \"{item}\": ");
            assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
            assert!(errors[0].starts_with(&start), "{text:?}: {errors:?}");
            assert!(errors[0].contains(&expected), "{text:?}: {errors:?}");
        }
    }

    #[test]
    fn names_may_be_as_long_as_kubernetes_allows_and_no_longer() {
        let reads = |namespace: usize, config_map: usize, entry: usize| {
            let [namespace, config_map, entry] = [namespace, config_map, entry].map(|n| "a".repeat(n));
            let item = format!("{namespace}/{config_map}:{entry}");
            parse(Annotation::Uses, "prod", &item).all(|item| item.is_ok())
        };
        assert!(reads(63, 253, 512));
        assert!(!reads(64, 253, 512));
        assert!(!reads(63, 254, 512));
        assert!(!reads(63, 253, 513));
    }

    #[test]
    fn a_star_is_the_whole_catalog_for_serves_and_an_error_for_uses() {
        assert_eq!(
            read(Annotation::Serves, "models:*, shared/models:*"),
            ["prod/models as a whole", "shared/models as a whole"]
        );
        let [error] = read(Annotation::Uses, "models:*").try_into().unwrap();
        assert!(error.ends_with("expected one entry after ':', for '*' has a meaning in modelguard.dev/serves only"));
    }

    #[test]
    fn a_bad_item_does_not_hide_the_good_ones() {
        let items = read(Annotation::Uses, "models:a, models, models:b");
        assert_eq!(items[0], "prod/models:a");
        assert_eq!(items[2], "prod/models:b");
    }

    #[test]
    fn an_error_repeats_no_more_than_the_beginning_of_a_long_item() {
        let [error] = read(Annotation::Uses, &"x".repeat(200_000)).try_into().unwrap();
        assert!(error.contains(&format!("{}…", "x".repeat(EXCERPT))));
        assert!(error.len() < 250, "{}", error.len());
    }

    /// What a person writes for these parts.
    fn render(namespace: Option<&str>, config_map: &str, entry: &EntryName) -> String {
        let entry = entry.as_str().replace('%', "%25").replace(',', "%2C");
        let namespace = namespace.map(|it| format!("{it}/")).unwrap_or_default();
        format!("{namespace}{config_map}:{entry}")
    }

    fn entry() -> impl Strategy<Value = EntryName> {
        // More of the characters that mean something here than chance would bring.
        let text = "(\\PC|[,%:/@* ]|%2C|%25){1,24}";
        text.prop_filter_map("a valid entry", |text| EntryName::new(&text).ok().filter(|entry| entry.as_str() != "*"))
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            items in prop::collection::vec(
                (prop::option::of("[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?"), "[a-z0-9]([-.]?[a-z0-9]){0,9}", entry()),
                0..6,
            ),
            separator in "[ \n\t]{0,2},[ \n\t]{0,2}",
        ) {
            let written: Vec<_> = items
                .iter()
                .map(|(namespace, config_map, entry)| render(namespace.as_deref(), config_map, entry))
                .collect();
            let text = written.join(&separator);
            let read: Result<Vec<_>, _> = parse(Annotation::Uses, "prod", &text).collect();
            let expected: Vec<_> = items
                .into_iter()
                .map(|(namespace, config_map, entry)| {
                    let namespace = namespace.unwrap_or_else(|| "prod".to_owned());
                    (CatalogKey::new(&namespace, &config_map), Need::Entry(entry))
                })
                .collect();
            prop_assert_eq!(read, Ok(expected));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in any::<String>()) {
            for annotation in [Annotation::Uses, Annotation::Serves] {
                parse(annotation, "prod", &text).for_each(drop);
            }
        }

        #[test]
        fn text_that_is_almost_right_is_read_or_refused_without_a_panic(text in "[a-z%:/,*2C5 é]{0,40}") {
            for annotation in [Annotation::Uses, Annotation::Serves] {
                parse(annotation, "prod", &text).for_each(drop);
            }
        }
    }
}
