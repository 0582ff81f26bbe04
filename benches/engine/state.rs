//! The same load over a state that the hot part of memory holds, and over one more than ten times larger than it may be.

use super::bounds::Bounds;
use super::events::{Load, TOPIC, config, write};
use super::{Cost, Folders, Meter, Pair, open_with};
use crate::Outcome;

/// Memory for groups of a view: what `engine/src/member.rs` sets.
const HOT_BYTES: u64 = 64 << 20;
/// Text that each group keeps, and what a group takes with it.
const NOTE_BYTES: usize = 1_000;
const GROUP_BYTES: u64 = 1_100;
/// How much larger than that memory the large state is, and which part of it the small one.
const LARGER: u64 = 10;
const SMALLER: u64 = 4;
const VIEW: &str = "last_of_user";

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Groups of the small state, and of the large one.
    pub groups: [u64; 2],
    /// What the events over them cost.
    pub costs: [Cost; 2],
}

/// One round.
pub async fn measure(bounds: &Bounds, folders: &Folders) -> Outcome<Kept> {
    let groups = [HOT_BYTES / SMALLER / GROUP_BYTES, HOT_BYTES * LARGER / GROUP_BYTES];
    let small = over(bounds, groups[0], folders).await?;
    Ok(Kept { groups, costs: [small, over(bounds, groups[1], folders).await?] })
}

/// Makes the groups, then stops the engine, writes events over them without a pattern, and measures from its start on.
async fn over(bounds: &Bounds, groups: u64, folders: &Folders) -> Outcome<Cost> {
    let (broker, topic) = open_with(folders.next()?, TOPIC, 1).await?;
    let first_ms = broker.clock().now_ms() - 60_000;
    let in_turn = Load { users: groups, in_turn: true, first_ms, million_ms: 1_000, note_bytes: NOTE_BYTES };
    let load = Load { in_turn: false, ..in_turn };
    let sql = format!(
        "CREATE MATERIALIZED VIEW {VIEW} AS SELECT user_id, count(*) AS plays, last(note) AS note FROM {TOPIC} GROUP BY user_id"
    );
    let made = usize::try_from(groups)?;
    let all = made + bounds.state_events;
    let pair = Pair::start(broker, config(vec![sql.clone()])).await?;
    write(&pair.broker, &topic.partitions(), &in_turn, 0..made).await?;
    pair.applied().await?;
    let Pair { broker, engine } = pair;
    engine.stop().await;
    drop(engine);
    write(&broker, &topic.partitions(), &load, made..all).await?;
    crate::machine::settle()?;
    let meter = Meter::begin(None)?;
    let pair = Pair::start(broker, config(vec![sql])).await?;
    pair.applied().await?;
    let cost = meter.end(&pair.engine).await?;
    let applied: u64 = pair.engine.status().iter().map(|view| view.rows_applied).sum();
    if applied != all as u64 {
        return Err(format!("the view has applied {applied} of {all} events").into());
    }
    pair.stop().await?;
    Ok(cost)
}
