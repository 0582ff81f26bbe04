//! Streams that UNION ALL puts together.

use super::definitions::{done, rows_of, start, stop};
use super::derived::{append_keyed, derived, users, values, with};
use super::*;
use crate::{DeduplicateConfig, QualityAction, check};

/// Stream `p` over topic `plays`: who, ms, heard.
fn plays() -> StreamConfig {
    StreamConfig {
        name: "p".into(),
        topic: "plays".into(),
        columns: vec![column("who", "BIGINT", true), column("ms", "BIGINT", false), column("heard", "TIMESTAMP", true)],
        event_time: "heard".into(),
        lateness_ms: 10_000,
        idle_timeout_ms: 0,
        ..StreamConfig::default()
    }
}

fn play(who: i64, ms: i64, at_ms: i64) -> String {
    format!(r#"{{"who":{who},"ms":{ms},"heard":{}}}"#, BASE_MS + at_ms)
}

fn of_both(more: Vec<StreamConfig>, views: &[&str]) -> EngineConfig {
    let mut config = with(more, views);
    config.streams.insert(0, plays());
    config
}

const ALL: &str = "every AS SELECT uid, amount, 'event' AS origin, ts FROM s WHERE amount > 1 \
    UNION ALL SELECT p.who, 100 / p.ms AS share, coalesce(u.segment, 'play') AS what, p.heard \
    FROM p LEFT JOIN users u ON p.who = u.uid \
    UNION ALL SELECT uid, amount, 'again' AS origin, ts FROM s";
const BY_ORIGIN: &str = "by_origin AS SELECT origin, count(*) AS n, sum(amount) AS total FROM every GROUP BY origin";

#[test]
fn mistakes_say_what_to_write() {
    let cases = [
        ("d AS SELECT uid, ts FROM s UNION ALL SELECT who FROM p", "SELECT 2 gives 1 columns, the first one 2"),
        (
            "d AS SELECT uid, ts FROM s UNION ALL SELECT 'x' AS uid, heard FROM p",
            "column 'uid' is BIGINT in the first SELECT and VARCHAR in SELECT 2: CAST one of them",
        ),
        ("d AS SELECT uid, ts FROM s UNION ALL SELECT uid, ts FROM q", "no stream 'q'"),
        ("d AS SELECT uid, ts FROM s UNION SELECT who, heard FROM p", "write UNION ALL"),
        ("d AS SELECT uid, ts FROM s UNION ALL SELECT uid, ts FROM d", "no stream 'd'"),
    ];
    for (sql, expected) in cases {
        let mistakes = check(&of_both(vec![derived(sql)], &[]));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{sql}: {expected}: {mistakes:#?}");
    }
    let mut once = derived(ALL);
    once.deduplicate = Some(DeduplicateConfig { by: vec!["uid".into()], within_ms: 1 });
    let mistakes = check(&of_both(vec![once], &[]));
    assert!(mistakes.iter().any(|mistake| mistake.contains("derive another stream from this one")), "{mistakes:?}");
    let later = vec![derived("e AS SELECT * FROM every"), derived(ALL)];
    assert_eq!(check(&of_both(later, &[BY_ORIGIN])), [""; 0]);
    let circle = vec![derived("e AS SELECT * FROM s UNION ALL SELECT * FROM f"), derived("f AS SELECT * FROM e")];
    assert!(!check(&of_both(circle, &[])).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_selects_are_written_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    create(&broker, "plays", 3).await;
    create(&broker, "people", 1).await;
    append_keyed(&broker, "people", 0, &[("7", Some(r#"{"uid":7,"segment":"gold"}"#.into()))]).await;
    append(&broker, "events", 0, &[event(1, "a", 5, 0), event(2, "a", 1, 10)]).await;
    append(&broker, "plays", 2, &[play(7, 10, 5), play(8, 0, 6), play(9, 50, 7)]).await;
    let config = of_both(vec![derived(ALL)], &[BY_ORIGIN]);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    let wanted = [["again", "2", "6"], ["event", "1", "5"], ["gold", "1", "10"], ["play", "1", "2"]];
    assert_eq!(read(&engine, "by_origin").await, wanted, "a read waits for all of them");
    assert_eq!(broker.catalog().topic("every").unwrap().partitions().len(), 3, "as many as the largest source has");
    let first: serde_json::Value = values(&broker, "every").await.into_iter().find(|value| value["uid"] == 9).unwrap();
    assert_eq!(first, serde_json::json!({"uid": 9, "amount": 2, "origin": "play", "ts": "2026-11-20T10:00:00.007Z"}));
    engine.stop().await;
    for round in 0..3_i64 {
        let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
        append(&broker, "events", 0, &[event(1, "a", 2, 100 + round)]).await;
        append(&broker, "plays", 0, &[play(8, 20, 100 + round)]).await;
        let n = round + 1;
        let wanted = [
            ["again".into(), (2 + n).to_string(), (6 + 2 * n).to_string()],
            ["event".into(), (1 + n).to_string(), (5 + 2 * n).to_string()],
            ["gold".to_string(), "1".to_string(), "10".to_string()],
            ["play".into(), (1 + n).to_string(), (2 + 5 * n).to_string()],
        ];
        assert_eq!(read(&engine, "by_origin").await, wanted, "round {round}");
        let status = engine.stream_status().into_iter().find(|status| status.stream == "every").unwrap();
        assert_eq!(status.rejected_by_rule, BTreeMap::from([("expression".to_string(), 1)]));
        let derived = status.derived.unwrap();
        assert_eq!((derived.sources, derived.tables), (vec!["s".to_string(), "p".into()], vec!["users".to_string()]));
        assert_eq!((derived.lag_records, derived.written as i64, derived.filtered), (0, 5 + 3 * n, 1));
        engine.wait_fresh("data_quality", 20_000).await.unwrap();
        let counts = engine.quality().await.unwrap();
        let accepted = counts.iter().filter(|c| c.stream == "every" && c.action == QualityAction::Accept);
        assert_eq!(accepted.map(|count| count.records).sum::<u64>() as i64, 5 + 3 * n);
        engine.stop().await;
    }
    assert_eq!(records(&broker, "every.rejected").await.len(), 1);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_declares_and_drops_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[]);
    config.streams.push(plays());
    config.tables.push(users());
    let (broker, engine) = start(dir.path(), config.clone()).await;
    append(&broker, "events", 0, &[event(1, "a", 5, 0)]).await;
    append(&broker, "plays", 0, &[play(2, 50, 5)]).await;
    let script = format!("CREATE STREAM {ALL}; CREATE MATERIALIZED VIEW {BY_ORIGIN}");
    assert_eq!(done(&engine, &script).await, ["created"; 2]);
    let wanted = [["again", "1", "5"], ["event", "1", "5"], ["play", "1", "2"]];
    assert_eq!(read(&engine, "by_origin").await, wanted);
    stop(broker, engine).await;
    let (broker, engine) = start(dir.path(), config).await;
    append(&broker, "plays", 0, &[play(2, 50, 6)]).await;
    assert_eq!(read(&engine, "by_origin").await[2], ["play", "2", "4"]);
    assert_eq!(done(&engine, "DROP MATERIALIZED VIEW by_origin; DROP STREAM every").await, ["dropped"; 2]);
    assert_eq!(rows_of(&broker, "every"), 0);
    assert_eq!(done(&engine, &script).await, ["created"; 2]);
    assert_eq!(read(&engine, "by_origin").await, [["again", "1", "5"], ["event", "1", "5"], ["play", "2", "4"]]);
    stop(broker, engine).await;
}
