//! One string of a JSON object, without reading the rest of it: of what may break, or be nested too deep, anywhere else.

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// The string at `path`, whatever may follow it.
pub(crate) fn seek(body: &[u8], path: &[&'static str]) -> Option<String> {
    let mut found = None;
    let mut parser = serde_json::Deserializer::from_slice(body);
    // The error is how the walk ends; whether the string was met before it is all that counts.
    let _ = Seek { path, found: &mut found }.deserialize(&mut parser);
    found
}

/// Walks down `path` through objects, and stops at the string at its end.
struct Seek<'p> {
    path: &'p [&'static str],
    found: &'p mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(String::deserialize(deserializer)?);
            return Err(D::Error::custom("found"));
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == self.path[0] {
                map.next_value_seed(Seek { path: &self.path[1..], found: &mut *self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
