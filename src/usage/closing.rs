//! Closing: the proof that a namespace may go, carried by each catalog that it shares with others.
//!
//! ```text
//!        DELETE of the namespace      waited > Δ, and a live LIST finds nobody      not deleted after all,
//!        is asked for                 of another namespace who needs it             or another epoch
//!   none ──────────────▶ Closing ─────────────────────────▶ Closed ──────────────────────▶ Reopening ──┐
//!    ▲                      │ somebody elsewhere needs it                                              │
//!    └──────────────────────┴──────────────────────────────────── waited > Δ ──────────────────────────┘
//! ```
//! * A reference from another namespace is denied while there is a mark, whatever its phase or epoch; what read the
//!   ConfigMap before the mark was there is committed within Δ, and so is met by the LIST.
//! * The DELETE passes while all are Closed, in the current epoch. Unlike the removal of an entry it is not compared
//!   with the ConfigMap when it is committed, so that a mark may not just be taken away again: what was judged while it
//!   was Closed is committed within Δ of Reopening.
//!
//! As in [`super`], every write is a compare-and-swap, and everything here is pure.

use super::{Epoch, SettlingId, TICK, Usage};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a catalog stays Closed for a DELETE that does not come: several times what a client is told to wait.
const KEPT: Duration = Duration::from_secs(120);

/// The mark of a catalog whose namespace is to go.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    epoch: Epoch,
    /// Another one in each phase, so that its timer is the phase's own.
    id: SettlingId,
    phase: Phase,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Closing,
    Closed,
    Reopening,
}

/// When the mark of one model ConfigMap was first seen as it is.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Closer {
    seen: Option<(SettlingId, Duration)>,
}

/// What is to be done with a mark.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Nothing before this instant.
    Wait(Duration),
    /// It becomes this.
    Becomes(Option<Closing>),
    /// It has waited: LIST every kind of holder, then [`Usage::concluded`].
    Due(SettlingId),
}

// === impl Usage ===

impl Usage {
    /// Whether no other namespace may reference the catalog now, because its own is to go.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether it is proven, in `epoch`, that no other namespace needs the catalog, and that none will.
    pub fn is_closed(&self, epoch: &Epoch) -> bool {
        self.closing.as_ref().is_some_and(|it| it.phase == Phase::Closed && it.epoch == *epoch)
    }

    /// The same with the proof begun in `epoch`, where there is no mark.
    ///
    /// One of whatever phase must run its course first: what was judged while it was Closed may still be on its way.
    #[must_use]
    pub fn close(&self, epoch: &Epoch, id: SettlingId) -> Self {
        let begun = || Closing { epoch: epoch.clone(), id, phase: Phase::Closing };
        Self { closing: Some(self.closing.clone().unwrap_or_else(begun)), ..self.clone() }
    }

    /// What a LIST makes of the Closing `due`: Closed, or nothing where somebody elsewhere needs the catalog.
    #[must_use]
    pub fn concluded(&self, due: &SettlingId, is_needed: bool, id: SettlingId) -> Self {
        let closing = match &self.closing {
            Some(it) if it.phase == Phase::Closing && it.id == *due => {
                (!is_needed).then(|| Closing { id, phase: Phase::Closed, ..it.clone() })
            }
            other => other.clone(),
        };
        Self { closing, ..self.clone() }
    }
}

// === impl Closer ===

impl Closer {
    /// Says what to do with a mark. `is_needed` says whether another namespace is known to need the catalog.
    pub(super) fn next(
        &mut self,
        closing: &Closing,
        is_needed: Option<bool>,
        epoch: &Epoch,
        settle: Duration,
        now: Duration,
        id: impl FnOnce() -> SettlingId,
    ) -> Next {
        let since = self.since(closing, now);
        let is_current = closing.epoch == *epoch;
        match closing.phase {
            Phase::Closing if !is_current || is_needed == Some(true) => Next::Becomes(None),
            Phase::Closing if now > since + settle && is_needed.is_some() => Next::Due(closing.id.clone()),
            Phase::Closed if !is_current || is_needed == Some(true) || now > since + KEPT => {
                Next::Becomes(Some(Closing { id: id(), phase: Phase::Reopening, ..closing.clone() }))
            }
            Phase::Closed => Next::Wait(since + KEPT + TICK),
            Phase::Reopening if now > since + settle => Next::Becomes(None),
            Phase::Closing | Phase::Reopening => Next::Wait(since + settle + TICK),
        }
    }

    /// Forgets a mark that is gone.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    /// How much of Δ is left of `closing`; the whole of it where it has not been seen yet, or has to begin first.
    pub(super) fn remaining(&self, closing: &Closing, settle: Duration, now: Duration) -> Duration {
        let seen = self.seen.as_ref().filter(|(id, _)| *id == closing.id);
        let left = seen.map_or(settle, |(_, since)| (*since + settle).saturating_sub(now));
        match closing.phase {
            Phase::Closing => left,
            Phase::Closed => settle,
            Phase::Reopening => left + settle,
        }
    }

