//! Compaction against a brute-force model: random logs, random passes, crashes between the commits of a pass.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::commit::Fix;
use super::pass::{Commits, Limits, Pass, settle};
use super::survey::survey;
use super::{CleanState, finish_cut_pass};
use crate::codec::Compression;
use crate::log::buckets;
use crate::log::keys;
use crate::seed::seed;
use crate::*;

const NO_PACE: u64 = 1 << 40;
const LIMITS: Limits = Limits { keys_max: 1_000, fixes_max: 100, commits_max: u64::MAX };
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

async fn open(dir: &Path, clock: &Clock) -> Arc<Broker> {
    let config = BrokerConfig {
        data_dir: dir.to_path_buf(),
        tail_cache_bytes: 3_000,
        compaction_check_ms: 3_600_000,
        compaction_bytes_per_second: NO_PACE,
        ..BrokerConfig::default()
    };
    Broker::open(config, clock.clone()).await.unwrap()
}

async fn partition(broker: &Broker, settings: &[(&str, &str)]) -> Arc<Partition> {
    let config = settings.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
    let topic = broker.catalog().ensure(NewTopic { name: "t".into(), partitions: 1, config }).await.unwrap();
    topic.partition(0).unwrap()
}

/// Every batch is a segment of its own, and anything dirty is due.
const EAGER: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "1"),
    ("min.cleanable.dirty.ratio", "0"),
    ("delete.retention.ms", "1000"),
];

type Plain<'a> = (i64, Option<&'a str>, Option<&'a str>);

