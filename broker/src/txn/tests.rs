//! The rules as tables, and the coordinator on a real store.

use std::path::Path;
use std::sync::Arc;

use super::rules::{self, End, Ended, Init, Initialised};
use super::*;
use crate::group::offsets::Committed;
use crate::types::{Offset, TopicId};
use crate::{Batch, BatchBuilder, BrokerConfig, Clock, NewTopic};

const NOW: i64 = 1_700_000_000_000;

fn txn(phase: Phase, producer_id: i64, epoch: i16) -> Txn {
    let mut txn = Txn { phase, epoch, timeout_ms: 60_000, ..Txn::new(producer_id, NOW) };
    if phase == Phase::Ongoing {
        txn.started_at = NOW;
        txn.places = [place(1, 0)].into();
        txn.groups = ["g".into()].into();
    }
    txn
}

fn place(topic: u128, partition: i32) -> Place {
    (TopicId::from_u128(topic), partition)
}

fn init(current: Option<&Txn>, expected: Option<Identity>, fresh: Option<i64>) -> Result<Initialised> {
    rules::init(current, Init { timeout_ms: 60_000, expected }, fresh, NOW)
}

fn given(initialised: Result<Initialised>) -> (Identity, i16) {
    let Initialised::Given(txn) = initialised.unwrap() else { panic!("no identity") };
    assert_eq!(txn.phase, Phase::Empty);
    (txn.identity(), txn.last_epoch)
}

#[test]
fn a_producer_that_comes_gets_the_next_epoch() {
    assert_eq!(init(None, None, None).unwrap(), Initialised::NeedsId);
    assert_eq!(given(init(None, None, Some(7))), ((7, 0), NO_EPOCH));
    for phase in [Phase::Empty, Phase::CompleteCommit, Phase::CompleteAbort] {
        assert_eq!(given(init(Some(&txn(phase, 7, 3)), None, None)), ((7, 4), NO_EPOCH));
    }
    assert_eq!(init(Some(&txn(Phase::Ongoing, 7, 3)), None, None).unwrap(), Initialised::Fences);
}

#[test]
fn a_producer_that_comes_back_names_itself() {
    let current = Txn { last_epoch: 2, previous_id: 6, ..txn(Phase::Empty, 7, 3) };
    assert_eq!(given(init(Some(&current), Some((7, 3)), None)), ((7, 4), 3));
    assert_eq!(given(init(Some(&current), Some((7, 2)), None)), ((7, 3), 2), "a retry gets the same answer");
    for (expected, why) in [((7, 1), "older"), ((7, 4), "newer"), ((8, 3), "another"), ((6, 3), "the one before")] {
        assert_eq!(init(Some(&current), Some(expected), None).unwrap_err().kind, Kind::ProducerFenced, "{why}");
    }
    // the coordinator knows nothing of it any more: whatever it calls itself, it begins anew
    assert_eq!(given(init(None, Some((99, 5)), Some(7))), ((7, 0), NO_EPOCH));
}

#[test]
fn used_up_epochs_bring_a_fresh_producer_id() {
    let last = txn(Phase::CompleteCommit, 7, i16::MAX - 1);
    assert_eq!(init(Some(&last), None, None).unwrap(), Initialised::NeedsId);
    assert_eq!(given(init(Some(&last), None, Some(8))), ((8, 0), NO_EPOCH));
    let rotated = given(init(Some(&last), Some((7, i16::MAX - 1)), Some(8)));
    assert_eq!(rotated, ((8, 0), i16::MAX - 1));
    let after = Txn { previous_id: 7, last_epoch: i16::MAX - 1, ..txn(Phase::Empty, 8, 0) };
    let again = given(init(Some(&after), Some((7, i16::MAX - 1)), None));
    assert_eq!(again, ((8, 0), i16::MAX - 1), "a retry gets the same answer");
    let fenced = init(Some(&last), Some((7, 5)), Some(8)).unwrap_err();
    assert_eq!(fenced.kind, Kind::ProducerFenced);
}

