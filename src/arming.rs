//! Arming: what the proofs rest on, and whether this process still sees it.
//!
//! ```text
//! short watch of both webhook configurations ─▶ (uid, generation) ┐
//! guarded namespaces that share the catalog ───▶ {stamp, …}       ├─▶ Epoch, one for each catalog
//! version of the rules, what counts as holder ─▶ RULES            ┘
//! ```
//! A proof is of one epoch. When a configuration was replaced (requests may have passed unseen meanwhile), or a
//! namespace whose workloads may reference the catalog joins or leaves (its references did not count for a while),
//! the epoch is another one, and every older proof is void. A namespace's *stamp* is its UID and when its guard
//! label was set, so that a label that is taken away and put back does not bring an old epoch back.
//!
//! # Why there is no timer here
//! Idle must not be written before the configurations have been seen unchanged for more than Δ, and a newly
//! guarded namespace must not count as guarded before that. Both follow: Δ is counted from when *this process*
//! first saw an entry Settling *in the current epoch*, which is never before it saw what the epoch is made of.
//!
//! # Why an epoch is a catalog's own
//! Were there one for the cluster, every namespace that is created with the guard label would void every proof in
//! it, and a cluster with preview namespaces could remove nothing. Only namespaces that a catalog is shared with
//! can hold anything of it.

use crate::catalog::Digest;
use crate::guard::RollbackTargets;
use crate::policy::{CurrentEpoch, Unread};
use crate::sharing::Sharing;
use crate::usage::Epoch;
use std::collections::BTreeMap;
use std::time::Duration;

/// Counts up whenever what a proof means changes, so that replicas of two versions do not trust each other's.
const RULES: &str = "2";

/// The same where rollback targets hold: a proof that did not ask for them is none there.
const RULES_WITH_TARGETS: &str = "2 with rollback targets";

/// The longest that the configurations may not have been read anew before no removal passes any more. They are
/// listed every [`RELIST`] at the latest, so this allows for one failed attempt and a slow one.
pub const STALE: Duration = Duration::from_secs(60);

/// How long one watch of the configurations lasts before they are listed again.
pub const RELIST: Duration = Duration::from_secs(20);

/// One webhook configuration, as far as proofs rest on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Configuration {
    /// Another one after it was deleted and created again.
    pub uid: String,
    /// Another one after its spec was changed.
    pub generation: i64,
    /// Why it does not protect what it should, if it does not: nothing is proven by what it lets pass.
    pub defect: Option<String>,
    /// The same of what no proof rests on: servers and namespaces that go.
    pub gap: Option<String>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Webhooks {
    /// The MutatingWebhookConfiguration.
    Mutating,
    /// The ValidatingWebhookConfiguration.
    Validating,
}

/// Guarded namespaces by name, each with its stamp.
pub type Stamps = BTreeMap<Box<str>, Box<str>>;

/// What this process sees of what proofs rest on.
#[derive(Clone, Debug, Default)]
pub struct Arming {
    rollback_targets: RollbackTargets,
    mutating: Seen,
    validating: Seen,
    /// The guarded namespaces with their stamps; `None` until they have been listed, and while they cannot be watched.
    namespaces: Option<Stamps>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// When it was last read, present or not; `None` before the first time.
    read: Option<Duration>,
    configuration: Option<Configuration>,
}

impl Arming {
    /// Nothing was seen yet; proofs treat rollback targets like this.
    pub fn new(rollback_targets: RollbackTargets) -> Self {
        Self { rollback_targets, ..Self::default() }
    }

    /// The same, were rollback targets treated like this.
    #[must_use]
    pub fn under(self, rollback_targets: RollbackTargets) -> Self {
        Self { rollback_targets, ..self }
    }

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

    /// The guarded namespaces, or that they are not known now. Says whether that is news.
    pub fn namespaces(&mut self, guarded: Option<Stamps>) -> bool {
        let news = self.namespaces != guarded;
        self.namespaces = guarded;
        news
    }

