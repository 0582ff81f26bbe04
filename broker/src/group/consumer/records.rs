//! What is stored of groups of the consumer protocol, byte by byte, in the family `groups`. Numbers, texts and blobs as in
//! `group/records.rs`; a prefix is u16 length of group id ++ group id.
//!
//! ```text
//! 10 ++ group id               → 0   1  version, 1     1   4  group epoch     5   4  target epoch     9   8  topics digest
//! 11 ++ prefix ++ member id    → 0   1  version, 2
//!                                1   .  text instance id · text rack id · text client id · text client host ·
//!                                       i32 rebalance timeout ms · texts topics · text regex · text assignor ·
//!                                       u8 1 if it is of the classic protocol, then i32 session timeout ms and
//!                                          u32 number of protocols, each text name · blob metadata ·
//!                                       i32 epoch · i32 previous epoch · u8 state: 1 stable, 2 revoking, 3 waiting ·
//!                                       partitions assigned · partitions revoking ·
//!                                       i32 since which epoch, for each of both (version 1 has none)
//! 12 ++ prefix ++ member id    → 0   1  version, 1     1   .  partitions: the target
//! 13 ++ prefix ++ regex        → 0   1  version, 1     1   .  texts: the topics that it stands for
//!
//! texts: u32 number, texts     partitions: u32 number of topics, each topic id 16 · u32 number, i32 partitions
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{ClassicSide, ConsumerMember, Epochs, Fact, MemberState, Partitions, each};
use crate::error::Result;
use crate::group::records::{Reader, damaged, group_key, put_length, put_text};
use crate::group::state::{MemberId, Protocol};
use crate::lane::Change;
use crate::store::Family;
use crate::types::TopicId;

const EPOCHS_KIND: u8 = 0x10;
const MEMBER_KIND: u8 = 0x11;
const TARGET_KIND: u8 = 0x12;
const REGEX_KIND: u8 = 0x13;
const VERSION: u8 = 1;
const MEMBER_VERSION: u8 = 2;
const STABLE: u8 = 1;
const REVOKING: u8 = 2;
const WAITING: u8 = 3;

/// What changes in the store when a fact is recorded.
pub(crate) fn changes(group: &str, fact: &Fact) -> Vec<Change> {
    let put = |key: Vec<u8>, value: Vec<u8>| vec![Change::Put(Family::Groups, key, value)];
    match fact {
        Fact::Began(epochs) => vec![
            Change::Delete(Family::Groups, group_key(group)),
            Change::Put(Family::Groups, plain_key(EPOCHS_KIND, group), encode_epochs(*epochs)),
        ],
        Fact::Epochs(epochs) => put(plain_key(EPOCHS_KIND, group), encode_epochs(*epochs)),
        Fact::Member(member) => put(key(MEMBER_KIND, group, &member.id), encode_member(member)),
        Fact::Gone(id) => [MEMBER_KIND, TARGET_KIND]
            .map(|kind| Change::Delete(Family::Groups, key(kind, group, id)))
            .into_iter()
            .collect(),
        Fact::Target(id, partitions) => {
            let mut value = vec![VERSION];
            put_partitions(&mut value, partitions);
            put(key(TARGET_KIND, group, id), value)
        }
        Fact::Resolved(regex, topics) => {
            let mut value = vec![VERSION];
            put_texts(&mut value, topics);
            put(key(REGEX_KIND, group, regex), value)
        }
        Fact::Unused(regex) => vec![Change::Delete(Family::Groups, key(REGEX_KIND, group, regex))],
        Fact::Ended(record) => {
            let mut changes = removal(group);
            changes.extend(record.iter().map(|r| Change::Put(Family::Groups, group_key(group), r.encode())));
            changes
        }
    }
}

