//! The log as the rest of the broker uses it, on a real store in a temporary directory.

use std::path::Path;
use std::sync::Arc;

use crate::batch::BATCH_HEADER_BYTES;
use crate::log::keys;
use crate::*;

async fn open(dir: &Path, clock: &Clock) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_path_buf(), tail_cache_bytes: 2_000, ..BrokerConfig::default() };
    Broker::open(config, clock.clone()).await.unwrap()
}

async fn topic(broker: &Broker, name: &str, config: &[(&str, &str)]) -> Arc<Topic> {
    let config = config.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
    broker.catalog().ensure(NewTopic { name: name.into(), partitions: 2, config }).await.unwrap()
}

fn batch(values: &[(i64, &str)]) -> Batch {
    let mut builder = BatchBuilder::new();
    values.iter().for_each(|(time, value)| builder.push(*time, None, Some(value.as_bytes()), &[]));
    builder.build().unwrap()
}

fn sequenced(producer: i64, epoch: i16, sequence: i32, count: usize) -> Batch {
    let values: Vec<(i64, &str)> = vec![(5, "x"); count];
    let mut bytes = batch(&values).bytes().to_vec();
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::parse(bytes.into()).unwrap()
}

async fn append(broker: &Broker, partition: &Arc<Partition>, batch: Batch) -> Result<Appended> {
    let append = Append { partition: partition.clone(), batch, origin: Origin::Client };
    Ok(broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await?[0])
}

