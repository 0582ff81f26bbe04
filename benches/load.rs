//! The load: librdkafka over TCP, the same for every broker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::Outcome;

/// How long an answer may take before the run fails.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Round trips before the measured ones.
const TRIPS_UNMEASURED: usize = 20;

/// What is sent where.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub bootstrap: String,
    /// Exists, with `partitions` partitions, and is empty.
    pub topic: String,
    /// Records go to them in turn.
    pub partitions: i32,
    /// `1` or `all`.
    pub acks: &'static str,
    /// Bytes of a record's value; there is no key.
    pub record_bytes: usize,
}

/// What a phase moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Records acknowledged or received.
    pub records: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Counts delivery reports and keeps their delays.
struct Reports {
    epoch: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    delays_ns: Vec<u64>,
    last: Option<Instant>,
    failed: Option<KafkaError>,
}

impl Reports {
    fn new(records: usize) -> Self {
        let seen = Seen { delays_ns: Vec::with_capacity(records), ..Seen::default() };
        Self { epoch: Instant::now(), seen: Mutex::new(seen) }
    }

    fn opaque(&self, at: Instant) -> usize {
        usize::try_from(at.duration_since(self.epoch).as_nanos()).expect("a run is shorter than 500 years")
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
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
            Ok(_) => seen.delays_ns.push(delay),
            Err((error, _)) => seen.failed = Some(error.clone()),
        }
        seen.last = Some(now);
    }
}

/// A producer whose delivery reports are served by a thread of its own.
fn producing<T>(
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

/// Waits until every record has its report.
fn all_reported(producer: &BaseProducer<Reports>, records: usize) -> Outcome<Instant> {
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        {
            let seen = producer.context().seen();
            if let Some(error) = &seen.failed {
                return Err(format!("a record was not delivered: {error}").into());
            }
            if seen.delays_ns.len() >= records {
                return Ok(seen.last.unwrap_or_else(Instant::now));
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{} records have no delivery report", producer.in_flight_count()).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn send(
    producer: &BaseProducer<Reports>,
    target: &Target,
    (index, value): (usize, &[u8]),
    due: Instant,
) -> Outcome<()> {
    let partition = i32::try_from(index % target.partitions.unsigned_abs() as usize)?;
    let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&target.topic, producer.context().opaque(due))
        .partition(partition)
        .payload(value);
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

/// Sends `records` as fast as the client's queue takes them; ends with the last delivery report. One record per partition
/// goes ahead of the clock, for the connection. Stops sending early, and says how many it sent, when `within` is over.
///
/// # Errors
/// A record was not delivered.
pub fn produce(target: &Target, records: usize, within: Duration) -> Outcome<Moved> {
    let noise = noise(target.record_bytes);
    let ahead = target.partitions.unsigned_abs() as usize;
    producing(target, (5, records + ahead), |producer| {
        (0..ahead)
            .try_for_each(|index| send(producer, target, (index, &noise[..target.record_bytes]), Instant::now()))?;
        all_reported(producer, ahead)?;
        let started = Instant::now();
        let mut sent = 0;
        let mut now = started;
        while sent < records {
            if sent % 64 == 0 {
                now = Instant::now();
                if now.duration_since(started) > within {
                    break;
                }
            }
            let from = (sent * 61) % (noise.len() - target.record_bytes);
            send(producer, target, (sent, &noise[from..from + target.record_bytes]), now)?;
            sent += 1;
        }
        let ended = all_reported(producer, sent + ahead)?;
        Ok(Moved { records: sent, seconds: ended.duration_since(started).as_secs_f64() })
    })
}

/// Offers `rate` records per second without linger; gives the time from the moment each was due to its delivery report,
/// in nanoseconds, so that a stall counts for all the records it held up.
///
/// # Errors
/// A record was not delivered.
pub fn produce_delays(target: &Target, rate: usize, during: Duration) -> Outcome<Vec<u64>> {
    let noise = noise(target.record_bytes);
    let records = (rate as f64 * during.as_secs_f64()) as usize;
    producing(target, (0, records), |producer| {
        // the first record pays for the connection
        send(producer, target, (0, &noise[..target.record_bytes]), Instant::now())?;
        all_reported(producer, 1)?;
        let started = Instant::now();
        for index in 0..records {
            let due = started + Duration::from_secs_f64(index as f64 / rate as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            send(producer, target, (index, &noise[..target.record_bytes]), due)?;
        }
        all_reported(producer, records + 1)?;
        Ok(producer.context().seen().delays_ns.split_off(1))
    })
}

/// Reads every record of the topic from the beginning; the clock starts with the first one.
///
/// # Errors
/// A gap in the offsets, a wrong size, or no record for a while.
pub fn consume(target: &Target, records: usize, within: Duration) -> Outcome<Moved> {
    let consumer = consumer(target)?;
    let mut next = vec![0_i64; target.partitions.unsigned_abs() as usize];
    let mut first = None;
    let mut seen = 0;
    let mut heard = Instant::now();
    while seen < records {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            if heard.elapsed() > ANSWER_MAX {
                return Err(format!("{seen} of {records} records were received").into());
            }
            continue;
        };
        let message = message?;
        let expected = &mut next[message.partition().unsigned_abs() as usize];
        if message.offset() != *expected || message.payload_len() != target.record_bytes {
            return Err(format!("received offset {} where {expected} was due", message.offset()).into());
        }
        *expected += 1;
        seen += 1;
        if seen % 64 == 1 {
            heard = Instant::now();
            if heard.duration_since(*first.get_or_insert(heard)) > within {
                break;
            }
        }
    }
    let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    Ok(Moved { records: seen, seconds })
}

/// Sends one record, waits until a consumer has it, `trips` times; nanoseconds of each.
///
/// # Errors
/// A record did not come back.
pub fn round_trips(target: &Target, trips: usize, within: Duration) -> Outcome<Vec<u64>> {
    let done = AtomicBool::new(false);
    let (arrived, arrivals) = mpsc::channel();
    let consumer = consumer(target)?;
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&consumer, &done, &arrived));
        let outcome = producing(target, (0, trips), |producer| {
            let mut value = vec![0_u8; target.record_bytes];
            let mut delays = Vec::with_capacity(trips);
            let started = Instant::now();
            for index in 0..trips + TRIPS_UNMEASURED {
                value[..8].copy_from_slice(&(index as u64).to_le_bytes());
                let sent = Instant::now();
                send(producer, target, (index, &value), sent)?;
                let (number, at) = arrivals.recv_timeout(ANSWER_MAX).map_err(|_| "a record did not come back")?;
                if number != index as u64 {
                    return Err(format!("record {number} came back where {index} was due").into());
                }
                if index >= TRIPS_UNMEASURED {
                    delays.push(at.duration_since(sent).as_nanos() as u64);
                }
                if started.elapsed() > within {
                    break;
                }
            }
            Ok(delays)
        });
        done.store(true, Ordering::Relaxed);
        let received = receiving.join().map_err(|_| "the consumer's thread ended badly")?;
        received.and(outcome)
    })
}

