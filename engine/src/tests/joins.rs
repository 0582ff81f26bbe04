//! Streams joined to streams.

use std::time::Duration;

use broker::Family;
use serde_json::{Value, json};

use super::definitions::{done, start, stop};
use super::derived::{append_keyed, genres, users, values};
use super::*;
use crate::derive::MEETINGS_MAX;
use crate::{QualityAction, check};

/// Streams `orders` and `payments` over topics of these names: id, k, amount, ts.
pub(super) fn side(name: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        topic: name.into(),
        columns: vec![
            column("id", "BIGINT", true),
            column("k", "BIGINT", false),
            column("amount", "BIGINT", false),
            column("ts", "TIMESTAMP", true),
        ],
        event_time: "ts".into(),
        ..StreamConfig::default()
    }
}

pub(super) fn joined(sql: &str) -> StreamConfig {
    StreamConfig { sql: Some(format!("CREATE STREAM {sql}")), lateness_ms: 2_000, ..StreamConfig::default() }
}

pub(super) fn joins(joined: Vec<StreamConfig>, views: &[&str]) -> EngineConfig {
    let mut config = config(views);
    config.streams = vec![side("orders"), side("payments")];
    config.streams.extend(joined);
    config.tables = vec![users(), genres()];
    config
}

/// A row at `BASE_MS + at_ms`.
pub(super) fn row(id: i64, k: impl Into<Value>, amount: i64, at_ms: i64) -> String {
    let k: Value = k.into();
    json!({"id": id, "k": k, "amount": amount, "ts": BASE_MS + at_ms}).to_string()
}

/// The ids of both sides in a joined stream's topic, in the order of left, then right.
async fn ids(broker: &Broker, topic: &str) -> Vec<(Option<i64>, Option<i64>)> {
    let all = values(broker, topic).await;
    let mut ids: Vec<_> = all.iter().map(|value| (value["oid"].as_i64(), value["pid"].as_i64())).collect();
    ids.sort_unstable();
    ids
}

