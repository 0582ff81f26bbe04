//! Handlers called as the connection calls them: a body in, a reply out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, StrBytes};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::{APIS, Context, Listener, Reply, ReplyMemory, api, encode, samples};
use crate::security::Principal;
use crate::security::session::Session;
use crate::types::TopicId;
use crate::{Batch, BatchBuilder, Broker, BrokerConfig, Clock, NewTopic, SecurityConfig, batches_in};

const NOW: i64 = 1_700_000_000_000;

pub(super) struct Node {
    pub(super) context: Context,
    pub(super) id: TopicId,
    _end: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

/// A client of a broker, logged in as nobody.
pub(crate) fn context(broker: Arc<Broker>, ending: watch::Receiver<bool>) -> Context {
    Context {
        broker,
        listener: Arc::new(Listener { name: "test".into(), host: "mill".into(), port: 9 }),
        client_id: "test".into(),
        client_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        session: Arc::new(Session::open(Principal::default())),
        ending,
        reply_memory: ReplyMemory::new(16 << 20),
        share: None,
    }
}

pub(super) async fn node() -> Node {
    node_with(SecurityConfig::default()).await
}

pub(super) async fn node_with(security: SecurityConfig) -> Node {
    node_of(BrokerConfig { security, ..BrokerConfig::default() }).await
}

pub(super) async fn node_of(config: BrokerConfig) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { data_dir: dir.path().to_owned(), group_initial_rebalance_delay_ms: 0, ..config };
    let broker = Broker::open(config, Clock::manual(NOW)).await.unwrap();
    let (end, ending) = watch::channel(false);
    let context = context(broker, ending);
    let node = Node { context, id: TopicId::nil(), _end: end, _dir: dir };
    let id = node.create("t", 2, &[]).await;
    node.create("compacted", 1, &[("cleanup.policy", "compact")]).await;
    node.create("small", 1, &[("max.message.bytes", "200")]).await;
    Node { id, ..node }
}

impl Node {
    pub(super) async fn create(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> TopicId {
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let new = NewTopic { name: name.to_owned(), partitions, config };
        self.context.broker.catalog().create(new).await.unwrap().id()
    }

    pub(super) async fn call<Q: kafka_protocol::protocol::Request>(&self, version: i16, request: &Q) -> Reply {
        let body = encode(version, request).unwrap();
        let mut reply = (api(Q::KEY).unwrap().handle)(&self.context, version, body).unwrap();
        while let Reply::Later(answer) = reply {
            reply = answer.await;
        }
        reply
    }

    pub(super) async fn ask<Q: kafka_protocol::protocol::Request>(&self, version: i16, request: &Q) -> Q::Response {
        decode(version, self.call(version, request).await)
    }

    fn high_watermark(&self, topic: &str, partition: i32) -> i64 {
        self.context.broker.catalog().topic(topic).unwrap().partition(partition).unwrap().high_watermark()
    }
}

fn decode<R: Decodable>(version: i16, reply: Reply) -> R {
    let (Reply::Now(chunks) | Reply::Held(chunks, _)) = reply else { panic!("no reply") };
    let mut body = Bytes::from(chunks.concat());
    let response = R::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "{} bytes are left over", body.len());
    response
}

pub(super) fn name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

pub(super) fn batch(records: usize, value_bytes: usize) -> Bytes {
    let mut batch = BatchBuilder::new();
    for _ in 0..records {
        batch.push(NOW, Some(b"key"), Some(&vec![7; value_bytes]), &[]);
    }
    batch.build().unwrap().bytes().clone()
}

/// `batch` with other bytes at `at`, and a CRC that fits them.
fn edited(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut edited = BytesMut::from(&batch[..]);
    edited[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&edited[21..]);
    edited[17..21].copy_from_slice(&crc.to_be_bytes());
    edited.freeze()
}

pub(super) fn produce_request(
    acks: i16,
    topic: &'static str,
    partition: i32,
    records: Option<Bytes>,
) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(records);
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![topic])
}

async fn produce(node: &Node, version: i16, topic: &'static str, records: Bytes) -> PartitionProduceResponse {
    let mut response = node.ask(version, &produce_request(-1, topic, 0, Some(records))).await;
    response.responses.remove(0).partition_responses.remove(0)
}

