//! What is kept of a ReplicaSet at zero, to which its Deployment or Rollout may go back.

use super::facts::Facts;

/// What is kept of a ReplicaSet at zero.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// Its number.
    pub(super) revision: Option<u64>,
    /// By what its Rollout knows it.
    pub(super) rollout_hash: Option<Box<str>>,
    /// When it was made.
    pub(super) created: Option<Box<str>>,
}

impl Target {
    /// That of an object which is one.
    pub(super) fn of(facts: &Facts) -> Option<Self> {
        // One that needs nothing is a link at the most.
        let target = facts.rollback_target.as_ref().filter(|_| !facts.references.is_empty())?;
        Some(Self {
            revision: target.revision,
            rollout_hash: facts.rollout_hash.clone(),
            created: facts.created.clone(),
        })
    }
}
