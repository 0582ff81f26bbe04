//! Checking a store that no server works on: every rule that it shall keep, read from its bytes alone.
//!
//! `topics` says which logs there are and what no topic has; `partition` walks over one log's batches and index together
//! (`walk` past what cannot be read, `line` the rules between batches, `producers` and `transactions` what is known of who wrote them);
//! `groups`, `coordinator` and `meta` are about all logs. The engine and the lake check what is theirs with the same [`Check`].
//! Nothing is written, but by [`remove_orphans`]. Memory is bounded: batches are looked at one by one, findings beyond a number are counted only.

mod coordinator;
mod finding;
mod groups;
mod line;
mod meta;
mod partition;
mod producers;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;
mod walk;

use std::collections::{BTreeMap, HashMap};

pub use finding::{Finding, Findings, Kind, Place, Remedy, Weight};
pub use topics::remove_orphans;

use crate::store::{DamagedLog, Family, ReadOnly, Scan, Store};
use crate::types::{LogId, Offset, PartitionIndex, TopicId, TopicName};

const UNREADABLE: Kind = Kind::wrong("store unreadable", Remedy::Restore);
const LOG_DAMAGED: Kind = Kind::wrong("write-ahead log damaged", Remedy::Restore);
/// A power cut may leave a log without syncs so.
const LOG_TORN: Kind = Kind::note("write-ahead log torn", Remedy::CheckDisk);
const REFUSED: Kind = Kind::wrong("store refused", Remedy::Restore);
/// Bytes after which it is told how far the check is.
const TOLD_EVERY_BYTES: u64 = 64 << 20;

/// One check. Holds: the store, what was found, and how much was read.
pub struct Check<'s> {
    /// The store.
    pub store: &'s Store,
    /// What was found so far.
    pub findings: Findings,
    /// What was looked at so far.
    pub figures: Figures,
    tell: &'s dyn Fn(&Figures),
    told_bytes: u64,
}

/// What a check looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Topics.
    pub topics: u64,
    /// Partitions.
    pub partitions: u64,
    /// Record batches.
    pub batches: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// What a log has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionIndex,
    /// Its first offset.
    pub start: Offset,
    /// The offset behind its last.
    pub end: Offset,
}

/// The logs of a store.
#[derive(Debug, Default)]
pub struct Logs {
    spans: BTreeMap<LogId, Span>,
    topics: HashMap<TopicId, Vec<LogId>>,
}

impl Logs {
    /// What a log has; none where no topic has it.
    pub fn span(&self, log: LogId) -> Option<&Span> {
        self.spans.get(&log)
    }

    /// The logs of a topic by partition; none when there is no such topic.
    pub fn of_topic(&self, topic: TopicId) -> Option<&[LogId]> {
        self.topics.get(&topic).map(Vec::as_slice)
    }
}

impl<'s> Check<'s> {
    /// Begins. Of each kind of finding `per_kind` are kept; `tell` is called now and then with what was read.
    pub fn new(store: &'s Store, per_kind: usize, tell: &'s dyn Fn(&Figures)) -> Self {
        Self { store, findings: Findings::new(per_kind), figures: Figures::default(), tell, told_bytes: 0 }
    }

    /// Checks what the broker stores in the store that this is a check of; says which logs there are.
    pub fn broker(&mut self, opened: &ReadOnly) -> Logs {
        if let Some(why) = &opened.refused {
            self.add(REFUSED, Place::default(), format!("a server cannot open the store: {why}"));
        }
        self.write_ahead_log(opened);
        let mut logs = topics::check(self);
        partition::check_all(self, &mut logs);
        topics::check_orphans(self, &logs);
        coordinator::check(self, &logs);
        groups::check(self, &logs);
        meta::check(self);
        logs
    }

    fn write_ahead_log(&mut self, opened: &ReadOnly) {
        let damaged = match opened.damaged_logs() {
            Ok(damaged) => damaged,
            Err(error) => return self.add(UNREADABLE, Place::default(), error.message),
        };
        for DamagedLog { name, at, lost_bytes } in damaged {
            let mut what = format!("damaged from byte {at} on: a start loses {lost_bytes} bytes of the last commits");
            let kind = if opened.is_unsynced { LOG_TORN } else { LOG_DAMAGED };
            if opened.is_unsynced {
                what.push_str(", which a power cut may take with durability \"os\"");
            }
            self.add(kind, Place::named(name), what);
        }
    }

    /// Takes something found in.
    pub fn add(&mut self, kind: Kind, place: Place, what: impl Into<String>) {
        self.findings.add(kind, place, what);
    }

    /// Hands every entry of `[from, to)` on; what cannot be read of it is found.
    pub fn each(&mut self, family: Family, (from, to): (&[u8], &[u8]), mut take: impl FnMut(&mut Self, &[u8], &[u8])) {
        let mut scan: Scan<'s> = self.store.scan(family, from, to);
        let mut last = Vec::new();
        while let Some(entry) = scan.next_ref() {
            match entry {
                Ok((key, value)) => {
                    self.read(key.len() + value.len());
                    last.clear();
                    last.extend_from_slice(key);
                    take(self, key, value);
                }
                Err(error) => {
                    let place = Place::named(format!("family {}", family.name()));
                    let shown: String = last.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
                    self.add(
                        UNREADABLE,
                        place,
                        format!("nothing after the key {shown} can be read: {}", error.message),
                    );
                }
            }
        }
    }

    /// Counts bytes that were read.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.figures.bytes += bytes as u64;
        if self.figures.bytes - self.told_bytes >= TOLD_EVERY_BYTES {
            self.told_bytes = self.figures.bytes;
            (self.tell)(&self.figures);
        }
    }
}
