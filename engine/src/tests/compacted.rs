//! Compacted topics under the engine: tables, views and what reads them again stay as they are when compaction has been there.

use super::derived::{append_keyed, derived, sql, values, with};
use super::*;

/// What has the broker compact everything but the newest batch.
async fn compact(broker: &Arc<Broker>, topic: &str, time: i64) {
    let eager = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "1"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "0"),
    ];
    let eager = eager.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    broker.catalog().set_config(topic, eager).await.unwrap();
    for partition in broker.catalog().topic(topic).unwrap().partitions().iter() {
        seal(broker, topic, (partition.index(), time)).await;
    }
    broker.compact().await.unwrap();
}

/// One more record, later than all before it, which seals them.
async fn seal(broker: &Arc<Broker>, topic: &str, (partition, time): (i32, i64)) {
    let mut builder = BatchBuilder::new();
    builder.push(BASE_MS + time * 1_000_000_000, Some(b"seal"), None, &[]);
    let partition = broker.catalog().topic(topic).unwrap().partition(partition).unwrap();
    let append = Append { partition, batch: builder.build().unwrap(), origin: Origin::Internal };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_the_same_after_compaction_and_read_again_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    create(&broker, "people", 2).await;
    for round in 0..40_i64 {
        for uid in 0..6_i64 {
            let gone = uid == 5 && round == 39;
            let row = (!gone).then(|| format!(r#"{{"segment":"s{uid}-{round}"}}"#));
            append_keyed(&broker, "people", (uid % 2) as i32, &[(&uid.to_string(), row)]).await;
        }
    }
    let config = with(vec![derived("d AS SELECT s.uid, s.ts, u.segment FROM s LEFT JOIN users u USING (uid)")], &[]);
    let before = records(&broker, "people").await.len();
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    let all = "SELECT uid, segment FROM users ORDER BY uid";
    let expected: Vec<Vec<String>> = (0..5).map(|uid| vec![uid.to_string(), format!("s{uid}-39")]).collect();
    assert_eq!(sql(&engine, &["users"], all).await, expected);
    compact(&broker, "people", 1).await;
    // the second pass takes the tombstones, whose time is over at once
    compact(&broker, "people", 2).await;
    let left = records(&broker, "people").await;
    assert!(before == 240 && left.len() < 12, "{} of {before} records are left", left.len());
    assert!(left.iter().all(|(_, record)| record.key.as_deref() != Some(b"5")), "the tombstone is gone");
    assert_eq!(sql(&engine, &["users"], all).await, expected, "what was read stays");
    append_keyed(&broker, "people", 1, &[("1", Some(r#"{"segment":"after"}"#.into()))]).await;
    append(&broker, "events", 0, &[event(1, "g", 1, 0), event(2, "g", 1, 0), event(5, "g", 1, 0)]).await;
    engine.wait_fresh("users", 20_000).await.unwrap();
    engine.wait_fresh("d", 20_000).await.unwrap();
    engine.stop().await;
    // another declaration reads the topic again, over its gaps
    let mut changed = config;
    changed.tables[0].columns[1].from = Some("segment".into());
    changed.tables[0].columns.pop();
    let engine = Engine::start(broker.clone(), changed).await.unwrap();
    let mut expected = expected;
    expected[1][1] = "after".into();
    assert_eq!(sql(&engine, &["users"], all).await, expected, "read again");
    assert!(!values(&broker, "d").await.is_empty());
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_views_topic_stops_growing_and_keeps_its_newest_rows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let view = "by_genre AS SELECT genre, count(*) AS n FROM s GROUP BY genre";
    let engine = Engine::start(broker.clone(), config(&[view])).await.unwrap();
    for round in 0..60 {
        append(&broker, "events", 0, &[event(round, "jazz", 1, round), event(round, "rock", 1, round)]).await;
        read(&engine, "by_genre").await;
    }
    let newest = |all: Vec<(i32, Record)>| -> BTreeMap<_, _> {
        all.into_iter().filter_map(|(_, record)| Some((record.key?, record.value?))).collect()
    };
    let written = records(&broker, "by_genre").await;
    let before = broker.catalog().topic("by_genre").unwrap().partition(0).unwrap().size_bytes();
    compact(&broker, "by_genre", 1).await;
    let left = records(&broker, "by_genre").await;
    let after = broker.catalog().topic("by_genre").unwrap().partition(0).unwrap().size_bytes();
    assert!(written.len() > 20 && left.len() <= 4, "{} of {} records are left", left.len(), written.len());
    assert!(after < before / 5, "{before} bytes became {after}");
    assert_eq!(newest(left), newest(written));
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "60"], ["rock", "60"]]);
    append(&broker, "events", 0, &[event(1, "jazz", 1, 61)]).await;
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "61"], ["rock", "60"]]);
    engine.stop().await;
    broker.stop().await.unwrap();
}