/// Removes all that is stored of a group of the consumer protocol, its offsets apart.
pub(crate) fn removal(group: &str) -> Vec<Change> {
    let mut changes = vec![Change::Delete(Family::Groups, plain_key(EPOCHS_KIND, group))];
    for kind in [MEMBER_KIND, TARGET_KIND, REGEX_KIND] {
        let from = key(kind, group, "");
        // no text has the byte 0xff
        let to = [from.as_slice(), &[0xff]].concat();
        changes.push(Change::DeleteRange(Family::Groups, from, to));
    }
    changes
}

/// A fact from what is stored, and its group.
///
/// # Errors
/// `Storage` for keys and values that are damaged or of a version that is not known.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<(Arc<str>, Fact)> {
    read(key, value).ok_or_else(|| damaged("consumer group", &[key, b" ", value].concat()))
}

fn read(key: &[u8], value: &[u8]) -> Option<(Arc<str>, Fact)> {
    let (kind, rest) = key.split_first()?;
    let mut reader = Reader::new(value);
    let [version] = reader.array()?;
    if version != VERSION && (*kind, version) != (MEMBER_KIND, MEMBER_VERSION) {
        return None;
    }
    let whole = || std::str::from_utf8(rest).ok().map(Arc::<str>::from);
    let split = || {
        let mut reader = Reader::new(rest);
        let group: Arc<str> = reader.text()??;
        Some((group, Arc::<str>::from(std::str::from_utf8(reader.rest()).ok()?)))
    };
    let stored = match *kind {
        EPOCHS_KIND => (whole()?, Fact::Began(read_epochs(&mut reader)?)),
        MEMBER_KIND => {
            let (group, id) = split()?;
            (group, Fact::Member(Box::new(read_member(id, version, &mut reader)?)))
        }
        TARGET_KIND => {
            let (group, id) = split()?;
            (group, Fact::Target(id, read_partitions(&mut reader)?))
        }
        REGEX_KIND => {
            let (group, regex) = split()?;
            (group, Fact::Resolved(regex, read_texts(&mut reader)?))
        }
        _ => return None,
    };
    reader.rest().is_empty().then_some(stored)
}

fn plain_key(kind: u8, group: &str) -> Vec<u8> {
    [&[kind], group.as_bytes()].concat()
}

fn key(kind: u8, group: &str, rest: &str) -> Vec<u8> {
    let mut key = vec![kind];
    put_text(&mut key, Some(group));
    key.extend_from_slice(rest.as_bytes());
    key
}

fn encode_epochs(epochs: Epochs) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&epochs.group.to_be_bytes());
    out.extend_from_slice(&epochs.target.to_be_bytes());
    out.extend_from_slice(&epochs.topics_digest.to_be_bytes());
    out
}

fn read_epochs(reader: &mut Reader<'_>) -> Option<Epochs> {
    Some(Epochs { group: reader.i32()?, target: reader.i32()?, topics_digest: u64::from_be_bytes(reader.array()?) })
}

fn encode_member(member: &ConsumerMember) -> Vec<u8> {
    let mut out = vec![MEMBER_VERSION];
    put_text(&mut out, member.instance_id.as_deref());
    put_text(&mut out, member.rack_id.as_deref());
    put_text(&mut out, Some(&member.client_id));
    put_text(&mut out, Some(&member.client_host));
    out.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
    put_texts(&mut out, &member.topics);
    put_text(&mut out, Some(&member.regex));
    put_text(&mut out, member.assignor.as_deref());
    out.push(u8::from(member.classic.is_some()));
    if let Some(classic) = &member.classic {
        out.extend_from_slice(&classic.session_timeout_ms.to_be_bytes());
        put_length(&mut out, classic.protocols.len());
        for protocol in &classic.protocols {
            put_text(&mut out, Some(&protocol.name));
            put_length(&mut out, protocol.metadata.len());
            out.extend_from_slice(&protocol.metadata);
        }
    }
    out.extend_from_slice(&member.epoch.to_be_bytes());
    out.extend_from_slice(&member.previous_epoch.to_be_bytes());
    out.push(match member.state {
        MemberState::Stable => STABLE,
        MemberState::Revoking => REVOKING,
        MemberState::Waiting => WAITING,
    });
    put_partitions(&mut out, &member.assigned);
    put_partitions(&mut out, &member.revoking);
    for place in each(&member.assigned).chain(each(&member.revoking)) {
        let since = member.since.get(&place).copied().unwrap_or(member.epoch);
        out.extend_from_slice(&since.to_be_bytes());
    }
    out
}

