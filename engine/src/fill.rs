//! Filling views and derived streams from rows whose records have left the log: read from the history in steps as large as those from
//! the log, each one commit, until every partition stands where its log begins. From there on the log is read, so the boundary is read
//! once. While steps are computed, the window after is read on another thread.
//!
//! A row that was kept has passed the checks that there were then; those that there are now are asked again. What is refused
//! is left out: the stream's own pipeline has recorded what it refused. A row that comes too late for a window, or that a view
//! or a derived stream cannot evaluate, is handed on as a record again, made of the columns that were read.
//!
//! Tables have no part in this: a compacted log keeps the newest record of each key, and files of a stream's rows do not say which keys
//! were deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use broker::{BatchBuilder, LogId, Offset, Partition, PartitionIndex, RecordRef};

use crate::beside::Beside;
use crate::decode::Sources;
use crate::error::{EngineError, Result};
use crate::history::{Found, History, HistorySlot, Wanted};
use crate::json_lines::{json_lines, lines};
use crate::pipeline::Pipeline;
use crate::quality::timestamps;
use crate::shared::PipelineShared;
use crate::source::{STEP_RECORDS, Source};
use crate::state::Position;
use crate::stream::{Decoded, META_COLUMNS, Stream};

/// Memory for rows that are read ahead, over all partitions: one window of each, and the one after it, which is read while steps are
/// computed over the first.
const AHEAD_BYTES: usize = 32 << 20;
const WINDOWS: usize = 2;
/// The least of it for one partition.
const PARTITION_BYTES_MIN: usize = 1 << 20;
/// Rows of one partition before it is the next one's turn.
const TURN_ROWS: usize = 8_192;
/// Records that are made again at a time.
const REMADE_ROWS: usize = 1_024;
/// How soon is asked again who does not know the stream yet.
const SOON: Duration = Duration::from_millis(50);
/// How soon is tried again what failed.
const LATER: Duration = Duration::from_secs(1);
/// Header of a record that was made of kept columns.
const REMADE_HEADER: &[u8] = b"made_of";
const REMADE_OF: &[u8] = b"columns";

/// The history's reading end of a pipeline of views and derived streams. Holds: rows read ahead, and those that are being read. Only its pipeline changes it; a crash loses
/// nothing, as positions are in the commits of the steps.
pub(crate) struct Fill {
    slot: Arc<HistorySlot>,
    /// The columns that are read: `_offset` is the last.
    schema: SchemaRef,
    /// All columns of the stream, those that are not read as nulls.
    whole: SchemaRef,
    /// For each column of the stream its place in what is read.
    places: Vec<Option<usize>>,
    /// Whether nothing was read before: where nothing is kept, such members begin with the log, and lack nothing.
    is_new: bool,
    ahead: BTreeMap<PartitionIndex, Kept>,
    coming: BTreeMap<PartitionIndex, Coming>,
    told: Told,
    /// CPU time of what was read beside the pipeline.
    pub(crate) busy_ns: u64,
}

/// Rows of one partition that are read ahead.
struct Kept {
    log: LogId,
    rows: RecordBatch,
    next: Offset,
}

/// What is being read of one partition beside the pipeline, from an offset on.
struct Coming {
    log: LogId,
    from: Offset,
    read: Beside<Result<Found>>,
}

/// What was logged, so that it is logged once.
#[derive(Default)]
struct Told {
    /// Rows since the fill began.
    rows: u64,
    /// Offsets that were nowhere.
    gone: u64,
    trouble: bool,
}

/// Whether there is something to take a step over.
pub(crate) enum Ahead {
    Rows,
    Nothing,
    /// Not yet: why, and how soon to look again.
    Wait(String, Duration),
}

/// What is read of the history: all members of a pipeline together.
pub(crate) struct Reads<'a> {
    pub(crate) stream: &'a Stream,
    /// Whether a member looks at the stream's column of this index.
    pub(crate) uses: &'a dyn Fn(usize) -> bool,
    /// Whether nothing was read before.
    pub(crate) is_new: bool,
}

