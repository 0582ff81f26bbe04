//! Reading what was just written: all of it is still in Millpond's tail cache, and in the page cache for Kafka.

use std::fmt::Write;
use std::path::Path;

use crate::Outcome;
use crate::brokers::{Place, Product, Running};
use crate::load::{self, Target};
use crate::rounds::{self, Rate, Rounds, rated, take_turns};
use crate::settings::Settings;

const PARTITIONS: i32 = 6;
/// Below `broker.tail_cache_bytes`, 64 MiB by default.
const MIB: usize = 48;
/// Readings of one round: the kernel counts CPU time in hundredths of a second, one reading takes a few of them.
const READINGS: usize = 8;

/// What the part gave.
#[derive(Debug)]
pub struct Tail {
    rounds: Vec<Rounds<Rate>>,
}

/// Runs the part.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Tail> {
    let start = |product: &Product| {
        let broker = Place::new(*product, scratch, "tail", false).start()?;
        load::warm_up(&broker.bootstrap)?;
        Ok(broker)
    };
    let mut brokers: Vec<Running> = settings.brokers.iter().map(start).collect::<Outcome<_>>()?;
    let rounds = take_turns(settings, settings.warmup_rounds, |turn, round| {
        let broker = &mut brokers[turn];
        measure(broker, &format!("tail-{round}"), settings).map_err(|error| broker.explain(error).into())
    })?;
    Ok(Tail { rounds })
}

fn measure(broker: &Running, topic: &str, settings: &Settings) -> Outcome<Rate> {
    load::create_topics(&broker.bootstrap, &[topic], PARTITIONS, &[])?;
    let target = Target::new(&broker.bootstrap, topic, PARTITIONS);
    let within = settings.phase_max();
    let stored = load::produce(&target, (MIB << 20) / target.record_bytes, within)?.records + target.partitions_usize();
    let (_, rate) = rated(broker, target.record_bytes, || {
        let mut sum = load::consume(&target, stored, within)?;
        for _ in 1..READINGS {
            let moved = load::consume(&target, stored, within)?;
            sum = load::Moved { records: sum.records + moved.records, seconds: sum.seconds + moved.seconds };
        }
        Ok(sum)
    })?;
    load::delete_topics(&broker.bootstrap, &[topic])?;
    Ok(rate)
}

impl Tail {
    /// Median over the rounds of one figure, if it was measured.
    pub fn figure(&self, product: Product, of: impl Fn(&Rate) -> f64) -> Option<f64> {
        rounds::figure(&self.rounds, product, of)
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        writeln!(text, "## Reading at the tail\n")?;
        writeln!(
            text,
            "{MIB} MiB of 1 KiB records over {PARTITIONS} partitions, read {READINGS} times as soon as they are written: from \
             memory. The clock runs from a reader's first record to its last.\n"
        )?;
        writeln!(text, "| broker | fetch MiB/s | CPU s/GiB |\n|---|---|---|")?;
        for broker in &self.rounds {
            let (mib, cpu) = (broker.median(|one| one.mib), broker.median(|one| one.cpu_per_gib));
            writeln!(text, "| {} | {mib:.0} | {cpu:.2} |", broker.product.name())?;
        }
        writeln!(text)?;
        Ok(())
    }
}
