//! What consumers of the classic protocol tell each other inside JoinGroup and SyncGroup: the broker reads and writes it
//! when such a consumer is in a group of the new protocol. All numbers are big endian.
//!
//! ```text
//! subscription   0  2  version      2  .  list of topics · bytes user data
//!                from 1 on  list of (topic, list of i32 partitions): what it has
//!                from 2 on  i32 generation        from 3 on  text rack
//! assignment     0  2  version      2  .  list of (topic, list of i32 partitions) · bytes user data
//!
//! list: i32 number, elements      text: i16 length, UTF-8      bytes: i32 length, bytes; -1 for none
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{Partitions, Topics};
use crate::types::PartitionIndex;

/// Kind of group whose members speak like this.
pub(crate) const CONSUMER: &str = "consumer";
/// Highest version that is read and written; later ones only add to it.
const VERSION_MAX: i16 = 3;

/// What a consumer subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    /// Version that it speaks.
    pub(super) version: i16,
    /// Names of topics.
    pub(super) topics: BTreeSet<Arc<str>>,
    /// What it has, by the names of topics; empty where the version cannot say so.
    pub(super) owned: Vec<(Arc<str>, Vec<PartitionIndex>)>,
    /// Where it runs.
    pub(super) rack: Option<Arc<str>>,
}

impl Subscription {
    /// `None` for bytes that are not a subscription.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let version = reader.version()?;
        let topics = (0..reader.i32()?).map(|_| reader.text()).collect::<Option<_>>()?;
        reader.blob()?;
        let owned = if version >= 1 { reader.partitions()? } else { Vec::new() };
        if version >= 2 {
            reader.i32()?;
        }
        let rack = if version >= 3 { reader.nullable_text()? } else { None };
        Some(Self { version, topics, owned, rack })
    }
}

/// Which version an assignment is best written in for one that sent this subscription.
pub(super) fn version_of(subscription: &[u8]) -> i16 {
    Reader { rest: subscription }.version().unwrap_or(0)
}

/// An assignment without user data; `None` for bytes that are none, or that hold what only their author understands.
/// Empty bytes are an empty assignment.
pub(super) fn read_assignment(bytes: &[u8], topics: &dyn Topics) -> Option<Partitions> {
    if bytes.is_empty() {
        return Some(Partitions::new());
    }
    let mut reader = Reader { rest: bytes };
    reader.version()?;
    let named = reader.partitions()?;
    if reader.blob()?.is_some_and(|data| !data.is_empty()) {
        return None;
    }
    Some(by_id(&named, topics))
}

/// Partitions by ids instead of names; without those of topics that do not exist.
pub(super) fn by_id(named: &[(Arc<str>, Vec<PartitionIndex>)], topics: &dyn Topics) -> Partitions {
    let mut partitions = Partitions::new();
    for (name, indexes) in named {
        if let Some((id, _)) = topics.find(name).filter(|_| !indexes.is_empty()) {
            partitions.entry(id).or_default().extend(indexes);
        }
    }
    partitions
}

/// An assignment in this version; topics that do not exist any more are left out.
pub(in crate::group) fn write_assignment(version: i16, partitions: &Partitions, topics: &dyn Topics) -> Bytes {
    let named: Vec<_> = partitions.iter().filter_map(|(id, indexes)| Some((topics.name(*id)?, indexes))).collect();
    let mut out = version.clamp(0, VERSION_MAX).to_be_bytes().to_vec();
    put_count(&mut out, named.len());
    for (name, indexes) in named {
        out.extend_from_slice(&i16::try_from(name.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        put_count(&mut out, indexes.len());
        for index in indexes {
            out.extend_from_slice(&index.to_be_bytes());
        }
    }
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    out.into()
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes());
}

/// Reads without trusting any count: what is read is never more than the bytes that are there.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn version(&mut self) -> Option<i16> {
        let version = i16::from_be_bytes(self.array()?);
        (version >= 0).then_some(version.min(VERSION_MAX))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn nullable_text(&mut self) -> Option<Option<Arc<str>>> {
        let length = i16::from_be_bytes(self.array()?);
        if length == -1 {
            return Some(None);
        }
        let text = std::str::from_utf8(self.take(usize::try_from(length).ok()?)?).ok()?;
        Some(Some(text.into()))
    }

    fn text(&mut self) -> Option<Arc<str>> {
        self.nullable_text().flatten()
    }

    fn blob(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn partitions(&mut self) -> Option<Vec<(Arc<str>, Vec<PartitionIndex>)>> {
        let mut all = Vec::new();
        for _ in 0..self.i32()? {
            let name = self.text()?;
            let indexes = (0..self.i32()?).map(|_| self.i32()).collect::<Option<_>>()?;
            all.push((name, indexes));
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Map;
    use super::*;

    #[test]
    fn subscriptions_are_read_in_every_version() {
        let owned = b"\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\x01\0\0\0\x02";
        let whole = [b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\0\0\0\x01u", &owned[..], b"\0\0\0\x09\0\x01r"].concat();
        let with = |version: i16| [&version.to_be_bytes()[..], &whole[2..]].concat();
        for version in 0..=4 {
            let read = Subscription::read(&with(version)).unwrap();
            assert_eq!(read.topics, ["a".into(), "bc".into()].into());
            assert_eq!(read.version, version.min(3));
            let owned = if version >= 1 { vec![("a".into(), vec![1, 2])] } else { vec![] };
            assert_eq!(read.owned, owned);
            assert_eq!(read.rack.as_deref(), (version >= 3).then_some("r"));
        }
        for cut in 0..whole.len() {
            assert_eq!(Subscription::read(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(Subscription::read(&with(-1)), None);
        assert_eq!(Subscription::read(b"\0\0\x7f\xff\xff\xff"), None);
    }

    #[test]
    fn assignments_have_golden_bytes() {
        let topics = Map::of(&[("a", 3), ("bc", 1)]);
        let given: Partitions = [(topics.id("a"), [0, 2].into()), (topics.id("bc"), [0].into())].into();
        let golden = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x02\0\x02bc\0\0\0\x01\0\0\0\0\xff\xff\xff\xff";
        let written = write_assignment(1, &given, &topics);
        assert_eq!(written[..], golden[..]);
        assert_eq!(read_assignment(&written, &topics), Some(given));
        assert_eq!(read_assignment(b"", &topics), Some(Partitions::new()));
        assert_eq!(read_assignment(b"\0\0\0\0\0\0\0\0\0\x01u", &topics), None, "user data would be lost");
        assert_eq!(read_assignment(b"assigned", &topics), None);
        for cut in 1..golden.len() {
            assert_eq!(read_assignment(&golden[..cut], &topics), None, "{cut}");
        }
    }
}
