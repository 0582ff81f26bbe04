//! Queries in a loop against a running lake, while producers write, files are flushed and merged, the log lets go of what settled, and
//! the server is killed: what was answered once is answered for ever, counts never step back, and there is never more than was
//! written. MILLPOND_QUERIES=10000 is the long form.

use crate::support::http::{Http, rows};
use crate::support::kafka::run;
use crate::support::ledger::{Acknowledged, Writes};
use crate::support::server::{Server, millpond};
use crate::support::{CASE_MAX, Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Answers that are judged in `make test`.
const QUERIES: u64 = 400;
/// Answers from one kill to the next.
const QUERIES_PER_KILL: u64 = 50;
const READERS: usize = 3;
const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// Small files of three slices, which are soon merged; the log keeps nothing that is settled.
const SYSTEM: &str = r#"
topics = [{ name = "ledger", partitions = 3, config = { "retention.ms" = "1" } }]
[kafka]
"log.retention.check.interval.ms" = 100
[[streams]]
name = "ledger"
topic = "ledger"
event_time = "ts"
columns = [{ name = "n", type = "BIGINT", required = true }, { name = "ts", type = "TIMESTAMP", required = true }]
[[lake.tables]]
topic = "ledger"
flush_rows = 500
flush_age = "200ms"
merge_files = 3
"#;
/// Of each partition: how many, their sum, the largest, and all of them under XOR.
const BY_PARTITION: &str =
    "SELECT _partition, count(*), sum(n), max(n), bit_xor(n) FROM ledger GROUP BY _partition ORDER BY _partition";
/// A table is one at one moment, however often a statement names it.
const TWICE: &str = "SELECT max(c) - min(c), max(s) - min(s) FROM \
    (SELECT count(*) AS c, sum(n) AS s FROM ledger UNION ALL SELECT count(*), sum(n) FROM ledger WHERE n >= 0)";

/// What is known of the table: the readers' answers and the producer's acknowledgements. It only grows.
struct Known {
    acknowledged: Arc<Acknowledged>,
    /// Rows of each partition in some answer.
    answered: [AtomicI64; PARTITIONS as usize],
    queries: AtomicU64,
    /// Queries that were under way when the server was killed.
    broken_off: AtomicU64,
    /// The server is being killed or started.
    away: AtomicBool,
    /// Times that it was.
    kills: AtomicU64,
    stop: AtomicBool,
}

impl Known {
    fn new() -> Arc<Known> {
        Arc::new(Known {
            acknowledged: Arc::default(),
            answered: Default::default(),
            queries: AtomicU64::new(0),
            broken_off: AtomicU64::new(0),
            away: AtomicBool::new(false),
            kills: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// Rows that each partition has at least.
    fn least(&self) -> Vec<i64> {
        let acknowledged = self.acknowledged.by_partition.lock().unwrap();
        let told = |partition: i32| acknowledged.get(&partition).map_or(0, |told| told.len() as i64);
        let answered = self.answered.iter().map(|rows| rows.load(Ordering::SeqCst));
        (0..).zip(answered).map(|(partition, answered)| answered.max(told(partition))).collect()
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The rows of a statement; none when the server was killed meanwhile.
    fn ask(&self, http: &Http, sql: &str) -> Option<Vec<Vec<Value>>> {
        let kills = self.kills.load(Ordering::SeqCst);
        let was_away = self.away.load(Ordering::SeqCst);
        let answer = http.try_post("/v1/sql", &json!({ "sql": sql }));
        match answer {
            Ok((200, text)) => return Some(rows(&serde_json::from_str(&text).unwrap())),
            _ if was_away => {}
            _ if self.away.load(Ordering::SeqCst) || self.kills.load(Ordering::SeqCst) > kills => {
                self.broken_off.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("nobody killed the server, and {sql} gave {other:?}"),
        }
        thread::sleep(Duration::from_millis(10));
        None
    }

    /// All there is, compared with what was known before it was asked for and what was written when it was answered.
    fn judge_all(&self, least: &[i64], found: &[Vec<Value>]) {
        let sent = self.acknowledged.sent.load(Ordering::SeqCst) as i64;
        let number = |value: &Value| value.as_i64().unwrap();
        let mut all = 0;
        for (partition, least) in (0..).zip(least) {
            let row = found.iter().find(|row| number(&row[0]) == partition);
            let count = row.map_or(0, |row| number(&row[1]));
            assert!(
                count >= *least,
                "partition {partition}: {count} rows, and {least} were answered or acknowledged before"
            );
            if let Some(row) = row {
                // the producer numbers them in order: whatever is there is all from the first to the last
                let whole = [count, count * (count - 1) / 2, count - 1, (0..count).fold(0, |all, n| all ^ n)];
                assert_eq!(row[1..].iter().map(number).collect::<Vec<_>>(), whole, "partition {partition}");
            }
            self.answered[partition as usize].fetch_max(count, Ordering::SeqCst);
            all += count;
        }
        assert!(all <= sent, "{all} rows, and {sent} were written");
    }

    /// One statement after the other, until told to stop.
    fn read(&self, http: &Http, random: &mut StdRng) {
        while !self.is_stopping() {
            let least = self.least();
            let judged = match random.random_range(0..4) {
                0 | 1 => self.ask(http, BY_PARTITION).map(|found| self.judge_all(&least, &found)),
                2 => self.ask(http, &history(&least)).map(|found| assert_eq!(found, [history_is(&least)], "{least:?}")),
                _ => self.ask(http, TWICE).map(|found| assert!(found[0].iter().all(is_nothing), "{found:?}")),
            };
            if judged.is_some() {
                self.queries.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// What each partition is known to have: whatever becomes of it meanwhile, the answer is one.
fn history(least: &[i64]) -> String {
    let parts = (0..).zip(least).map(|(partition, least)| format!("(_partition = {partition} AND n < {least})"));
    let parts: Vec<String> = parts.collect();
    format!(
        "SELECT count(*), coalesce(sum(n), 0), count(DISTINCT n * {PARTITIONS} + _partition) FROM ledger WHERE {}",
        parts.join(" OR ")
    )
}

fn history_is(least: &[i64]) -> Vec<Value> {
    let count: i64 = least.iter().sum();
    let sum: i64 = least.iter().map(|least| least * (least - 1) / 2).sum();
    vec![json!(count), json!(sum), json!(count)]
}

/// A difference of nothing, or of sums over no rows.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || *value == 0
}

/// Flushes and merges again and again; how often each was done.
fn settling(http: Http, known: Arc<Known>) -> JoinHandle<(u64, u64)> {
    thread::spawn(move || {
        let (mut flushes, mut merges) = (0, 0);
        while !known.is_stopping() {
            let done = |what: &str, of: &str| match http.try_post(&format!("/v1/lake/ledger/{what}"), &Value::Null) {
                Ok((200, text)) => serde_json::from_str::<Value>(&text).unwrap()[of].as_u64().unwrap(),
                _ => 0,
            };
            flushes += u64::from(done("flush", "files") > 0);
            merges += done("merge", "merges");
            thread::sleep(Duration::from_millis(30));
        }
        (flushes, merges)
    })
}

#[test]
fn a_query_gives_the_same_answer_before_amid_and_after_what_the_lake_does() {
    let _beside = beside_others();
    let queries = std::env::var("MILLPOND_QUERIES").map_or(QUERIES, |text| text.parse().unwrap());
    let scratch = Scratch::lasting("lake-queries", CASE_MAX + Duration::from_millis(500) * queries as u32);
    let mut random = StdRng::seed_from_u64(seed("lake-queries"));
    let mut server = Server::with_config(&scratch, SYSTEM);
    let known = Known::new();
    let (written, stop) = (known.acknowledged.clone(), Arc::new(AtomicBool::new(false)));
    let value = |n: u64| format!("{{\"n\":{n},\"ts\":{}}}", 1_793_491_200_000 + (n % 3) * 86_400_000);
    let pace = Duration::from_millis(2);
    let writes = Writes { address: server.kafka.clone(), topic: "ledger", partitions: PARTITIONS, value, pace };
    let writer = thread::spawn({
        let (written, stop) = (written.clone(), stop.clone());
        move || writes.run(&written, &stop)
    });
    let settler = settling(server.http.clone(), known.clone());
    let readers: Vec<JoinHandle<()>> = (0..READERS)
        .map(|_| {
            let (known, http, mut random) = (known.clone(), server.http.clone(), StdRng::from_rng(&mut random));
            thread::spawn(move || known.read(&http, &mut random))
        })
        .collect();
    let mut next = QUERIES_PER_KILL;
    while next <= queries {
        eventually("queries are answered", PATIENCE * 5, || {
            assert!(!readers.iter().any(JoinHandle::is_finished), "a reader found a mistake: see above");
            let answered = known.queries.load(Ordering::SeqCst);
            if answered >= next { Ok(()) } else { Err(format!("{answered} of {next}")) }
        });
        thread::sleep(Duration::from_millis(random.random_range(0..300)));
        known.away.store(true, Ordering::SeqCst);
        server.kill9();
        server.start_again();
        known.kills.fetch_add(1, Ordering::SeqCst);
        known.away.store(false, Ordering::SeqCst);
        next += QUERIES_PER_KILL;
    }
    stop.store(true, Ordering::SeqCst);
    let sent: Vec<i64> = writer.join().unwrap().into_iter().map(|sent| sent as i64).collect();
    known.stop.store(true, Ordering::SeqCst);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let (flushes, merges) = settler.join().unwrap();
    let [answered, broken_off] = [&known.queries, &known.broken_off].map(|count| count.load(Ordering::SeqCst));
    eprintln!(
        "lake-queries: {answered} answers, {broken_off} broken off, {flushes} flushes, {merges} merges, {sent:?} rows"
    );
    assert!(flushes > 10 && merges > 10, "{flushes} flushes, {merges} merges: the lake did nothing");
    is_whole(&server, &known, &sent);
    assert!(server.stop().success());
}

/// All that was sent is there once: for queries, and for who verifies the files.
fn is_whole(server: &Server, known: &Known, sent: &[i64]) {
    assert!(known.acknowledged.failures.lock().unwrap().is_empty());
    known.judge_all(sent, &server.http.sql(BY_PARTITION));
    for what in ["flush", "merge"] {
        server.http.post(&format!("/v1/lake/ledger/{what}"), &Value::Null);
        known.judge_all(sent, &server.http.sql(BY_PARTITION));
    }
    let said = run(millpond().args(["verify", "lake", "ledger", "--json", "--http", server.http.address()]));
    let report: Value = serde_json::from_str(said.trim()).unwrap();
    for (what, count) in [("file_rows", sent.iter().sum()), ("live_rows", 0), ("differences", 0)] {
        assert_eq!(report[what], count, "{report}");
    }
}
