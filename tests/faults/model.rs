//! A user that remembers what it was told, and after each start compares: all that was acknowledged is there, once and in its place,
//! and nothing else but what was under way, wholly or not at all.

use super::calls::{Answer, Caller, Lost, ProducerOf, Records};
use super::journal::{Item, Journal};
use crate::support::http::{Http, rows};
use crate::support::raw::{Identity, PlainRecord, batch};
use crate::support::server::Address;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Small segments, small buckets, eager cleaning, and a view over what is written.
pub const CONFIG: &str = r#"
[broker]
write_buffer_bytes = "8MiB"
bucket_bytes = "1MiB"
[kafka]
"log.cleaner.backoff.ms" = 50
"log.retention.check.interval.ms" = 50
[[topics]]
name = "ledger"
partitions = 2
config = { "retention.ms" = "-1" }
[[topics]]
name = "pairs"
partitions = 2
config = { "retention.ms" = "-1" }
[[topics]]
name = "kept"
config = { "cleanup.policy" = "compact", "segment.ms" = "100", "min.cleanable.dirty.ratio" = "0.01" }
[[topics]]
name = "trimmed"
config = { "segment.ms" = "100", "retention.ms" = "-1" }
[[topics]]
name = "aged"
config = { "segment.ms" = "100", "retention.ms" = "-1", "retention.bytes" = "1048576" }
[[streams]]
name = "ledger"
topic = "ledger"
event_time = "ts"
columns = [{ name = "n", type = "BIGINT" }, { name = "ts", type = "TIMESTAMP" }]
[[views]]
sql = "CREATE MATERIALIZED VIEW tally AS SELECT n % 3 AS team, count(*) AS records, sum(n) AS total FROM ledger GROUP BY n % 3"
"#;

const LEDGER: &str = "ledger";
const PAIRS: &str = "pairs";
const KEPT: &str = "kept";
const TRIMMED: &str = "trimmed";
/// Retention takes what is too much of it.
const AGED: &str = "aged";
/// Transactional id, and the group whose offsets go with its transactions.
const PAIR: &str = "pair";
const PLAIN: &str = "plain";
pub const KEYS: u64 = 6;
/// Batches that an idempotent producer sends before it waits for an answer: as many of its last ones are known again.
const UNANSWERED_MAX: usize = 5;
/// When everything happened.
const WRITTEN_MS: i64 = 1_768_896_000_000;
/// Between records of the compacted topic, whose segments are three of them long.
const KEPT_EVERY_MS: i64 = 40;

/// The record at offset `n` of a topic. Some are large, so that memory tables fill, files are written under load, and those of the write-ahead log
/// again; most of these where they are removed soon, so that buckets are given up.
fn value(topic: &str, n: u64) -> String {
    let every = if topic == LEDGER { 40 } else { 3 };
    let size = if n % every == every - 1 { 900_000 } else { n % 90 };
    format!("{{\"n\":{n},\"ts\":{WRITTEN_MS},\"pad\":\"{}\"}}", "x".repeat(size as usize))
}

/// A partition in which the record at offset n is `value(topic, n)`.
#[derive(Debug, Default)]
struct Counted {
    acknowledged: u64,
    /// Records of the batches after these that were sent and not answered.
    pending: Vec<u64>,
}

impl Counted {
    fn of(acknowledged: u64) -> Counted {
        Counted { acknowledged, pending: Vec::new() }
    }

    /// All that was acknowledged, unless it may be lost from the end, and the first of the batches under way, each wholly or not at all.
    fn compare(&self, place: &str, (start, records): (i64, &Records), forgets: bool) -> u64 {
        let end = start as u64 + records.len() as u64;
        let mut possible = vec![self.acknowledged];
        possible.extend(self.pending.iter().scan(self.acknowledged, |end, count| {
            *end += count;
            Some(*end)
        }));
        assert!(possible.contains(&end) || forgets && end < possible[0], "{place} ends at {end}: {self:?}");
        for (expected, (offset, found)) in (start..).zip(records) {
            assert_eq!(*offset, expected, "{place}: offsets follow one another");
            assert!(*found == value(place, expected as u64), "{place} at {offset}: {}", &found[..found.len().min(80)]);
        }
        end
    }

