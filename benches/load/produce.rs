//! Producing: as fast as it goes, and at a rate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer;

use super::consume::{consume, consumer_of};
use super::reports::{all_reported, producing, send};
use super::topics::{create_topics, delete_topics};
use super::{ANSWER_MAX, Moved, Target, noise};
use crate::Outcome;

const WARM_UP_PARTITIONS: i32 = 6;
const WARM_UP_BYTES: usize = 256 << 20;
/// Most time of either phase of a warm-up.
const WARM_UP_MAX: Duration = Duration::from_secs(20);

/// Sends `records` as fast as the client's queue takes them; ends with the last delivery report. One record per partition
/// goes ahead of the clock, for the connection. Stops sending early, and says how many it sent, when `within` is over.
///
/// # Errors
/// A record was not delivered.
pub fn produce(target: &Target, records: usize, within: Duration) -> Outcome<Moved> {
    let noise = noise(target.record_bytes);
    let ahead = target.partitions_usize();
    producing(target, (5, records.saturating_add(ahead)), |producer| {
        for partition in 0..ahead {
            send(producer, target, (partition * target.run, &noise[..target.record_bytes]), Instant::now())?;
        }
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

/// Produces 256 MiB to a topic of its own and reads them back, which nobody measures: the JIT needs some load.
///
/// # Errors
/// A record was not delivered, or did not come back.
pub fn warm_up(bootstrap: &str) -> Outcome<()> {
    let target = Target::new(bootstrap, "warm-up", WARM_UP_PARTITIONS);
    create_topics(bootstrap, &[&target.topic], target.partitions, &[])?;
    let moved = produce(&target, WARM_UP_BYTES / target.record_bytes, WARM_UP_MAX)?;
    consume(&target, moved.records + target.partitions_usize(), WARM_UP_MAX)?;
    delete_topics(bootstrap, &[&target.topic])
}

/// Sends for so long as fast as the client's queue takes it, while a consumer reads along; the clock ends when it has all.
///
/// # Errors
/// A record was not delivered, or did not come back.
pub fn flat_out(target: &Target, during: Duration) -> Outcome<Moved> {
    let (done, received) = (AtomicBool::new(false), AtomicUsize::new(0));
    let consumer = consumer_of(target)?;
    thread::scope(|scope| {
        let reading = scope.spawn(|| -> Outcome<()> {
            while !done.load(Ordering::Relaxed) {
                if let Some(message) = consumer.poll(Duration::from_millis(20)) {
                    message?;
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let outcome = until_received(target, during, &received);
        done.store(true, Ordering::Relaxed);
        let reading = reading.join().map_err(|_| "the consumer's thread ended badly")?;
        reading.and(outcome)
    })
}

fn until_received(target: &Target, during: Duration, received: &AtomicUsize) -> Outcome<Moved> {
    let started = Instant::now();
    let moved = produce(target, usize::MAX, during)?;
    let deadline = Instant::now() + ANSWER_MAX;
    while received.load(Ordering::Relaxed) < moved.records + target.partitions_usize() {
        if Instant::now() > deadline {
            return Err("the consumer does not get what was produced".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(Moved { records: moved.records, seconds: started.elapsed().as_secs_f64() })
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
