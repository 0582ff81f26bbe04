//! A librdkafka consumer that reads a whole topic once.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// How long one partition may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys and values that a read_committed consumer sees now, partition by partition.
pub fn committed(address: &str, topic: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    each_record(address, topic, |message| {
        let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
        records.push((bytes(message.key()), bytes(message.payload())));
    });
    records
}

/// Shows all records that such a consumer sees now, partition by partition.
pub fn each_record(address: &str, topic: &str, mut visit: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    for partition in metadata.topics()[0].partitions() {
        let mut one = TopicPartitionList::new();
        one.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        consumer.assign(&one).unwrap();
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "{topic}-{}: no end within {PATIENCE:?}", partition.id());
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => visit(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => eprintln!("reader of {topic}: {error}"),
                None => {}
            }
        }
    }
}