fn batch(records: &[Plain<'_>], codec: Compression) -> Batch {
    let mut builder = BatchBuilder::new();
    for (time, key, value) in records {
        builder.push(*time, key.map(str::as_bytes), value.map(str::as_bytes), &[(b"h", Some(b"x")), (b"h", None)]);
    }
    let plain = builder.build().unwrap();
    let section = plain.bytes().slice(batch::BATCH_HEADER_BYTES..);
    plain.with_records(&batch::NewRecords {
        codec,
        records: codec.compress(section, None).unwrap(),
        count: plain.record_count(),
        max_timestamp: plain.max_timestamp(),
        append_time: false,
        horizon: None,
    })
}

fn from_producer(batch: &Batch, producer: i64, sequence: i32) -> Batch {
    let mut bytes = batch.bytes().to_vec();
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    bytes[51..53].copy_from_slice(&0_i16.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    batch::write_crc(&mut bytes);
    Batch::parse(bytes.into()).unwrap()
}

async fn append(broker: &Broker, partition: &Arc<Partition>, batch: Batch) -> Offset {
    let append = Append { partition: partition.clone(), batch, origin: Origin::Client };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap()[0].base_offset
}

async fn batches(partition: &Arc<Partition>) -> Vec<Batch> {
    let mut at = partition.log_start();
    let mut all: Vec<Batch> = Vec::new();
    while at < partition.high_watermark() {
        let read = partition.read(at, 700).await.unwrap();
        assert!(!read.is_empty(), "nothing at {at}, the log ends at {}", partition.high_watermark());
        at = read.last().unwrap().next_offset();
        all.extend(read);
    }
    all
}

/// Offset, time, key and value of every record that can be read.
async fn records(partition: &Arc<Partition>) -> Vec<(Offset, i64, Option<String>, Option<String>)> {
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    for batch in batches(partition).await {
        batch.check_crc().unwrap();
        for record in batch.records().unwrap().map(Result::unwrap).filter(|one| one.offset >= partition.log_start()) {
            assert_eq!(record.headers.len(), 2);
            all.push((record.offset, record.timestamp, record.key.map(text), record.value.map(text)));
        }
    }
    all
}

/// Index and batches say the same, and the figures add up.
async fn check_index(broker: &Broker, partition: &Arc<Partition>) {
    let stored = batches(partition).await;
    let (mut entries, mut bytes, mut before) = (0, 0, None);
    for (entry, batch) in partition.entries(partition.log_start()).zip(&stored) {
        let (base, entry) = entry.unwrap();
        assert_eq!((base, entry.size as usize), (batch.base_offset(), batch.bytes().len()));
        let newest = if batch.record_count() == 0 { -1 } else { batch.max_timestamp() };
        assert_eq!((entry.max_timestamp, entry.last_offset_delta), (newest, batch.last_offset_delta()));
        assert_eq!(entry.attributes & i16::MAX, batch.attributes());
        assert!(before.is_none_or(|before| entry.bytes_before() == before), "running bytes jump at {base}");
        before = Some(entry.running_bytes);
        bytes += i64::from(entry.size);
        entries += 1;
    }
    assert_eq!((entries, bytes), (stored.len(), partition.size_bytes() as i64));
    let (from, to) = keys::log_range(partition.id());
    let count = |family| broker.store().scan(family, &from, &to).map(Result::unwrap).count();
    assert_eq!(count(Family::Index), stored.len());
    for family in [Family::Log, Family::Compacted] {
        let named =
            partition.entries(partition.log_start()).filter(|entry| entry.as_ref().unwrap().1.family() == family);
        assert_eq!(count(family), named.count(), "{family:?} has what the index names, and no copies");
    }
}

/// The log as a plain list.
#[derive(Default)]
struct Model {
    records: Vec<ModelRecord>,
    /// By base offset.
    batches: BTreeMap<Offset, ModelBatch>,
    last_of: HashMap<i64, Offset>,
}

struct ModelRecord {
    offset: Offset,
    base: Offset,
    time: i64,
    key: Option<String>,
    value: Option<String>,
}

struct ModelBatch {
    next: Offset,
    horizon: Option<i64>,
    producer: i64,
}

impl Model {
    fn append(&mut self, base: Offset, producer: i64, records: &[Plain<'_>]) {
        for (at, (time, key, value)) in records.iter().enumerate() {
            self.records.push(ModelRecord {
                offset: base + at as i64,
                base,
                time: *time,
                key: key.map(str::to_owned),
                value: value.map(str::to_owned),
            });
        }
        let next = base + records.len() as i64;
        self.batches.insert(base, ModelBatch { next, horizon: None, producer });
        if producer >= 0 {
            self.last_of.insert(producer, base);
        }
    }

    /// Everything below `end` is the newest of its key below `end`.
    fn compact(&mut self, end: Offset, now: i64, delete_retention_ms: i64) {
        let mut newest = HashMap::new();
        for record in self.records.iter().filter(|record| record.offset < end) {
            if let Some(key) = &record.key {
                newest.insert(key.clone(), record.offset);
            }
        }
        let batches = &mut self.batches;
        self.records.retain(|record| {
            let passed = batches[&record.base].horizon.is_some_and(|horizon| horizon <= now);
            let Some(key) = record.key.as_ref().filter(|_| record.offset < end) else { return record.offset >= end };
            newest[key] == record.offset && (record.value.is_some() || !passed)
        });
        for (base, batch) in batches.range_mut(..end) {
            let tombstone = self.records.iter().any(|record| record.base == *base && record.value.is_none());
            if tombstone && batch.horizon.is_none() {
                batch.horizon = Some(now + delete_retention_ms);
            }
        }
        let left: std::collections::BTreeSet<Offset> = self.records.iter().map(|record| record.base).collect();
        let last_of = &self.last_of;
        self.batches.retain(|base, batch| left.contains(base) || last_of.get(&batch.producer) == Some(base));
    }

    fn delete_before(&mut self, start: Offset) {
        self.batches.retain(|_, batch| batch.next > start);
        self.records.retain(|record| record.offset >= start);
    }
}

struct Run {
    random: StdRng,
    clock: Clock,
    model: Model,
    sequences: HashMap<i64, i32>,
    versions: u32,
}

impl Run {
    async fn append(&mut self, broker: &Broker, partition: &Arc<Partition>, keys: u32, null_keys: bool) {
        let count = self.random.random_range(1..8);
        let now = self.clock.now_ms();
        let mut texts = Vec::new();
        for _ in 0..count {
            self.versions += 1;
            let key = format!("key {}", self.random.random_range(0..keys));
            let key = (!null_keys || self.random.random_range(0..4) > 0).then_some(key);
            let value = format!("{} {}", self.versions, "x".repeat(self.random.random_range(0..60)));
            texts.push((key, (self.random.random_range(0..4) > 0).then_some(value)));
        }
        let plain: Vec<Plain<'_>> = texts
            .iter()
            .map(|(key, value)| (now - self.random.random_range(0..3), key.as_deref(), value.as_deref()))
            .collect();
        let mut batch = batch(&plain, CODECS[self.random.random_range(0..CODECS.len())]);
        let producer = self.random.random_range(-1..3);
        if producer >= 0 {
            let sequence = self.sequences.entry(producer).or_default();
            batch = from_producer(&batch, producer, *sequence);
            *sequence += count;
        }
        let base = append(broker, partition, batch).await;
        self.model.append(base, producer, &plain);
        self.clock.advance(5);
    }

    async fn compare(&self, broker: &Broker, partition: &Arc<Partition>) {
        let expected: Vec<_> = self
            .model
            .records
            .iter()
            .map(|record| (record.offset, record.time, record.key.clone(), record.value.clone()))
            .collect();
        assert_eq!(records(partition).await, expected);
        let bases: Vec<Offset> = batches(partition).await.iter().map(Batch::base_offset).collect();
        assert_eq!(bases, self.model.batches.keys().copied().collect::<Vec<_>>());
        check_index(broker, partition).await;
        if let Some(newest) = expected.iter().map(|(_, time, ..)| *time).max() {
            for target in [0, newest / 2, newest - 3, newest, newest + 1] {
                let found =
                    expected.iter().find(|(_, time, ..)| *time >= target).map(|(offset, time, ..)| (*offset, *time));
                assert_eq!(partition.offset_for_timestamp(target).await.unwrap(), found, "first at or after {target}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_logs_are_compacted_as_the_model_says() {
    let mut random = StdRng::seed_from_u64(seed("compaction"));
    for _ in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let run = Run {
            random: StdRng::seed_from_u64(random.random()),
            clock: Clock::manual(1_000_000),
            model: Model::default(),
            sequences: HashMap::new(),
            versions: 0,
        };
        random_log(dir.path(), run).await;
    }
}

async fn random_log(dir: &Path, mut run: Run) {
    let mut broker = open(dir, &run.clock).await;
    let mut settings = EAGER;
    let late = run.random.random_range(0..2) == 0; // the topic becomes a compacted one later
    if late {
        settings[0].1 = "delete";
    }
    let mut log = partition(&broker, &settings).await;
    for round in 0..12 {
        for _ in 0..run.random.random_range(1..12) {
            run.append(&broker, &log, 12, late && round == 0).await;
        }
        if round == 0 {
            let policy = if run.random.random_range(0..2) == 0 { "compact" } else { "compact,delete" };
            let overrides = [("cleanup.policy", policy), settings[1], settings[2], settings[3]];
            let overrides = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            broker.catalog().set_config("t", overrides).await.unwrap();
        }
        let mut hold = broker.holds().register("test");
        let floor = run.random.random_range(log.log_start()..=log.high_watermark());
        let held = run.random.random_range(0..3) == 0;
        if held {
            hold.set(log.id(), floor);
        }
        let limits = Limits {
            keys_max: if run.random.random_range(0..2) == 0 { 5 } else { 1_000 },
            fixes_max: run.random.random_range(1..6),
            commits_max: if run.random.random_range(0..3) == 0 { run.random.random_range(0..6) } else { u64::MAX },
        };
        let now = run.clock.now_ms();
        let mut cut = false;
        while let Some(due) = survey(&log, broker.holds().floor(log.id()), now).unwrap() {
            let sealed = log.active_segment_base().min(if held { floor } else { Offset::MAX });
            assert_eq!(due.to, sealed);
            let made = Pass::new(&broker, &log, (due, limits)).make().await;
            let clean_to = log.compaction().clean_to;
            if made.is_err() {
                cut = true;
                break;
            }
            assert!(clean_to > due.from && (clean_to == due.to || limits.keys_max == 5), "{due:?} clean to {clean_to}");
            run.model.compact(clean_to, now, 1_000);
        }
        if cut {
            check_cut(&run, &log).await;
            broker.lane().stop(); // ends the writer without the clean mark, as a crash does
            drop((broker, log));
            broker = open(dir, &run.clock).await;
            hold = broker.holds().register("test");
            log = partition(&broker, &[]).await;
            check_cut(&run, &log).await;
            finish_cut_pass(&broker, &log).await.unwrap();
            check_index(&broker, &log).await;
            broker.compact().await.unwrap();
            run.model.compact(log.compaction().clean_to, now, 1_000);
        }
        hold.clear(log.id());
        run.compare(&broker, &log).await;
        if log.config().deletes() && run.random.random_range(0..3) == 0 {
            let start = run.random.random_range(log.log_start()..=log.high_watermark() - 1);
            broker.lane().commit(vec![Change::LogStart(log.clone(), start)], Ack::Durable).await.unwrap();
            run.model.delete_before(log.log_start());
            run.compare(&broker, &log).await;
        }
        run.clock.advance(run.random.random_range(0..700));
    }
}

/// In the middle of a pass: the newest record of each key is there, everything that is there was written, in its place.
async fn check_cut(run: &Run, log: &Arc<Partition>) {
    let now = run.clock.now_ms();
    let found = records(log).await;
    let by_offset: BTreeMap<Offset, _> = run.model.records.iter().map(|record| (record.offset, record)).collect();
    let mut newest: BTreeMap<&str, &ModelRecord> = BTreeMap::new();
    for record in &run.model.records {
        newest.extend(record.key.as_deref().map(|key| (key, record)));
    }
    for (offset, time, key, value) in &found {
        let written = by_offset[offset];
        assert_eq!((&written.time, &written.key, &written.value), (time, key, value));
    }
    for record in newest.values() {
        let passed = run.model.batches[&record.base].horizon.is_some_and(|horizon| horizon <= now);
        let is_there = found.iter().any(|(offset, ..)| *offset == record.offset);
        assert!(is_there || record.value.is_none() && passed, "the newest record of {:?} is gone", record.key);
        if !is_there {
            let older = found.iter().find(|(offset, _, key, _)| *key == record.key && *offset < record.offset);
            assert_eq!(older, None, "what a tombstone deleted came back");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_stay_for_their_time_and_then_go() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(10_000);
    let broker = open(dir.path(), &clock).await;
    let log = partition(&broker, &EAGER).await;
    append(&broker, &log, batch(&[(10, Some("a"), Some("1")), (10, Some("b"), Some("1"))], Compression::Zstd)).await;
    append(&broker, &log, batch(&[(20, Some("a"), None)], Compression::None)).await;
    append(&broker, &log, batch(&[(30, Some("c"), Some("1"))], Compression::None)).await;
    append(&broker, &log, batch(&[(40, Some("d"), Some("1"))], Compression::None)).await;
    broker.compact().await.unwrap();
    let offsets = |records: Vec<(Offset, i64, Option<String>, Option<String>)>| {
        records.iter().map(|record| (record.0, record.1)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(records(&log).await), [(1, 10), (2, 20), (3, 30), (4, 40)]);
    let tombstone = &batches(&log).await[1];
    assert_eq!((tombstone.delete_horizon(), tombstone.max_timestamp()), (Some(11_000), 20));
    clock.advance(999);
    append(&broker, &log, batch(&[(50, Some("e"), Some("1"))], Compression::None)).await;
    broker.compact().await.unwrap();
    assert_eq!(records(&log).await.len(), 5);
    clock.advance(1);
    append(&broker, &log, batch(&[(60, Some("f"), Some("1"))], Compression::None)).await;
    broker.compact().await.unwrap();
    assert_eq!(offsets(records(&log).await), [(1, 10), (3, 30), (4, 40), (5, 50), (6, 60)]);
    assert_eq!(batches(&log).await[0].next_offset(), 2, "the batch still says where it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_follows_ratio_and_lags() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(100_000);
    let broker = open(dir.path(), &clock).await;
    let log = partition(&broker, &EAGER).await;
    let configure = async |settings: &[(&str, &str)]| {
        let all = EAGER.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        broker.catalog().set_config("t", all).await.unwrap();
    };
    let due = |floor| survey(&log, floor, clock.now_ms()).unwrap().map(|due| (due.from, due.to));
    assert_eq!(due(None), None);
    for time in [10_000, 20_000, 30_000, 40_000] {
        append(&broker, &log, batch(&[(time, Some("a"), Some("1"))], Compression::None)).await;
    }
    assert_eq!((due(None), due(Some(2)), due(Some(0))), (Some((0, 3)), Some((0, 2)), None));
    configure(&[("min.compaction.lag.ms", "75000")]).await;
    assert_eq!(due(None), Some((0, 2)), "what is younger than 75 s is safe");
    configure(&[("cleanup.policy", "delete")]).await;
    assert_eq!(due(None), None);
    configure(&[]).await;
    broker.compact().await.unwrap();
    assert_eq!((log.compaction().clean_to, records(&log).await.len()), (3, 2));
    append(&broker, &log, batch(&[(50_000, Some("a"), Some("1"))], Compression::None)).await;
    assert_eq!(due(None), Some((3, 4)));
    configure(&[("min.cleanable.dirty.ratio", "0.5")]).await;
    assert_eq!(due(None), None, "half of the log is dirty, which is not more than half");
    configure(&[("min.cleanable.dirty.ratio", "0.5"), ("max.compaction.lag.ms", "60000")]).await;
    assert_eq!(due(None), None);
    clock.advance(1);
    assert_eq!(due(None), Some((3, 4)), "overdue");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_every_newest_record_while_passes_run() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let broker = open(dir.path(), &clock).await;
    // in `log` first, so that the pass moves batches from one family to the other under the readers
    let log = partition(&broker, &[("segment.ms", "1")]).await;
    for n in 0..400_i64 {
        let (churn, keep, value) = (format!("churn {}", n % 7), format!("keep {n}"), "v".repeat(50));
        let plain = [(n * 10, Some(churn.as_str()), Some(value.as_str())), (n * 10, Some(keep.as_str()), Some("v"))];
        append(&broker, &log, batch(&plain, CODECS[n as usize % 5])).await;
    }
    let settings = EAGER.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    broker.catalog().set_config("t", settings).await.unwrap();
    let reader = tokio::spawn({
        let log = log.clone();
        async move {
            let mut reads = 0;
            while log.compaction().clean_to == 0 || reads == 0 {
                let kept = records(&log).await.iter().filter(|record| record.0 % 2 == 1).count();
                assert_eq!(kept, 400, "a live record was not seen");
                reads += 1;
            }
            reads
        }
    });
    let due = survey(&log, None, clock.now_ms()).unwrap().unwrap();
    Pass::new(&broker, &log, (due, Limits { fixes_max: 3, ..LIMITS })).make().await.unwrap();
    assert!(reader.await.unwrap() > 0);
    assert_eq!(records(&log).await.len(), 407 + 1, "the active segment keeps what it has");
    check_index(&broker, &log).await;
    let state = log.compaction();
    let commits = Commits::new(&broker, &log, LIMITS);
    settle(&commits, state.clean_to, CleanState { ..state }).await.unwrap();
    check_index(&broker, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let broker = open(dir.path(), &clock).await;
    let mut settings = EAGER;
    settings[1] = ("segment.bytes", "1048576");
    let log = partition(&broker, &settings).await;
    let mut random = StdRng::seed_from_u64(seed("disk space"));
    let mut write = async |megabytes: i64| {
        for n in 0..megabytes {
            let value: String = (0..500_000).map(|_| char::from(random.random_range(b' '..b'~'))).collect();
            let keys = [format!("key {}", n % 4), format!("other {}", n % 3)];
            let plain = [(n, Some(keys[0].as_str()), Some(value.as_str())), (n, Some(keys[1].as_str()), Some(&value))];
            append(&broker, &log, batch(&plain, Compression::None)).await;
        }
    };
    write(60).await;
    let full = log.size_bytes();
    broker.compact().await.unwrap();
    let (left, disk) = (log.size_bytes(), broker.store().disk_bytes(Family::Compacted));
    assert!(full > 59_000_000 && left < 9_000_000, "{full} bytes became {left}");
    assert!(disk < left + (4 << 20), "{left} bytes of batches take {disk} on disk");
    assert_eq!(records(&log).await.len(), 7 + 2);
    check_index(&broker, &log).await;
}

#[tokio::test]
async fn a_pace_that_is_set_acts_on_the_pass_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let broker = open(dir.path(), &clock).await;
    let set_pace = async |pace: &str| {
        let pace = [("log.cleaner.io.max.bytes.per.second".to_owned(), pace.to_owned())].into();
        broker.change_settings(settings::Resource::AllBrokers, |_| Ok(pace)).await.unwrap();
    };
    let log = partition(&broker, &EAGER).await;
    for n in 0..100 {
        append(&broker, &log, batch(&[(10 * n, Some("k"), Some("v"))], Compression::None)).await;
    }
    let left = log.size_bytes() / 20;
    set_pace("1").await;
    let compacting = broker.clone();
    let mut pass = tokio::spawn(async move { compacting.compact().await });
    let ended = tokio::time::timeout(Duration::from_millis(200), &mut pass).await;
    assert!(ended.is_err() && log.size_bytes() > left, "thousands of bytes were not read at one in a second");
    set_pace("1e12").await;
    tokio::time::timeout(Duration::from_secs(60), pass).await.unwrap().unwrap().unwrap();
    assert!(log.size_bytes() <= left, "{} bytes are left", log.size_bytes());
}

/// Writes a batch of one producer's transaction, or its end.
async fn in_transaction(broker: &Broker, log: &Arc<Partition>, (producer, sequence): (i64, i32), record: Plain<'_>) {
    let mut bytes = from_producer(&batch(&[record], Compression::Zstd), producer, sequence).bytes().to_vec();
    bytes[22] |= 1 << 4;
    batch::write_crc(&mut bytes);
    let batch = Batch::parse(bytes.into()).unwrap();
    let append = Append { partition: log.clone(), batch, origin: Origin::Client };
    broker.lane().commit(vec![Change::Admit(log.clone(), (producer, 0), false)], Ack::Durable).await.unwrap();
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

async fn end_transaction(broker: &Broker, log: &Arc<Partition>, producer: i64, committed: bool) {
    let batch = crate::builder::transaction_marker((producer, 0), committed, 0, broker.clock().now_ms());
    let origin = Origin::Marker(Marker { committed, coordinator_epoch: 0, by_admin: false });
    let append = Append { partition: log.clone(), batch, origin };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_go_and_markers_follow_when_nothing_is_left_of_their_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(10_000);
    let broker = open(dir.path(), &clock).await;
    let log = partition(&broker, &EAGER).await;
    let tick = || {
        clock.advance(5);
        clock.now_ms()
    };
    let bases = async || batches(&log).await.iter().map(Batch::base_offset).collect::<Vec<_>>();
    let committed = async || {
        let mut keys = Vec::new();
        for batch in log.read_committed(0, 1 << 20).await.unwrap() {
            keys.extend(
                batch.records().unwrap().map(|one| String::from_utf8(one.unwrap().key.unwrap().to_vec()).unwrap()),
            );
        }
        keys.concat()
    };
    in_transaction(&broker, &log, (1, 0), (tick(), Some("a"), Some("1"))).await;
    tick();
    end_transaction(&broker, &log, 1, true).await;
    in_transaction(&broker, &log, (2, 0), (tick(), Some("a"), Some("aborted"))).await;
    tick();
    end_transaction(&broker, &log, 2, false).await;
    in_transaction(&broker, &log, (2, 1), (tick(), Some("z"), Some("1"))).await;
    tick();
    end_transaction(&broker, &log, 2, true).await;
    in_transaction(&broker, &log, (1, 1), (tick(), Some("a"), Some("2"))).await;
    tick();
    end_transaction(&broker, &log, 1, true).await;
    in_transaction(&broker, &log, (3, 0), (tick(), Some("c"), Some("open"))).await;
    append(&broker, &log, batch(&[(tick(), Some("a"), Some("3"))], Compression::None)).await;
    append(&broker, &log, batch(&[(tick(), Some("e"), Some("1"))], Compression::None)).await;
    assert_eq!(survey(&log, None, clock.now_ms()).unwrap().map(|due| due.to), Some(8), "up to the open transaction");
    broker.compact().await.unwrap();
    assert_eq!(bases().await, [1, 3, 4, 5, 6, 7, 8, 9, 10], "the aborted record does not count as newer");
    assert_eq!(committed().await, "za");
    tick();
    end_transaction(&broker, &log, 3, true).await;
    append(&broker, &log, batch(&[(tick(), Some("f"), Some("1"))], Compression::None)).await;
    broker.compact().await.unwrap();
    assert_eq!(bases().await, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "6 is its producer's last batch and stays empty");
    let horizons: Vec<bool> = batches(&log).await.iter().map(|batch| batch.delete_horizon().is_some()).collect();
    assert_eq!(horizons.iter().filter(|has| **has).count(), 2, "{horizons:?}");
    assert_eq!((committed().await.as_str(), log.aborted_between(0, 20).await.unwrap().len()), ("zcaef", 1));
    clock.advance(1_000);
    append(&broker, &log, batch(&[(tick(), Some("g"), Some("1"))], Compression::None)).await;
    broker.compact().await.unwrap();
    assert_eq!(bases().await, [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert_eq!((committed().await.as_str(), log.aborted_between(0, 20).await.unwrap().len()), ("zcaefg", 0));
    check_index(&broker, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_meanwhile_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(10_000)).await;
    let mut settings = EAGER;
    settings[0].1 = "compact,delete";
    let log = partition(&broker, &settings).await;
    for time in 0..6 {
        append(&broker, &log, batch(&[(time * 10, Some("a"), Some("1"))], Compression::None)).await;
    }
    let old = log.entries(0).next().unwrap().unwrap().1;
    let first = batches(&log).await.remove(0);
    let state = CleanState { clean_to: 0, pass_end: 5, touched_to: 5 };
    let fixes = vec![Fix::Replace(first, old), Fix::Running(1, old)];
    let change = Compacted { partition: log.clone(), fixes, state, tail_until: 5 };
    let changes = vec![Change::LogStart(log.clone(), 3), Change::Compact(change)];
    broker.lane().commit(changes, Ack::Durable).await.unwrap();
    finish_cut_pass(&broker, &log).await.unwrap();
    check_index(&broker, &log).await;
    assert_eq!((batches(&log).await.len(), log.compacted_to(), log.compaction().pass_end), (3, 5, 0));
}

/// The start of such a store does not compact; but retention by bytes goes by what a cut pass left wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_pass_is_finished_where_a_damaged_file_keeps_the_store_from_merging() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(10_000)).await;
    let log = partition(&broker, &EAGER).await;
    for time in 0..6 {
        append(&broker, &log, batch(&[(time * 10, Some("a"), Some("1"))], Compression::None)).await;
    }
    let wrong = keys::IndexEntry { running_bytes: 1, ..log.entries(1).next().unwrap().unwrap().1 };
    let state = CleanState { clean_to: 0, pass_end: 5, touched_to: 5 };
    let change = Compacted { partition: log.clone(), fixes: vec![Fix::Running(1, wrong)], state, tail_until: 5 };
    broker.lane().commit(vec![Change::Compact(change)], Ack::Durable).await.unwrap();
    broker.stop().await.unwrap();
    drop((log, broker));

    drop(open(dir.path(), &Clock::manual(10_000)).await); // a start writes out what the log has
    let mut files = std::fs::read_dir(dir.path().join("store")).unwrap().map(|file| file.unwrap().file_name());
    let file = files.find(|name| name.to_str().is_some_and(|name| name.ends_with(".sst"))).unwrap();
    std::fs::write(dir.path().join("unmerged"), format!("compacted {} 2\n", file.display())).unwrap();
    let broker = open(dir.path(), &Clock::manual(10_000)).await;
    let log = partition(&broker, &EAGER).await;
    assert!(!broker.store().merges(store::Family::Compacted) && log.compaction().pass_end == 5);
    broker.compact().await.unwrap();
    check_index(&broker, &log).await;
    assert_eq!((batches(&log).await.len(), log.compaction().pass_end), (6, 0), "and none is replaced or removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_committed_tombstone_deleted_stays_deleted_after_an_abort() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(10_000);
    let broker = open(dir.path(), &clock).await;
    let log = partition(&broker, &EAGER).await;
    let tick = || {
        clock.advance(5);
        clock.now_ms()
    };
    let seal =
        async |key: &str| append(&broker, &log, batch(&[(tick(), Some(key), Some("1"))], Compression::None)).await;
    append(&broker, &log, batch(&[(tick(), Some("a"), Some("1"))], Compression::None)).await;
    in_transaction(&broker, &log, (2, 0), (tick(), Some("b"), Some("aborted"))).await;
    tick();
    end_transaction(&broker, &log, 2, false).await;
    seal("c").await;
    seal("d").await;
    broker.compact().await.unwrap();
    assert!(log.compaction().clean_to > 2, "the aborted transaction lies in the clean part");
    in_transaction(&broker, &log, (2, 1), (tick(), Some("a"), None)).await;
    tick();
    end_transaction(&broker, &log, 2, true).await;
    seal("e").await;
    for key in ["f", "g", "h"] {
        seal(key).await;
        broker.compact().await.unwrap();
        for batch in log.read_committed(0, 1 << 20).await.unwrap() {
            let mut values =
                batch.records().unwrap().map(Result::unwrap).filter(|record| record.key.as_deref() == Some(b"a"));
            assert!(values.all(|record| record.value.is_none()), "what was deleted is back at {}", batch.base_offset());
        }
        clock.advance(1_000);
    }
}

/// Newest value by key of what readers of committed data see; keys that are deleted are not in it.
async fn committed_values(log: &Arc<Partition>) -> BTreeMap<String, String> {
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut at, mut newest) = (log.log_start(), BTreeMap::new());
    while at < log.last_stable_offset() {
        for batch in log.read_committed(at, 500).await.unwrap() {
            at = batch.next_offset();
            for record in batch.records().unwrap().map(Result::unwrap) {
                let key = record.key.map(text).unwrap();
                match record.value.map(text) {
                    Some(value) => drop(newest.insert(key, value)),
                    None => drop(newest.remove(&key)),
                }
            }
        }
    }
    newest
}

/// What was committed, and what may still be, by producer: offset, key, value.
#[derive(Default)]
struct Decided {
    committed: BTreeMap<Offset, (String, Option<String>)>,
    open: HashMap<i64, Vec<(Offset, String, Option<String>)>>,
}

impl Decided {
    fn newest(&self) -> BTreeMap<String, String> {
        let mut newest = BTreeMap::new();
        for (key, value) in self.committed.values() {
            newest.insert(key.clone(), value.clone());
        }
        newest.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    async fn end(&mut self, broker: &Broker, log: &Arc<Partition>, producer: i64, commits: bool) {
        let Some(written) = self.open.remove(&producer) else { return };
        end_transaction(broker, log, producer, commits).await;
        if commits {
            self.committed.extend(written.into_iter().map(|(offset, key, value)| (offset, (key, value))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_counts_whatever_passes_do() {
    let mut random = StdRng::seed_from_u64(seed("transactions"));
    for _ in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(10_000);
        let broker = open(dir.path(), &clock).await;
        let log = partition(&broker, &EAGER).await;
        let (mut decided, mut sequences) = (Decided::default(), HashMap::<i64, i32>::new());
        for step in 0..150 {
            clock.advance(random.random_range(2..200));
            let (now, producer) = (clock.now_ms(), random.random_range(0..3));
            let key = format!("key {}", random.random_range(0..8));
            let value = (random.random_range(0..3) > 0).then(|| format!("value {step}"));
            let (plain, offset) = ((now, Some(key.as_str()), value.as_deref()), log.high_watermark());
            match random.random_range(0..10) {
                0..3 => {
                    append(&broker, &log, batch(&[plain], Compression::None)).await;
                    decided.committed.insert(offset, (key, value));
                }
                3..6 => {
                    let sequence = sequences.entry(producer).or_default();
                    in_transaction(&broker, &log, (producer, *sequence), plain).await;
                    *sequence += 1;
                    decided.open.entry(producer).or_default().push((offset, key, value));
                }
                6 | 7 => decided.end(&broker, &log, producer, random.random_range(0..2) == 0).await,
                _ => broker.compact().await.unwrap(),
            }
        }
        for producer in 0..3 {
            decided.end(&broker, &log, producer, random.random_range(0..2) == 0).await;
        }
        for last in 0..3 {
            assert_eq!(committed_values(&log).await, decided.newest(), "look {last}");
            clock.advance(1_001);
            append(&broker, &log, batch(&[(clock.now_ms(), Some("last"), None)], Compression::None)).await;
            broker.compact().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_found_while_batches_move() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000_000)).await;
    let mut settings = EAGER;
    settings[0].1 = "delete";
    let log = partition(&broker, &settings).await;
    for time in [10, 20, 30, 40] {
        let key = (time > 10).then_some("a");
        append(&broker, &log, batch(&[(time, key, None), (time, Some(&time.to_string()), None)], Compression::None))
            .await;
    }
    let before: Vec<_> = log.entries(0).map(Result::unwrap).collect();
    let overrides = EAGER.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    broker.catalog().set_config("t", overrides).await.unwrap();
    broker.compact().await.unwrap();
    assert!(before[1].1 != log.entries(2).next().unwrap().unwrap().1, "moved");
    // the copies that the bucket keeps go with it
    buckets::begin_next(&broker).await.unwrap();
    buckets::empty(&broker, 1).await.unwrap();
    buckets::keep(&broker).await.unwrap();
    assert_eq!(broker.store().buckets().oldest(), 2);
    for (target, expected) in [(5, (1, 10)), (20, (3, 20)), (30, (4, 30)), (40, (6, 40))] {
        let entries = before.iter().filter(|(_, entry)| entry.max_timestamp >= target).map(|one| Ok(*one));
        assert_eq!(log.first_record_in(entries, target).unwrap(), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_found_without_a_walk() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(100_000);
    let broker = open(dir.path(), &clock).await;
    let mut settings = EAGER;
    settings[2].1 = "1";
    let log = partition(&broker, &settings).await;
    for time in 0..5 {
        append(&broker, &log, batch(&[(time * 10, Some("a"), Some("1"))], Compression::None)).await;
    }
    let damaged = Change::Put(Family::Index, keys::batch_key(log.id(), 2).to_vec(), b"damaged".to_vec());
    broker.lane().commit(vec![damaged], Ack::Durable).await.unwrap();
    assert_eq!(survey(&log, None, clock.now_ms()).unwrap(), None);
}
