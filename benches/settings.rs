//! What a run does: variables of the environment, each with its default and bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::Outcome;
use crate::brokers::Product;

/// What `BENCH_ONLY` can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Produce and fetch, by record size, partitions, acks and durability.
    Matrix,
    /// Plain-file bandwidth.
    Disk,
    /// Reading what is still in memory.
    Tail,
    /// Delays of an open loop.
    Latency,
    /// Many producers of one small record at a time.
    GroupCommit,
    /// Many partitions, many connections.
    Scaling,
    /// With much stored: rates, bytes, starts.
    Stored,
    /// Bytes written and kept per byte produced.
    Amplification,
    /// Millpond's engine.
    Engine,
    /// Windowed counts beside Apache Flink SQL and Spark Structured Streaming.
    Flink,
    /// Millpond's lake, and DuckDB and Spark on its files.
    Lake,
}

const PARTS: [(&str, Part); 11] = [
    ("matrix", Part::Matrix),
    ("disk", Part::Disk),
    ("tail", Part::Tail),
    ("latency", Part::Latency),
    ("group-commit", Part::GroupCommit),
    ("scaling", Part::Scaling),
    ("stored", Part::Stored),
    ("amplification", Part::Amplification),
    ("engine", Part::Engine),
    ("flink", Part::Flink),
    ("lake", Part::Lake),
];
const BROKERS: [(&str, Product); 2] = [("millpond", Product::Millpond), ("kafka", Product::Kafka)];

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `BENCH_ROUNDS`: measured rounds of every part.
    pub rounds: usize,
    /// `BENCH_WARMUP_ROUNDS`: rounds before them whose figures are thrown away; the JIT needs them.
    pub warmup_rounds: usize,
    /// `BENCH_MIB_SMALL`: payload of a cell with 100 B records, in MiB.
    pub mib_small: usize,
    /// `BENCH_MIB_LARGE`: payload of a cell with 1 KiB records, in MiB.
    pub mib_large: usize,
    /// `BENCH_LATENCY_RATE`: records per second offered while a cell's produce latency is measured.
    pub latency_rate: usize,
    /// `BENCH_LATENCY_MS`: for how long.
    pub latency_ms: usize,
    /// `BENCH_TRIPS`: one-record round trips of a cell.
    pub trips: usize,
    /// `BENCH_PHASE_SECONDS_MAX`: most time of one phase of one cell.
    pub phase_seconds_max: usize,
    /// `BENCH_OPEN_LOOP_MS`: how long each open loop of `latency` offers records.
    pub open_loop_ms: usize,
    /// `BENCH_PRODUCERS`: producers of `group-commit`.
    pub producers: usize,
    /// `BENCH_GROUP_COMMIT_MS`: for how long their answers are counted.
    pub group_commit_ms: usize,
    /// `BENCH_SCALING_MIB`: payload of a step of `scaling`, in MiB.
    pub scaling_mib: usize,
    /// `BENCH_CONNECTIONS`: idle connections of its step that has some.
    pub connections: usize,
    /// `BENCH_STORED_GIB`: what is stored, in GiB, one size after the other, as `1,2`; 10 and 50 in the long form.
    pub stored_gib: Vec<usize>,
    /// `BENCH_AMPLIFICATION_MIB`: payload of a case of `amplification`.
    pub amplification_mib: usize,
    /// `BENCH_ENGINE_EVENTS`: events in the log before the engine starts.
    pub engine_events: usize,
    /// `BENCH_FLINK_EVENTS`: events that Millpond, Flink and Spark count by windows.
    pub flink_events: usize,
    /// `BENCH_LAKE_ROWS`: rows that the lake's aggregations are over; dashboards ask over a fifth.
    pub lake_rows: usize,
    /// `BENCH_SOAK_MINUTES`: how long `make soak` loads the broker.
    pub soak_minutes: usize,
    /// `BENCH_SOAK_KAFKA_MINUTES`: how long Apache Kafka has the same load afterwards, not synced; 0 leaves it out.
    pub soak_kafka_minutes: usize,
    /// `BENCH_SOAK_PROBE_SECONDS`: how long it looks for the most that the broker takes.
    pub soak_probe_seconds: usize,
    /// `BENCH_WRITE=1`: write `benches/RESULTS.md`, or `benches/SOAK.md`.
    pub write: bool,
    /// `BENCH_BROKERS`: the brokers under test, in the order of the tables.
    pub brokers: Vec<Product>,
    parts: Vec<Part>,
}

