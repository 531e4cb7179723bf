//! Arming: what the proofs rest on, and whether this process still sees it.
//!
//! ```text
//! short watch of both webhook configurations ─▶ (uid, generation) ┐
//! guarded namespaces (index) ──────────────────▶ {uid, …}         ├─▶ Epoch
//! version of the rules ────────────────────────▶ RULES            ┘
//! ```
//! A proof is of one epoch. When a configuration was replaced (requests may have passed unseen meanwhile) or a
//! namespace joins (its references did not count so far), the epoch is another one, and every older proof is void.
//!
//! # Why there is no timer here
//! Idle must not be written before the configurations have been seen unchanged for more than Δ, and a newly
//! guarded namespace must not count as guarded before that. Both follow: Δ is counted from when *this process*
//! first saw an entry Settling *in the current epoch*, which is never before it saw what the epoch is made of.

use crate::catalog::Digest;
use crate::policy::{CurrentEpoch, Unread};
use crate::usage::Epoch;
use std::collections::BTreeSet;
use std::time::Duration;

/// Counts up whenever what a proof means changes, so that replicas of two versions do not trust each other's.
const RULES: &str = "1";

/// The longest that the configurations may not have been read anew before no removal passes any more. They are
/// listed every [`RELIST`] at the latest, so this allows for one failed attempt and a slow one.
pub const STALE: Duration = Duration::from_secs(60);

/// How long one watch of the configurations lasts before they are listed again.
pub const RELIST: Duration = Duration::from_secs(20);

/// One webhook configuration, as far as proofs rest on it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Configuration {
    /// Another one after it was deleted and created again.
    pub uid: String,
    /// Another one after its spec was changed.
    pub generation: i64,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Webhooks {
    /// The MutatingWebhookConfiguration.
    Mutating,
    /// The ValidatingWebhookConfiguration.
    Validating,
}

/// What this process sees of what proofs rest on.
#[derive(Clone, Debug, Default)]
pub struct Arming {
    mutating: Seen,
    validating: Seen,
    /// UIDs of the guarded namespaces; `None` until they have been listed.
    namespaces: Option<BTreeSet<Box<str>>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// When it was last read, present or not; `None` before the first time.
    read: Option<Duration>,
    configuration: Option<Configuration>,
}

impl Arming {
    /// A configuration was read, or its watch told of it, at `now`; `None` if there is none of that name.
    /// Says whether that is news.
    pub fn configuration(&mut self, which: Webhooks, found: Option<Configuration>, now: Duration) -> bool {
        let seen = match which {
            Webhooks::Mutating => &mut self.mutating,
            Webhooks::Validating => &mut self.validating,
        };
        let news = seen.configuration != found || seen.read.is_none();
        *seen = Seen { read: Some(now), configuration: found };
        news
    }

    /// The guarded namespaces, by UID. Says whether that is news.
    pub fn namespaces(&mut self, uids: BTreeSet<Box<str>>) -> bool {
        let uids = Some(uids);
        let news = self.namespaces != uids;
        self.namespaces = uids;
        news
    }

    /// The epoch at `now`.
    ///
    /// # Errors
    /// [`Unread`] says what is not known, or no longer.
    pub fn epoch(&self, now: Duration) -> CurrentEpoch {
        let mutating = self.mutating.current("MutatingWebhookConfiguration", now)?;
        let validating = self.validating.current("ValidatingWebhookConfiguration", now)?;
        let namespaces =
            self.namespaces.as_ref().ok_or_else(|| Unread::new("the guarded namespaces", "not listed yet"))?;
        let generations = [mutating, validating].map(|seen| format!("{} {}", seen.uid, seen.generation));
        let parts = std::iter::once(RULES).chain(generations.iter().map(String::as_str));
        let parts = parts.chain(namespaces.iter().map(AsRef::as_ref)).map(str::as_bytes);
        Ok(Epoch::new(&Digest::of_parts(parts).short(16)))
    }
}

impl Seen {
    fn current(&self, what: &str, now: Duration) -> Result<&Configuration, Unread> {
        let read = self.read.ok_or_else(|| Unread::new(format!("modelguard's {what}"), "not read yet"))?;
        if now.saturating_sub(read) > STALE {
            let age = now.saturating_sub(read).as_secs();
            return Err(Unread::new(format!("modelguard's {what}"), format_args!("last read {age} s ago")));
        }
        self.configuration.as_ref().ok_or_else(|| Unread::new(format!("modelguard's {what}"), "it does not exist"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn configuration(uid: &str, generation: i64) -> Option<Configuration> {
        Some(Configuration { uid: uid.to_owned(), generation })
    }

    fn armed() -> Arming {
        let mut arming = Arming::default();
        arming.configuration(Webhooks::Mutating, configuration("m", 1), S(1));
        arming.configuration(Webhooks::Validating, configuration("v", 1), S(1));
        arming.namespaces(BTreeSet::from(["a".into()]));
        arming
    }

    #[test]
    fn nothing_is_known_before_everything_was_read() {
        let mut arming = Arming::default();
        assert_eq!(arming.epoch(S(1)).unwrap_err().why, "not read yet");
        arming.configuration(Webhooks::Mutating, configuration("m", 1), S(1));
        arming.configuration(Webhooks::Validating, configuration("v", 1), S(1));
        assert_eq!(arming.epoch(S(1)).unwrap_err().what, "the guarded namespaces");
        arming.namespaces(BTreeSet::new());
        assert!(arming.epoch(S(1)).is_ok());
    }

    #[test]
    fn whatever_a_proof_rests_on_makes_another_epoch() {
        let epoch = armed().epoch(S(1)).unwrap();
        let changes: [fn(&mut Arming); 4] = [
            |arming| assert!(arming.configuration(Webhooks::Mutating, configuration("m", 2), S(1))),
            |arming| assert!(arming.configuration(Webhooks::Validating, configuration("w", 1), S(1))),
            |arming| assert!(arming.namespaces(BTreeSet::from(["a".into(), "b".into()]))),
            |arming| assert!(arming.namespaces(BTreeSet::new())),
        ];
        for change in changes {
            let mut arming = armed();
            change(&mut arming);
            assert_ne!(arming.epoch(S(1)).unwrap(), epoch);
        }
        let mut same = armed();
        assert!(!same.configuration(Webhooks::Mutating, configuration("m", 1), S(9)));
        assert_eq!(same.epoch(S(9)).unwrap(), epoch);
    }

    #[test]
    fn a_configuration_that_is_gone_or_was_not_read_lately_leaves_no_epoch() {
        let mut arming = armed();
        assert!(arming.epoch(S(1) + STALE).is_ok());
        assert_eq!(arming.epoch(S(2) + STALE).unwrap_err().why, "last read 61 s ago");
        arming.configuration(Webhooks::Validating, None, S(2));
        assert_eq!(arming.epoch(S(2)).unwrap_err().why, "it does not exist");
    }
}
