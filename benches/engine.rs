//! The engine alone: events per second and core for a one-minute tumbling count by key over JSON, records already in the
//! log. The count is compared with what was written before any figure is given.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use broker::{Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, NewTopic, Origin, Partition};
use engine::{ColumnConfig, EngineConfig, ReadRequest, StreamConfig, ViewConfig};

use crate::report::median;
use crate::settings::Settings;
use crate::{Outcome, machine};

/// Event time that the events spread over: 60 windows.
const SPAN_MS: i64 = 3_600_000;
/// Distinct keys: each window has them all.
const KEYS: u64 = 1_000;
/// Records of a batch: what a librdkafka producer sends when it is busy.
const BATCH_RECORDS: usize = 1_000;
/// Batches under way at one time while the log is filled.
const COMMITS_UNDER_WAY: usize = 16;
/// Most time of one round.
const ROUND_MAX: Duration = Duration::from_secs(300);
const TOPIC: &str = "plays";
const VIEW: &str = "plays_by_user_minute";

/// What one round gave.
#[derive(Debug)]
struct Round {
    /// Start of the engine to nothing left to apply.
    seconds: f64,
    /// CPU seconds of the engine's pipeline: decode, window, aggregate, merge, encode.
    engine_cpu: f64,
    /// CPU seconds of the process: reading the log, the commit lane and RocksDB's threads too.
    process_cpu: f64,
}

/// What the engine gave.
#[derive(Debug)]
pub struct Engine {
    events: usize,
    event_bytes: usize,
    partitions: i32,
    rounds: Vec<Round>,
}

/// Runs the half, each round on a new data directory.
///
/// # Errors
/// The engine fails, or counts wrong.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Engine> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut measured =
        Engine { events: settings.engine_events, event_bytes: event(0, 0).len(), partitions: 1, rounds: Vec::new() };
    for round in 0..settings.rounds {
        machine::flush_disks()?;
        let folder = scratch.join(format!("engine-{round}"));
        let figures = runtime.block_on(one_round(&measured, &folder))?;
        eprintln!("bench: engine round {round}: {figures:?}");
        measured.rounds.push(figures);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(measured)
}

