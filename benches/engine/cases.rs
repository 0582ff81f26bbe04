//! Counts by each kind of window, with few and many keys, and the same count by many views over one topic.

use std::path::PathBuf;

use super::events::{Load, TOPIC, config, write};
use super::{Cost, Meter, Pair, open_with};
use crate::Outcome;

const MINUTE_MS: i64 = 60_000;

/// A count that is measured.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// What follows FROM, for each view.
    grouped: &'static str,
    pub views: usize,
    users: u64,
    /// Event time that a million events spread over.
    million_ms: i64,
    note_bytes: usize,
    /// In how many windows an event counts.
    windows: i64,
    events: usize,
}

/// All cases.
pub fn all(events: usize) -> Vec<Case> {
    let by_minute = "GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), user_id";
    let tumble = Case {
        name: "tumble",
        grouped: by_minute,
        views: 1,
        users: 1_000,
        million_ms: 60 * MINUTE_MS,
        note_bytes: 0,
        windows: 1,
        events,
    };
    let by_genre = "GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre";
    let views = |name, views| Case { name, grouped: by_genre, views, ..tumble.clone() };
    vec![
        tumble.clone(),
        // of each user some ten events a window, as at half a million events a second there would be hundreds
        Case { name: "tumble, 100,000 users", users: 100_000, million_ms: MINUTE_MS, note_bytes: 48, ..tumble.clone() },
        Case {
            name: "hop",
            grouped: "GROUP BY HOP(ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id",
            windows: 6,
            ..tumble.clone()
        },
        Case { name: "session", grouped: "GROUP BY SESSION(ts, INTERVAL '10' SECOND), user_id", ..tumble.clone() },
        views("1 view", 1),
        views("10 views", 10),
        views("50 views", 50),
    ]
}

impl Case {
    /// What is computed, and over what, for people.
    pub fn describe(&self) -> String {
        let Case { grouped, views, users, events, .. } = self;
        let windows = self.load(0).time_ms(*events) / MINUTE_MS;
        let views = if *views == 1 { String::new() } else { format!("{views} times ") };
        let bytes = self.load(1_700_000_000_000).event(1).len();
        format!("{views}`count(*) … {grouped}`; {users} users, {} minutes, {bytes} B", windows.max(1))
    }

    fn load(&self, first_ms: i64) -> Load {
        let Case { users, million_ms, note_bytes, .. } = *self;
        Load { users, in_turn: false, first_ms, million_ms, note_bytes }
    }

    /// Of many views each computes something that the others do not.
    fn sql(&self) -> Vec<String> {
        let (grouped, views) = (self.grouped, self.views);
        let key = if grouped.ends_with("genre") { "genre" } else { "user_id" };
        let view = |number| {
            let own = if views > 1 { format!(", max(duration_ms + {number}) AS longest") } else { String::new() };
            let name = name(number);
            format!("CREATE MATERIALIZED VIEW {name} AS SELECT {key}, count(*) AS plays{own} FROM {TOPIC} {grouped}")
        };
        (0..views).map(view).collect()
    }
}

fn name(number: usize) -> String {
    format!("counted_{number}")
}

/// One round: start of the engine to nothing left.
pub async fn measure(case: &Case, events: usize, folder: PathBuf) -> Outcome<Cost> {
    let (broker, topic) = open_with(folder, TOPIC, 1).await?;
    let span_ms = case.load(0).time_ms(events);
    let load = case.load(broker.clock().now_ms() - span_ms);
    write(&broker, &topic.partitions(), &load, 0..events).await?;
    let meter = Meter::begin(None)?;
    let pair = Pair::start(broker, config(case.sql())).await?;
    pair.applied().await?;
    let cost = meter.end(&pair.engine).await?;
    for view in 0..case.views {
        let counted = pair.sum(&name(view), "plays").await?;
        if counted != i64::try_from(events)? * case.windows {
            return Err(format!("{}: {} counts {counted} of {events} events", case.name, name(view)).into());
        }
    }
    pair.stop().await?;
    Ok(cost)
}
