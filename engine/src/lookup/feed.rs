//! The loop of one table: read → decode → one commit of rows, offsets, refused records and counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::{Ack, Broker, Change, Family, PartitionIndex};

use super::record::RecordDecoder;
use super::rows::{RowChange, StoredRows};
use super::{Contents, LookupTable};
use crate::emit::refused_changes;
use crate::error::{EngineError, Result};
use crate::quality::{ACCEPTED, Counters, QualityAction, Tally, day_of};
use crate::shared::{PipelineShared, Published, SharedHold};
use crate::source::{Decode, Source};
use crate::state::{self, Position, Progress};

/// Longest wait before new partitions are looked for.
const TICK: Duration = Duration::from_secs(1);

/// One table's loop. Only its own thread changes it; after a crash it goes on from the stored progress.
pub(crate) struct TableFeed {
    pub(crate) number: usize,
    pub(crate) broker: Arc<Broker>,
    pub(crate) table: Arc<LookupTable>,
    pub(crate) source: Source,
    pub(crate) progress: Progress,
    pub(crate) published: Arc<Published>,
    pub(crate) shared: Arc<PipelineShared>,
    pub(crate) hold: Arc<SharedHold>,
    pub(crate) counters: Counters,
}

impl TableFeed {
    /// Runs until it is stopped or fails.
    pub(crate) async fn run(mut self) {
        let failed = self.run_steps().await.err();
        if let Some(error) = &failed {
            tracing::error!(table = self.table.name(), %error, "a table has stopped, fix the cause and start again");
        }
        self.shared.show_end(failed.map(|error| error.message), std::slice::from_ref(&self.published));
    }

    async fn run_steps(&mut self) -> Result<()> {
        self.source.follow_topic();
        self.hold_positions(&self.source.positions(&BTreeMap::new()));
        while !self.shared.is_stopping() {
            // A table is the only member of its feed.
            let leaves = self.shared.take_leaves();
            if !leaves.is_empty() {
                self.hold.release(self.number);
                return Ok(());
            }
            self.source.follow_topic();
            if self.source.is_replaced() {
                self.begin_again().await?;
            }
            self.source.read_ahead().await?;
            if self.source.has_work() {
                self.step().await?;
                continue;
            }
            let _ = tokio::time::timeout(TICK, self.source.waiter().woken()).await;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<()> {
        let table = self.table.clone();
        let Contents::Stored(_, rows) = &table.contents else {
            return Err(EngineError::bug("a table that is written out follows a topic"));
        };
        let mut decoder = RecordDecoder::new(&table);
        let positions = self.source.decode_step(&mut decoder)?;
        let records = decoder.records() as u64;
        let decoded = decoder.finish()?;
        let now_ms = self.broker.clock().now_ms();
        let mut tally = Tally::default();
        let days = decoded.timestamps.iter().map(|timestamp| day_of(Some(*timestamp), now_ms));
        tally.add_days(days, QualityAction::Accept, &ACCEPTED.into());
        tally.add_rejected(&decoded.rejected, now_ms);
        let mut changes = refused_changes(&self.broker, self.table.name(), &decoded.rejected, now_ms)?;
        for rejected in &decoded.rejected {
            self.progress.count_refused(&rejected.rule, rejected.records.unsigned_abs());
        }
        let newest: HashMap<Vec<u8>, Option<Vec<u8>>> = decoded.changes.into_iter().collect();
        let changed: Vec<RowChange> = newest.into_iter().collect();
        self.count_rows(rows, &changed)?;
        changes.extend(rows.changes(&changed));
        changes.extend(self.counters.changes(tally, self.broker.store())?);
        self.progress.positions = self.source.positions(&positions);
        self.progress.lost += self.source.take_lost();
        self.progress.updated_at = now_ms;
        changes.push(self.progress_change());
        self.broker.lane().commit(changes, self.shared.ack()).await?;
        rows.committed(changed);
        self.source.committed(&positions);
        self.hold_positions(&positions);
        self.shared.records.fetch_add(records, Ordering::Relaxed);
        self.published.publish(&self.progress, true);
        Ok(())
    }

    /// The topic was deleted and made again: the rows of the former one go.
    async fn begin_again(&mut self) -> Result<()> {
        let table = self.table.clone();
        let Contents::Stored(_, rows) = &table.contents else {
            return Err(EngineError::bug("a table that is written out follows a topic"));
        };
        tracing::info!(table = table.name(), "the topic is another one now, the table is read from it anew");
        self.progress.positions = self.source.positions(&BTreeMap::new());
        self.progress.applied = 0;
        let (from, to) = rows.range();
        let changes = vec![Change::DeleteRange(Family::State, from, to), self.progress_change()];
        self.broker.lane().commit(changes, Ack::Written).await?;
        rows.emptied();
        self.source.begun_again();
        self.hold_positions(&self.progress.positions);
        self.published.publish(&self.progress, true);
        Ok(())
    }

    fn progress_change(&self) -> Change {
        let progress = state::encode_table_progress(self.table.fingerprint(), &self.progress);
        Change::Put(Family::State, state::table_progress_key(self.table.name()), progress)
    }

    /// Keeps `applied` the number of rows in the table.
    fn count_rows(&mut self, rows: &StoredRows, changed: &[RowChange]) -> Result<()> {
        let keys: Vec<Vec<u8>> = changed.iter().map(|(key, _)| rows.store_key(key)).collect();
        let before = self.broker.store().get_many(Family::State, &keys)?;
        for ((_, after), before) in changed.iter().zip(before) {
            match (before.is_some(), after.is_some()) {
                (false, true) => self.progress.applied += 1,
                (true, false) => self.progress.applied = self.progress.applied.saturating_sub(1),
                _ => {}
            }
        }
        Ok(())
    }

    fn hold_positions(&self, positions: &BTreeMap<PartitionIndex, Position>) {
        self.hold.set_all(self.number, positions);
    }
}
