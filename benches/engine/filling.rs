//! A view that is declared when most of what it counts is there, while a producer goes on: from the log, and from Parquet files when
//! the log has let go of all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use broker::{Ack, Broker, Change, Partition};
use engine::HistorySlot;
use lake::{Lake, LakeConfig};

use super::bounds::Bounds;
use super::events::{Load, TOPIC, config, write};
use super::{APPLIED_MAX, Cost, Meter, Pair, open_with};
use crate::Outcome;
use crate::log::append;

const VIEW: &str = "later";
/// Events of the producer that goes on, and how often they come.
const MORE: usize = 100;
const EVERY: Duration = Duration::from_millis(10);

/// Where the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    Log,
    Files,
}

impl ReadFrom {
    pub const BOTH: [ReadFrom; 2] = [ReadFrom::Log, ReadFrom::Files];
}

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    pub from: ReadFrom,
    /// From the declaration until everything is applied that was there then.
    pub cost: Cost,
}

/// One round.
pub async fn measure(bounds: &Bounds, from: ReadFrom, folder: PathBuf) -> Outcome<Filled> {
    let (broker, topic) = open_with(folder, TOPIC, 1).await?;
    let first_ms = broker.clock().now_ms() - 3_600_000;
    let million_ms = 3_000_000_000_000 / i64::try_from(bounds.fill_events)?;
    let load = Load { users: 1_000, in_turn: false, first_ms, million_ms, note_bytes: 0 };
    write(&broker, &topic.partitions(), &load, 0..bounds.fill_events).await?;
    let partition = topic.partition(0).ok_or("the topic has no partition")?;
    let history = if from == ReadFrom::Files { HistorySlot::awaited() } else { Arc::default() };
    let pair = Pair::start_with(broker, config(Vec::new()), history).await?;
    pair.engine.wait_fresh("data_quality", 600_000).await?;
    let lake = match from {
        ReadFrom::Log => None,
        ReadFrom::Files => Some(settle(&pair, &partition).await?),
    };
    crate::machine::settle()?;
    let stop = Arc::new(AtomicBool::new(false));
    let going_on = (pair.broker.clone(), partition, load);
    let writing = tokio::spawn(go_on(going_on, bounds.fill_events, stop.clone()));
    let meter = Meter::begin(Some(&pair.engine))?;
    pair.declare(&format!(
        "CREATE MATERIALIZED VIEW {VIEW} AS SELECT user_id, count(*) AS plays FROM {TOPIC} GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), user_id"
    ))
    .await?;
    filled(&pair).await?;
    let cost = meter.end(&pair.engine).await?;
    stop.store(true, Ordering::Relaxed);
    let events = writing.await??;
    let counted = pair.sum(VIEW, "plays").await?;
    if counted != i64::try_from(events)? {
        return Err(format!("the view counts {counted} of {events} events").into());
    }
    if let Some(lake) = lake {
        lake.stop().await?;
    }
    pair.stop().await?;
    Ok(Filled { from, cost })
}

/// Has all events in files and none in the log.
async fn settle(pair: &Pair, partition: &Arc<Partition>) -> Outcome<Arc<Lake>> {
    let lake = Lake::start(pair.broker.clone(), pair.engine.clone(), LakeConfig::default()).await?;
    lake.flush(TOPIC).await?;
    let end = partition.high_watermark();
    pair.broker.lane().commit(vec![Change::LogStart(partition.clone(), end)], Ack::Durable).await?;
    Ok(lake)
}

/// Writes on until told to stop; gives how many events there are then.
async fn go_on(
    (broker, partition, load): (Arc<Broker>, Arc<Partition>, Load),
    from: usize,
    stop: Arc<AtomicBool>,
) -> Outcome<usize> {
    let mut next = from;
    while !stop.load(Ordering::Relaxed) {
        broker.lane().commit(vec![append(&partition, load.batch(next..next + MORE)?)], Ack::Durable).await?;
        next += MORE;
        tokio::time::sleep(EVERY).await;
    }
    Ok(next)
}

/// Waits until the view has what was there when it was declared.
async fn filled(pair: &Pair) -> Outcome<()> {
    let deadline = Instant::now() + APPLIED_MAX;
    loop {
        let status = pair.engine.status();
        let view = status.iter().find(|view| view.view == VIEW).ok_or("the view is not there")?;
        match (&view.error, view.fill_left) {
            (Some(error), _) => return Err(format!("the view stopped: {error}").into()),
            (None, None) => return Ok(()),
            (None, Some(left)) if Instant::now() > deadline => {
                return Err(format!("{left} offsets are left after {APPLIED_MAX:?}").into());
            }
            (None, Some(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
