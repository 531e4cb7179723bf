//! Break-glass: whoever has the permission may pass the rules for an hour at most, and says why. MG502.
//!
//! ```text
//! modelguard.dev/break-glass: 2026-11-23T14:30:00Z the canary is on fire, INC-4711
//!                             until when           why
//! ```
//! It stands on the object itself. A DELETE, or a change of scale, goes by what the stored object says beforehand.
//! The permission (verb `override` on `releaseguards.modelguard.dev`) is asked for at each request, of whoever makes
//! it. To *set* the annotation takes it as well: or else anybody could leave it for a controller that may do anything.

use super::message;
use super::{Cause, Code, Decision, Denial, Facts, Terms, Unread};
use crate::names;
use jiff::{SignedDuration, Timestamp};

/// How far ahead it may be.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// The longest reason, in bytes: it is written into every record of what passes.
const LONGEST_REASON: usize = 1024;

/// What an object says of break-glass, as one request sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BreakGlass {
    /// The annotation that counts for the request.
    text: Option<Box<str>>,
    /// The request itself sets it.
    is_new: bool,
}

/// Until when the rules may be passed, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Until when.
    pub until: Timestamp,
    /// Why, in somebody's own words.
    pub reason: String,
}

/// What the annotation comes to.
enum Reading {
    Nothing,
    /// It is over since then.
    Over(Timestamp),
    Grant(Grant),
    /// Why it grants nothing.
    Refused(String),
}

// === impl BreakGlass ===

impl BreakGlass {
    /// Of a request that leaves an object with the annotation `wanted`, where `stored` was.
    pub(crate) fn wanted(stored: Option<&str>, wanted: Option<&str>) -> Self {
        Self { text: wanted.map(Into::into), is_new: wanted != stored }
    }

    /// Of a request that does not bring the object.
    pub(crate) fn stored(stored: Option<&str>) -> Self {
        Self { text: stored.map(Into::into), is_new: false }
    }

    /// Whether it lets whoever has the permission pass the rules.
    pub(crate) fn grants(&self, now: Timestamp) -> bool {
        matches!(self.read(now), Reading::Grant(_))
    }

    fn read(&self, now: Timestamp) -> Reading {
        let Some(text) = &self.text else { return Reading::Nothing };
        let text = text.trim();
        let (until, reason) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let Ok(until) = until.parse::<Timestamp>() else {
            return Reading::Refused(format!("expected a time such as {} and a reason, found {text:?}", example(now)));
        };
        let reason = reason.trim();
        if until <= now {
            Reading::Over(until)
        } else if until.duration_since(now) > LONGEST {
            Reading::Refused(format!("it is until {until}, and one hour ahead is the most"))
        } else if reason.is_empty() {
            Reading::Refused("expected a reason behind the time, found none".to_owned())
        } else if reason.len() > LONGEST_REASON {
            Reading::Refused(format!("the reason is longer than {LONGEST_REASON} bytes"))
        } else {
            Reading::Grant(Grant { until, reason: reason.to_owned() })
        }
    }
}

/// A time that would do.
fn example(now: Timestamp) -> Timestamp {
    let half_an_hour = SignedDuration::from_mins(30);
    now.checked_add(half_an_hour).unwrap_or(now).round(jiff::Unit::Minute).unwrap_or(now)
}

// === the rule ===

/// What becomes of `decision` about `subject` when its object says `said`.
pub(super) fn judge(decision: Decision, said: &BreakGlass, subject: &str, facts: &Facts, terms: &Terms) -> Decision {
    let matters = said.is_new || !decision.allowed();
    let refused = match (said.read(terms.now), &facts.may_override) {
        (Reading::Nothing, _) => return decision,
        (Reading::Over(until), _) => return over(decision, until, said.is_new),
        (Reading::Grant(grant), Some(Ok(true))) => return pass(decision, grant),
        (Reading::Refused(why), _) => denied(subject, &why, decision.denial.as_ref()),
        (Reading::Grant(_), Some(Ok(false))) => {
            let why = "it takes the permission to override releaseguards.modelguard.dev in this namespace, which the \
                       requester does not have";
            denied(subject, why, decision.denial.as_ref())
        }
        (Reading::Grant(_), Some(Err(unread))) => message::unverified(subject, unread),
        (Reading::Grant(_), None) => message::unverified(subject, &Unread::new("the permission", "was not asked for")),
    };
    if matters { Decision { facts: decision.facts, ..refused.into() } } else { decision }
}

