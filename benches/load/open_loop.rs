//! An open loop: records are due at a fixed rate, whatever the broker does, and a consumer waits for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};

use super::consume::{consumer_of, receive};
use super::reports::{Reports, all_reported, producing, send};
use super::{ANSWER_MAX, Target, noise};
use crate::Outcome;

/// The number that records carry which open the way and are not measured.
const UNMEASURED: u64 = u64::MAX;

/// The load of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Records per second.
    pub rate: usize,
    /// For how long.
    pub during: Duration,
}

impl Offered {
    /// When a record is due.
    pub fn due(self, started: Instant, index: usize) -> Instant {
        started + Duration::from_secs_f64(index as f64 / self.rate as f64)
    }
}

/// Nanoseconds from the moment each record was due, so that a stall counts for all the records it held up.
#[derive(Clone, Debug)]
pub struct Delays {
    /// To its delivery report.
    pub produce_ns: Vec<u64>,
    /// To the consumer.
    pub end_to_end_ns: Vec<u64>,
}

/// Offers records without linger while a consumer waits for them.
///
/// # Errors
/// A record was not delivered, or did not come back.
pub fn open_loop(target: &Target, offered: Offered) -> Outcome<Delays> {
    let done = AtomicBool::new(false);
    let (arrived, arrivals) = mpsc::channel();
    let consumer = consumer_of(target)?;
    let records = (offered.rate as f64 * offered.during.as_secs_f64()) as usize;
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&consumer, &done, &arrived));
        let outcome = producing(target, (0, records + target.partitions_usize()), |producer| {
            offer(producer, target, (offered, records), &arrivals)
        });
        done.store(true, Ordering::Relaxed);
        let received = receiving.join().map_err(|_| "the consumer's thread ended badly")?;
        received.and(outcome)
    })
}

fn offer(
    producer: &BaseProducer<Reports>,
    target: &Target,
    (offered, records): (Offered, usize),
    arrivals: &Receiver<(u64, Instant)>,
) -> Outcome<Delays> {
    let arrival = || arrivals.recv_timeout(ANSWER_MAX).map_err(|_| "a record did not come back");
    let mut value = noise(target.record_bytes);
    value.truncate(target.record_bytes);
    value[..8].copy_from_slice(&UNMEASURED.to_le_bytes());
    let ahead = target.partitions_usize();
    for partition in 0..ahead {
        send(producer, target, (partition * target.run, &value), Instant::now())?;
    }
    all_reported(producer, ahead)?;
    for _ in 0..ahead {
        arrival()?;
    }
    let started = Instant::now();
    for index in 0..records {
        let due = offered.due(started, index);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        value[..8].copy_from_slice(&(index as u64).to_le_bytes());
        send(producer, target, (index, &value), due)?;
    }
    all_reported(producer, records + ahead)?;
    let mut end_to_end_ns = Vec::with_capacity(records);
    for _ in 0..records {
        let (number, at) = arrival()?;
        let due = offered.due(started, usize::try_from(number)?);
        end_to_end_ns.push(at.saturating_duration_since(due).as_nanos() as u64);
    }
    let produce_ns = producer.context().seen().delays_ns.split_off(ahead);
    Ok(Delays { produce_ns, end_to_end_ns })
}
