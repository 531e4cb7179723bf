//! How much the annotation has room for.

use super::{Epoch, State, Usage};
use crate::catalog::EntryName;

/// The most that the annotation may take, in bytes: an eighth of what all annotations of an object may.
pub(super) const LARGEST: usize = 32 * 1024;

/// What an entry takes beside its name: quotes and comma; and, while it is Settling, an id with quotes and colon. An escaped
/// name takes more, and then a little room is left.
const IDLE: usize = 3;
const SETTLING: usize = 6;

/// The length of an id; and the epoch, and what stands around all entries that are Settling.
const ID: usize = 8;
const FRAME: usize = 64;

impl Usage {
    /// How many of `entries` can be Settling at once, or stay Idle in `epoch`, if no other entry is either.
    pub fn room_for<'a>(&self, entries: impl IntoIterator<Item = &'a EntryName>, epoch: &Epoch) -> usize {
        let others = self.clone().retaining(|_| false);
        let mut left = LARGEST.saturating_sub(others.render().map_or(0, |text| text.len()) + FRAME);
        let fits = |entry: &&EntryName| {
            let is_idle = self.state(entry, epoch) == State::Idle;
            let takes = entry.as_str().len() + if is_idle { IDLE } else { ID + SETTLING };
            let fits = takes <= left;
            left = left.saturating_sub(takes);
            fits
        };
        entries.into_iter().take_while(fits).count()
    }

    /// Drops `victims`, one after the other, until the annotation is small enough.
    pub(super) fn fit<'a>(&mut self, victims: impl Iterator<Item = &'a EntryName>) {
        let mut excess = self.render().map_or(0, |text| text.len().saturating_sub(LARGEST));
        for entry in victims {
            if excess == 0 {
                break;
            }
            let name = entry.as_str().len();
            let idle = if self.idle.remove(entry) { name + IDLE } else { 0 };
            let settling = self.settling.remove(entry).map_or(0, |id| name + id.0.len() + SETTLING);
            excess = excess.saturating_sub(idle + settling);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SettlingId, Why};
    use super::*;

    fn names(count: usize) -> Vec<EntryName> {
        (0..count).map(|number| EntryName::new(&format!("a-model-with-a-longer-name@{number:04}")).unwrap()).collect()
    }

    #[test]
    fn what_there_is_room_for_settles_at_once_whatever_was_settling_before() {
        let epoch = Epoch::new("0123456789abcdef");
        let id = || SettlingId::new("abcdefgh");
        let (others, wanted) = (names(300), names(2000).split_off(300));
        let before = Usage::new(epoch.clone()).settle(&epoch, &others, Why::Quiet, id);
        let room = before.room_for(&wanted, &epoch);
        assert!((700..740).contains(&room), "{room}");
        let settled = before.settle(&epoch, &wanted[..room], Why::Refused, id);
        assert_eq!(settled.settling(&epoch).filter(|(entry, _)| wanted.contains(entry)).count(), room);
        assert!(settled.render().unwrap().len() <= LARGEST);
        // Asked for again, they stay what they are.
        assert_eq!(settled.settle(&epoch, &wanted[..room], Why::Refused, id), settled);
    }
}
