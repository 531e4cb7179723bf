//! The format `json`: an array of objects with `name` and `version`.
//!
//! The structure is read here, for its places and because serde_json would turn `1.10` into 1.1;
//! serde_json decodes escapes and knows what a number is.

use super::edit::{List, Shape};
use super::item::{Notation, Outlined};
use super::tree::{Fault, Field, Fields, Limits, Node, Place, Value, quote};
use super::{Catalog, CatalogError};
use crate::object::Content;
use serde::de::IgnoredAny;
use std::borrow::Cow;

pub(super) const JSON: Notation = Notation {
    key: "models.json",
    read,
    outline,
    list: "an array",
    map: "an object",
    scalar: "a string, number or boolean",
};

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// What is left to read, and where it starts.
struct Reader<'a> {
    rest: &'a str,
    place: Place,
    limits: Limits,
}

pub(super) fn parse(content: &Content<'_>) -> Result<Catalog, CatalogError> {
    JSON.parse(content)
}

fn read(text: &str) -> Result<Node<'_>, Fault> {
    let mut reader = Reader::new(text);
    reader.space();
    let root = reader.value()?;
    reader.end()?;
    Ok(root)
}

fn outline(text: &str) -> Result<Outlined<'_>, Fault> {
    let mut reader = Reader::new(text);
    reader.space();
    let (place, open) = (reader.place, text.len() - reader.rest.len() + 1);
    if !reader.rest.starts_with('[') {
        return read(text).map(|root| (root, None));
    }
    let (mut nodes, mut elements) = (Vec::new(), Vec::new());
    reader.items(']', |reader| {
        let start = text.len() - reader.rest.len();
        nodes.push(reader.value()?);
        // White space behind a bracket is passed with it.
        let source = text[start..text.len() - reader.rest.len()].trim_end_matches(SPACE);
        elements.push(start..start + source.len());
        Ok(())
    })?;
    reader.end()?;
    let end = elements.last().map_or(open, |last| last.end);
    let list = List { shape: Shape::Brackets { open }, elements, end };
    Ok((Node { place, value: Value::List(nodes) }, Some(list)))
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, place: Place::START, limits: Limits::new() }
    }

    fn value(&mut self) -> Result<Node<'a>, Fault> {
        let place = self.place;
        let value = match self.rest.bytes().next() {
            Some(b'[') => self.array()?,
            Some(b'{') => self.object()?,
            Some(b'"') => Value::Text(self.string()?),
            _ => self.literal()?,
        };
        Ok(Node { place, value })
    }

    fn array(&mut self) -> Result<Value<'a>, Fault> {
        let mut nodes = Vec::new();
        self.items(']', |reader| {
            nodes.push(reader.value()?);
            Ok(())
        })?;
        Ok(Value::List(nodes))
    }

    fn object(&mut self) -> Result<Value<'a>, Fault> {
        let mut fields = Vec::new();
        self.items('}', |reader| {
            fields.push(reader.field()?);
            Ok(())
        })?;
        fields.shrink_to_fit();
        Fields::new(fields).map(Value::Map)
    }

    fn field(&mut self) -> Result<Field<'a>, Fault> {
        let place = self.place;
        if !self.rest.starts_with('"') {
            return Err(self.fault("a key in quotes"));
        }
        let key = self.string()?;
        self.space();
        if !self.eat(':') {
            return Err(self.fault("`:`"));
        }
        self.space();
        let node = self.value()?;
        Ok(Field { key, place, node })
    }

    /// Reads what stands between the bracket that comes next and its `close`, separated by commas.
    fn items(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.limits.enter(self.place)?;
        self.pass(1);
        self.space();
        let mut done = self.eat(close);
        while !done {
            item(self)?;
            self.space();
            done = self.eat(close);
            if !done && !self.eat(',') {
                return Err(self.fault(&format!("`,` or `{close}`")));
            }
            self.space();
        }
        self.limits.leave();
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let bytes = self.rest.as_bytes();
        let (mut end, mut escaped) = (1, false);
        loop {
            match bytes.get(end) {
                None => {
                    self.pass(bytes.len());
                    return Err(self.fault("the closing quote of a string"));
                }
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    end += 2;
                }
                Some(..b' ') => {
                    self.pass(end);
                    return Err(self.fault("a string without control characters"));
                }
                Some(_) => end += 1,
            }
        }
        let text =
            if escaped { Cow::Owned(self.unescape(&self.rest[..=end])?) } else { Cow::Borrowed(&self.rest[1..end]) };
        self.limits.text(self.place, &text)?;
        self.pass(end + 1);
        Ok(text)
    }

    fn unescape(&self, quoted: &str) -> Result<String, Fault> {
        serde_json::from_str(quoted).map_err(|error| {
            let before = quoted.get(..error.column().saturating_sub(1));
            let place = self.place.after(before.unwrap_or_default());
            Fault::new(place, "a valid escape in a string (found another one)")
        })
    }

    fn literal(&mut self) -> Result<Value<'a>, Fault> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        let text = &self.rest[..end.unwrap_or(self.rest.len())];
        let value = match text {
            "" => return Err(self.fault("a value")),
            "null" => Value::Null,
            _ if serde_json::from_str::<IgnoredAny>(text).is_ok() => Value::Text(text.into()),
            _ => {
                let expected = format!("a value (found {})", quote(text));
                return Err(Fault::new(self.place, expected));
            }
        };
        self.limits.text(self.place, text)?;
        self.pass(text.len());
        Ok(value)
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.rest.is_empty() { Ok(()) } else { Err(self.fault("the end of the text")) }
    }

    fn space(&mut self) {
        let rest = self.rest.trim_start_matches(SPACE);
        self.pass(self.rest.len() - rest.len());
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.rest.starts_with(c);
        if there {
            self.pass(c.len_utf8());
        }
        there
    }

    fn pass(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.place = self.place.after(passed);
        self.rest = rest;
    }

    /// What was expected here, and what is here.
    fn fault(&self, expected: &str) -> Fault {
        let found = match self.rest.chars().next() {
            None => "the end".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        Fault::new(self.place, format!("{expected} (found {found})"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{content, names, refusal};
    use super::*;
    use proptest::prelude::*;

    fn catalog(text: &str) -> Result<Catalog, CatalogError> {
        parse(&content([("models.json", text)], []))
    }

    fn same(one: &str, other: &str) -> bool {
        catalog(one).unwrap() == catalog(other).unwrap()
    }

    #[test]
    fn an_array_of_objects_is_a_catalog() {
        let text = r#" [
            {"name": "a", "version": "v1", "path": "s3://a"},
            {"version": 1.10, "name": "b"},
            {"name": "c"}, {"name": true, "version": 007e0}
        ]"#;
        assert_eq!(refusal(catalog(text)), "4:54 a value (found \"007e0\")");
        let listed = catalog(&text.replace("007e0", "7e0")).unwrap();
        assert_eq!(names(&listed), ["a@v1", "b@1.10", "c", "true@7e0"]);
    }

    #[test]
    fn an_empty_array_and_null_list_nothing() {
        assert_eq!(catalog("[]").unwrap(), Catalog::default());
        assert_eq!(catalog(" [ ] \r\n").unwrap(), Catalog::default());
        assert_eq!(catalog("null").unwrap(), Catalog::default());
    }

    #[test]
    fn order_space_and_escapes_do_not_matter() {
        let plain = r#"[{"name":"a","x":{"p":"é/","q":[1,null]},"y":""}]"#;
        for other in [
            r#"[{"y":"","x":{"q":[1,null],"p":"é/"},"name":"a"}]"#,
            "[ {\"name\" :\t\"a\" ,\r\n\"x\": {\"p\":\"\\u00e9\\/\",\"q\": [ 1 , null ] }, \"y\":\"\" } ]",
            r#"[{"\u006eame":"\u0061","x":{"p":"é/","q":[1,null]},"y":""}]"#,
        ] {
            assert!(same(plain, other), "{other}");
        }
    }

    #[test]
    fn the_text_of_numbers_and_the_shape_of_values_matter() {
        let texts = [
            "1.10",
            "1.1",
            "1.100",
            "110e-2",
            "[1.10]",
            "{\"1.10\":null}",
            "null",
            "[]",
            "{}",
            "\"\"",
            "[[]]",
            "[null]",
        ];
        for one in texts {
            for other in texts {
                let item = |value: &str| format!(r#"[{{"name":"a","x":{value}}}]"#);
                assert_eq!(same(&item(one), &item(other)), one == other, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_scalar_in_quotes_is_the_same_text() {
        for text in ["1.10", "true", "-0"] {
            let item = |value: &str| format!(r#"[{{"name":"a","x":{value}}}]"#);
            assert!(same(&item(text), &item(&format!("\"{text}\""))), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_ends_to_be() {
        let cases = [
            ("", "1:1 a value (found the end)"),
            ("[", "1:2 a value (found the end)"),
            ("[]]", "1:3 the end of the text (found ']')"),
            ("\u{feff}[]", "1:1 a value (found '\\u{feff}')"),
            ("[\n{\"name\":\"é\" \"x\"", "2:13 `,` or `}` (found '\"')"),
            ("[{name: 1}]", "1:3 a key in quotes (found 'n')"),
            ("[{\"name\" 1}]", "1:10 `:` (found '1')"),
            ("[{\"name\":1,}]", "1:12 a key in quotes (found '}')"),
            ("[1,]", "1:4 a value (found ']')"),
            ("[01]", "1:2 a value (found \"01\")"),
            ("[tru]", "1:2 a value (found \"tru\")"),
            ("['a']", "1:2 a value (found '\\'')"),
            ("[\"é", "1:4 the closing quote of a string (found the end)"),
            ("[\"é\\", "1:5 the closing quote of a string (found the end)"),
            ("[\"é\n\"]", "1:4 a string without control characters (found '\\n')"),
            ("[\"é\\x\"]", "1:5 a valid escape in a string (found another one)"),
            ("[\"\\ud800\"]", "1:9 a valid escape in a string (found another one)"),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal(catalog(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_where_it_stands_again() {
        let text = "[{\"name\":\"a\",
  \"z\":1, \"x\":{\"b\":1,
\"b\":1}}]";
        assert_eq!(refusal(catalog(text)), "3:1 each key once (found \"b\" again)");
    }

    #[test]
    fn a_deep_nest_is_refused_before_the_stack_ends() {
        let nest = |depth: usize| format!("[{{\"name\":\"a\",\"x\":{}{}}}]", "[".repeat(depth), "]".repeat(depth));
        assert!(catalog(&nest(62)).is_ok());
        let error = "1:80 at most 64 levels of nesting (found more)";
        assert_eq!(refusal(catalog(&nest(63))), error);
        assert!(catalog(&"[".repeat(1 << 20)).is_err());
        assert!(catalog(&"[{\"a\":".repeat(1 << 18)).is_err());
    }

    #[test]
    fn a_text_with_too_many_values_is_refused() {
        let error = catalog(&format!("[{}", "[],".repeat(1 << 18))).unwrap_err();
        assert!(error.expected.starts_with("at most 262144 keys and values"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = catalog(&text);
        }

        #[test]
        fn no_text_of_json_characters_makes_the_reader_panic(text in r#"[\[\]{}:,"\\ua0\n \-.enl1é]{0,40}"#) {
            let _ = catalog(&text);
        }

        #[test]
        fn what_is_read_is_what_serde_json_accepts(text in r#"(\[|\]|\{|\}|:|,|"a"|"b"|"\\u00e9"|1|-0\.5e3|null|true| |\n){0,12}"#) {
            let accepted = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            match read(&text) {
                Ok(_) => prop_assert!(accepted, "{text:?}"),
                Err(fault) => {
                    let expected = fault.in_key("").expected;
                    prop_assert!(!accepted || expected.contains("once"), "{text:?}: {expected}");
                }
            }
        }
    }
}
