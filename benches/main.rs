//! `make bench`: Millpond beside Apache Kafka under one librdkafka load, in one run on one machine, then the engine alone.
//!
//! The order of a run: start-up times, then `rounds` passes over every cell of the matrix (record size × partitions ×
//! acks × durability) in which the brokers take turns, the disk once per round, the engine last. Figures are medians over
//! the rounds. `settings` lists the variables, `report` prints and writes `benches/RESULTS.md`.
#![allow(clippy::disallowed_methods, reason = "a load is paced by its threads")]

mod brokers;
mod disk;
mod engine;
mod load;
mod machine;
#[path = "../tests/support/ports.rs"]
mod ports;
mod produce_fetch;
mod report;
mod settings;

use std::process::ExitCode;

use settings::{Part, Settings};

/// Any failure ends the run: a figure that was not measured is not printed.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benches too; only an explicit `run` measures
    if std::env::args().nth(1).as_deref() != Some("run") {
        println!("nothing measured: `make bench` runs the measurements");
        return ExitCode::SUCCESS;
    }
    match run() {
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
    let brokers = produce_fetch::run(&settings, scratch.path())?;
    let engine =
        if settings.wants(Part::Engine) { Some(engine::run(&settings, &bounds, scratch.path())?) } else { None };
    report::publish(&settings, &brokers, engine.as_ref())
}