    /// Whether everything was read once: what a replica must have seen before it can be of use.
    pub fn is_informed(&self) -> bool {
        self.mutating.read.is_some() && self.validating.read.is_some() && self.namespaces.is_some()
    }

    /// The configurations that were read and are not as they should be: what is wrong, or `None` where one is missing.
    pub fn defects(&self) -> impl Iterator<Item = (Webhooks, Option<&str>)> {
        let seen = [(Webhooks::Mutating, &self.mutating), (Webhooks::Validating, &self.validating)];
        let read = seen.into_iter().filter(|(_, seen)| seen.read.is_some());
        read.filter_map(|(which, seen)| match &seen.configuration {
            None => Some((which, None)),
            Some(found) => Some((which, Some(found.defect.as_deref().or(found.gap.as_deref())?))),
        })
    }

    /// The epoch at `now` of a catalog that is shared so.
    ///
    /// # Errors
    /// [`Unread`] says what is not known, or no longer.
    pub fn epoch(&self, sharing: &Sharing, now: Duration) -> CurrentEpoch {
        let guarded = self.namespaces.as_ref();
        let guarded = guarded.ok_or_else(|| Unread::new("the guarded namespaces", "they cannot be watched now"))?;
        self.epoch_among(guarded.iter().map(|(name, stamp)| (&**name, &**stamp)), sharing, now)
    }

    /// The same, were these the guarded namespaces, sorted by name.
    ///
    /// # Errors
    /// [`Unread`] says what is not known, or no longer.
    pub fn epoch_among<'a>(
        &self,
        guarded: impl Iterator<Item = (&'a str, &'a str)>,
        sharing: &Sharing,
        now: Duration,
    ) -> CurrentEpoch {
        let mutating = self.mutating.current(Webhooks::Mutating, now)?;
        let validating = self.validating.current(Webhooks::Validating, now)?;
        let generations = [mutating, validating].map(|seen| format!("{} {}", seen.uid, seen.generation));
        let namespaces = guarded.filter(|(name, _)| sharing.includes(name)).flat_map(|(name, stamp)| [name, stamp]);
        let rules = if self.rollback_targets.hold() { RULES_WITH_TARGETS } else { RULES };
        let parts = std::iter::once(rules).chain(generations.iter().map(String::as_str)).chain(namespaces);
        Ok(Epoch::new(&Digest::of_parts(parts.map(str::as_bytes)).short(16)))
    }
}

impl Webhooks {
    /// The kind of the configuration.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        }
    }
}