#[test]
fn what_is_added_begins_a_transaction() {
    let empty = Txn { places: [].into(), groups: [].into(), ..txn(Phase::Empty, 7, 3) };
    let begun = rules::add(Some(&empty), (7, 3), (&[place(1, 0)], &[]), NOW + 5).unwrap().unwrap();
    assert_eq!((begun.phase, begun.started_at, begun.places.len()), (Phase::Ongoing, NOW + 5, 1));
    let more = rules::add(Some(&begun), (7, 3), (&[], &["g".into()]), NOW + 9).unwrap().unwrap();
    assert_eq!((more.started_at, more.places.len(), more.groups.len()), (NOW + 5, 1, 1));
    assert_eq!(rules::add(Some(&more), (7, 3), (&[place(1, 0)], &["g".into()]), NOW).unwrap(), None, "it is there");
    for (current, who, kind) in [
        (None, (7, 3), Kind::InvalidProducerIdMapping),
        (Some(&empty), (8, 3), Kind::InvalidProducerIdMapping),
        (Some(&empty), (7, 2), Kind::ProducerFenced),
        (Some(&empty), (7, 4), Kind::ProducerFenced),
    ] {
        assert_eq!(rules::add(current, who, (&[], &[]), NOW).unwrap_err().kind, kind);
        assert_eq!(rules::verify(current, who, |_| true).unwrap_err().kind, kind);
    }
    let many: Vec<Arc<str>> = (0..1_001).map(|n| format!("g{n}").into()).collect();
    assert_eq!(rules::add(Some(&begun), (7, 3), (&[], &many), NOW).unwrap_err().kind, Kind::InvalidRequest);
    assert!(rules::add(Some(&begun), (7, 3), (&[], &many[1..]), NOW).is_ok());
    let belongs = |txn: &Txn| txn.places.contains(&place(1, 0));
    rules::verify(Some(&begun), (7, 3), belongs).unwrap();
    assert_eq!(rules::verify(Some(&begun), (7, 3), |_| false).unwrap_err().kind, Kind::TransactionAbortable);
    assert_eq!(rules::verify(Some(&empty), (7, 3), |_| true).unwrap_err().kind, Kind::TransactionAbortable);
}

fn ends(ended: Result<Ended>) -> End {
    let Ended::Ends(end) = ended.unwrap() else { panic!("it does not end") };
    assert_eq!(end.next.phase, if end.committed { Phase::CompleteCommit } else { Phase::CompleteAbort });
    assert!(end.next.places.is_empty() && end.next.groups.is_empty());
    end
}

#[test]
fn version_one_ends_under_the_same_epoch() {
    for committed in [true, false] {
        let end = ends(rules::end(Some(&txn(Phase::Ongoing, 7, 3)), (7, 3), committed, NOW));
        assert_eq!((end.committed, end.marker, end.next.identity()), (committed, (7, 3), (7, 3)));
        assert_eq!((end.ended.places.len(), end.ended.groups.len()), (1, 1));
    }
    use Phase::{CompleteAbort, CompleteCommit, Empty};
    for (phase, committed, kind) in [
        (CompleteCommit, true, None),
        (CompleteAbort, false, None),
        (CompleteCommit, false, Some(Kind::InvalidTxnState)),
        (CompleteAbort, true, Some(Kind::InvalidTxnState)),
        (Empty, true, Some(Kind::InvalidTxnState)),
        (Empty, false, Some(Kind::InvalidTxnState)),
    ] {
        let ended = rules::end(Some(&txn(phase, 7, 3)), (7, 3), committed, NOW);
        match kind {
            None => assert_eq!(ended.unwrap(), Ended::Already((7, 3))),
            Some(kind) => assert_eq!(ended.unwrap_err().kind, kind),
        }
    }
    let fenced = rules::end(Some(&txn(Phase::Ongoing, 7, 3)), (7, 2), true, NOW);
    assert_eq!(fenced.unwrap_err().kind, Kind::ProducerFenced);
}

fn bump(current: &Txn, who: Identity, committed: bool, fresh: Option<i64>) -> Result<Ended> {
    rules::end_and_bump(Some(current), who, committed, (fresh, NOW))
}

