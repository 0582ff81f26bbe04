//! The newest offset of each key in the part of a log that is being compacted: bounded, by digests instead of keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ring::digest::{SHA256, digest};

use crate::types::Offset;

const DIGEST_BYTES: usize = 16;

/// Newest offsets by key. Holds: the digests of at most `keys_max` keys, 25 bytes each. Always true: every key that was
/// noted has its newest offset here; two keys of one digest (2^-128, and nobody can choose it) would count as one.
pub(crate) struct KeyMap {
    offsets: HashMap<[u8; DIGEST_BYTES], Offset, BuildHasherDefault<Prefix>>,
    keys_max: usize,
    end: Offset,
}

impl KeyMap {
    /// An empty map for what begins at `start`.
    pub(crate) fn new(keys_max: usize, start: Offset) -> Self {
        Self { offsets: HashMap::default(), keys_max, end: start }
    }

    /// Notes a record; offsets must ascend. False when there is no room: then nothing was noted.
    pub(crate) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let digest = digest_of(key);
        if self.offsets.len() >= self.keys_max && !self.offsets.contains_key(&digest) {
            return false;
        }
        self.offsets.insert(digest, offset);
        self.end = offset + 1;
        true
    }

    /// Says that all records below `end` were looked at.
    pub(crate) fn reach(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// The offset up to which the map knows every record. What lies beyond is not judged.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Whether the map knows a newer record of the key.
    pub(crate) fn is_superseded(&self, key: &[u8], offset: Offset) -> bool {
        self.offsets.get(&digest_of(key)).is_some_and(|newest| *newest > offset)
    }
}

fn digest_of(key: &[u8]) -> [u8; DIGEST_BYTES] {
    *digest(&SHA256, key).as_ref().first_chunk().expect("a digest has 32 bytes")
}

/// Takes the digest's first bytes as its hash.
#[derive(Default)]
struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_a_key_is_known_and_room_is_bounded() {
        let mut map = KeyMap::new(2, 5);
        assert_eq!(map.end(), 5);
        assert!(map.note(b"a", 5) && map.note(b"b", 6) && map.note(b"a", 7));
        assert!(!map.note(b"c", 8), "full");
        assert_eq!(map.end(), 8, "what found no room is not judged");
        assert!(map.note(b"b", 9), "a known key needs no room");
        assert!(map.is_superseded(b"a", 6) && !map.is_superseded(b"a", 7) && !map.is_superseded(b"c", 1));
        map.reach(30);
        assert_eq!(map.end(), 30);
    }
}