#[tokio::test]
async fn produce_refuses_what_kafka_refuses() {
    let node = node().await;
    let good = batch(3, 10);
    let zstd = edited(&good, 21, &4i16.to_be_bytes());
    let mut padded = BytesMut::from(&good[..]);
    padded.put_u8(0);
    let length = (padded.len() - 12) as i32;
    let padded = edited(&padded.freeze(), 8, &length.to_be_bytes());
    let mut broken = good.to_vec();
    broken[70] ^= 1;
    let future = edited(&good, 27, &(NOW + 3_600_001).to_be_bytes());
    let cases: Vec<(&str, i16, &'static str, Bytes, i16)> = vec![
        ("wrong crc", 9, "t", broken.into(), 2),
        ("cut off", 9, "t", good.slice(..good.len() - 1), 2),
        ("nothing", 9, "t", Bytes::new(), 87),
        ("two batches", 9, "t", [&good[..], &good[..]].concat().into(), 87),
        ("message set", 9, "t", edited(&good, 16, &[1]), 87),
        ("unknown magic", 9, "t", edited(&good, 16, &[3]), 2),
        ("control batch", 9, "t", edited(&good, 21, &32i16.to_be_bytes()), 87),
        ("unknown codec", 9, "t", edited(&good, 21, &5i16.to_be_bytes()), 2),
        ("count and offsets differ", 9, "t", edited(&good, 57, &2i32.to_be_bytes()), 87),
        ("no records", 9, "t", edited(&edited(&good, 57, &0i32.to_be_bytes()), 23, &(-1i32).to_be_bytes()), 2),
        ("more bytes than records", 9, "t", padded, 87),
        ("zstd too early", 6, "t", zstd.clone(), 76),
        ("not zstd at all", 7, "t", zstd, 2),
        ("transactional", 9, "t", edited(&good, 21, &16i16.to_be_bytes()), 53),
        ("producer without sequence", 9, "t", edited(&good, 43, &5i64.to_be_bytes()), 87),
        ("too large", 9, "small", batch(1, 300), 10),
        ("from the future", 9, "t", future, 32),
        ("no such topic", 9, "absent", good.clone(), 3),
    ];
    for (what, version, topic, records, code) in cases {
        let answer = produce(&node, version, topic, records).await;
        assert_eq!((answer.error_code, answer.base_offset), (code, -1), "{what}: {:?}", answer.error_message);
        assert!(version < 8 || answer.error_message.is_some(), "{what}");
    }
    let mut keyless = BatchBuilder::new();
    keyless.push(NOW, Some(b"k"), Some(b"v"), &[]);
    keyless.push(NOW, None, Some(b"v"), &[]);
    let answer = produce(&node, 9, "compacted", keyless.build().unwrap().bytes().clone()).await;
    let faults: Vec<i32> = answer.record_errors.iter().map(|fault| fault.batch_index).collect();
    assert_eq!((answer.error_code, faults), (87, vec![1]));
    for (acks, partition, records, code) in
        [(2, 0, Some(good.clone()), 21), (-1, 2, Some(good.clone()), 3), (1, 0, None, 87)]
    {
        let answer = node.ask(9, &produce_request(acks, "t", partition, records)).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, code);
    }
    assert_eq!(node.high_watermark("t", 0), 0);
}

#[tokio::test]
async fn produce_appends_in_every_way_that_is_allowed() {
    let node = node().await;
    assert_eq!(produce(&node, 3, "t", batch(2, 5)).await.base_offset, 0);
    assert_eq!(produce(&node, 12, "t", batch(3, 5)).await.base_offset, 2);
    let by_id = TopicProduceData::default()
        .with_topic_id(node.id)
        .with_partition_data(vec![PartitionProduceData::default().with_index(0).with_records(Some(batch(1, 5)))]);
    let response = node.ask(13, &ProduceRequest::default().with_acks(1).with_topic_data(vec![by_id.clone()])).await;
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 5);
    assert_eq!(response.responses[0].topic_id, node.id);
    let unknown =
        ProduceRequest::default().with_acks(1).with_topic_data(vec![by_id.with_topic_id(TopicId::from_u128(9))]);
    assert_eq!(node.ask(13, &unknown).await.responses[0].partition_responses[0].error_code, 100);
    // acks = 0: nothing is said, or the connection is closed
    assert!(matches!(node.call(9, &produce_request(0, "t", 0, Some(batch(1, 1)))).await, Reply::Silent));
    assert!(matches!(node.call(9, &produce_request(0, "absent", 0, Some(batch(1, 1)))).await, Reply::Close(_)));
    // an idempotent batch that is sent again is not appended again
    let first = edited(&edited(&batch(2, 1), 43, &77i64.to_be_bytes()), 51, &[0, 0, 0, 0, 0, 0]);
    assert_eq!(produce(&node, 9, "t", first.clone()).await.base_offset, 7);
    assert_eq!(produce(&node, 9, "t", first.clone()).await.base_offset, 7);
    let gap = edited(&first, 53, &9i32.to_be_bytes());
    assert_eq!(produce(&node, 9, "t", gap).await.error_code, 45);
    assert_eq!(node.high_watermark("t", 0), 9);
}

