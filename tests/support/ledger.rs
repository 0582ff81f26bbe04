//! Numbered records through an idempotent producer that outlasts kills of the server, and what was acknowledged of them.

use super::writer::patient;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Sequence numbers that were acknowledged, per partition, in no order: `flush` hands reports out beside the producer's own thread, and
/// what a later success implies of an earlier request is reported when the client learns of it.
#[derive(Default)]
pub struct Acknowledged {
    pub by_partition: Mutex<BTreeMap<i32, Vec<u64>>>,
    pub failures: Mutex<Vec<String>>,
    pub count: AtomicU64,
    /// Records that were given to the producer.
    pub sent: AtomicU64,
}

#[derive(Clone)]
struct Ledger(Arc<Acknowledged>);

impl ClientContext for Ledger {
    fn error(&self, _: KafkaError, _: &str) {}
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for Ledger {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Box<u64>) {
        match result {
            Ok(message) => {
                self.0.by_partition.lock().unwrap().entry(message.partition()).or_default().push(*sequence);
                self.0.count.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => self.0.failures.lock().unwrap().push(format!("{sequence}: {error}")),
        }
    }
}

/// What is written where.
pub struct Writes {
    pub address: String,
    pub topic: &'static str,
    pub partitions: i32,
    /// The value of the record of this number; each partition counts its own from 0.
    pub value: fn(u64) -> String,
    /// Time from one record of a partition to its next.
    pub pace: Duration,
}

impl Writes {
    /// Writes numbered records until told to stop, then until all are acknowledged; how many were written per partition.
    pub fn run(&self, acknowledged: &Arc<Acknowledged>, stop: &AtomicBool) -> Vec<u64> {
        let producer = self.producer(acknowledged);
        let mut sent = vec![0u64; self.partitions as usize];
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            for partition in 0..self.partitions {
                let sequence = sent[partition as usize];
                let value = (self.value)(sequence);
                let record = BaseRecord::<str, str, Box<u64>>::with_opaque_to(self.topic, Box::new(sequence))
                    .partition(partition)
                    .payload(&value);
                // counted before it can be seen
                acknowledged.sent.fetch_add(1, Ordering::SeqCst);
                match producer.send(record) {
                    Ok(()) => sent[partition as usize] += 1,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        acknowledged.sent.fetch_sub(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(5))
                    }
                    Err((e, _)) => panic!("{e}"),
                }
            }
            let due = self.pace * u32::try_from(sent[0]).unwrap();
            thread::sleep(due.saturating_sub(started.elapsed()).min(Duration::from_millis(20)));
        }
        producer.flush(Duration::from_secs(120)).unwrap();
        sent
    }

    fn producer(&self, acknowledged: &Arc<Acknowledged>) -> ThreadedProducer<Ledger> {
        let mut config = patient(&self.address);
        config.set("batch.num.messages", "500").create_with_context(Ledger(acknowledged.clone())).unwrap()
    }
}
