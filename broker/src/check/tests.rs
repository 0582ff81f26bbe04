//! Stores with one thing wrong each: that is found, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::batch;
use crate::builder::transaction_marker;
use crate::group::offsets::Committed;
use crate::group::records as group_records;
use crate::log::compaction::CleanState;
use crate::log::keys::{self, IndexEntry};
use crate::log::producers::ProducerState;
use crate::log::{aborted, open as open_transactions};
use crate::store::ReadOnly;
use crate::txn::{Phase, Txn, records as txn_records};
use crate::*;

/// The first bucket.
const LOG: Family = Family::Bucket(1);

const PLAIN: i16 = 0;
const TRANSACTIONAL: i16 = 1 << 4;

async fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_path_buf(), ..BrokerConfig::default() };
    Broker::open(config, Clock::manual(100_000)).await.unwrap()
}

fn records(values: &[(&str, &str)]) -> Batch {
    let mut builder = BatchBuilder::new();
    values.iter().for_each(|(key, value)| builder.push(5, Some(key.as_bytes()), Some(value.as_bytes()), &[]));
    builder.build().unwrap()
}

fn written_by(batch: &Batch, producer: ProducerId, sequence: i32, attributes: i16) -> Batch {
    let mut bytes = batch.bytes().to_vec();
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    bytes[51..53].copy_from_slice(&0_i16.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    batch::write_crc(&mut bytes);
    Batch::parse(bytes.into()).unwrap()
}

/// A store that has one of everything.
struct Filled {
    broker: Arc<Broker>,
    topic: Arc<Topic>,
}

impl Filled {
    async fn new(dir: &Path) -> Self {
        let broker = open(dir).await;
        let new = |name: &str, config: &[(&str, &str)]| NewTopic {
            name: name.into(),
            partitions: 2,
            config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let gone = broker.catalog().ensure(new("gone", &[])).await.unwrap();
        let topic = broker.catalog().ensure(new("t", &[])).await.unwrap();
        let eager = [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0")];
        let compacted = broker.catalog().ensure(new("compacted", &eager)).await.unwrap();
        let filled = Self { broker, topic };
        let [first, second] = [0, 1].map(|index| filled.topic.partition(index).unwrap());
        let one = records(&[("k", "v")]);
        filled.append(&first, records(&[("a", "1"), ("b", "2")])).await;
        filled.append(&first, written_by(&one, 7, 0, PLAIN)).await;
        filled.append(&first, written_by(&records(&[("a", "1"), ("b", "2")]), 7, 1, PLAIN)).await;
        filled.append(&first, written_by(&one, 9, 0, TRANSACTIONAL)).await;
        filled.end(&first, 9, false).await;
        filled.append(&first, written_by(&one, 9, 1, TRANSACTIONAL)).await;
        filled.end(&first, 9, true).await;
        filled.append(&first, written_by(&one, 11, 0, TRANSACTIONAL)).await;
        filled.append(&first, one.clone()).await;
        for _ in 0..4 {
            filled.append(&second, one.clone()).await;
        }
        filled.append(&gone.partition(1).unwrap(), one.clone()).await;
        filled.broker.catalog().delete("gone").await.unwrap();
        let compacted = compacted.partition(0).unwrap();
        for (time, key) in [(10, "a"), (20, "b"), (30, "a"), (40, "c")] {
            let mut builder = BatchBuilder::new();
            builder.push(time, Some(key.as_bytes()), Some(b"v"), &[]);
            filled.append(&compacted, builder.build().unwrap()).await;
        }
        filled.broker.compact().await.unwrap();
        let start = Change::LogStart(second, 1);
        filled.commit(vec![start, filled.transactional_id(Phase::Ongoing), filled.group_offset(0, 11)]).await;
        filled
    }

    async fn commit(&self, changes: Vec<Change>) {
        self.broker.lane().commit(changes, Ack::Durable).await.unwrap();
    }

    async fn append(&self, partition: &Arc<Partition>, batch: Batch) {
        let mut changes = Vec::new();
        if batch.is_transactional() {
            changes.push(Change::Admit(partition.clone(), (batch.producer_id(), 0), false));
            self.commit(std::mem::take(&mut changes)).await;
        }
        changes.push(Change::Append(Append { partition: partition.clone(), batch, origin: Origin::Client }));
        self.commit(changes).await;
    }

    async fn end(&self, partition: &Arc<Partition>, producer: ProducerId, committed: bool) {
        let batch = transaction_marker((producer, 0), committed, 0, 100_000);
        let origin = Origin::Marker(Marker { committed, coordinator_epoch: 0, by_admin: false });
        self.commit(vec![Change::Append(Append { partition: partition.clone(), batch, origin })]).await;
    }

    fn id(&self, partition: PartitionIndex) -> LogId {
        self.topic.partition(partition).unwrap().id()
    }

    fn transactional_id(&self, phase: Phase) -> Change {
        let txn = Txn {
            phase,
            epoch: 0,
            places: [(self.topic.id(), 0)].into(),
            timeout_ms: i32::MAX,
            started_at: 100_000,
            ..Txn::new(11, 1)
        };
        Change::Put(Family::Txns, txn_records::key("x"), txn_records::encode(&txn))
    }

    fn group_offset(&self, partition: PartitionIndex, offset: Offset) -> Change {
        let committed =
            Committed { offset, leader_epoch: -1, metadata: "".into(), committed_at: 1, expires_at: None, number: 0 };
        let key = group_records::offset_key("g", self.topic.id(), partition);
        Change::Put(Family::Groups, key, group_records::encode_offset(&committed))
    }

    fn get(&self, family: Family, key: &[u8]) -> Vec<u8> {
        self.broker.store().get(family, key).unwrap().unwrap()
    }

    fn key(&self, partition: PartitionIndex, base: Offset) -> Vec<u8> {
        keys::batch_key(self.id(partition), base).to_vec()
    }

    /// Changes the index entry of a batch.
    fn reindexed(&self, partition: PartitionIndex, base: Offset, edit: impl FnOnce(&mut IndexEntry)) -> Change {
        let key = self.key(partition, base);
        let mut entry = IndexEntry::decode(&self.get(Family::Index, &key)).unwrap();
        edit(&mut entry);
        Change::Put(Family::Index, key, entry.encode().to_vec())
    }

    /// Changes a byte of a value.
    fn flipped(&self, family: Family, key: Vec<u8>, at: usize) -> Change {
        let mut value = self.get(family, &key);
        value[at] ^= 0x10;
        Change::Put(family, key, value)
    }
}

type Told = (String, Option<String>, Option<(Offset, Offset)>);

fn findings(dir: &Path) -> Vec<Finding> {
    let opened = ReadOnly::open(dir).unwrap();
    let mut check = Check::new(&opened.store, 10, &|_| {});
    let logs = check.broker(&opened);
    assert!(check.figures.topics > 0 && !logs.spans.is_empty() || check.findings.wrong() > 0);
    check.findings.kept().to_vec()
}

fn told(findings: &[Finding]) -> Vec<Told> {
    let place = |place: &Place| {
        let partition = place.topic.as_ref().map(|topic| format!("{topic}-{}", place.partition.unwrap_or(-1)));
        partition.or(place.subject.clone())
    };
    findings.iter().map(|one| (one.kind.name.to_owned(), place(&one.place), one.place.offsets)).collect()
}

fn all_bytes(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_in_a_sound_store_and_no_byte_changes() {
    let dir = tempfile::tempdir().unwrap();
    let filled = Filled::new(dir.path()).await;
    let log = filled.broker.catalog().topic("compacted").unwrap().partition(0).unwrap();
    assert!(log.compacted_to() > 0, "compaction has been there");
    // as after kill -9: nothing is written behind the last commit
    filled.broker.lane().stop();
    drop((filled, log));
    let before = all_bytes(&dir.path().join("store"));
    assert_eq!(told(&findings(dir.path())), []);
    assert_eq!(all_bytes(&dir.path().join("store")), before);
    // and after a start in which everything gets a new leader epoch
    let broker = open(dir.path()).await;
    broker.stop().await.unwrap();
    drop(broker);
    assert_eq!(told(&findings(dir.path())), []);
}

/// What is changed, and what is to be found then.
type Case = (Vec<Change>, &'static str, &'static str, Option<(Offset, Offset)>);

fn log_cases(f: &Filled) -> Vec<Case> {
    let (zero, one) = (f.id(0), f.id(1));
    let state = |clean_to| CleanState { clean_to, ..CleanState::default() }.encode().to_vec();
    let both = |base| vec![Change::Delete(LOG, f.key(1, base)), Change::Delete(Family::Index, f.key(1, base))];
    let offset = |offset: i64| offset.to_be_bytes().to_vec();
    vec![
        (vec![f.flipped(LOG, f.key(0, 0), 70)], "batch damaged", "t-0", Some((0, 1))),
        (vec![Change::Delete(LOG, f.key(0, 0))], "batch missing", "t-0", Some((0, 1))),
        (vec![Change::Delete(Family::Index, f.key(0, 10))], "batch without index", "t-0", Some((10, 10))),
        (both(2), "offsets missing", "t-1", Some((2, 2))),
        (
            vec![Change::Put(Family::Index, f.key(0, 0), b"no entry".to_vec())],
            "index entry damaged",
            "t-0",
            Some((0, 0)),
        ),
        (vec![f.reindexed(0, 0, |entry| entry.attributes |= 1)], "index differs from batch", "t-0", Some((0, 1))),
        (vec![f.reindexed(1, 2, |entry| entry.running_bytes += 1)], "running figures wrong", "t-1", Some((2, 3))),
        (vec![f.reindexed(1, 3, |entry| entry.running_timestamp = 9)], "running figures wrong", "t-1", Some((3, 3))),
        (
            vec![Change::Put(Family::Meta, keys::epoch_key(one, 3), offset(2))],
            "leader epoch wrong",
            "t-1",
            Some((2, 3)),
        ),
        (vec![f.flipped(Family::Meta, keys::segment_key(zero), 8)], "segment wrong", "t-0", Some((16, 16))),
        (vec![f.flipped(Family::Meta, keys::segment_key(zero), 32)], "segment wrong", "t-0", Some((0, 1))),
        (vec![Change::Put(Family::Meta, keys::floor_key(one), offset(2))], "bounds wrong", "t-1", None),
        (vec![Change::Put(Family::Meta, keys::log_start_key(one), vec![1])], "bounds wrong", "t-1", None),
        (vec![Change::Put(Family::Meta, keys::compaction_key(one), state(9))], "bounds wrong", "t-1", Some((4, 4))),
        (
            vec![Change::Put(Family::Compacted, f.key(0, 0), f.get(LOG, &f.key(0, 0)))],
            "batch in two families",
            "t-0",
            Some((0, 1)),
        ),
        (
            vec![
                Change::Put(Family::Log, f.key(0, 10), f.get(LOG, &f.key(0, 10))),
                f.reindexed(0, 10, |entry| entry.bucket = 0),
            ],
            "buckets out of order",
            "t-0",
            Some((10, 10)),
        ),
        (vec![Change::Put(Family::Log, f.key(1, 0), vec![1])], "left below the log start", "t-1", Some((0, 0))),
        (vec![Change::Put(LOG, [&f.key(1, 0)[..], &[0]].concat(), vec![])], "foreign keys", "t-1", None),
    ]
}

fn owner_cases(f: &Filled) -> Vec<Case> {
    let (zero, meta) = (f.id(0), Family::Meta);
    let producer = keys::producer_key(zero, 7).to_vec();
    let edited = |edit: fn(&mut ProducerState)| {
        let mut state = ProducerState::decode(&f.get(Family::Producers, &producer)).unwrap();
        edit(&mut state);
        Change::Put(Family::Producers, producer.clone(), state.encode())
    };
    let aborted = |marker| Aborted { producer_id: 9, first: 5, marker, stable_after: marker };
    let differs = "producer differs from log";
    vec![
        (vec![edited(|state| state.kept[1].last += 1)], differs, "t-0", Some((3, 4))),
        (vec![edited(|state| state.kept.truncate(1))], differs, "t-0", Some((3, 3))),
        (vec![edited(|state| (state.epoch, state.kept) = (-1, vec![]))], differs, "t-0", Some((3, 3))),
        (vec![Change::Put(Family::Producers, producer.clone(), vec![9])], "producer damaged", "t-0", None),
        (
            vec![Change::Delete(Family::Txns, open_transactions::key(zero, 11))],
            "open transaction differs from log",
            "t-0",
            Some((9, 9)),
        ),
        (
            vec![Change::Put(Family::Txns, open_transactions::key(zero, 11), open_transactions::encode(0, 8))],
            "open transaction differs from log",
            "t-0",
            Some((8, 8)),
        ),
        (
            vec![Change::Delete(Family::Txns, aborted::key(zero, 6))],
            "aborted transaction differs from log",
            "t-0",
            Some((6, 6)),
        ),
        (
            vec![Change::Put(Family::Txns, aborted::key(zero, 8), aborted(8).encode())],
            "aborted transaction differs from log",
            "t-0",
            Some((8, 8)),
        ),
        (
            vec![Change::Put(Family::Txns, aborted::key(zero, 7), aborted(7).encode())],
            "aborted transaction differs from log",
            "t-0",
            Some((7, 7)),
        ),
        (
            vec![Change::Delete(Family::Txns, txn_records::key("x"))],
            "transaction that nobody ends",
            "t-0",
            Some((9, 9)),
        ),
        (
            vec![Change::Put(Family::Txns, txn_records::key("y"), vec![1])],
            "transactional id damaged",
            "a transactional id",
            None,
        ),
        (vec![f.group_offset(1, 99)], "offset never written", "t-1", Some((99, 99))),
        (vec![f.group_offset(2, 0)], "offset never written", "group g", None),
        (vec![Change::Put(Family::Groups, vec![1], vec![9])], "group damaged", "a group", None),
        (
            vec![Change::Put(Family::Log, keys::batch_key(LogId(99), 0).to_vec(), vec![])],
            "data of no topic",
            "log-99",
            None,
        ),
        (vec![Change::Put(meta, keys::epoch_key(LogId(1), 1), vec![])], "data of no topic", "log-1", None),
        (vec![Change::Put(meta, b"next-log-id".to_vec(), vec![0, 0, 0, 6])], "id given twice", "compacted-1", None),
        (vec![Change::Put(meta, b"aclx".to_vec(), vec![9])], "damaged", "security", None),
        (vec![Change::Put(meta, b"schema-textx".to_vec(), vec![9])], "damaged", "schemas", None),
        (vec![Change::Put(meta, b"set-x".to_vec(), vec![9])], "damaged", "settings", None),
        (vec![Change::Put(meta, b"topicbad".to_vec(), b"{}".to_vec())], "topic damaged", "bad", None),
    ]
}

async fn check_each(cases: fn(&Filled) -> Vec<Case>) {
    let count = {
        let dir = tempfile::tempdir().unwrap();
        cases(&Filled::new(dir.path()).await).len()
    };
    for number in 0..count {
        let dir = tempfile::tempdir().unwrap();
        let filled = Filled::new(dir.path()).await;
        let (changes, kind, place, offsets) = cases(&filled).remove(number);
        filled.commit(changes).await;
        filled.broker.stop().await.unwrap();
        drop(filled);
        let expected = (kind.to_owned(), Some(place.to_owned()), offsets);
        let found = findings(dir.path());
        assert_eq!(told(&found), [expected], "case {number}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_of_a_log_is_found_and_nothing_else() {
    check_each(log_cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_of_writers_and_readers_is_found_and_nothing_else() {
    check_each(owner_cases).await;
}

/// A byte of one batch flips on the disk: that one is named, and all others are looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_block_is_named_by_the_offsets_that_it_had() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let filled = Filled::new(dir.path()).await;
    let second = filled.topic.partition(1).unwrap();
    for number in 0..8 {
        let value = format!("batch {number}").repeat(20_000);
        filled.append(&second, records(&[("k", &value), ("l", "")])).await;
    }
    filled.broker.store().checkpoint(&copy.path().join("store")).unwrap();
    assert_eq!(told(&findings(copy.path())), []);
    let named = |number: i64| Some((4 + 2 * number, 5 + 2 * number));
    for (numbers, offsets) in [(vec![2], vec![named(2)]), (vec![4, 5], vec![named(2), Some((12, 15))])] {
        for file in std::fs::read_dir(copy.path().join("store")).unwrap().map(|entry| entry.unwrap().path()) {
            let mut bytes = std::fs::read(&file).unwrap();
            for number in &numbers {
                let text = format!("batch {number}batch");
                let found = bytes.windows(text.len()).position(|part| part == text.as_bytes());
                if let Some(at) = found.filter(|_| file.extension().is_some_and(|end| end == "sst")) {
                    bytes[at + 1_001] ^= 1; // not a digit, which would make it look like another one
                    std::fs::remove_file(&file).unwrap(); // it is linked to the store that it was copied of
                    std::fs::write(&file, &bytes).unwrap();
                }
            }
        }
        let found = findings(copy.path());
        let expected: Vec<Told> =
            offsets.into_iter().map(|offsets| ("batch unreadable".into(), Some("t-1".into()), offsets)).collect();
        assert_eq!(told(&found), expected, "{found:?}");
        assert!(found[0].what.contains("checksum"), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |dir: &Path| ReadOnly::open(dir).err().map(|error| (error.kind, error.message));
    assert!(refused(dir.path()).unwrap().1.contains("is no data directory of millpond"));
    let filled = Filled::new(dir.path()).await;
    let newer = Change::Put(Family::Meta, store::FORMAT_KEY.to_vec(), 9_u32.to_be_bytes().to_vec());
    filled.commit(vec![newer]).await;
    filled.broker.lane().stop();
    drop(filled);
    assert!(refused(dir.path()).unwrap().1.contains("has format 9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_topic_has_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let filled = Filled::new(dir.path()).await;
    let orphan = |log: u32| {
        let put = |family, key: &[u8]| Change::Put(family, key.to_vec(), vec![1]);
        let key = keys::batch_key(LogId(log), 3);
        vec![
            put(Family::Log, &key),
            put(Family::Compacted, &key),
            put(Family::Index, &key),
            put(Family::Producers, &key),
            put(Family::Txns, &aborted::key(LogId(log), 3)),
            put(Family::Txns, &open_transactions::key(LogId(log), 3)),
            put(Family::Meta, &keys::epoch_key(LogId(log), 3)),
            put(Family::Meta, &keys::segment_key(LogId(log))),
        ]
    };
    let count = |filled: &Filled| {
        Family::ALL.map(|family| filled.broker.store().scan(family, &[], &[0xff; 40]).count()).iter().sum::<usize>()
    };
    let before = count(&filled);
    filled.commit([0, 2, u32::MAX - 1].into_iter().flat_map(orphan).collect()).await;
    let topic = Change::Put(Family::Meta, b"topicbad".to_vec(), b"{}".to_vec());
    filled.commit(vec![topic]).await;
    filled.broker.lane().stop();
    drop(filled);
    assert!(
        remove_orphans(dir.path()).unwrap_err().message.contains("nothing is removed"),
        "they may be the bad topic's"
    );
    assert_eq!(told(&findings(dir.path())), [("topic damaged".into(), Some("bad".into()), None)]);
    let store = Store::open(&BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() }).unwrap();
    let mut writes = store::Writes::new(&store);
    writes.delete(Family::Meta, b"topicbad");
    store.write(writes).unwrap();
    drop(store);
    let found = told(&findings(dir.path()));
    let named = |log: u32| ("data of no topic".to_owned(), Some(format!("log-{log}")), None);
    assert_eq!(found, [named(0), named(2), named(u32::MAX - 1)]);
    assert_eq!(remove_orphans(dir.path()).unwrap(), [LogId(0), LogId(2), LogId(u32::MAX - 1)].into());
    assert_eq!(told(&findings(dir.path())), []);
    let broker = open(dir.path()).await;
    let topic = broker.catalog().topic("t").unwrap();
    let after = count(&Filled { broker, topic });
    // the start was after an unclean end: a leader epoch for each partition
    assert_eq!(after, before + 4);
}

/// What a flush has not written into files yet is in the write-ahead log alone. A crash may cut it off; damage before its end is told.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_write_ahead_log_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let filled = Filled::new(dir.path()).await;
    for letter in ["a", "b", "c"] {
        filled.commit(vec![Change::Put(Family::State, vec![0xfe], letter.repeat(100).into_bytes())]).await;
    }
    filled.broker.lane().stop();
    drop(filled);
    let files = std::fs::read_dir(dir.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let log = logs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(told(&findings(dir.path())), [], "as a crash would leave it");
    let mut bytes = whole.clone();
    let second = bytes.windows(100).position(|part| part == [b'b'; 100]).unwrap();
    bytes[second] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let found = findings(dir.path());
    let name = log.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(told(&found), [("write-ahead log damaged".into(), Some(name.clone()), None)], "{found:?}");
    assert_eq!(found[0].kind.weight, Weight::Wrong);
    // without syncs a power cut may leave it so
    std::fs::write(dir.path().join("unsynced"), "").unwrap();
    let found = findings(dir.path());
    assert_eq!(told(&found), [("write-ahead log torn".into(), Some(name), None)], "{found:?}");
    assert_eq!(found[0].kind.weight, Weight::Note);
}
