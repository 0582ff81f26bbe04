//! Windowed counts beside Apache Flink SQL and Spark Structured Streaming, on one machine in one run: Flink reads a topic of Apache
//! Kafka, Spark files, Millpond the same events in its own log. What they have counted is compared window by window before any figure is given.

mod dialogue;
mod job;
mod queries;
mod report;
mod spark;
mod view;
mod windows;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use crate::brokers::{Place, Product};
use crate::engine::events::{Load, TOPIC};
use crate::load::{Target, all_reported, create_topics, producing, send};
use crate::settings::Settings;
use crate::{Outcome, machine};
use job::Flink;
use queries::{QUERIES, Query};
use spark::Spark;
use view::Millpond;
use windows::Windows;

const PARTITIONS: i32 = 2;
/// Records that go to one partition before it is the other's turn.
const RUN: usize = 1_000;
/// Within a run events are out of order: the next one's number is this much larger. At the load's rate they are up to 3.6 s behind.
const STRIDE: usize = 617;
const USERS: u64 = 1_000;
/// An hour for a million events.
const MILLION_MS: i64 = 3_600_000;
/// What all are told that an event may be behind.
const BEHIND_MS: i64 = 5_000;
/// Events of a file.
const FILE_EVENTS: usize = 50_000;

/// What a count took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// CPU seconds.
    cpu: f64,
    /// By the clock.
    seconds: f64,
}

/// One query's figures.
#[derive(Debug)]
struct Measured {
    query: Query,
    windows: usize,
    /// By round: of Millpond, Flink and Spark.
    costs: Vec<[Cost; 3]>,
}

/// What the part gave.
#[derive(Debug)]
pub struct Beside {
    events: usize,
    event_bytes: usize,
    measured: Vec<Measured>,
}

/// Runs the part.
///
/// # Errors
/// One of the three fails, or they do not count the same.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Beside> {
    let events = Events::of(settings.flink_events)?;
    let folder = scratch.join("flink");
    let place = Place::new(Product::Kafka, scratch, "flink", false);
    let kafka = place.start()?;
    create_topics(&kafka.bootstrap, &[TOPIC], PARTITIONS, &[])?;
    let millpond = Millpond::start(&folder.join("millpond"))?;
    for bootstrap in [&kafka.bootstrap, millpond.bootstrap()] {
        events.send(bootstrap)?;
    }
    events.write(&folder.join("events"))?;
    millpond.declare()?;
    machine::settle()?;
    let flink = Flink::start(folder.join("flink"), &kafka.bootstrap)?;
    let spark = Spark::start(folder.join("spark"), &folder.join("events"))?;
    let mut three = Three { millpond, flink, spark, events };
    let mut measured = Vec::new();
    for query in QUERIES {
        measured.push(three.measure(settings.rounds, query)?);
    }
    drop(three);
    kafka.stop()?;
    place.remove()?;
    fs::remove_dir_all(folder)?;
    Ok(Beside { events: events.count, event_bytes: events.load.event(0).len(), measured })
}

/// The events, the same for all.
#[derive(Clone, Copy)]
struct Events {
    count: usize,
    load: Load,
}

impl Events {
    /// So many; the last is of now.
    fn of(count: usize) -> Outcome<Self> {
        let span_ms = i64::try_from(count)? * MILLION_MS / 1_000_000;
        let first_ms = broker::Clock::system().now_ms() - span_ms;
        let load = Load { users: USERS, in_turn: false, first_ms, million_ms: MILLION_MS, note_bytes: 48 };
        Ok(Self { count, load })
    }

    /// The event that is the next one when so many were sent.
    fn after(&self, sent: usize) -> String {
        let first = sent / RUN * RUN;
        // the last run may be short
        let number = if first + RUN <= self.count { first + (sent - first) * STRIDE % RUN } else { sent };
        self.load.event(number)
    }

    /// To a broker.
    fn send(&self, bootstrap: &str) -> Outcome<()> {
        let target = Target { run: RUN, ..Target::new(bootstrap, TOPIC, PARTITIONS) };
        producing(&target, (5, self.count), |producer| {
            let sent_at = Instant::now();
            for sent in 0..self.count {
                send(producer, &target, (sent, self.after(sent).as_bytes()), sent_at)?;
            }
            all_reported(producer, self.count)?;
            Ok(())
        })
    }

    /// Into files, in the order in which they are sent.
    fn write(&self, folder: &Path) -> Outcome<()> {
        fs::create_dir_all(folder)?;
        for first in (0..self.count).step_by(FILE_EVENTS) {
            let mut file = BufWriter::new(File::create(folder.join(format!("{first:010}.json")))?);
            for sent in first..self.count.min(first + FILE_EVENTS) {
                writeln!(file, "{}", self.after(sent))?;
            }
            file.flush()?;
        }
        Ok(())
    }

    /// Where the watermark is in the end: who closes windows has closed those that end there or before.
    fn watermark_ms(&self) -> i64 {
        self.load.time_ms(self.count - 1) - BEHIND_MS
    }
}

/// The three, over the same events.
struct Three {
    millpond: Millpond,
    flink: Flink,
    spark: Spark,
    events: Events,
}

impl Three {
    /// Counts once to compare, which warms all up, then in rounds in which they take turns.
    fn measure(&mut self, rounds: usize, query: Query) -> Outcome<Measured> {
        let name = query.name;
        let windows = self.flink.count(&query)?;
        windows.complete(&query, self.events.count)?;
        let closed = self.spark.count(&query)?;
        closed.same(&windows.ended(self.events.watermark_ms()), &format!("{name}, Spark and Flink"))?;
        self.fill_view(&query, &windows)?;
        let mut costs = Vec::new();
        for round in 0..rounds {
            let mut each = [Cost { cpu: 0.0, seconds: 0.0 }; 3];
            for step in 0..each.len() {
                let turn = (step + round) % each.len();
                each[turn] = match turn {
                    0 => self.fill_view(&query, &windows)?,
                    1 => self.flink.measure(&query)?,
                    _ => self.spark.measure(&query)?,
                };
            }
            eprintln!("bench: {name} round {round}: {each:?}");
            costs.push(each);
        }
        Ok(Measured { query, windows: windows.len(), costs })
    }

    /// A view from its declaration to its end, compared with what Flink has counted.
    fn fill_view(&self, query: &Query, theirs: &Windows) -> Outcome<Cost> {
        let cost = self.millpond.measure(query)?;
        self.millpond.count(query)?.same(theirs, &format!("{}, Millpond and Flink", query.name))?;
        self.millpond.drop_view(query)?;
        Ok(cost)
    }
}