impl Fill {
    pub(crate) fn new(slot: Arc<HistorySlot>, Reads { stream, uses, is_new }: Reads<'_>) -> Fill {
        let all = stream.schema();
        let declared = all.fields().len() - META_COLUMNS.len();
        let is_read = |index: usize| {
            let of_all = index >= declared || !all.field(index).is_nullable();
            of_all || stream.conditions().uses(index) || uses(index)
        };
        let nullable = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), true);
        let whole: Vec<Field> = all.fields().iter().map(nullable).collect();
        let (mut places, mut read) = (Vec::new(), Vec::new());
        for (index, field) in whole.iter().enumerate() {
            places.push(is_read(index).then_some(read.len()));
            read.extend(is_read(index).then(|| field.clone()));
        }
        let (schema, whole) = (Arc::new(Schema::new(read)), Arc::new(Schema::new(whole)));
        let (ahead, coming) = (BTreeMap::new(), BTreeMap::new());
        Fill { slot, schema, whole, places, is_new, ahead, coming, told: Told::default(), busy_ns: 0 }
    }

    /// Whether there are rows for a step. Where they cannot be read yet it says why, and waits a moment.
    pub(crate) async fn look(&mut self, source: &mut Source, stream: &Stream, shared: &PipelineShared) -> Ahead {
        let ahead = self.read_ahead(source, stream).await;
        if let Ahead::Wait(why, again) = &ahead {
            *shared.waits_for.lock() = Some(why.clone());
            let until = tokio::time::Instant::now() + *again;
            while tokio::time::Instant::now() < until && !shared.is_stopping() {
                tokio::time::sleep(SOON).await;
            }
        } else {
            *shared.waits_for.lock() = None;
        }
        ahead
    }

    /// The rows of a step and the positions behind them; what follows is read on meanwhile.
    #[allow(clippy::type_complexity, reason = "rows, where they were written, and positions")]
    pub(crate) fn step(
        &mut self,
        source: &mut Source,
        stream: &Stream,
    ) -> Result<((Decoded, Sources), BTreeMap<PartitionIndex, Position>)> {
        self.read_on(source, stream);
        let (parts, next) = self.take();
        let read = self.decode(stream, &parts)?;
        Ok((read, source.positions_at(&next)))
    }

    /// Whether rows are ahead.
    pub(crate) fn has_rows(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The least event time that a partition with rows ahead stands at; None without any.
    pub(crate) fn least_time_ahead(&self, source: &Source) -> Option<i64> {
        self.ahead.keys().map(|index| source.event_time_at(*index).unwrap_or(i64::MIN)).min()
    }

    /// Reads ahead in every partition that is behind its log and has nothing ahead.
    async fn read_ahead(&mut self, source: &mut Source, stream: &Stream) -> Ahead {
        let behind = source.behind();
        let is_behind = |index: &PartitionIndex, log: LogId| {
            behind.iter().any(|partition| partition.index() == *index && partition.id() == log)
        };
        self.ahead.retain(|index, kept| is_behind(index, kept.log));
        self.coming.retain(|index, coming| is_behind(index, coming.log));
        if behind.is_empty() {
            self.tell_end(stream);
            return Ahead::Nothing;
        }
        let bytes_max = bytes_max(behind.len());
        for partition in &behind {
            if let Some((why, again)) = self.read_partition(source, (stream, partition), bytes_max).await {
                return Ahead::Wait(why, again);
            }
        }
        if self.ahead.is_empty() { Ahead::Nothing } else { Ahead::Rows }
    }

    /// Begins to read what follows the rows that are ahead, while steps over them are computed.
    fn read_on(&mut self, source: &Source, stream: &Stream) {
        let Some(history) = self.slot.get() else { return };
        let behind = source.behind();
        for partition in &behind {
            let index = partition.index();
            let (Some(kept), Some((_, to))) = (self.ahead.get(&index), source.left(index)) else { continue };
            let (log, from) = (kept.log, kept.next);
            if from < to && !self.coming.contains_key(&index) {
                let wanted = self.wanted((stream, partition), (from, to), bytes_max(behind.len()));
                let history = history.clone();
                let read = Beside::begin(async move { history.read(wanted).await });
                self.coming.insert(index, Coming { log, from, read });
            }
        }
    }

    /// Waits for what is being read, which must not be left behind when log and files are closed.
    pub(crate) async fn give_up(&mut self) {
        for coming in std::mem::take(&mut self.coming).into_values() {
            let _ = coming.read.end().await;
        }
    }

    /// What the history has from an offset on: what was begun to be read of it, or what it gives now.
    async fn find(&mut self, history: &dyn History, wanted: Wanted) -> Result<Found> {
        let (index, log, from) = (wanted.partition.index(), wanted.partition.id(), wanted.range.0);
        match self.coming.remove(&index).filter(|coming| (coming.log, coming.from) == (log, from)) {
            Some(coming) => {
                let (found, busy_ns) = coming.read.end().await?;
                self.busy_ns += busy_ns;
                found
            }
            None => history.read(wanted).await,
        }
    }

    fn wanted(
        &self,
        (stream, partition): (&Stream, &Arc<Partition>),
        range: (Offset, Offset),
        bytes_max: usize,
    ) -> Wanted {
        let (stream, partition, schema) = (stream.name().to_string(), partition.clone(), self.schema.clone());
        Wanted { stream, partition, range, schema, bytes_max }
    }

    /// Reads until rows of the partition are ahead or it has reached its log; gives why it has to wait, if it has.
    async fn read_partition(
        &mut self,
        source: &mut Source,
        (stream, partition): (&Stream, &Arc<Partition>),
        bytes_max: usize,
    ) -> Option<(String, Duration)> {
        let index = partition.index();
        while !self.ahead.contains_key(&index)
            && let Some((from, to)) = source.left(index)
        {
            let Some(history) = self.slot.get() else { return Some(("the lake is being opened".into(), SOON)) };
            let wanted = self.wanted((stream, partition), (from, to), bytes_max);
            match self.find(&*history, wanted).await {
                Ok(Found::NotYet) => return Some(("the lake is told of the stream".into(), SOON)),
                Ok(Found::Nothing) => {
                    let skipped = source.skip(index, to);
                    self.lose(source, if self.is_new { 0 } else { skipped });
                }
                Ok(Found::Gap { next }) => {
                    let skipped = source.skip(index, next.min(to));
                    self.lose(source, skipped);
                }
                Ok(Found::Rows { rows, next }) => {
                    self.told.trouble = false;
                    self.ahead.insert(index, Kept { log: partition.id(), rows, next });
                }
                Err(error) => {
                    self.tell_trouble(stream, &error);
                    return Some((error.message, LATER));
                }
            }
        }
        None
    }

    fn lose(&mut self, source: &mut Source, offsets: u64) {
        source.lose(offsets);
        self.told.gone += offsets;
    }

    fn tell_trouble(&mut self, stream: &Stream, error: &EngineError) {
        if !std::mem::replace(&mut self.told.trouble, true) {
            tracing::warn!(stream = stream.name(), %error, "kept rows cannot be read now, it is tried again");
        }
    }

    fn tell_end(&mut self, stream: &Stream) {
        let Told { rows, gone, .. } = std::mem::take(&mut self.told);
        if rows > 0 {
            tracing::info!(stream = stream.name(), rows, "what had left the log has been read");
        }
        if gone > 0 {
            tracing::warn!(
                stream = stream.name(),
                offsets = gone,
                "views or streams lack offsets that are neither in the log nor kept"
            );
        }
    }

    /// The rows of a step, of each partition in turn, and the offset behind those of each.
    fn take(&mut self) -> (Vec<RecordBatch>, BTreeMap<PartitionIndex, Offset>) {
        let (mut parts, mut next) = (Vec::new(), BTreeMap::new());
        let mut room = STEP_RECORDS;
        let mut has_all = true;
        // One that is at its end is read on before the others go further.
        while has_all && room > 0 && !self.ahead.is_empty() {
            for (index, kept) in &mut self.ahead {
                let count = kept.rows.num_rows().min(TURN_ROWS).min(room);
                let part = kept.rows.slice(0, count);
                kept.rows = kept.rows.slice(count, kept.rows.num_rows() - count);
                room -= count;
                let is_end = kept.rows.num_rows() == 0;
                next.extend(end_of(&part).filter(|_| !is_end).or(is_end.then_some(kept.next)).map(|end| (*index, end)));
                has_all &= !is_end;
                parts.push(part);
            }
            self.ahead.retain(|_, kept| kept.rows.num_rows() > 0);
        }
        self.told.rows += parts.iter().map(|part| part.num_rows() as u64).sum::<u64>();
        (parts, next)
    }

    /// What of these rows the stream has, as if it was decoded.
    fn decode(&self, stream: &Stream, parts: &[RecordBatch]) -> Result<(Decoded, Sources)> {
        let read = concat_batches(&self.schema, parts)?;
        let column = |(field, place): (&Arc<Field>, &Option<usize>)| match place {
            Some(at) => read.column(*at).clone(),
            None => new_null_array(field.data_type(), read.num_rows()),
        };
        let columns: Vec<ArrayRef> = self.whole.fields().iter().zip(&self.places).map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.whole.clone(), columns, &options)?;
        let rows = stream.conditions().judge(complete(stream, rows)?)?.rows;
        let known: Vec<usize> = (0..self.places.len()).filter(|index| self.places[*index].is_some()).collect();
        let sources = Sources::kept(rows.project(&known)?);
        Ok((Decoded { rows, rejected: Vec::new(), warned: Vec::new() }, sources))
    }
}

