//! `make soak`: Millpond alone, synced, under half of the most it takes, with a consumer and with retention and compaction at work.
//!
//! First it is loaded as fast as it goes for a while; half of that rate is offered for `BENCH_SOAK_MINUTES` then, as an open loop.
//! Once a minute it is written down how much memory, descriptors, files and disk the server has, and the delays of that minute, and how
//! long a thread waited for a core. Apache Kafka, which syncs nothing, has the same load for a few minutes afterwards: what it waits for as well is
//! the machine's.

mod hiccups;
mod minute;
mod slopes;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};

use crate::Outcome;
use crate::brokers::{Place, Product, Running};
use crate::load::{self, Offered, Reports, Target};
use crate::settings::Settings;
use hiccups::Hiccups;
use minute::{Minute, Noted, Watched};

const PARTITIONS: i32 = 6;
/// Retention works all the time, so the disk is bounded: 1.5 GiB of values, less than a minute's load.
const TOPIC_SETTINGS: [(&str, &str); 2] = [("retention.bytes", "268435456"), ("segment.bytes", "33554432")];
/// A compacted topic gets one of so many records.
const LATEST_EVERY: usize = 10;
/// So many keys it has: a multiple of the partitions, so each key stays in one.
const LATEST_KEYS: usize = 12_000;
const LATEST_SETTINGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.bytes", "33554432")];
/// What retention and compaction leave of all that, in bytes of values.
const LIVE_BYTES: usize = ((PARTITIONS as usize * 256) << 20) + LATEST_KEYS * 1024;
/// How often retention looks: with Kafka's own five minutes there would be tens of GiB between two looks.
const RETENTION_CHECK: (&str, &str) = ("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "10000");

/// That of the probe: without it the client would send other, smaller batches at half the rate.
const LINGER_MS: u32 = 5;

/// What the run did.
#[derive(Debug)]
struct Soak {
    /// Records per second that the broker took and the consumer got, as fast as it went.
    most: f64,
    /// What was offered then.
    offered: Offered,
    minutes: Vec<Minute>,
    /// Of Apache Kafka, under what was offered.
    kafka: Vec<Minute>,
}

/// Runs the soak and reports it.
///
/// # Errors
/// A record that is not delivered or does not come back ends it.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<()> {
    let during = |minutes: usize| Duration::from_secs(minutes as u64 * 60);
    let (most, offered, minutes) = on(Product::Millpond, scratch, |broker, place| {
        let most = probe(broker, settings)?;
        let offered = Offered { rate: ((most / 2.0) as usize).max(1), during: during(settings.soak_minutes) };
        eprintln!("soak: at most {most:.0} records/s, now {} for {} minutes", offered.rate, settings.soak_minutes);
        Ok((most, offered, load(broker, place, offered)?))
    })?;
    let kafka = match settings.soak_kafka_minutes {
        0 => Vec::new(),
        minutes => on(Product::Kafka, scratch, |broker, place| {
            load(broker, place, Offered { during: during(minutes), ..offered })
        })?,
    };
    slopes::publish(&Soak { most, offered, minutes, kafka }, settings.write)
}

/// Starts a broker, does this to it, and stops it; nothing of it stays.
fn on<T>(product: Product, scratch: &Path, run: impl FnOnce(&Running, &Place) -> Outcome<T>) -> Outcome<T> {
    let (name, value) = RETENTION_CHECK;
    let place = Place::new(product, scratch, "soak", true).with(name, value);
    let mut broker = place.start()?;
    let ran = run(&broker, &place).map_err(|error| broker.explain(error))?;
    broker.stop()?;
    place.remove()?;
    Ok(ran)
}

/// Records per second that the broker takes, and the consumer gets, as fast as it goes.
fn probe(broker: &Running, settings: &Settings) -> Outcome<f64> {
    // the probe's consumer may fall behind, so that topic keeps everything
    load::create_topics(&broker.bootstrap, &["probe"], PARTITIONS, &[])?;
    let probing = Target::new(&broker.bootstrap, "probe", PARTITIONS);
    let moved = load::flat_out(&probing, Duration::from_secs(settings.soak_probe_seconds as u64))?;
    load::delete_topics(&broker.bootstrap, &["probe"])?;
    Ok(moved.records as f64 / moved.seconds)
}

fn load(broker: &Running, place: &Place, offered: Offered) -> Outcome<Vec<Minute>> {
    let target = Target::new(&broker.bootstrap, "soak", PARTITIONS);
    let latest = Target { topic: "latest".to_owned(), keys: Some(LATEST_KEYS), ..target.clone() };
    load::create_topics(&broker.bootstrap, &[&target.topic], PARTITIONS, &TOPIC_SETTINGS)?;
    load::create_topics(&broker.bootstrap, &[&latest.topic], PARTITIONS, &LATEST_SETTINGS)?;
    let watched = Watched { pid: broker.pid(), data: place.data() };
    offer((&target, &latest), offered, &watched)
}

/// Offers the load, reads the most of it back, and watches the server meanwhile.
fn offer((target, latest): (&Target, &Target), offered: Offered, watched: &Watched) -> Outcome<Vec<Minute>> {
    let done = AtomicBool::new(false);
    let consumer = load::consumer_of(target)?;
    let (arrivals, hiccups) = (Mutex::new(Vec::new()), Hiccups::default());
    load::producing(target, (LINGER_MS, offered.rate * 60), |producer| {
        let reports = producer.context();
        thread::scope(|scope| {
            let reading = scope.spawn(|| listen(&consumer, reports, &arrivals, &done));
            let sending = scope.spawn(|| pace(producer, (target, latest), offered, &done));
            scope.spawn(|| hiccups.watch(&done));
            let noted = Noted { reports, arrivals: &arrivals, hiccups: &hiccups };
            let started = Instant::now();
            let minutes = minute::watch((started, offered.during), watched, noted, || {
                reading.is_finished() || sending.is_finished()
            });
            done.store(true, Ordering::Relaxed);
            let sent = sending.join().map_err(|_| "the producer's thread ended badly")??;
            reading.join().map_err(|_| "the consumer's thread ended badly")??;
            load::all_reported(producer, sent)?;
            minutes
        })
    })
}

/// Sends records when they are due; each carries that moment to the consumer. Gives how many there were.
fn pace(
    producer: &BaseProducer<Reports>,
    (target, latest): (&Target, &Target),
    offered: Offered,
    done: &AtomicBool,
) -> Outcome<usize> {
    let mut value = vec![0x5a_u8; target.record_bytes];
    let started = Instant::now();
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let due = offered.due(started, sent);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        value[..8].copy_from_slice(&(producer.context().opaque(due) as u64).to_le_bytes());
        let (turn, index) = (sent % LATEST_EVERY, sent / LATEST_EVERY);
        let (target, index) = if turn == 0 { (latest, index) } else { (target, index * (LATEST_EVERY - 1) + turn - 1) };
        load::send(producer, target, (index, &value), due)?;
        sent += 1;
    }
    Ok(sent)
}

/// Notes how long after it was due each record is received.
fn listen(consumer: &BaseConsumer, reports: &Reports, arrivals: &Mutex<Vec<u64>>, done: &AtomicBool) -> Outcome<()> {
    while !done.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(20)) else { continue };
        let (now, message) = (reports.opaque(Instant::now()) as u64, message?);
        let due = message.payload().and_then(|value| value.first_chunk::<8>()).ok_or("a record without its moment")?;
        let delay = now.saturating_sub(u64::from_le_bytes(*due));
        arrivals.lock().expect("no holder of this lock panics").push(delay);
    }
    Ok(())
}
