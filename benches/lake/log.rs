//! A broker of this process with one topic, and lakes over it. The engine stands still, so that the process does nothing beside the lake.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use broker::{Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, NewTopic, Origin, Partition};
use engine::Engine;
use lake::{Lake, LakeConfig, TableConfig};

use super::rows::{Encoding, TABLE, Writer, engine_config, time_ms};
use crate::Outcome;

/// Partitions of the topic.
pub const PARTITIONS: i32 = 4;
/// Records of a batch: what a librdkafka producer sends when it is busy.
const BATCH_RECORDS: usize = 1_000;
/// Batches under way at one time while the log is filled.
const COMMITS_UNDER_WAY: usize = 16;

/// The log.
pub struct Log {
    broker: Arc<Broker>,
    engine: Arc<Engine>,
    writer: Writer,
}

impl Log {
    /// A new log in a folder.
    ///
    /// # Errors
    /// The broker or the engine cannot be started.
    pub async fn open(folder: &Path, encoding: Encoding) -> Outcome<Self> {
        let config = BrokerConfig { data_dir: folder.to_owned(), ..BrokerConfig::default() };
        let broker = Broker::open(config, Clock::system()).await?;
        let kept = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        broker.catalog().create(NewTopic { name: TABLE.into(), partitions: PARTITIONS, config: kept }).await?;
        let engine = Engine::start(broker.clone(), engine_config(encoding)).await?;
        engine.stop().await;
        Ok(Self { broker, engine, writer: Writer::new(encoding)? })
    }

    fn partitions(&self) -> Outcome<Arc<[Arc<Partition>]>> {
        Ok(self.broker.catalog().topic(TABLE).ok_or("the topic is gone")?.partitions())
    }

    /// Appends the rows of these numbers of `of`, to the partitions batch by batch in turn.
    ///
    /// # Errors
    /// A commit fails.
    pub async fn fill(&self, numbers: Range<usize>, of: usize) -> Outcome<()> {
        let partitions = self.partitions()?;
        let mut under_way = VecDeque::new();
        for (turn, first) in numbers.clone().step_by(BATCH_RECORDS).enumerate() {
            let mut batch = BatchBuilder::new();
            for number in first..numbers.end.min(first + BATCH_RECORDS) {
                batch.push(time_ms(number, of), None, Some(&self.writer.value(number, of)?), &[]);
            }
            let batch = batch.build().ok_or("a batch without records")?;
            let partition = partitions[turn % partitions.len()].clone();
            let append = Change::Append(Append { partition, batch, origin: Origin::Internal });
            under_way.push_back(self.broker.lane().commit(vec![append], Ack::Durable));
            if under_way.len() > COMMITS_UNDER_WAY
                && let Some(oldest) = under_way.pop_front()
            {
                oldest.await?;
            }
        }
        for commit in under_way {
            commit.await?;
        }
        Ok(())
    }

    /// Bytes of the log.
    ///
    /// # Errors
    /// The topic is gone.
    pub fn bytes(&self) -> Outcome<u64> {
        Ok(self.partitions()?.iter().map(|partition| partition.bytes_total()).sum())
    }

    /// A lake that settles the topic like this.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn lake(&self, table: TableConfig) -> Outcome<Arc<Lake>> {
        let config = LakeConfig { tables: vec![table], ..LakeConfig::default() };
        Ok(Lake::start(self.broker.clone(), self.engine.clone(), config).await?)
    }

    /// Stops the broker.
    ///
    /// # Errors
    /// It had failed.
    pub async fn close(self) -> Outcome<()> {
        self.broker.stop().await?;
        Ok(())
    }
}

/// The table by its defaults, whose files are not merged: that would be measured, too.
pub fn settling() -> TableConfig {
    TableConfig { merge: None, ..TableConfig::of(TABLE) }
}

/// The same, settled when it is told to and not before.
pub fn settling_on_demand() -> TableConfig {
    let month_ms = 30 * super::rows::DAY_MS;
    TableConfig { flush_rows: 100_000_000, flush_bytes: 16 << 30, flush_age_ms: month_ms, ..settling() }
}
