//! A view as its text declares it, and the rows that it did not count: what who computes it another way needs to know.
//! Nothing of how the engine keeps it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use broker::{Ack, Offset, Partition, PartitionIndex, Record};
use datafusion::sql::sqlparser::ast::Query;

use crate::check::{LATE_SUFFIX, REJECTED_SUFFIX};
use crate::emit::{LOG_HEADER, STATE_HEADER};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::ordered::order_by_event_time;
use crate::parse::parse_view;
use crate::stream::Stream;
use crate::unnest::ParsedUnnest;
use crate::window::Window;
use crate::windows::Windows;

/// Bytes of the recorded rows that are read at one time.
const READ_BYTES: usize = 1 << 20;
/// Most rows that are kept in mind as not counted.
const NOT_COUNTED_MAX: usize = 2_000_000;

/// A view as declared.
#[derive(Clone)]
pub struct DeclaredView {
    /// Its name.
    pub name: String,
    /// The stream it reads.
    pub stream: Arc<Stream>,
    /// Its query, with the column `window_start` in the place of the window; without a window it is grouped by one all the
    /// same. Aggregates to which the order of rows matters say it.
    pub query: Query,
    /// The list whose items are its rows; the query has a column for them.
    pub unnest: Option<DeclaredUnnest>,
    /// How event time is cut; None for a view without a window.
    pub windows: Option<DeclaredWindows>,
    /// window_start and window_end (when it has a window), keys, values.
    pub schema: SchemaRef,
    /// The names of its keys.
    pub keys: Vec<String>,
    /// How long after their end windows are kept, by the event watermark; None for ever.
    pub retention_ms: Option<i64>,
    /// The number of its state: another one for another definition.
    pub view_id: u32,
}

/// A list of each row that a view takes apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredUnnest {
    /// The list, over the stream's columns.
    pub list: String,
    /// The column that the query has for an item.
    pub item: &'static str,
    /// What the declaration calls an item.
    pub name: String,
}

/// How event time is cut, in the words of the declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclaredWindows {
    /// One after the other.
    Tumble(Window),
    /// One at each slide.
    Hop {
        /// From the start of one to that of the next.
        slide: Window,
        /// From the start to the end of one.
        size: Window,
    },
    /// Rows of one key that follow each other within so many milliseconds.
    Session(i64),
}

/// A row that its view did not count, or not in all windows, by its place in the stream's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCounted {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset.
    pub offset: Offset,
    /// The start of the first window that it counts in all the same, if it does.
    pub counted_from: Option<i64>,
}

impl Engine {
    /// A view as declared.
    ///
    /// # Errors
    /// `Unknown` view; `Bug` when its text cannot be read any more.
    pub fn declared_view(&self, name: &str) -> Result<DeclaredView> {
        let running = self.running();
        let view = running.view(name)?;
        let plan = &view.plan;
        let mut parsed = parse_view(&plan.sql).map_err(EngineError::bug)?;
        order_by_event_time(&mut parsed.query, plan.stream.event_time()).map_err(EngineError::bug)?;
        let windows = parsed.windowed.map(|windowed| match windowed.windows {
            Windows::Tumble(window) => DeclaredWindows::Tumble(window),
            Windows::Hop(hop) => DeclaredWindows::Hop { slide: hop.slide(), size: hop.size() },
            Windows::Session(gap_ms) => DeclaredWindows::Session(gap_ms),
        });
        Ok(DeclaredView {
            name: plan.name.to_string(),
            stream: plan.stream.clone(),
            query: parsed.query,
            unnest: parsed.unnest.map(ParsedUnnest::declared),
            windows,
            schema: plan.schema.clone(),
            keys: plan.keys.clone(),
            retention_ms: plan.retention_ms,
            view_id: view.view_id,
        })
    }

    /// The rows that a view has recorded as late or as not to be evaluated, each of them written by the time of the call, and
    /// whether these are all: the records of `<view>.late` and `<stream>.rejected` age like others.
    ///
    /// # Errors
    /// `TooLarge` beyond two million rows; `Storage`.
    pub async fn not_counted(&self, view: &DeclaredView) -> Result<(Vec<NotCounted>, bool)> {
        // A view's state can be read a moment before the late rows of the same commit.
        self.broker.lane().commit(Vec::new(), Ack::Durable).await?;
        let (mut rows, mut is_whole) = (Vec::new(), true);
        for topic in [format!("{}{LATE_SUFFIX}", view.name), format!("{}{REJECTED_SUFFIX}", view.stream.name())] {
            let Some(topic) = self.broker.catalog().topic(&topic) else { continue };
            for partition in topic.partitions().iter() {
                is_whole &= partition.log_start() == 0;
                self.add_not_counted(view, partition, &mut rows).await?;
            }
        }
        Ok((rows, is_whole))
    }

    async fn add_not_counted(
        &self,
        view: &DeclaredView,
        partition: &Arc<Partition>,
        rows: &mut Vec<NotCounted>,
    ) -> Result<()> {
        let source = self.broker.catalog().topic(view.stream.topic());
        let log_of = |index: PartitionIndex| source.as_ref()?.partition(index).map(|partition| partition.id().0);
        let (mut at, end) = (partition.log_start(), partition.last_stable_offset());
        while at < end {
            let batches = partition.read_committed(at, READ_BYTES).await?;
            let Some(last) = batches.last() else { break };
            at = last.next_offset();
            for batch in &batches {
                for record in batch.records()? {
                    let told = Told(&record?).not_counted(view);
                    rows.extend(
                        told.filter(|(row, log)| log.is_none() || *log == log_of(row.partition)).map(|(row, _)| row),
                    );
                }
            }
            if rows.len() > NOT_COUNTED_MAX {
                let message = format!(
                    "view {} has more than {NOT_COUNTED_MAX} late rows on record, which are kept in memory to leave them out",
                    view.name
                );
                return Err(EngineError::new(ErrorKind::TooLarge, message));
            }
        }
        Ok(())
    }
}

/// A record of a row that was not counted; its own headers stand before those that say so.
struct Told<'a>(&'a Record);

impl Told<'_> {
    /// The row, and the log it is in where that was told; None when it is another view's, or that of another state.
    fn not_counted(&self, view: &DeclaredView) -> Option<(NotCounted, Option<u32>)> {
        let is_late = self.text("view").is_some_and(|named| named == view.name) && self.text("window_start").is_some();
        let of_view = |rule: &str| rule.strip_prefix("view:") == Some(&*view.name);
        let has_failed = self.text("rule").is_some_and(of_view);
        if !is_late && !has_failed || self.number(STATE_HEADER).is_some_and(|state| state != i64::from(view.view_id)) {
            return None;
        }
        let partition = self.number("partition").and_then(|index| PartitionIndex::try_from(index).ok())?;
        let offset = self.number("offset").filter(|offset| *offset >= 0)?;
        // The record may have a header of this name of its own.
        let is_ours = self.place("counted_from") > self.place("window_start");
        let counted_from = self.number("counted_from").filter(|_| is_late && is_ours);
        let log = self.number(LOG_HEADER).and_then(|log| u32::try_from(log).ok());
        Some((NotCounted { partition, offset, counted_from }, log))
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.headers.iter().rposition(|(key, _)| key.as_ref() == name.as_bytes())
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = &self.0.headers[self.place(name)?];
        std::str::from_utf8(value.as_deref()?).ok()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}
