//! What the group coordinator stores, byte by byte. All numbers are big endian; a text is a u16 length and UTF-8, 0xffff
//! in place of the length means none; a blob is a u32 length and bytes.
//!
//! ```text
//! groups  01 ++ group id                                            → a group's last generation
//!         0   1  version, 1        1   4  generation          5   8  milliseconds since 1970: since when
//!         13  .  text protocol type · text protocol · text leader's member id · u32 number of members, then per member
//!                text id · text instance id · text client id · text client host ·
//!                i32 session timeout ms · i32 rebalance timeout ms · blob metadata · blob assignment
//! groups  10 to 13                                                → the consumer protocol: consumer/records.rs
//! groups  02 ++ u16 length of group id ++ group id ++ topic id 16 ++ partition i32   → a committed offset
//!         0   1  version, 1        1   8  offset              9   4  leader epoch, -1 for none
//!         13  8  committed at, milliseconds since 1970       21   8  expires at, -1 for none   29  .  text metadata
//! groups  03 ++ u16 length of group id ++ group id ++ producer id i64 ++ topic id 16 ++ partition i32
//!                                                                   → an offset of an open transaction, as above
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::offsets::Committed;
use super::state::{Member, MemberId, Protocol, SteadyMs};
use crate::error::{Error, Result};
use crate::types::{PartitionIndex, ProducerId, TimestampMs, TopicId};

const GROUP_KIND: u8 = 1;
const OFFSET_KIND: u8 = 2;
const PENDING_KIND: u8 = 3;
const GROUP_VERSION: u8 = 1;
const OFFSET_VERSION: u8 = 1;
const NO_TEXT: u16 = u16::MAX;
/// Bytes of an offset's key after the group id.
const OFFSET_SUFFIX_BYTES: usize = 16 + 4;
/// Bytes of an undecided offset's key after the group id.
const PENDING_SUFFIX_BYTES: usize = 8 + OFFSET_SUFFIX_BYTES;
/// Longest group id, member id or other name that fits a record.
pub(crate) const TEXT_BYTES_MAX: usize = u16::MAX as usize - 1;

/// A generation with its assignment, or an empty group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct GroupRecord {
    /// Number of the generation.
    pub(crate) generation: i32,
    /// Since when.
    pub(crate) since: TimestampMs,
    /// What kind of group it is.
    pub(crate) protocol_type: Option<Arc<str>>,
    /// The protocol of the vote.
    pub(crate) protocol: Option<Arc<str>>,
    /// Who assigned.
    pub(crate) leader: Option<MemberId>,
    /// All members, in the order in which they came.
    pub(crate) members: Vec<MemberRecord>,
}

/// A member of a recorded generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    /// Its identity.
    pub(crate) id: MemberId,
    /// Its static name.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Client id of its last JoinGroup.
    pub(crate) client_id: Arc<str>,
    /// Address it came from.
    pub(crate) client_host: Arc<str>,
    /// How long it may be silent.
    pub(crate) session_timeout_ms: i32,
    /// How long a rebalance waits for it.
    pub(crate) rebalance_timeout_ms: i32,
    /// What it said for the chosen protocol.
    pub(crate) metadata: Bytes,
    /// What it was given.
    pub(crate) assignment: Bytes,
}

impl MemberRecord {
    /// The member as recovery knows it: heard now, and not confirmed.
    pub(crate) fn into_member(self, protocol: Option<&Arc<str>>, now: SteadyMs) -> Member {
        let protocols = protocol.map(|name| Protocol { name: name.clone(), metadata: self.metadata });
        Member {
            id: self.id,
            instance_id: self.instance_id,
            client_id: self.client_id,
            client_host: self.client_host,
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocols: protocols.into_iter().collect(),
            assignment: self.assignment,
            order: 0,
            joining: false,
            syncing: false,
            synced: true,
            is_new: false,
            confirmed: false,
            deadline: now.saturating_add(i64::from(self.session_timeout_ms)),
        }
    }
}

/// What a key of the family `groups` is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Something of the consumer protocol; see `consumer/records.rs`.
    Consumer,
    /// A group's last generation.
    Group(Arc<str>),
    /// A committed offset.
    Offset(Arc<str>, TopicId, PartitionIndex),
    /// An offset of a producer's open transaction.
    Pending(Arc<str>, ProducerId, TopicId, PartitionIndex),
}

/// The key of a group.
pub(crate) fn group_key(group: &str) -> Vec<u8> {
    [&[GROUP_KIND], group.as_bytes()].concat()
}

/// The key of an offset.
pub(crate) fn offset_key(group: &str, topic: TopicId, partition: PartitionIndex) -> Vec<u8> {
    let mut key = prefix(OFFSET_KIND, group);
    key.extend_from_slice(topic.as_bytes());
    key.extend_from_slice(&partition.to_be_bytes());
    key
}

/// The range of all offsets of a group: from, up to but without.
pub(crate) fn offset_range(group: &str) -> (Vec<u8>, Vec<u8>) {
    let from = prefix(OFFSET_KIND, group);
    let to = [from.as_slice(), &[0xff; OFFSET_SUFFIX_BYTES + 1]].concat();
    (from, to)
}