#[test]
fn version_two_bumps_the_epoch_at_each_end() {
    let end = ends(bump(&txn(Phase::Ongoing, 7, 3), (7, 3), true, None));
    assert_eq!((end.marker, end.next.identity(), end.next.last_epoch), ((7, 4), (7, 4), 3));
    // what was done already is recognised by the epoch before
    let done = *end.next;
    assert_eq!(bump(&done, (7, 3), true, None).unwrap(), Ended::Already((7, 4)));
    assert_eq!(bump(&done, (7, 3), false, None).unwrap_err().kind, Kind::InvalidTxnState);
    assert_eq!(bump(&done, (7, 2), true, None).unwrap_err().kind, Kind::ProducerFenced);
    assert_eq!(bump(&done, (7, 5), true, None).unwrap_err().kind, Kind::ProducerFenced);
    assert_eq!(bump(&done, (8, 3), true, None).unwrap_err().kind, Kind::InvalidProducerIdMapping);
    // what was not begun cannot be committed, but be aborted: its records may still be under way
    for phase in [Phase::Empty, Phase::CompleteCommit, Phase::CompleteAbort] {
        assert_eq!(bump(&txn(phase, 7, 3), (7, 3), true, None).unwrap_err().kind, Kind::InvalidTxnState);
        let end = ends(bump(&txn(phase, 7, 3), (7, 3), false, None));
        assert_eq!((end.marker, end.next.epoch, end.next.started_at), ((7, 4), 4, NOW));
    }
}

#[test]
fn version_two_gives_a_fresh_producer_id_when_epochs_are_used_up() {
    let last = txn(Phase::Ongoing, 7, i16::MAX - 1);
    assert_eq!(bump(&last, (7, i16::MAX - 1), true, None).unwrap(), Ended::NeedsId);
    let end = ends(bump(&last, (7, i16::MAX - 1), true, Some(8)));
    assert_eq!((end.marker, end.next.identity()), ((7, i16::MAX), (8, 0)));
    assert_eq!(bump(&end.next, (7, i16::MAX - 1), true, None).unwrap(), Ended::Already((8, 0)));
}

#[test]
fn the_broker_aborts_under_an_epoch_that_nobody_has() {
    let open = txn(Phase::Ongoing, 7, 3);
    let end = rules::fence(&open, NOW);
    assert_eq!((end.committed, end.marker, end.next.identity(), end.next.last_epoch), (false, (7, 4), (7, 4), 3));
    let last = rules::fence(&txn(Phase::Ongoing, 7, i16::MAX), NOW);
    assert_eq!(last.marker, (7, i16::MAX), "epochs do not wrap");
    assert!(!rules::is_overdue(&open, NOW + 60_000) && rules::is_overdue(&open, NOW + 60_001));
    assert!(!rules::is_expired(&open, NOW + 1_000, 1_000), "an open transaction does not expire");
    assert!(rules::is_expired(&txn(Phase::Empty, 7, 3), NOW + 1_000, 1_000));
}

async fn open(dir: &Path, clock: &Clock) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_path_buf(), ..BrokerConfig::default() };
    Broker::open(config, clock.clone()).await.unwrap()
}

async fn place_of(broker: &Broker, name: &str) -> (Place, Arc<Partition>) {
    let new = NewTopic { name: name.into(), partitions: 1, config: Default::default() };
    let topic = broker.catalog().ensure(new).await.unwrap();
    ((topic.id(), 0), topic.partition(0).unwrap())
}

fn batch((producer, epoch): Identity, sequence: i32, value: &str) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(NOW, None, Some(value.as_bytes()), &[]);
    let mut bytes = builder.build().unwrap().bytes().to_vec();
    bytes[21..23].copy_from_slice(&16_i16.to_be_bytes());
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::parse(bytes.into()).unwrap()
}

async fn write(broker: &Broker, partition: &Arc<Partition>, batch: Batch) -> Result<Offset> {
    let append = Append { partition: partition.clone(), batch, origin: Origin::Client };
    Ok(broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await?[0].base_offset)
}

