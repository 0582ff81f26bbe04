//! Consuming: everything from the beginning, and record by record as it comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::reports::{producing, send};
use super::{ANSWER_MAX, Moved, Target, client};
use crate::Outcome;

/// Round trips before the measured ones.
const TRIPS_UNMEASURED: usize = 20;

/// Reads every record of the topic from the beginning; the clock starts with the first one.
///
/// # Errors
/// A gap in the offsets, a wrong size, or no record for a while.
pub fn consume(target: &Target, records: usize, within: Duration) -> Outcome<Moved> {
    let consumer = consumer_of(target)?;
    let mut next = vec![0_i64; target.partitions_usize()];
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
    let consumer = consumer_of(target)?;
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

/// Tells the number in each record's first eight bytes, and when it came, until it is `done`.
///
/// # Errors
/// A record without a number, or what the client says.
pub fn receive(consumer: &BaseConsumer, done: &AtomicBool, arrived: &Sender<(u64, Instant)>) -> Outcome<()> {
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

/// A consumer of the whole topic, from its beginning.
///
/// # Errors
/// The client cannot be made.
pub fn consumer_of(target: &Target) -> Outcome<BaseConsumer> {
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
