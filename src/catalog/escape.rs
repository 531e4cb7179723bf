//! How an entry is written where commas separate several: `%2C` is `,` and `%25` is `%`.

use thiserror::Error;

/// A `%` that begins neither escape.
#[derive(Debug, Eq, Error, PartialEq)]
#[error("expected %2C for ',' or %25 for '%', found {0:?}")]
pub(crate) struct InvalidEscape(String);

/// Undoes the two escapes. Any other `%` is an error and not text, so that more escapes can come later.
pub(crate) fn unescape(entry: &str) -> Result<String, InvalidEscape> {
    let mut parts = entry.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match part.split_at_checked(2) {
            Some(("25", rest)) => ('%', rest),
            Some(("2C" | "2c", rest)) => (',', rest),
            _ => return Err(InvalidEscape(format!("%{}", part.chars().take(2).collect::<String>()))),
        };
        text.push(character);
        text.push_str(rest);
    }
    Ok(text)
}
