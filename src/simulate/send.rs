//! Sends events through librdkafka: idempotent, acks=all, every delivery report counted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use serde_json::{Value, json};

use super::Plan;
use super::encoder::Encoder;
use super::generate::{Event, Generator, Kind};
use super::report::{Counts, Run};
use crate::failure::Failure;

/// Bits of a delivery's mark that hold its kind; the rest is the time of sending in microseconds.
const KIND_BITS: u32 = 12;
/// Longest pause between two looks at whether to stop.
const NAP: Duration = Duration::from_millis(20);
/// How long a stop waits for what is still on its way.
const FLUSH_MAX: Duration = Duration::from_secs(30);

/// Counts what the delivery reports say. One thread of librdkafka's calls it.
struct Delivered {
    started: Instant,
    kinds: Vec<String>,
    counts: Mutex<Counts>,
    record: Option<Mutex<BufWriter<File>>>,
    record_failed: AtomicBool,
    /// When librdkafka was last heard to complain: while a broker is away it does so many times a second.
    complained: Mutex<Option<Instant>>,
}

/// Time between two complaints of librdkafka that are passed on.
const COMPLAINT_EVERY: Duration = Duration::from_secs(5);

impl Delivered {
    /// Whether a complaint is to be passed on now.
    fn may_complain(&self) -> bool {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = complained.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY);
        if is_due {
            *complained = Some(Instant::now());
        }
        is_due
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_down(&self, message: &impl Message, kind: usize, error: Option<&KafkaError>) {
        let Some(record) = &self.record else { return };
        let payload = message.payload().unwrap_or_default();
        let mut line = json!({
            "kind": self.kinds[kind],
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp().to_millis(),
            "key": message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
        });
        match std::str::from_utf8(payload) {
            Ok(text) => line["value"] = Value::from(text),
            Err(_) => line["value_hex"] = payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        }
        if let Some(error) = error {
            line["error"] = error.to_string().into();
        }
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        if writeln!(record, "{line}").is_err() {
            self.record_failed.store(true, Ordering::Relaxed);
        }
    }
}

impl ClientContext for Delivered {
    fn stats(&self, statistics: Statistics) {
        self.counts().retried = statistics.brokers.values().map(|broker| broker.txretries).sum();
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        if level as i32 <= rdkafka::config::RDKafkaLogLevel::Warning as i32 && self.may_complain() {
            tracing::warn!(facility = fac, "librdkafka: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.may_complain() {
            tracing::warn!(%error, "librdkafka: {reason}");
        }
    }
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        let (kind, sent_micros) = (mark & ((1 << KIND_BITS) - 1), (mark >> KIND_BITS) as u64);
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_sub(sent_micros);
        match result {
            Ok(message) => {
                self.write_down(message, kind, None);
                let mut counts = self.counts();
                counts.acked += 1;
                counts.acked_bytes += (message.payload_len() + message.key_len()) as u64;
                counts.kinds[kind] += 1;
                counts.latency.add(micros);
            }
            Err((error, message)) => {
                self.write_down(message, kind, Some(error));
                let mut counts = self.counts();
                counts.failed += 1;
                *counts.errors.entry(error.to_string()).or_default() += 1;
            }
        }
    }
}

type Sender = ThreadedProducer<Delivered, NoCustomPartitioner>;

/// Runs the plan until its count is reached or `stop` is set.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<(Counts, Run), Failure> {
    let started = Instant::now();
    let kinds = Kind::names(&plan.description);
    let record = plan.record.as_deref().map(create).transpose()?;
    let delivered = Delivered {
        started,
        counts: Mutex::new(Counts { kinds: vec![0; kinds.len()], ..Counts::default() }),
        kinds: kinds.clone(),
        record: record.map(Mutex::new),
        record_failed: AtomicBool::new(false),
        complained: Mutex::new(None),
    };
    let producer = connect(plan, delivered)?;
    let encoder = Encoder::register(&plan.description, plan.encoding, &plan.topic, plan.registry.as_deref())?;
    send_all(plan, (&producer, encoder.as_ref()), started, stop)?;
    finish(plan, &producer, stop)?;
    let delivered = producer.context();
    if let Some(record) = &delivered.record {
        let flushed = record.lock().unwrap_or_else(PoisonError::into_inner).flush();
        if flushed.is_err() || delivered.record_failed.load(Ordering::Relaxed) {
            return Err(Failure::Failed("the file of --record could not be written: is the disk full?".into()));
        }
    }
    let counts = std::mem::take(&mut *delivered.counts());
    let seconds = started.elapsed().as_secs_f64();
    Ok((counts, Run { system: plan.system.clone(), topic: plan.topic.clone(), seed: plan.seed, kinds, seconds }))
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    File::create(path)
        .map(BufWriter::new)
        .map_err(|error| Failure::Usage(format!("{} cannot be written: {error}", path.display())))
}

