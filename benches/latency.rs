//! Latency under load: an open loop at a fixed rate over six partitions, from due to acknowledged and from due to received.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::brokers::{Fleet, Product, Running};
use crate::load::{self, Offered, Target};
use crate::report::quantiles;
use crate::rounds::{self, Rounds, take_turns};
use crate::settings::Settings;
use crate::{Outcome, machine};

const PARTITIONS: i32 = 6;
/// How long a loop of a warm-up round is at least: so many small requests are another load than the warm-up of a fleet, and a JIT shall have seen them.
const WARM_UP: Duration = Duration::from_secs(20);

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Records of 1 KiB per second.
    pub rate: usize,
    /// Whether what is acknowledged is on the disk.
    pub fsync: bool,
}

/// 10 MiB/s with both promises, and 2,000 records/s synced, in the order of the table.
pub const CASES: [Case; 3] =
    [Case { rate: 10_240, fsync: true }, Case { rate: 10_240, fsync: false }, Case { rate: 2_000, fsync: true }];

/// p50, p99 and p99.9 of one load in one round, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From due to the delivery report.
    pub produce_ms: [f64; 3],
    /// From due to the consumer.
    pub end_to_end_ms: [f64; 3],
}

/// What the part gave: for each broker and round one entry per case.
#[derive(Debug)]
pub struct Latency {
    rounds: Vec<Rounds<Vec<Measured>>>,
    during: Duration,
}

/// Runs the part.
///
/// # Errors
/// A broker that fails anything ends the run.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Latency> {
    let start = |product: &Product| Fleet::start(*product, scratch, "latency");
    let mut fleets: Vec<Fleet> = settings.brokers.iter().map(start).collect::<Outcome<_>>()?;
    let during = Duration::from_millis(settings.open_loop_ms as u64);
    let rounds = take_turns(settings, settings.warmup_rounds, |turn, round| {
        let during = if round < settings.warmup_rounds { during.max(WARM_UP) } else { during };
        let cases = CASES.iter().enumerate().map(|(at, case)| {
            let broker = fleets[turn].broker(case.fsync);
            let topic = format!("latency-{round}-{at}");
            measure(broker, &topic, *case, during).map_err(|error| broker.explain(error).into())
        });
        cases.collect::<Outcome<Vec<_>>>()
    })?;
    Ok(Latency { rounds, during })
}

fn measure(broker: &Running, topic: &str, case: Case, during: Duration) -> Outcome<Measured> {
    let flush = load::flush_each(broker.product, case.fsync);
    load::create_topics(&broker.bootstrap, &[topic], PARTITIONS, flush)?;
    machine::settle()?;
    let target = Target::new(&broker.bootstrap, topic, PARTITIONS);
    let mut delays = load::open_loop(&target, Offered { rate: case.rate, during })?;
    load::delete_topics(&broker.bootstrap, &[topic])?;
    Ok(Measured { produce_ms: quantiles(&mut delays.produce_ns), end_to_end_ms: quantiles(&mut delays.end_to_end_ns) })
}

impl Latency {
    /// Median over the rounds of one figure of one case, if it was measured.
    pub fn figure(&self, product: Product, case: Case, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        let at = CASES.iter().position(|known| *known == case)?;
        rounds::figure(&self.rounds, product, |round| of(&round[at]))
    }

    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let seconds = self.during.as_secs_f64();
        writeln!(text, "## Latency under load, ms\n")?;
        writeln!(
            text,
            "Open loop: records of 1 KiB over {PARTITIONS} partitions, acks all, linger 0, at a fixed rate for {seconds:.0} s, \
             {} s in the rounds of the warm-up; from the moment a record is due to its delivery report, and to a consumer that waits for it.\n",
            self.during.max(WARM_UP).as_secs()
        )?;
        writeln!(
            text,
            "| records/s | fsync | broker | produce p50 | p99 | p99.9 | end to end p50 | p99 | p99.9 |\n\
             |---|---|---|---|---|---|---|---|---|"
        )?;
        for (at, case) in CASES.iter().enumerate() {
            for broker in &self.rounds {
                let fsync = if case.fsync { "on" } else { "off" };
                write!(text, "| {} | {fsync} | {} |", case.rate, broker.product.name())?;
                for quantile in 0..3 {
                    write!(text, " {:.2} |", broker.median(|round| round[at].produce_ms[quantile]))?;
                }
                for quantile in 0..3 {
                    write!(text, " {:.2} |", broker.median(|round| round[at].end_to_end_ms[quantile]))?;
                }
                writeln!(text)?;
            }
        }
        writeln!(text)?;
        Ok(())
    }
}
