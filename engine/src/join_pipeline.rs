//! The loop of one joined stream: read either stream → decode → whom do the rows meet → one commit of what comes of them, rows that
//! wait, and the positions in both streams.
//!
//! It reads both topics by itself, all partitions of either, so that rows meet wherever they lie: keys and numbers of partitions need
//! not agree; what has left a log is read from the history first (`fill`). Of two streams that have something to read the one that is behind in event time is next, so that few rows wait. The
//! event watermark is the least of all partitions of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use broker::{Broker, PartitionIndex, TimestampMs};

use crate::decode::{Decoder, Sources};
use crate::derive::{JoinMember, Part, PartOf, Reached, Side};
use crate::error::Result;
use crate::fill::{Ahead, Fill};
use crate::follow::Follower;
use crate::pipeline::{TABLES_WAIT_MS, ThreadCpu, advance_event_times, tick};
use crate::quality;
use crate::shared::{PipelineShared, Published, SharedHold};
use crate::source::{Decode, Source};
use crate::state::Position;
use crate::stream::Stream;
use crate::watermark::event_watermark;
use crate::window::closed_until;

/// One joined stream's loop. Only its own thread changes it; after a crash it goes on from the stored progresses.
pub(crate) struct JoinPipeline {
    pub(crate) broker: Arc<Broker>,
    pub(crate) join: JoinMember,
    /// Left and right.
    pub(crate) sources: [Source; 2],
    /// What reads of either that has left the log.
    pub(crate) fills: [Option<Fill>; 2],
    /// The numbers under which their logs are held.
    pub(crate) numbers: [usize; 2],
    /// The tables that rows which met are joined to: at the start they are read first.
    pub(crate) tables: Vec<Follower>,
    pub(crate) shared: Arc<PipelineShared>,
    pub(crate) hold: Arc<SharedHold>,
}

type Positions = BTreeMap<PartitionIndex, Position>;

impl JoinPipeline {
    /// Runs until it is stopped or fails.
    pub(crate) async fn run(mut self) {
        let mut cpu = ThreadCpu::new();
        let failed = self.run_steps(&mut cpu).await.err();
        if let Some(error) = &failed {
            tracing::error!(stream = self.name(), %error, "a joined stream has stopped, fix the cause and start again");
        }
        for fill in self.fills.iter_mut().flatten() {
            fill.give_up().await;
        }
        self.tell_busy(&mut cpu);
        self.shared.show_end(failed.map(|error| error.message), &self.published());
    }

    /// The name of the joined stream.
    pub(crate) fn name(&self) -> &str {
        self.join.member.plan.stream.name()
    }

    /// What others see of it: its progress in either stream.
    pub(crate) fn published(&self) -> Vec<Arc<Published>> {
        vec![self.join.member.published.clone(), self.join.right_published.clone()]
    }

    async fn run_steps(&mut self, cpu: &mut ThreadCpu) -> Result<()> {
        self.follow_topics().await?;
        for side in Side::BOTH {
            self.hold.set_all(self.numbers[side as usize], &self.sources[side as usize].positions(&Positions::new()));
        }
        self.wait_for_tables().await;
        // A crash may have come between a commit and what was left to tell.
        self.commit(self.join.nothing(), (Side::Left, Positions::new()), None).await?;
        while !self.shared.is_stopping() {
            // A joined stream is the only member of its pipeline.
            let leaves = self.shared.take_leaves();
            if !leaves.is_empty() {
                self.numbers.iter().for_each(|number| self.hold.release(*number));
                return Ok(());
            }
            self.follow_topics().await?;
            if !self.look_back().await {
                continue;
            }
            for source in &mut self.sources {
                source.read_ahead().await?;
            }
            match self.next_side() {
                Some(side) => self.step(side).await?,
                None => {
                    self.close_idle().await?;
                    let tick = tick(self.join.member.plan.stream.config().idle_timeout_ms);
                    let _ = tokio::time::timeout(tick, self.sources[0].waiter().woken()).await;
                }
            }
            self.tell_busy(cpu);
        }
        Ok(())
    }

    /// CPU time of its own thread, and of those beside it.
    fn tell_busy(&self, cpu: &mut ThreadCpu) {
        let beside_ns: u64 = self.fills.iter().flatten().map(|fill| fill.busy_ns).sum();
        self.shared.busy_ns.store(cpu.busy_ns() + beside_ns, Ordering::Relaxed);
    }

    /// Reads ahead what has left either log; whether nothing keeps it from being read.
    async fn look_back(&mut self) -> bool {
        for side in Side::BOTH {
            let stream = self.join.join().stream(side).clone();
            let Some(fill) = &mut self.fills[side as usize] else { continue };
            let ahead = fill.look(&mut self.sources[side as usize], &stream, &self.shared).await;
            if matches!(ahead, Ahead::Wait(..)) {
                return false;
            }
        }
        true
    }

    /// Opens new partitions. Where a topic was deleted and made again, what waits of the former one goes.
    async fn follow_topics(&mut self) -> Result<()> {
        for side in Side::BOTH {
            let source = &mut self.sources[side as usize];
            source.follow_topic();
            if !source.is_replaced() {
                continue;
            }
            let positions = source.positions(&Positions::new());
            let stream = self.name();
            tracing::info!(stream, "a topic is another one now, rows that wait of the former one are forgotten");
            let changes = self.join.begin_again(side, positions.clone());
            self.broker.lane().commit(changes, self.shared.ack()).await?;
            self.sources[side as usize].begun_again();
            self.hold.set_all(self.numbers[side as usize], &positions);
            self.join.publish();
        }
        Ok(())
    }

