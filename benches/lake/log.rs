//! A broker of this process with one topic, and lakes over it. The engine stands still, so that the process does nothing beside the lake.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use broker::{BatchBuilder, Broker, BrokerConfig, Clock, NewTopic, Partition};
use engine::Engine;
use lake::{Lake, LakeConfig, TableConfig};

use super::rows::{Encoding, TABLE, Writer, engine_config, time_ms};
use crate::{Outcome, log};

/// Partitions of the topic.
pub const PARTITIONS: i32 = 4;

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
        log::fill(&self.broker, &self.partitions()?, numbers, |numbers| {
            let mut batch = BatchBuilder::new();
            for number in numbers {
                batch.push(time_ms(number, of), None, Some(&self.writer.value(number, of)?), &[]);
            }
            batch.build().ok_or_else(|| "a batch without records".into())
        })
        .await
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
