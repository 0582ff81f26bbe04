//! How cost grows: the same load over more and more partitions, and beside many idle connections.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use crate::brokers::{Place, Product, Running};
use crate::load::{self, Target};
use crate::rounds::{self, Rate, Rounds, rated, take_turns};
use crate::settings::Settings;
use crate::{Outcome, machine, raw};

/// Records that go to one partition before the next one's turn: 16 KiB, what Kafka's own producer fills before it goes on.
const RUN: usize = 16;

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of the step's own topic.
    pub partitions: i32,
    /// Whether there are idle connections beside it.
    pub crowded: bool,
}

/// In the order of a round: the topics of the steps before are still there.
pub const STEPS: [Step; 7] = [
    Step { partitions: 6, crowded: false },
    Step { partitions: 1, crowded: false },
    Step { partitions: 10, crowded: false },
    Step { partitions: 100, crowded: false },
    Step { partitions: 1_000, crowded: false },
    Step { partitions: 2_000, crowded: true },
    Step { partitions: 5_000, crowded: false },
];

/// One step in one round.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From the request for the topic until each of its partitions has acknowledged a record.
    pub create_seconds: f64,
    /// Producing.
    pub produce: Rate,
    /// Reading it all back.
    pub fetch: Rate,
    /// Resident memory of the broker after that, in bytes.
    pub resident_bytes: u64,
}

/// What the part gave: for each broker and round one entry per step.
#[derive(Debug)]
pub struct Scaling {
    rounds: Vec<Rounds<Vec<Measured>>>,
    mib: usize,
    connections: usize,
}

/// Runs the part, each round on a new process with an empty folder.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Scaling> {
    let rounds = take_turns(settings, 0, |turn, round| {
        let place = Place::new(settings.brokers[turn], scratch, &format!("scaling-{round}"), false);
        let mut broker = place.start()?;
        let steps = climb(&broker, settings).map_err(|error| broker.explain(error))?;
        broker.kill();
        place.remove()?;
        Ok(steps)
    })?;
    Ok(Scaling { rounds, mib: settings.scaling_mib, connections: settings.connections })
}

fn climb(broker: &Running, settings: &Settings) -> Outcome<Vec<Measured>> {
    load::warm_up(&broker.bootstrap)?;
    let mut steps = Vec::new();
    for step in STEPS {
        let idle = if step.crowded { raw::idle(&broker.bootstrap, settings.connections)? } else { Vec::new() };
        let topic = format!("scaling-{}", step.partitions);
        let measured = load_once(broker, (&topic, step.partitions), settings)?;
        drop(idle);
        steps.push(measured);
    }
    Ok(steps)
}

fn load_once(broker: &Running, (topic, partitions): (&str, i32), settings: &Settings) -> Outcome<Measured> {
    machine::settle()?;
    let started = Instant::now();
    load::create_topics(&broker.bootstrap, &[topic], partitions, &[])?;
    let target = Target { run: RUN, ..Target::new(&broker.bootstrap, topic, partitions) };
    // a record for each partition: Kafka answers CreateTopics before its logs are there
    let opened = load::produce(&target, 0, settings.phase_max())?.records + target.partitions_usize();
    let create_seconds = started.elapsed().as_secs_f64();
    let records = (settings.scaling_mib << 20) / target.record_bytes;
    let (moved, produce) =
        rated(broker, target.record_bytes, || load::produce(&target, records, settings.phase_max()))?;
    let stored = opened + target.partitions_usize() + moved.records;
    let (_, fetch) = rated(broker, target.record_bytes, || load::consume(&target, stored, settings.phase_max()))?;
    let resident_bytes = machine::memory_bytes(broker.pid(), "VmRSS")?;
    Ok(Measured { create_seconds, produce, fetch, resident_bytes })
}

impl Scaling {
    /// Median over the rounds of one figure of one step, if it was measured.
    pub fn figure(&self, product: Product, step: Step, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        let at = STEPS.iter().position(|known| *known == step)?;
        rounds::figure(&self.rounds, product, |round| of(&round[at]))
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let mib = self.mib;
        writeln!(text, "## Partitions and connections\n")?;
        writeln!(
            text,
            "{mib} MiB of 1 KiB records, {RUN} to a partition before the next one's turn, linger 5 ms, acks all, fsync off; then \
             read back. Each round is a new process, warmed up, with the steps in this order and \
             the topics of those before still there. Create: until each partition has acknowledged a record.\n"
        )?;
        writeln!(
            text,
            "| partitions | idle connections | broker | create s | produce MiB/s | CPU s/GiB | fetch MiB/s | CPU s/GiB | \
             resident MiB |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        for (at, step) in STEPS.iter().enumerate() {
            let idle = if step.crowded { self.connections } else { 0 };
            for broker in &self.rounds {
                let over = |of: fn(&Measured) -> f64| broker.median(|round| of(&round[at]));
                write!(text, "| {} | {idle} | {} |", step.partitions, broker.product.name())?;
                write!(text, " {:.2} |", over(|one| one.create_seconds))?;
                write!(text, " {:.0} | {:.2} |", over(|one| one.produce.mib), over(|one| one.produce.cpu_per_gib))?;
                write!(text, " {:.0} | {:.2} |", over(|one| one.fetch.mib), over(|one| one.fetch.cpu_per_gib))?;
                writeln!(text, " {:.0} |", over(|one| one.resident_bytes as f64 / f64::from(1 << 20)))?;
            }
        }
        writeln!(text)?;
        Ok(())
    }
}