    /// What is in the tables' topics at the start is in the tables before the first row is joined to them.
    async fn wait_for_tables(&mut self) {
        for table in &self.tables.clone() {
            if self.shared.is_stopping() {
                return;
            }
            if let Err(error) = table.wait(&self.broker, TABLES_WAIT_MS).await {
                tracing::warn!(stream = self.name(), %error, "a joined stream goes on before a table it joins was read");
            }
        }
    }

    /// The side to read next, if there is something to read.
    fn next_side(&self) -> Option<Side> {
        let ahead = Side::BOTH.map(|side| {
            let (source, fill) = (&self.sources[side as usize], &self.fills[side as usize]);
            let kept = fill.as_ref().and_then(|fill| fill.least_time_ahead(source));
            kept.into_iter().chain(source.least_time_ahead()).min()
        });
        match ahead {
            [None, None] => None,
            [Some(_), None] => Some(Side::Left),
            [None, Some(_)] => Some(Side::Right),
            [Some(left), Some(right)] => Some(if left <= right { Side::Left } else { Side::Right }),
        }
    }

    async fn step(&mut self, side: Side) -> Result<()> {
        let stream = self.join.join().stream(side).clone();
        let source = &mut self.sources[side as usize];
        let kept = self.fills[side as usize].as_mut().filter(|fill| fill.has_rows());
        // What is refused here was recorded by the stream's own pipeline.
        let ((decoded, sources), positions, records) = match kept {
            Some(fill) => {
                let (read, positions) = fill.step(source, &stream)?;
                let records = read.0.rows.num_rows() as u64;
                (read, positions, records)
            }
            None => {
                let mut decoder = Decoder::new(&stream);
                let positions = source.decode_step(&mut decoder)?;
                let records = decoder.records() as u64;
                (decoder.finish_with_sources()?, positions, records)
            }
        };
        let (rows, now_ms) = (decoded.rows, self.broker.clock().now_ms());
        let days = quality::days(&rows, now_ms);
        let mut from = 0;
        loop {
            let part = self.join.take(PartOf { side, rows: &rows, from }, self.broker.store())?;
            from = part.range.end;
            let mut after = before_row(&positions, &rows, from);
            advance_event_times(&stream, &rows.slice(0, from), &mut after, now_ms);
            self.commit(part, (side, after), Some((&sources, &days))).await?;
            if from >= rows.num_rows() || self.shared.is_stopping() {
                break;
            }
        }
        self.shared.records.fetch_add(records, Ordering::Relaxed);
        Ok(())
    }

    /// One commit of a part, and as many more as it takes to tell all rows that are to be told alone.
    async fn commit(
        &mut self,
        part: Part,
        (side, positions): (Side, Positions),
        read: Option<(&Sources, &[i32])>,
    ) -> Result<()> {
        let reached = self.reached(side, &positions);
        let mut done = self.join.finish(part, reached, read, &self.broker).await?;
        self.broker.lane().commit(done.changes, self.shared.ack()).await?;
        self.sources[side as usize].committed(&positions);
        self.hold.set_all(self.numbers[side as usize], &positions);
        self.join.committed(done.step);
        while !done.is_all {
            let reached = self.reached(side, &Positions::new());
            done = self.join.finish(self.join.nothing(), reached, None, &self.broker).await?;
            self.broker.lane().commit(done.changes, self.shared.ack()).await?;
            self.join.committed(done.step);
        }
        Ok(())
    }

    /// On quiet streams: what the idle timeout lets go is told and forgotten.
    async fn close_idle(&mut self) -> Result<()> {
        let moved = self.event_watermark(Side::Left, &Positions::new(), self.broker.clock().now_ms());
        if moved == self.join.member.progress.event_watermark {
            return Ok(());
        }
        self.commit(self.join.nothing(), (Side::Left, Positions::new()), None).await
    }

    fn event_watermark(&self, side: Side, changed: &Positions, now_ms: TimestampMs) -> Option<TimestampMs> {
        let mut times = self.sources[side as usize].times(changed);
        times.extend(self.sources[side.other() as usize].times(&Positions::new()));
        let progress = &self.join.member.progress;
        let idle_timeout_ms = self.join.member.plan.stream.config().idle_timeout_ms;
        event_watermark(progress.event_watermark, &times, now_ms, idle_timeout_ms)
    }

    /// Where both streams stand with changed positions of one laid over.
    fn reached(&mut self, side: Side, changed: &Positions) -> Reached {
        let now_ms = self.broker.clock().now_ms();
        let event_watermark = self.event_watermark(side, changed, now_ms);
        let before = self.join.member.progress.closed_until;
        let nothing = Positions::new();
        Reached {
            positions: Side::BOTH
                .map(|of| self.sources[of as usize].positions(if of == side { changed } else { &nothing })),
            event_watermark,
            closed_until: closed_until(before, event_watermark, self.join.member.plan.lateness_ms),
            lost: self.sources.each_mut().map(Source::take_lost),
            now_ms,
        }
    }
}

/// The positions before a row of a step: what follows of a partition is still to be done.
fn before_row(positions: &Positions, rows: &RecordBatch, from: usize) -> Positions {
    let (partitions, offsets) = Stream::places(rows);
    let mut after = positions.clone();
    let mut seen = BTreeSet::new();
    for row in from..rows.num_rows() {
        if seen.insert(partitions[row])
            && let Some(position) = after.get_mut(&partitions[row])
        {
            position.next_offset = offsets[row];
        }
    }
    after
}
