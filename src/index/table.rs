//! Values that many rows share, stored once, found by a small id, gone with their last user.

use hashbrown::HashTable;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::marker::PhantomData;
use std::num::NonZeroU32;

/// A table of distinct values, each with the number of its users.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// By the hash of their values, which only the rows have.
    ids: HashTable<Id<T>>,
    hasher: RandomState,
    rows: Vec<Option<T>>,
    /// Of the row of the same number.
    users: Vec<u32>,
    free: Vec<Id<T>>,
}

/// Where a value stands in its [`Table`]: four bytes, and none more in an `Option`.
pub(super) struct Id<T> {
    number: NonZeroU32,
    of: PhantomData<fn() -> T>,
}

// === impl Table ===

impl<T: Eq + Hash> Table<T> {
    /// The id of `value`, which has one user more now; says whether that is its first.
    pub(super) fn acquire(&mut self, value: T) -> (Id<T>, bool) {
        let hash = self.hasher.hash_one(&value);
        let is_it = |id: &Id<T>| self.rows[id.index()].as_ref() == Some(&value);
        if let Some(&id) = self.ids.find(hash, is_it) {
            self.users[id.index()] += 1;
            return (id, false);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            self.users.push(0);
            Id::last_of(self.rows.len())
        });
        self.rows[id.index()] = Some(value);
        self.users[id.index()] = 1;
        // What grows hashes every value again; each id in `ids` has one.
        let Self { rows, hasher, .. } = self;
        let hash_again = |id: &Id<T>| rows[id.index()].as_ref().map_or(0, |value| hasher.hash_one(value));
        self.ids.insert_unique(hash, id, hash_again);
        (id, true)
    }

    /// The value that `id` was given for, while it has a user.
    pub(super) fn get(&self, id: Id<T>) -> Option<&T> {
        self.rows.get(id.index())?.as_ref()
    }

    /// Every value with its id, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        self.ids.iter().filter_map(|&id| Some((id, self.get(id)?)))
    }

    /// Takes one user away; gives the value back if that was the last one.
    pub(super) fn release(&mut self, id: Id<T>) -> Option<T> {
        let users = self.users.get_mut(id.index())?;
        *users = users.checked_sub(1)?;
        if *users > 0 {
            return None;
        }
        let value = self.rows[id.index()].take()?;
        if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(&value), |it| *it == id) {
            entry.remove();
        }
        if self.ids.is_empty() {
            *self = Self::default();
        } else {
            self.free.push(id);
        }
        Some(value)
    }

    /// Whether no value has a user.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            ids: HashTable::new(),
            hasher: RandomState::new(),
            rows: Vec::new(),
            users: Vec::new(),
            free: Vec::new(),
        }
    }
}

// === impl Id ===

impl<T> Id<T> {
    fn new(number: NonZeroU32) -> Self {
        Self { number, of: PhantomData }
    }

    fn last_of(rows: usize) -> Self {
        let number = u32::try_from(rows).ok().and_then(NonZeroU32::new);
        Self::new(number.expect("a table has from 1 to 2^32 - 1 rows after a push"))
    }

    fn index(self) -> usize {
        self.number.get() as usize - 1
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number)
    }
}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number.cmp(&other.number)
    }
}

impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_one_row_until_the_last_user_leaves() {
        let mut table = Table::default();
        let (first, new) = table.acquire("a".to_owned());
        assert!(new);
        assert_eq!(table.acquire("a".to_owned()), (first, false));
        assert_eq!(table.release(first), None);
        assert_eq!(table.get(first).map(String::as_str), Some("a"));
        assert_eq!(table.release(first).as_deref(), Some("a"));
        assert!(table.is_empty());
        assert_eq!(table.get(first), None);
    }

    #[test]
    fn rows_are_used_again() {
        let mut table = Table::default();
        let (a, _) = table.acquire("a");
        let (b, _) = table.acquire("b");
        table.release(a);
        let (c, _) = table.acquire("c");
        assert_eq!(a, c);
        assert_eq!(table.rows.len(), 2);
        table.release(b);
        table.release(c);
        assert_eq!((table.rows.len(), table.free.len()), (0, 0));
    }
}
