//! Rows of the log that queries have decoded, for the next queries over them: a dashboard asks for the same live rows again and again,
//! and to decode them takes longer than to aggregate many times as many out of Parquet.
//!
//! A portion is what one read of the log gives, by the offset it begins at, encoded as a file would have it (`encoded`): so ten times as many
//! fit, and a live row costs a query what a settled one does. What lies below the last stable offset of a log never
//! changes, but for topics that are compacted, and of those nothing that is not settled is. Memory is bounded: where there is no
//! room nothing comes in, so that a scan of more than fits does not push out what it is about to read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{LogId, Offset};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::encoded::EncodedRows;
use crate::tables::Table;

/// What nobody asked for in this time makes room for others.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// So long nothing is encoded after something had no room, as each query would encode it again in vain.
const FULL_FOR: Duration = Duration::from_secs(5);

/// What is decoded of so many bytes of the log takes one byte, about: five to fifteen by topic.
const LOG_BYTES_PER_BYTE: u64 = 8;

/// Rows of the data records with offsets from some offset on to `next`.
#[derive(Clone, Debug)]
pub struct Portion {
    /// All columns of the table.
    pub rows: EncodedRows,
    /// The offset behind them.
    pub next: Offset,
    /// Bytes of the log that they were read from.
    pub log_bytes: u64,
}

/// Decoded rows. Holds: portions by where they begin; a table is kept as long as any of its, so that no other has its address
/// meanwhile. Only scans add to it. Nothing of it survives a restart.
#[derive(Debug)]
pub struct DecodedRows {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// The table's address, its partition's log, and the first offset.
type Place = (usize, LogId, Offset);

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    portions: BTreeMap<Place, Entry>,
    full_until: Option<Instant>,
}

struct Entry {
    _table: Arc<Table>,
    portion: Portion,
    bytes: usize,
    asked: Instant,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes to {}", self.bytes, self.portion.next)
    }
}

impl DecodedRows {
    /// None yet, and never more than `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// What was decoded of a log from `at` on.
    pub fn get(&self, table: &Arc<Table>, log: LogId, at: Offset) -> Option<Portion> {
        let mut kept = self.kept.lock();
        let entry = kept.portions.get_mut(&place(table, log, at))?;
        entry.asked = Instant::now();
        Some(entry.portion.clone())
    }

    /// Whether rows from so many bytes of the log are worth encoding, as there is likely to be room for them. A scan that begins at `first` has
    /// no use for what lies below: it is settled or deleted.
    pub fn makes_room(&self, table: &Arc<Table>, log: LogId, first: Offset, log_bytes: u64) -> bool {
        // what settles is not compacted before, any other table's log may be
        if table.settles.is_none() {
            return false;
        }
        let mut kept = self.kept.lock();
        kept.forget_below(place(table, log, first));
        if kept.full_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        kept.makes_room(usize::try_from(log_bytes / LOG_BYTES_PER_BYTE).unwrap_or(usize::MAX), self.bytes_max)
    }

    /// Keeps a portion that begins at `at`, if there is room.
    pub fn put(&self, table: &Arc<Table>, log: LogId, at: Offset, portion: Portion) {
        let bytes = portion.rows.bytes();
        let mut kept = self.kept.lock();
        if !kept.makes_room(bytes, self.bytes_max) {
            kept.full_until = Some(Instant::now() + FULL_FOR);
            return;
        }
        let entry = Entry { _table: table.clone(), portion, bytes, asked: Instant::now() };
        kept.bytes += bytes;
        if let Some(before) = kept.portions.insert(place(table, log, at), entry) {
            kept.bytes -= before.bytes;
        }
    }
}

fn place(table: &Arc<Table>, log: LogId, at: Offset) -> Place {
    (Arc::as_ptr(table).addr(), log, at)
}

impl Kept {
    /// Whether so many bytes fit in, after what nobody asks for is forgotten where that is needed.
    fn makes_room(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let fits = |kept: &Self| kept.bytes.saturating_add(bytes) <= bytes_max;
        if !fits(self) {
            self.forget_idle(Instant::now());
        }
        fits(self)
    }

    fn forget_below(&mut self, place: Place) {
        let (table, log, _) = place;
        while let Some((first, _)) = self.portions.range((table, log, Offset::MIN)..place).next() {
            let first = *first;
            self.bytes -= self.portions.remove(&first).map_or(0, |entry| entry.bytes);
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        self.portions.retain(|_, entry| now.duration_since(entry.asked) < IDLE_MAX);
        self.bytes = self.portions.values().map(|entry| entry.bytes).sum();
    }
}