/// The key of an offset of a producer's open transaction.
pub(crate) fn pending_key(group: &str, producer: ProducerId, topic: TopicId, partition: PartitionIndex) -> Vec<u8> {
    let mut key = prefix(PENDING_KIND, group);
    key.extend_from_slice(&producer.to_be_bytes());
    key.extend_from_slice(topic.as_bytes());
    key.extend_from_slice(&partition.to_be_bytes());
    key
}

/// The range of all undecided offsets of a group: from, up to but without.
pub(crate) fn pending_range(group: &str) -> (Vec<u8>, Vec<u8>) {
    let from = prefix(PENDING_KIND, group);
    let to = [from.as_slice(), &[0xff; PENDING_SUFFIX_BYTES + 1]].concat();
    (from, to)
}

fn prefix(kind: u8, group: &str) -> Vec<u8> {
    let length = u16::try_from(group.len()).expect("group ids above TEXT_BYTES_MAX are refused");
    let mut key = Vec::with_capacity(3 + group.len() + PENDING_SUFFIX_BYTES);
    key.push(kind);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(group.as_bytes());
    key
}

/// What a key is about.
///
/// # Errors
/// `Storage` for a key that is none of ours.
pub(crate) fn decode_key(key: &[u8]) -> Result<Key> {
    let damaged = || damaged("group key", key);
    let (kind, rest) = key.split_first().ok_or_else(damaged)?;
    match *kind {
        GROUP_KIND => Ok(Key::Group(std::str::from_utf8(rest).map_err(|_| damaged())?.into())),
        OFFSET_KIND | PENDING_KIND => {
            let mut reader = Reader { rest };
            let group = reader.text().flatten().ok_or_else(damaged)?;
            let producer = if *kind == PENDING_KIND { Some(reader.array().ok_or_else(damaged)?) } else { None };
            let topic = TopicId::from_bytes(reader.array().ok_or_else(damaged)?);
            let partition = i32::from_be_bytes(reader.array().ok_or_else(damaged)?);
            if !reader.rest.is_empty() {
                return Err(damaged());
            }
            Ok(match producer {
                None => Key::Offset(group, topic, partition),
                Some(producer) => Key::Pending(group, ProducerId::from_be_bytes(producer), topic, partition),
            })
        }
        _ => Ok(Key::Consumer),
    }
}

impl GroupRecord {
    /// As it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![GROUP_VERSION];
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.since.to_be_bytes());
        for name in [&self.protocol_type, &self.protocol, &self.leader] {
            put_text(&mut out, name.as_deref());
        }
        put_length(&mut out, self.members.len());
        for member in &self.members {
            put_text(&mut out, Some(&member.id));
            put_text(&mut out, member.instance_id.as_deref());
            put_text(&mut out, Some(&member.client_id));
            put_text(&mut out, Some(&member.client_host));
            out.extend_from_slice(&member.session_timeout_ms.to_be_bytes());
            out.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
            for blob in [&member.metadata, &member.assignment] {
                put_length(&mut out, blob.len());
                out.extend_from_slice(blob);
            }
        }
        out
    }

    /// From what is stored.
    ///
    /// # Errors
    /// `Storage` for bytes that are damaged or of a version that is not known.
    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        Self::read(value).ok_or_else(|| damaged("group", value))
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: value };
        if reader.array()? != [GROUP_VERSION] {
            return None;
        }
        let mut record = Self {
            generation: i32::from_be_bytes(reader.array()?),
            since: i64::from_be_bytes(reader.array()?),
            protocol_type: reader.text()?,
            protocol: reader.text()?,
            leader: reader.text()?,
            members: Vec::new(),
        };
        for _ in 0..u32::from_be_bytes(reader.array()?) {
            record.members.push(MemberRecord {
                id: reader.text()??,
                instance_id: reader.text()?,
                client_id: reader.text()??,
                client_host: reader.text()??,
                session_timeout_ms: i32::from_be_bytes(reader.array()?),
                rebalance_timeout_ms: i32::from_be_bytes(reader.array()?),
                metadata: reader.blob()?,
                assignment: reader.blob()?,
            });
        }
        reader.rest.is_empty().then_some(record)
    }
}

/// An offset as it is stored.
pub(crate) fn encode_offset(committed: &Committed) -> Vec<u8> {
    let mut out = vec![OFFSET_VERSION];
    out.extend_from_slice(&committed.offset.to_be_bytes());
    out.extend_from_slice(&committed.leader_epoch.to_be_bytes());
    out.extend_from_slice(&committed.committed_at.to_be_bytes());
    out.extend_from_slice(&committed.expires_at.unwrap_or(-1).to_be_bytes());
    put_text(&mut out, Some(&committed.metadata));
    out
}

