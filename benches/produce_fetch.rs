//! The matrix: every cell on each broker in turn, round after round.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use crate::brokers::{Fleet, Place, Product, Running};
use crate::load::{self, Target};
use crate::report::quantiles;
use crate::rounds::{Rate, rated};
use crate::settings::Settings;
use crate::{Outcome, machine};

/// One combination of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Partitions of the topic.
    pub partitions: i32,
    /// `1` or `all`.
    pub acks: &'static str,
    /// Whether what is acknowledged with `acks=all` is on the disk.
    pub fsync: bool,
}

impl Cell {
    /// The matrix, in the order of the tables.
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for fsync in [true, false] {
            for record_bytes in [100, 1024] {
                for partitions in [1, 6] {
                    cells.extend(["1", "all"].map(|acks| Self { record_bytes, partitions, acks, fsync }));
                }
            }
        }
        cells
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { record_bytes, partitions, acks, fsync } = self;
        write!(f, "{record_bytes} B, {partitions} partitions, acks {acks}, fsync {}", if *fsync { "on" } else { "off" })
    }
}

/// One cell on one broker in one round.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Producing.
    pub produce: Rate,
    /// Reading it all back.
    pub fetch: Rate,
    /// p50, p99, p99.9 of due-to-delivery-report at a fixed rate, in milliseconds.
    pub delay_ms: [f64; 3],
    /// The same of one-record round trips.
    pub trip_ms: [f64; 3],
    /// Resident memory after the cell, in bytes.
    pub resident_bytes: u64,
}

impl Display for Measured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { produce, fetch, delay_ms, trip_ms, .. } = self;
        write!(f, "produce {:.0} MiB/s, {:.2} CPU s/GiB; ", produce.mib, produce.cpu_per_gib)?;
        write!(f, "fetch {:.0} MiB/s, {:.2} CPU s/GiB; ", fetch.mib, fetch.cpu_per_gib)?;
        write!(f, "p50 {:.2} ms, round trip {:.2} ms", delay_ms[0], trip_ms[0])
    }
}

/// What one broker gave.
#[derive(Debug)]
pub struct Figures {
    /// Which.
    pub product: Product,
    /// Start of the process to the first acknowledged record, one per start.
    pub start_seconds: Vec<f64>,
    /// Resident memory after a start, one per start.
    pub idle_bytes: Vec<u64>,
    /// Most resident memory of a process of the run, in bytes.
    pub peak_bytes: u64,
    /// For each cell of `Cell::all`, one entry per round.
    pub cells: Vec<Vec<Measured>>,
}

/// A product under test, with what it gave so far.
struct Contender {
    figures: Figures,
    fleet: Fleet,
}

/// Runs the part.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Vec<Figures>> {
    let start = |product: &Product| Contender::start(*product, settings.rounds, scratch);
    let mut contenders: Vec<Contender> = settings.brokers.iter().map(start).collect::<Outcome<_>>()?;
    for round in 0..settings.warmup_rounds + settings.rounds {
        for (at, cell) in Cell::all().into_iter().enumerate() {
            for step in 0..contenders.len() {
                // who goes first changes from round to round
                let turn = (step + round) % contenders.len();
                let contender = &mut contenders[turn];
                let broker = contender.fleet.broker(cell.fsync);
                let measured = measure(broker, cell, &format!("{round}-{at}"), settings)
                    .map_err(|error| format!("{cell}: {}", broker.explain(error)))?;
                eprintln!("bench: round {round} {} {cell}: {measured}", contender.figures.product.name());
                if round >= settings.warmup_rounds {
                    contender.figures.cells[at].push(measured);
                }
            }
        }
    }
    contenders.into_iter().map(Contender::end).collect()
}

impl Contender {
    /// Starts a broker `starts` times, each on an empty directory, and keeps the last.
    fn start(product: Product, starts: usize, scratch: &Path) -> Outcome<Self> {
        let mut figures = Figures {
            product,
            start_seconds: Vec::new(),
            idle_bytes: Vec::new(),
            peak_bytes: 0,
            cells: Cell::all().iter().map(|_| Vec::new()).collect(),
        };
        let synced = loop {
            let number = figures.start_seconds.len();
            let broker = Place::new(product, scratch, &number.to_string(), true).start()?;
            figures.start_seconds.push(broker.start_up.as_secs_f64());
            figures.idle_bytes.push(broker.idle_bytes()?);
            if number + 1 >= starts {
                break broker;
            }
        };
        Ok(Self { figures, fleet: Fleet::beside(synced, scratch, "matrix")? })
    }

    fn end(self) -> Outcome<Figures> {
        let mut peak_bytes = 0;
        for broker in self.fleet.running() {
            peak_bytes = peak_bytes.max(machine::memory_bytes(broker.pid(), "VmHWM")?);
        }
        Ok(Figures { peak_bytes, ..self.figures })
    }
}

/// One cell; `label` keeps topic names apart, because a broker deletes in its own time.
fn measure(broker: &Running, cell: Cell, label: &str, settings: &Settings) -> Outcome<Measured> {
    let names = ["rate", "delay", "trip"].map(|phase| format!("bench-{phase}-{label}"));
    let names = names.each_ref().map(String::as_str);
    load::create_topics(&broker.bootstrap, &names, cell.partitions, load::flush_each(broker.product, cell.fsync))?;
    let target = |topic: &str| Target {
        acks: cell.acks,
        record_bytes: cell.record_bytes,
        ..Target::new(&broker.bootstrap, topic, cell.partitions)
    };
    let within = settings.phase_max();
    machine::settle()?;
    let filling = target(names[0]);
    let (moved, produce) =
        rated(broker, cell.record_bytes, || load::produce(&filling, settings.records(cell.record_bytes), within))?;
    let stored = moved.records + filling.partitions_usize();
    let (_, fetch) = rated(broker, cell.record_bytes, || load::consume(&filling, stored, within))?;
    machine::settle()?;
    let during = Duration::from_millis(settings.latency_ms as u64);
    let mut delays = load::produce_delays(&target(names[1]), settings.latency_rate, during)?;
    let mut trips = load::round_trips(&target(names[2]), settings.trips, within)?;
    let resident_bytes = machine::memory_bytes(broker.pid(), "VmRSS")?;
    load::delete_topics(&broker.bootstrap, &names)?;
    Ok(Measured { produce, fetch, delay_ms: quantiles(&mut delays), trip_ms: quantiles(&mut trips), resident_bytes })
}
