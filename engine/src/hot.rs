//! What was read or written last of a part of the store, in memory: the states of a view's groups, rows of tables, keys that were seen.

use datafusion::common::HashMap;

/// Bytes by key that were touched lately, so that a busy group is not read from the store at each step.
///
/// Holds only what is committed. Two generations of bounded size: what is touched moves to the young one; when that is
/// full it becomes the old one and the old one is forgotten. Lost at a crash, which costs reads only.
pub(crate) struct HotStates {
    young: Generation,
    old: Generation,
    generation_bytes_max: usize,
    /// From this key on all that is stored is here, where that is known: what is not here is nowhere. Windows of the present lie behind
    /// those of the past, so a group that begins need not be looked for in the store.
    whole_from: Option<Vec<u8>>,
}

/// Entries that are forgotten together.
#[derive(Default)]
struct Generation {
    entries: HashMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
}

/// What a map entry costs beside its bytes.
const ENTRY_BYTES: usize = 64;

impl HotStates {
    pub(crate) fn new(bytes_max: usize) -> HotStates {
        HotStates {
            young: Generation::default(),
            old: Generation::default(),
            generation_bytes_max: bytes_max / 2,
            whole_from: None,
        }
    }

    /// The same of a part of the store that has nothing from this key on, and into which all goes that [`put`](Self::put) gets.
    pub(crate) fn whole_from(bytes_max: usize, key: Vec<u8>) -> HotStates {
        HotStates { whole_from: Some(key), ..HotStates::new(bytes_max) }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.young.entries.get(key).or_else(|| self.old.entries.get(key)).map(|value| &**value)
    }

    /// Whether the store may have a key that is not here.
    pub(crate) fn may_be_stored(&self, key: &[u8]) -> bool {
        self.whole_from.as_deref().is_none_or(|from| key < from)
    }

    /// Takes in what was just committed.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        if let Some(held) = self.young.entries.get_mut(key) {
            self.young.bytes = self.young.bytes - held.len() + value.len();
            // The states of a view have one size more often than not.
            match held.len() == value.len() {
                true => held.copy_from_slice(value),
                false => *held = value.into(),
            }
        } else {
            self.old.remove(key);
            self.young.bytes += key.len() + ENTRY_BYTES + value.len();
            self.young.entries.insert(key.into(), value.into());
        }
        if self.young.bytes > self.generation_bytes_max {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.forget(&forgotten);
        }
    }

    /// From now on these keys may be in the store and not here.
    fn forget(&mut self, generation: &Generation) {
        let Some(from) = &mut self.whole_from else { return };
        if let Some(last) = generation.entries.keys().max().filter(|last| last[..] >= from[..]) {
            *from = [last, &[0][..]].concat();
        }
    }

    /// Forgets a group that is no more.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Bytes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Groups in memory.
    pub(crate) fn len(&self) -> usize {
        self.young.entries.len() + self.old.entries.len()
    }
}

impl Generation {
    fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.entries.remove(key) {
            self.bytes -= key.len() + ENTRY_BYTES + value.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_states_are_bounded_and_newest_wins() {
        let mut hot = HotStates::new(20_000);
        for round in 0..400_u32 {
            for key in 0..20_u32 {
                hot.put(&key.to_be_bytes(), &round.to_be_bytes());
            }
            hot.put(&(1_000 + round).to_be_bytes(), &[0; 100]);
            assert!(hot.bytes() <= 21_000, "{}", hot.bytes());
        }
        for key in 0..20_u32 {
            assert_eq!(hot.get(&key.to_be_bytes()), Some(&399_u32.to_be_bytes()[..]));
        }
        assert_eq!(hot.get(&1_000_u32.to_be_bytes()), None);
    }

    /// Against a map that forgets nothing: what is neither here nor may be in the store was never put, or was removed.
    #[test]
    fn what_is_forgotten_may_be_in_the_store() {
        let mut hot = HotStates::whole_from(20_000, vec![5]);
        let mut stored = std::collections::BTreeSet::new();
        assert!(hot.may_be_stored(&[4, 9]) && !hot.may_be_stored(&[5]));
        for number in 0..3_000_u32 {
            // Windows one after the other, and some that come late.
            let window = 5 + number / 500 - u32::from(number % 7 == 0 && number >= 500);
            let key = [&[window as u8][..], &(number % 400).to_be_bytes()].concat();
            hot.put(&key, &vec![1; number as usize % 90]);
            stored.insert(key.clone());
            if number % 11 == 0 {
                hot.remove(&key);
                stored.remove(&key);
            }
            for key in &stored {
                assert!(hot.get(key).is_some() || hot.may_be_stored(key), "{number}: {key:?}");
            }
        }
        assert!(!hot.may_be_stored(&[200]), "nothing is known to be nowhere any more");
        assert!(hot.may_be_stored(&[5, 0, 0, 0, 1]), "nothing was forgotten");
    }
}
