//! Starts with a store that is not empty: after a stop in order, and after `kill -9`.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::brokers::{Place, Product, Running};
use crate::load::{self, Target};
use crate::rounds::{self, Rounds, take_turns};
use crate::settings::Settings;
use crate::{Outcome, machine};

const TOPIC: &str = "stored";
const PARTITIONS: i32 = 6;
/// Written before each end, so that a crash finds something that no file has yet.
const MIB_BEFORE_END: usize = 64;
/// Most time to fill a store.
const FILL_MAX: Duration = Duration::from_secs(3_600);

/// One start.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// From the start of the process to its first acknowledged record.
    pub seconds: f64,
    /// Resident memory two seconds later, in bytes.
    pub resident_bytes: u64,
}

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// After SIGTERM.
    pub stopped: Started,
    /// After SIGKILL.
    pub killed: Started,
}

/// How a process ended, and the start after that.
type End = (&'static str, fn(&Measured) -> Started);

/// What the part gave.
#[derive(Debug)]
pub struct Start {
    rounds: Vec<Rounds<Measured>>,
    gib: usize,
}

/// Runs the part.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Start> {
    let mut places = Vec::new();
    for product in &settings.brokers {
        let place = Place::new(*product, scratch, "start", true);
        let mut broker = place.start()?;
        load::create_topics(&broker.bootstrap, &[TOPIC], PARTITIONS, &[])?;
        produce(&mut broker, settings.start_gib << 10)?;
        broker.stop()?;
        places.push(place);
    }
    let rounds = take_turns(settings, 0, |turn, _| {
        let place = &places[turn];
        let mut broker = place.start()?;
        produce(&mut broker, MIB_BEFORE_END)?;
        broker.stop()?;
        machine::flush_disks()?;
        let mut broker = place.start()?;
        let stopped = started(&broker)?;
        produce(&mut broker, MIB_BEFORE_END)?;
        broker.kill();
        machine::flush_disks()?;
        let broker = place.start()?;
        let killed = started(&broker)?;
        broker.stop()?;
        Ok(Measured { stopped, killed })
    })?;
    places.iter().try_for_each(Place::remove)?;
    Ok(Start { rounds, gib: settings.start_gib })
}

fn started(broker: &Running) -> Outcome<Started> {
    Ok(Started { seconds: broker.start_up.as_secs_f64(), resident_bytes: broker.idle_bytes()? })
}

fn produce(broker: &mut Running, mib: usize) -> Outcome<()> {
    let target = Target::new(&broker.bootstrap, TOPIC, PARTITIONS);
    let records = (mib << 20) / target.record_bytes;
    let moved = load::produce(&target, records, FILL_MAX).map_err(|error| broker.explain(error))?;
    if moved.records == records { Ok(()) } else { Err(format!("{mib} MiB took more than {FILL_MAX:?}").into()) }
}

impl Start {
    /// Median over the rounds of one figure, if it was measured.
    pub fn figure(&self, product: Product, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        rounds::figure(&self.rounds, product, of)
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let gib = self.gib;
        writeln!(text, "## Starting with {gib} GiB\n")?;
        writeln!(
            text,
            "1 KiB records over {PARTITIONS} partitions, {MIB_BEFORE_END} MiB more just before each end; Millpond with fsync. \
             Start of the process to the first acknowledged record; the page cache is warm. Resident: two seconds later.\n"
        )?;
        writeln!(text, "| after | broker | start s | resident MiB |\n|---|---|---|---|")?;
        let ends: [End; 2] = [("a stop in order", |round| round.stopped), ("`kill -9`", |round| round.killed)];
        for (end, of) in ends {
            for broker in &self.rounds {
                let seconds = broker.median(|round| of(round).seconds);
                let mib = broker.median(|round| of(round).resident_bytes as f64) / f64::from(1 << 20);
                writeln!(text, "| {end} | {} | {seconds:.2} | {mib:.0} |", broker.product.name())?;
            }
        }
        writeln!(text)?;
        Ok(())
    }
}