async fn values(partition: &Arc<Partition>) -> Vec<(i64, String)> {
    let mut at = partition.log_start();
    let mut out = Vec::new();
    while at < partition.high_watermark() {
        for batch in partition.read(at, 100).await.unwrap() {
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= at {
                    out.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
                }
            }
            at = batch.next_offset();
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_is_read_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let mut expected = Vec::new();
    {
        let broker = open(dir.path(), &clock).await;
        let topic = topic(&broker, "t", &[]).await;
        let partition = topic.partition(0).unwrap();
        for n in 0..200 {
            let value = format!("value {n}");
            let appended = append(&broker, &partition, batch(&[(n, &value), (n, &value)])).await.unwrap();
            assert_eq!(appended.base_offset, 2 * n);
            expected.extend([(2 * n, value.clone()), (2 * n + 1, value)]);
        }
        assert_eq!(values(&partition).await, expected, "tail and store together");
        broker.stop().await.unwrap();
    }
    let broker = open(dir.path(), &clock).await;
    let partition = broker.catalog().topic("t").unwrap().partition(0).unwrap();
    assert_eq!(values(&partition).await, expected);
    assert_eq!(partition.leader_epoch(), 0, "a clean stop does not bump the epoch");
    assert_eq!(append(&broker, &partition, batch(&[(1, "next")])).await.unwrap().base_offset, 400);
    assert!(partition.read(402, 10).await.is_err());
    assert!(partition.read(401, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unclean_end_bumps_the_leader_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    {
        let broker = open(dir.path(), &clock).await;
        let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
        append(&broker, &partition, batch(&[(1, "a"), (2, "b")])).await.unwrap();
        broker.lane().stop(); // ends the writer without the clean mark
    }
    let broker = open(dir.path(), &clock).await;
    let partition = broker.catalog().topic("t").unwrap().partition(0).unwrap();
    assert_eq!(partition.leader_epoch(), 1);
    append(&broker, &partition, batch(&[(3, "c")])).await.unwrap();
    assert_eq!(partition.end_offset_for_epoch(0), (0, 2));
    assert_eq!(partition.end_offset_for_epoch(1), (1, 3));
    assert_eq!(partition.end_offset_for_epoch(2), (-1, -1));
    let last = partition.read(2, 1).await.unwrap();
    assert_eq!(last[0].leader_epoch(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_producers_are_judged_as_kafka_does() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let broker = open(dir.path(), &clock).await;
    let partition = topic(&broker, "t", &[]).await.partition(1).unwrap();
    let first = append(&broker, &partition, sequenced(9, 0, 0, 3)).await.unwrap();
    let again = append(&broker, &partition, sequenced(9, 0, 0, 3)).await.unwrap();
    assert_eq!((first.base_offset, first.duplicate, again.base_offset, again.duplicate), (0, false, 0, true));
    let gap = append(&broker, &partition, sequenced(9, 0, 4, 1)).await.unwrap_err();
    assert_eq!(gap.kind, Kind::OutOfOrderSequence);
    append(&broker, &partition, sequenced(9, 0, 3, 1)).await.unwrap();
    broker.stop().await.unwrap();
    drop((broker, partition));
    let broker = open(dir.path(), &clock).await;
    let partition = broker.catalog().topic("t").unwrap().partition(1).unwrap();
    assert!(append(&broker, &partition, sequenced(9, 0, 3, 1)).await.unwrap().duplicate, "known after a restart");
    assert_eq!(append(&broker, &partition, sequenced(9, 1, 2, 1)).await.unwrap_err().kind, Kind::OutOfOrderSequence);
    append(&broker, &partition, sequenced(9, 1, 0, 1)).await.unwrap();
    let old = append(&broker, &partition, sequenced(9, 0, 4, 1)).await.unwrap_err();
    assert_eq!(old.kind, Kind::InvalidProducerEpoch);
    append(&broker, &partition, sequenced(10, 0, i32::MAX, 2)).await.unwrap();
    append(&broker, &partition, sequenced(10, 0, 1, 1)).await.unwrap();
    assert_eq!(partition.high_watermark(), 8);
}

/// More producers than are cached, in one group of commits: what is staged is known although it is not in the store yet.
#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_known_within_a_group_of_many_producers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let partition = topic(&broker, "t", &[]).await.partitions()[0].clone();
    let commits: Vec<_> = (0..40)
        .chain(0..40)
        .map(|producer| {
            let batch = sequenced(producer, 0, 0, 1);
            let append = Append { partition: partition.clone(), batch, origin: Origin::Client };
            broker.lane().commit(vec![Change::Append(append)], Ack::Durable)
        })
        .collect();
    let mut told = Vec::new();
    for commit in commits {
        told.push(commit.await.unwrap()[0].duplicate);
    }
    assert_eq!(told, [[false; 40], [true; 40]].concat());
    assert_eq!(partition.high_watermark(), 40);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_made_wholly_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let topic = topic(&broker, "t", &[]).await;
    let (good, bad) = (topic.partition(0).unwrap(), topic.partition(1).unwrap());
    append(&broker, &bad, sequenced(9, 0, 0, 1)).await.unwrap();
    let changes = vec![
        Change::Put(Family::State, b"k".to_vec(), b"v".to_vec()),
        Change::Append(Append { partition: good.clone(), batch: batch(&[(1, "a")]), origin: Origin::Internal }),
        Change::Append(Append { partition: bad.clone(), batch: sequenced(9, 0, 7, 1), origin: Origin::Client }),
    ];
    assert!(broker.lane().commit(changes, Ack::Durable).await.is_err());
    assert_eq!((good.high_watermark(), bad.high_watermark()), (0, 1));
    assert_eq!(broker.store().get(Family::State, b"k").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_found_although_timestamps_go_back_and_forth() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
    let times = [10, 30, 20, 50, 40, 60, 55, 60, 5];
    for time in times {
        append(&broker, &partition, batch(&[(time, "x")])).await.unwrap();
    }
    for target in 0..70 {
        let expected = times.iter().position(|time| *time >= target).map(|at| (at as i64, times[at]));
        assert_eq!(partition.offset_for_timestamp(target).await.unwrap(), expected, "first at or after {target}");
    }
    assert_eq!(partition.max_timestamp_offset().await.unwrap(), Some((5, 60)));
    let start = Change::LogStart(partition.clone(), 6);
    broker.lane().commit(vec![start], Ack::Durable).await.unwrap();
    assert_eq!(partition.offset_for_timestamp(0).await.unwrap(), Some((6, 55)));
    assert_eq!(partition.offset_for_timestamp(57).await.unwrap(), Some((7, 60)));
    assert_eq!(partition.max_timestamp_offset().await.unwrap(), Some((7, 60)));
    assert_eq!(partition.offset_for_timestamp(61).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_by_time_and_size_and_never_passes_a_hold() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(100_000);
    let broker = open(dir.path(), &clock).await;
    let by_time = topic(&broker, "time", &[("retention.ms", "60000")]).await.partition(0).unwrap();
    let size = BATCH_HEADER_BYTES + 9;
    let limit = (3 * size).to_string();
    let by_size = topic(&broker, "size", &[("retention.bytes", &limit)]).await.partition(0).unwrap();
    for n in 0..10 {
        append(&broker, &by_time, batch(&[(n * 10_000, "x")])).await.unwrap();
        append(&broker, &by_size, batch(&[(100_000, "12")])).await.unwrap();
    }
    let hold = broker.holds().register("test");
    hold.set(by_time.id(), 2);
    broker.sweep_retention().await.unwrap();
    assert_eq!(by_time.log_start(), 2, "held");
    assert_eq!((by_size.log_start(), by_size.size_bytes()), (7, 3 * size as u64));
    hold.clear(by_time.id());
    broker.sweep_retention().await.unwrap();
    assert_eq!(by_time.log_start(), 4);
    assert_eq!(by_time.read(3, 10).await.unwrap_err().kind, Kind::OffsetOutOfRange);
    clock.advance(1_000_000);
    broker.sweep_retention().await.unwrap();
    assert_eq!((by_time.log_start(), by_time.size_bytes()), (10, 0));
    assert_eq!(append(&broker, &by_time, batch(&[(1, "y")])).await.unwrap().base_offset, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_again_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let old = topic(&broker, "t", &[]).await;
    let partition = old.partition(0).unwrap();
    append(&broker, &partition, batch(&[(1, "old")])).await.unwrap();
    broker.catalog().delete("t").await.unwrap();
    assert!(append(&broker, &partition, batch(&[(1, "late")])).await.is_err());
    let new = topic(&broker, "t", &[]).await;
    assert_ne!(old.id(), new.id());
    assert_eq!(new.partition(0).unwrap().high_watermark(), 0);
    broker.catalog().grow("t", 5).await.unwrap();
    assert_eq!(new.partitions().len(), 5);
    assert!(broker.catalog().grow("t", 5).await.is_err());
    let names = ["", ".", "..", "a b", "ä", &"x".repeat(250)];
    for name in names {
        let new = NewTopic { name: name.into(), partitions: 1, ..NewTopic::default() };
        assert_eq!(broker.catalog().create(new).await.err().map(|e| e.kind), Some(Kind::InvalidTopic), "{name}");
    }
    topic_collides(&broker).await;
}

async fn topic_collides(broker: &Broker) {
    topic(broker, "a.b", &[]).await;
    let new = NewTopic { name: "a_b".into(), partitions: 1, ..NewTopic::default() };
    assert_eq!(broker.catalog().create(new).await.err().map(|e| e.kind), Some(Kind::InvalidTopic));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_woken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
    let waiting = tokio::spawn({
        let partition = partition.clone();
        async move { partition.wait_beyond(1).await }
    });
    append(&broker, &partition, batch(&[(1, "a")])).await.unwrap();
    assert!(!waiting.is_finished());
    append(&broker, &partition, batch(&[(1, "b")])).await.unwrap();
    waiting.await.unwrap();
    let deleted = tokio::spawn(async move { partition.wait_beyond(100).await });
    broker.catalog().delete("t").await.unwrap();
    deleted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_newer_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
    {
        let broker = Broker::open(config.clone(), Clock::system()).await.unwrap();
        let second = Broker::open(config.clone(), Clock::system()).await.err().unwrap();
        assert!(second.message.contains("open in this process already"), "{second}");
        let newer = Change::Put(Family::Meta, b"format".to_vec(), 3u32.to_be_bytes().to_vec());
        broker.lane().commit(vec![newer], Ack::Durable).await.unwrap();
        broker.stop().await.unwrap();
    }
    let refused = Broker::open(config, Clock::system()).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Config);
    assert!(refused.message.contains("format 3"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_a_task_still_holds_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path(), &Clock::system()).await;
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        drop(held);
    });
    open(dir.path(), &Clock::system()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_dropped_has_let_go_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=5 {
        let broker = open(dir.path(), &Clock::system()).await;
        topic(&broker, &format!("t{round}"), &[]).await;
        assert_eq!(broker.catalog().topics().len(), round);
    }
}

/// Merges what a family holds of a partition down, into files that can be dropped whole.
fn bring_down(broker: &Broker, partition: &Partition, family: Family) {
    let (from, to) = keys::log_range(partition.id());
    broker.store().reclaim(family, &from, &to);
}

async fn move_start(broker: &Broker, partition: &Arc<Partition>, offsets: &[Offset]) {
    let changes = offsets.iter().map(|offset| Change::LogStart(partition.clone(), *offset)).collect();
    broker.lane().commit(changes, Ack::Durable).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batch_that_holds_the_log_start_stays() {
    let long = "x".repeat(3_000); // more than the tail keeps, so that all reads go to the store
    for (policy, family) in [("delete", Family::Bucket(1)), ("compact,delete", Family::Compacted)] {
        for start in [4, 5, 6] {
            let dir = tempfile::tempdir().unwrap();
            let broker = open(dir.path(), &Clock::manual(1_000)).await;
            let partition = topic(&broker, "t", &[("cleanup.policy", policy)]).await.partition(0).unwrap();
            for time in 0..4 {
                append(&broker, &partition, batch(&[(time, &long), (time, &long)])).await.unwrap();
                if time > 1 {
                    bring_down(&broker, &partition, family); // a file ends with the third batch, and later with the fourth
                }
                if time == 2 && start < 6 {
                    move_start(&broker, &partition, &[start]).await;
                }
            }
            move_start(&broker, &partition, &[start]).await;
            let offsets: Vec<Offset> = values(&partition).await.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (start..8).collect::<Vec<_>>(), "{policy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_producer_stops_the_broker_and_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
    let damaged = Change::Put(Family::Producers, keys::producer_key(partition.id(), 9).to_vec(), b"wrong".to_vec());
    broker.lane().commit(vec![damaged], Ack::Durable).await.unwrap();
    assert_eq!(append(&broker, &partition, sequenced(9, 0, 0, 1)).await.unwrap_err().kind, Kind::Storage);
    assert!(broker.lane().failure().await.message.contains("producer state"));
    assert_eq!(append(&broker, &partition, batch(&[(1, "x")])).await.unwrap_err().kind, Kind::Storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_gives_its_disk_back() {
    let long = "x".repeat(400_000);
    for (policy, family) in [("delete", Family::Bucket(1)), ("compact", Family::Compacted)] {
        for is_down in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let clock = Clock::manual(1_000);
            let mut broker = open(dir.path(), &clock).await;
            let deleted = topic(&broker, "t", &[("cleanup.policy", policy)]).await.partition(0).unwrap();
            let kept = topic(&broker, "kept", &[("cleanup.policy", policy)]).await.partition(0).unwrap();
            for time in 0..3 {
                append(&broker, &deleted, batch(&[(time, &long)])).await.unwrap();
            }
            append(&broker, &kept, batch(&[(1, "kept")])).await.unwrap();
            if is_down {
                bring_down(&broker, &deleted, family);
            } else {
                broker.stop().await.unwrap();
                drop((broker, deleted, kept));
                broker = open(dir.path(), &clock).await; // writes all into level 0
            }
            assert!(broker.store().disk_bytes(family) > 1_200_000);
            broker.catalog().delete("t").await.unwrap();
            let mut looks = 0;
            let on_disk =
                || broker.store().families().into_iter().map(|family| broker.store().disk_bytes(family)).sum::<u64>();
            while on_disk() > 100_000 {
                looks += 1;
                assert!(looks < 200, "{} bytes are still there, {family:?} had them", on_disk());
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let kept = broker.catalog().topic("kept").unwrap().partition(0).unwrap();
            assert_eq!(values(&kept).await, [(0, "kept".to_owned())]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_only_when_the_disk_knows_why() {
    let dir = tempfile::tempdir().unwrap();
    let durability = Durability::Os;
    let config = BrokerConfig { data_dir: dir.path().to_path_buf(), durability, ..BrokerConfig::default() };
    let broker = Broker::open(config, Clock::manual(1_000)).await.unwrap();
    let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
    let syncs = || broker.store().syncs.load(std::sync::atomic::Ordering::SeqCst);
    let before = syncs();
    append(&broker, &partition, batch(&[(1, "x")])).await.unwrap();
    append(&broker, &partition, batch(&[(1, "x")])).await.unwrap();
    assert_eq!(syncs(), before, "the system has them, the disk may not");
    move_start(&broker, &partition, &[1]).await;
    assert_eq!(syncs(), before + 1);
    broker.catalog().delete("t").await.unwrap();
    assert_eq!(syncs(), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ages_before_all_holds_are_set() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(100_000);
    let config = BrokerConfig {
        data_dir: dir.path().to_path_buf(),
        compaction_check_ms: 1,
        retention_check_ms: 1,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(config, clock.clone()).await.unwrap();
    let compacted = [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0")];
    let compacted = topic(&broker, "compacted", &compacted).await.partition(0).unwrap();
    let deleted = topic(&broker, "deleted", &[("retention.ms", "1000")]).await.partition(0).unwrap();
    for time in 0..6 {
        let mut keyed = BatchBuilder::new();
        keyed.push(time * 10, Some(b"k"), Some(b"v"), &[]);
        append(&broker, &compacted, keyed.build().unwrap()).await.unwrap();
        append(&broker, &deleted, batch(&[(time, "x")])).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!((compacted.compaction().clean_to, deleted.log_start()), (0, 0), "nobody has set a hold yet");
    let hold = broker.holds().register("late");
    hold.set(compacted.id(), 3);
    hold.set(deleted.id(), 4);
    broker.start_aging();
    while (compacted.compaction().clean_to, deleted.log_start()) != (3, 4) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_retention_emptied_is_sealed_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(100_000);
    {
        let settings = [("cleanup.policy", "compact,delete"), ("segment.ms", "1000"), ("retention.ms", "5000")];
        let broker = open(dir.path(), &clock).await;
        let partition = topic(&broker, "t", &settings).await.partition(0).unwrap();
        append(&broker, &partition, batch(&[(100_000, "x")])).await.unwrap();
        append(&broker, &partition, batch(&[(101_001, "x")])).await.unwrap();
        assert_eq!(partition.active_segment_base(), 1);
        clock.advance(10_000);
        broker.sweep_retention().await.unwrap();
        assert_eq!((partition.log_start(), partition.size_bytes()), (2, 0));
        broker.stop().await.unwrap();
    }
    let broker = open(dir.path(), &clock).await;
    let partition = broker.catalog().topic("t").unwrap().partition(0).unwrap();
    append(&broker, &partition, batch(&[(110_000, "x")])).await.unwrap();
    append(&broker, &partition, batch(&[(111_001, "x")])).await.unwrap();
    assert_eq!(partition.active_segment_base(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_start_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    {
        let broker = open(dir.path(), &clock).await;
        let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
        for time in 0..10 {
            append(&broker, &partition, batch(&[(time, "x")])).await.unwrap();
        }
        move_start(&broker, &partition, &[8, 5]).await;
        assert_eq!((partition.log_start(), values(&partition).await.len()), (8, 2));
        broker.stop().await.unwrap();
    }
    let broker = open(dir.path(), &clock).await;
    assert_eq!(broker.catalog().topic("t").unwrap().partition(0).unwrap().log_start(), 8);
}

/// The entry of offset 10 cannot be read: who walks over the whole index meets it.
async fn damage_index(broker: &Broker, partition: &Partition) {
    let damaged = Change::Put(Family::Index, keys::batch_key(partition.id(), 10).to_vec(), b"damaged".to_vec());
    broker.lane().commit(vec![damaged], Ack::Durable).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_timestamp_is_found_without_a_walk() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
    for time in 0..100 {
        append(&broker, &partition, batch(&[(time.min(80), "x")])).await.unwrap();
    }
    damage_index(&broker, &partition).await;
    assert_eq!(partition.max_timestamp_offset().await.unwrap(), Some((80, 80)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_appended_meanwhile_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(1_000)).await;
    let partition = topic(&broker, "t", &[]).await.partition(0).unwrap();
    for producer in 0..5 {
        append(&broker, &partition, sequenced(producer, 0, 0, 1)).await.unwrap(); // one more than are cached
    }
    let forget = |since: i64| {
        let changes = (0..5).map(|producer| Change::ForgetProducer(partition.clone(), producer, since)).collect();
        broker.lane().commit(changes, Ack::Durable)
    };
    let (from, to) = keys::log_range(partition.id());
    let known = || broker.store().scan(Family::Producers, &from, &to).count();
    forget(999).await.unwrap();
    assert_eq!(known(), 5);
    for producer in 0..5 {
        assert!(append(&broker, &partition, sequenced(producer, 0, 0, 1)).await.unwrap().duplicate);
    }
    forget(1_000).await.unwrap();
    assert_eq!(known(), 0);
}
