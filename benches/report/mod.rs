//! The report: to the terminal, and with `BENCH_WRITE=1` to `benches/RESULTS.md`. Each part writes its own table.

mod matrix;
mod targets;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::amplification::Amplification;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::flink::Beside;
use crate::group_commit::GroupCommit;
use crate::lake::Lake;
use crate::latency::Latency;
use crate::produce_fetch::Figures;
use crate::scaling::Scaling;
use crate::settings::Settings;
use crate::stored::Stored;
use crate::tail::Tail;
use crate::{Outcome, machine};

/// Where the part of the results begins that `benches/freelance.py` writes; it is kept.
const BY_HAND: &str = "\n# Freelance: ten million invoices\n";

/// What the parts gave that were measured.
#[derive(Debug)]
pub struct Report {
    /// Produce and fetch, per broker.
    pub matrix: Option<Vec<Figures>>,
    /// Plain files.
    pub disk: Option<Disk>,
    /// Reading from memory.
    pub tail: Option<Tail>,
    /// Open loops.
    pub latency: Option<Latency>,
    /// Many producers.
    pub group_commit: Option<GroupCommit>,
    /// Many partitions.
    pub scaling: Option<Scaling>,
    /// With much stored.
    pub stored: Option<Stored>,
    /// Bytes on the device.
    pub amplification: Option<Amplification>,
    /// The engine.
    pub engine: Option<Engine>,
    /// Beside Flink.
    pub flink: Option<Beside>,
    /// The lake.
    pub lake: Option<Lake>,
}

/// The machine during the run.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// CPU time of other processes, as a share of all cores.
    pub others_share: f64,
    /// How long the run took.
    pub took: Duration,
}

/// Median; 0 of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(values[even / 2 - 1], values[even / 2]),
        odd => values[odd / 2],
    }
}

/// p50, p99 and p99.9 (nearest rank), in milliseconds, of nanoseconds.
pub fn quantiles(delays_ns: &mut [u64]) -> [f64; 3] {
    delays_ns.sort_unstable();
    [0.5, 0.99, 0.999].map(|share| {
        let rank = (share * delays_ns.len() as f64).ceil() as usize;
        delays_ns.get(rank.saturating_sub(1)).map_or(0.0, |ns| *ns as f64 / 1e6)
    })
}

/// Prints the run and writes it where that is asked for.
///
/// # Errors
/// The file cannot be written, or only a part was measured.
pub fn publish(settings: &Settings, report: &Report, during: Conditions) -> Outcome<()> {
    let mut text = String::from("# Results\n\n");
    conditions(&mut text, settings, during)?;
    report.describe(&mut text, settings)?;
    println!("{text}");
    if !settings.write {
        return Ok(());
    }
    if !settings.is_whole() {
        return Err("BENCH_ONLY or BENCH_BROKERS is set: RESULTS.md holds whole runs only".into());
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md");
    let before = std::fs::read_to_string(&place).unwrap_or_default();
    let by_hand = before.find(BY_HAND).map_or("", |at| &before[at..]);
    std::fs::write(place, text + by_hand)?;
    Ok(())
}

impl Report {
    fn describe(&self, text: &mut String, settings: &Settings) -> Outcome<()> {
        targets::describe(text, self)?;
        if let Some(figures) = &self.matrix {
            matrix::describe(text, figures, settings)?;
        }
        let parts = [
            self.tail.as_ref().map(|part| part.describe(text)),
            self.latency.as_ref().map(|part| part.describe(text)),
            self.group_commit.as_ref().map(|part| part.describe(text)),
            self.scaling.as_ref().map(|part| part.describe(text)),
            self.stored.as_ref().map(|part| part.describe(text)),
            self.amplification.as_ref().map(|part| part.describe(text)),
            self.disk.as_ref().map(|part| part.describe(text)),
            self.engine.as_ref().map(|part| part.describe(text)),
            self.flink.as_ref().map(|part| part.describe(text)),
            self.lake.as_ref().map(|part| part.describe(text)),
        ];
        parts.into_iter().flatten().collect()
    }
}

/// The rows that say when and where something was measured.
///
/// # Errors
/// The clock is far off.
pub fn place_and_time(text: &mut String) -> Outcome<()> {
    let now =
        chrono::DateTime::from_timestamp_millis(broker::Clock::system().now_ms()).ok_or("the clock is far off")?;
    let root = env!("CARGO_MANIFEST_DIR");
    let commit = machine::first_line("git", &["-C", root, "describe", "--always", "--dirty", "--exclude=*"]);
    writeln!(text, "| condition | |\n|---|---|")?;
    writeln!(text, "| date | {} UTC |", now.format("%Y-%m-%d %H:%M"))?;
    writeln!(text, "| commit | {commit} |")?;
    writeln!(text, "| machine | {} |", machine::hardware())?;
    writeln!(text, "| kernel | {} |", machine::first_line("uname", &["-sr"]))?;
    writeln!(
        text,
        "| client | librdkafka {}; client, brokers and disk on this machine, over loopback |",
        client_version()
    )?;
    Ok(())
}

fn conditions(text: &mut String, settings: &Settings, during: Conditions) -> Outcome<()> {
    let Settings { rounds, warmup_rounds, mib_small, mib_large, .. } = settings;
    writeln!(text, "Written by `BENCH_WRITE=1 make bench` (`benches/`); medians of {rounds} rounds.\n")?;
    place_and_time(text)?;
    writeln!(text, "| Apache Kafka | 4.3.1, one KRaft node, {} |", machine::first_line("java", &["-version"]))?;
    writeln!(
        text,
        "| cell | {mib_small} MiB of 100 B records or {mib_large} MiB of 1 KiB records, no key, no compression, \
         to partitions in turn; linger 5 ms; then read back from the beginning; the brokers take turns |"
    )?;
    writeln!(
        text,
        "| warm-up | {warmup_rounds} whole rounds of each broker; parts other than the matrix and \
         amplification begin with 256 MiB |"
    )?;
    writeln!(text, "| page cache | filled before each measurement with pages that make room for others at once |")?;
    writeln!(
        text,
        "| fsync on | Millpond `--durability fsync`, Kafka `flush.messages=1`: both answer acks=1 and acks=all after the sync |"
    )?;
    writeln!(text, "| fsync off | Millpond `--durability os`, Kafka's default |")?;
    writeln!(text, "| other processes | {:.1} % of all cores meanwhile |", during.others_share * 100.0)?;
    writeln!(text, "| run | {:.0} minutes |\n", during.took.as_secs_f64() / 60.0)?;
    writeln!(
        text,
        "MiB and GiB are of record values. CPU is user and kernel time of the broker's process within the phase; what the \
         kernel writes back later is nobody's.\n"
    )?;
    Ok(())
}

fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
