//! `make bench`: Millpond beside Apache Kafka under one load, in one run on one machine, then the engine alone
//! and beside Apache Flink, and the lake beside DuckDB and Spark.
//! `make soak`: Millpond under half of what it takes at most, for an hour.
//!
//! A run measures its parts one after the other, each in rounds in which the brokers take turns; figures are medians over the
//! rounds. `settings` lists the parts and variables, `report` prints and writes `benches/RESULTS.md`, `soak` `benches/SOAK.md`.
#![allow(clippy::disallowed_methods, reason = "a load is paced by its threads")]
// a part that starts a lake and flushes it is a future of many layers
#![recursion_limit = "256"]

mod amplification;
mod brokers;
mod disk;
mod engine;
mod flink;
mod group_commit;
mod lake;
mod latency;
mod load;
mod log;
mod machine;
mod page_cache;
#[path = "../tests/support/ports.rs"]
mod ports;
mod produce_fetch;
mod raw;
mod report;
mod rounds;
mod scaling;
mod server;
mod settings;
mod soak;
mod stored;
mod tail;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use report::{Conditions, Report};
use settings::{Part, Settings};

/// Any failure ends the run: a figure that was not measured is not printed.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    machine::keep_memory();
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("run") => run(),
        Some("soak") => soak(),
        // `cargo test --all-targets` starts benches too; only what is asked for by name measures
        _ => {
            println!("nothing measured: `make bench` and `make soak` run the measurements");
            return ExitCode::SUCCESS;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let (settings, bounds) = (Settings::from_env()?, engine::Bounds::from_env()?);
    let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(settings.scratch())?;
    let measuring = Measuring { settings: &settings, scratch: scratch.path() };
    let (started, before) = (Instant::now(), others_cpu()?);
    let report = Report {
        disk: measuring.part(Part::Disk, disk::run)?,
        matrix: measuring.part(Part::Matrix, produce_fetch::run)?,
        tail: measuring.part(Part::Tail, tail::run)?,
        latency: measuring.part(Part::Latency, latency::run)?,
        group_commit: measuring.part(Part::GroupCommit, group_commit::run)?,
        scaling: measuring.part(Part::Scaling, scaling::run)?,
        stored: measuring.part(Part::Stored, stored::run)?,
        amplification: measuring.part(Part::Amplification, amplification::run)?,
        engine: measuring.part(Part::Engine, |settings, scratch| engine::run(settings, &bounds, scratch))?,
        flink: measuring.part(Part::Flink, flink::run)?,
        lake: measuring.part(Part::Lake, lake::run)?,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let took = started.elapsed();
    let others_share = (others_cpu()? - before) / took.as_secs_f64() / cores;
    report::publish(&settings, &report, Conditions { others_share, took })
}

fn soak() -> Outcome<()> {
    let settings = Settings::from_env()?;
    let scratch = tempfile::Builder::new().prefix("soak-").tempdir_in(settings.scratch())?;
    soak::run(&settings, scratch.path())
}

/// What every part is given.
struct Measuring<'a> {
    settings: &'a Settings,
    scratch: &'a Path,
}

impl Measuring<'_> {
    fn part<T>(&self, part: Part, run: impl FnOnce(&Settings, &Path) -> Outcome<T>) -> Outcome<Option<T>> {
        if !self.settings.wants(part) {
            return Ok(None);
        }
        let started = Instant::now();
        let measured = run(self.settings, self.scratch).map_err(|error| format!("{part:?}: {error}"))?;
        eprintln!("bench: {part:?} took {:.0} s", started.elapsed().as_secs_f64());
        Ok(Some(measured))
    }
}

/// CPU seconds of everything that is neither this process nor a child of it that has ended, as brokers have between parts.
fn others_cpu() -> Outcome<f64> {
    Ok(machine::busy_seconds()? - machine::family_cpu_seconds()?)
}