fn read_member(id: MemberId, version: u8, reader: &mut Reader<'_>) -> Option<ConsumerMember> {
    let mut member = ConsumerMember {
        instance_id: reader.text()?,
        rack_id: reader.text()?,
        client_id: reader.text()??,
        client_host: reader.text()??,
        rebalance_timeout_ms: reader.i32()?,
        topics: read_texts(reader)?,
        regex: reader.text()??,
        assignor: reader.text()?,
        classic: match reader.array()? {
            [0] => None,
            [1] => Some(read_classic(reader)?),
            _ => return None,
        },
        epoch: reader.i32()?,
        previous_epoch: reader.i32()?,
        state: match reader.array()? {
            [STABLE] => MemberState::Stable,
            [REVOKING] => MemberState::Revoking,
            [WAITING] => MemberState::Waiting,
            _ => return None,
        },
        assigned: read_partitions(reader)?,
        revoking: read_partitions(reader)?,
        since: BTreeMap::new(),
        id,
    };
    if version >= MEMBER_VERSION {
        let all = each(&member.assigned).chain(each(&member.revoking));
        member.since = all.map(|place| Some((place, reader.i32()?))).collect::<Option<_>>()?;
    }
    Some(member)
}

fn read_classic(reader: &mut Reader<'_>) -> Option<ClassicSide> {
    let session_timeout_ms = reader.i32()?;
    let number = reader.u32()?;
    let one = |reader: &mut Reader<'_>| Some(Protocol { name: reader.text()??, metadata: reader.blob()? });
    let protocols = (0..number).map(|_| one(reader)).collect::<Option<_>>()?;
    Some(ClassicSide { session_timeout_ms, protocols })
}

fn put_texts(out: &mut Vec<u8>, texts: &BTreeSet<Arc<str>>) {
    put_length(out, texts.len());
    for text in texts {
        put_text(out, Some(text));
    }
}

fn read_texts(reader: &mut Reader<'_>) -> Option<BTreeSet<Arc<str>>> {
    let number = reader.u32()?;
    (0..number).map(|_| reader.text().flatten()).collect()
}

fn put_partitions(out: &mut Vec<u8>, partitions: &Partitions) {
    put_length(out, partitions.len());
    for (topic, indexes) in partitions {
        out.extend_from_slice(topic.as_bytes());
        put_length(out, indexes.len());
        for index in indexes {
            out.extend_from_slice(&index.to_be_bytes());
        }
    }
}