    /// One record to partition 0 of `place`, whose end is given.
    fn append(&mut self, caller: &mut Caller, place: &str) -> Answer<i64> {
        let next = self.acknowledged;
        self.pending = vec![1];
        let answer = caller.produce((place, 0), batch(&[record(value(place, next))], Identity::default()), None)?;
        assert_eq!(answer, next as i64, "{place}");
        *self = Counted::of(next + 1);
        Ok(next as i64 + 1)
    }
}

/// Something that is replaced: the last value that was acknowledged, and one that was sent and not answered.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    acknowledged: i64,
    pending: Option<i64>,
}

impl Latest {
    fn settle(&mut self, what: &str, found: i64, forgets: bool) {
        let known = found == self.acknowledged || Some(found) == self.pending;
        assert!(known || forgets && found < self.acknowledged, "{what} is {found}: {self:?}");
        *self = Latest { acknowledged: found, pending: None };
    }
}

pub struct Model {
    random: StdRng,
    /// Whether what was acknowledged last may be lost: the end of everything at once, as commits are kept in their order. Until it was compared.
    forgets: bool,
    journal: Journal,
    ledger: [Counted; 2],
    producer: Option<ProducerOf>,
    /// What the partitions held when the producer began: its sequence numbers count from there.
    producer_from: [u64; 2],
    /// Ids that producers were given: none twice.
    producers: BTreeSet<i64>,
    trimmed: Counted,
    trimmed_start: Latest,
    aged: Counted,
    /// Where it began when somebody looked.
    aged_start: i64,
    plain: Latest,
    kept: BTreeMap<u64, Latest>,
    written: i64,
    /// Numbers of transactions whose commit was acknowledged, and one whose commit was sent and not answered.
    pairs: Vec<u64>,
    pair_pending: Option<u64>,
    pair_next: u64,
    flushed: bool,
    pub acknowledged: u64,
}

impl Model {
    pub fn new(random: StdRng) -> Model {
        Model {
            random,
            forgets: false,
            journal: Journal::new(),
            ledger: Default::default(),
            producer: None,
            producer_from: [0, 0],
            producers: BTreeSet::new(),
            trimmed: Counted::default(),
            trimmed_start: Latest::default(),
            aged: Counted::default(),
            aged_start: 0,
            plain: Latest { acknowledged: -1, pending: None },
            kept: BTreeMap::new(),
            written: 0,
            pairs: Vec::new(),
            pair_pending: None,
            pair_next: 0,
            flushed: false,
            acknowledged: 0,
        }
    }

    /// The power went, and the device was not waited for.
    pub fn forget(&mut self) {
        self.forgets = true;
        // ids of producers that are lost are given again
        self.producers.clear();
    }

    /// Compares, then writes; until the server is gone, or so much was done.
    pub fn live(&mut self, address: &Address, actions: u32) -> Answer<()> {
        let mut caller = Caller::connect(&address.kafka)?;
        let http = Http::new(&address.http);
        self.compare(&mut caller, &http)?;
        let pair = caller.identity(Some(PAIR))?;
        self.meet(pair);
        let mut sequence = [0, 0];
        for _ in 0..actions {
            match self.random.random_range(0..20) {
                0..=6 => self.append(&mut caller)?,
                7..=11 if !self.has_records_for_offsets() => self.append(&mut caller)?,
                7..=9 => self.transaction(&mut caller, pair, &mut sequence)?,
                10..=11 => self.commit_offset(&mut caller)?,
                12..=13 => self.replace(&mut caller)?,
                14..=15 => self.append_trimmed(&mut caller)?,
                16..=17 => self.append_aged(&mut caller)?,
                18 => self.trim(&mut caller)?,
                _ => self.flush(&http)?,
            }
        }
        Ok(())
    }

    /// Whether the next offsets of both groups lie in the ledger: `check` takes one beyond its end for the trace of a loss.
    fn has_records_for_offsets(&self) -> bool {
        self.ledger[0].acknowledged > self.pair_next.max(self.plain.acknowledged.unsigned_abs())
    }

    /// A new producer's id was never given before.
    fn meet(&mut self, (id, epoch): ProducerOf) {
        assert!(self.producers.insert(id) || epoch > 0 || self.forgets, "producer id {id} was given twice");
    }