/// Memory for a window of one of so many partitions.
fn bytes_max(partitions: usize) -> usize {
    (AHEAD_BYTES / WINDOWS / partitions.max(1)).max(PARTITION_BYTES_MIN)
}

/// The offset behind the last of these rows.
fn end_of(rows: &RecordBatch) -> Option<Offset> {
    let offsets = rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>().values();
    offsets.last().map(|last| last + 1)
}

/// The rows that have all that is required now and are not too far ahead of their timestamps.
fn complete(stream: &Stream, rows: RecordBatch) -> Result<RecordBatch> {
    let mut good = vec![true; rows.num_rows()];
    for (column, field) in rows.columns().iter().zip(stream.schema().fields()) {
        if !field.is_nullable() && column.null_count() > 0 {
            good.iter_mut().enumerate().for_each(|(row, good)| *good &= column.is_valid(row));
        }
    }
    let (times, max_ahead_ms) = (stream.event_times(&rows), stream.config().max_ahead_ms);
    if let Some(stamped) = timestamps(&rows) {
        for (row, good) in good.iter_mut().enumerate().filter(|(row, _)| stamped.is_valid(*row)) {
            *good &= times.value(row) <= stamped.value(row).saturating_add(max_ahead_ms);
        }
    }
    match good.iter().all(|good| *good) {
        true => Ok(rows),
        false => Ok(filter_record_batch(&rows, &BooleanArray::from(good))?),
    }
}

