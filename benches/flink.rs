//! Windowed counts beside Apache Flink SQL, on one machine in one run: Flink reads a topic of Apache Kafka, Millpond the same records in
//! its own log. What both have counted is compared window by window before any figure is given.

mod job;
mod queries;
mod view;
mod windows;

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use crate::brokers::{Place, Product};
use crate::engine::events::{Load, TOPIC};
use crate::load::{Target, all_reported, create_topics, producing, send};
use crate::report::median;
use crate::settings::Settings;
use crate::{Outcome, machine};
use job::{Flink, SETTINGS};
use queries::{QUERIES, Query};
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

/// What a count took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU seconds.
    cpu: f64,
    /// By the clock.
    seconds: f64,
}

/// One query's figures, by round: Millpond's and Flink's.
#[derive(Debug)]
struct Measured {
    query: Query,
    windows: usize,
    costs: Vec<[Cost; 2]>,
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
/// One of the two fails, or they do not count the same.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Beside> {
    let events = settings.flink_events;
    let span_ms = i64::try_from(events)? * MILLION_MS / 1_000_000;
    let first_ms = broker::Clock::system().now_ms() - span_ms;
    let load = Load { users: USERS, in_turn: false, first_ms, million_ms: MILLION_MS, note_bytes: 48 };
    let folder = scratch.join("flink");
    let place = Place::new(Product::Kafka, scratch, "flink", false);
    let kafka = place.start()?;
    create_topics(&kafka.bootstrap, &[TOPIC], PARTITIONS, &[])?;
    let millpond = Millpond::start(&folder.join("millpond"))?;
    for bootstrap in [&kafka.bootstrap, millpond.bootstrap()] {
        fill(bootstrap, &load, events)?;
    }
    millpond.declare()?;
    machine::flush_disks()?;
    let mut both = Both { millpond, flink: Flink::start(folder.clone(), &kafka.bootstrap)?, events };
    let mut beside = Beside { events, event_bytes: load.event(0).len(), measured: Vec::new() };
    for query in QUERIES {
        beside.measured.push(both.measure(settings.rounds, query)?);
    }
    drop(both);
    kafka.stop()?;
    place.remove()?;
    std::fs::remove_dir_all(folder)?;
    Ok(beside)
}

/// Sends the events, the same to each broker.
fn fill(bootstrap: &str, load: &Load, events: usize) -> Outcome<()> {
    let target = Target { run: RUN, ..Target::new(bootstrap, TOPIC, PARTITIONS) };
    producing(&target, (5, events), |producer| {
        let sent_at = Instant::now();
        for sent in 0..events {
            let first = sent / RUN * RUN;
            // the last run may be short
            let number = if first + RUN <= events { first + (sent - first) * STRIDE % RUN } else { sent };
            send(producer, &target, (sent, load.event(number).as_bytes()), sent_at)?;
        }
        all_reported(producer, events)?;
        Ok(())
    })
}

/// The two, over the same records.
struct Both {
    millpond: Millpond,
    flink: Flink,
    events: usize,
}

impl Both {
    /// Counts once to compare, which warms both up, then in rounds in which they take turns.
    fn measure(&mut self, rounds: usize, query: Query) -> Outcome<Measured> {
        let theirs = self.flink.count(&query)?;
        theirs.complete(&query, self.events)?;
        self.fill_view(&query, &theirs)?;
        let mut costs = Vec::new();
        for round in 0..rounds {
            let first = if round % 2 == 0 { Some(self.flink.measure(&query)?) } else { None };
            let ours = self.fill_view(&query, &theirs)?;
            let flinks = first.map_or_else(|| self.flink.measure(&query), Ok)?;
            eprintln!("bench: {} round {round}: Millpond {ours:?}, Flink {flinks:?}", query.name);
            costs.push([ours, flinks]);
        }
        Ok(Measured { query, windows: theirs.len(), costs })
    }

    /// A view from its declaration to its end, compared with what Flink has counted.
    fn fill_view(&self, query: &Query, theirs: &Windows) -> Outcome<Cost> {
        let cost = self.millpond.measure(query)?;
        self.millpond.count(query)?.same(query, theirs)?;
        self.millpond.drop_view(query)?;
        Ok(cost)
    }
}

impl Measured {
    /// Median of a figure: Millpond's and Flink's.
    fn medians(&self, of: impl Fn(&Cost) -> f64) -> [f64; 2] {
        [0, 1].map(|who| median(&mut self.costs.iter().map(|round| of(&round[who])).collect::<Vec<_>>()))
    }
}

impl Beside {
    /// Events per CPU second of a query: Millpond's and Flink's.
    pub fn per_cpu_second(&self, name: &str) -> Option<[f64; 2]> {
        let measured = self.measured.iter().find(|one| one.query.name == name)?;
        Some(measured.medians(|cost| cost.cpu).map(|cpu| self.events as f64 / cpu))
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let Self { events, event_bytes, measured } = self;
        writeln!(
            text,
            "## Beside Apache Flink SQL\n\n`count(*)` by window and user of {events} JSON events of {event_bytes} B, {USERS} users, an hour a million events, \
             up to 3.6 s out of order where 5 s are declared, in {PARTITIONS} partitions: of a topic of Apache Kafka for Flink 2.1.1 with \
             `flink-sql-connector-kafka` 4.0.1-2.0 ({}; one JVM with a heap of 2 GiB), of its own log for Millpond with its defaults. Both have counted \
             the same in every window.\n\nFlink's CPU is that of its JVM from the first record that the consumer has to the end of the job, after the same \
             count was made once in this JVM; Kafka's is left out, and results go nowhere (`blackhole`). Its time ends with a last \
             checkpoint. Millpond's is that of the whole server from `CREATE MATERIALIZED VIEW` until the view has everything and a \
             second more, while nobody writes; its results go to the store and to the view's topic.\n",
            SETTINGS.map(|setting| format!("`{setting}`")).join(", ")
        )?;
        writeln!(
            text,
            "| window | windows counted | Millpond events per CPU s | Flink | Millpond / Flink | Millpond events/s by the clock | Flink |\n\
             |---|---|---|---|---|---|---|"
        )?;
        for one in measured {
            let per = |of: fn(&Cost) -> f64| one.medians(of).map(|cost| *events as f64 / cost);
            let ([ours, flinks], [our_rate, their_rate]) = (per(|cost| cost.cpu), per(|cost| cost.seconds));
            let (window, windows, times) = (one.query.window, one.windows, ours / flinks);
            writeln!(
                text,
                "| `{window}` | {windows} | {ours:.0} | {flinks:.0} | {times:.1} | {our_rate:.0} | {their_rate:.0} |"
            )?;
        }
        Ok(writeln!(text)?)
    }
}