async fn one_round(engine: &Engine, folder: &Path) -> Outcome<Round> {
    let config = BrokerConfig { data_dir: folder.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Clock::system()).await?;
    let topic = NewTopic { name: TOPIC.into(), partitions: engine.partitions, config: Default::default() };
    let topic = broker.catalog().create(topic).await?;
    fill(&broker, &topic.partitions(), engine.events).await?;
    let (started, before) = (Instant::now(), machine::own_cpu_seconds()?);
    let running = engine::Engine::start(broker.clone(), config_of_engine()).await?;
    let deadline = started + ROUND_MAX;
    loop {
        let status = running.status();
        let view = status.first().ok_or("the engine has no view")?;
        if let Some(error) = &view.error {
            return Err(format!("the view stopped: {error}").into());
        }
        if view.lag_records == 0 {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("{} records are left after {ROUND_MAX:?}", view.lag_records).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let process_cpu = machine::own_cpu_seconds()? - before;
    // the pipeline says how long it worked just after the step that made its commit
    tokio::time::sleep(Duration::from_millis(50)).await;
    let engine_cpu = running.busy_time().as_secs_f64();
    let answer = running.read(VIEW, ReadRequest { wait_ms: 10_000, ..ReadRequest::default() }).await?;
    let counted = answer.rows.iter().map(plays).sum::<Outcome<i64>>()?;
    if counted != i64::try_from(engine.events)? {
        return Err(format!("the view counts {counted} of {} events", engine.events).into());
    }
    running.stop().await;
    broker.stop().await?;
    Ok(Round { seconds, engine_cpu, process_cpu })
}

fn plays(rows: &RecordBatch) -> Outcome<i64> {
    let column = rows.column_by_name("plays").ok_or("the view has no column plays")?;
    let counts = column.as_primitive_opt::<Int64Type>().ok_or("plays is not BIGINT")?;
    Ok(counts.values().iter().sum())
}

/// Writes the events in order of event time, to the partitions batch by batch in turn.
async fn fill(broker: &Broker, partitions: &[Arc<Partition>], events: usize) -> Outcome<()> {
    let first_ms = broker.clock().now_ms() - SPAN_MS;
    let mut under_way = std::collections::VecDeque::new();
    let mut written = 0;
    while written < events {
        let mut batch = BatchBuilder::new();
        for number in written..events.min(written + BATCH_RECORDS) {
            let time_ms = first_ms + SPAN_MS * i64::try_from(number)? / i64::try_from(events)?;
            batch.push(time_ms, None, Some(event(number, time_ms).as_bytes()), &[]);
        }
        let partition = partitions[written / BATCH_RECORDS % partitions.len()].clone();
        let batch = batch.build().ok_or("a batch without records")?;
        let append = Change::Append(Append { partition, batch, origin: Origin::Internal });
        under_way.push_back(broker.lane().commit(vec![append], Ack::Durable));
        if under_way.len() > COMMITS_UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await?;
        }
        written += BATCH_RECORDS;
    }
    for commit in under_way {
        commit.await?;
    }
    Ok(())
}

/// An event as applications write them; the key is spread over the users without a pattern.
fn event(number: usize, time_ms: i64) -> String {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{{\"event\":\"listen\",\"user_id\":{},\"track_id\":\"track-{:06}\",\"genre\":\"{}\",\"duration_ms\":{},\"country\":\"SE\",\
         \"device\":\"phone\",\"ts\":{time_ms:013}}}",
        (mixed >> 40) % KEYS,
        (mixed >> 20) % 1_000_000,
        ["jazz", "rock", "folk", "soul"][number % 4],
        30_000 + (mixed >> 33) % 300_000,
    )
}

fn config_of_engine() -> EngineConfig {
    let columns = [
        ("user_id", "BIGINT"),
        ("event", "VARCHAR"),
        ("genre", "VARCHAR"),
        ("duration_ms", "BIGINT"),
        ("ts", "TIMESTAMP"),
    ];
    let column = |(name, sql_type): (&str, &str)| ColumnConfig {
        name: name.into(),
        sql_type: sql_type.into(),
        required: false,
        ..ColumnConfig::default()
    };
    let sql = format!(
        "CREATE MATERIALIZED VIEW {VIEW} AS SELECT user_id, count(*) AS plays FROM plays \
         GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), user_id"
    );
    EngineConfig {
        streams: vec![StreamConfig {
            name: "plays".into(),
            topic: TOPIC.into(),
            columns: columns.map(column).to_vec(),
            event_time: "ts".into(),
            ..StreamConfig::default()
        }],
        views: vec![ViewConfig { sql, source: "benches/engine.rs".into(), ..ViewConfig::default() }],
        ..EngineConfig::default()
    }
}

impl Engine {
    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        let over = |of: fn(&Round) -> f64| median(&mut self.rounds.iter().map(of).collect::<Vec<_>>());
        let per = |seconds: f64| format!("{:.0}", self.events as f64 / seconds);
        let Self { events, event_bytes, partitions, .. } = self;
        writeln!(text, "## Engine\n")?;
        writeln!(
            text,
            "`SELECT user_id, count(*) … GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), user_id` over {events} JSON events of about \
             {event_bytes} B (8 fields, 5 of them columns), {KEYS} users, 60 windows, {partitions} partition, in the log before \
             the engine starts, in event-time order; every step is committed with fsync and emitted to the view's topic.\n"
        )?;
        writeln!(text, "| | events/s |\n|---|---|")?;
        writeln!(text, "| per core, CPU of the engine's thread alone | {} |", per(over(|round| round.engine_cpu)))?;
        writeln!(text, "| per core, CPU of the whole process | {} |", per(over(|round| round.process_cpu)))?;
        writeln!(text, "| by the clock, start to nothing left | {} |\n", per(over(|round| round.seconds)))?;
        Ok(())
    }
}
