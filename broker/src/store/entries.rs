//! Many keys and values in two pieces of memory, as a step of the engine makes tens of thousands of them: one by one, each would be two
//! allocations, and two more where it is kept.

use super::{Family, Writes};

/// Strings of bytes, one behind the other in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Packed {
    /// With room for so many strings of so many bytes together.
    pub fn with_room(count: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Adds a string, which is given in parts.
    pub fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The string of this number, which is there.
    pub fn get(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[at]]
    }

    /// All, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }
}

/// Keys, and the value of each. Always true: there are as many of both.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    keys: Packed,
    values: Packed,
}

impl Entries {
    /// Keys with their values; what is left over of either is dropped.
    pub fn new(keys: Packed, values: Packed) -> Self {
        debug_assert_eq!(keys.len(), values.len(), "each key has a value");
        Self { keys, values }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.keys.len().min(self.values.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter()
    }

    /// Keys and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.iter().zip(self.values.iter())
    }
}

impl Writes<'_> {
    /// Sets keys in their own order: the store sorts them anyway, and finds the place of one that follows its neighbour in memory that
    /// was just looked at.
    pub(crate) fn put_all(&mut self, family: Family, entries: &Entries) {
        let family = self.store.writable(family);
        let mut sorted: Vec<(&[u8], &[u8])> = entries.iter().collect();
        // A key that is there twice keeps its last value.
        sorted.sort_by_key(|(key, _)| *key);
        sorted.into_iter().for_each(|(key, value)| self.batch.put_cf(&family, key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_back() {
        let (mut keys, mut values) = (Packed::default(), Packed::with_room(3, 8));
        assert!(keys.is_empty() && Entries::default().is_empty());
        for (key, value) in [("a", ""), ("", "longer"), ("bc", "x")] {
            keys.push(&[key.as_bytes()]);
            values.push(&[&value.as_bytes()[..value.len() / 2], &value.as_bytes()[value.len() / 2..]]);
        }
        assert_eq!((keys.get(2), values.get(0), values.get(1)), (&b"bc"[..], &b""[..], &b"longer"[..]));
        let entries = Entries::new(keys, values);
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b""), (b"", b"longer"), (b"bc", b"x")];
        assert_eq!(entries.iter().collect::<Vec<_>>(), expected);
        assert_eq!((entries.len(), entries.bytes()), (3, 10));
    }
}