fn connect(plan: &Plan, delivered: Delivered) -> Result<Sender, Failure> {
    let mut config = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", plan.bootstrap.as_str()),
        ("client.id", "millpond-simulate"),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        // what Java's default partitioner does, so that a key goes where Java's clients put it
        ("partitioner", "murmur2_random"),
        ("compression.type", plan.compression.as_str()),
        ("linger.ms", "5"),
        ("queue.buffering.max.messages", "1000000"),
        ("queue.buffering.max.kbytes", "262144"),
        ("statistics.interval.ms", "1000"),
    ] {
        config.set(key, value);
    }
    for (key, value) in &plan.properties {
        config.set(key, value);
    }
    let producer: Sender = config
        .create_with_context(delivered)
        .map_err(|error| Failure::Usage(format!("librdkafka refuses a setting: {error}")))?;
    let timeout = Duration::from_secs(10);
    producer.client().fetch_metadata(Some(&plan.topic), timeout).map_err(|error| {
        Failure::Failed(format!(
            "no Kafka server answers at {}: {error}; start one with: millpond serve",
            plan.bootstrap
        ))
    })?;
    Ok(producer)
}

fn send_all(
    plan: &Plan,
    (producer, encoder): (&Sender, Option<&Encoder>),
    started: Instant,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut generator = Generator::new(plan.description.clone(), plan.shares, plan.seed);
    let mut event = Event::default();
    let mut told = (Instant::now(), 0);
    let mut index = 0;
    while plan.count.is_none_or(|count| index < count) && !stop.load(Ordering::Relaxed) {
        if let Some(rate) = plan.rate {
            let due = Duration::from_secs_f64(index as f64 / rate);
            let early = due.saturating_sub(started.elapsed());
            if !early.is_zero() {
                std::thread::park_timeout(early.min(NAP));
                told = tell(plan, producer, started, told);
                continue;
            }
        }
        let now_ms = plan.times.at(index);
        let kind = generator.next(now_ms, &mut event);
        if let Some(encoder) = encoder {
            encoder.encode(index, &mut event.value);
        }
        let mark = (usize::try_from(started.elapsed().as_micros()).unwrap_or(0) << KIND_BITS) | kind.number();
        hand_over(plan, producer, &event, (now_ms, mark), stop)?;
        index += 1;
        if index.is_multiple_of(1024) {
            told = tell(plan, producer, started, told);
        }
    }
    Ok(())
}

/// Gives the event to librdkafka, waiting while its queue is full.
fn hand_over(
    plan: &Plan,
    producer: &Sender,
    event: &Event,
    (now_ms, mark): (i64, usize),
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut record: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(&plan.topic, mark).payload(event.value.as_slice()).timestamp(now_ms);
    if let Some(key) = &event.key {
        record = record.key(key.as_slice());
    }
    loop {
        match producer.send(record) {
            Ok(()) => {
                producer.context().counts().sent += 1;
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                if !stop.load(Ordering::Relaxed) =>
            {
                record = back;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => return Ok(()),
            Err((error, _)) => return Err(Failure::Failed(format!("librdkafka takes no more: {error}"))),
        }
    }
}

/// Says from time to time how it goes.
fn tell(plan: &Plan, producer: &Sender, started: Instant, told: (Instant, u64)) -> (Instant, u64) {
    let since = told.0.elapsed();
    if plan.tell_every.is_none_or(|every| since < every) {
        return told;
    }
    let counts = producer.context().counts();
    eprintln!("{}", counts.line(started.elapsed().as_secs_f64(), (counts.acked - told.1) as f64 / since.as_secs_f64()));
    (Instant::now(), counts.acked)
}

/// Waits for what is on its way: as long as librdkafka itself tries, or a bounded time once a stop was asked for.
fn finish(plan: &Plan, producer: &Sender, stop: &AtomicBool) -> Result<(), Failure> {
    let mut stopped: Option<Instant> = None;
    while producer.in_flight_count() > 0 {
        if stop.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > FLUSH_MAX {
            let left = producer.in_flight_count();
            return Err(Failure::Failed(format!(
                "{left} records were not acknowledged by {} within {} s",
                plan.bootstrap,
                FLUSH_MAX.as_secs()
            )));
        }
        // a flush that times out is asked again
        let _ = producer.flush(Duration::from_millis(100));
    }
    Ok(())
}