fn receive(consumer: &BaseConsumer, done: &AtomicBool, arrived: &Sender<(u64, Instant)>) -> Outcome<()> {
    while !done.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(20)) else { continue };
        let (now, message) = (Instant::now(), message?);
        let number =
            message.payload().and_then(|value| value.first_chunk::<8>()).ok_or("a record without its number")?;
        if arrived.send((u64::from_le_bytes(*number), now)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Waits until a broker that is starting acknowledges a record to a topic that it creates by itself.
///
/// # Errors
/// It did not until the deadline.
pub fn first_record(bootstrap: &str, deadline: Instant) -> Outcome<()> {
    let mut config = client(bootstrap);
    let hasty = [
        ("acks", "all"),
        ("linger.ms", "0"),
        ("reconnect.backoff.ms", "5"),
        ("reconnect.backoff.max.ms", "20"),
        ("retry.backoff.ms", "10"),
        ("topic.metadata.refresh.fast.interval.ms", "10"),
    ];
    for (name, value) in hasty {
        config.set(name, value);
    }
    let producer: BaseProducer<Reports> = config.create_with_context(Reports::new(1))?;
    let due = producer.context().opaque(Instant::now());
    let record = BaseRecord::<(), [u8], usize>::with_opaque_to("bench-start", due).payload(b"first");
    producer.send(record).map_err(|(error, _)| error)?;
    while Instant::now() < deadline {
        producer.poll(Duration::from_millis(2));
        let seen = producer.context().seen();
        match (&seen.failed, seen.last) {
            (Some(error), _) => return Err(format!("the first record was refused: {error}").into()),
            (None, Some(_)) => return Ok(()),
            (None, None) => {}
        }
    }
    Err("no record was acknowledged in time".into())
}

/// Creates topics, `fsync` as Kafka knows it: `flush.messages=1`.
///
/// # Errors
/// A topic was not created.
pub fn create_topics(bootstrap: &str, topics: &[&str], partitions: i32, flush_each: bool) -> Outcome<()> {
    let new = |name| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        if flush_each { topic.set("flush.messages", "1") } else { topic }
    };
    let topics: Vec<NewTopic<'_>> = topics.iter().map(|name| new(name)).collect();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let results = futures::executor::block_on(admin(bootstrap)?.create_topics(&topics, &options))?;
    match results.into_iter().find_map(Result::err) {
        Some((topic, code)) => Err(format!("topic {topic} was not created: {code}").into()),
        None => Ok(()),
    }
}

/// Deletes topics, so that the disk a run takes is bounded by one cell.
///
/// # Errors
/// A topic was not deleted.
pub fn delete_topics(bootstrap: &str, topics: &[&str]) -> Outcome<()> {
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let results = futures::executor::block_on(admin(bootstrap)?.delete_topics(topics, &options))?;
    match results.into_iter().find_map(Result::err) {
        Some((topic, code)) => Err(format!("topic {topic} was not deleted: {code}").into()),
        None => Ok(()),
    }
}

fn admin(bootstrap: &str) -> Outcome<AdminClient<DefaultClientContext>> {
    Ok(client(bootstrap).create()?)
}

fn consumer(target: &Target) -> Outcome<BaseConsumer> {
    let mut config = client(&target.bootstrap);
    config.set("group.id", "bench").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    // librdkafka pauses a whole second when its queue is full, which would be measured as the broker's
    config.set("queued.min.messages", "1000000").set("fetch.queue.backoff.ms", "1");
    let consumer: BaseConsumer = config.create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..target.partitions {
        partitions.add_partition_offset(&target.topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&partitions)?;
    Ok(consumer)
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("broker.address.family", "v4");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Bytes without a pattern, longer than a record, so that no two neighbours are equal.
fn noise(record_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(record_bytes + (1 << 20));
    while bytes.len() < record_bytes + (1 << 20) {
        // xorshift64: the same bytes in every run
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