/// Says that it is over, to whoever may have counted on it.
fn over(mut decision: Decision, until: Timestamp, is_new: bool) -> Decision {
    let told = format!("The annotation {} grants nothing any more: it was until {until}.", names::BREAK_GLASS);
    match &mut decision.denial {
        Some(denial) if denial.message.chars().count() + told.len() < message::LONGEST => {
            denial.message = format!("{} {told}", denial.message);
        }
        None if is_new => decision.warnings.push(told),
        Some(_) | None => {}
    }
    decision
}

/// Lets it pass; what a reference must write before is still written.
fn pass(decision: Decision, grant: Grant) -> Decision {
    let Some(denial) = decision.denial else { return decision };
    let what = denial.message.lines().next().unwrap_or_default();
    let warning = format!("break-glass until {} lets pass what modelguard denies: {what}", grant.until);
    Decision {
        denial: None,
        overlooked: Some(denial),
        granted: Some(grant),
        warnings: vec![warning],
        settle: Default::default(),
        ..decision
    }
}

/// MG502: `why` it grants nothing, and what it was wanted for.
fn denied(subject: &str, why: &str, denial: Option<&Denial>) -> Denial {
    let wanted_for = denial.and_then(|denial| denial.message.lines().next());
    let wanted_for = wanted_for.map(|line| format!(" It was to pass: {line}")).unwrap_or_default();
    let what = format!("the annotation {} grants nothing: {why}.{wanted_for}", names::BREAK_GLASS);
    let next = "Correct it or take it away; an admin grants the permission by binding the chart's ClusterRole \
                modelguard-override in this namespace.";
    let causes =
        vec![Cause { field: format!("metadata.annotations[{}]", names::BREAK_GLASS), message: why.to_owned() }];
    message::denial(Code::OverrideDenied, Code::OverrideDenied.status(), subject, &what, next, causes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guard;
    use crate::usage::Epoch;

    const NOW: &str = "2026-11-23T14:00:00Z";
    const SOON: &str = "2026-11-23T14:30:00Z on fire";

    fn terms() -> Terms {
        Terms { epoch: Ok(Epoch::default()), guard: Guard::default(), now: NOW.parse().unwrap() }
    }

    fn denied_by_a_rule() -> Decision {
        let denial = message::denial(Code::EntryInUse, 403, "models", "entry v1 is in use.", "Wait.", Vec::new());
        Decision { settle: Default::default(), ..denial.into() }
    }

    /// What comes of a decision: allowed, or code and status; the grant that was used.
    fn judged(decision: Decision, said: &BreakGlass, may: Option<Result<bool, Unread>>) -> String {
        let facts = Facts { may_override: may, ..Facts::default() };
        let decision = judge(decision, said, "models", &facts, &terms());
        match (&decision.denial, &decision.granted) {
            (Some(denial), None) => format!("{} {}", denial.code, denial.status),
            (None, Some(grant)) => format!("granted until {} for {}", grant.until, grant.reason),
            (None, None) => "allowed".to_owned(),
            (Some(_), Some(_)) => "granted and yet denied".to_owned(),
        }
    }

    #[test]
    fn what_is_denied_passes_for_whoever_may_while_it_is_time() {
        let unread = || Some(Err(Unread::new("the permission", "no answer")));
        for (said, may, expected) in [
            (SOON, Some(Ok(true)), "granted until 2026-11-23T14:30:00Z for on fire"),
            ("2026-11-23T15:30:00+01:00   on fire ", Some(Ok(true)), "granted until 2026-11-23T14:30:00Z for on fire"),
            (SOON, Some(Ok(false)), "MG502 403"),
            (SOON, unread(), "MG501 503"),
            (SOON, None, "MG501 503"),
            ("2026-11-23T13:59:59Z on fire", Some(Ok(true)), "MG101 403"),
            ("2026-11-23T14:00:00Z on fire", Some(Ok(true)), "MG101 403"),
            ("2026-11-23T15:00:00Z on fire", Some(Ok(true)), "granted until 2026-11-23T15:00:00Z for on fire"),
            ("2026-11-23T15:00:01Z on fire", Some(Ok(true)), "MG502 403"),
            ("2026-11-23T14:30:00Z", Some(Ok(true)), "MG502 403"),
            ("soon, on fire", Some(Ok(true)), "MG502 403"),
            (&format!("2026-11-23T14:30:00Z {}", "x".repeat(1025)), Some(Ok(true)), "MG502 403"),
            ("", Some(Ok(true)), "MG502 403"),
        ] {
            let stored = BreakGlass::stored(Some(said));
            assert_eq!(judged(denied_by_a_rule(), &stored, may), expected, "{said}");
        }
    }

    #[test]
    fn to_set_it_takes_the_permission_and_to_keep_it_does_not() {
        let set = BreakGlass::wanted(None, Some(SOON));
        let kept = BreakGlass::wanted(Some(SOON), Some(SOON));
        let removed = BreakGlass::wanted(Some(SOON), None);
        for (said, may, expected) in [
            (&set, Some(Ok(true)), "allowed"),
            (&set, Some(Ok(false)), "MG502 403"),
            (&kept, Some(Ok(false)), "allowed"),
            (&removed, Some(Ok(false)), "allowed"),
            (&BreakGlass::wanted(None, Some("soon")), Some(Ok(true)), "MG502 403"),
            (&BreakGlass::wanted(None, Some("2020-01-01T00:00:00Z past")), None, "allowed"),
        ] {
            assert_eq!(judged(Decision::default(), said, may), expected, "{said:?}");
        }
        assert_eq!(judged(denied_by_a_rule(), &removed, Some(Ok(true))), "MG101 403");
    }

    #[test]
    fn the_permission_is_asked_for_only_where_it_would_count() {
        let now = terms().now;
        for (text, asks) in [(SOON, true), ("2026-11-23T13:00:00Z past", false), ("2026-11-24T14:00:00Z far", false)] {
            assert_eq!(BreakGlass::stored(Some(text)).grants(now), asks, "{text}");
        }
        assert!(!BreakGlass::default().grants(now));
    }

    #[test]
    fn messages_say_what_was_wanted_and_what_was_passed() {
        let may = |may| Facts { may_override: Some(Ok(may)), ..Facts::default() };
        let said = BreakGlass::stored(Some(SOON));
        let refused = judge(denied_by_a_rule(), &said, "models", &may(false), &terms()).denial.unwrap();
        assert_eq!(
            refused.message,
            "[MG502] models: the annotation modelguard.dev/break-glass grants nothing: it takes the permission to override \
             releaseguards.modelguard.dev in this namespace, which the requester does not have. It was to pass: [MG101] models: \
             entry v1 is in use.\nCorrect it or take it away; an admin grants the permission by binding the chart's ClusterRole \
             modelguard-override in this namespace."
        );
        let passed = judge(denied_by_a_rule(), &said, "models", &may(true), &terms());
        let warning = "break-glass until 2026-11-23T14:30:00Z lets pass what modelguard denies: [MG101] models: entry v1 \
                       is in use.";
        assert_eq!(passed.warnings, [warning]);
        let told =
            "The annotation modelguard.dev/break-glass grants nothing any more: it was until 2026-11-23T13:00:00Z.";
        let past = "2026-11-23T13:00:00Z on fire";
        let late = judge(denied_by_a_rule(), &BreakGlass::stored(Some(past)), "models", &may(true), &terms());
        assert_eq!(late.denial.unwrap().message, format!("[MG101] models: entry v1 is in use.\nWait. {told}"));
        let set = BreakGlass::wanted(None, Some(past));
        assert_eq!(judge(Decision::default(), &set, "models", &Facts::default(), &terms()).warnings, [told]);
        let unclear = BreakGlass::stored(Some("soon"));
        let refused = judge(denied_by_a_rule(), &unclear, "models", &may(true), &terms()).denial.unwrap();
        assert_eq!(
            refused.causes[1].message,
            "expected a time such as 2026-11-23T14:30:00Z and a reason, found \"soon\""
        );
    }
}