    /// The acknowledged is in the log, and the log is what everything else says it is.
    fn compare(&mut self, caller: &mut Caller, http: &Http) -> Answer<()> {
        self.under_way();
        self.compare_pairs(caller)?;
        let mut found = BTreeMap::from([(Item::Pairs, self.pairs.len() as i64)]);
        for partition in 0..2 {
            let (start, records) = caller.read((LEDGER, partition as i32), false)?;
            assert_eq!(start, 0, "nothing was deleted in partition {partition}");
            let counted = &mut self.ledger[partition];
            let end = counted.compare(LEDGER, (start, &records), self.forgets);
            found.insert(Item::Ledger(partition), end as i64);
            if self.forgets {
                *counted = Counted::of(end);
                self.producer = None;
            }
        }
        let (start, records) = caller.read((TRIMMED, 0), false)?;
        let end = self.trimmed.compare(TRIMMED, (start, &records), self.forgets);
        self.trimmed = Counted::of(end);
        self.trimmed_start.settle("the log start of trimmed", start, self.forgets);
        found.extend([(Item::TrimmedEnd, end as i64), (Item::TrimmedStart, start)]);
        let (start, records) = caller.read((AGED, 0), false)?;
        let end = self.aged.compare(AGED, (start, &records), self.forgets);
        assert!(start >= self.aged_start, "{AGED} begins at {start}, and began at {}", self.aged_start);
        assert!(!records.is_empty() || end == 0, "retention took all of {AGED}");
        (self.aged, self.aged_start) = (Counted::of(end), start);
        found.insert(Item::AgedEnd, end as i64);
        self.plain.settle("the group's offset", caller.offset_of((LEDGER, PLAIN))?, self.forgets);
        self.compare_kept(caller)?;
        found.insert(Item::Plain, self.plain.acknowledged);
        found.extend((0..KEYS).map(|key| (Item::Kept(key), self.kept.get(&key).map_or(0, |kept| kept.acknowledged))));
        self.journal.compare(found);
        self.forgets = false;
        self.resend(caller)?;
        self.compare_view(http)
    }

    /// What was sent and not answered may be there as well, behind all else.
    fn under_way(&mut self) {
        for partition in 0..2 {
            let mut end = self.ledger[partition].acknowledged;
            for count in self.ledger[partition].pending.clone() {
                end += count;
                self.journal.push(Item::Ledger(partition), end as i64);
            }
        }
        let trimmed =
            self.trimmed.pending.first().map(|count| (Item::TrimmedEnd, (self.trimmed.acknowledged + count) as i64));
        let aged = self.aged.pending.first().map(|count| (Item::AgedEnd, (self.aged.acknowledged + count) as i64));
        let start = self.trimmed_start.pending.map(|start| (Item::TrimmedStart, start));
        let plain = self.plain.pending.map(|offset| (Item::Plain, offset));
        let pairs = self.pair_pending.map(|_| (Item::Pairs, self.pairs.len() as i64 + 1));
        let kept = self.kept.iter().filter_map(|(key, latest)| Some((Item::Kept(*key), latest.pending?)));
        for (item, state) in kept.chain([trimmed, aged, start, plain, pairs].into_iter().flatten()) {
            self.journal.push(item, state);
        }
    }

    /// As a producer does that was not answered: the same batches again. They are there once.
    fn resend(&mut self, caller: &mut Caller) -> Answer<()> {
        for partition in 0..2 {
            if !self.ledger[partition].pending.is_empty() {
                self.send(caller, partition)?;
            }
        }
        Ok(())
    }

    fn compare_pairs(&mut self, caller: &mut Caller) -> Answer<()> {
        // what is open is aborted first, so that all is stable
        let identity = caller.identity(Some(PAIR))?;
        self.meet(identity);
        let numbers = |records: Records| records.into_iter().map(|(_, value)| value.parse().unwrap()).collect();
        let first: Vec<u64> = numbers(caller.read((PAIRS, 0), true)?.1);
        let second: Vec<u64> = numbers(caller.read((PAIRS, 1), true)?.1);
        assert_eq!(first, second, "a transaction is in both partitions or in none");
        let with_pending: Vec<u64> = self.pairs.iter().copied().chain(self.pair_pending).collect();
        assert!(
            first == self.pairs || first == with_pending || self.forgets && with_pending.starts_with(&first),
            "transactions in the log: {first:?}; acknowledged: {:?}, pending: {:?}",
            self.pairs,
            self.pair_pending
        );
        let offset = caller.offset_of((LEDGER, PAIR))?;
        assert_eq!(
            offset,
            first.last().map_or(-1, |last| *last as i64),
            "offsets go with their transaction: {first:?}"
        );
        (self.pairs, self.pair_pending) = (first, None);
        Ok(())
    }

