//! Random events through a real broker, with restarts; then every number is computed again from the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::*;

const WINDOWED: &str = "w AS SELECT genre, count(*) AS n, sum(amount) AS total, min(amount) AS lo, max(amount) AS hi, \
     avg(amount) AS mean FROM s WHERE uid <> 3 GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), genre";
const PLAIN: &str = "u AS SELECT uid, count(*) AS n, sum(amount) AS total FROM s GROUP BY uid";

pub(super) struct Random(u64);

impl Random {
    /// From SEED, or else from the clock; printed, so that a run can be had again.
    pub(super) fn seeded() -> Random {
        let nanos = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(nanos | 1);
        println!("SEED={seed}");
        Random(seed)
    }

    /// Another one for each number, also for those that follow each other.
    pub(super) fn of(number: u64) -> Random {
        Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn seed(&self) -> u64 {
        self.0
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Mostly good events around a moving time, some far behind it, some dirty.
fn random_value(random: &mut Random, now_ms: i64) -> String {
    let behind = match random.below(20) {
        0 => random.below(90_000),
        1..4 => random.below(12_000),
        _ => random.below(3_000),
    };
    let genre = ["jazz", "rock", "Ω \\\"pop\\\"", ""][random.below(4) as usize];
    let amount = random.below(1_000) as i64 - 20;
    let user = random.below(6);
    let ts = now_ms - behind as i64;
    match random.below(40) {
        0 => "{\"uid\":".to_string(),
        1 => format!(r#"{{"uid":"x","ts":{ts}}}"#),
        2 => format!(r#"{{"uid":{user},"genre":"jazz"}}"#),
        3 => format!(r#"{{"uid":{user},"ts":{},"amount":1}}"#, ts + 7_200_000),
        4 => format!(r#"{{"uid":{user},"ts":{ts},"amount":null}}"#),
        _ => format!(r#"{{"uid":{user},"genre":"{genre}","amount":{amount},"ts":{ts}}}"#),
    }
}

/// A row as an independent reader sees it: None when the stream must refuse the record.
pub(super) struct Row {
    pub(super) user: i64,
    pub(super) genre: Option<String>,
    pub(super) amount: Option<i64>,
    pub(super) ts: i64,
}

pub(super) fn judge(record: &Record) -> Option<Row> {
    let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let row = Row {
        user: value.get("uid")?.as_i64()?,
        genre: value.get("genre").and_then(Value::as_str).map(str::to_string),
        amount: value.get("amount").and_then(Value::as_i64),
        ts: value.get("ts")?.as_i64()?,
    };
    let good = row.ts <= record.timestamp + 3_600_000 && row.amount.is_none_or(|amount| amount >= 0);
    good.then_some(row)
}

#[derive(Default)]
struct Group {
    n: i64,
    amounts: Vec<i64>,
}

fn place(record: &Record) -> (i32, i64) {
    (header(record, "partition").parse().unwrap(), header(record, "offset").parse().unwrap())
}

async fn places(broker: &Broker, topic: &str) -> BTreeSet<(i32, i64)> {
    let all = records(broker, topic).await;
    let set: BTreeSet<_> = all.iter().map(|(_, record)| place(record)).collect();
    assert_eq!(set.len(), all.len(), "{topic} has a record twice");
    set
}

#[tokio::test(flavor = "multi_thread")]
async fn views_equal_a_recomputation_over_the_log() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open_broker(dir.path()).await;
    create(&broker, "events", 3).await;
    let mut engine = Engine::start(broker.clone(), config(&[WINDOWED, PLAIN])).await.unwrap();
    let mut now_ms = BASE_MS;
    let mut written = 0;
    for _ in 0..120 {
        let partition = random.below(3) as i32;
        let count = 1 + random.below(200);
        let values: Vec<String> = (0..count).map(|_| random_value(&mut random, now_ms)).collect();
        append(&broker, "events", partition, &values).await;
        written += values.len() as u64;
        now_ms += random.below(4_000) as i64;
        match random.below(12) {
            0 => {
                engine.stop().await;
                engine = Engine::start(broker.clone(), config(&[WINDOWED, PLAIN])).await.unwrap();
            }
            1 => (broker, engine) = reopen(dir.path(), (broker, engine), config(&[WINDOWED, PLAIN])).await,
            2..5 => drop(read(&engine, "w").await),
            _ => {}
        }
    }
    let windowed = read(&engine, "w").await;
    let plain = read(&engine, "u").await;
    let rejected = places(&broker, "s.rejected").await;
    let late = places(&broker, "w.late").await;
    compare(&broker, &windowed, &plain, &rejected, &late).await;
    let status = engine.status();
    assert_eq!(status[0].rows_applied + status[0].rows_filtered + status[0].late + rejected.len() as u64, written);
    assert_eq!(status[0].late, late.len() as u64);
    assert_eq!(status[1].rows_applied + rejected.len() as u64, written);
    assert_eq!(engine.stream_status()[0].rejected, rejected.len() as u64);
    assert!(!late.is_empty() && late.len() < written as usize / 2, "{} of {written} late", late.len());
    check_topic(&broker, &windowed).await;
    engine.stop().await;
    broker.stop().await.unwrap();
}

async fn compare(
    broker: &Broker,
    windowed: &[Vec<String>],
    plain: &[Vec<String>],
    rejected: &BTreeSet<(i32, i64)>,
    late: &BTreeSet<(i32, i64)>,
) {
    let mut by_window: BTreeMap<(i64, Option<String>), Group> = BTreeMap::new();
    let mut by_user: BTreeMap<i64, (i64, Option<i64>)> = BTreeMap::new();
    let newest = records(broker, "events").await.iter().filter_map(|(_, record)| judge(record)).map(|row| row.ts).max();
    for (partition, record) in records(broker, "events").await {
        let at = (partition, record.offset);
        let Some(row) = judge(&record) else {
            assert!(rejected.contains(&at), "{at:?} must be refused: {:?}", record.value);
            continue;
        };
        assert!(!rejected.contains(&at), "{at:?} must not be refused: {:?}", record.value);
        let user = by_user.entry(row.user).or_default();
        user.0 += 1;
        user.1 = row.amount.map_or(user.1, |amount| Some(user.1.unwrap_or(0) + amount));
        let start = row.ts - row.ts.rem_euclid(10_000);
        if late.contains(&at) {
            assert!(start + 10_000 + 10_000 <= newest.unwrap(), "{at:?} cannot be late");
        } else if row.user != 3 {
            let group = by_window.entry((start, row.genre)).or_default();
            group.n += 1;
            group.amounts.extend(row.amount);
        }
    }
    let text = |value: Option<i64>| value.map_or("∅".to_string(), |value| value.to_string());
    let expected: Vec<Vec<String>> =
        by_user.iter().map(|(user, (n, total))| vec![user.to_string(), n.to_string(), text(*total)]).collect();
    assert_eq!(plain, expected);
    assert_eq!(windowed.len(), by_window.len());
    for (row, ((start, genre), group)) in windowed.iter().zip(&by_window) {
        let count = group.amounts.len() as f64;
        let total: Option<i64> = (!group.amounts.is_empty()).then(|| group.amounts.iter().sum());
        let expected = [
            genre.clone().unwrap_or("∅".to_string()),
            group.n.to_string(),
            text(total),
            text(group.amounts.iter().min().copied()),
            text(group.amounts.iter().max().copied()),
        ];
        assert_eq!(crate::scalar::parse_timestamp_ms(&row[0]), Some(*start));
        assert_eq!(row[2..7], expected, "{row:?}");
        match total {
            Some(total) => assert!((row[7].parse::<f64>().unwrap() - total as f64 / count).abs() < 1e-9, "{row:?}"),
            None => assert_eq!(row[7], "∅"),
        }
    }
}

/// The newest record of each key in the view's topic is the view's row.
async fn check_topic(broker: &Broker, windowed: &[Vec<String>]) {
    let mut newest: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
    for (_, record) in records(broker, "w").await {
        newest.insert(record.key.unwrap().to_vec(), serde_json::from_slice(&record.value.unwrap()).unwrap());
    }
    assert_eq!(newest.len(), windowed.len());
    let rows: BTreeSet<(String, String, i64)> = newest
        .values()
        .map(|value| {
            let genre = value["genre"].as_str().unwrap_or("∅").to_string();
            (value["window_start"].as_str().unwrap().to_string(), genre, value["n"].as_i64().unwrap())
        })
        .collect();
    let expected = windowed.iter().map(|row| (row[0].clone(), row[2].clone(), row[3].parse().unwrap())).collect();
    assert_eq!(rows, expected);
}
