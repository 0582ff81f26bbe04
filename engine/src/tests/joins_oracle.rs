//! Random rows of two streams, out of order, late and unreadable, read in whatever order comes about, with restarts; then every
//! row that must have come out is worked out from the log and the recorded late rows, by what a join is: each pair, and each row that
//! is in none on a side that keeps all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::derived::values;
use super::joins::{joined, joins, row};
use super::oracle::Random;
use super::*;

const STREAMS: [(&str, i32); 2] = [("orders", 2), ("payments", 3)];
const GRACE_MS: i64 = 2_000;
/// Name, least and most from left to right, and of which sides rows come out alone.
type Join = (&'static str, i64, i64, [bool; 2]);
const JOINS: [Join; 6] = [
    ("near", -3_000, 3_000, [false, false]),
    ("after", 500, 4_000, [true, false]),
    ("before", -2_500, -500, [true, false]),
    ("wide", 0, 90_000, [true, false]),
    ("right", -2_000, 1_000, [false, true]),
    ("whole", -4_000, -1_000, [true, true]),
];

fn the_config() -> EngineConfig {
    let select = "SELECT o.id AS oid, p.id AS pid, o.ts, o.amount";
    let near = format!(
        "near AS {select} FROM orders o JOIN payments p WITHIN 3 SECONDS ON o.k = p.k WHERE o.amount + p.amount <> 7"
    );
    let after = format!(
        "after AS {select} FROM orders o LEFT JOIN payments p ON p.k = o.k AND p.amount > o.amount \
         AND p.ts BETWEEN o.ts + INTERVAL '500' MILLISECOND AND o.ts + INTERVAL '4' SECOND"
    );
    let before = format!(
        "before AS {select} FROM orders o LEFT JOIN payments p ON o.k = p.k AND o.amount = p.amount \
         AND o.ts - INTERVAL '500' MILLISECOND >= p.ts AND p.ts + INTERVAL '2500' MILLISECOND >= o.ts"
    );
    let wide = format!(
        "wide AS {select} FROM orders o LEFT JOIN payments p ON o.k = p.k AND p.ts >= o.ts \
         AND p.ts < o.ts + INTERVAL '90001' MILLISECOND AND p.amount = 3 WHERE o.amount <> 4"
    );
    let right = "right AS SELECT o.id AS oid, p.id AS pid, p.ts FROM orders o RIGHT JOIN payments p ON o.k = p.k AND p.amount > 3 \
         AND p.ts BETWEEN o.ts - INTERVAL '2' SECOND AND o.ts + INTERVAL '1' SECOND WHERE p.amount <> 5";
    let whole = "whole AS SELECT o.id AS oid, p.id AS pid, coalesce(o.ts, p.ts) AS ts FROM orders o FULL JOIN payments p \
         ON o.k = p.k AND o.amount = p.amount \
         AND o.ts BETWEEN p.ts + INTERVAL '1' SECOND AND p.ts + INTERVAL '4' SECOND";
    let all = [&*near, &*after, &*before, &*wide, right, whole].map(joined);
    joins(all.to_vec(), &["n AS SELECT count(*) AS n FROM near"])
}

/// Whether a pair that is equal and near meets by the rest of ON, and comes out by WHERE.
fn meets(join: &str, order: &Row, payment: &Row) -> (bool, bool) {
    match join {
        "near" => (true, order.amount + payment.amount != 7),
        "after" => (payment.amount > order.amount, true),
        "before" | "whole" => (payment.amount == order.amount, true),
        "right" => (payment.amount > 3, payment.amount != 5),
        _ => (payment.amount == 3, order.amount != 4),
    }
}

struct Row {
    id: i64,
    k: Option<i64>,
    amount: i64,
    ts: i64,
}

fn read_row(record: &Record) -> Option<Row> {
    let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let number = |name: &str| value[name].as_i64();
    Some(Row { id: number("id")?, k: number("k"), amount: number("amount")?, ts: number("ts")? })
}

fn random_row(random: &mut Random, id: &mut i64, now_ms: i64) -> String {
    let behind = match random.below(25) {
        0 => random.below(40_000),
        1..5 => random.below(4_000),
        _ => random.below(1_500),
    };
    *id += 1;
    let k = (random.below(12) > 0).then(|| random.below(7) as i64);
    match random.below(40) {
        0 => "{".to_string(),
        _ => row(*id, k, random.below(6) as i64, now_ms - behind as i64),
    }
}

/// The rows of a stream that a join took: all that are not recorded as late, which each must have been by rows before it in its own
/// partition, as the watermark is the least of all partitions.
async fn taken(broker: &Broker, join: &str, stream: &str) -> Vec<Row> {
    let mut late: BTreeSet<(i32, i64)> = BTreeSet::new();
    for (_, record) in records(broker, &format!("{join}.late")).await {
        let number = |name: &str| header(&record, name).parse::<i64>().unwrap();
        if header(&record, "stream") == stream {
            assert!(late.insert((number("partition") as i32, number("offset"))), "{join}: late twice");
        }
    }
    let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
    let mut rows = Vec::new();
    for (partition, record) in records(broker, stream).await {
        let Some(row) = read_row(&record) else { continue };
        let before = newest.entry(partition).or_insert(i64::MIN);
        let ts = row.ts;
        match late.remove(&(partition, record.offset)) {
            true => assert!(ts < before.saturating_sub(GRACE_MS), "{join}: {} was not late", row.id),
            false => rows.push(row),
        }
        *before = ts.max(*before);
    }
    assert!(late.is_empty(), "{join}: late and not in the log: {late:?}");
    rows
}

/// The ids of both sides.
type Pair = (Option<i64>, Option<i64>);
/// Rows that come out once, and those that may be told alone but need not be yet.
type Wanted = (BTreeSet<Pair>, BTreeSet<Pair>);

async fn wanted(broker: &Broker, (join, least, most, keeps): Join, end_ms: i64) -> Wanted {
    let (orders, payments) = (taken(broker, join, "orders").await, taken(broker, join, "payments").await);
    let (mut rows, mut open) = (BTreeSet::new(), BTreeSet::new());
    let (mut met_orders, mut met_payments) = (BTreeSet::new(), BTreeSet::new());
    for order in &orders {
        for payment in &payments {
            let is_near = (least..=most).contains(&(payment.ts - order.ts));
            if !is_near || order.k.is_none() || order.k != payment.k {
                continue;
            }
            let (is_met, comes_out) = meets(join, order, payment);
            if is_met {
                met_orders.insert(order.id);
                met_payments.insert(payment.id);
            }
            if is_met && comes_out {
                assert!(rows.insert((Some(order.id), Some(payment.id))));
            }
        }
    }
    let mut alone = |pair: Pair, latest_ms: i64| {
        let told = if latest_ms < end_ms - GRACE_MS { &mut rows } else { &mut open };
        assert!(told.insert(pair));
    };
    let comes_out =
        |order: &&Row| keeps[0] && !met_orders.contains(&order.id) && !(join == "wide" && order.amount == 4);
    orders.iter().filter(comes_out).for_each(|order| alone((Some(order.id), None), order.ts + most));
    let comes_out =
        |paid: &&Row| keeps[1] && !met_payments.contains(&paid.id) && !(join == "right" && paid.amount == 5);
    payments.iter().filter(comes_out).for_each(|paid| alone((None, Some(paid.id)), paid.ts - least));
    (rows, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn joined_streams_equal_a_recomputation() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open_broker(dir.path()).await;
    for (topic, partitions) in STREAMS {
        create(&broker, topic, partitions).await;
    }
    let mut engine = Engine::start(broker.clone(), the_config()).await.unwrap();
    let (mut now_ms, mut id) = (0, 0);
    for round in 0..80 {
        for (topic, partitions) in STREAMS {
            let partition = random.below(partitions as u64) as i32;
            let most = if random.below(12) == 0 { 150 } else { 15 };
            let count = 1 + random.below(most);
            let rows: Vec<String> = (0..count).map(|_| random_row(&mut random, &mut id, now_ms)).collect();
            append(&broker, topic, partition, &rows).await;
        }
        now_ms += random.below(1_500) as i64 + if round == 50 { 200_000 } else { 0 };
        match random.below(12) {
            0 => {
                engine.stop().await;
                engine = Engine::start(broker.clone(), the_config()).await.unwrap();
            }
            1 => (broker, engine) = reopen(dir.path(), (broker, engine), the_config()).await,
            2..6 => drop(engine.wait_fresh(JOINS[random.below(JOINS.len() as u64) as usize].0, 20_000).await.unwrap()),
            _ => {}
        }
    }
    // Event time moves on in all partitions, by rows that meet nobody.
    let end_ms = now_ms + 300_000;
    for (at, (topic, partitions)) in STREAMS.into_iter().enumerate() {
        for partition in 0..partitions {
            id += 1;
            append(&broker, topic, partition, &[row(id, 100 + at as i64, 0, end_ms)]).await;
        }
    }
    for join in JOINS {
        compare(&broker, &engine, join, BASE_MS + end_ms).await;
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

async fn compare(broker: &Broker, engine: &Engine, join: Join, end_ms: i64) {
    engine.wait_fresh(join.0, 20_000).await.unwrap();
    let (rows, open) = wanted(broker, join, end_ms).await;
    // What is left to be told alone follows in commits of its own.
    for _ in 0..200 {
        if records(broker, join.0).await.len() >= rows.len() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut found: BTreeSet<Pair> = BTreeSet::new();
    for value in values(broker, join.0).await {
        let pair = (value["oid"].as_i64(), value["pid"].as_i64());
        assert!(found.insert(pair), "{}: {pair:?} came out twice", join.0);
    }
    let count = |is_alone: fn(&&Pair) -> bool| found.iter().filter(is_alone).count();
    let alone = [count(|(_, payment)| payment.is_none()), count(|(order, _)| order.is_none())];
    println!("{}: {} rows, {alone:?} alone, {} open", join.0, found.len(), open.len());
    let missing: Vec<_> = rows.difference(&found).take(5).collect();
    let more: Vec<_> = found.difference(&rows).take(5).collect();
    assert!(missing.is_empty() && more.is_empty(), "{}: missing {missing:?}, too many {more:?}", join.0);
    assert!(found.len() > 100, "{}: {} rows", join.0, found.len());
    assert_eq!(alone.map(|rows| rows > 20), join.3, "{}: {alone:?} alone", join.0);
    let late = records(broker, &format!("{}.late", join.0)).await.len() as u64;
    let status = engine.stream_status().into_iter().find(|status| status.stream == join.0).unwrap();
    let derived = status.derived.unwrap();
    assert_eq!((derived.written, derived.late), (found.len() as u64, late));
    assert!(status.rejected_by_rule.is_empty(), "{:?}", status.rejected_by_rule);
    assert!(late > 0, "{}: nothing was late", join.0);
    if join.0 == "near" {
        assert_eq!(read(engine, "n").await, [[found.len().to_string()]]);
    }
}