/// Waits until a topic has so many records.
async fn until(broker: &Broker, topic: &str, count: usize) {
    for _ in 0..400 {
        if records(broker, topic).await.len() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{topic} has {} records, not {count}", records(broker, topic).await.len());
}

/// How many rows of a joined stream wait, and how many of them are listed as having met none.
fn waiting(broker: &Broker, name: &str) -> (usize, usize) {
    let count = |kind: u8| {
        let from = [&[kind], name.as_bytes(), &[0]].concat();
        let to = [&[kind], name.as_bytes(), &[1]].concat();
        broker.store().scan(Family::State, &from, &to).count()
    };
    (count(0x15), count(0x16))
}

const PAIRS: &str = "pairs AS SELECT o.id AS oid, p.id AS pid, o.ts, o.amount - p.amount AS open FROM orders o \
     JOIN payments p ON o.k = p.k AND p.ts BETWEEN o.ts - INTERVAL '1' SECOND AND o.ts + INTERVAL '10' SECOND";
const EVERY: &str = "every AS SELECT o.id AS oid, p.id AS pid, o.ts, o.amount FROM orders o \
     LEFT JOIN payments p WITHIN 10 SECONDS ON o.k = p.k AND p.amount > 0 WHERE o.amount <> 9";

#[test]
fn mistakes_say_what_to_write() {
    let on = "o JOIN payments p ON o.k = p.k";
    let cases = [
        (format!("d AS SELECT o.id, o.ts FROM orders {on}"), "WITHIN 1 HOUR"),
        (format!("d AS SELECT o.id, o.ts FROM orders {on} AND p.ts >= o.ts"), "p.ts BETWEEN o.ts - INTERVAL"),
        (format!("d AS SELECT o.id, o.ts FROM orders {on} AND p.ts BETWEEN o.ts AND o.ts - INTERVAL '1' SECOND"), "no two rows"),
        (format!("d AS SELECT o.id, o.ts FROM orders {on} AND p.ts BETWEEN o.ts AND o.ts + INTERVAL '1' MONTH"), "WITHIN 1 HOUR"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN payments p WITHIN 1 HOUR ON o.k > p.k".into(), "what is equal in both"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN payments p WITHIN (1 HOUR, 2 HOURS) ON o.k = p.k".into(), "BETWEEN"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN payments p WITHIN 1 HOUR ON o.k * 0.5e0 = p.k * 0.5e0".into(), "does not compare exactly"),
        ("d AS SELECT o.id, o.ts FROM orders o RIGHT JOIN users u ON o.k = u.uid".into(), "LEFT JOIN"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN users u WITHIN 1 HOUR ON o.k = u.uid".into(), "WITHIN is for two streams"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN users u ON o.k = u.uid JOIN payments p WITHIN 1 HOUR ON o.k = p.k".into(), "streams first"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN payments p WITHIN 1 HOUR ON o.k = p.k JOIN orders q ON q.k = p.k".into(), "third stream"),
        ("d AS SELECT o.id, o.ts FROM orders o JOIN payment p WITHIN 1 HOUR ON o.k = p.k".into(), "did you mean 'payments'"),
        ("d AS SELECT * FROM orders o JOIN payments p WITHIN 1 HOUR ON o.k = p.k".into(), "two columns are called 'id'"),
        (format!("d AS SELECT id, ts FROM orders UNION ALL SELECT o.id, o.ts FROM orders {on}"), "WITHIN 1 HOUR"),
    ];
    for (sql, expected) in cases {
        let mistakes = check(&joins(vec![joined(&sql)], &[]));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{sql}: {expected}: {mistakes:#?}");
    }
    let silent = StreamConfig { idle_timeout_ms: 0, ..joined(PAIRS) };
    let mistakes = check(&joins(vec![silent], &[]));
    assert!(mistakes.iter().any(|mistake| mistake.contains("idle_timeout above 0")), "{mistakes:?}");
    // Whatever comes first in the configuration.
    let over =
        joined("over AS SELECT a.oid, p.id AS pid, a.ts FROM pairs a JOIN payments p WITHIN 1 MINUTE ON a.oid = p.k");
    assert_eq!(check(&joins(vec![over, joined(PAIRS), joined(EVERY)], &[])), [""; 0]);
    let late = joins(vec![joined(PAIRS), joined("\"pairs.late\" AS SELECT * FROM orders")], &[]);
    assert!(check(&late).iter().any(|mistake| mistake.contains("would both write topic pairs.late")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_meet_by_key_and_time_whichever_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 3).await;
    create(&broker, "people", 1).await;
    append_keyed(&broker, "people", 0, &[("7", Some(r#"{"uid":7,"segment":"gold"}"#.into()))]).await;
    let named = joined(
        "named AS SELECT o.id AS oid, p.id AS pid, p.ts, u.segment, p._offset AS place FROM orders o \
         JOIN payments p WITHIN INTERVAL '10' SECOND ON p.k = o.k AND p.id <> 24 LEFT JOIN users u ON o.k = u.uid \
         WHERE p.amount < 100",
    );
    let named = StreamConfig { key: Some("segment".into()), ..named };
    let config = joins(vec![joined(PAIRS), named], &["n AS SELECT segment, count(*) AS n FROM named GROUP BY segment"]);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    // 1 is as far before and 2 as far after as may be; 3 is too far, 4 has another key, and null is equal to nothing.
    append(&broker, "orders", 0, &[row(1, 7, 50, 20_000), row(2, Value::Null, 50, 20_000)]).await;
    let first = [row(21, 7, 5, 19_000), row(22, 7, 6, 30_000), row(23, 7, 7, 30_001), row(24, 7, 8, 20_000)];
    append(&broker, "payments", 2, &first).await;
    append(&broker, "payments", 0, &[row(25, 8, 5, 20_000), row(26, Value::Null, 5, 20_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    assert_eq!(ids(&broker, "pairs").await, [(Some(1), Some(21)), (Some(1), Some(22)), (Some(1), Some(24))]);
    engine.stop().await;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    // After a restart the others still wait.
    append(&broker, "orders", 0, &[row(3, 8, 50, 20_500), row(4, 7, 50, 20_001)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    let of_four = [(Some(4), Some(22)), (Some(4), Some(23)), (Some(4), Some(24))];
    let pairs = ids(&broker, "pairs").await;
    assert_eq!(pairs[3..], [[(Some(3), Some(25))].as_slice(), &of_four].concat());
    let open: Vec<i64> = values(&broker, "pairs").await.iter().map(|value| value["open"].as_i64().unwrap()).collect();
    assert_eq!(open.len(), 7);
    assert!(open.contains(&45) && open.contains(&44) && open.contains(&42), "{open:?}");
    assert_eq!(read(&engine, "n").await, [["∅", "1"], ["gold", "5"]], "what else ON says, and a table behind it");
    let named = records(&broker, "named").await;
    assert!(named.iter().filter(|(_, record)| record.key.as_deref() == Some(b"gold")).count() == 5);
    let status = engine.stream_status();
    let status = status.iter().find(|status| status.stream == "pairs").unwrap().derived.clone().unwrap();
    assert_eq!(
        (status.sources, status.late_topic.as_deref()),
        (vec!["orders".into(), "payments".into()], Some("pairs.late"))
    );
    assert_eq!((status.written, status.lag_records, status.positions.len()), (7, 0, 2));
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The watermark is the least of all partitions; what is behind it by more than the lateness is late, and rows that nobody can
/// come for any more go.
#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_told_and_rows_wait_no_longer_than_they_must() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let engine = Engine::start(broker.clone(), joins(vec![joined(PAIRS)], &[])).await.unwrap();
    append(&broker, "orders", 0, &[row(1, 7, 50, 0), row(2, 7, 50, 100_000)]).await;
    append(&broker, "payments", 0, &[row(21, 7, 5, 0)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    // The other stream has not come so far.
    append(&broker, "orders", 0, &[row(3, 7, 50, 1_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    append(&broker, "payments", 0, &[row(22, 7, 5, 1_000_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    // Now event time stands at 100 s, and 98 s are closed.
    append(&broker, "orders", 0, &[row(4, 7, 50, 97_999), row(5, 7, 50, 98_000)]).await;
    append(&broker, "payments", 0, &[row(23, 7, 5, 97_999), row(24, 7, 5, 98_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    let expected = [(1, 21), (3, 21), (5, 24)].map(|(order, payment)| (Some(order), Some(payment)));
    assert_eq!(ids(&broker, "pairs").await, expected);
    let late = records(&broker, "pairs.late").await;
    let place = |(_, record): &(i32, Record)| ["stream", "partition", "offset"].map(|name| header(record, name));
    let mut late: Vec<[String; 3]> = late.iter().map(place).collect();
    late.sort();
    assert_eq!(late, [["orders", "0", "3"], ["payments", "0", "2"]].map(|one| one.map(str::to_string)));
    append(&broker, "orders", 0, &[row(6, 1, 50, 1_000_000)]).await;
    append(&broker, "payments", 0, &[row(26, 2, 5, 1_000_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    assert_eq!(waiting(&broker, "pairs"), (3, 0), "6, 22 and 26 alone");
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    let counts = engine.quality().await.unwrap();
    let late = counts.iter().filter(|count| count.stream == "pairs" && count.action == QualityAction::Late);
    assert_eq!(late.map(|count| (count.rule.as_str(), count.records)).collect::<Vec<_>>(), [("late", 2)]);
    let status = engine.stream_status().into_iter().find(|status| status.stream == "pairs").unwrap().derived;
    assert_eq!(status.unwrap().late, 2);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_match_are_told_once_when_none_can_come_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(BASE_MS);
    let broker = open_broker_at(dir.path(), clock.clone()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let every = StreamConfig { idle_timeout_ms: 200, ..joined(EVERY) };
    let config =
        joins(vec![every], &["by_second AS SELECT count(*) AS n FROM every GROUP BY TUMBLE(ts, INTERVAL '1' SECOND)"]);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    let orders =
        [row(1, 7, 50, 0), row(2, 8, 50, 0), row(3, Value::Null, 50, 0), row(4, 7, 9, 0), row(5, 8, 50, 11_999)];
    append(&broker, "orders", 0, &orders).await;
    append(&broker, "payments", 0, &[row(21, 7, 5, 3_000), row(22, 8, 0, 3_000), row(23, 1, 5, 12_000)]).await;
    engine.wait_fresh("every", 20_000).await.unwrap();
    // At 11,999 behind which 2 s are open: 1 has met one, 2 has not, as ON leaves 22 out, but may still.
    assert_eq!(ids(&broker, "every").await, [(Some(1), Some(21))]);
    assert_eq!(waiting(&broker, "every").1, 3);
    engine.stop().await;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "orders", 0, &[row(6, 8, 50, 12_001)]).await;
    append(&broker, "payments", 0, &[row(24, 7, 5, 12_001), row(25, 8, 5, 11_000)]).await;
    until(&broker, "every", 5).await;
    let told = [(1, Some(21)), (2, None), (3, None), (5, Some(25)), (6, Some(25))].map(|(o, p)| (Some(o), p));
    assert_eq!(ids(&broker, "every").await, told);
    // Nobody comes: both streams are idle, and the latest of all decides.
    append(&broker, "payments", 0, &[row(26, 100, 5, 60_000)]).await;
    append(&broker, "orders", 0, &[row(7, 7, 50, 30_000)]).await;
    engine.wait_fresh("every", 20_000).await.unwrap();
    clock.advance(1_000);
    until(&broker, "every", 6).await;
    assert_eq!(ids(&broker, "every").await[5], (Some(7), None));
    assert_eq!(waiting(&broker, "every").1, 0);
    assert!(records(&broker, "by_second.late").await.is_empty(), "who reads it allows for rows that waited");
    let counted: u64 = read(&engine, "by_second").await.iter().map(|row| row[2].parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 6);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A row meets one in the very commit that would tell it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_has_just_met_one_is_not_told_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let engine = Engine::start(broker.clone(), joins(vec![joined(EVERY)], &[])).await.unwrap();
    append(&broker, "payments", 0, &[row(21, 9, 5, 9_000)]).await;
    append(&broker, "orders", 0, &[row(1, 7, 50, 9_000), row(2, 8, 50, 1_000_000)]).await;
    engine.wait_fresh("every", 20_000).await.unwrap();
    assert_eq!((ids(&broker, "every").await, waiting(&broker, "every").1), (vec![], 2));
    append(&broker, "payments", 0, &[row(22, 7, 5, 9_500), row(23, 9, 5, 1_000_000)]).await;
    engine.wait_fresh("every", 20_000).await.unwrap();
    assert_eq!(ids(&broker, "every").await, [(Some(1), Some(22))]);
    assert_eq!(waiting(&broker, "every").1, 1, "2 alone");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// One commit tells a few rows alone, and the next goes on behind them: but what the first one lists may lie before.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_listed_while_others_are_told_alone_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let engine = Engine::start(broker.clone(), joins(vec![joined(EVERY)], &[])).await.unwrap();
    append(&broker, "payments", 0, &[row(100, 7, 5, 1_000_000)]).await;
    let many: Vec<String> = (1..=50).map(|id| row(id, 1_000 + id, 50, 9_000)).collect();
    append(&broker, "orders", 0, &many).await;
    engine.wait_fresh("every", 20_000).await.unwrap();
    assert_eq!(waiting(&broker, "every").1, 50);
    // 51 comes in the step that lets all before it be told, and is earlier than they are.
    append(&broker, "orders", 0, &[row(51, 2_000, 50, 8_000), row(52, 2_001, 50, 1_000_000)]).await;
    until(&broker, "every", 51).await;
    assert_eq!(ids(&broker, "every").await, (1..=51).map(|id| (Some(id), None)).collect::<Vec<_>>());
    assert_eq!(waiting(&broker, "every").1, 1, "52 alone");
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_meet_too_many_or_cannot_be_judged_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let judged = joined(
        "judged AS SELECT o.id AS oid, p.id AS pid, o.ts FROM orders o \
         LEFT JOIN payments p WITHIN 1 SECOND ON o.k = p.k AND 100 / (p.amount - o.amount) > 0",
    );
    let keyed = joined(
        "keyed AS SELECT o.id AS oid, p.id AS pid, 100 / (p.amount - 5) AS share, o.ts FROM orders o \
         JOIN payments p WITHIN 1 SECOND ON 10 / o.k = p.k",
    );
    let engine = Engine::start(broker.clone(), joins(vec![judged, keyed, joined(PAIRS)], &[])).await.unwrap();
    let many: Vec<String> = (0..MEETINGS_MAX as i64).map(|id| row(1_000 + id, 7, 5, 500)).collect();
    let orders = [row(1, 7, 4, 0), row(2, 8, 5, 0), row(3, 8, 4, 0), row(4, 0, 1, 0), row(5, 1, 1, 0)];
    let steps: [(&str, &[String]); 5] = [
        ("payments", &many),
        ("payments", &[row(21, 8, 5, 500), row(22, 10, 5, 500), row(23, 10, 6, 500)]),
        ("orders", &orders),
        ("payments", &[row(24, 7, 5, 500)]),
        ("orders", &[row(6, 7, 4, 0)]),
    ];
    for (topic, rows) in steps {
        append(&broker, topic, 0, rows).await;
        for stream in ["pairs", "judged", "keyed"] {
            engine.wait_fresh(stream, 20_000).await.unwrap();
        }
    }
    let of = |pairs: &[(Option<i64>, Option<i64>)], order: i64| pairs.iter().filter(|(o, _)| *o == Some(order)).count();
    let pairs = ids(&broker, "pairs").await;
    assert_eq!((of(&pairs, 1), of(&pairs, 6)), (MEETINGS_MAX + 1, 0), "one more came when 1 waited");
    let refused = async |stream: &str| -> Vec<(String, String)> {
        let all = records(&broker, &format!("{stream}.rejected")).await;
        all.iter().map(|(_, record)| (header(record, "rule"), header(record, "offset"))).collect()
    };
    let one = |rule: &str, offset: &str| (rule.to_string(), offset.to_string());
    assert_eq!(refused("pairs").await, [one("too_many", "5")]);
    assert_eq!(refused("judged").await, [one("expression", "1"), one("too_many", "5")]);
    let judged = ids(&broker, "judged").await;
    assert_eq!((of(&judged, 2), of(&judged, 3)), (0, 1));
    // 4 divides by its key; 5 meets 22, of which the SELECT cannot be computed, and 23.
    assert_eq!(refused("keyed").await, [one("expression", "3"), one("expression", "4")]);
    assert_eq!(ids(&broker, "keyed").await, [(Some(5), Some(23))]);
    let (_, second) = &records(&broker, "keyed.rejected").await[1];
    let shown: Value = serde_json::from_slice(second.value.as_deref().unwrap()).unwrap();
    assert_eq!((&shown["o.id"], &shown["p.id"]), (&json!(5), &json!(22)), "both sides are shown");
    assert_eq!(header(second, "made_of"), "columns");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A stream meets itself: who comes within a second after whom.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_joined_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 2).await;
    let next = joined(
        "next AS SELECT a.id AS oid, b.id AS pid, b.ts FROM orders a JOIN orders b ON a.k = b.k \
         AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '1' SECOND",
    );
    let engine = Engine::start(broker.clone(), joins(vec![next], &[])).await.unwrap();
    append(&broker, "orders", 0, &[row(1, 7, 0, 0), row(2, 7, 0, 1_000), row(3, 8, 0, 0)]).await;
    append(&broker, "orders", 1, &[row(4, 7, 0, 500), row(5, 7, 0, 1_001), row(6, 8, 0, 0)]).await;
    engine.wait_fresh("next", 20_000).await.unwrap();
    let pairs = [(1, 2), (1, 4), (2, 5), (4, 2), (4, 5)].map(|(a, b)| (Some(a), Some(b)));
    assert_eq!(ids(&broker, "next").await, pairs);
    engine.stop().await;
    broker.stop().await.unwrap();
}

const BOTH: &str = "both WITH (lateness = '2 seconds') AS \
     SELECT o.id AS oid, p.id AS pid, o.ts FROM orders o JOIN payments p WITHIN 1 SECOND ON o.k = p.k \
     UNION ALL SELECT id, -1 AS pid, ts FROM orders WHERE amount = 9 \
     UNION ALL SELECT o.id AS a, p.id AS b, coalesce(o.ts, p.ts) AS ts FROM orders o FULL JOIN payments p ON o.k = p.k \
     AND p.ts BETWEEN o.ts + INTERVAL '5' SECOND AND o.ts + INTERVAL '10' SECOND";

/// Each SELECT of a UNION ALL joins for itself; all that it left goes with the stream.
#[tokio::test(flavor = "multi_thread")]
async fn sql_declares_and_drops_a_stream_of_several_joins() {
    let dir = tempfile::tempdir().unwrap();
    let config = joins(Vec::new(), &[]);
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    append(&broker, "orders", 0, &[row(1, 7, 50, 0), row(2, 7, 9, 1_500)]).await;
    append(&broker, "payments", 0, &[row(21, 7, 5, 1_000), row(22, 7, 5, 6_000)]).await;
    let create = format!("CREATE STREAM {BOTH}");
    assert_eq!(done(&engine, &create).await, ["created"]);
    engine.wait_fresh("both", 20_000).await.unwrap();
    let pair = |(order, payment): (i64, i64)| (Some(order), Some(payment));
    // Orders that 21 could meet by the last SELECT would be late: it is told alone at once.
    let first = [(1, 21), (1, 22), (2, -1), (2, 21)].map(pair);
    assert_eq!(ids(&broker, "both").await, [&[(None, Some(21))], &first[..]].concat());
    assert_eq!(waiting(&broker, "both"), (8, 1), "twice four wait, and 2 has met none by the last SELECT");
    stop(broker, engine).await;
    let (broker, engine) = start(dir.path(), config).await;
    append(&broker, "payments", 0, &[row(23, 7, 5, 7_000)]).await;
    append(&broker, "orders", 0, &[row(3, 1, 0, 100_000)]).await;
    append(&broker, "payments", 0, &[row(24, 2, 0, 100_000)]).await;
    engine.wait_fresh("both", 20_000).await.unwrap();
    let every = [(1, 21), (1, 22), (1, 23), (2, -1), (2, 21), (2, 23)].map(pair);
    let every = [&[(None, Some(21)), (None, Some(24))], &every[..]].concat();
    assert_eq!(ids(&broker, "both").await, every);
    let told = || engine.stream_status().into_iter().find_map(|status| status.derived).unwrap();
    // Counts are told a moment after their commit.
    let began = std::time::Instant::now();
    while told().written < 8 && began.elapsed().as_secs() < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!((told().sources, told().written), (vec!["orders".to_string(), "payments".into()], 8));
    let both = engine.streams().into_iter().find(|stream| stream.name() == "both").unwrap();
    assert_eq!(both.config().lateness_ms, 12_000, "the widest interval is allowed for");
    assert_eq!(done(&engine, "DROP STREAM both").await, ["dropped"]);
    assert_eq!(waiting(&broker, "both"), (0, 0));
    assert!(broker.catalog().topic("both.late").is_none());
    assert_eq!(done(&engine, &create).await, ["created"]);
    engine.wait_fresh("both", 20_000).await.unwrap();
    assert_eq!(ids(&broker, "both").await, every, "it begins anew");
    stop(broker, engine).await;
}

/// Rows that another definition left cannot be read; positions are kept, so that nothing is written twice.
#[tokio::test(flavor = "multi_thread")]
async fn another_definition_begins_with_no_rows_and_another_topic_takes_its_rows_along() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 1).await;
    create(&broker, "payments", 1).await;
    let engine = Engine::start(broker.clone(), joins(vec![joined(PAIRS)], &[])).await.unwrap();
    append(&broker, "orders", 0, &[row(1, 7, 50, 0)]).await;
    append(&broker, "payments", 0, &[row(21, 7, 5, 0)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    engine.stop().await;
    let wider = PAIRS.replace("'10' SECOND", "'20' SECOND");
    let engine = Engine::start(broker.clone(), joins(vec![joined(&wider)], &[])).await.unwrap();
    append(&broker, "orders", 0, &[row(2, 7, 50, 0)]).await;
    append(&broker, "payments", 0, &[row(22, 7, 5, 15_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    assert_eq!(ids(&broker, "pairs").await, [(Some(1), Some(21)), (Some(2), Some(22))]);
    broker.catalog().delete("payments").await.unwrap();
    create(&broker, "payments", 1).await;
    append(&broker, "payments", 0, &[row(31, 7, 5, 1_000)]).await;
    engine.wait_fresh("pairs", 20_000).await.unwrap();
    until(&broker, "pairs", 3).await;
    assert_eq!(ids(&broker, "pairs").await[2], (Some(2), Some(31)));
    assert_eq!(waiting(&broker, "pairs").0, 2);
    engine.stop().await;
    broker.stop().await.unwrap();
}
