//! Logs that share buckets of a few KiB: nothing of them is lost, whatever goes, moves or restarts, and the disk is given back.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::check::Check;
use crate::store::ReadOnly;
use crate::*;

const BUCKET_BYTES: u64 = 20_000;

async fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig {
        data_dir: dir.to_path_buf(),
        tail_cache_bytes: 2_000,
        bucket_bytes: BUCKET_BYTES,
        ..BrokerConfig::default()
    };
    Broker::open(config, Clock::manual(1_000_000)).await.unwrap()
}

async fn topic(broker: &Broker, name: &str) -> Arc<Partition> {
    let new = NewTopic { name: name.into(), partitions: 1, config: BTreeMap::new() };
    broker.catalog().ensure(new).await.unwrap().partition(0).unwrap()
}

fn log(broker: &Broker, name: &str) -> Arc<Partition> {
    broker.catalog().topic(name).unwrap().partition(0).unwrap()
}

/// Appends a batch of two records of `bytes` in all, which have the same key.
async fn append(broker: &Broker, partition: &Arc<Partition>, (key, bytes): (u64, usize)) {
    let next = partition.high_watermark();
    let mut builder = BatchBuilder::new();
    for offset in [next, next + 1] {
        let value = format!("{offset} {}", "x".repeat(bytes / 2));
        // each batch seals the segment before it where `segment.ms` is small
        builder.push(1_000_000 + 10 * next, Some(key.to_string().as_bytes()), Some(value.as_bytes()), &[]);
    }
    let batch = builder.build().unwrap();
    let append = Append { partition: partition.clone(), batch, origin: Origin::Internal };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

async fn move_start(broker: &Broker, partition: &Arc<Partition>, start: Offset) {
    broker.lane().commit(vec![Change::LogStart(partition.clone(), start)], Ack::Durable).await.unwrap();
}

/// The offsets that a log has, each of which stands in its record's value too.
async fn offsets(partition: &Arc<Partition>) -> Vec<Offset> {
    let start = partition.log_start();
    let (mut at, mut all) = (start, Vec::new());
    while at < partition.high_watermark() {
        let batches = partition.read(at, 10_000).await.unwrap();
        let Some(last) = batches.last() else { break };
        for record in batches.iter().flat_map(|batch| batch.records().unwrap()).map(Result::unwrap) {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert_eq!(value.split(' ').next(), Some(record.offset.to_string().as_str()));
            all.extend(Some(record.offset).filter(|offset| *offset >= start));
        }
        at = last.next_offset();
    }
    all
}

fn on_disk(broker: &Broker) -> u64 {
    let logs = [Family::Log, Family::Compacted].into_iter().chain(broker.store().buckets().all());
    logs.map(|family| broker.store().disk_bytes(family)).sum()
}

/// What `millpond check` finds.
fn findings(dir: &Path) -> Vec<String> {
    let opened = ReadOnly::open(dir).unwrap();
    let mut check = Check::new(&opened.store, 10, &|_| {});
    check.broker(&opened);
    check.findings.kept().iter().map(|one| format!("{one:?}")).collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_follow_one_another_and_go_when_no_log_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let (a, b) = (topic(&broker, "a").await, topic(&broker, "b").await);
    for round in 0..60 {
        append(&broker, &a, (round, 2_000)).await;
        append(&broker, &b, (round, 500)).await;
        until("the next bucket begins", || broker.store().buckets().filled() < BUCKET_BYTES).await;
    }
    let buckets = broker.store().buckets();
    assert!(buckets.count() >= 6, "{}", buckets.count());
    let all: Vec<Offset> = (0..120).collect();
    assert_eq!((offsets(&a).await, offsets(&b).await), (all.clone(), all.clone()));
    // one log alone holds them all
    move_start(&broker, &a, 120).await;
    keep(&broker).await.unwrap();
    assert_eq!(buckets.oldest(), 1);
    move_start(&broker, &b, 61).await;
    keep(&broker).await.unwrap();
    let (oldest, count) = (buckets.oldest(), buckets.count());
    assert!(oldest > 1 && count >= 3, "{oldest} {count}");
    assert_eq!(offsets(&b).await, (61..120).collect::<Vec<_>>());
    broker.stop().await.unwrap();
    drop((broker, a, b));
    assert_eq!(findings(dir.path()), Vec::<String>::new());
    let broker = open(dir.path()).await;
    let buckets = broker.store().buckets();
    assert_eq!((buckets.oldest(), buckets.count()), (oldest, count));
    assert_eq!(offsets(&log(&broker, "b")).await, (61..120).collect::<Vec<_>>());
    append(&broker, &log(&broker, "a"), (0, 10)).await;
    assert_eq!(offsets(&log(&broker, "a")).await, [120, 121]);
    for name in ["a", "b"] {
        broker.catalog().delete(name).await.unwrap();
    }
    keep(&broker).await.unwrap();
    assert_eq!(buckets.count(), 1, "the active one stays");
    // their files leave the disk one by one, and none is forgotten
    let in_trash = || std::fs::read_dir(dir.path().join("trash")).unwrap().count();
    assert!(in_trash() > 1, "{}", in_trash());
    until("the trash is empty", || in_trash() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_in_the_trash_goes_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("trash/000007.sst");
    std::fs::create_dir(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "of a bucket").unwrap();
    let _broker = open(dir.path()).await;
    until("it is gone", || !left.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_long_is_moved_out_of_buckets_that_are_dead_but_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(dir.path()).await;
    topic(&broker, "kept").await;
    topic(&broker, "hot").await;
    for round in 0..8_u64 {
        let (kept, hot) = (log(&broker, "kept"), log(&broker, "hot"));
        append(&broker, &kept, (round, 100)).await;
        append(&broker, &hot, (round, 60_000)).await;
        begin_next(&broker).await.unwrap();
        append(&broker, &kept, (round, 100)).await;
        move_start(&broker, &hot, hot.high_watermark()).await;
        assert_eq!(offsets(&kept).await, (0..4 + 4 * round as i64).collect::<Vec<_>>());
        broker.stop().await.unwrap();
        drop((kept, hot, broker));
        broker = open(dir.path()).await; // memtables become files
        keep(&broker).await.unwrap();
        let bound = 2 * BUCKET_BYTES + 64_000 + 20_000;
        assert!(on_disk(&broker) < bound, "round {round}: {} of {bound} bytes", on_disk(&broker));
    }
    let kept = log(&broker, "kept");
    let (from, to) = keys::log_range(kept.id());
    let moved = broker.store().scan(Family::Log, &from, &to).count();
    assert!(moved > 0 && broker.store().buckets().oldest() > 1, "{moved}");
    assert_eq!(offsets(&kept).await, (0..32).collect::<Vec<_>>());
    // what was moved goes as it always did
    move_start(&broker, &kept, 5).await;
    assert_eq!(broker.store().scan(Family::Log, &from, &to).count(), moved - 2);
    assert_eq!(offsets(&kept).await, (5..32).collect::<Vec<_>>());
    broker.stop().await.unwrap();
    drop((kept, broker));
    assert_eq!(findings(dir.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_version_1_is_read_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let partition = topic(&broker, "t").await;
    for round in 0..4 {
        append(&broker, &partition, (round, 100)).await;
    }
    // as version 1 had it: all in `log`, and entries that end before the bucket
    let mut changes = vec![Change::Put(Family::Meta, b"format".to_vec(), 1_u32.to_be_bytes().to_vec())];
    for entry in partition.entries(0) {
        let (base, entry) = entry.unwrap();
        let key = keys::batch_key(partition.id(), base).to_vec();
        let batch = broker.store().get(entry.family(), &key).unwrap().unwrap();
        changes.push(Change::Put(Family::Log, key.clone(), batch));
        changes.push(Change::Put(Family::Index, key, entry.placed(Family::Log, 0).encode()[..46].to_vec()));
    }
    broker.lane().commit(changes, Ack::Durable).await.unwrap();
    broker.store().give_up_bucket(1).unwrap();
    broker.lane().stop();
    drop((broker, partition));
    assert_eq!(findings(dir.path()), Vec::<String>::new(), "it is checked as it is");
    let broker = open(dir.path()).await;
    let partition = log(&broker, "t");
    assert_eq!(offsets(&partition).await, (0..8).collect::<Vec<_>>());
    assert_eq!(broker.store().get(Family::Meta, b"format").unwrap().unwrap(), [0, 0, 0, 2]);
    append(&broker, &partition, (9, 100)).await;
    assert_eq!(partition.in_buckets().unwrap().map(|(number, _)| number), Some(1));
    assert_eq!(offsets(&partition).await, (0..10).collect::<Vec<_>>());
    move_start(&broker, &partition, 3).await;
    let (from, to) = keys::log_range(partition.id());
    assert_eq!(broker.store().scan(Family::Log, &from, &to).count(), 3);
    assert_eq!(offsets(&partition).await, (3..10).collect::<Vec<_>>());
    broker.stop().await.unwrap();
    drop((broker, partition));
    assert_eq!(findings(dir.path()), Vec::<String>::new());
}

/// Neither a topic's deletion, nor a move, nor a pass of compaction is synced where `durability` is `os`: a bucket that goes with them is.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_only_when_the_disk_knows_why() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        BrokerConfig { data_dir: dir.path().to_path_buf(), durability: Durability::Os, ..BrokerConfig::default() };
    let broker = Broker::open(config, Clock::manual(1_000_000)).await.unwrap();
    let syncs = || broker.store().syncs.load(Ordering::SeqCst);
    let partition = topic(&broker, "t").await;
    append(&broker, &partition, (0, 100)).await;
    begin_next(&broker).await.unwrap();
    let before = syncs();
    keep(&broker).await.unwrap();
    assert_eq!((broker.store().buckets().oldest(), syncs()), (1, before), "it is needed");
    empty(&broker, 1).await.unwrap();
    assert_eq!(syncs(), before);
    keep(&broker).await.unwrap();
    assert_eq!((broker.store().buckets().oldest(), syncs()), (2, before + 1));
    assert_eq!(offsets(&partition).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_that_cannot_be_read_does_not_keep_others_in_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let (a, b) = (topic(&broker, "a").await, topic(&broker, "b").await);
    for partition in [&a, &b] {
        append(&broker, partition, (0, 3_000)).await;
    }
    let key = keys::batch_key(a.id(), 0).to_vec();
    let lost = Change::Delete(Family::Bucket(1), key);
    broker.lane().commit(vec![lost], Ack::Durable).await.unwrap();
    begin_next(&broker).await.unwrap();
    empty(&broker, 1).await.unwrap();
    assert_eq!((a.in_buckets().unwrap().map(|(number, _)| number), b.in_buckets().unwrap()), (Some(1), None));
    assert_eq!(offsets(&b).await, [0, 1]);
    assert_eq!(broker.store().buckets().oldest(), 1, "the log that needs it holds it");
}

/// A copy that is made while a bucket begins would have batches of a family that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn no_bucket_begins_while_the_store_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let (store, to) = (broker.store().clone(), dir.path().join("copy"));
    let creating = store.buckets().hold_creation();
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn({
        let store = store.clone();
        move || done.send(store.checkpoint(&to))
    });
    assert!(outcome.recv_timeout(Duration::from_millis(100)).is_err(), "it waits");
    drop(creating);
    outcome.recv().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_bucket_keeps_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let partition = topic(&broker, "t").await;
    set_policy(&broker, "t", "delete").await;
    for (offset, key) in ["x", "a", "b", "a", "c", "d"].iter().enumerate() {
        let mut builder = BatchBuilder::new();
        let value = offset.to_string();
        builder.push(1_000_000 + 10 * offset as i64, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        let append = Append { partition: partition.clone(), batch: builder.build().unwrap(), origin: Origin::Internal };
        broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
    }
    set_policy(&broker, "t", "compact").await;
    broker.compact().await.unwrap();
    let (from, to) = keys::log_range(partition.id());
    assert_eq!(broker.store().scan(Family::Bucket(1), &from, &to).count(), 6, "the bucket has all");
    assert_eq!(broker.store().scan(Family::Compacted, &from, &to).count(), 0, "nothing was rewritten");
    let read = partition.read_store(0, 6, 10_000).unwrap();
    assert_eq!(read.iter().map(Batch::base_offset).collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
}

async fn set_policy(broker: &Broker, name: &str, policy: &str) {
    let settings = [("cleanup.policy", policy), ("min.cleanable.dirty.ratio", "0"), ("segment.ms", "1")];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    broker.catalog().set_config(name, settings).await.unwrap();
}

/// What lives through a random life: the offsets that each topic must have.
struct Life {
    dir: tempfile::TempDir,
    broker: Arc<Broker>,
    kept: BTreeMap<String, Vec<Offset>>,
    random: Random,
}

impl Life {
    fn pick(&mut self, below: u64) -> u64 {
        self.random.next() % below
    }

    async fn step(&mut self) {
        let name = format!("t{}", self.pick(4));
        if !self.kept.contains_key(&name) {
            topic(&self.broker, &name).await;
            self.kept.insert(name, Vec::new());
            return;
        }
        match self.pick(40) {
            0 => {
                self.broker.catalog().delete(&name).await.unwrap();
                self.kept.remove(&name);
            }
            1..=4 => self.cut(&name).await,
            5 => begin_next(&self.broker).await.unwrap(),
            6..=8 => {
                let at_once = self.pick(2) == 0;
                self.broker.store().buckets().ask_to_look(at_once);
                keep(&self.broker).await.unwrap();
            }
            9 => self.move_some_out().await,
            10..=11 if name == "t0" => self.compact().await,
            12 => self.end_and_begin().await,
            _ => {
                let log = log(&self.broker, &name);
                let (next, what) = (log.high_watermark(), (self.pick(5), self.pick(8_000) as usize));
                append(&self.broker, &log, what).await;
                self.kept.get_mut(&name).unwrap().extend([next, next + 1]);
            }
        }
    }

    async fn cut(&mut self, name: &str) {
        let log = log(&self.broker, name);
        let start = log.log_start() + self.pick(20) as i64;
        if start <= log.high_watermark() {
            move_start(&self.broker, &log, start).await;
            self.kept.get_mut(name).unwrap().retain(|offset| *offset >= start);
        }
    }

    async fn move_some_out(&self) {
        let _keeping = self.broker.store().buckets().keeping.lock().await;
        let oldest = self.broker.store().buckets().oldest();
        if oldest < self.broker.store().buckets().active_number() {
            let _rounds = self.broker.compaction_rounds().lock().await;
            empty(&self.broker, oldest).await.unwrap();
        }
    }

    async fn compact(&mut self) {
        let policy = if self.pick(2) == 0 { "compact" } else { "delete" };
        set_policy(&self.broker, "t0", policy).await;
        self.broker.compact().await.unwrap();
        // what it leaves is a matter of compaction's own tests: here what it left must stay
        let left = offsets(&log(&self.broker, "t0")).await;
        assert!(left.iter().all(|offset| self.kept["t0"].contains(offset)));
        self.kept.insert("t0".to_owned(), left);
    }

    async fn end_and_begin(&mut self) {
        if self.pick(2) == 0 {
            self.broker.stop().await.unwrap();
        } else {
            self.broker.lane().stop(); // ends the writer without the clean mark
        }
        let ended = Arc::downgrade(&self.broker);
        let placeholder = tempfile::tempdir().unwrap();
        self.broker = open(placeholder.path()).await;
        until("the broker has let go", || ended.strong_count() == 0).await;
        assert_eq!(findings(self.dir.path()), Vec::<String>::new());
        self.broker = open(self.dir.path()).await;
    }
}

/// Everything at once, in an order that a seed gives: appends, log starts, deletions, compaction of a topic that did not compact before, new
/// buckets, giving back, and ends with and without notice.
#[tokio::test(flavor = "multi_thread")]
async fn random_lives_of_logs() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let random = Random::new(crate::seed::seed("random_lives_of_logs"));
    let mut life = Life { dir, broker, kept: BTreeMap::new(), random };
    for step in 0..400 {
        life.step().await;
        if step % 20 == 19 {
            for (name, kept) in &life.kept {
                assert_eq!(&offsets(&log(&life.broker, name)).await, kept, "step {step}: {name}");
            }
        }
    }
}
