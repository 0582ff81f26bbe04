//! What the engine's part of a run does: variables of the environment, each with its default and bounds.

use crate::Outcome;
use crate::settings::{chosen, number};

/// What `BENCH_ENGINE` can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measurement {
    /// Counts by windows, and many views over one topic.
    Counts,
    /// State that memory does not hold.
    State,
    /// The queries of Nexmark.
    Nexmark,
    /// From acknowledged to visible.
    Visible,
    /// Filling a new view.
    Fill,
}

const MEASUREMENTS: [(&str, Measurement); 5] = [
    ("counts", Measurement::Counts),
    ("state", Measurement::State),
    ("nexmark", Measurement::Nexmark),
    ("visible", Measurement::Visible),
    ("fill", Measurement::Fill),
];

/// The bounds of the engine's part; events of the counts are `BENCH_ENGINE_EVENTS`.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// `BENCH_STATE_EVENTS`: events over a state that is there already.
    pub state_events: usize,
    /// `BENCH_NEXMARK_EVENTS`: people, auctions and bids together.
    pub nexmark_events: usize,
    /// `BENCH_VISIBLE_RATE`: events per second offered while a view is read.
    pub visible_rate: usize,
    /// `BENCH_VISIBLE_MS`: for how long.
    pub visible_ms: usize,
    /// `BENCH_FILL_EVENTS`: events that are there when the view is declared.
    pub fill_events: usize,
    measurements: Vec<Measurement>,
}

impl Bounds {
    /// Reads the variables.
    ///
    /// # Errors
    /// A variable that is not a number within its bounds, or a measurement that does not exist.
    pub fn from_env() -> Outcome<Self> {
        Ok(Self {
            state_events: number("BENCH_STATE_EVENTS", 500_000, 10_000..=50_000_000)?,
            nexmark_events: number("BENCH_NEXMARK_EVENTS", 500_000, 1_000..=50_000_000)?,
            visible_rate: number("BENCH_VISIBLE_RATE", 50_000, 1_000..=10_000_000)?,
            visible_ms: number("BENCH_VISIBLE_MS", 10_000, 100..=600_000)?,
            fill_events: number("BENCH_FILL_EVENTS", 2_000_000, 10_000..=100_000_000)?,
            measurements: chosen("BENCH_ENGINE", &MEASUREMENTS)?,
        })
    }

    /// Whether the run includes this measurement.
    pub fn wants(&self, measurement: Measurement) -> bool {
        self.measurements.contains(&measurement)
    }
}
