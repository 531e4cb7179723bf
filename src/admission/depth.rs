//! How deep JSON is nested: counted before a parser that recurses sees it.

/// Whether brackets, those in strings aside, are nested deeper than `limit`.
pub(super) fn is_deeper_than(json: &[u8], limit: usize) -> bool {
    may_be(json, limit) && is(json, limit)
}

/// Whether there are enough brackets for that at all, a first look that is far cheaper: each level opens one, and only the
/// innermost opens one that closes at once. What is in strings only makes it say yes too often.
fn may_be(json: &[u8], limit: usize) -> bool {
    // In ASCII `{` is `[` with one bit more, and so are what closes them.
    let opens = |byte: u8| byte | 0x20 == b'{';
    let closes = |byte: u8| byte | 0x20 == b'}';
    let follows = json.get(1..).unwrap_or_default();
    // Counted in bytes, so that many are looked at at once: 16 at a time, fifteen times.
    let some = json.chunks(240).zip(follows.chunks(240));
    let opened = some.map(|(some, next)| {
        let pairs = some.iter().zip(next);
        usize::from(pairs.map(|(byte, next)| u8::from(opens(*byte) & !closes(*next))).sum::<u8>())
    });
    // The last byte, which nothing follows, and the innermost one.
    opened.sum::<usize>() + 2 > limit
}

/// Whether brackets, those in strings aside, are nested deeper than `limit`.
fn is(json: &[u8], limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut rest = json;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => rest = behind_string(behind),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// What follows the quote that ends a string.
fn behind_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_never_misses_what_is_too_deep() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for levels in 1..=4 {
                // Wherever it lies, and whether or not it ends.
                for before in 235..245 {
                    let open = format!("\"{}\",{}", "x".repeat(before), open.repeat(levels));
                    for json in [format!("{open}{}", close.repeat(levels)), open] {
                        assert!(is(json.as_bytes(), levels - 1), "{json}");
                        assert!(may_be(json.as_bytes(), levels - 1), "{json}");
                    }
                }
            }
        }
        assert!(!may_be(br#"{"a":{},"b":{},"c":[],"d":{}}"#, 4));
    }

    #[test]
    fn brackets_in_strings_are_no_nesting() {
        let text = r#"{"a":"[[[[\"[[","b":[[]]}"#;
        assert!(!is(text.as_bytes(), 3));
        assert!(is(text.as_bytes(), 2));
    }
}
