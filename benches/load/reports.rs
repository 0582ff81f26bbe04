//! Producers whose delivery reports are counted, with the delay of each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer, ProducerContext};

use super::{ANSWER_MAX, Target, client};
use crate::Outcome;

/// Delays for which there is room from the start, so that no reallocation falls into a short phase.
const DELAYS_AT_START: usize = 4 << 20;

/// Counts delivery reports and keeps their delays.
pub struct Reports {
    epoch: Instant,
    seen: Mutex<Seen>,
}

/// What has been reported so far.
#[derive(Default)]
pub struct Seen {
    /// Records with a report.
    pub acknowledged: usize,
    /// From the moment each was due to its report; whoever reads along may take them.
    pub delays_ns: Vec<u64>,
    /// When the last report came.
    pub last: Option<Instant>,
    /// Why a record was not delivered.
    pub failed: Option<KafkaError>,
}

impl Reports {
    /// With room for so many delays.
    pub fn new(records: usize) -> Self {
        let seen = Seen { delays_ns: Vec::with_capacity(records.min(DELAYS_AT_START)), ..Seen::default() };
        Self { epoch: Instant::now(), seen: Mutex::new(seen) }
    }

    /// What a record carries to its report: when it was due.
    pub fn opaque(&self, at: Instant) -> usize {
        usize::try_from(at.duration_since(self.epoch).as_nanos()).expect("a run is shorter than 500 years")
    }

    /// What has been reported so far.
    pub fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }
}

impl ClientContext for Reports {}

impl ProducerContext<NoCustomPartitioner> for Reports {
    /// Nanoseconds from the epoch to the moment the record was due.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let now = Instant::now();
        let delay = now.duration_since(self.epoch).as_nanos() as u64 - due as u64;
        let mut seen = self.seen();
        match result {
            Ok(_) => {
                seen.acknowledged += 1;
                seen.delays_ns.push(delay);
            }
            Err((error, _)) => seen.failed = Some(error.clone()),
        }
        seen.last = Some(now);
    }
}

/// A producer whose delivery reports are served by a thread of its own.
///
/// # Errors
/// Those of `work`.
pub fn producing<T>(
    target: &Target,
    (linger_ms, records): (u32, usize),
    work: impl FnOnce(&BaseProducer<Reports>) -> Outcome<T>,
) -> Outcome<T> {
    let mut config = client(&target.bootstrap);
    config.set("acks", target.acks).set("linger.ms", linger_ms.to_string());
    let producer: BaseProducer<Reports> = config.create_with_context(Reports::new(records))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                producer.poll(Duration::from_millis(5));
            }
        });
        let outcome = work(&producer);
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Waits until so many records have their report; gives the moment of the last one.
///
/// # Errors
/// A record was not delivered, or none is for a while.
pub fn all_reported(producer: &BaseProducer<Reports>, records: usize) -> Outcome<Instant> {
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        {
            let seen = producer.context().seen();
            if let Some(error) = &seen.failed {
                return Err(format!("a record was not delivered: {error}").into());
            }
            if seen.acknowledged >= records {
                return Ok(seen.last.unwrap_or_else(Instant::now));
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{} records have no delivery report", producer.in_flight_count()).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Gives one record to the client; waits while its queue is full.
///
/// # Errors
/// The client refuses it.
pub fn send(
    producer: &BaseProducer<Reports>,
    target: &Target,
    (index, value): (usize, &[u8]),
    due: Instant,
) -> Outcome<()> {
    let key = target.keys.map(|keys| (index % keys).to_be_bytes());
    let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&target.topic, producer.context().opaque(due))
        .partition(target.partition(index))
        .payload(value);
    record.key = key.as_ref().map(|key| &key[..]);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
