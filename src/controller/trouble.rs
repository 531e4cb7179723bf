//! Trouble that goes on is news once: when it begins, when it becomes another one, and when it is over.

use std::fmt::Display;
use tracing::{info, warn};

/// What stands in the way of something that is tried again and again.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What cannot be done: `watch the webhook configuration`.
    what: &'static str,
    now: Option<String>,
}

impl Trouble {
    /// None yet.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, now: None }
    }

    /// It failed, for this reason.
    pub(super) fn is(&mut self, why: &impl Display) {
        let why = Some(why.to_string());
        if self.now != why {
            warn!(why, "cannot {}; trying again", self.what);
            self.now = why;
        }
    }

    /// It worked.
    pub(super) fn over(&mut self) {
        if self.now.take().is_some() {
            info!("can {} again", self.what);
        }
    }
}
