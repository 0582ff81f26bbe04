//! Memory that peers share: nobody keeps it from the others, and it is accounted for until it is really free.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, MetadataRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::connection::{self, Shared};
use super::tests::{reply, request};
use crate::handlers::tests::context;
use crate::handlers::{Context, encode};
use crate::{Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, NewTopic, Origin};

const MIB: usize = 1 << 20;

/// A broker whose connections share 16 MiB for requests and 16 MiB for replies.
struct Node {
    context: Context,
    shared: Arc<Shared>,
    _stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

async fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { data_dir: dir.path().to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Clock::system()).await.unwrap();
    let new = NewTopic { name: "t".to_owned(), partitions: 1, ..NewTopic::default() };
    broker.catalog().create(new).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let context = context(broker, stopping.clone());
    let budget = Arc::new(Semaphore::new(16 * MIB));
    let shared = Arc::new(Shared { budget, frame_bytes_max: 10 * MIB, idle: None, stopping });
    Node { context, shared, _stop: stop, _dir: dir }
}

impl Node {
    fn connect(&self) -> DuplexStream {
        let (far, near) = tokio::io::duplex(64 * 1024);
        let known_by = Instant::now() + Duration::from_secs(60);
        let (context, shared) = (self.context.clone(), self.shared.clone());
        let peer = ([127, 0, 0, 1], 1).into();
        tokio::spawn(connection::run(tokio::io::split(near), peer, context, (shared, known_by)));
        far
    }

    /// Writes batches of 1 MiB.
    async fn fill(&self, batches: usize) {
        let partition = self.context.broker.catalog().topic("t").unwrap().partition(0).unwrap();
        for _ in 0..batches {
            let append = Append { partition: partition.clone(), batch: mebibyte(), origin: Origin::Internal };
            self.context.broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
        }
    }
}

fn mebibyte() -> crate::Batch {
    let mut batch = BatchBuilder::new();
    batch.push(1_700_000_000_000, None, Some(&vec![7; MIB - 100]), &[]);
    batch.build().unwrap()
}

fn fetch_request() -> Vec<u8> {
    let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(8 << 20);
    let topic =
        FetchTopic::default().with_topic(TopicName(StrBytes::from_static_str("t"))).with_partitions(vec![partition]);
    let asked = FetchRequest::default().with_max_wait_ms(500).with_max_bytes(8 << 20).with_topics(vec![topic]);
    request(ApiKey::Fetch, 12, 1, &encode(12, &asked).unwrap())
}

/// Bytes of records in the next answer to a Fetch.
async fn fetched(stream: &mut DuplexStream) -> usize {
    let mut answer = reply(stream).await.expect("an answer");
    let answer = FetchResponse::decode(&mut answer.split_off(5), 12).unwrap();
    answer.responses[0].partitions[0].records.as_ref().map_or(0, Bytes::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_does_not_keep_others_from_reading() {
    let node = node().await;
    node.fill(9).await;
    let ask = fetch_request();
    let mut deaf = [node.connect(), node.connect()];
    for stream in &mut deaf {
        stream.write_all(&ask).await.unwrap();
    }
    while node.context.reply_memory.free_bytes() > 4 * MIB {
        sleep(Duration::from_millis(10)).await;
    }
    let rest = node.context.reply_memory.all(node.context.reply_memory.free_bytes(), Instant::now()).await.unwrap();
    let (begun, mut third) = (Instant::now(), node.connect());
    third.write_all(&ask).await.unwrap();
    assert_eq!(fetched(&mut third).await, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "waited for memory for {:?}", begun.elapsed());
    loop {
        third.write_all(&ask).await.unwrap();
        if fetched(&mut third).await > 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "who does not read keeps its memory");
    }
    drop((deaf, rest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_charged() {
    let node = node().await;
    node.context.broker.catalog().grow("t", 500).await.unwrap();
    let all = MetadataRequest::default().with_topics(None);
    let ask = request(ApiKey::Metadata, 12, 1, &encode(12, &all).unwrap());
    let mut stream = node.connect();
    stream.write_all(&ask).await.unwrap();
    let bytes = reply(&mut stream).await.unwrap().len();
    stream.write_all(&ask.repeat(40)).await.unwrap();
    let begun = Instant::now();
    while node.context.reply_memory.free_bytes() > 16 * MIB - 30 * bytes {
        sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "answers of {bytes} bytes wait, and take no memory");
    }
    drop(stream);
    while node.context.reply_memory.free_bytes() < 16 * MIB {
        sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "the connection is gone, its answers are not");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock, reason = "the lane, a thread of its own, is to stand still meanwhile")]
async fn what_waits_for_the_disk_is_charged_when_its_connection_has_ended() {
    let node = node().await;
    let partition = node.context.broker.catalog().topic("t").unwrap().partition(0).unwrap();
    let slow = partition.writer.lock();
    let data = PartitionProduceData::default().with_records(Some(mebibyte().bytes().clone()));
    let topic = TopicProduceData::default().with_name(TopicName(StrBytes::from_static_str("t")));
    let asked = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic.with_partition_data(vec![data])]);
    let frame = request(ApiKey::Produce, 9, 1, &encode(9, &asked).unwrap());
    let mut stream = node.connect();
    for _ in 0..8 {
        stream.write_all(&frame).await.unwrap();
    }
    let free = || node.shared.budget.available_permits();
    while free() > 8 * MIB {
        sleep(Duration::from_millis(10)).await;
    }
    drop(stream);
    // longer than what is owed may take
    sleep(Duration::from_secs(6)).await;
    assert!(free() <= 8 * MIB, "{} of 16 MiB are free, and the batches have not been written", free() / MIB);
    drop(slow);
    let begun = Instant::now();
    while free() < 16 * MIB {
        sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "written, and still charged");
    }
    assert_eq!(partition.high_watermark(), 8);
}
