//! The process's monotonic clock: the one place where time is read for decisions.

use std::time::{Duration, Instant};

/// Counts from when it was made; never runs backwards.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts counting.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }
}