    fn since(&mut self, closing: &Closing, now: Duration) -> Duration {
        match &self.seen {
            Some((id, since)) if *id == closing.id => *since,
            _ => {
                self.seen = Some((closing.id.clone(), now));
                now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn epoch() -> Epoch {
        Epoch::new("e1")
    }

    fn id(text: &str) -> SettlingId {
        SettlingId::new(text)
    }

    fn closing() -> Usage {
        Usage::default().close(&epoch(), id("a"))
    }

    fn next(closer: &mut Closer, usage: &Usage, is_needed: Option<bool>, now: Duration) -> Next {
        closer.next(usage.closing.as_ref().unwrap(), is_needed, &epoch(), SETTLE, now, || id("z"))
    }

    fn becomes(usage: &Usage, next: Next) -> Usage {
        match next {
            Next::Becomes(closing) => Usage { closing, ..usage.clone() },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_proven_after_more_than_settle_and_a_list() {
        let (mut closer, usage) = (Closer::default(), closing());
        assert!(usage.is_closing() && !usage.is_closed(&epoch()));
        assert_eq!(next(&mut closer, &usage, Some(false), at(5)), Next::Wait(at(65) + TICK));
        assert_eq!(closer.remaining(usage.closing.as_ref().unwrap(), SETTLE, at(25)), at(40));
        assert_eq!(next(&mut closer, &usage, Some(false), at(65)), Next::Wait(at(65) + TICK), "not more than Δ");
        assert_eq!(next(&mut closer, &usage, None, at(66)), Next::Wait(at(65) + TICK), "nobody knows who needs it");
        assert_eq!(next(&mut closer, &usage, Some(false), at(66)), Next::Due(id("a")));
        let closed = usage.concluded(&id("a"), false, id("b"));
        assert!(closed.is_closed(&epoch()) && closed.is_closing());
        assert!(!closed.is_closed(&Epoch::new("e2")));
        assert_eq!(usage.concluded(&id("other"), false, id("b")), usage, "another Closing was waited for");
    }

    #[test]
    fn it_ends_at_once_while_nothing_can_have_passed() {
        let usage = closing();
        assert!(!usage.concluded(&id("a"), true, id("b")).is_closing());
        let ended = becomes(&usage, next(&mut Closer::default(), &usage, Some(true), at(0)));
        assert!(!ended.is_closing());
        let other = usage.closing.as_ref().unwrap();
        let next = Closer::default().next(other, Some(false), &Epoch::new("e2"), SETTLE, at(0), || id("z"));
        assert_eq!(next, Next::Becomes(None));
    }

    #[test]
    fn what_was_closed_reopens_after_more_than_settle() {
        let closed = closing().concluded(&id("a"), false, id("b"));
        let mut closer = Closer::default();
        assert_eq!(next(&mut closer, &closed, Some(false), at(0)), Next::Wait(KEPT + TICK));
        let reopening = becomes(&closed, next(&mut closer, &closed, Some(false), KEPT + at(1)));
        assert!(reopening.is_closing() && !reopening.is_closed(&epoch()));
        assert_eq!(next(&mut closer, &reopening, Some(false), at(200)), Next::Wait(at(260) + TICK));
        assert!(!becomes(&reopening, next(&mut closer, &reopening, None, at(261))).is_closing());
        let other_epoch =
            closer.next(closed.closing.as_ref().unwrap(), Some(false), &Epoch::new("e2"), SETTLE, at(300), || id("z"));
        assert!(becomes(&closed, other_epoch).is_closing(), "what was judged by the old epoch is on its way");
    }

    #[test]
    fn what_is_under_way_runs_its_course() {
        let usage = closing();
        let closed = usage.concluded(&id("a"), false, id("b"));
        let reopening = becomes(&closed, next(&mut Closer::default(), &closed, Some(true), at(0)));
        for usage in [usage, closed, reopening] {
            for epoch in [epoch(), Epoch::new("e2")] {
                assert_eq!(usage.close(&epoch, id("c")), usage);
            }
        }
    }

    #[test]
    fn the_mark_is_in_the_annotation_and_survives_what_happens_to_entries() {
        let usage = closing();
        let text = usage.render().unwrap();
        assert_eq!(text, r#"{"closing":{"epoch":"e1","id":"a","phase":"closing"},"epoch":""}"#);
        assert_eq!(Usage::parse(Some(&text)), usage);
        assert!(Usage::parse(Some(r#"{"closing":{"epoch":"e1","id":"a","phase":"gone"},"epoch":"e1"}"#)).is_empty());
        let entry = crate::catalog::EntryName::new("v1").unwrap();
        let settled = usage.settle(&Epoch::new("e2"), [&entry], super::super::Why::Quiet, || id("s"));
        assert!(settled.is_closing() && settled.marks(&entry));
        assert!(settled.without([&entry]).is_closing());
        assert!(settled.retaining(|_| false).is_closing());
    }
}
