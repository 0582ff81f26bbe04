//! Lists taken apart in FROM: rows of views and of derived streams, one for each item.

use super::derived::{derived, values, with};
use super::*;
use crate::check;

const WORDS: &str = "CROSS JOIN UNNEST(string_to_array(s.genre, ';')) AS u(word)";

#[test]
fn mistakes_say_what_to_write() {
    let cases = [
        (format!("v AS SELECT u.uid, count(*) AS n FROM s {} GROUP BY u.uid", WORDS.replace("word", "uid")), "otherwise"),
        ("v AS SELECT x, count(*) AS n FROM s CROSS JOIN UNNEST(s.genre) AS u(x) GROUP BY x".into(), "is no list"),
        ("v AS SELECT unnest(string_to_array(genre, ';')) AS x, count(*) AS n FROM s GROUP BY 1".into(), "position"),
        (
            "v AS SELECT unnest(string_to_array(genre, ';')) AS x, count(*) AS n FROM s GROUP BY unnest(string_to_array(genre, ';'))"
                .into(),
            "CROSS JOIN UNNEST",
        ),
    ];
    for (view, expected) in cases {
        let mistakes = check(&config(&[&view]));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{view}: {mistakes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_counts_items_and_tells_rows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let config = config(&[
        &format!(
            "v AS SELECT u.word, count(*) AS n, sum(amount) AS total FROM s {WORDS} WHERE word <> 'x' \
             GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), u.word HAVING count(*) < 9"
        ),
        &format!("d AS SELECT upper(word) AS w, count(DISTINCT uid) AS users FROM s {WORDS} GROUP BY upper(word)"),
        &format!("k AS SELECT count(*) AS n FROM s AS s {WORDS} GROUP BY word"),
        &format!("f AS SELECT sum(10 / CAST(word AS BIGINT)) AS n FROM s {WORDS} WHERE uid = 77"),
    ]);
    let mut engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a;b;a", 5, 0), event(2, "b;x", 7, 1), event(3, "x", 1, 2)]).await;
    append(&broker, "events", 0, &[r#"{"uid":4,"ts":1795168800003}"#.to_string()]).await;
    read(&engine, "v").await;
    engine.stop().await;
    engine = Engine::start(broker.clone(), config).await.unwrap();
    // Late with both of its items, and told once.
    append(&broker, "events", 0, &[event(1, "c", 1, 600_000)]).await;
    read(&engine, "v").await;
    append(
        &broker,
        "events",
        0,
        &[event(1, "a;b", 1, 5), event(77, "5;0;1", 1, 600_000), event(77, "5;2", 1, 600_000)],
    )
    .await;
    let rows: Vec<Vec<String>> = read(&engine, "v").await.into_iter().map(|row| row[2..].to_vec()).collect();
    assert_eq!(
        rows,
        [
            ["a", "2", "10"],
            ["b", "2", "12"],
            ["0", "1", "1"],
            ["1", "1", "1"],
            ["2", "1", "1"],
            ["5", "2", "2"],
            ["c", "1", "1"]
        ]
    );
    assert_eq!(read(&engine, "d").await[..3], [["0", "1"], ["1", "1"], ["2", "1"]]);
    assert_eq!(read(&engine, "k").await.last().unwrap(), &["x", "2"], "a key that is not selected keeps its name");
    assert_eq!(engine.views().iter().find(|view| view.name == "k").unwrap().keys, ["word"]);
    assert_eq!(read(&engine, "f").await, [["7"]], "a row counts with all its items or not at all");
    let late = records(&broker, "v.late").await;
    assert_eq!((late.len(), header(&late[0].1, "offset")), (1, "5".to_string()));
    let status = engine.status();
    let of = |view: &str| status.iter().find(|status| status.view == view).unwrap();
    // What has no item is left out, as is what has none that WHERE takes.
    let counted = of("v");
    assert_eq!((counted.rows_applied, counted.rows_filtered, counted.late, counted.failed), (5, 2, 1, 0));
    assert_eq!(of("f").failed, 1);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A row of which one item comes too late for its session, and another would not, is late with both; and so is one that only it would
/// have joined to an open session.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_in_sessions_with_all_its_items_or_late() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let engine = Engine::start(
        broker.clone(),
        config(&[&format!(
            "v AS SELECT word, count(*) AS n, sum(amount) AS total FROM s {WORDS} WHERE uid <> 9 \
             GROUP BY SESSION(ts, INTERVAL '1' MINUTE), word"
        )]),
    )
    .await
    .unwrap();
    append(
        &broker,
        "events",
        0,
        &[event(1, "a;a;c", 1, 0), format!(r#"{{"uid":2,"ts":{BASE_MS}}}"#), event(9, "a", 1, 0)],
    )
    .await;
    // Closes what ends before 55 s; the sessions of a and c end at 60.
    append(&broker, "events", 0, &[event(3, "d", 1, 65_000)]).await;
    read(&engine, "v").await;
    let values = [
        event(4, "a;b", 1, -30_000), // b would end at 30
        event(5, "a", 1, -85_000),   // would meet the row before only
        event(6, "a;c", 10, -20_000),
        event(7, "b;c", 1, 80_000),
    ];
    append(&broker, "events", 0, &values).await;
    let second = |text: &str| text[14..19].to_string();
    let rows: Vec<Vec<String>> = read(&engine, "v")
        .await
        .into_iter()
        .map(|row| [vec![second(&row[0]), second(&row[1])], row[2..].to_vec()].concat())
        .collect();
    assert_eq!(
        rows,
        [
            ["59:40", "01:00", "a", "3", "12"],
            ["59:40", "01:00", "c", "2", "11"],
            ["01:05", "02:05", "d", "1", "1"],
            ["01:20", "02:20", "b", "1", "1"],
            ["01:20", "02:20", "c", "1", "1"]
        ]
    );
    let late: Vec<String> =
        records(&broker, "v.late").await.iter().map(|(_, record)| header(record, "offset")).collect();
    assert_eq!(late, ["4", "5"], "each once");
    let status = engine.status().remove(0);
    assert_eq!((status.rows_applied, status.rows_filtered, status.late, status.failed), (4, 2, 2, 0));
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_stream_has_a_row_for_each_item() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let words = "words AS SELECT l.*, u.word, length(word) AS size FROM s AS l \
                 CROSS JOIN UNNEST(string_to_array(l.genre, ';')) AS u(word) WHERE u.word <> 'x'";
    let view = "v AS SELECT word, count(*) AS n, sum(size) AS size FROM words GROUP BY word";
    let engine = Engine::start(broker.clone(), with(vec![derived(words)], &[view])).await.unwrap();
    append(&broker, "events", 0, &[event(1, "aa;b;aa", 5, 0), event(2, "b;x", 7, 1), event(3, "x", 1, 2)]).await;
    assert_eq!(read(&engine, "v").await, [["aa", "2", "4"], ["b", "2", "2"]]);
    let written = values(&broker, "words").await;
    let names: Vec<&String> = written[0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["uid", "genre", "amount", "price", "ts", "word", "size"]);
    let all: Vec<(i64, &str)> =
        written.iter().map(|value| (value["uid"].as_i64().unwrap(), value["word"].as_str().unwrap())).collect();
    assert_eq!(all, [(1, "aa"), (1, "b"), (1, "aa"), (2, "b")]);
    engine.stop().await;
    broker.stop().await.unwrap();
}
