//! The brokers' half: every cell of the matrix, on each broker in turn, round after round.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::brokers::{Product, Running};
use crate::disk::{self, Synced};
use crate::load::{self, Moved, Target};
use crate::report::quantiles;
use crate::settings::{Part, Settings};
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

/// A phase that moves records as fast as it can.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Records per second.
    pub records: f64,
    /// MiB of values per second.
    pub mib: f64,
    /// CPU seconds of the broker's process per GiB of values.
    pub cpu_per_gib: f64,
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

/// What the half gave.
#[derive(Debug)]
pub struct Brokers {
    /// Per broker.
    pub figures: Vec<Figures>,
    /// Per round, one figure per block size.
    pub disk: Vec<Vec<Synced>>,
    /// CPU time of other processes in the measured rounds, as a share of all cores.
    pub others_share: f64,
}

/// The brokers under test: Millpond syncs by process, so it runs twice; Kafka syncs by topic.
struct Fleet {
    figures: Figures,
    synced: Running,
    unsynced: Option<Running>,
}

/// Runs the half.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Brokers> {
    let mut fleets = Vec::new();
    for (part, product) in [(Part::Millpond, Product::Millpond), (Part::Kafka, Product::Kafka)] {
        if settings.wants(part) {
            fleets.push(Fleet::start(product, settings.rounds, scratch)?);
        }
    }
    let mut disk = Vec::new();
    let (mut others, mut elapsed) = (0.0, 0.0);
    for round in 0..settings.warmup_rounds + settings.rounds {
        let measured = round >= settings.warmup_rounds;
        let (before, started) = (others_cpu(&fleets)?, Instant::now());
        for (at, cell) in Cell::all().into_iter().enumerate() {
            for step in 0..fleets.len() {
                // who goes first changes from round to round
                let turn = (step + round) % fleets.len();
                let fleet = &mut fleets[turn];
                let figures = fleet.measure(cell, &format!("{round}-{at}"), settings)?;
                eprintln!("bench: round {round} {} {cell}: {figures}", fleet.figures.product.name());
                if measured {
                    fleet.figures.cells[at].push(figures);
                }
            }
        }
        if measured {
            others += others_cpu(&fleets)? - before;
            elapsed += started.elapsed().as_secs_f64();
            if settings.wants(Part::Disk) {
                machine::flush_disks()?;
                disk.push(disk::measure(scratch)?);
            }
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let others_share = if elapsed > 0.0 { others / elapsed / cores } else { 0.0 };
    let figures = fleets.into_iter().map(Fleet::end).collect::<Outcome<_>>()?;
    Ok(Brokers { figures, disk, others_share })
}

/// CPU seconds of everything that is neither this process nor a broker under test.
fn others_cpu(fleets: &[Fleet]) -> Outcome<f64> {
    let mut ours = machine::own_cpu_seconds()?;
    for broker in fleets.iter().flat_map(Fleet::running) {
        ours += machine::cpu_seconds(broker.pid())?;
    }
    Ok(machine::busy_seconds()? - ours)
}

impl Fleet {
    /// Starts a broker `starts` times, each on an empty directory, and keeps the last.
    fn start(product: Product, starts: usize, scratch: &Path) -> Outcome<Self> {
        let mut figures = Figures {
            product,
            start_seconds: Vec::new(),
            idle_bytes: Vec::new(),
            peak_bytes: 0,
            cells: Cell::all().iter().map(|_| Vec::new()).collect(),
        };
        let folder = |name: String| scratch.join(format!("{product:?}-{name}"));
        let synced = loop {
            let number = figures.start_seconds.len();
            let broker = Running::start(product, &folder(number.to_string()), true)?;
            figures.start_seconds.push(broker.start_up.as_secs_f64());
            figures.idle_bytes.push(broker.idle_bytes);
            if number + 1 >= starts {
                break broker;
            }
        };
        let unsynced = match product {
            Product::Millpond => Some(Running::start(product, &folder("os".to_owned()), false)?),
            Product::Kafka => None,
        };
        Ok(Self { figures, synced, unsynced })
    }

    fn running(&self) -> impl Iterator<Item = &Running> {
        std::iter::once(&self.synced).chain(&self.unsynced)
    }

    fn measure(&mut self, cell: Cell, label: &str, settings: &Settings) -> Outcome<Measured> {
        let broker = match &mut self.unsynced {
            Some(unsynced) if !cell.fsync => unsynced,
            _ => &mut self.synced,
        };
        measure(broker, cell, label, settings).map_err(|error| format!("{cell}: {}", broker.explain(&*error)).into())
    }

    fn end(self) -> Outcome<Figures> {
        let mut peak_bytes = 0;
        for broker in self.running() {
            peak_bytes = peak_bytes.max(machine::memory_bytes(broker.pid(), "VmHWM")?);
        }
        Ok(Figures { peak_bytes, ..self.figures })
    }
}

/// One cell; `label` keeps topic names apart, because a broker deletes in its own time.
fn measure(broker: &Running, cell: Cell, label: &str, settings: &Settings) -> Outcome<Measured> {
    let names = ["rate", "delay", "trip"].map(|phase| format!("bench-{phase}-{label}"));
    let names = names.each_ref().map(String::as_str);
    load::create_topics(&broker.bootstrap, &names, cell.partitions, cell.fsync && broker.product == Product::Kafka)?;
    let target = |topic: &str| Target {
        bootstrap: broker.bootstrap.clone(),
        topic: topic.to_owned(),
        partitions: cell.partitions,
        acks: cell.acks,
        record_bytes: cell.record_bytes,
    };
    let within = settings.phase_max();
    machine::flush_disks()?;
    let filling = target(names[0]);
    let (moved, produce) =
        rated(broker, cell, || load::produce(&filling, settings.records(cell.record_bytes), within))?;
    let stored = moved.records + cell.partitions.unsigned_abs() as usize;
    let (_, fetch) = rated(broker, cell, || load::consume(&filling, stored, within))?;
    machine::flush_disks()?;
    let during = Duration::from_millis(settings.latency_ms as u64);
    let mut delays = load::produce_delays(&target(names[1]), settings.latency_rate, during)?;
    let mut trips = load::round_trips(&target(names[2]), settings.trips, within)?;
    let resident_bytes = machine::memory_bytes(broker.pid(), "VmRSS")?;
    load::delete_topics(&broker.bootstrap, &names)?;
    Ok(Measured { produce, fetch, delay_ms: quantiles(&mut delays), trip_ms: quantiles(&mut trips), resident_bytes })
}

/// Runs a phase and relates it to the CPU time that the broker used meanwhile.
fn rated(broker: &Running, cell: Cell, phase: impl FnOnce() -> Outcome<Moved>) -> Outcome<(Moved, Rate)> {
    let before = machine::cpu_seconds(broker.pid())?;
    let moved = phase()?;
    let cpu = machine::cpu_seconds(broker.pid())? - before;
    let mib = (moved.records * cell.record_bytes) as f64 / f64::from(1 << 20);
    let rate = Rate {
        records: moved.records as f64 / moved.seconds,
        mib: mib / moved.seconds,
        cpu_per_gib: cpu / (mib / 1024.0),
    };
    Ok((moved, rate))
}
