//! What a run does: variables of the environment, each with its default and bounds.

use std::path::PathBuf;
use std::time::Duration;

use crate::Outcome;

/// What `BENCH_ONLY` can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Plain-file bandwidth.
    Disk,
    /// Millpond as a broker.
    Millpond,
    /// Apache Kafka as a broker.
    Kafka,
    /// Millpond's engine.
    Engine,
}

const PARTS: [(&str, Part); 4] =
    [("disk", Part::Disk), ("millpond", Part::Millpond), ("kafka", Part::Kafka), ("engine", Part::Engine)];

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `BENCH_ROUNDS`: measured passes over the matrix.
    pub rounds: usize,
    /// `BENCH_WARMUP_ROUNDS`: passes before them whose figures are thrown away; the JIT needs them.
    pub warmup_rounds: usize,
    /// `BENCH_MIB_SMALL`: payload of a cell with 100 B records, in MiB.
    pub mib_small: usize,
    /// `BENCH_MIB_LARGE`: payload of a cell with 1 KiB records, in MiB.
    pub mib_large: usize,
    /// `BENCH_LATENCY_RATE`: records per second offered while produce latency is measured.
    pub latency_rate: usize,
    /// `BENCH_LATENCY_MS`: for how long.
    pub latency_ms: usize,
    /// `BENCH_TRIPS`: one-record round trips of a cell.
    pub trips: usize,
    /// `BENCH_PHASE_SECONDS_MAX`: most time of one phase of one cell.
    pub phase_seconds_max: usize,
    /// `BENCH_ENGINE_EVENTS`: events in the log before the engine starts.
    pub engine_events: usize,
    /// `BENCH_WRITE=1`: write `benches/RESULTS.md`.
    pub write: bool,
    parts: Vec<Part>,
}

impl Settings {
    /// Reads the variables.
    ///
    /// # Errors
    /// A variable that is not a number within its bounds, or a part that does not exist.
    pub fn from_env() -> Outcome<Self> {
        Ok(Self {
            rounds: number("BENCH_ROUNDS", 3, 1..=50)?,
            warmup_rounds: number("BENCH_WARMUP_ROUNDS", 1, 0..=10)?,
            mib_small: number("BENCH_MIB_SMALL", 48, 1..=4096)?,
            mib_large: number("BENCH_MIB_LARGE", 192, 1..=4096)?,
            latency_rate: number("BENCH_LATENCY_RATE", 500, 10..=100_000)?,
            latency_ms: number("BENCH_LATENCY_MS", 2_000, 100..=60_000)?,
            trips: number("BENCH_TRIPS", 300, 10..=100_000)?,
            phase_seconds_max: number("BENCH_PHASE_SECONDS_MAX", 20, 1..=600)?,
            engine_events: number("BENCH_ENGINE_EVENTS", 1_000_000, 1_000..=50_000_000)?,
            write: std::env::var("BENCH_WRITE").is_ok_and(|value| value == "1"),
            parts: parts(std::env::var("BENCH_ONLY").ok().as_deref())?,
        })
    }

    /// Whether the run includes this part.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Whether every part was measured, so that the results can stand as a whole.
    pub fn is_whole(&self) -> bool {
        self.parts.len() == PARTS.len()
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
pub fn number(name: &str, default: usize, bounds: std::ops::RangeInclusive<usize>) -> Outcome<usize> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    match text.parse() {
        Ok(value) if bounds.contains(&value) => Ok(value),
        _ => Err(format!("{name} is {text:?}, give a number from {} to {}", bounds.start(), bounds.end()).into()),
    }
}

fn parts(only: Option<&str>) -> Outcome<Vec<Part>> {
    let Some(only) = only else { return Ok(PARTS.map(|(_, part)| part).to_vec()) };
    let part = |name: &str| match PARTS.iter().find(|(known, _)| *known == name) {
        Some((_, part)) => Ok(*part),
        None => Err(format!("BENCH_ONLY names {name:?}, give some of disk,millpond,kafka,engine").into()),
    };
    only.split(',').map(|name| part(name.trim())).collect()
}