impl Seen {
    fn current(&self, which: Webhooks, now: Duration) -> Result<&Configuration, Unread> {
        let what = which.kind();
        let read = self.read.ok_or_else(|| Unread::new(format!("modelguard's {what}"), "not read yet"))?;
        if now.saturating_sub(read) > STALE {
            let age = now.saturating_sub(read).as_secs();
            return Err(Unread::new(format!("modelguard's {what}"), format_args!("last read {age} s ago")));
        }
        let found = self.configuration.as_ref();
        let found = found.ok_or_else(|| Unread::new(format!("modelguard's {what}"), "it does not exist"))?;
        match &found.defect {
            None => Ok(found),
            Some(defect) => Err(Unread::new(format!("modelguard's {what}"), defect)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn configuration(uid: &str, generation: i64) -> Option<Configuration> {
        Some(Configuration { uid: uid.to_owned(), generation, defect: None, gap: None })
    }

    fn stamps(namespaces: &[(&str, &str)]) -> Option<Stamps> {
        Some(namespaces.iter().map(|(name, stamp)| ((*name).into(), (*stamp).into())).collect())
    }

    fn armed() -> Arming {
        let mut arming = Arming::default();
        arming.configuration(Webhooks::Mutating, configuration("m", 1), S(1));
        arming.configuration(Webhooks::Validating, configuration("v", 1), S(1));
        arming.namespaces(stamps(&[("a", "1")]));
        arming
    }

    fn shared(with: &str) -> Sharing {
        Sharing::new("a", Some(with))
    }

    fn epoch(arming: &Arming, now: Duration) -> CurrentEpoch {
        arming.epoch(&shared("b"), now)
    }

    #[test]
    fn nothing_is_known_before_everything_was_read() {
        let mut arming = Arming::default();
        assert_eq!(epoch(&arming, S(1)).unwrap_err().what, "the guarded namespaces");
        arming.namespaces(stamps(&[]));
        assert_eq!(epoch(&arming, S(1)).unwrap_err().why, "not read yet");
        arming.configuration(Webhooks::Mutating, configuration("m", 1), S(1));
        assert!(!arming.is_informed());
        arming.configuration(Webhooks::Validating, configuration("v", 1), S(1));
        assert!(arming.is_informed() && epoch(&arming, S(1)).is_ok());
        arming.namespaces(None);
        assert_eq!(epoch(&arming, S(1)).unwrap_err().what, "the guarded namespaces");
    }

    #[test]
    fn whatever_a_proof_rests_on_makes_another_epoch() {
        let before = epoch(&armed(), S(1)).unwrap();
        let changes: [fn(&mut Arming); 5] = [
            |arming| assert!(arming.configuration(Webhooks::Mutating, configuration("m", 2), S(1))),
            |arming| assert!(arming.configuration(Webhooks::Validating, configuration("w", 1), S(1))),
            |arming| assert!(arming.namespaces(stamps(&[("a", "1"), ("b", "1")]))),
            |arming| assert!(arming.namespaces(stamps(&[]))),
            // The label was taken away, and put back later.
            |arming| assert!(arming.namespaces(stamps(&[("a", "2")]))),
        ];
        for change in changes {
            let mut arming = armed();
            change(&mut arming);
            assert_ne!(epoch(&arming, S(1)).unwrap(), before);
        }
        let mut same = armed();
        assert!(!same.configuration(Webhooks::Mutating, configuration("m", 1), S(9)));
        assert_eq!(epoch(&same, S(9)).unwrap(), before);
    }

    #[test]
    fn a_proof_that_did_not_ask_for_rollback_targets_is_none_where_these_hold() {
        let under = |rollback_targets| epoch(&armed().under(rollback_targets), S(1)).unwrap();
        assert_ne!(under(RollbackTargets::Hold), under(RollbackTargets::Warn));
        assert_eq!(under(RollbackTargets::Ignore), under(RollbackTargets::Warn), "neither asks");
    }

    #[test]
    fn a_namespace_that_a_catalog_is_not_shared_with_changes_nothing() {
        let before = epoch(&armed(), S(1)).unwrap();
        let mut arming = armed();
        arming.namespaces(stamps(&[("a", "1"), ("preview-4711", "1")]));
        assert_eq!(epoch(&arming, S(1)).unwrap(), before);
        assert_ne!(arming.epoch(&shared("*"), S(1)), armed().epoch(&shared("*"), S(1)));
    }

    #[test]
    fn a_configuration_that_is_gone_not_read_lately_or_defective_leaves_no_epoch() {
        let mut arming = armed();
        assert!(epoch(&arming, S(1) + STALE).is_ok());
        assert_eq!(epoch(&arming, S(2) + STALE).unwrap_err().why, "last read 61 s ago");
        let defect = Some("catalog.modelguard.dev fails open".to_owned());
        let open = Configuration { defect, ..configuration("v", 2).unwrap() };
        arming.configuration(Webhooks::Validating, Some(open), S(2));
        assert_eq!(epoch(&arming, S(2)).unwrap_err().why, "catalog.modelguard.dev fails open");
        let gap = Some("it lacks scale.modelguard.dev".to_owned());
        arming.configuration(Webhooks::Validating, Some(Configuration { gap, ..configuration("v", 2).unwrap() }), S(2));
        assert!(epoch(&arming, S(2)).is_ok(), "no proof rests on it");
        arming.configuration(Webhooks::Validating, None, S(2));
        assert_eq!(epoch(&arming, S(2)).unwrap_err().why, "it does not exist");
    }
}
