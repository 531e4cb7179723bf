//! Limits: what is too much, and too long.

use std::time::Duration;

/// The longest that the API server waits for a webhook: who says more wants to keep us busy.
const LONGEST: Duration = Duration::from_secs(30);

/// What is too much, and too long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections that are open at once.
    pub connections: usize,
    /// The most requests that `/validate` judges at once; one address gets less than half of them, and a large request
    /// counts as several.
    pub validate: usize,
    /// The most requests that `/mutate` judges at once, likewise.
    pub mutate: usize,
    /// The largest body, in bytes.
    pub body: usize,
    /// What all bodies together may take at once, in bytes; one body gets a third at most, those of one address less
    /// than half.
    pub bodies: usize,
    /// How long a request may take that does not say how long it waits.
    pub timeout: Duration,
    /// How much sooner than the client gives up the answer is ready, so that it arrives.
    pub margin: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Four for each slot. One was measured to take 15 to 40 kB, so this is 40 MB; 64 KiB more of each that is sent
            // what nobody reads.
            connections: 1024,
            // Two cores judge thousands a second, and others wait for their turn: more at once only means that reads
            // hang, and that each takes longer.
            validate: 128,
            mutate: 128,
            // Two ConfigMaps of 1 MiB whose every byte is escaped, and room.
            body: 16 << 20,
            // Three of the largest, or 512 KiB for each request that is judged at once. A buffer that grows takes up to
            // twice what is in it, 128 MiB then: the chart's memory limit must leave room for what is parsed, and for
            // the index.
            bodies: 64 << 20,
            // What the API server waits by default.
            timeout: Duration::from_secs(10),
            margin: Duration::from_millis(250),
        }
    }
}

// === impl Limits ===

impl Limits {
    /// How long the answer to a request with this query may take.
    ///
    /// The API server says how long it waits as `?timeout=5s`; what cannot be read counts as not said.
    pub(super) fn patience(&self, query: Option<&str>) -> Duration {
        let said = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("timeout="));
        let timeout = said.and_then(go_duration).unwrap_or(self.timeout).min(LONGEST);
        timeout.saturating_sub(self.margin).max(timeout / 2)
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `1.5s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len())];
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[digits + unit.len()..];
    }
    (!sum.is_zero()).then_some(sum)
}

/// How many slots a review of this size takes: reading a large catalog keeps a core busy, and with as many of 1 MiB at
/// once as there is memory for, others waited for up to 4.7 s. No more than 16, so that the largest still fits in beside
/// an address that takes all it can get.
pub(super) fn weight(size: usize) -> usize {
    1 + (size >> 16).min(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("5s", Some(5000)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1500)),
            ("1h0m0s", Some(3_600_000)),
            ("250000us", Some(250)),
            ("0s", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("1..5s", None),
            ("9999999999999999999999h", None),
        ] {
            assert_eq!(go_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn an_answer_is_ready_before_the_client_gives_up() {
        let limits = Limits::default();
        for (query, millis) in [
            (Some("timeout=5s"), 4750),
            (Some("a=b&timeout=2s"), 1750),
            (Some("timeout=300ms"), 150),
            (Some("timeout=soon"), 9750),
            (Some("timeout=1000h"), 29_750),
            (None, 9750),
        ] {
            assert_eq!(limits.patience(query), Duration::from_millis(millis), "{query:?}");
        }
    }
}
