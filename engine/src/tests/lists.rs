//! Aggregates that give lists: how they are told and read, what orders them, and their bounds.

use super::windows::{MINUTE, topic};
use super::*;
use crate::check;
use crate::keyed::{ARRAY_MAX, LIST_BYTES_MAX};
use crate::top_k::COUNTERS;

#[test]
fn mistakes_say_what_to_write() {
    let cases = [
        ("v AS SELECT genre, string_agg(genre, ',') AS x FROM s GROUP BY genre", "array_to_string(array_agg"),
        ("v AS SELECT nth_value(uid, 2) AS x FROM s", "array_agg(…)[2]"),
        ("v AS SELECT top_k(uid, 1000) AS x FROM s", "1 to 100 values, not 1000"),
        ("v AS SELECT top_k(uid, uid) AS x FROM s", "how many values is a number"),
        ("v AS SELECT top_k(uid) AS x FROM s", "top_k(genre, 3)"),
        ("v AS SELECT last(uid ORDER BY price) AS x FROM s", "goes by event time"),
        ("v AS SELECT first(DISTINCT uid) AS x FROM s", "leave DISTINCT out"),
        (
            "v AS SELECT string_to_array(genre, ',') AS k, count(*) AS n FROM s GROUP BY string_to_array(genre, ',')",
            "key 'k'",
        ),
        ("v AS SELECT array_agg(string_to_array(genre, ',')) AS x FROM s", "lists of plain values"),
        ("v AS SELECT sum(uid ORDER BY ts) AS x FROM s", "ORDER BY"),
    ];
    for (view, expected) in cases {
        let mistakes = check(&config(&[view]));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{view}: {mistakes:?}");
    }
}

