//! Rounds: brokers take turns, who goes first changes from round to round, warm-up rounds are thrown away.

use std::fmt::Debug;

use crate::Outcome;
use crate::brokers::{Product, Running};
use crate::machine;
use crate::report::median;
use crate::settings::Settings;

/// What one broker gave, round by round.
#[derive(Clone, Debug)]
pub struct Rounds<T> {
    /// Which broker.
    pub product: Product,
    /// One entry per measured round.
    pub each: Vec<T>,
}

impl<T> Rounds<T> {
    /// Median of one figure over the rounds.
    pub fn median(&self, figure: impl Fn(&T) -> f64) -> f64 {
        median(&mut self.each.iter().map(figure).collect::<Vec<_>>())
    }
}

/// One figure of one broker, if that broker was measured.
pub fn figure<T>(all: &[Rounds<T>], product: Product, figure: impl Fn(&T) -> f64) -> Option<f64> {
    let rounds = all.iter().find(|rounds| rounds.product == product)?;
    if rounds.each.is_empty() { None } else { Some(rounds.median(figure)) }
}

/// Runs `measure` for each broker in each round; it is told which broker (by its place in the settings' list) and which round.
///
/// # Errors
/// Those of `measure`.
pub fn take_turns<T: Debug>(
    settings: &Settings,
    warmup_rounds: usize,
    mut measure: impl FnMut(usize, usize) -> Outcome<T>,
) -> Outcome<Vec<Rounds<T>>> {
    let brokers = &settings.brokers;
    let mut all: Vec<_> = brokers.iter().map(|product| Rounds { product: *product, each: Vec::new() }).collect();
    for round in 0..warmup_rounds + settings.rounds {
        for step in 0..brokers.len() {
            let turn = (step + round) % brokers.len();
            let measured = measure(turn, round)?;
            eprintln!("bench: round {round} {}: {measured:?}", brokers[turn].name());
            if round >= warmup_rounds {
                all[turn].each.push(measured);
            }
        }
    }
    Ok(all)
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

/// Runs a phase and relates it to the CPU time that the broker used meanwhile.
///
/// # Errors
/// Those of the phase, or the broker is gone.
pub fn rated(
    broker: &Running,
    record_bytes: usize,
    phase: impl FnOnce() -> Outcome<crate::load::Moved>,
) -> Outcome<(crate::load::Moved, Rate)> {
    let before = machine::cpu_seconds(broker.pid())?;
    let moved = phase()?;
    let cpu = machine::cpu_seconds(broker.pid())? - before;
    let mib = (moved.records * record_bytes) as f64 / f64::from(1 << 20);
    let rate = Rate {
        records: moved.records as f64 / moved.seconds,
        mib: mib / moved.seconds,
        cpu_per_gib: cpu / (mib / 1024.0),
    };
    Ok((moved, rate))
}