/// An offset from what is stored.
///
/// # Errors
/// `Storage` for bytes that are damaged or of a version that is not known.
pub(crate) fn decode_offset(value: &[u8]) -> Result<Committed> {
    let read = || {
        let mut reader = Reader { rest: value };
        if reader.array()? != [OFFSET_VERSION] {
            return None;
        }
        let committed = Committed {
            offset: i64::from_be_bytes(reader.array()?),
            leader_epoch: i32::from_be_bytes(reader.array()?),
            committed_at: i64::from_be_bytes(reader.array()?),
            expires_at: Some(i64::from_be_bytes(reader.array()?)).filter(|at| *at >= 0),
            metadata: reader.text()??,
            number: 0,
        };
        reader.rest.is_empty().then_some(committed)
    };
    read().ok_or_else(|| damaged("committed offset", value))
}

pub(super) fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.extend_from_slice(&NO_TEXT.to_be_bytes()),
        Some(text) => {
            let length = u16::try_from(text.len()).expect("texts above TEXT_BYTES_MAX are refused");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a frame is far below 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
}

pub(super) fn damaged(what: &str, bytes: &[u8]) -> Error {
    let shown: String = bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    Error::storage(format!("the stored {what} is damaged or of a newer millpond, restore a backup; it begins {shown}"))
}

/// Reads what is stored; `None` where it is damaged. No count is trusted.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn text(&mut self) -> Option<Option<Arc<str>>> {
        let length = u16::from_be_bytes(self.array()?);
        if length == NO_TEXT {
            return Some(None);
        }
        let text = std::str::from_utf8(self.take(usize::from(length))?).ok()?;
        Some(Some(text.into()))
    }

    pub(super) fn blob(&mut self) -> Option<Bytes> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        Some(Bytes::copy_from_slice(self.take(length)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn record() -> GroupRecord {
        GroupRecord {
            generation: 3,
            since: 0x0102_0304,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            members: vec![MemberRecord {
                id: "m-1".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/::1".into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 60_000,
                metadata: Bytes::from_static(b"\x01\x02"),
                assignment: Bytes::from_static(b"\x03"),
            }],
        }
    }

    #[test]
    fn group_has_golden_bytes() {
        let golden = concat!(
            "01",
            "00000003",
            "0000000001020304",
            "0008636f6e73756d6572",
            "000572616e6765",
            "00036d2d31",
            "00000001",
            "00036d2d31",
            "000169",
            "000163",
            "00042f3a3a31",
            "00002710",
            "0000ea60",
            "000000020102",
            "0000000103",
        );
        assert_eq!(hex(&record().encode()), golden);
        assert_eq!(GroupRecord::decode(&record().encode()).unwrap(), record());
        let empty = GroupRecord::default();
        assert_eq!(hex(&empty.encode()), "01000000000000000000000000ffffffffffff00000000");
        assert_eq!(GroupRecord::decode(&empty.encode()).unwrap(), empty);
        assert_eq!(hex(&group_key("g")), "0167");
        assert_eq!(decode_key(&group_key("g")).unwrap(), Key::Group("g".into()));
    }

    #[test]
    fn offset_has_golden_bytes() {
        let committed = Committed {
            offset: 42,
            leader_epoch: 7,
            metadata: "m".into(),
            committed_at: 1000,
            expires_at: None,
            number: 0,
        };
        let golden = "01000000000000002a0000000700000000000003e8ffffffffffffffff00016d";
        assert_eq!(hex(&encode_offset(&committed)), golden);
        assert_eq!(decode_offset(&encode_offset(&committed)).unwrap(), committed);
        let topic = TopicId::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let key = offset_key("g", topic, 5);
        assert_eq!(hex(&key), "0200016700112233445566778899aabbccddeeff00000005");
        assert_eq!(decode_key(&key).unwrap(), Key::Offset("g".into(), topic, 5));
        let (from, to) = offset_range("g");
        assert!(from < key && key < to);
        let other = offset_key("ga", topic, 5);
        assert!(other < from || other >= to, "a longer group id lies outside");
        let pending = pending_key("g", 9, topic, 5);
        assert_eq!(hex(&pending), "03000167000000000000000900112233445566778899aabbccddeeff00000005");
        assert_eq!(decode_key(&pending).unwrap(), Key::Pending("g".into(), 9, topic, 5));
        let (from, to) = pending_range("g");
        assert!(from < pending && pending < to && decode_key(&pending[..12]).is_err());
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let whole = record().encode();
        for cut in 0..whole.len() {
            assert!(GroupRecord::decode(&whole[..cut]).is_err());
        }
        let mut newer = whole.clone();
        newer[0] = 2;
        assert!(GroupRecord::decode(&newer).unwrap_err().message.contains("newer"));
        let mut many = whole;
        many[42..46].copy_from_slice(&[0xff; 4]);
        assert!(GroupRecord::decode(&many).is_err());
        assert!(decode_key(&[]).is_err() && decode_key(&[2, 0, 9, 1]).is_err());
        assert_eq!(decode_key(&[9]).unwrap(), Key::Consumer);
        assert!(decode_offset(&[1, 2]).is_err());
    }
}