fn read_partitions(reader: &mut Reader<'_>) -> Option<Partitions> {
    let number = reader.u32()?;
    let one = |reader: &mut Reader<'_>| {
        let topic = TopicId::from_bytes(reader.array()?);
        let number = reader.u32()?;
        Some((topic, (0..number).map(|_| reader.i32()).collect::<Option<_>>()?))
    };
    (0..number).map(|_| one(reader)).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn member() -> ConsumerMember {
        ConsumerMember {
            instance_id: Some("i".into()),
            rack_id: None,
            client_id: "c".into(),
            client_host: "/::1".into(),
            rebalance_timeout_ms: 60_000,
            topics: ["a".into(), "b".into()].into(),
            regex: "x.*".into(),
            assignor: Some("range".into()),
            classic: Some(ClassicSide {
                session_timeout_ms: 10_000,
                protocols: vec![Protocol { name: "p".into(), metadata: Bytes::from_static(b"\x01\x02") }],
            }),
            epoch: 7,
            previous_epoch: 6,
            state: MemberState::Revoking,
            assigned: [(TopicId::from_u128(5), [0, 3].into())].into(),
            revoking: [(TopicId::from_u128(5), [1].into())].into(),
            since: [(0, 4), (1, 5), (3, 7)].map(|(p, epoch)| ((TopicId::from_u128(5), p), epoch)).into(),
            id: "m".into(),
        }
    }

    /// A change as text: key, and value where there is one.
    fn shown(change: &Change) -> String {
        match change {
            Change::Put(Family::Groups, key, value) => format!("put {} {}", hex(key), hex(value)),
            Change::Delete(Family::Groups, key) => format!("delete {}", hex(key)),
            Change::DeleteRange(Family::Groups, from, to) => format!("delete {} to {}", hex(from), hex(to)),
            _ => panic!("another kind of change"),
        }
    }

    fn whole(group: &str, fact: &Fact) {
        for change in changes(group, fact) {
            if let Change::Put(_, key, value) = change {
                let read = decode(&key, &value).unwrap();
                assert_eq!(read, (group.into(), fact.clone()));
                for cut in 0..value.len() {
                    assert!(decode(&key, &value[..cut]).is_err(), "{fact:?} {cut}");
                }
                let newer = [&[3], &value[1..]].concat();
                assert!(decode(&key, &newer).is_err());
            }
        }
    }

    #[test]
    fn members_have_golden_bytes() {
        let fact = Fact::Member(Box::new(member()));
        let golden = concat!(
            "put 110001676d 02",
            "000169",
            "ffff",
            "000163",
            "00042f3a3a31",
            "0000ea60",
            "00000002000161000162",
            "0003782e2a",
            "000572616e6765",
            "01000027100000000100017000000002",
            "0102",
            "0000000700000006",
            "02",
            "00000001000000000000000000000000000000050000000200000000",
            "00000003",
            "00000001000000000000000000000000000000050000000100000001",
            "00000004",
            "00000007",
            "00000005",
        );
        assert_eq!(changes("g", &fact).iter().map(shown).collect::<Vec<_>>(), [golden]);
        whole("g", &fact);
        whole("g", &Fact::Member(Box::new(ConsumerMember::new("n".into()))));
        let (key, value) = (key(MEMBER_KIND, "g", "m"), encode_member(&member()));
        let older = [&[1], &value[1..value.len() - 3 * 4]].concat();
        let undated = ConsumerMember { since: BTreeMap::new(), ..member() };
        assert_eq!(decode(&key, &older).unwrap(), ("g".into(), Fact::Member(Box::new(undated))));
    }

    #[test]
    fn the_rest_has_golden_bytes() {
        let epochs = Epochs { group: 9, target: 8, topics_digest: 0x0102 };
        let partitions: Partitions = [(TopicId::from_u128(5), [1].into())].into();
        let cases: [(Fact, &[&str]); 6] = [
            (Fact::Began(epochs), &["delete 0167", "put 1067 0100000009000000080000000000000102"]),
            (Fact::Epochs(epochs), &["put 1067 0100000009000000080000000000000102"]),
            (
                Fact::Target("m".into(), partitions),
                &["put 120001676d 0100000001000000000000000000000000000000050000000100000001"],
            ),
            (Fact::Resolved("x".into(), ["a".into()].into()), &["put 1300016778 0100000001000161"]),
            (Fact::Gone("m".into()), &["delete 110001676d", "delete 120001676d"]),
            (
                Fact::Ended(None),
                &[
                    "delete 1067",
                    "delete 11000167 to 11000167ff",
                    "delete 12000167 to 12000167ff",
                    "delete 13000167 to 13000167ff",
                ],
            ),
        ];
        for (fact, golden) in cases {
            assert_eq!(changes("g", &fact).iter().map(shown).collect::<Vec<_>>(), golden);
            if !matches!(fact, Fact::Epochs(_)) {
                whole("g", &fact);
            }
        }
        assert!(decode(&[9], &[1]).is_err() && decode(&[], &[]).is_err());
    }
}
