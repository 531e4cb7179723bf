//! Conditions with a timeout, instead of sleeps.

use anyhow::{Result, bail};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What every condition gets that does not say otherwise: far more than it takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(300);

const INTERVAL: Duration = Duration::from_millis(75);

/// Says that it is over when it is dropped, be it by a panic: a scope waits for its threads, and would do so for ever.
#[must_use = "it is over when it is dropped"]
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks `probe` until it answers; `Err` says what is still missing.
pub(crate) fn poll<T, E: Display>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Result<T, E>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(missing) if start.elapsed() > timeout => {
                bail!("not within {} s: {what}; last seen: {missing}", timeout.as_secs())
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

/// The same for tests: panics after [`LONG`].
#[track_caller]
pub(crate) fn until<T, E: Display>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    match poll(what, LONG, probe) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