pub(super) fn fetch_request(version: i16, node: &Node, partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic::default().with_partitions(partitions);
    let topic = if version >= 13 { topic.with_topic_id(node.id) } else { topic.with_topic(name("t")) };
    FetchRequest::default().with_topics(vec![topic]).with_min_bytes(1)
}

pub(super) fn from(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20)
}

pub(super) async fn fetch(node: &Node, version: i16, request: &FetchRequest) -> Vec<PartitionData> {
    node.ask(version, request).await.responses.remove(0).partitions
}

pub(super) fn bases(data: &PartitionData) -> Vec<i64> {
    batches_in(data.records.clone().unwrap()).unwrap().iter().map(Batch::base_offset).collect()
}

#[tokio::test]
async fn fetch_gives_whole_batches_within_its_limits() {
    let node = node().await;
    for partition in 0..2 {
        for _ in 0..3 {
            node.ask(9, &produce_request(-1, "t", partition, Some(batch(2, 500)))).await;
        }
    }
    let one = batch(2, 500).len() as i32;
    for version in 4..=17 {
        let all = fetch(&node, version, &fetch_request(version, &node, vec![from(0, 0), from(1, 3)])).await;
        assert_eq!((bases(&all[0]), bases(&all[1])), (vec![0, 2, 4], vec![2, 4]), "version {version}");
        assert_eq!((all[0].error_code, all[0].high_watermark, all[0].last_stable_offset), (0, 6, 6));
        assert!(all[0].aborted_transactions.is_none());
    }
    let limited = |total: i32, each: i32| {
        let partition = |index| from(index, 0).with_partition_max_bytes(each);
        fetch_request(17, &node, vec![partition(0), partition(1)]).with_max_bytes(total)
    };
    for (total, each, expected) in [
        (1, 1, (vec![0], vec![])),
        (0, 0, (vec![0], vec![])),
        (1 << 20, 1, (vec![0], vec![])),
        (1 << 20, one, (vec![0], vec![0])),
        (2 * one, 2 * one, (vec![0, 2], vec![])),
        (3 * one, 2 * one, (vec![0, 2], vec![0])),
        (i32::MAX, i32::MAX, (vec![0, 2, 4], vec![0, 2, 4])),
    ] {
        let got = fetch(&node, 17, &limited(total, each)).await;
        assert_eq!((bases(&got[0]), bases(&got[1])), expected, "{total} bytes, {each} each");
    }
    let committed = fetch_request(12, &node, vec![from(0, 0)]).with_isolation_level(1);
    assert_eq!(fetch(&node, 12, &committed).await[0].aborted_transactions, Some(vec![]));
}

#[tokio::test]
async fn replies_hold_their_share_of_memory_until_they_have_left() {
    let node = node().await;
    for _ in 0..3 {
        produce(&node, 9, "t", batch(1, 1000)).await;
    }
    let memory = &node.context.reply_memory;
    let free = memory.free_bytes();
    let request = fetch_request(12, &node, vec![from(0, 0)]);
    let Reply::Held(chunks, share) = node.call(12, &request).await else { panic!("no reply") };
    let bytes = 3 * batch(1, 1000).len();
    drop(chunks);
    assert_eq!((share.num_permits(), memory.free_bytes()), (bytes, free - bytes));
    drop(share);
    assert_eq!(memory.free_bytes(), free);
    // with little left an answer is shorter, but never empty
    let soon = || tokio::time::Instant::now() + Duration::from_millis(100);
    let held = memory.all(free - 70_000, soon()).await.unwrap();
    produce(&node, 9, "t", batch(1, 100_000)).await;
    assert_eq!(bases(&fetch(&node, 12, &request).await[0]), vec![0, 1, 2]);
    assert_eq!(bases(&fetch(&node, 12, &fetch_request(12, &node, vec![from(0, 3)])).await[0]), vec![3]);
    // with nothing left it has no records, and comes when it is due
    let rest = memory.all(70_000, soon()).await.unwrap();
    let asked = Instant::now();
    let got = fetch(&node, 12, &request.with_max_wait_ms(200)).await.remove(0);
    assert_eq!((got.error_code, got.high_watermark, bases(&got)), (0, 4, vec![]));
    assert!(asked.elapsed() < Duration::from_secs(5));
    drop((held, rest));
}

