//! How soon an event is read that was acknowledged: events come at a rate, and after each acknowledgement that it hears of a reader asks
//! for the view as it is with all that is in the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Ack, Broker, Partition};
use engine::ReadRequest;
use tokio::sync::watch;

use super::bounds::Bounds;
use super::events::{Load, TOPIC, config};
use super::{Meter, Pair, open_with};
use crate::Outcome;
use crate::log::append;
use crate::report::quantiles;

/// How often a batch is due.
const EVERY: Duration = Duration::from_millis(2);
const VIEW: &str = "plays_by_genre_minute";

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub struct Visible {
    /// Events per second that were acknowledged.
    pub rate: f64,
    /// Reads that were made.
    pub reads: usize,
    /// p50, p99, p99.9 from the acknowledgement to the answer that has the event, in milliseconds.
    pub delay_ms: [f64; 3],
    /// Cores that the process kept busy, writer and reader included.
    pub cores: f64,
}

/// The last acknowledgement: events so far, and when it came.
type Acknowledged = (usize, Instant);

/// One round.
pub async fn measure(bounds: &Bounds, folder: PathBuf) -> Outcome<Visible> {
    let (broker, topic) = open_with(folder, TOPIC, 1).await?;
    let sql = format!(
        "CREATE MATERIALIZED VIEW {VIEW} AS SELECT genre, count(*) AS plays FROM {TOPIC} \
         GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre"
    );
    let pair = Pair::start(broker, config(vec![sql])).await?;
    let partition = topic.partition(0).ok_or("the topic has no partition")?;
    let (tell, acknowledged) = watch::channel((0, Instant::now()));
    let meter = Meter::begin(Some(&pair.engine))?;
    let writing = tokio::spawn(write(pair.broker.clone(), partition, bounds.clone(), tell));
    let mut delays_ns = read(&pair.engine, acknowledged).await?;
    let events = writing.await??;
    let cost = meter.end(&pair.engine).await?;
    let counted = pair.sum(VIEW, "plays").await?;
    if counted != i64::try_from(events)? {
        return Err(format!("the view counts {counted} of {events} events").into());
    }
    pair.stop().await?;
    let (rate, cores) = (events as f64 / cost.seconds, cost.process_cpu / cost.seconds);
    Ok(Visible { rate, reads: delays_ns.len(), delay_ms: quantiles(&mut delays_ns), cores })
}

/// Offers batches, whether those before are acknowledged or not; gives how many events they were.
async fn write(
    broker: Arc<Broker>,
    partition: Arc<Partition>,
    bounds: Bounds,
    tell: watch::Sender<Acknowledged>,
) -> Outcome<usize> {
    let each = (bounds.visible_rate as f64 * EVERY.as_secs_f64()).ceil() as usize;
    let batches = bounds.visible_ms / usize::try_from(EVERY.as_millis())?;
    let first_ms = broker.clock().now_ms();
    let million_ms = i64::try_from(1_000_000_000 / bounds.visible_rate)?;
    let load = Load { users: 1_000, in_turn: false, first_ms, million_ms, note_bytes: 0 };
    let started = Instant::now();
    let mut waiting = Vec::with_capacity(batches);
    let tell = Arc::new(tell);
    for number in 0..batches {
        let batch = load.batch(number * each..(number + 1) * each)?;
        let due = started + EVERY * u32::try_from(number)?;
        tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
        let commit = broker.lane().commit(vec![append(&partition, batch)], Ack::Durable);
        let tell = tell.clone();
        waiting.push(tokio::spawn(async move {
            commit.await?;
            tell.send_if_modified(|last| {
                let is_later = (number + 1) * each > last.0;
                if is_later {
                    *last = ((number + 1) * each, Instant::now());
                }
                is_later
            });
            Ok::<_, broker::Error>(())
        }));
    }
    for one in waiting {
        one.await??;
    }
    Ok(batches * each)
}

/// Reads until nothing more is acknowledged; nanoseconds from each acknowledgement to its answer.
async fn read(engine: &engine::Engine, mut acknowledged: watch::Receiver<Acknowledged>) -> Outcome<Vec<u64>> {
    let mut delays_ns = Vec::new();
    while acknowledged.changed().await.is_ok() {
        let (events, at) = *acknowledged.borrow_and_update();
        let answer = engine.read(VIEW, ReadRequest { wait_ms: 30_000, ..ReadRequest::default() }).await?;
        delays_ns.push(u64::try_from(at.elapsed().as_nanos())?);
        let applied = answer.offsets.values().flat_map(|of| of.values()).sum::<i64>();
        if applied < i64::try_from(events)? {
            return Err(format!("{events} events were acknowledged, and the answer has {applied}").into());
        }
    }
    Ok(delays_ns)
}