impl Settings {
    /// Reads the variables.
    ///
    /// # Errors
    /// A variable that is not a number within its bounds, or a part or broker that does not exist.
    pub fn from_env() -> Outcome<Self> {
        Ok(Self {
            rounds: number("BENCH_ROUNDS", 3, 1..=50)?,
            warmup_rounds: number("BENCH_WARMUP_ROUNDS", 1, 0..=10)?,
            mib_small: number("BENCH_MIB_SMALL", 48, 1..=4096)?,
            mib_large: number("BENCH_MIB_LARGE", 1024, 1..=4096)?,
            latency_rate: number("BENCH_LATENCY_RATE", 500, 10..=100_000)?,
            latency_ms: number("BENCH_LATENCY_MS", 2_000, 100..=60_000)?,
            trips: number("BENCH_TRIPS", 300, 10..=100_000)?,
            phase_seconds_max: number("BENCH_PHASE_SECONDS_MAX", 20, 1..=600)?,
            open_loop_ms: number("BENCH_OPEN_LOOP_MS", 4_000, 100..=600_000)?,
            producers: number("BENCH_PRODUCERS", 200, 1..=5_000)?,
            group_commit_ms: number("BENCH_GROUP_COMMIT_MS", 3_000, 100..=600_000)?,
            scaling_mib: number("BENCH_SCALING_MIB", 128, 1..=4096)?,
            connections: number("BENCH_CONNECTIONS", 1_000, 1..=9_000)?,
            stored_gib: numbers("BENCH_STORED_GIB", &[1, 2], 1..=200)?,
            amplification_mib: number("BENCH_AMPLIFICATION_MIB", 512, 1..=65_536)?,
            engine_events: number("BENCH_ENGINE_EVENTS", 1_000_000, 1_000..=50_000_000)?,
            flink_events: number("BENCH_FLINK_EVENTS", 1_000_000, 10_000..=20_000_000)?,
            lake_rows: number("BENCH_LAKE_ROWS", 50_000_000, 10_000..=200_000_000)?,
            soak_minutes: number("BENCH_SOAK_MINUTES", 60, 2..=10_000)?,
            soak_kafka_minutes: number("BENCH_SOAK_KAFKA_MINUTES", 5, 0..=10_000)?,
            soak_probe_seconds: number("BENCH_SOAK_PROBE_SECONDS", 20, 1..=600)?,
            write: std::env::var("BENCH_WRITE").is_ok_and(|value| value == "1"),
            brokers: chosen("BENCH_BROKERS", &BROKERS)?,
            parts: chosen("BENCH_ONLY", &PARTS)?,
        })
    }

    /// Whether the run includes this part.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Whether everything was measured, so that the results can stand as a whole.
    pub fn is_whole(&self) -> bool {
        PARTS.iter().all(|(_, part)| self.parts.contains(part))
            && BROKERS.iter().all(|(_, product)| self.brokers.contains(product))
    }

    /// Most time of one phase.
    pub fn phase_max(&self) -> Duration {
        Duration::from_secs(self.phase_seconds_max as u64)
    }

    /// Records of a cell, by their size.
    pub fn records(&self, record_bytes: usize) -> usize {
        let mib = if record_bytes < 1024 { self.mib_small } else { self.mib_large };
        (mib << 20) / record_bytes
    }

    /// `BENCH_DIR`: where both brokers keep their data; Cargo's folder for such files when absent.
    pub fn scratch(&self) -> PathBuf {
        std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
    }
}

/// A variable, or its default.
///
/// # Errors
/// It is not a number within its bounds.
pub fn number(name: &str, default: usize, bounds: RangeInclusive<usize>) -> Outcome<usize> {
    std::env::var(name).map_or(Ok(default), |text| within(name, &text, &bounds))
}

/// The numbers of a variable, with commas between them, or its default.
///
/// # Errors
/// One of them is not a number within its bounds.
fn numbers(name: &str, default: &[usize], bounds: RangeInclusive<usize>) -> Outcome<Vec<usize>> {
    let Ok(text) = std::env::var(name) else { return Ok(default.to_vec()) };
    text.split(',').map(|number| within(name, number.trim(), &bounds)).collect()
}

fn within(name: &str, text: &str, bounds: &RangeInclusive<usize>) -> Outcome<usize> {
    match text.parse() {
        Ok(value) if bounds.contains(&value) => Ok(value),
        _ => Err(format!("{name} is {text:?}, give a number from {} to {}", bounds.start(), bounds.end()).into()),
    }
}

/// The entries of a table that a variable names, in the table's order; all of them without the variable.
///
/// # Errors
/// A name that is not in the table.
pub fn chosen<T: Copy>(variable: &str, table: &[(&str, T)]) -> Outcome<Vec<T>> {
    let Ok(given) = std::env::var(variable) else { return Ok(table.iter().map(|(_, entry)| *entry).collect()) };
    let given: Vec<&str> = given.split(',').map(str::trim).collect();
    if let Some(unknown) = given.iter().find(|name| !table.iter().any(|(known, _)| known == *name)) {
        let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        return Err(format!("{variable} names {unknown:?}, give some of {}", known.join(",")).into());
    }
    Ok(table.iter().filter(|(name, _)| given.contains(name)).map(|(_, entry)| *entry).collect())
}
