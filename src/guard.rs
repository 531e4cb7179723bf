//! The guard: how strict modelguard is. There is the built-in one, which is set by flags and holds for everything.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// How strict modelguard is with what it guards.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Guard {
    /// What becomes of a change that takes away an entry in use.
    pub while_in_use: WhileInUse,
    /// What becomes of a removal of what only a rollback would need.
    pub rollback_targets: RollbackTargets,
    /// Whether a reference is admitted only where a ready server serves its entry.
    pub require_served: bool,
    /// Whether an entry that holders need and that is gone is put back from the prior revision.
    pub heal: bool,
}

/// What becomes of a change that takes away an entry which is not proven Idle.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WhileInUse {
    /// It is denied.
    #[default]
    Deny,
    /// It is denied so that the client holds it and asks again, while only pods of an older template use the entry.
    Wait,
    /// An UPDATE is allowed, and what it removes stays until nobody needs it. Anything else is denied.
    Defer,
    /// It is allowed, with a warning for the user.
    Warn,
    /// It is allowed, and recorded.
    Audit,
}

/// What an old ReplicaSet at zero counts for, which its Deployment or Rollout keeps within its revision history.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RollbackTargets {
    /// Removing what it needs is allowed, with a warning for the user.
    #[default]
    Warn,
    /// It holds what it needs, as any other holder does.
    Hold,
    /// Nothing.
    Ignore,
}

/// A text that names no [`WhileInUse`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("expected deny, wait, defer, warn or audit")]
pub struct UnknownStrictness;

/// A text that names no [`RollbackTargets`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("expected warn, hold or ignore")]
pub struct UnknownTreatment;

// === impl Guard ===

impl Guard {
    /// Whether what an UPDATE removes stays until nobody needs it.
    pub fn defers(self) -> bool {
        self.while_in_use == WhileInUse::Defer
    }

    /// Whether what holders lack is put back: not where the guard lets it be taken away, or it would come and go for ever.
    pub fn heals(self) -> bool {
        self.heal && !matches!(self.while_in_use, WhileInUse::Warn | WhileInUse::Audit)
    }
}

// === impl WhileInUse ===

impl WhileInUse {
    /// Every one, the strictest first.
    pub const ALL: [Self; 5] = [Self::Deny, Self::Wait, Self::Defer, Self::Warn, Self::Audit];

    /// As guards and decision records write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Wait => "Wait",
            Self::Defer => "Defer",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

impl fmt::Display for WhileInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for WhileInUse {
    type Err = UnknownStrictness;

    /// Reads it in any case: a flag is typed as `deny`, a guard says `Deny`.
    fn from_str(text: &str) -> Result<Self, UnknownStrictness> {
        Self::ALL.into_iter().find(|it| it.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownStrictness)
    }
}

// === impl RollbackTargets ===

impl RollbackTargets {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Warn, Self::Hold, Self::Ignore];

    /// As guards write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "Warn",
            Self::Hold => "Hold",
            Self::Ignore => "Ignore",
        }
    }

    /// Whether they are holders.
    pub fn hold(self) -> bool {
        self == Self::Hold
    }
}

impl fmt::Display for RollbackTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RollbackTargets {
    type Err = UnknownTreatment;

    /// Reads it in any case, as [`WhileInUse`] is read.
    fn from_str(text: &str) -> Result<Self, UnknownTreatment> {
        Self::ALL.into_iter().find(|it| it.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownTreatment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_lets_entries_be_taken_away_does_not_put_them_back() {
        let healing = |while_in_use| Guard { while_in_use, heal: true, ..Guard::default() }.heals();
        let healed: Vec<_> = WhileInUse::ALL.into_iter().filter(|one| healing(*one)).collect();
        assert_eq!(healed, [WhileInUse::Deny, WhileInUse::Wait, WhileInUse::Defer]);
        assert!(!Guard::default().heals(), "not unless it is asked for");
    }

    #[test]
    fn every_strictness_is_read_as_it_is_written_and_as_it_is_typed() {
        for one in WhileInUse::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
            assert_eq!(one.to_string().to_lowercase().parse(), Ok(one));
        }
        assert_eq!("enforce".parse::<WhileInUse>(), Err(UnknownStrictness));
    }

    #[test]
    fn every_treatment_of_rollback_targets_is_read_as_it_is_written_and_as_it_is_typed() {
        for one in RollbackTargets::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
            assert_eq!(one.to_string().to_lowercase().parse(), Ok(one));
        }
        assert_eq!("deny".parse::<RollbackTargets>(), Err(UnknownTreatment));
    }
}