    fn compare_kept(&mut self, caller: &mut Caller) -> Answer<()> {
        let (_, records) = caller.read((KEPT, 0), false)?;
        assert!(records.is_sorted_by(|one, next| one.0 < next.0), "offsets ascend in {KEPT}");
        let mut newest: BTreeMap<u64, i64> = BTreeMap::new();
        for (_, value) in records {
            let (key, value) = value.split_once(':').unwrap();
            newest.insert(key.parse().unwrap(), value.parse().unwrap());
        }
        for (key, latest) in &mut self.kept {
            latest.settle(&format!("key {key} of {KEPT}"), newest.remove(key).unwrap_or(0), self.forgets);
        }
        assert_eq!(newest, BTreeMap::new(), "keys that nobody wrote");
        Ok(())
    }

    /// The view is what its SQL gives over the log; the table too, where some of it lies in files.
    fn compare_view(&mut self, http: &Http) -> Answer<()> {
        let mut wanted: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for counted in &self.ledger {
            for n in 0..counted.acknowledged as i64 {
                let (records, total) = wanted.entry(n % 3).or_default();
                (*records, *total) = (*records + 1, *total + n);
            }
        }
        let text = succeeded(http.try_get("/v1/views/tally?wait=30s"))?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| Lost)?;
        // the store has failed, and the server is about to end: it says that this is how far the view came
        if answer["stale"] == true {
            return Err(Lost);
        }
        // exact numbers of many digits are texts
        let number = |value: &Value| match value.as_str() {
            Some(text) => text.parse().unwrap(),
            None => value.as_i64().unwrap_or_else(|| panic!("{answer}")),
        };
        let found: BTreeMap<i64, (i64, i64)> =
            rows(&answer).iter().map(|row| (number(&row[0]), (number(&row[1]), number(&row[2])))).collect();
        assert_eq!(found, wanted, "the view and the log: {answer}");
        if std::mem::take(&mut self.flushed) {
            let sql = "SELECT count(*), coalesce(sum(n), 0) FROM ledger";
            let text = succeeded(http.try_post("/v1/sql", &serde_json::json!({ "sql": sql })))?;
            let answer: Value = serde_json::from_str(&text).map_err(|_| Lost)?;
            let all = wanted.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let found = &rows(&answer)[0];
            assert_eq!((number(&found[0]), number(&found[1])), all, "the table and the log");
        }
        Ok(())
    }

    fn append(&mut self, caller: &mut Caller) -> Answer<()> {
        let partition = self.random.random_range(0..2);
        // a producer that waits for no answer has many of its batches committed in one group
        let batches =
            if self.random.random_range(0..4) == 0 { self.random.random_range(2..=UNANSWERED_MAX) } else { 1 };
        self.ledger[partition].pending = (0..batches).map(|_| self.random.random_range(1..=4)).collect();
        self.send(caller, partition)
    }

    fn send(&mut self, caller: &mut Caller, partition: usize) -> Answer<()> {
        let (producer_id, epoch) = match self.producer {
            Some(known) => known,
            None => {
                let new = caller.identity(None)?;
                self.meet(new);
                self.producer_from = [0, 1].map(|at: usize| self.ledger[at].acknowledged);
                *self.producer.insert(new)
            }
        };
        let mut from = self.ledger[partition].acknowledged;
        for count in self.ledger[partition].pending.clone() {
            let records: Vec<PlainRecord> = (from..from + count).map(|n| record(value(LEDGER, n))).collect();
            let sequence = (from - self.producer_from[partition]) as i32;
            let identity = Identity { producer_id, epoch, sequence, transactional: false };
            caller.send_produce((LEDGER, partition as i32), batch(&records, identity))?;
            from += count;
        }
        while let [count, rest @ ..] = &self.ledger[partition].pending[..] {
            let (count, acknowledged) = (*count, self.ledger[partition].acknowledged);
            let answer = caller.produced(rest.len())?;
            assert_eq!(answer, acknowledged as i64, "{LEDGER}-{partition}, {count} records");
            self.ledger[partition].acknowledged += count;
            self.ledger[partition].pending.remove(0);
            self.journal.push(Item::Ledger(partition), (acknowledged + count) as i64);
            self.acknowledged += count;
        }
        Ok(())
    }

    fn append_trimmed(&mut self, caller: &mut Caller) -> Answer<()> {
        let end = self.trimmed.append(caller, TRIMMED)?;
        self.journal.push(Item::TrimmedEnd, end);
        Ok(())
    }

    fn append_aged(&mut self, caller: &mut Caller) -> Answer<()> {
        let end = self.aged.append(caller, AGED)?;
        self.journal.push(Item::AgedEnd, end);
        Ok(())
    }

    fn trim(&mut self, caller: &mut Caller) -> Answer<()> {
        let (start, end) = (self.trimmed_start.acknowledged, self.trimmed.acknowledged as i64);
        let to = self.random.random_range(start..=end);
        self.trimmed_start.pending = Some(to);
        assert_eq!(caller.delete_records(TRIMMED, to)?, to);
        self.trimmed_start = Latest { acknowledged: to, pending: None };
        self.journal.push(Item::TrimmedStart, to);
        Ok(())
    }

    fn replace(&mut self, caller: &mut Caller) -> Answer<()> {
        let key = self.random.random_range(0..KEYS);
        self.written += 1;
        let value = self.written;
        let latest = self.kept.entry(key).or_default();
        latest.pending = Some(value);
        let mut one = record(format!("{key}:{value}"));
        one.key = Some(key.to_string());
        // segments are closed by the time of records, and only what lies in closed ones is compacted
        one.timestamp += value * KEPT_EVERY_MS;
        caller.produce((KEPT, 0), batch(&[one], Identity::default()), None)?;
        *latest = Latest { acknowledged: value, pending: None };
        self.journal.push(Item::Kept(key), value);
        Ok(())
    }

    fn commit_offset(&mut self, caller: &mut Caller) -> Answer<()> {
        let next = self.plain.acknowledged + 1;
        self.plain.pending = Some(next);
        caller.commit_offset((LEDGER, PLAIN), next)?;
        self.plain = Latest { acknowledged: next, pending: None };
        self.journal.push(Item::Plain, next);
        Ok(())
    }

    /// One number to both partitions, and as the group's offset; a fourth of them is aborted.
    fn transaction(&mut self, caller: &mut Caller, pair: ProducerOf, sequence: &mut [i32; 2]) -> Answer<()> {
        self.pair_next += 1;
        let number = self.pair_next;
        caller.begin(PAIR, pair, (PAIRS, PAIR))?;
        for (partition, next) in (0..).zip(sequence) {
            let identity = Identity { producer_id: pair.0, epoch: pair.1, sequence: *next, transactional: true };
            let records = batch(&[record(number.to_string())], identity);
            caller.produce((PAIRS, partition), records, Some(PAIR))?;
            *next += 1;
        }
        caller.offset_in(PAIR, pair, (LEDGER, PAIR), number as i64)?;
        let commits = self.random.random_range(0..4) > 0;
        self.pair_pending = commits.then_some(number);
        caller.end(PAIR, pair, commits)?;
        if let Some(number) = self.pair_pending.take() {
            self.pairs.push(number);
            self.journal.push(Item::Pairs, self.pairs.len() as i64);
        }
        Ok(())
    }

    /// Has what is in the log settle as Parquet.
    fn flush(&mut self, http: &Http) -> Answer<()> {
        self.flushed = true;
        succeeded(http.try_post("/v1/lake/ledger/flush", &Value::Null)).map(drop)
    }
}

/// An answer of HTTP; errors of the server's own are as good as none.
fn succeeded(answer: Result<(u16, String), String>) -> Answer<String> {
    match answer {
        Ok((200..300, text)) => Ok(text),
        Ok((500.., _)) | Err(_) => Err(Lost),
        Ok((status, text)) => panic!("{status}: {text}"),
    }
}

fn record(value: String) -> PlainRecord {
    PlainRecord { value: Some(value), timestamp: WRITTEN_MS, ..PlainRecord::default() }
}