#[tokio::test]
async fn fetch_says_what_is_wrong() {
    let node = node().await;
    produce(&node, 9, "t", batch(2, 5)).await;
    let long = |partition| fetch_request(17, &node, vec![partition]).with_max_wait_ms(60_000);
    let cases = [
        (from(0, 3), 1, (-1, -1)),
        (from(0, -1), 1, (-1, -1)),
        (from(9, 0), 3, (-1, -1)),
        (from(0, 0).with_current_leader_epoch(8), 75, (-1, -1)),
        (from(0, 0).with_last_fetched_epoch(8), 1, (-1, -1)),
    ];
    for (asked, code, (high_watermark, log_start)) in cases {
        let got = fetch(&node, 17, &long(asked.clone())).await.remove(0);
        assert_eq!(
            (got.error_code, got.high_watermark, got.log_start_offset),
            (code, high_watermark, log_start),
            "{asked:?}"
        );
        assert_eq!(got.records, Some(Bytes::new()));
    }
    let epoch = node.context.broker.catalog().topic("t").unwrap().partition(0).unwrap().leader_epoch();
    let agreed = long(from(0, 2).with_last_fetched_epoch(epoch)).with_max_wait_ms(1);
    let parted = fetch(&node, 17, &agreed).await;
    assert_eq!(parted[0].diverging_epoch.epoch, -1, "the logs agree");
    let unknown = fetch_request(17, &node, vec![from(0, 0)]);
    let topics = vec![unknown.topics[0].clone().with_topic_id(TopicId::from_u128(5))];
    assert_eq!(fetch(&node, 17, &unknown.with_topics(topics)).await[0].error_code, 100);
    let in_session = fetch_request(17, &node, vec![from(0, 0)]).with_session_id(5).with_session_epoch(3);
    assert_eq!(node.ask(17, &in_session).await.error_code, 70);
    let opening = fetch_request(17, &node, vec![from(0, 0)]).with_session_epoch(0);
    let session = node.ask(17, &opening).await.session_id;
    assert!(session > 0);
    let end = from(0, node.high_watermark("t", 0));
    let next = fetch_request(17, &node, vec![end]).with_session_id(session).with_session_epoch(1);
    let next = next.with_min_bytes(0);
    let nothing_new = node.ask(17, &next).await;
    assert_eq!((nothing_new.session_id, nothing_new.responses.len(), nothing_new.error_code), (session, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_waits_for_records_and_no_longer_than_asked() {
    let node = node().await;
    let waiting = |wait, least| {
        fetch_request(12, &node, vec![from(0, 0), from(1, 0)]).with_max_wait_ms(wait).with_min_bytes(least)
    };
    let started = Instant::now();
    assert!(bases(&fetch(&node, 12, &waiting(150, 1)).await[0]).is_empty());
    assert!(started.elapsed() >= Duration::from_millis(150));
    let woken = async {
        let got = fetch(&node, 12, &waiting(20_000, 1)).await;
        (bases(&got[0]), bases(&got[1]))
    };
    let writing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.ask(9, &produce_request(-1, "t", 1, Some(batch(1, 100)))).await
    };
    let started = Instant::now();
    let (got, _) = tokio::join!(woken, writing);
    assert_eq!(got, (vec![], vec![0]));
    // two batches are needed for so many bytes
    let least = batch(1, 100).len() as i32 + 1;
    let patient = async { bases(&fetch(&node, 12, &waiting(20_000, least)).await[1]) };
    let second = produce_request(-1, "t", 1, Some(batch(1, 100)));
    let (got, _) = tokio::join!(patient, node.ask(9, &second));
    assert_eq!(got, vec![0, 1]);
    // a topic that is deleted ends the wait
    let deleting = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.context.broker.catalog().delete("t").await.unwrap();
    };
    let patient = async { fetch(&node, 12, &waiting(20_000, 10_000)).await[0].error_code };
    let (code, ()) = tokio::join!(patient, deleting);
    assert_eq!(code, 3);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn list_offsets_knows_every_special_timestamp() {
    let node = node().await;
    let mut records = BatchBuilder::new();
    for timestamp in [NOW - 50, NOW - 10, NOW - 30] {
        records.push(timestamp, None, Some(b"v"), &[]);
    }
    produce(&node, 9, "t", records.build().unwrap().bytes().clone()).await;
    let epoch = node.context.broker.catalog().topic("t").unwrap().partition(0).unwrap().leader_epoch();
    let ask = async |version: i16, partition: i32, timestamp: i64| {
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
        let asked = if version >= 4 { asked.with_current_leader_epoch(-1) } else { asked };
        let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![asked]);
        let got = node.ask(version, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
        let got = &got.topics[0].partitions[0];
        (got.error_code, got.offset, got.timestamp, got.leader_epoch)
    };
    assert_eq!(ask(1, 0, -1).await, (0, 3, -1, -1));
    assert_eq!(ask(3, 0, -2).await, (0, 0, -1, -1));
    assert_eq!(ask(10, 0, -1).await, (0, 3, -1, epoch));
    assert_eq!(ask(10, 0, -3).await, (0, 1, NOW - 10, epoch));
    assert_eq!(ask(10, 0, -4).await, (0, 0, -1, epoch));
    assert_eq!(ask(10, 0, -5).await, (0, -1, -1, -1));
    assert_eq!(ask(10, 0, 0).await, (0, 0, NOW - 50, epoch));
    assert_eq!(ask(10, 0, NOW - 49).await, (0, 1, NOW - 10, epoch));
    assert_eq!(ask(10, 0, NOW).await, (0, -1, -1, -1));
    assert_eq!(ask(10, 1, 0).await, (0, -1, -1, -1));
    assert_eq!(ask(10, 1, -3).await, (0, -1, -1, -1));
    assert_eq!(ask(10, 7, -1).await.0, 3);
    for (version, timestamp) in [(6, -3), (7, -4), (8, -5), (10, -6), (10, -100)] {
        assert_eq!(ask(version, 0, timestamp).await.0, 35, "{timestamp} in version {version}");
    }
}

#[tokio::test]
async fn delete_records_moves_the_log_start() {
    let node = node().await;
    for _ in 0..3 {
        produce(&node, 9, "t", batch(2, 5)).await;
    }
    let delete = async |topic: &'static str, partition: i32, offset: i64| {
        let asked = delete_records_request::DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(offset);
        let topic =
            delete_records_request::DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        let got = node.ask(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
        let got = &got.topics[0].partitions[0];
        (got.error_code, got.low_watermark)
    };
    assert_eq!(delete("t", 0, 3).await, (0, 3));
    assert_eq!(delete("t", 0, 1).await, (0, 3), "the log start never goes back");
    assert_eq!(delete("t", 0, 7).await, (1, -1));
    assert_eq!(delete("t", 0, -2).await, (1, -1));
    assert_eq!(delete("t", 5, 0).await, (3, -1));
    assert_eq!(fetch(&node, 12, &fetch_request(12, &node, vec![from(0, 2)])).await[0].error_code, 1);
    assert_eq!(bases(&fetch(&node, 12, &fetch_request(12, &node, vec![from(0, 3)])).await[0]), vec![2, 4]);
    assert_eq!(delete("t", 0, -1).await, (0, 6));
}

#[tokio::test]
async fn metadata_finds_lists_and_creates() {
    let node = node().await;
    let topic = |name: Option<&'static str>, id: u128| {
        let name = name.map(|n| TopicName(StrBytes::from_static_str(n)));
        MetadataRequestTopic::default().with_name(name).with_topic_id(TopicId::from_u128(id))
    };
    let ask = async |version: i16, topics: Option<Vec<MetadataRequestTopic>>, create: bool| {
        let request = MetadataRequest::default().with_topics(topics);
        let request = if version >= 4 { request.with_allow_auto_topic_creation(create) } else { request };
        let got = node.ask(version, &request).await;
        assert_eq!((got.brokers[0].host.as_str(), got.brokers[0].port), ("mill", 9));
        let shown = |t: &metadata_response::MetadataResponseTopic| {
            (t.name.as_ref().map(|n| n.to_string()), t.error_code, t.partitions.len())
        };
        got.topics.iter().map(shown).collect::<Vec<_>>()
    };
    let some = |name: &str, code: i16, partitions: usize| (Some(name.to_owned()), code, partitions);
    let all = vec![some("compacted", 0, 1), some("small", 0, 1), some("t", 0, 2)];
    assert_eq!(ask(0, Some(vec![]), false).await, all);
    assert_eq!(ask(1, Some(vec![]), false).await, vec![]);
    assert_eq!(ask(12, None, false).await, all);
    assert_eq!(ask(12, Some(vec![topic(Some("t"), 0), topic(Some("t"), 0)]), false).await, vec![some("t", 0, 2)]);
    assert_eq!(ask(12, Some(vec![topic(None, node.id.as_u128())]), false).await, vec![some("t", 0, 2)]);
    assert_eq!(ask(12, Some(vec![topic(None, 4)]), true).await, vec![(None, 100, 0)]);
    let by_id = MetadataRequest::default().with_topics(Some(vec![topic(None, node.id.as_u128())]));
    let refused = node.ask(11, &by_id).await;
    assert_eq!((refused.brokers.len(), refused.topics[0].error_code), (0, 42), "ids are for version 12 on");
    assert_eq!(ask(9, Some(vec![topic(Some("new"), 0)]), false).await, vec![some("new", 3, 0)]);
    assert_eq!(ask(9, Some(vec![topic(Some("no/name"), 0)]), true).await, vec![some("no/name", 17, 0)]);
    assert_eq!(ask(9, Some(vec![topic(Some("no/name"), 0)]), false).await, vec![some("no/name", 17, 0)]);
    assert_eq!(ask(9, Some(vec![topic(Some("new"), 0)]), true).await, vec![some("new", 0, 1)]);
    assert_eq!(ask(0, Some(vec![topic(Some("newer"), 0)]), true).await, vec![some("newer", 0, 1)]);
}

#[tokio::test]
async fn cluster_and_log_dirs_are_described() {
    let node = node().await;
    produce(&node, 9, "t", batch(2, 500)).await;
    let cluster = node.ask(2, &DescribeClusterRequest::default().with_endpoint_type(1)).await;
    assert_eq!((cluster.error_code, cluster.brokers.len(), cluster.controller_id), (0, 1, BrokerId(1)));
    assert_eq!(cluster.cluster_id.as_str(), node.context.broker.cluster_id());
    assert_eq!(node.ask(1, &DescribeClusterRequest::default().with_endpoint_type(2)).await.error_code, 114);
    let dirs = node.ask(4, &DescribeLogDirsRequest::default().with_topics(None)).await;
    let dir = &dirs.results[0];
    let sizes: Vec<(String, i64)> =
        dir.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), p.partition_size))).collect();
    assert_eq!(sizes[2], ("t".to_owned(), batch(2, 500).len() as i64));
    assert_eq!((dirs.results.len(), sizes.len()), (1, 4));
    assert!(dir.usable_bytes > 0 && dir.total_bytes >= dir.usable_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_a_handler_panic() {
    let mut rng = rand::rngs::StdRng::seed_from_u64(crate::seed::seed("no_request_makes_a_handler_panic"));
    let node = node().await;
    let id = node.create(samples::TOPIC, 2, &[]).await;
    for _ in 0..300 {
        for api in APIS {
            let version = rng.random_range(api.min..=api.max);
            let mut records = batch(3, 20).to_vec();
            for _ in 0..rng.random_range(0..3) {
                let at = rng.random_range(0..records.len());
                records[at] = *[0, 1, 0x7f, 0x80, 0xff, rng.random()].choose(&mut rng).unwrap();
            }
            let mut records = Bytes::from(records);
            if rng.random() {
                let length = (records.len() - 12) as i32;
                records = edited(&edited(&records, 16, &[2]), 8, &length.to_be_bytes());
            }
            let mut body = samples::sample(api.key, version, id, &records).to_vec();
            for _ in 0..rng.random_range(0..3) {
                let at = rng.random_range(0..body.len().max(1));
                if let Some(byte) = body.get_mut(at) {
                    *byte = rng.random();
                }
            }
            let body = Bytes::from(body);
            if crate::net::shapes::check(api.key as i16, version, &body).is_err() {
                continue;
            }
            let context = node.context.clone();
            let shown = body.clone();
            let handled = tokio::spawn(async move {
                let mut reply = (api.handle)(&context, version, body);
                while let Ok(Reply::Later(answer)) = reply {
                    // a wait that a mutated request asks for is not waited for
                    let answer = tokio::time::timeout(Duration::from_millis(20), answer).await;
                    reply = Ok(answer.unwrap_or(Reply::Silent));
                }
                assert!(!matches!(&reply, Ok(Reply::Close(why)) if why.contains("cannot encode")), "{reply:?}");
            });
            assert!(handled.await.is_ok(), "{:?} version {version}: {shown:?}", api.key);
        }
    }
}