async fn committed(partition: &Arc<Partition>) -> Vec<String> {
    let mut values = Vec::new();
    let mut at = partition.log_start();
    while at < partition.last_stable_offset() {
        for batch in partition.read_committed(at, 1).await.unwrap() {
            at = batch.next_offset();
            let records = batch.records().unwrap().map(|record| record.unwrap().value.unwrap());
            values.extend(records.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        }
    }
    values
}

async fn start(broker: &Broker, id: &str) -> Identity {
    let ask = Init { timeout_ms: 60_000, expected: None };
    broker.transactions().init(broker, id, ask).await.unwrap()
}

fn offset(offset: Offset) -> Committed {
    Committed { offset, leader_epoch: -1, metadata: "".into(), committed_at: NOW, expires_at: None, number: 0 }
}

const NOBODY: Caller<'static> = Caller { member_id: "", instance_id: None, generation: -1 };

/// (committed offset, whether it is undecided) of the group `g`.
fn offset_of(broker: &Broker, (topic, partition): Place) -> (Option<Offset>, bool) {
    let read = broker.groups().read("g", |group| {
        (group.offsets().get(topic, partition).map(|known| known.offset), group.undecided().has(topic, partition))
    });
    read.unwrap_or((None, false))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_committed_is_read_whatever_happens() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let broker = open(dir.path(), &clock).await;
    let (place, partition) = place_of(&broker, "t").await;
    let other = place_of(&broker, "u").await;
    let txns = broker.transactions().clone();
    let who = start(&broker, "a").await;
    let producer = Producer { id: "a", who };
    let refused = write(&broker, &partition, batch(who, 0, "early")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::TransactionAbortable);
    let added = [(place, partition.clone()), other.clone()];
    txns.add_partitions(&broker, producer, &added, false).unwrap().await.unwrap();
    assert_eq!(write(&broker, &partition, batch(who, 0, "one")).await.unwrap(), 0);
    txns.add_group(&broker, producer, "g").unwrap().await.unwrap();
    let commits = vec![(place.0, 0, offset(5))];
    txns.commit_offsets(&broker, producer, ("g", &NOBODY), (commits, false)).unwrap().await.unwrap();
    assert_eq!((partition.last_stable_offset(), partition.high_watermark()), (0, 1));
    assert_eq!(offset_of(&broker, place), (None, true));
    assert!(committed(&partition).await.is_empty());
    let identity = txns.end(&broker, producer, true, TransactionVersion::One).await.unwrap();
    assert_eq!((identity, partition.last_stable_offset(), other.1.high_watermark()), (who, 2, 1));
    assert_eq!((committed(&partition).await, offset_of(&broker, place)), (vec!["one".to_owned()], (Some(5), false)));
    // the same producer aborts: what it wrote is passed over, its offsets are forgotten
    txns.add_partitions(&broker, producer, &added[..1], false).unwrap().await.unwrap();
    write(&broker, &partition, batch(who, 1, "two")).await.unwrap();
    let commits = vec![(place.0, 0, offset(9))];
    txns.commit_offsets(&broker, producer, ("g", &NOBODY), (commits, true)).unwrap().await.unwrap();
    txns.end(&broker, producer, false, TransactionVersion::One).await.unwrap();
    let aborted = partition.aborted_between(0, 10).await.unwrap();
    assert_eq!((aborted.len(), aborted[0].first, aborted[0].marker, aborted[0].stable_after), (1, 2, 3, 4));
    assert!(partition.aborted_between(4, 10).await.unwrap().is_empty());
    assert!(partition.aborted_between(0, 2).await.unwrap().is_empty());
    assert_eq!((committed(&partition).await, offset_of(&broker, place)), (vec!["one".to_owned()], (Some(5), false)));
    let late = write(&broker, &partition, batch(who, 2, "late")).await.unwrap_err();
    assert_eq!(late.kind, Kind::TransactionAbortable);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_survives_the_end_of_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let who = {
        let broker = open(dir.path(), &clock).await;
        let (place, partition) = place_of(&broker, "t").await;
        let who = start(&broker, "a").await;
        let producer = Producer { id: "a", who };
        let added = [(place, partition.clone())];
        broker.transactions().add_partitions(&broker, producer, &added, false).unwrap().await.unwrap();
        write(&broker, &partition, batch(who, 0, "one")).await.unwrap();
        let commits = vec![(place.0, 0, offset(5))];
        let kept = broker.transactions().commit_offsets(&broker, producer, ("g", &NOBODY), (commits, true));
        kept.unwrap().await.unwrap();
        broker.lane().stop(); // ends the writer without the clean mark
        who
    };
    let broker = open(dir.path(), &clock).await;
    let (place, partition) = place_of(&broker, "t").await;
    assert_eq!((partition.last_stable_offset(), partition.high_watermark()), (0, 1));
    assert_eq!(offset_of(&broker, place), (None, true));
    write(&broker, &partition, batch(who, 1, "two")).await.unwrap();
    let producer = Producer { id: "a", who };
    let bumped = broker.transactions().end(&broker, producer, true, TransactionVersion::Two).await.unwrap();
    assert_eq!(bumped, (who.0, who.1 + 1));
    assert_eq!(committed(&partition).await, ["one", "two"]);
    assert_eq!(offset_of(&broker, place), (Some(5), false));
    broker.lane().stop();
    drop((broker, partition));
    let broker = open(dir.path(), &clock).await;
    let (place, partition) = place_of(&broker, "t").await;
    assert_eq!(
        (committed(&partition).await, offset_of(&broker, place)),
        (vec!["one".into(), "two".into()], (Some(5), false))
    );
    let again = broker.transactions().end(&broker, producer, true, TransactionVersion::Two).await.unwrap();
    assert_eq!(again, bumped, "a producer that did not hear of the end hears of it now");
    let fenced = write(&broker, &partition, batch(who, 2, "late")).await.unwrap_err();
    assert_eq!(fenced.kind, Kind::InvalidProducerEpoch, "the marker brought a new epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_producer_and_time_fence_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let broker = open(dir.path(), &clock).await;
    let (place, partition) = place_of(&broker, "t").await;
    let txns = broker.transactions().clone();
    let old = start(&broker, "a").await;
    let added = [(place, partition.clone())];
    txns.add_partitions(&broker, Producer { id: "a", who: old }, &added, true).unwrap().await.unwrap();
    write(&broker, &partition, batch(old, 0, "old")).await.unwrap();
    let ask = Init { timeout_ms: 60_000, expected: None };
    let first = txns.init(&broker, "a", ask).await.unwrap_err();
    assert_eq!(first.kind, Kind::ConcurrentTransactions);
    let new = start(&broker, "a").await;
    assert_eq!(new, (old.0, old.1 + 2), "one to fence, one for the new producer");
    let late = write(&broker, &partition, batch(old, 1, "late")).await.unwrap_err();
    assert_eq!(late.kind, Kind::InvalidProducerEpoch);
    let ended = txns.end(&broker, Producer { id: "a", who: old }, true, TransactionVersion::Two).await.unwrap_err();
    assert_eq!(ended.kind, Kind::ProducerFenced);
    // a producer that is new to a partition begins with sequence 0 (KIP-890)
    txns.add_partitions(&broker, Producer { id: "a", who: new }, &added, true).unwrap().await.unwrap();
    let gap = write(&broker, &partition, batch(new, 3, "gap")).await.unwrap_err();
    assert_eq!(gap.kind, Kind::OutOfOrderSequence);
    write(&broker, &partition, batch(new, 0, "slow")).await.unwrap();
    clock.advance(60_000);
    assert_eq!(txns.abort_overdue(&broker).await.unwrap(), 0);
    clock.advance(1);
    assert_eq!(txns.abort_overdue(&broker).await.unwrap(), 1);
    assert_eq!((partition.last_stable_offset(), committed(&partition).await.len()), (partition.high_watermark(), 0));
    let ended = txns.end(&broker, Producer { id: "a", who: new }, true, TransactionVersion::Two).await.unwrap_err();
    assert_eq!(ended.kind, Kind::InvalidTxnState, "for version 2 it is the end of its own transaction");
    let ended = txns.end(&broker, Producer { id: "a", who: new }, true, TransactionVersion::One).await.unwrap_err();
    assert_eq!(ended.kind, Kind::ProducerFenced);
    clock.advance(broker.config().transactional_id_expiration_ms);
    txns.forget_expired(&broker).await.unwrap();
    assert_eq!(txns.read(State::len), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_deleted_topics_and_groups_end_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(NOW)).await;
    let (gone, stays) = (place_of(&broker, "gone").await, place_of(&broker, "stays").await);
    let txns = broker.transactions().clone();
    let who = start(&broker, "a").await;
    let producer = Producer { id: "a", who };
    txns.add_partitions(&broker, producer, &[gone.clone(), stays.clone()], true).unwrap().await.unwrap();
    for (_, partition) in [&gone, &stays] {
        write(&broker, partition, batch(who, 0, "x")).await.unwrap();
    }
    let commits = vec![(stays.0.0, 0, offset(5))];
    txns.commit_offsets(&broker, producer, ("g", &NOBODY), (commits, true)).unwrap().await.unwrap();
    broker.catalog().delete("gone").await.unwrap();
    broker.groups().delete("g").unwrap().await.unwrap();
    txns.end(&broker, producer, true, TransactionVersion::Two).await.unwrap();
    assert_eq!(committed(&stays.1).await, ["x"]);
    assert_eq!(offset_of(&broker, stays.0), (None, false));
    let again = place_of(&broker, "gone").await;
    assert_eq!((again.1.high_watermark(), again.1.last_stable_offset()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_needs_no_decision() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(NOW)).await;
    let (place, partition) = place_of(&broker, "t").await;
    let txns = broker.transactions().clone();
    let who = start(&broker, "a").await;
    let producer = Producer { id: "a", who };
    txns.add_partitions(&broker, producer, &[(place, partition.clone())], true).unwrap().await.unwrap();
    for sequence in 0..3 {
        write(&broker, &partition, batch(who, sequence, "x")).await.unwrap();
    }
    let change = Change::LogStart(partition.clone(), 2);
    broker.lane().commit(vec![change], Ack::Durable).await.unwrap();
    assert_eq!((partition.log_start(), partition.last_stable_offset(), partition.high_watermark()), (2, 2, 3));
    assert!(partition.read_committed(2, 1).await.unwrap().is_empty());
    txns.end(&broker, producer, false, TransactionVersion::Two).await.unwrap();
    assert!(committed(&partition).await.is_empty());
    broker.lane().commit(vec![Change::LogStart(partition.clone(), 4)], Ack::Durable).await.unwrap();
    assert!(partition.aborted_between(0, 10).await.unwrap().is_empty(), "its entry went with its records");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_asked_for_again_is_answered_when_it_is_stored() {
    use futures::FutureExt;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), &Clock::manual(NOW)).await;
    let ((place, partition), (_, busy)) = (place_of(&broker, "t").await, place_of(&broker, "busy").await);
    let txns = broker.transactions().clone();
    let producer = Producer { id: "a", who: start(&broker, "a").await };
    txns.add_partitions(&broker, producer, &[(place, partition.clone())], true).unwrap().await.unwrap();
    write(&broker, &partition, batch(producer.who, 0, "one")).await.unwrap();
    let (held_up, first, mut again) = {
        let _holds_the_lane_up = busy.writer.lock();
        let append = Append { partition: busy.clone(), batch: batch((77, 0), 0, "x"), origin: Origin::Client };
        let held_up = broker.lane().commit(vec![Change::Append(append)], Ack::Durable);
        let first = txns.end(&broker, producer, true, TransactionVersion::Two);
        let mut again = txns.end(&broker, producer, true, TransactionVersion::Two);
        assert!((&mut again).now_or_never().is_none(), "told of an end that is not stored yet");
        (held_up, first, again)
    };
    assert!(held_up.await.is_err(), "it belongs to no transaction");
    assert_eq!((&mut again).await.unwrap(), first.await.unwrap());
    assert_eq!(committed(&partition).await, ["one"]);
}