/// Rows come out of order, over partitions and restarts: event time decides, then partition and offset.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_arrays_in_topic_and_answer_and_go_by_event_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let config = config(&[
        "v AS SELECT genre, array_agg(uid) AS users, first(uid) AS f, last(uid) AS l, top_k(amount, 2) AS top, \
         array_to_string(array_agg(uid), '-') AS line FROM s GROUP BY genre HAVING last(uid) > 0",
        "w AS SELECT array_agg(price) FILTER (WHERE uid > 90) AS none, first(string_to_array(genre, 'a')) AS words \
         FROM s GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)",
    ]);
    let mut engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    append(&broker, "events", 1, &[event(5, "a", 7, 30), event(6, "a", 7, 10)]).await;
    read(&engine, "v").await;
    append(&broker, "events", 0, &[event(3, "a", 9, 30), event(4, "a", 8, 30), event(1, "a", 9, 20)]).await;
    read(&engine, "v").await;
    engine.stop().await;
    engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "events", 1, &[event(2, "a", 9, 5)]).await;
    let row = ["a", "[2, 6, 1, 3, 4, 5]", "2", "5", "[{value: 9, count: 3}, {value: 7, count: 2}]", "2-6-1-3-4-5"];
    assert_eq!(read(&engine, "v").await, [row]);
    let told = topic(&broker, "v").await.pop().unwrap().1.unwrap();
    let value = r#"{"genre":"a","users":[2,6,1,3,4,5],"f":2,"l":5,"top":[{"value":9,"count":3},{"value":7,"count":2}],"line":"2-6-1-3-4-5"}"#;
    assert_eq!(told, value);
    assert_eq!(read(&engine, "w").await[0][2..], ["∅", "[, ]"]);
    for request in [
        ReadRequest { order: vec![("users".into(), false)], ..ReadRequest::default() },
        ReadRequest { keys: vec![("users".into(), "[2]".into())], ..ReadRequest::default() },
    ] {
        let error = engine.read("v", request).await.unwrap_err();
        assert!(error.kind == crate::ErrorKind::BadRequest && error.message.contains("is a list"), "{error}");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A group that is full takes no more rows; a window of many panes that would be longer is told as one that cannot be computed.
#[tokio::test(flavor = "multi_thread")]
async fn lists_have_a_limit_per_group() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let engine = Engine::start(
        broker.clone(),
        config(&[
            "v AS SELECT genre, count(*) AS n, cardinality(array_agg(uid)) AS c FROM s WHERE genre <> 't' GROUP BY genre",
            "h AS SELECT count(*) AS n, cardinality(array_agg(uid)) AS c FROM s WHERE genre = 'a' \
             GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)",
            "t AS SELECT count(DISTINCT repeat('x', amount + uid)) AS n FROM s WHERE genre = 't' \
             GROUP BY SESSION(ts, INTERVAL '1' HOUR)",
        ]),
    )
    .await
    .unwrap();
    let max = ARRAY_MAX as i64;
    let many = |count: i64, at_ms: i64| (0..count).map(|uid| event(uid, "a", 1, at_ms)).collect::<Vec<_>>();
    append(&broker, "events", 0, &many(max - 1, 0)).await;
    read(&engine, "v").await;
    append(&broker, "events", 0, &[many(2, MINUTE), vec![event(1, "b", 1, 0)]].concat()).await;
    read(&engine, "v").await;
    append(&broker, "events", 0, &many(1, MINUTE)).await;
    let all = max.to_string();
    assert_eq!(read(&engine, "v").await, [["a", all.as_str(), all.as_str()], ["b", "1", "1"]]);
    // The windows from 9:59 and 10:01 are short enough, that from 10:00 is not.
    let counted: Vec<String> = read(&engine, "h").await.iter().map(|row| row[3].clone()).collect();
    assert_eq!(counted, [(max - 1).to_string(), "3".into()]);
    let refused = records(&broker, "s.rejected").await;
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|(_, record)| header(record, "rule") == "view:v"));
    assert!(header(&refused[0].1, "reason").contains("array_agg"));
    append(&broker, "events", 0, &[event(1, "z", 1, 10 * MINUTE)]).await;
    read(&engine, "h").await;
    let refused = records(&broker, "s.rejected").await;
    assert_eq!((refused.len(), header(&refused[2].1, "rule")), (3, "view:h".to_string()));

    let half = LIST_BYTES_MAX as i64 / 2 - 10;
    for uid in 1..4 {
        append(&broker, "events", 0, &[event(uid, "t", half, 10 * MINUTE)]).await;
        read(&engine, "t").await;
    }
    assert_eq!(read(&engine, "t").await[0][2], "2", "texts count by their bytes");
    assert_eq!(records(&broker, "s.rejected").await.len(), 4);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// More different values than are counted: what is frequent is found, and no count is wrong by more than is said.
#[tokio::test(flavor = "multi_thread")]
async fn the_most_frequent_of_many_values_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let views = [
        "v AS SELECT top_k(uid, 2) AS top, count(*) AS n FROM s",
        "h AS SELECT top_k(uid, 2) AS top, count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' SECOND, INTERVAL '30' SECOND)",
    ];
    let engine = Engine::start(broker.clone(), config(&views)).await.unwrap();
    let uid = |at: i64| match at % 5 {
        0 => -1,
        1 if at % 2 == 0 => -2,
        _ => at * 7_919 % 5_003,
    };
    for round in 0..20_i64 {
        let values: Vec<String> = (0..100).map(|at| round * 100 + at).map(|at| event(uid(at), "a", 1, at)).collect();
        append(&broker, "events", 0, &values).await;
        read(&engine, "v").await;
    }
    let most = 2_000 / (COUNTERS as i64 + 1);
    let mut rows = read(&engine, "v").await;
    rows.extend(read(&engine, "h").await.iter().filter(|row| row[3] == "2000").map(|row| row[2..].to_vec()));
    assert!(rows.len() > 20);
    for row in rows {
        let numbers: Vec<i64> =
            row[0].split(|c: char| !c.is_ascii_digit() && c != '-').filter_map(|part| part.parse().ok()).collect();
        assert_eq!((row[1].as_str(), numbers[0], numbers[2]), ("2000", -1, -2), "{row:?}");
        assert!((400 - most..=400).contains(&numbers[1]) && (200 - most..=200).contains(&numbers[3]), "{row:?}");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}