/// Makes records again of the given rows (ascending): key and timestamp as they were, the columns as JSON.
pub(crate) fn visit_kept(
    rows: &RecordBatch,
    which: &[usize],
    mut visit: impl FnMut(usize, PartitionIndex, &RecordRef<'_>) -> Result<()>,
) -> Result<()> {
    let declared = rows.num_columns() - META_COLUMNS.len();
    for part in which.chunks(REMADE_ROWS) {
        let places = UInt32Array::from_iter_values(part.iter().filter_map(|row| u32::try_from(*row).ok()));
        let taken = take_record_batch(rows, &places)?;
        let values = json_lines(&taken.project(&(0..declared).collect::<Vec<usize>>())?)?;
        let keys = taken.column(declared).as_binary::<i32>();
        let times = taken.column(declared + 1).as_primitive::<TimestampMillisecondType>();
        let partitions = taken.column(declared + 2).as_primitive::<Int32Type>();
        let offsets = taken.column(declared + 3).as_primitive::<Int64Type>();
        let mut builder = BatchBuilder::new();
        for (at, value) in lines(&values).enumerate() {
            let timestamp = if times.is_valid(at) { times.value(at) } else { -1 };
            let key = keys.is_valid(at).then(|| keys.value(at));
            builder.push(timestamp, key, Some(value), &[(REMADE_HEADER, Some(REMADE_OF))]);
        }
        let Some(batch) = builder.build() else { continue };
        let mut records = batch.records()?;
        for (at, row) in part.iter().enumerate() {
            let Some(record) = records.next_ref() else { break };
            let mut record = record?;
            record.offset = offsets.value(at);
            visit(*row, partitions.value(at), &record)?;
        }
    }
    Ok(())
}

impl Pipeline {
    /// A step over rows that have left the log, as long as there are such. Whether there was anything to do.
    pub(crate) async fn fill(&mut self) -> Result<bool> {
        let Some(fill) = &mut self.fill else { return Ok(false) };
        match fill.look(&mut self.source, &self.stream, &self.shared).await {
            Ahead::Nothing => return Ok(false),
            Ahead::Wait(..) => return Ok(true),
            Ahead::Rows => {}
        }
        let (read, positions) = fill.step(&mut self.source, &self.stream)?;
        self.take(read, positions).await?;
        Ok(true)
    }
}
